//! A node's view of a sale, in memory: the config, the latest snapshot, and the primaries' clocks.
//!
//! Snapshots are ordered only by when they were read, because their times come from clocks that may be wrong. An older
//! snapshot may therefore follow a newer one, and must not revoke what buyers were told.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rediscluster::EpochMs;
use stock::sale::{Sale, SaleConfig, SaleStage};
use stock::snapshot::Snapshot;
use tokio::time::Instant;

use super::clock::Clocks;

/// Until this long before the start, the node refuses from memory. After that Redis decides. The margin is far longer
/// than the error of the measured clock, which is half a round trip.
const START_MARGIN_MS: EpochMs = 1_000;
/// For this long after the end, buyers still reach Redis, so that a client whose response was lost can get it.
const END_MARGIN_MS: EpochMs = 60_000;
/// The node refuses from memory only while its record of the sale was read within this time. An operator may have moved
/// the window since.
const RECORD_AGE_MAX: Duration = Duration::from_secs(1);

/// View of a sale at one moment.
#[derive(Clone)]
pub struct SaleView {
    /// Config and layout.
    pub sale: Sale,
    record_read_at: Instant,
    /// The highest version of the settings that a shard was seen with. All views of the sale share it. An operator hears
    /// of a change once every shard has its version, which may be before this node can read the record.
    shard_version: Arc<AtomicU64>,
    /// The latest snapshot, published by a coordinator or taken by this node.
    pub snapshot: Option<Snapshot>,
    snapshot_seen_at: Instant,
    /// Total and sold units of the previous snapshot.
    previous_sold: Option<(u64, u64)>,
    /// The highest total that was sold out. Being sold out is final for that total.
    sold_out_total: Option<u64>,
    clocks: Arc<Clocks>,
}

/// Phase of a sale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    Upcoming,
    /// Inside its window, selling or sold out.
    Active,
    /// Paused by an operator. It can be resumed.
    Paused,
    /// Over.
    Ended,
}

/// Public status of a sale, from memory.
#[derive(Clone, Debug)]
pub struct Status {
    /// Product, window and total.
    pub config: Arc<SaleConfig>,
    /// Phase by the clocks of the primaries.
    pub phase: Phase,
    /// Units sold, as of the latest snapshot.
    pub sold: u64,
    /// True when every unit is sold.
    pub sold_out: bool,
    /// Current time by the clocks of the primaries.
    pub server_time: EpochMs,
}

impl SaleView {
    pub(super) fn new(sale: Sale, clocks: Arc<Clocks>) -> Self {
        let now = Instant::now();
        Self {
            sale,
            record_read_at: now,
            shard_version: Arc::default(),
            snapshot: None,
            snapshot_seen_at: now,
            previous_sold: None,
            sold_out_total: None,
            clocks,
        }
    }

    /// Returns the view with another record of the sale.
    pub(super) fn with_sale(&self, sale: Sale) -> Self {
        Self { sale, ..self.clone() }
    }

    /// Returns the view whose record was read again, not earlier than at this time.
    pub(super) fn read_at(self, record_read_at: Instant) -> Self {
        Self { record_read_at, ..self }
    }

    /// Remembers that a shard has settings of this version.
    pub(super) fn saw_version(&self, version: u64) {
        self.shard_version.fetch_max(version, Ordering::Relaxed);
    }

    /// Returns the view with another snapshot. The timestamps of the two are not compared. A snapshot of an earlier sale
    /// of the same name is ignored: a coordinator that was frozen may publish one.
    pub(super) fn with_snapshot(&self, snapshot: Snapshot) -> Self {
        if !snapshot.is_of(&self.sale) {
            return self.clone();
        }
        Self {
            previous_sold: self.snapshot.as_ref().map(|before| (before.total, before.sold)),
            sold_out_total: self.sold_out_total.max(snapshot.sold_out.then_some(snapshot.total)),
            snapshot: Some(snapshot),
            snapshot_seen_at: Instant::now(),
            ..self.clone()
        }
    }

    /// Returns the time since the snapshot was first seen, or since the view was created when there is none.
    pub(super) fn snapshot_age(&self) -> Duration {
        self.snapshot_seen_at.elapsed()
    }

    /// Returns true when every unit is sold. It stays true until an operator adds units. A shard with a newer version
    /// than this view may have got some.
    pub fn sold_out(&self) -> bool {
        if let Some(archive) = self.sale.config.archive {
            return archive.sold >= self.sale.config.total_stock;
        }
        self.sold_out_total.is_some_and(|total| total >= self.sale.config.total_stock)
            && self.shard_version.load(Ordering::Relaxed) <= self.sale.config.version
    }

    /// Returns true if the sale is archived, which is final: its shards are gone.
    pub(super) fn is_archived(&self) -> bool {
        self.sale.config.archive.is_some()
    }

