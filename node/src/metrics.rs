//! What a node counts, for Prometheus. Each metric stands here and nowhere else; its doc is its HELP. What every process
//! of ours has besides is in `service::metrics`.
//!
//! Whoever counts holds a handle that was found once: counting is one addition, and no label grows with users.
//! Every counter starts at 0, for one that is first seen at 1 has no rate. Gauges are set when somebody asks.

use std::time::Duration;

use ::metrics::{Counter, Histogram, counter, gauge, histogram};
use axum::http::Method;
use service::metrics::{Exporter, expect_requests};
use stock::connection::PipelineTime;
use stock::ids::{SaleId, ShardId};
use stock::topology::Address;

use crate::sales::Outcome;

service::name_metrics! {
    /// Answers to purchases, by outcome: one for each request. Limited, busy: nothing was done. Unknown: it may have been.
    Counter PURCHASES = "flashsale_purchases_total";
    /// Purchases that succeeded after their buyer found no token at home and waited until some were brought there.
    Counter PURCHASES_DELAYED_BY_STEAL = "flashsale_purchases_delayed_by_steal_total";
    /// Requests that were refused because their client address made too many.
    Counter REQUESTS_LIMITED = "flashsale_requests_limited_total";
    /// Whether the node would be sent buyers: 1 where /readyz answers 200.
    Gauge READY = "flashsale_ready";
    /// Listeners to a sale's events.
    Gauge EVENT_LISTENERS = "flashsale_event_listeners";

    /// Buyers, lookups and transfers that wait in the lane to a primary.
    Gauge LANE_QUEUE_LENGTH = "flashsale_lane_queue_length";
    /// How many may wait in a lane: LANE_QUEUE_MAX.
    Gauge LANE_QUEUE_LENGTH_MAX = "flashsale_lane_queue_length_max";
    /// 1 while a primary does not answer, or its replicas do not.
    Gauge LANE_IN_DOUBT = "flashsale_lane_in_doubt";
    /// Buyers, lookups and transfers that one pipeline carried.
    Histogram LANE_BATCH_SIZE = "flashsale_lane_batch_size";
    /// From sending a pipeline to its last reply, as the node sees it.
    Histogram PIPELINE_DURATION = "flashsale_pipeline_duration_seconds";
    /// Pipelines that got no reply; what they did is unknown.
    Counter PIPELINE_FAILURES = "flashsale_pipeline_failures_total";
    /// What a primary spent on all function calls of one pipeline, by its own clock.
    Histogram FUNCTION_CALL_DURATION = "flashsale_function_call_duration_seconds";
    /// How long the replicas took to confirm what a pipeline did, by the primary's clock.
    Histogram BARRIER_DURATION = "flashsale_barrier_duration_seconds";
    /// Barriers that too few replicas confirmed in time: nobody was told that they bought.
    Counter BARRIER_FAILURES = "flashsale_barrier_failures_total";
    /// Connections of a lane that replaced a broken one.
    Counter CONNECTION_REBUILDS = "flashsale_connection_rebuilds_total";

    /// Attempts to bring tokens to an empty shard. Stolen: they came. Empty: the donor had none. Failed: it gave no
    /// answer. In flight: they wait in the channel, since the shard did not confirm them.
    Counter STEALS = "flashsale_steals_total";
    /// Tokens that steals brought to a shard.
    Counter STOLEN_TOKENS = "flashsale_stolen_tokens_total";
    /// Tokens that steals took from a shard.
    Counter GIVEN_TOKENS = "flashsale_given_tokens_total";
    /// How long ago the node saw the latest snapshot of a sale.
    Gauge SNAPSHOT_AGE = "flashsale_snapshot_age_seconds";
    /// Snapshots that the node took for itself, because no coordinator had published one for too long.
    Counter OWN_SNAPSHOTS = "flashsale_own_snapshots_total";
}

/// From now on what a node counts is kept.
///
/// # Errors
/// When something else keeps it already.
pub fn install() -> anyhow::Result<Exporter> {
    let exporter = Exporter::install(env!("CARGO_PKG_VERSION"), describe)?;
    counter!(REQUESTS_LIMITED).increment(0);
    for (route, statuses) in PURCHASE_ROUTES {
        expect_requests(route, &Method::POST, statuses);
    }
    Ok(exporter)
}

