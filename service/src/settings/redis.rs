//! Where the cluster is, and how long to wait for it.

use std::time::Duration;

use clap::Args;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _};
use stock::connection::ConnectOptions;

use super::positive_duration;

/// How to reach the Redis Cluster.
#[derive(Args, Clone)]
pub struct RedisSettings {
    /// Nodes of the Redis Cluster to ask for its map, comma-separated: redis://[USER:PASSWORD@]HOST[:PORT], or
    /// rediss:// for TLS. User, password and TLS of the first one hold for all
    #[arg(long, env, required = true, value_delimiter = ',', value_parser = seed, hide_env_values = true)]
    redis_url: Vec<ConnectionInfo>,

    /// Longest time to connect to a Redis node and log in
    #[arg(long, env, value_parser = positive_duration, default_value = "1s")]
    redis_connect_timeout: Duration,

    /// Longest wait for a reply of Redis, on top of the barrier's
    #[arg(long, env, value_parser = positive_duration, default_value = "1s")]
    redis_response_timeout: Duration,

    /// Longest wait of a barrier for the replicas
    #[arg(long, env, value_parser = positive_duration, default_value = "500ms")]
    redis_barrier_timeout: Duration,
}

impl RedisSettings {
    /// As the domain takes them.
    pub fn connect_options(&self) -> ConnectOptions {
        ConnectOptions {
            seeds: self.redis_url.clone(),
            connect_timeout: self.redis_connect_timeout,
            response_timeout: self.redis_response_timeout,
            barrier_timeout: self.redis_barrier_timeout,
        }
    }
}

/// Not the address of a node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{url:?} {reason}")]
struct InvalidSeed {
    /// Without user and password.
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
    fn seeds_are_redis_urls_with_or_without_login_and_tls() {
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
    fn what_cannot_be_a_node_of_a_cluster_is_refused() {
        for bad in [
            "",
            "127.0.0.1:7000",
            "http://redis",
            "redis://",
            "unix:///tmp/redis.sock",
            "redis://a:port",
            "redis://a/3",
        ] {
            assert!(seed(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refusal_keeps_the_password_to_itself() {
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
