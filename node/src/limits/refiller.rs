//! Asks Redis for permits: many addresses in one call, and one call at a time for each bucket.

use std::sync::Arc;
use std::time::Duration;

use rediscluster::{CallError, Cluster};
use stock::layout::LimitBucket;
use stock::limit::{Admit, Limit, PermitAnswer, PermitRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::permits::{ClientNetwork, PermitBatch, PermitCache, chunk};

/// Largest number of addresses in a call. A full call takes about 0.1 ms in Redis.
const NETWORKS_PER_CALL_MAX: usize = 64;
/// Largest number of requests that may wait for a bucket. Beyond that, nodes grant permits themselves.
const QUEUE_MAX: usize = 1_024;
/// Longest wait for Redis.
const CALL_TIMEOUT: Duration = Duration::from_millis(200);

/// Handle to the refill tasks, one for each bucket.
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
            let (queue, requests) = mpsc::channel(QUEUE_MAX);
            let refiller =
                PermitRefiller { cluster: Arc::clone(cluster), bucket, limit, cache: Arc::clone(cache) };
            tasks.spawn(refiller.run(requests));
            queue
        });
        Self { queues: queues.collect(), cache: Arc::clone(cache), limit }
    }

    /// Requests permits. The answer goes to the cache.
    pub(super) fn send(&self, network: ClientNetwork, batch: PermitBatch) {
        let queue = &self.queues[network.spread() % self.queues.len()];
        if queue.try_send((network, batch)).is_err() {
            self.cache.apply(network, local_grant(self.limit), Instant::now());
        }
    }
}

impl PermitRefiller {
    async fn run(self, mut queue: mpsc::Receiver<(ClientNetwork, PermitBatch)>) {
        let mut waiting = Vec::with_capacity(NETWORKS_PER_CALL_MAX);
        let mut failing = false;
        while queue.recv_many(&mut waiting, NETWORKS_PER_CALL_MAX).await > 0 {
            let answers = self.request(&waiting).await;
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

    async fn request(
        &self,
        waiting: &[(ClientNetwork, PermitBatch)],
    ) -> Result<Vec<PermitAnswer>, CallError> {
        let request = |(network, PermitBatch { spent, want }): &(ClientNetwork, PermitBatch)| PermitRequest {
            address: network.to_string(),
            spent: *spent,
            want: *want,
        };
        let requests: Vec<PermitRequest> = waiting.iter().map(request).collect();
        let admit = Admit { bucket: &self.bucket, limit: self.limit, requests: &requests };
        let no_reply = |_| Err(CallError::NoReply("Redis took too long".into()));
        timeout(CALL_TIMEOUT, self.cluster.poll(admit)).await.unwrap_or_else(no_reply)
    }
}

/// Returns the permits that a node grants without asking Redis.
fn local_grant(limit: Limit) -> PermitAnswer {
    PermitAnswer::Granted(chunk(limit))
}