/// The routes that sell, and what they answer to purchases that are well-formed.
const PURCHASE_ROUTES: [(&str, &[u16]); 3] = [
    ("/api/sales/{sale}/purchase", &[200, 403, 404, 409, 429, 503]),
    ("/api/sale/purchase", &[200, 403, 409, 429, 503]),
    ("/api/purchase", &[200, 403, 409, 410, 429, 503]),
];

/// Counts a request of an address that made too many.
pub(crate) fn count_limited_request() {
    counter!(REQUESTS_LIMITED).increment(1);
}

/// Shows whether the node would be sent buyers.
pub fn set_readiness(is_ready: bool) {
    gauge!(READY).set(f64::from(u8::from(is_ready)));
}

/// Shows how many listen to events.
pub(crate) fn set_event_listeners(listeners: usize) {
    gauge!(EVENT_LISTENERS).set(listeners as f64);
}

/// Shows a lane from outside.
pub(crate) fn set_lane(primary: &Address, queue: usize, queue_max: usize, is_suspect: bool) {
    gauge!(LANE_QUEUE_LENGTH, "primary" => primary.to_string()).set(queue as f64);
    gauge!(LANE_QUEUE_LENGTH_MAX).set(queue_max as f64);
    gauge!(LANE_IN_DOUBT, "primary" => primary.to_string()).set(f64::from(u8::from(is_suspect)));
}

/// Shows how old what the node knows of a sale is.
pub(crate) fn set_snapshot_age(sale: &SaleId, age: Duration) {
    gauge!(SNAPSHOT_AGE, "sale" => sale.to_string()).set(age.as_secs_f64());
}

/// Counts a snapshot that nobody published.
pub(crate) fn count_own_snapshot(sale: &SaleId) {
    own_snapshots(sale).increment(1);
}

fn own_snapshots(sale: &SaleId) -> Counter {
    counter!(OWN_SNAPSHOTS, "sale" => sale.to_string())
}

/// What is counted in one lane.
pub(crate) struct LaneMetrics {
    batch_size: Histogram,
    duration: Histogram,
    calls: Histogram,
    barrier: Histogram,
    failures: Counter,
    barrier_failures: Counter,
    rebuilds: Counter,
    was_connected: bool,
}

impl LaneMetrics {
    /// Those of the lane to this primary.
    pub(crate) fn of(primary: &Address) -> Self {
        let primary = || primary.to_string();
        Self {
            batch_size: histogram!(LANE_BATCH_SIZE, "primary" => primary()),
            duration: histogram!(PIPELINE_DURATION, "primary" => primary()),
            calls: histogram!(FUNCTION_CALL_DURATION, "primary" => primary()),
            barrier: histogram!(BARRIER_DURATION, "primary" => primary()),
            failures: from_zero(counter!(PIPELINE_FAILURES, "primary" => primary())),
            barrier_failures: from_zero(counter!(BARRIER_FAILURES, "primary" => primary())),
            rebuilds: from_zero(counter!(CONNECTION_REBUILDS, "primary" => primary())),
            was_connected: false,
        }
    }

    /// A pipeline is about to be sent that so many wait for.
    pub(crate) fn pipeline_sent(&self, waiting: usize) {
        self.batch_size.record(waiting as f64);
    }

    /// It was answered.
    pub(crate) fn pipeline_answered(&self, duration: Duration, time: PipelineTime, is_durable: bool) {
        self.duration.record(duration);
        time.calls.into_iter().for_each(|calls| self.calls.record(calls));
        time.barrier.into_iter().for_each(|barrier| self.barrier.record(barrier));
        self.barrier_failures.increment(u64::from(!is_durable));
    }

    /// It was not.
    pub(crate) fn pipeline_failed(&self) {
        self.failures.increment(1);
    }

    /// The lane has a connection.
    pub(crate) fn connected(&mut self) {
        self.rebuilds.increment(u64::from(std::mem::replace(&mut self.was_connected, true)));
    }
}

/// What is counted of the steals of one sale.
pub(crate) struct StealMetrics {
    stolen: Counter,
    empty: Counter,
    failed: Counter,
    in_flight: Counter,
    shards: Vec<TokenCounters>,
}

