//! Asks Redis for permits: many keys in one call, and one call at a time for each bucket.

use std::sync::Arc;
use std::time::Duration;

use rediscluster::{CallError, Cluster, slot_of_tag};
use stock::layout::LimitBucket;
use stock::limit::{Admit, Limit, PermitAnswer, PermitRequest};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::permits::{LimitKey, PermitBatch, PermitCache};

/// Largest number of keys in a call. A full call takes about 0.1 ms in Redis.
const KEYS_PER_CALL_MAX: usize = 64;
/// Largest number of requests that may wait for a bucket. Beyond that, the node's share is all there is.
const QUEUE_MAX: usize = 1_024;
/// Longest wait for Redis.
const CALL_TIMEOUT: Duration = Duration::from_millis(200);
/// Time until Redis is asked again for a key after it did not answer. Meanwhile the node's share is all there is.
const WITHOUT_REDIS: PermitAnswer = PermitAnswer::After(Duration::from_secs(1));

/// Handle to the refill tasks, one for each bucket.
pub(super) struct PermitRefillers {
    queues: Vec<mpsc::Sender<(LimitKey, PermitBatch)>>,
    name: &'static str,
    cache: Arc<PermitCache>,
}

struct PermitRefiller {
    cluster: Arc<Cluster>,
    bucket: LimitBucket,
    name: &'static str,
    limit: Limit,
    cache: Arc<PermitCache>,
}

impl PermitRefillers {
    /// Starts the tasks of the limit with this name.
    pub(super) fn start(
        cluster: &Arc<Cluster>,
        name: &'static str,
        limit: Limit,
        cache: &Arc<PermitCache>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let queues = LimitBucket::all().into_iter().map(|bucket| {
            let (queue, requests) = mpsc::channel(QUEUE_MAX);
            let (cluster, cache) = (Arc::clone(cluster), Arc::clone(cache));
            tasks.spawn(PermitRefiller { cluster, bucket, name, limit, cache }.run(requests));
            queue
        });
        Self { queues: queues.collect(), name, cache: Arc::clone(cache) }
    }

    /// Requests permits. The answer goes to the cache.
    pub(super) fn send(&self, key: &LimitKey, batch: PermitBatch) {
        // All nodes must choose the same bucket for a name.
        let bucket = usize::from(slot_of_tag(&name_in_redis(self.name, key))) % self.queues.len();
        if self.queues[bucket].try_send((key.clone(), batch)).is_err() {
            self.cache.apply(key, WITHOUT_REDIS, Instant::now());
        }
    }
}

impl PermitRefiller {
    async fn run(self, mut queue: mpsc::Receiver<(LimitKey, PermitBatch)>) {
        let mut waiting = Vec::with_capacity(KEYS_PER_CALL_MAX);
        let mut failing = false;
        while queue.recv_many(&mut waiting, KEYS_PER_CALL_MAX).await > 0 {
            let answers = self.request(&waiting).await;
            match &answers {
                Ok(_) => failing = false,
                Err(error) if failing => tracing::debug!(error = %error, "still no answer on limits"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(error = %error, "this node grants only its share of the limits for now");
                }
            }
            let answers = answers.unwrap_or_else(|_| vec![WITHOUT_REDIS; waiting.len()]);
            for ((key, _), answer) in waiting.drain(..).zip(answers) {
                self.cache.apply(&key, answer, Instant::now());
            }
        }
    }

    async fn request(&self, waiting: &[(LimitKey, PermitBatch)]) -> Result<Vec<PermitAnswer>, CallError> {
        let request = |(key, PermitBatch { spent, want }): &(LimitKey, PermitBatch)| PermitRequest {
            name: name_in_redis(self.name, key),
            spent: *spent,
            want: *want,
        };
        let requests: Vec<PermitRequest> = waiting.iter().map(request).collect();
        let admit = Admit { bucket: &self.bucket, limit: self.limit, requests: &requests };
        let no_reply = |_| Err(CallError::NoReply("Redis took too long".into()));
        timeout(CALL_TIMEOUT, self.cluster.poll(admit)).await.unwrap_or_else(no_reply)
    }
}

fn name_in_redis(limit: &str, key: &LimitKey) -> String {
    format!("{limit} {key}")
}
