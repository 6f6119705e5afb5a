//! The program: settings, exit codes, migrations, and shutdown.

use std::fs;

use testkit::Process;

use crate::fixture::{Database, SOON, Shop};

/// Waits until the program exits, and returns its exit code and output.
async fn ends(process: Process) -> (Option<i32>, String) {
    let code = process.wait(SOON).await.unwrap().code();
    (code, fs::read_to_string(process.log()).unwrap())
}

#[tokio::test]
async fn invalid_settings_exit_with_64_and_one_line() {
    let database = Database::start().await;
    let good = || database.ledger(1, "redis://127.0.0.1:1");
    let bad = [
        (good().env("DATABASE_URL", ""), "DATABASE_URL"),
        (good().env("DATABASE_URL", "mysql://ann:secret@db/orders"), "DATABASE_URL"),
        (good().env("DATABASE_URL", "postgresql://ann:secret@db/orders?sslmode=prefer"), "sslmode"),
        (good().env("DATABASE_PASSWORD_FILE", "/nowhere"), "DATABASE_PASSWORD_FILE"),
        (good().env("DATABASE_CA_FILE", "/nowhere"), "DATABASE_CA_FILE"),
        (good().env("DRAIN_PERIOD", "0ms"), "DRAIN_PERIOD"),
        (good().env("PORT", "http"), "PORT"),
    ];
    for (launch, word) in bad {
        fs::remove_file(database.folder.path().join("ledger-1.log")).ok();
        let (code, log) = ends(launch.spawn().unwrap()).await;
        assert_eq!(code, Some(64), "{log}");
        assert!(log.lines().count() == 1 && log.contains(word), "{log}");
        assert!(!log.contains("secret"), "a password is in the log: {log}");
    }
}

#[tokio::test]
async fn migrate_creates_tables_once_when_several_run() {
    let database = Database::start().await;
    let migrate = |number| database.ledger(number, "redis://127.0.0.1:1").arg("migrate").spawn().unwrap();
    for run in [1, 2, 3].map(migrate) {
        let (code, output) = ends(run).await;
        assert_eq!(code, Some(0), "{output}");
    }
    assert_eq!(database.count("refinery_schema_history"), 1);
    assert_eq!(database.count("order_events"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_ends_with_0_when_asked_to_stop() {
    let shop = Shop::open(10).await;
    shop.start_ledger().await;
    shop.buy(0..5).await;
    let exit = shop.ledger(1).stop(SOON).await.unwrap();
    assert!(exit.success(), "{exit}{}", shop.log(1));
}
