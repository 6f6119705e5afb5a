//! Creates and updates the tables. Several ledgers may do so at once: an advisory lock lets one after the other.

use anyhow::Context as _;
use clap::{Command, Parser};
use service::{connect, exit, settings};
use std::process::ExitCode;

use crate::database::{Database, DatabaseSettings};

const NAME: &str = "migrate";

/// Key of the advisory lock. Any number that no other program uses in this database.
const LOCK: i64 = 0x0066_6c61_7368_6c64;

mod embedded {
    refinery::embed_migrations!("migrations");
}

/// The subcommand, as shown in the program's help.
pub fn command() -> Command {
    Command::new(NAME).about("Creates or updates the tables in DATABASE_URL, and ends")
}

#[derive(Parser)]
#[command(name = NAME)]
struct Settings {
    #[command(flatten)]
    database: DatabaseSettings,
}

/// Runs the migrations if the command line asks for it, and returns its exit code; otherwise returns `None`.
pub async fn run_if_requested() -> Option<ExitCode> {
    let settings: Settings = settings::parse_subcommand(&command())?;
    connect::install_crypto_provider();
    let migrate = async {
        let mut database = settings.database.connect().await.context("DATABASE_URL")?;
        let applied = run(&mut database).await?;
        println!("{} migrations applied: {}", applied.len(), applied.join(", "));
        Ok(())
    };
    Some(exit::code(migrate.await))
}

/// Creates or updates the tables. Returns the migrations that were applied.
///
/// # Errors
/// Fails when a migration fails, or the tables are those of a newer release.
pub async fn run(database: &mut Database) -> anyhow::Result<Vec<String>> {
    let client = &mut database.client;
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await.context("the lock of the migrations")?;
    let report = embedded::migrations::runner().set_abort_divergent(true).run_async(client).await;
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await.context("the lock of the migrations")?;
    let report = report.context("the tables could not be migrated")?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}
