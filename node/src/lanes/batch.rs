//! One pipeline of a lane: waiting jobs grouped by shard, in as few calls as possible.

use std::sync::Arc;

use rediscluster::{Address, Call, CallError, EpochMs, Primary, Replies, TimedPipeline};
use stock::calls::{Accept, Attempt, BUYERS_PER_CALL_MAX, Buy, BuyAnswer, Claim, Donate, Find};
use stock::ids::{ShardId, UserId};
use stock::layout::Shard;
use tracing::Span;

use super::fence::LostCallsView;
use super::{LaneJob, Reply, ShardAnswer};

/// Jobs of one pipeline. The order within a shard matters: tokens are accepted before buyers ask for them, and donated
/// only after this node's own buyers were served.
#[derive(Default)]
pub(super) struct Batch {
    shards: Vec<ShardWork>,
}

struct ShardWork {
    shard: Arc<Shard>,
    accepts: Vec<(stock::calls::TokenSource, u64, Reply<stock::calls::Accepted>)>,
    attempts: Vec<Arc<Attempt>>,
    buyers: Vec<Reply<ShardAnswer>>,
    users: Vec<UserId>,
    finders: Vec<Reply<Option<Claim>>>,
    donates: Vec<(ShardId, u64, Reply<stock::calls::Donation>)>,
}

impl Batch {
    /// Groups the jobs by shard. Drops jobs whose client hung up.
    pub(super) fn gather(jobs: impl Iterator<Item = LaneJob>) -> Self {
        let mut batch = Self::default();
        for job in jobs {
            match job {
                LaneJob::Buy { shard, attempt, reply } if !reply.is_cancelled() => {
                    let work = batch.work_of(shard);
                    work.attempts.push(attempt);
                    work.buyers.push(reply);
                }
                LaneJob::Find { shard, user, reply } if !reply.is_cancelled() => {
                    let work = batch.work_of(shard);
                    work.users.push(user);
                    work.finders.push(reply);
                }
                LaneJob::Donate { shard, to, want, reply } if !reply.is_cancelled() => {
                    batch.work_of(shard).donates.push((to, want, reply));
                }
                // Donated tokens are accepted even when no task waits for the result.
                LaneJob::Accept { shard, from, cumulative, reply } => {
                    batch.work_of(shard).accepts.push((from, cumulative, reply));
                }
                LaneJob::Buy { .. } | LaneJob::Find { .. } | LaneJob::Donate { .. } => {}
            }
        }
        batch
    }

    /// A primary serves few shards, so a linear search is faster than hashing.
    fn work_of(&mut self, shard: Arc<Shard>) -> &mut ShardWork {
        let index = self.shards.iter().position(|work| Arc::ptr_eq(&work.shard, &shard));
        let index = index.unwrap_or_else(|| {
            self.shards.push(ShardWork::new(shard));
            self.shards.len() - 1
        });
        &mut self.shards[index]
    }

    /// Returns true when tokens leave a shard. That needs a barrier with every setting of DURABILITY.
    pub(super) fn donates(&self) -> bool {
        self.shards.iter().any(|work| !work.donates.is_empty())
    }

    /// Refuses all donations. While a replica is down, their barrier could not hold, and each try would move half of
    /// the stock into a channel.
    pub(super) fn refuse_donations(&mut self, primary: &Primary) {
        let replicas = primary.replicas.len();
        let error = CallError::NotDurable { confirmed: replicas - primary.replicas_failed(), replicas };
        for (_, _, reply) in self.shards.iter_mut().flat_map(|work| work.donates.drain(..)) {
            reply.send(Err(error.clone()));
        }
    }

    /// Returns the attempts of all buyers.
    pub(super) fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.shards.iter().flat_map(|work| &work.attempts).map(AsRef::as_ref)
    }

    /// Returns the number of jobs that wait for a reply. Without any, there is nothing to send.
    pub(super) fn len(&self) -> usize {
        let waiting = |work: &ShardWork| {
            work.accepts.len() + work.buyers.len() + work.finders.len() + work.donates.len()
        };
        self.shards.iter().map(waiting).sum()
    }

    /// Creates a span of the Redis call for each traced job. The spans end when they are dropped.
    pub(super) fn spans(&self, primary: &Address) -> Vec<Span> {
        let traced = |span: &Span| (!span.is_disabled()).then(|| call_span(span, primary, self.len()));
        self.shards.iter().flat_map(ShardWork::waits).filter_map(traced).collect()
    }

    /// Returns the calls, in order. Each `buy` may be executed until `not_after`.
    pub(super) fn pipeline(&self, not_after: EpochMs) -> TimedPipeline {
        let mut pipeline = TimedPipeline::begin();
        for work in &self.shards {
            work.calls(not_after, &mut pipeline);
        }
        pipeline
    }

    /// Distributes the replies, in the order of [`Batch::pipeline`]. A refusal that a `lost` call may still change is no
    /// answer. Returns an error that a whole call met, for the lane to handle.
    pub(super) fn answer(self, mut replies: Replies, lost: &LostCallsView<'_>) -> Option<CallError> {
        let mut last_error = None;
        for work in self.shards {
            work.answer(&mut replies, lost, &mut last_error);
        }
        last_error
    }

    /// Answers all jobs with an error of the whole pipeline.
    pub(super) fn fail(self, error: &CallError) {
        for work in self.shards {
            work.buyers.into_iter().for_each(|reply| reply.send(Err(error.clone())));
            work.finders.into_iter().for_each(|reply| reply.send(Err(error.clone())));
            work.accepts.into_iter().for_each(|(_, _, reply)| reply.send(Err(error.clone())));
            work.donates.into_iter().for_each(|(_, _, reply)| reply.send(Err(error.clone())));
        }
    }
}

