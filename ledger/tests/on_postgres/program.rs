//! The program: settings, exit codes, migrations, and shutdown.

use std::fs;

use reqwest::StatusCode;
use testkit::security::make_certificates;
use testkit::{Folder, Process, until};

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
async fn each_command_has_the_help_that_the_program_lists() {
    let database = Database::start().await;
    let help = async |arguments: &[&str]| {
        let launch = database.ledger(1, "redis://127.0.0.1:1");
        fs::remove_file(database.folder.path().join("ledger-1.log")).ok();
        ends(launch.args(arguments).spawn().unwrap()).await.1
    };
    let list = help(&["--help"]).await;
    for command in ["healthcheck", "migrate", "restore", "replay"] {
        let shown = help(&[command, "--help"]).await;
        let listed = format!("{command:<12} {}", shown.lines().next().unwrap());
        assert!(list.contains(&listed), "{listed:?} is not in:\n{list}");
        assert!(shown.contains(&format!("Usage: flashsale-ledger {command} ")), "{shown}");
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

/// Certificates for the name `localhost`, of a new authority.
fn certificates() -> Folder {
    let folder = Folder::temporary().unwrap();
    make_certificates(folder.path(), "localhost").unwrap();
    folder
}

#[tokio::test]
async fn certificate_of_postgres_is_verified() {
    let database = Database::start().await;
    let (ours, others) = (certificates(), certificates());
    let url = |host: &str, query: &str| {
        let address = database.postgres.url().replace("127.0.0.1", host);
        address.replace("?sslmode=disable", query)
    };
    let migrate = async |url: String, authority: &Folder| {
        fs::remove_file(database.folder.path().join("ledger-1.log")).ok();
        let launch = database.ledger(1, "redis://127.0.0.1:1").arg("migrate").env("DATABASE_URL", url);
        let launch = launch.env("DATABASE_CA_FILE", authority.path().join("ca.crt").display());
        ends(launch.spawn().unwrap()).await
    };

    // A server without TLS gets no login.
    let (code, log) = migrate(url("localhost", ""), &ours).await;
    assert!(code == Some(1) && log.contains("TLS"), "{code:?}: {log}");

    database.postgres.use_certificates(ours.path()).unwrap();
    let accepted = async || migrate(url("localhost", "?sslmode=verify-full"), &ours).await.0 == Some(0);
    until("the server offers TLS", SOON, accepted).await.unwrap();

    // Another name than that of the certificate, and another authority.
    for (url, authority) in [(url("127.0.0.1", ""), &ours), (url("localhost", "?sslmode=require"), &others)] {
        let (code, log) = migrate(url, authority).await;
        assert!(code == Some(1) && log.contains("certificate"), "{code:?}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ledger_writes_and_reads_over_tls() {
    let shop = Shop::open(20).await;
    let certificates = certificates();
    shop.database.postgres.use_certificates(certificates.path()).unwrap();
    let url = shop.database.postgres.url().replace("127.0.0.1", "localhost").replace("?sslmode=disable", "");
    let ledger = shop.database.ledger(1, &shop.stack.redis().seeds()).env("DATABASE_URL", url);
    let ledger = ledger.env("DATABASE_CA_FILE", certificates.path().join("ca.crt").display());
    let ledger = ledger.spawn().unwrap();
    shop.database.wait_for(1, "/readyz", StatusCode::OK).await;

    let orders = shop.buy(0..10).await;
    shop.database.wait_for_orders(10).await;

    shop.assert_orders(&orders);
    let read = reqwest::Client::new().get(shop.database.ledger_url(1) + "/sales/flash/totals");
    let read = read.bearer_auth(crate::fixture::TOKEN).send().await.unwrap();
    assert_eq!(read.status(), StatusCode::OK, "{}", ledger.log_tail());
    let connections = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                       WHERE application_name = 'flashsale-ledger' AND NOT ssl";
    assert_eq!(shop.database.postgres.sql(connections).unwrap(), "0", "connections without TLS");
}
