//! The metrics of a coordinator. Each metric is defined here and nowhere else, and its doc comment is its HELP. The
//! metrics that every process has are in `service::metrics`.
//!
//! Gauges are set from the latest observations on each scrape. Only the leader observes shards, so only the leader has
//! values for sales; followers have none, rather than old ones.

use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use rediscluster::Topology;
use service::metrics::Exporter;
use stock::audit::{AuditError, AuditReport};
use stock::calls::Level;
use stock::channels::open_channels;
use stock::ids::{SaleId, ShardId};
use stock::sale::SaleStage;
use tokio::time::Instant;

use crate::observation::Observation;
use crate::replication::Replication;
use crate::violations::Violations;

service::name_metrics! {
    /// Total units of a sale, including restocks.
    Gauge SALE_UNITS = "flashsale_sale_units";
    /// Units sold.
    Gauge SALE_SOLD = "flashsale_sale_sold";
    /// Tokens that lie in shards.
    Gauge SALE_STOCK = "flashsale_sale_stock";
    /// Tokens in channels between shards.
    Gauge SALE_IN_FLIGHT = "flashsale_sale_in_flight";
    /// 1 once it is confirmed that every unit is sold.
    Gauge SALE_SOLD_OUT = "flashsale_sale_sold_out";
    /// 1 while the sale sells: it is open, and within its window by the primaries' clock.
    Gauge SALE_OPEN = "flashsale_sale_open";
    /// 1 for the state that the sale is in by the primaries' clock: creating, upcoming, open, paused, ended or archived; 0
    /// for the other states.
    Gauge SALE_STATE = "flashsale_sale_state";
    /// When the sale starts, in seconds since 1970.
    Gauge SALE_START = "flashsale_sale_start_timestamp_seconds";
    /// When the sale ends, in seconds since 1970.
    Gauge SALE_END = "flashsale_sale_end_timestamp_seconds";

    /// Tokens that lie in a shard.
    Gauge SHARD_STOCK = "flashsale_shard_stock";
    /// Units sold in a shard.
    Gauge SHARD_SOLD = "flashsale_shard_sold";
    /// Tokens in channels to a shard.
    Gauge SHARD_IN_FLIGHT = "flashsale_shard_in_flight";
    /// 1 if the latest observation could read the shard; otherwise its other values are older.
    Gauge SHARD_READABLE = "flashsale_shard_readable";

    /// Channels between shards that hold tokens.
    Gauge OPEN_CHANNELS = "flashsale_open_channels";
    /// How long the channel that has stalled longest has been idle; 0 if none is open.
    Gauge CHANNEL_STALLED = "flashsale_channel_stalled_seconds";
    /// Violated invariants, by the latest run of each check; must be 0. Oversold: units sold beyond the total. Books:
    /// shards whose counters do not add up. Record: shards that are missing or not as recorded. Audit: findings of the
    /// latest audit by this coordinator.
    Gauge VIOLATIONS = "flashsale_violations";
    /// Audits requested from this coordinator, by result.
    Counter AUDITS = "flashsale_audits_total";
    /// Channels that were re-driven because their tokens were not accepted in time.
    Counter REDRIVEN_CHANNELS = "flashsale_redriven_channels_total";
    /// Tokens that were moved to shards that would have run dry first.
    Counter REBALANCED_TOKENS = "flashsale_rebalanced_tokens_total";
    /// Time to read all shards of all sales and publish their snapshots.
    Histogram SNAPSHOT_DURATION = "flashsale_snapshot_duration_seconds";
    /// 1 on the coordinator that leads.
    Gauge LEADER = "flashsale_leader";
    /// How far the clock of a primary is ahead of the coordinator's.
    Gauge PRIMARY_CLOCK_AHEAD = "flashsale_primary_clock_ahead_seconds";
    /// Replicas of a primary, as the primary reports them. Listed: those on the cluster's map. Following: those of them
    /// that are in sync and follow it. Foreign: external servers, which copy it without being on the map.
    Gauge PRIMARY_REPLICAS = "flashsale_primary_replicas";
}

/// Installs the recorder for the metrics of a coordinator.
///
/// # Errors
/// Fails when another recorder is installed already.
pub fn install() -> anyhow::Result<Exporter> {
    let exporter = Exporter::install(env!("CARGO_PKG_VERSION"), describe)?;
    let _registered = histogram!(SNAPSHOT_DURATION);
    Ok(exporter)
}

/// Records the duration of a snapshot of all sales.
pub(crate) fn snapshot_taken(took: Duration) {
    histogram!(SNAPSHOT_DURATION).record(took);
}

/// Counts channels that were re-driven.
pub(crate) fn redriven(sale: &SaleId, channels: u64) {
    counter!(REDRIVEN_CHANNELS, "sale" => sale.to_string()).increment(channels);
}

/// Counts tokens that were moved ahead of demand.
pub(crate) fn rebalanced(sale: &SaleId, tokens: u64) {
    counter!(REBALANCED_TOKENS, "sale" => sale.to_string()).increment(tokens);
}