impl ShardWork {
    fn new(shard: Arc<Shard>) -> Self {
        Self {
            shard,
            accepts: Vec::new(),
            attempts: Vec::new(),
            buyers: Vec::new(),
            users: Vec::new(),
            finders: Vec::new(),
            donates: Vec::new(),
        }
    }

    fn waits(&self) -> impl Iterator<Item = &Span> {
        let accepts = self.accepts.iter().map(|(_, _, reply)| &reply.span);
        let donates = self.donates.iter().map(|(_, _, reply)| &reply.span);
        let buyers = self.buyers.iter().map(|reply| &reply.span);
        let finders = self.finders.iter().map(|reply| &reply.span);
        accepts.chain(buyers).chain(finders).chain(donates)
    }

    fn calls(&self, not_after: EpochMs, pipeline: &mut TimedPipeline) {
        let shard = &*self.shard;
        for &(from, cumulative, _) in &self.accepts {
            pipeline.add(Accept { shard, from, cumulative }.command());
        }
        for attempts in self.attempts.chunks(BUYERS_PER_CALL_MAX) {
            pipeline.add(Buy { shard, attempts, not_after }.command());
        }
        for users in self.users.chunks(BUYERS_PER_CALL_MAX) {
            pipeline.add(Find { shard, users }.command());
        }
        for &(to, want, _) in &self.donates {
            pipeline.add(Donate { shard, to, want }.command());
        }
    }

    fn answer(self, replies: &mut Replies, lost: &LostCallsView<'_>, last_error: &mut Option<CallError>) {
        let shard = &*self.shard;
        for (from, cumulative, reply) in self.accepts {
            let answer = replies.next(&Accept { shard, from, cumulative });
            record_error(last_error, answer.as_ref().err());
            reply.send(answer);
        }
        let mut buyers = self.buyers.into_iter();
        for attempts in self.attempts.chunks(BUYERS_PER_CALL_MAX) {
            let answer = replies.next(&Buy { shard, attempts, not_after: Buy::AT_ANY_TIME });
            record_error(last_error, answer.as_ref().err());
            let answer = answer.map(|answer| definite_answers(answer, attempts, lost));
            send_each(&mut buyers, attempts.len(), answer);
        }
        let mut finders = self.finders.into_iter();
        for users in self.users.chunks(BUYERS_PER_CALL_MAX) {
            let answer = replies.next(&Find { shard, users });
            record_error(last_error, answer.as_ref().err());
            send_each(&mut finders, users.len(), answer.map(|claims| claims.into_iter().map(Ok)));
        }
        for (to, want, reply) in self.donates {
            let answer = replies.next(&Donate { shard, to, want });
            record_error(last_error, answer.as_ref().err());
            reply.send(answer);
        }
    }
}

/// The fields follow OpenTelemetry's semantic conventions.
fn call_span(span: &Span, primary: &Address, batch: usize) -> Span {
    tracing::debug_span!(
        parent: span,
        "call",
        otel.kind = "client",
        otel.name = "FCALL",
        db.system.name = "redis",
        server.address = %primary.host,
        server.port = primary.port,
        db.operation.batch.size = batch,
    )
}

/// Keeps the last error.
fn record_error(last_error: &mut Option<CallError>, error: Option<&CallError>) {
    if let Some(error) = error {
        *last_error = Some(error.clone());
    }
}

/// Returns the answer to each attempt: an error while an earlier call of the attempt may still be executed.
fn definite_answers(
    answer: BuyAnswer,
    attempts: &[Arc<Attempt>],
    lost: &LostCallsView<'_>,
) -> impl Iterator<Item = Result<ShardAnswer, CallError>> {
    let BuyAnswer { at, version, outcomes, .. } = answer;
    outcomes.into_iter().zip(attempts).map(move |(outcome, attempt)| {
        if lost.may_change(attempt, &outcome, at) {
            return Err(CallError::NoReply("an earlier call may still be executed".into()));
        }
        Ok(ShardAnswer { outcome, version })
    })
}

/// Sends their part of an answer to each of the next `count` waiting jobs, or its error to all of them.
fn send_each<T>(
    waiting: &mut impl Iterator<Item = Reply<T>>,
    count: usize,
    answer: Result<impl Iterator<Item = Result<T, CallError>>, CallError>,
) {
    match answer {
        Ok(parts) => parts.zip(waiting).for_each(|(part, reply)| reply.send(part)),
        Err(error) => waiting.take(count).for_each(|reply| reply.send(Err(error.clone()))),
    }
}