    /// Returns the units sold. A single snapshot with fewer sold units than the one before it is ignored: a coordinator
    /// that was frozen may have published it late.
    fn sold(&self) -> u64 {
        if let Some(archive) = self.sale.config.archive {
            return archive.sold;
        }
        let Some(snapshot) = &self.snapshot else { return 0 };
        let before = self.previous_sold.filter(|(total, _)| *total == snapshot.total);
        let sold = before.map_or(snapshot.sold, |(_, sold)| sold.max(snapshot.sold));
        if self.sold_out() { sold.max(self.sale.config.total_stock) } else { sold }
    }

    /// Returns the phase by the primaries' clocks, as known to this node.
    pub fn phase(&self) -> Phase {
        phase_at(&self.sale.config, self.clocks.now())
    }

    /// Returns true if the sale is over, as known to this node.
    pub(super) fn is_over(&self) -> bool {
        self.phase() == Phase::Ended
    }

    /// Returns the phase to report to a buyer that Redis refused. Near an edge of the window this node's time may
    /// differ from that of Redis.
    pub(super) fn refused_phase(&self) -> Phase {
        match self.phase() {
            Phase::Active if self.clocks.now() < self.sale.config.window.middle() => Phase::Upcoming,
            Phase::Active => Phase::Ended,
            phase => phase,
        }
    }

    /// Returns the phase when it is certain that Redis would refuse to sell: by the clocks of all primaries, and far
    /// enough from the window's edges that measuring errors do not matter. The node may refuse from memory, but never
    /// permits from memory.
    pub(super) fn refusal(&self) -> Option<Phase> {
        if self.is_archived() {
            return Some(Phase::Ended);
        }
        if self.record_read_at.elapsed() > RECORD_AGE_MAX {
            return None;
        }
        refusal_at(&self.sale.config, self.clocks.bounds()?)
    }

    /// Returns the public status.
    pub fn status(&self) -> Status {
        Status {
            config: Arc::clone(&self.sale.config),
            phase: self.phase(),
            sold: self.sold(),
            sold_out: self.sold_out(),
            server_time: self.clocks.now(),
        }
    }
}

fn phase_at(config: &SaleConfig, now: EpochMs) -> Phase {
    match config.stage_at(now) {
        SaleStage::Creating | SaleStage::Upcoming => Phase::Upcoming,
        SaleStage::Open => Phase::Active,
        SaleStage::Paused => Phase::Paused,
        SaleStage::Ended | SaleStage::Archived => Phase::Ended,
    }
}

