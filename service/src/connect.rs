//! Waiting for the cluster. One that is not there yet is no reason to die: it may be starting, too. Nor is one that lets
//! nobody in: passwords and certificates are replaced while programs run, in an order that is not ours to choose, and a
//! program that ended would be started ever more rarely. It says why it waits, and goes on as soon as it may.

use std::time::Duration;

use stock::cluster::{Cluster, ClusterError, backoff};
use stock::connection::ConnectOptions;
use tokio::time::{Instant, sleep};

/// How often the same reason is told again.
const REMINDER: Duration = Duration::from_secs(5);

/// Connects to the cluster as soon as it is there and serves all slots.
///
/// # Errors
/// Only [`ClusterError::NotACluster`]: waiting will not help.
pub async fn cluster(options: &ConnectOptions) -> Result<Cluster, ClusterError> {
    install_crypto_provider();
    let mut logged = LastLogged::default();
    for tries in 0.. {
        match Cluster::connect(options.clone()).await {
            Err(error @ ClusterError::NotACluster(_)) => return Err(error),
            Err(error) => logged.log(&error.to_string(), Instant::now()),
            Ok(cluster) => return Ok(cluster),
        }
        sleep(backoff(tries)).await;
    }
    unreachable!("there is always another try")
}

/// What `rediss://` encrypts with, for the whole program. Which features other crates ask for then does not matter.
fn install_crypto_provider() {
    // Whoever chose before us chose the same.
    rustls::crypto::ring::default_provider().install_default().ok();
}

/// What the log was told last, so that it is not told again with every try.
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