/// Counts a requested audit.
pub(crate) fn audited(sale: &SaleId, audit: &Result<AuditReport, AuditError>) {
    let result = match audit {
        Ok(audit) if audit.ok => "ok",
        Ok(_) => "violated",
        Err(_) => "failed",
    };
    audits(sale, result, 1);
}

fn audits(sale: &SaleId, result: &'static str, count: u64) {
    counter!(AUDITS, "sale" => sale.to_string(), "result" => result).increment(count);
}

/// Sets the gauge of leading.
pub(crate) fn show_leading(leads: bool) {
    gauge!(LEADER).set(one_if(leads));
}

/// Sets the gauges of a sale. `stalled_since` is when the channel that has stalled longest became idle.
pub(crate) fn show_sale(
    id: &SaleId,
    observation: &Observation,
    stalled_since: Option<Instant>,
    topology: &Topology,
) {
    start_at_zero(id);
    show_totals(id, observation);
    show_shards(id, observation);
    show_clocks(observation, topology);
    let stalled = stalled_since.map_or(Duration::ZERO, |since| since.elapsed());
    gauge!(CHANNEL_STALLED, "sale" => id.to_string()).set(stalled.as_secs_f64());
    show_audit(id, 0);
}

/// Sets the gauge of the violations that the latest audit found.
pub(crate) fn show_audit(id: &SaleId, violations: u64) {
    show_violations(id, "audit", violations);
}

/// Registers the counters of a sale at 0. A counter that first appears at 1 has no rate.
fn start_at_zero(sale: &SaleId) {
    redriven(sale, 0);
    rebalanced(sale, 0);
    ["ok", "violated", "failed"].into_iter().for_each(|result| audits(sale, result, 0));
}

fn show_totals(id: &SaleId, observation: &Observation) {
    let (snapshot, config) = (&observation.snapshot, &*observation.desired.sale.config);
    let show = |metric: &'static str, value: f64| gauge!(metric, "sale" => id.to_string()).set(value);
    show(SALE_UNITS, snapshot.total as f64);
    show(SALE_SOLD, snapshot.sold as f64);
    show(SALE_STOCK, snapshot.stock as f64);
    show(SALE_IN_FLIGHT, snapshot.in_flight as f64);
    show(SALE_SOLD_OUT, one_if(snapshot.sold_out));
    let stage_now = config.stage_at(snapshot.taken_at);
    show(SALE_OPEN, one_if(stage_now == SaleStage::Open));
    for stage in SaleStage::ALL {
        let is_now = one_if(stage == stage_now);
        gauge!(SALE_STATE, "sale" => id.to_string(), "state" => stage.as_str()).set(is_now);
    }
    show(SALE_START, config.window.starts_at as f64 / 1e3);
    show(SALE_END, config.window.ends_at as f64 / 1e3);
    show(OPEN_CHANNELS, open_channels(&observation.levels).count() as f64);

    let Violations { oversold, books, record } = observation.violations;
    show_violations(id, "oversold", oversold);
    show_violations(id, "books", books);
    show_violations(id, "record", record);
}

fn show_shards(id: &SaleId, observation: &Observation) {
    let levels = observation.snapshot.shards.iter().zip(observation.incoming());
    for (shard, (level, incoming)) in (0..).map(ShardId::new).zip(levels) {
        let show = |metric: &'static str, value: f64| {
            gauge!(metric, "sale" => id.to_string(), "shard" => shard.to_string()).set(value);
        };
        show(SHARD_STOCK, level.stock as f64);
        show(SHARD_SOLD, level.sold as f64);
        show(SHARD_IN_FLIGHT, incoming as f64);
        // The shards of an archived sale are gone.
        show(SHARD_READABLE, one_if(!level.stale || observation.desired.sale.config.archive.is_some()));
    }
}

fn show_violations(id: &SaleId, check: &'static str, found: u64) {
    gauge!(VIOLATIONS, "sale" => id.to_string(), "check" => check).set(found as f64);
}

/// Each level has the time of its primary. It is compared with the coordinator's time in the middle of the observation.
fn show_clocks(observation: &Observation, topology: &Topology) {
    for (shard, level) in observation.desired.sale.shards().iter().zip(&observation.levels) {
        let (Ok(Level { at, .. }), Some(primary)) = (level, topology.primary(shard.slot)) else { continue };
        let ahead_ms = *at as f64 - observation.observed_at_ms as f64;
        gauge!(PRIMARY_CLOCK_AHEAD, "primary" => primary.address.to_string()).set(ahead_ms / 1e3);
    }
}

/// Sets the gauges of the replicas of a primary.
pub(crate) fn show_replication(replication: &Replication) {
    let show = |state: &'static str, count: usize| {
        let primary = replication.primary.to_string();
        gauge!(PRIMARY_REPLICAS, "primary" => primary, "state" => state).set(count as f64);
    };
    show("listed", replication.listed);
    show("following", replication.following);
    show("foreign", replication.foreign);
}

fn one_if(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}
