//! The connection to PostgreSQL.

use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use deadpool_postgres::{Manager, ManagerConfig};
use rustls::RootCertStore;
use service::https;
use service::settings::{CaFile, in_file, positive_duration};
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Time without traffic after which the kernel asks whether the server still lives.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// How to reach PostgreSQL.
#[derive(Args, Clone)]
pub struct DatabaseSettings {
    /// The database: postgresql://USER@HOST[:PORT]/DATABASE. Connections use TLS, and the server's certificate must be
    /// valid for the host; sslmode=disable in the URL turns that off
    #[arg(long, env, hide_env_values = true)]
    database_url: DatabaseUrl,

    /// A file with the password in its first line, instead of the one in DATABASE_URL
    #[arg(long, env, value_parser = in_file::<Password>)]
    database_password_file: Option<Password>,

    /// A PEM file of the authorities that are trusted for PostgreSQL; those of the system if not set
    #[arg(long, env, value_parser = CaFile::parse)]
    database_ca_file: Option<CaFile>,

    /// Longest time to connect to PostgreSQL, and for a statement
    #[arg(long, env, value_parser = positive_duration, default_value = "10s")]
    database_timeout: Duration,
}

/// A valid URL of a database. It is never printed, because it may contain a password.
#[derive(Clone)]
struct DatabaseUrl {
    config: Config,
    tls: bool,
}

/// Why a text is not the URL of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// It cannot be parsed.
    #[error("is not of the form postgresql://USER@HOST[:PORT]/DATABASE")]
    Form,
    /// It asks for TLS only if the server offers it.
    #[error("has sslmode=prefer or allow, with which nothing is certain; use verify-full, or disable")]
    UncertainTls,
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        let mode =
            url.split_once("sslmode=").map(|(_, rest)| rest.split(['&', '#']).next().unwrap_or_default());
        let tls = match mode {
            None | Some("require" | "verify-ca" | "verify-full") => true,
            Some("disable") => false,
            Some(_) => return Err(InvalidDatabaseUrl::UncertainTls),
        };
        // The library has no words for verification: with rustls, a connection that requires TLS verifies everything.
        let known = url
            .replace("sslmode=verify-full", "sslmode=require")
            .replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = known.parse().map_err(|_| InvalidDatabaseUrl::Form)?;
        if config.get_hosts().is_empty() || config.get_dbname().is_none() || config.get_user().is_none() {
            return Err(InvalidDatabaseUrl::Form);
        }
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        Ok(Self { config, tls })
    }
}

/// A password. It is never printed.
#[derive(Clone)]
pub(crate) struct Password(pub(crate) String);

/// The password is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not be empty")]
pub(crate) struct EmptyPassword;

impl FromStr for Password {
    type Err = EmptyPassword;

    fn from_str(text: &str) -> Result<Self, EmptyPassword> {
        let first = text.lines().find(|line| !line.is_empty());
        first.map(|line| Self(line.to_owned())).ok_or(EmptyPassword)
    }
}

impl DatabaseSettings {
    /// Longest time for a statement.
    pub fn timeout(&self) -> Duration {
        self.database_timeout
    }

    fn config(&self) -> Config {
        let mut config = self.database_url.config.clone();
        if let Some(Password(password)) = &self.database_password_file {
            config.password(password);
        }
        config
            .application_name("flashsale-ledger")
            .connect_timeout(self.database_timeout)
            .keepalives_idle(KEEPALIVE_IDLE)
            // Without it, a statement to a server that vanished would wait for the kernel's retries, some 15 minutes.
            .tcp_user_timeout(self.database_timeout)
            .options(format!("-c statement_timeout={} -c timezone=UTC", self.database_timeout.as_millis()));
        config
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// Fails when the server does not answer in time, or refuses the login.
    pub async fn connect(&self) -> Result<Database, tokio_postgres::Error> {
        let config = self.config();
        let (client, connection) = if self.database_url.tls {
            let (client, connection) = config.connect(self.tls_connector()).await?;
            (
                client,
                tokio::spawn(
                    async move { connection.await.map_err(drop).ok().map(drop).unwrap_or_default() },
                ),
            )
        } else {
            let (client, connection) = config.connect(NoTls).await?;
            (
                client,
                tokio::spawn(
                    async move { connection.await.map_err(drop).ok().map(drop).unwrap_or_default() },
                ),
            )
        };
        let database = Database { client, connection };
        let limit = self.database_timeout.as_millis();
        database
            .client
            .batch_execute(&format!("SET statement_timeout = {limit}; SET TIME ZONE 'UTC'"))
            .await?;
        Ok(database)
    }

    /// Returns a manager for a pool of connections.
    pub(crate) fn manager(&self, config: ManagerConfig) -> Manager {
        let database = self.config();
        if self.database_url.tls {
            Manager::from_config(database, self.tls_connector(), config)
        } else {
            Manager::from_config(database, NoTls, config)
        }
    }

    fn tls_connector(&self) -> MakeRustlsConnect {
        let given = self.database_ca_file.as_ref().map(CaFile::authorities);
        // Without any authority no server is trusted, and the log says so.
        let authorities = given.or_else(https::system_authorities).unwrap_or_else(RootCertStore::empty);
        MakeRustlsConnect::new(https::client_config(authorities))
    }
}

/// An open connection. It ends when it is dropped.
pub struct Database {
    /// Sends statements.
    pub client: Client,
    connection: JoinHandle<()>,
}

impl Drop for Database {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<bool, InvalidDatabaseUrl> {
        url.parse().map(|DatabaseUrl { tls, .. }| tls)
    }

    #[test]
    fn database_url_uses_verified_tls_unless_disabled() {
        let url = |query: &str| parse(&format!("postgresql://shop@db.example/orders{query}"));
        for verified in
            ["", "?sslmode=require", "?sslmode=verify-full", "?sslmode=verify-ca&connect_timeout=3"]
        {
            assert_eq!(url(verified), Ok(true), "{verified}");
        }
        assert_eq!(url("?sslmode=disable"), Ok(false));
        assert_eq!(url("?sslmode=prefer"), Err(InvalidDatabaseUrl::UncertainTls));
    }

    #[test]
    fn database_url_names_host_user_and_database() {
        for bad in ["", "mysql://a@b/c", "postgresql://host/orders", "postgresql://shop@host"] {
            assert_eq!(parse(bad), Err(InvalidDatabaseUrl::Form), "{bad}");
        }
    }
}