/// `now` is the range from the slowest to the fastest clock.
fn refusal_at(config: &SaleConfig, now: RangeInclusive<EpochMs>) -> Option<Phase> {
    let window = config.window;
    if *now.end() + START_MARGIN_MS < window.starts_at {
        return Some(Phase::Upcoming);
    }
    (*now.start() >= window.ends_at.saturating_add(END_MARGIN_MS)).then_some(Phase::Ended)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use stock::ids::UserIdKind;
    use stock::layout::HashTag;
    use stock::sale::{ChangeHistory, LayoutConfig, Product, SaleState, Window};

    use super::*;

    /// All sales of these tests have one layout.
    static LAYOUT: LazyLock<LayoutConfig> = LazyLock::new(|| LayoutConfig::new(vec![HashTag::new("0")]));

    fn sale(state: SaleState) -> SaleConfig {
        SaleConfig {
            id: "flash".parse().unwrap(),
            version: 1,
            state,
            window: Window { starts_at: 100_000, ends_at: 200_000 },
            total_stock: 10,
            product: Product { name: "Chair".into(), price: 1.0, description: String::new() },
            user_ids: UserIdKind::Opaque,
            layout: LAYOUT.clone(),
            changes: ChangeHistory::default(),
            archive: None,
        }
    }

    #[test]
    fn phase_follows_window_and_state() {
        let phase = |state, now| phase_at(&sale(state), now);
        assert_eq!(phase(SaleState::Open, 99_999), Phase::Upcoming);
        assert_eq!(phase(SaleState::Open, 100_000), Phase::Active);
        assert_eq!(phase(SaleState::Open, 199_999), Phase::Active);
        assert_eq!(phase(SaleState::Open, 200_000), Phase::Ended);
        assert_eq!(phase(SaleState::Paused, 150_000), Phase::Paused);
        assert_eq!(phase(SaleState::Paused, 200_000), Phase::Ended);
        assert_eq!(phase(SaleState::Ended, 50_000), Phase::Ended);
    }

    #[test]
    fn redis_decides_near_the_edges_of_the_window() {
        let refusal = |now| refusal_at(&sale(SaleState::Open), now..=now);
        assert_eq!(refusal(98_000), Some(Phase::Upcoming));
        assert_eq!(refusal(99_000), None, "a node whose clock is late must not open late");
        assert_eq!(refusal(200_500), None, "a node whose clock is early must not close early");
        assert_eq!(refusal(259_999), None, "a client can still fetch a lost response");
        assert_eq!(refusal(260_000), Some(Phase::Ended));
    }

    #[test]
    fn paused_sale_is_not_refused_from_memory() {
        assert_eq!(refusal_at(&sale(SaleState::Paused), 150_000..=150_000), None);
        assert_eq!(refusal_at(&sale(SaleState::Ended), 150_000..=150_000), None);
    }

    #[test]
    fn refusal_needs_the_clocks_of_all_primaries() {
        let refusal = |clocks| refusal_at(&sale(SaleState::Open), clocks);
        assert_eq!(refusal(90_000..=98_000), Some(Phase::Upcoming));
        assert_eq!(refusal(90_000..=150_000), None, "one clock is ahead");
        assert_eq!(refusal(150_000..=999_000), None, "one clock is far ahead");
        assert_eq!(refusal(90_000..=999_000), None);
        assert_eq!(refusal(260_000..=999_000), Some(Phase::Ended));
    }

    fn view(total_stock: u64) -> SaleView {
        let config = SaleConfig { total_stock, ..sale(SaleState::Open) };
        SaleView::new(Sale::new(config).unwrap(), Arc::default())
    }

    fn snapshot(taken_at: EpochMs, total: u64, sold: u64) -> Snapshot {
        let (version, stock, shards) = (1, total - sold, Vec::new());
        let fingerprint = LAYOUT.fingerprint.clone();
        Snapshot { fingerprint, version, taken_at, total, sold, stock, in_flight: 0, sold_out: false, shards }
    }

    fn sold_out(taken_at: EpochMs, total: u64) -> Snapshot {
        Snapshot { sold_out: true, ..snapshot(taken_at, total, total) }
    }

    #[test]
    fn later_snapshot_replaces_another_despite_its_timestamp() {
        let ahead = view(10).with_snapshot(snapshot(20_000, 10, 3));
        assert_eq!(ahead.with_snapshot(snapshot(1_000, 10, 7)).status().sold, 7);
    }

    #[test]
    fn sold_out_is_revoked_only_by_more_units() {
        let sold_out_view = view(10).with_snapshot(sold_out(20_000, 10));
        let older = sold_out_view.with_snapshot(snapshot(1_000, 10, 6)).with_snapshot(snapshot(1_100, 10, 6));
        assert!(older.sold_out() && older.status().sold == 10);
        let restocked = older.with_sale(view(11).sale);
        assert!(!restocked.sold_out());
        assert!(!restocked.with_snapshot(sold_out(30_000, 10)).sold_out(), "that snapshot has the old total");
        assert!(restocked.with_snapshot(sold_out(30_000, 11)).sold_out());
    }

    #[test]
    fn snapshot_of_an_earlier_sale_is_ignored() {
        let fingerprint = LayoutConfig::new(vec![HashTag::new("0")]).fingerprint;
        let late = Snapshot { fingerprint, ..sold_out(1_000, 10) };
        let seen = view(10).with_snapshot(late.clone());
        assert!(seen.snapshot.is_none() && !seen.sold_out());
        let seen = view(10).with_snapshot(snapshot(2_000, 10, 3)).with_snapshot(late);
        assert!(!seen.sold_out());
        assert_eq!(seen.status().sold, 3);
    }

    #[test]
    fn sold_out_needs_a_view_as_new_as_the_shards() {
        let sold_out_view = view(10).with_snapshot(sold_out(20_000, 10));
        sold_out_view.saw_version(1);
        assert!(sold_out_view.sold_out());
        sold_out_view.saw_version(2);
        sold_out_view.saw_version(1);
        assert!(!sold_out_view.sold_out(), "a shard knows of a change that may have added units");
        let paused = SaleConfig { version: 2, total_stock: 10, ..sale(SaleState::Paused) };
        assert!(sold_out_view.with_sale(Sale::new(paused).unwrap()).sold_out(), "it added none");
    }

    #[test]
    fn single_snapshot_with_fewer_sales_is_ignored() {
        let seen = view(10).with_snapshot(snapshot(1_000, 10, 6));
        let late = seen.with_snapshot(snapshot(900, 10, 4));
        assert_eq!(late.status().sold, 6);
        assert_eq!(late.with_snapshot(snapshot(1_100, 10, 7)).status().sold, 7);
        assert_eq!(
            late.with_snapshot(snapshot(1_100, 10, 5)).status().sold,
            5,
            "two snapshots agree: a failover lost purchases"
        );
    }
}