/// What steals moved to and from a shard.
struct TokenCounters {
    stolen: Counter,
    given: Counter,
}

impl StealMetrics {
    /// Those of a sale with so many shards.
    pub(crate) fn of(sale: &SaleId, shards: usize) -> Self {
        let outcome = |outcome: &'static str| {
            from_zero(counter!(STEALS, "sale" => sale.to_string(), "outcome" => outcome))
        };
        let tokens = |shard: usize| {
            let of = |metric: &'static str| {
                from_zero(counter!(metric, "sale" => sale.to_string(), "shard" => shard.to_string()))
            };
            TokenCounters { stolen: of(STOLEN_TOKENS), given: of(GIVEN_TOKENS) }
        };
        Self {
            stolen: outcome("stolen"),
            empty: outcome("empty"),
            failed: outcome("failed"),
            in_flight: outcome("in_flight"),
            shards: (0..shards).map(tokens).collect(),
        }
    }

    /// A donor gave no answer.
    pub(crate) fn failed(&self) {
        self.failed.increment(1);
    }

    /// A donor had nothing to give.
    pub(crate) fn empty(&self) {
        self.empty.increment(1);
    }

    /// So many tokens left a donor.
    pub(crate) fn given(&self, donor: ShardId, tokens: u64) {
        self.shards[donor.index()].given.increment(tokens);
    }

    /// They arrived.
    pub(crate) fn stolen(&self, home: ShardId, tokens: u64) {
        self.stolen.increment(1);
        self.shards[home.index()].stolen.increment(tokens);
    }

    /// They are in the channel.
    pub(crate) fn in_flight(&self) {
        self.in_flight.increment(1);
    }
}

/// The counters of one sale.
pub(crate) struct SaleCounters {
    purchased: Counter,
    already_purchased: Counter,
    out_of_stock: Counter,
    not_active: Counter,
    limited: Counter,
    busy: Counter,
    unknown: Counter,
    delayed_by_steal: Counter,
}

impl SaleCounters {
    /// Those of this sale, all of them there from now on.
    pub(crate) fn of(sale: &SaleId) -> Self {
        own_snapshots(sale).increment(0);
        let sale = sale.as_str();
        let outcome = |outcome: &'static str| {
            from_zero(counter!(PURCHASES, "sale" => sale.to_owned(), "outcome" => outcome))
        };
        Self {
            purchased: outcome("purchased"),
            already_purchased: outcome("already_purchased"),
            out_of_stock: outcome("out_of_stock"),
            not_active: outcome("not_active"),
            limited: outcome("limited"),
            busy: outcome("busy"),
            unknown: outcome("unknown"),
            delayed_by_steal: from_zero(counter!(PURCHASES_DELAYED_BY_STEAL, "sale" => sale.to_owned())),
        }
    }

    /// Counts the answer to a purchase, and whether its buyer waited for tokens.
    pub(crate) fn answered(&self, outcome: &Outcome, waited_for_tokens: bool) {
        self.of_outcome(outcome).increment(1);
        if waited_for_tokens && matches!(outcome, Outcome::Purchased(_)) {
            self.delayed_by_steal.increment(1);
        }
    }

    fn of_outcome(&self, outcome: &Outcome) -> &Counter {
        match outcome {
            Outcome::Purchased(_) => &self.purchased,
            Outcome::AlreadyPurchased(_) => &self.already_purchased,
            Outcome::OutOfStock => &self.out_of_stock,
            Outcome::NotActive(_) => &self.not_active,
            Outcome::Limited(_) => &self.limited,
            Outcome::Busy => &self.busy,
            Outcome::Unknown(_) => &self.unknown,
        }
    }
}

/// A series is there from the start.
fn from_zero(counter: Counter) -> Counter {
    counter.increment(0);
    counter
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn what_is_expected_of_purchases_is_what_the_api_says_of_them() {
        let described: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
        for (route, statuses) in PURCHASE_ROUTES {
            let answers = &described["paths"][route]["post"]["responses"];
            for status in statuses {
                assert!(answers[status.to_string()].is_object(), "POST {route} never answers {status}");
            }
        }
    }
}
