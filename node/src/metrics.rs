//! Prometheus metrics of a node. Each metric is defined once, and its doc comment is its HELP. Metrics that every
//! process has are in `service::metrics`.
//!
//! Counters and histograms use handles that are looked up once, so counting is one addition. No label grows with the
//! number of users. Every counter starts at 0, because a series that first appears at 1 has no rate. Gauges are set
//! when Prometheus scrapes.

use std::time::Duration;

use ::metrics::{Counter, Histogram, counter, gauge, histogram};
use axum::http::Method;
use rediscluster::{Address, PipelineTime};
use service::metrics::{Exporter, expect_requests};
use stock::ids::{SaleId, ShardId};

use crate::sales::Outcome;
use crate::settings::Auth;

service::name_metrics! {
    /// Answers to purchases, by outcome: one for each request that was not limited. Busy: nothing was bought. Unknown:
    /// the purchase may have been made.
    Counter PURCHASES = "flashsale_purchases_total";
    /// Purchases that succeeded after the buyer found the home shard empty and waited for tokens from another shard.
    Counter PURCHASES_DELAYED_BY_STEAL = "flashsale_purchases_delayed_by_steal_total";
    /// Requests that were refused because their client made too many. User: attempts or lookups of one user. Address
    /// purchases: purchases and lookups of one client address. Address requests: its other requests. Network units:
    /// purchases of a client network that has bought all units that it may have.
    Counter REQUESTS_LIMITED = "flashsale_requests_limited_total";
    /// Nodes that share the rate limits, as far as the node knows. Each grants its part without asking.
    Gauge LIMIT_NODES = "flashsale_limit_nodes";
    /// 1 while the node is ready for buyers and /readyz answers 200, else 0.
    Gauge READY = "flashsale_ready";
    /// Always 1. Its label is AUTH, the source of user ids: jwt, header or none.
    Gauge AUTH = "flashsale_auth_info";
    /// Keys that verify bearer tokens. 0: every token is refused.
    Gauge AUTH_KEYS = "flashsale_auth_keys";
    /// 1 while the key file cannot be read again, so that the node uses its earlier keys.
    Gauge AUTH_KEYS_OUTDATED = "flashsale_auth_keys_outdated";
    /// Clients that listen to a sale's events.
    Gauge EVENT_LISTENERS = "flashsale_event_listeners";

    /// Buyers, lookups and transfers that wait in the lane to a primary.
    Gauge LANE_QUEUE_LENGTH = "flashsale_lane_queue_length";
    /// Largest number that may wait in a lane: LANE_QUEUE_MAX.
    Gauge LANE_QUEUE_LENGTH_MAX = "flashsale_lane_queue_length_max";
    /// 1 while a primary or its replicas do not answer.
    Gauge LANE_IN_DOUBT = "flashsale_lane_in_doubt";
    /// Buyers, lookups and transfers in one pipeline.
    Histogram LANE_BATCH_SIZE = "flashsale_lane_batch_size";
    /// Time from sending a pipeline to its last reply, measured by the node.
    Histogram PIPELINE_DURATION = "flashsale_pipeline_duration_seconds";
    /// Pipelines that got no reply. Their effect is unknown.
    Counter PIPELINE_FAILURES = "flashsale_pipeline_failures_total";
    /// Time that a primary spent on all function calls of one pipeline, by its own clock.
    Histogram FUNCTION_CALL_DURATION = "flashsale_function_call_duration_seconds";
    /// Time that the replicas took to confirm a pipeline, by the primary's clock.
    Histogram BARRIER_DURATION = "flashsale_barrier_duration_seconds";
    /// Barriers that too few replicas confirmed in time. Their buyers were not told that they bought.
    Counter BARRIER_FAILURES = "flashsale_barrier_failures_total";
    /// Lane connections that replaced a broken one.
    Counter CONNECTION_REBUILDS = "flashsale_connection_rebuilds_total";

    /// Attempts to bring tokens to an empty shard. Stolen: tokens arrived. Empty: the donor had none. Failed: the donor
    /// did not answer. In flight: the tokens wait in the channel, because the shard did not confirm them.
    Counter STEALS = "flashsale_steals_total";
    /// Tokens that steals brought to a shard.
    Counter STOLEN_TOKENS = "flashsale_stolen_tokens_total";
    /// Tokens that steals took from a shard.
    Counter GIVEN_TOKENS = "flashsale_given_tokens_total";
    /// Time since the node saw the latest snapshot of a sale.
    Gauge SNAPSHOT_AGE = "flashsale_snapshot_age_seconds";
    /// Snapshots that the node took itself, because no coordinator had published one for too long.
    Counter OWN_SNAPSHOTS = "flashsale_own_snapshots_total";
    /// Channels that were re-driven because their tokens were not accepted in time.
    Counter REDRIVEN_CHANNELS = "flashsale_redriven_channels_total";
}

