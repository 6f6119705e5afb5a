//! Waits for the Redis Cluster.
//!
//! A cluster that cannot be reached is no reason to exit: it may be starting, too. A cluster that rejects the login is
//! none either: passwords and certificates are replaced while programs run, in an order that this program does not
//! control, and an orchestrator restarts a program that exits with growing delays. So the process logs why it waits,
//! and connects as soon as it can.

use std::time::Duration;

use rediscluster::{Cluster, ClusterError, ConnectOptions, Library, backoff};
use tokio::time::{Instant, sleep};

/// Time after which an unchanged reason is logged again.
const REMINDER: Duration = Duration::from_secs(5);

/// Connects to the cluster as soon as it is reachable and serves all slots.
///
/// # Errors
/// Returns only [`ClusterError::NotACluster`], which waiting does not fix.
pub async fn cluster(options: &ConnectOptions, library: &'static Library) -> Result<Cluster, ClusterError> {
    install_crypto_provider();
    let mut logged = LastLogged::default();
    for tries in 0.. {
        match Cluster::connect(options.clone(), library).await {
            Err(error @ ClusterError::NotACluster(_)) => return Err(error),
            Err(error) => logged.log(&error.to_string(), Instant::now()),
            Ok(cluster) => return Ok(cluster),
        }
        sleep(backoff(tries)).await;
    }
    unreachable!("the loop never ends")
}

/// Selects the cryptography behind `rediss://` for the whole process. The features that other crates ask for then do
/// not matter.
pub fn install_crypto_provider() {
    // Fails if a provider is installed already, which can only be this one.
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// The reason that was logged last, so that retries do not log it again.
#[derive(Default)]
struct LastLogged {
    last: Option<(String, Instant)>,
}

impl LastLogged {
    fn log(&mut self, reason: &str, now: Instant) {
        if self.is_due(reason, now) {
            tracing::warn!(reason, "waiting for the Redis Cluster");
            self.last = Some((reason.to_owned(), now));
        }
    }

    fn is_due(&self, reason: &str, now: Instant) -> bool {
        self.last.as_ref().is_none_or(|(last, at)| last != reason || now.duration_since(*at) >= REMINDER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_reason_is_logged_every_five_seconds() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut logged = LastLogged::default();
        assert!(logged.is_due("refused", start));
        logged.log("refused", start);
        assert!(!logged.is_due("refused", after(4)));
        assert!(logged.is_due("refused", after(5)));
        assert!(logged.is_due("incomplete", after(1)));
    }
}
