//! Asks Redis for permits: many addresses in one call, one call at a time a bucket.

use std::sync::Arc;
use std::time::Duration;

use stock::calls::CallError;
use stock::cluster::Cluster;
use stock::layout::LimitBucket;
use stock::limit::{Admit, Limit, PermitAnswer, PermitRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::permits::{ClientNetwork, PermitBatch, PermitCache, chunk};

/// Most addresses in a call: it then takes some 0.1 ms of Redis.
const NETWORKS_PER_CALL_MAX: usize = 64;
/// How many asks may wait at a bucket. Beyond that nodes hand out permits on their own word.
const QUEUE_MAX: usize = 1_024;
/// Longest wait for Redis.
const CALL_TIMEOUT: Duration = Duration::from_millis(200);

/// One clerk a bucket.
pub(super) struct PermitRefillers {
    queues: Vec<mpsc::Sender<(ClientNetwork, PermitBatch)>>,
    cache: Arc<PermitCache>,
    limit: Limit,
}

struct PermitRefiller {
    cluster: Arc<Cluster>,
    bucket: LimitBucket,
    limit: Limit,
    cache: Arc<PermitCache>,
}

impl PermitRefillers {
    pub(super) fn start(
        cluster: &Arc<Cluster>,
        limit: Limit,
        cache: &Arc<PermitCache>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let queues = LimitBucket::all().into_iter().map(|bucket| {
            let (queue, asks) = mpsc::channel(QUEUE_MAX);
            let refiller =
                PermitRefiller { cluster: Arc::clone(cluster), bucket, limit, cache: Arc::clone(cache) };
            tasks.spawn(refiller.run(asks));
            queue
        });
        Self { queues: queues.collect(), cache: Arc::clone(cache), limit }
    }

    /// Has permits asked for. The book gets the answer.
    pub(super) fn send(&self, network: ClientNetwork, asking: PermitBatch) {
        let queue = &self.queues[network.spread() % self.queues.len()];
        if queue.try_send((network, asking)).is_err() {
            self.cache.apply(network, local_grant(self.limit), Instant::now());
        }
    }
}

impl PermitRefiller {
    async fn run(self, mut queue: mpsc::Receiver<(ClientNetwork, PermitBatch)>) {
        let mut waiting = Vec::with_capacity(NETWORKS_PER_CALL_MAX);
        let mut failing = false;
        while queue.recv_many(&mut waiting, NETWORKS_PER_CALL_MAX).await > 0 {
            let answers = self.ask(&waiting).await;
            match &answers {
                Ok(_) => failing = false,
                Err(error) if failing => tracing::debug!(error = %error, "still no answer on address limits"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(error = %error, "address limits hold for this node alone for now");
                }
            }
            let answers = answers.unwrap_or_else(|_| vec![local_grant(self.limit); waiting.len()]);
            for ((network, _), permits) in waiting.drain(..).zip(answers) {
                self.cache.apply(network, permits, Instant::now());
            }
        }
    }

    async fn ask(&self, waiting: &[(ClientNetwork, PermitBatch)]) -> Result<Vec<PermitAnswer>, CallError> {
        let ask = |(network, PermitBatch { spent, want }): &(ClientNetwork, PermitBatch)| PermitRequest {
            address: network.to_string(),
            spent: *spent,
            want: *want,
        };
        let asks: Vec<PermitRequest> = waiting.iter().map(ask).collect();
        let admit = Admit { bucket: &self.bucket, limit: self.limit, requests: &asks };
        let no_reply = |_| Err(CallError::NoReply("Redis took too long".into()));
        timeout(CALL_TIMEOUT, self.cluster.poll(admit)).await.unwrap_or_else(no_reply)
    }
}

/// What a node grants on its own word.
fn local_grant(limit: Limit) -> PermitAnswer {
    PermitAnswer::Granted(chunk(limit))
}