/// Installs the metrics recorder and describes all metrics.
///
/// # Errors
/// Fails when another recorder is installed already.
pub fn install() -> anyhow::Result<Exporter> {
    let exporter = Exporter::install(env!("CARGO_PKG_VERSION"), describe)?;
    for limit in LimitName::ALL {
        requests_limited(limit).increment(0);
    }
    for (route, statuses) in PURCHASE_ROUTES {
        expect_requests(route, &Method::POST, statuses);
    }
    Ok(exporter)
}

/// The purchase routes, and the statuses with which they answer well-formed purchases.
const PURCHASE_ROUTES: [(&str, &[u16]); 3] = [
    ("/api/sales/{sale}/purchase", &[200, 403, 404, 409, 429, 503]),
    ("/api/sale/purchase", &[200, 403, 409, 429, 503]),
    ("/api/purchase", &[200, 403, 409, 410, 429, 503]),
];

/// A rate limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitName {
    /// Attempts and lookups of one user.
    User,
    /// Purchases and lookups of one client address.
    AddressPurchases,
    /// Other requests of one client address.
    AddressRequests,
    /// Units that one client network may have in a sale.
    NetworkUnits,
}

impl LimitName {
    const ALL: [Self; 4] = [Self::User, Self::AddressPurchases, Self::AddressRequests, Self::NetworkUnits];

    /// Returns the name in metrics and in Redis.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::AddressPurchases => "address_purchases",
            Self::AddressRequests => "address_requests",
            Self::NetworkUnits => "network_units",
        }
    }
}

/// Counts a request that was refused by a limit.
pub(crate) fn count_limited_request(limit: LimitName) {
    requests_limited(limit).increment(1);
}

fn requests_limited(limit: LimitName) -> Counter {
    counter!(REQUESTS_LIMITED, "limit" => limit.as_str())
}

/// Sets the number of nodes that share the rate limits.
pub(crate) fn set_limit_nodes(nodes: u32) {
    gauge!(LIMIT_NODES).set(f64::from(nodes));
}

/// Sets the readiness gauge.
pub fn set_readiness(is_ready: bool) {
    gauge!(READY).set(f64::from(u8::from(is_ready)));
}

/// Shows the source of user ids.
pub fn set_auth(auth: Auth) {
    gauge!(AUTH, "auth" => auth.name()).set(1.0);
}

/// Sets the number of keys that verify bearer tokens.
pub(crate) fn set_auth_keys(keys: usize) {
    gauge!(AUTH_KEYS).set(keys as f64);
    set_auth_keys_outdated(false);
}

/// Shows that the key file cannot be read again.
pub(crate) fn set_auth_keys_outdated(is_outdated: bool) {
    gauge!(AUTH_KEYS_OUTDATED).set(f64::from(u8::from(is_outdated)));
}

/// Sets the number of clients that listen to events.
pub(crate) fn set_event_listeners(listeners: usize) {
    gauge!(EVENT_LISTENERS).set(listeners as f64);
}

/// Sets the gauges of one lane.
pub(crate) fn set_lane(primary: &Address, queue: usize, queue_max: usize, is_suspect: bool) {
    gauge!(LANE_QUEUE_LENGTH, "primary" => primary.to_string()).set(queue as f64);
    gauge!(LANE_QUEUE_LENGTH_MAX).set(queue_max as f64);
    gauge!(LANE_IN_DOUBT, "primary" => primary.to_string()).set(f64::from(u8::from(is_suspect)));
}

/// Sets the age of a sale's latest snapshot.
pub(crate) fn set_snapshot_age(sale: &SaleId, age: Duration) {
    gauge!(SNAPSHOT_AGE, "sale" => sale.to_string()).set(age.as_secs_f64());
}

/// Counts a snapshot that the node took itself.
pub(crate) fn count_own_snapshot(sale: &SaleId) {
    own_snapshots(sale).increment(1);
}

fn own_snapshots(sale: &SaleId) -> Counter {
    counter!(OWN_SNAPSHOTS, "sale" => sale.to_string())
}

/// Counts a channel that the node re-drove, because no coordinator leads.
pub(crate) fn count_redriven(sale: &SaleId) {
    redriven(sale).increment(1);
}

fn redriven(sale: &SaleId) -> Counter {
    counter!(REDRIVEN_CHANNELS, "sale" => sale.to_string())
}

