//! Settings of the connection to the Redis Cluster: addresses, login, TLS and timeouts.

use std::str::FromStr;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use rediscluster::ConnectOptions;

use super::ca_file::CaFile;
use super::{in_file, positive_duration};

/// How to reach the Redis Cluster. Each setting is valid, and all of them together are.
#[derive(Clone)]
pub struct RedisSettings(ConnectOptions);

impl RedisSettings {
    /// Converts to the options of the domain crate.
    pub fn connect_options(&self) -> ConnectOptions {
        self.0.clone()
    }
}

impl FromArgMatches for RedisSettings {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = RedisArguments::from_arg_matches(matches)?;
        let refused = |refusal| clap::Error::raw(ErrorKind::ArgumentConflict, refusal);
        given.connect_options().map(Self).map_err(refused)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for RedisSettings {
    fn augment_args(command: Command) -> Command {
        RedisArguments::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        RedisArguments::augment_args_for_update(command)
    }
}

/// The settings as they are parsed one by one.
#[derive(Args)]
struct RedisArguments {
    /// Redis servers to ask for the map of the cluster, comma-separated: redis://[USER:PASSWORD@]HOST[:PORT], or
    /// rediss:// for TLS. User, password and TLS of the first one apply to all
    #[arg(long, env, required = true, value_delimiter = ',', value_parser = seed, hide_env_values = true)]
    redis_url: Vec<ConnectionInfo>,

    /// The user to log in as, instead of the one in REDIS_URL
    #[arg(long, env)]
    redis_username: Option<String>,

    /// The password to log in with, instead of the one in REDIS_URL
    #[arg(long, env, conflicts_with = "redis_password_file", hide_env_values = true)]
    redis_password: Option<Password>,

    /// A file with the password in its first line, instead of REDIS_PASSWORD
    #[arg(long, env, value_parser = in_file::<FirstLine>)]
    redis_password_file: Option<FirstLine>,

    /// A file with CA certificates, as PEM, that rediss:// trusts instead of the system's
    // The file is read again for each connection.
    #[arg(long, env, value_parser = CaFile::parse)]
    redis_ca_file: Option<CaFile>,

    /// Longest time to connect to a Redis server and log in
    #[arg(long, env, value_parser = positive_duration, default_value = "1s")]
    redis_connect_timeout: Duration,

    /// Longest wait for a reply of Redis, in addition to the barrier's timeout
    #[arg(long, env, value_parser = positive_duration, default_value = "1s")]
    redis_response_timeout: Duration,

    /// Longest wait of a barrier for the replicas
    #[arg(long, env, value_parser = positive_duration, default_value = "500ms")]
    redis_barrier_timeout: Duration,
}

/// Settings that are valid one by one but not together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum ConflictingSettings {
    #[error("REDIS_CA_FILE is set, but REDIS_URL is not rediss://: nothing would be encrypted")]
    CaFileWithoutTls,
    #[error("a Redis user needs a password: REDIS_PASSWORD, REDIS_PASSWORD_FILE or the one in REDIS_URL")]
    UserWithoutPassword,
}

impl RedisArguments {
    fn connect_options(mut self) -> Result<ConnectOptions, ConflictingSettings> {
        let first = self.redis_url.first().expect("REDIS_URL is required");
        let first = self.with_login(first.clone())?;
        if self.redis_ca_file.is_some() && !matches!(first.addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(ConflictingSettings::CaFileWithoutTls);
        }
        self.redis_url[0] = first;
        Ok(ConnectOptions {
            seeds: self.redis_url,
            ca_file: self.redis_ca_file.map(|file| file.path),
            connect_timeout: self.redis_connect_timeout,
            response_timeout: self.redis_response_timeout,
            barrier_timeout: self.redis_barrier_timeout,
        })
    }

    /// Applies user and password. A user without a password is an error: the Redis library would silently not log in.
    fn with_login(&self, seed: ConnectionInfo) -> Result<ConnectionInfo, ConflictingSettings> {
        let mut login = seed.redis_settings().clone();
        if let Some(user) = &self.redis_username {
            login = login.set_username(user);
        }
        let in_file = self.redis_password_file.as_ref().map(|FirstLine(password)| password);
        if let Some(Password(password)) = self.redis_password.as_ref().or(in_file) {
            login = login.set_password(password);
        }
        match (login.username(), login.password()) {
            (Some(_), None) => Err(ConflictingSettings::UserWithoutPassword),
            _ => Ok(seed.set_redis_settings(login)),
        }
    }
}

/// A password. It is never printed.
#[derive(Clone)]
struct Password(String);

/// The password is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not be empty")]
struct EmptyPassword;

impl FromStr for Password {
    type Err = EmptyPassword;

    fn from_str(password: &str) -> Result<Self, EmptyPassword> {
        if password.is_empty() { Err(EmptyPassword) } else { Ok(Self(password.to_owned())) }
    }
}

/// The password to log in with, of a file that may hold several valid ones, a line each.
#[derive(Clone)]
struct FirstLine(Password);

impl FromStr for FirstLine {
    type Err = EmptyPassword;

    fn from_str(text: &str) -> Result<Self, EmptyPassword> {
        text.lines().find(|line| !line.is_empty()).unwrap_or_default().parse().map(Self)
    }
}

/// The value is not the URL of a Redis server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} {reason}")]
struct InvalidSeed {
    /// The URL without user and password.
    url: String,
    reason: &'static str,
}

fn seed(raw: &str) -> Result<ConnectionInfo, InvalidSeed> {
    let refused = |reason| InvalidSeed { url: without_login(raw), reason };
    let malformed = || refused("is not of the form redis://[USER:PASSWORD@]HOST[:PORT] or rediss://…");
    let info = raw.trim().into_connection_info().map_err(|_| malformed())?;
    if !matches!(info.addr(), ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. }) {
        return Err(malformed());
    }
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(refused("asks for TLS that believes everybody; name whom to believe by REDIS_CA_FILE"));
    }
    if info.redis_settings().db() != 0 {
        return Err(refused("names a database, but a cluster has only database 0"));
    }
    Ok(info)
}

fn without_login(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}***{}", &url[..scheme + 3], &url[at..]),
        (_, Some(at)) => format!("***{}", &url[at..]),
        (_, None) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_urls_may_have_login_and_tls() {
        for good in [
            "redis://127.0.0.1:7000",
            "redis://redis",
            "rediss://:secret@[::1]:6380",
            "redis://u:p@host/0",
            " redis://a",
        ] {
            assert!(seed(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn invalid_seed_urls_are_refused() {
        for bad in [
            "",
            "127.0.0.1:7000",
            "http://redis",
            "redis://",
            "unix:///tmp/redis.sock",
            "redis://a:port",
            "redis://a/3",
            "rediss://a/#insecure",
        ] {
            assert!(seed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn first_of_several_passwords_is_used() {
        let used = |text: &str| text.parse().ok().map(|FirstLine(Password(password))| password);
        for (text, password) in [("a", "a"), ("a\nb\n", "a"), ("\n a \nb", " a ")] {
            assert_eq!(used(text).as_deref(), Some(password), "{text:?}");
        }
        assert_eq!(used("\n\n"), None);
    }

    #[test]
    fn seed_errors_do_not_contain_the_login() {
        for bad in [
            "redis://ann:secret@host/3",
            "http://ann:secret@host",
            "ann:secret@host",
            "redis://ann:sec@secret@host:x",
        ] {
            let line = seed(bad).unwrap_err().to_string();
            assert!(line.contains("host") && !line.contains("secret") && !line.contains("ann"), "{line}");
        }
    }
}
