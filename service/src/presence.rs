//! Announces this process to the others. No request waits for an announcement.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use rediscluster::{Call, Cluster};
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
    /// Starts announcing, as [`announce`] does.
    pub fn start<C>(
        cluster: Arc<Cluster>,
        report: impl Fn(Option<Duration>) -> C + Send + Sync + 'static,
        on_answer: impl Fn(C::Answer) + Send + Sync + 'static,
    ) -> Self
    where
        C: Call<Answer: Send> + Send + Sync + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let announcing = async move { announce(&cluster, report, on_answer, stopped.map(drop)).await };
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

/// Announces that the process is alive until `stop` completes, and then that it leaves. `report` returns the call for a
/// process that has been running for this long, or, without a time, for one that leaves. `on_answer` gets each answer.
pub async fn announce<C: Call>(
    cluster: &Cluster,
    report: impl Fn(Option<Duration>) -> C,
    on_answer: impl Fn(C::Answer),
    stop: impl Future<Output = ()>,
) {
    let (mut stop, mut failures, started_at) = (pin!(stop), FailureLog::default(), Instant::now());
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            _ = ticks.tick() => {
                let sent = cluster.poll(report(Some(started_at.elapsed()))).await;
                failures.record("presence".into(), sent.as_ref().err());
                sent.into_iter().for_each(&on_answer);
            }
        }
    }
    if let Err(error) = cluster.poll(report(None)).await {
        tracing::debug!(%error, "the departure could not be announced");
    }
}