/// Metrics of one lane.
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
    /// Creates the metrics of the lane to this primary.
    pub(crate) fn new(primary: &Address) -> Self {
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

    /// Records the size of a pipeline that is about to be sent: the number of jobs that wait for it.
    pub(crate) fn pipeline_sent(&self, waiting: usize) {
        self.batch_size.record(waiting as f64);
    }

    /// Records the timing of an answered pipeline, and whether its barrier failed.
    pub(crate) fn pipeline_answered(&self, duration: Duration, time: PipelineTime, is_durable: bool) {
        self.duration.record(duration);
        time.calls.into_iter().for_each(|calls| self.calls.record(calls));
        time.barrier.into_iter().for_each(|barrier| self.barrier.record(barrier));
        self.barrier_failures.increment(u64::from(!is_durable));
    }

    /// Counts a pipeline that got no reply.
    pub(crate) fn pipeline_failed(&self) {
        self.failures.increment(1);
    }

    /// Counts a new connection of the lane, except the first.
    pub(crate) fn connected(&mut self) {
        self.rebuilds.increment(u64::from(std::mem::replace(&mut self.was_connected, true)));
    }
}

/// Metrics of the steals of one sale.
pub(crate) struct StealMetrics {
    stolen: Counter,
    empty: Counter,
    failed: Counter,
    in_flight: Counter,
    shards: Vec<TokenCounters>,
}

/// Counters of the tokens that steals moved to and from a shard.
struct TokenCounters {
    stolen: Counter,
    given: Counter,
}

impl StealMetrics {
    /// Creates the metrics of a sale with this number of shards.
    pub(crate) fn new(sale: &SaleId, shards: usize) -> Self {
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

    /// Counts a donor that did not answer.
    pub(crate) fn failed(&self) {
        self.failed.increment(1);
    }

    /// Counts a donor that had no tokens to give.
    pub(crate) fn empty(&self) {
        self.empty.increment(1);
    }

    /// Counts the tokens donated by a shard.
    pub(crate) fn given(&self, donor: ShardId, tokens: u64) {
        self.shards[donor.index()].given.increment(tokens);
    }

    /// Counts a steal whose tokens arrived.
    pub(crate) fn stolen(&self, home: ShardId, tokens: u64) {
        self.stolen.increment(1);
        self.shards[home.index()].stolen.increment(tokens);
    }

    /// Counts a steal whose tokens stayed in the channel.
    pub(crate) fn in_flight(&self) {
        self.in_flight.increment(1);
    }
}

/// Counters of one sale.
pub(crate) struct SaleCounters {
    purchased: Counter,
    already_purchased: Counter,
    out_of_stock: Counter,
    not_active: Counter,
    busy: Counter,
    unknown: Counter,
    delayed_by_steal: Counter,
}

impl SaleCounters {
    /// Creates the counters of this sale, all of them at 0.
    pub(crate) fn new(sale: &SaleId) -> Self {
        own_snapshots(sale).increment(0);
        redriven(sale).increment(0);
        let sale = sale.as_str();
        let outcome = |outcome: &'static str| {
            from_zero(counter!(PURCHASES, "sale" => sale.to_owned(), "outcome" => outcome))
        };
        Self {
            purchased: outcome("purchased"),
            already_purchased: outcome("already_purchased"),
            out_of_stock: outcome("out_of_stock"),
            not_active: outcome("not_active"),
            busy: outcome("busy"),
            unknown: outcome("unknown"),
            delayed_by_steal: from_zero(counter!(PURCHASES_DELAYED_BY_STEAL, "sale" => sale.to_owned())),
        }
    }

    /// Counts the outcome of a purchase. `waited_for_tokens` is true when its buyer waited for a steal.
    pub(crate) fn answered(&self, outcome: &Outcome, waited_for_tokens: bool) {
        match self.of_outcome(outcome) {
            Some(counter) => counter.increment(1),
            None => count_limited_request(LimitName::NetworkUnits),
        }
        if waited_for_tokens && matches!(outcome, Outcome::Purchased(_)) {
            self.delayed_by_steal.increment(1);
        }
    }

    /// Returns `None` for an attempt that was limited.
    fn of_outcome(&self, outcome: &Outcome) -> Option<&Counter> {
        let counter = match outcome {
            Outcome::Purchased(_) => &self.purchased,
            Outcome::AlreadyPurchased(_) => &self.already_purchased,
            Outcome::OutOfStock => &self.out_of_stock,
            Outcome::NotActive(_) => &self.not_active,
            Outcome::Busy => &self.busy,
            Outcome::Unknown(_) => &self.unknown,
            Outcome::NetworkFull => return None,
        };
        Some(counter)
    }
}

/// Creates the series at once, with the value 0.
fn from_zero(counter: Counter) -> Counter {
    counter.increment(0);
    counter
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn purchase_statuses_match_the_api_description() {
        let described: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
        for (route, statuses) in PURCHASE_ROUTES {
            let answers = &described["paths"][route]["post"]["responses"];
            for status in statuses {
                assert!(answers[status.to_string()].is_object(), "POST {route} never answers {status}");
            }
        }
    }
}
