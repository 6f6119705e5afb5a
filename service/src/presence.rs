//! Announces this process to the others. Announcements are informative: no request waits for them, and nothing depends
//! on them.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rediscluster::{CallError, Cluster};
use stock::presence::{Presence, PresenceUpdate, ProcessInfo};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::failure_log::FailureLog;

/// Time between two announcements. Several fit into the ten seconds after which a silent process is forgotten.
const PERIOD: Duration = Duration::from_secs(1);

/// Returns a name for this process: host and port for people, and a random number that distinguishes it from the
/// process that had this address before.
pub fn name(port: u16) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.as_deref().map_or("localhost", str::trim);
    format!("{host}:{port}/{:08x}", rand::random::<u32>())
}

/// A background task that announces the process.
pub struct PresenceTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PresenceTask {
    /// Starts announcing.
    pub fn start(cluster: Arc<Cluster>, process: ProcessInfo) -> Self {
        let (stop, stopped) = oneshot::channel();
        let announcing = async move { announce(&cluster, &process, stopped.map(drop)).await };
        Self { stop, task: tokio::spawn(announcing) }
    }

    /// Announces that the process leaves, and ends the task.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "announcing the process failed");
        }
    }
}

/// Announces that the process is alive until `stop` completes, and then that it leaves.
pub async fn announce(cluster: &Cluster, process: &ProcessInfo, stop: impl Future<Output = ()>) {
    let (mut stop, mut failures, started_at) = (pin!(stop), FailureLog::default(), Instant::now());
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            _ = ticks.tick() => {
                let sent = send(cluster, PresenceUpdate::Alive(process, started_at.elapsed())).await;
                failures.record("presence".into(), sent.err().as_ref());
            }
        }
    }
    if let Err(error) = send(cluster, PresenceUpdate::Leaving(process)).await {
        tracing::debug!(%error, "the departure could not be announced");
    }
}

async fn send(cluster: &Cluster, update: PresenceUpdate<'_>) -> Result<(), CallError> {
    cluster.poll(Presence { update: Some(update) }).await.map(drop)
}
