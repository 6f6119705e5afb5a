//! Telling the others that this process is there. Nobody waits for it, and nothing fails without it.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use stock::calls::CallError;
use stock::cluster::Cluster;
use stock::presence::{Presence, PresenceUpdate, ProcessInfo};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::failure_log::FailureLog;

/// How often it is said: some tries within the ten seconds after which a process is forgotten.
const PERIOD: Duration = Duration::from_secs(1);

/// What people find a process by, and what tells it from the one that had its place before.
pub fn name(port: u16) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.as_deref().map_or("localhost", str::trim);
    format!("{host}:{port}/{:08x}", rand::random::<u32>())
}

/// A task of its own that says that the process is there.
pub struct PresenceTask {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl PresenceTask {
    /// Says so from now on.
    pub fn start(cluster: Arc<Cluster>, process: ProcessInfo) -> Self {
        let (stop, stopped) = oneshot::channel();
        let announcing = async move { announce(&cluster, &process, stopped.map(drop)).await };
        Self { stop, task: tokio::spawn(announcing) }
    }

    /// Says goodbye.
    pub async fn stop(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "saying that the process is there failed");
        }
    }
}

/// Says that the process is there until `stop` completes, and then that it goes.
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
        tracing::debug!(%error, "going without a goodbye");
    }
}

async fn send(cluster: &Cluster, word: PresenceUpdate<'_>) -> Result<(), CallError> {
    cluster.poll(Presence { update: Some(word) }).await.map(drop)
}
