//! What a node knows of a sale without asking: the config, the latest snapshot, and the primaries' clocks.
//!
//! Snapshots are in no order but that in which they were read: their times come from clocks that may be wrong. So an older
//! one may follow a newer, and must not take back what buyers were told.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use stock::sale::{EpochMs, Sale, SaleConfig, SaleState};
use stock::snapshot::Snapshot;
use tokio::time::Instant;

use super::clock::Clocks;

/// Before the start, the node refuses from memory up to this long; from then on Redis decides. Far more than
/// the error of the clock, which is half a round trip.
const START_MARGIN_MS: EpochMs = 1_000;
/// After the end, buyers still reach Redis for this long: one whose answer was lost gets it.
const END_MARGIN_MS: EpochMs = 60_000;

/// A node's view of a sale at some moment.
#[derive(Clone)]
pub struct SaleView {
    /// Config and layout.
    pub sale: Sale,
    /// The latest snapshot, a coordinator's or the node's own.
    pub snapshot: Option<Snapshot>,
    snapshot_seen_at: Instant,
    /// What the snapshot before said: units in all, and units sold.
    sold_before: Option<(u64, u64)>,
    /// The highest number of units that were once sold for good.
    sold_out_of: Option<u64>,
    clocks: Arc<Clocks>,
}

/// Where a sale stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not started.
    Upcoming,
    /// Selling, or sold out inside its window.
    Active,
    /// Halted; will go on.
    Paused,
    /// Over.
    Ended,
}

/// What a sale shows to everybody, taken from memory.
#[derive(Clone, Debug)]
pub struct Status {
    /// Product, window, total.
    pub config: Arc<SaleConfig>,
    /// Where it stands in time, by Redis' clock.
    pub phase: Phase,
    /// Units sold, as of the latest snapshot.
    pub sold: u64,
    /// Whether every unit is sold.
    pub sold_out: bool,
    /// Redis' clock now.
    pub server_time: EpochMs,
}

impl SaleView {
    pub(super) fn new(sale: Sale, clocks: Arc<Clocks>) -> Self {
        let snapshot_seen_at = Instant::now();
        Self { sale, snapshot: None, snapshot_seen_at, sold_before: None, sold_out_of: None, clocks }
    }

    /// The same with another record of the sale.
    pub(super) fn with_sale(&self, sale: Sale) -> Self {
        Self { sale, ..self.clone() }
    }

    /// The same with another snapshot, whenever it says that it was taken.
    pub(super) fn with_snapshot(&self, snapshot: Snapshot) -> Self {
        Self {
            sold_before: self.snapshot.as_ref().map(|before| (before.total, before.sold)),
            sold_out_of: self.sold_out_of.max(snapshot.sold_out.then_some(snapshot.total)),
            snapshot: Some(snapshot),
            snapshot_seen_at: Instant::now(),
            ..self.clone()
        }
    }

    /// How long ago the snapshot was first seen; where there is none, since when there is none.
    pub(super) fn snapshot_age(&self) -> Duration {
        self.snapshot_seen_at.elapsed()
    }

    /// Whether every unit is sold. It stays so until there are more units.
    pub fn sold_out(&self) -> bool {
        self.sold_out_of.is_some_and(|total| total >= self.sale.config.total_stock)
    }

    /// Units sold. One snapshot that says less than the one before is not believed: a coordinator that was frozen may
    /// have published it late.
    fn sold(&self) -> u64 {
        let Some(snapshot) = &self.snapshot else { return 0 };
        let before = self.sold_before.filter(|(total, _)| *total == snapshot.total);
        let sold = before.map_or(snapshot.sold, |(_, sold)| sold.max(snapshot.sold));
        if self.sold_out() { sold.max(self.sale.config.total_stock) } else { sold }
    }

    /// The phase by the primaries' clocks, as well as they are known here.
    pub fn phase(&self) -> Phase {
        phase_at(&self.sale.config, self.clocks.now())
    }

    /// The phase to tell a buyer whom Redis refused: near an edge, this node's idea of the time may differ.
    pub(super) fn refused_phase(&self) -> Phase {
        match self.phase() {
            Phase::Active if self.clocks.now() < self.sale.config.window.middle() => Phase::Upcoming,
            Phase::Active => Phase::Ended,
            phase => phase,
        }
    }

    /// The phase, where it is certain that Redis would refuse to sell: by the clock of every primary, and so far from
    /// the window's edges that no error of the measuring matters. A refusal may come from memory; permission never does.
    pub(super) fn refusal(&self) -> Option<Phase> {
        refusal_at(&self.sale.config, self.clocks.bounds()?)
    }

    /// What everybody may see.
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
    match config.state {
        SaleState::Ended => Phase::Ended,
        _ if now >= config.window.ends_at => Phase::Ended,
        SaleState::Paused => Phase::Paused,
        SaleState::Creating | SaleState::Open if now < config.window.starts_at => Phase::Upcoming,
        SaleState::Creating | SaleState::Open => Phase::Active,
    }
}

/// `now` is the time by the clock that is furthest behind, up to that by the one that is furthest ahead.
fn refusal_at(config: &SaleConfig, now: RangeInclusive<EpochMs>) -> Option<Phase> {
    let window = config.window;
    if *now.end() + START_MARGIN_MS < window.starts_at {
        return Some(Phase::Upcoming);
    }
    (*now.start() >= window.ends_at.saturating_add(END_MARGIN_MS)).then_some(Phase::Ended)
}

#[cfg(test)]
mod tests {
    use stock::ids::UserIdKind;
    use stock::layout::HashTag;
    use stock::sale::{ChangeHistory, LayoutConfig, Product, Window};

    use super::*;

    fn sale(state: SaleState) -> SaleConfig {
        SaleConfig {
            id: "flash".parse().unwrap(),
            version: 1,
            state,
            window: Window { starts_at: 100_000, ends_at: 200_000 },
            total_stock: 10,
            product: Product { name: "Chair".into(), price: 1.0, description: String::new() },
            user_ids: UserIdKind::Opaque,
            layout: LayoutConfig::new(vec![HashTag::new("0")]),
            changes: ChangeHistory::default(),
        }
    }

    #[test]
    fn the_phase_follows_window_and_state() {
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
    fn near_the_edges_of_the_window_redis_is_asked() {
        let refusal = |now| refusal_at(&sale(SaleState::Open), now..=now);
        assert_eq!(refusal(98_000), Some(Phase::Upcoming));
        assert_eq!(refusal(99_000), None, "a node whose clock is late must not open late");
        assert_eq!(refusal(200_500), None, "a node whose clock is early must not close early");
        assert_eq!(refusal(259_999), None, "a lost answer can still be had");
        assert_eq!(refusal(260_000), Some(Phase::Ended));
    }

    #[test]
    fn a_paused_sale_still_knows_who_bought() {
        assert_eq!(refusal_at(&sale(SaleState::Paused), 150_000..=150_000), None);
        assert_eq!(refusal_at(&sale(SaleState::Ended), 150_000..=150_000), None);
    }

    #[test]
    fn nobody_is_refused_from_memory_while_any_clock_may_let_them_in() {
        let refusal = |clocks| refusal_at(&sale(SaleState::Open), clocks);
        assert_eq!(refusal(90_000..=98_000), Some(Phase::Upcoming));
        assert_eq!(refusal(90_000..=150_000), None, "one is ahead");
        assert_eq!(refusal(150_000..=999_000), None, "one is far ahead");
        assert_eq!(refusal(90_000..=999_000), None);
        assert_eq!(refusal(260_000..=999_000), Some(Phase::Ended));
    }

    fn view(total_stock: u64) -> SaleView {
        let config = SaleConfig { total_stock, ..sale(SaleState::Open) };
        SaleView::new(Sale::new(config).unwrap(), Arc::default())
    }

    fn snapshot(taken_at: EpochMs, total: u64, sold: u64) -> Snapshot {
        let (version, stock, shards) = (1, total - sold, Vec::new());
        Snapshot { version, taken_at, total, sold, stock, in_flight: 0, sold_out: false, shards }
    }

    fn sold_out(taken_at: EpochMs, total: u64) -> Snapshot {
        Snapshot { sold_out: true, ..snapshot(taken_at, total, total) }
    }

    #[test]
    fn a_snapshot_replaces_another_whatever_time_it_carries() {
        let ahead = view(10).with_snapshot(snapshot(20_000, 10, 3));
        assert_eq!(ahead.with_snapshot(snapshot(1_000, 10, 7)).status().sold, 7);
    }

    #[test]
    fn sold_out_is_not_taken_back_by_an_older_snapshot_but_by_more_units() {
        let told = view(10).with_snapshot(sold_out(20_000, 10));
        let older = told.with_snapshot(snapshot(1_000, 10, 6)).with_snapshot(snapshot(1_100, 10, 6));
        assert!(older.sold_out() && older.status().sold == 10);
        let restocked = older.with_sale(view(11).sale);
        assert!(!restocked.sold_out());
        assert!(!restocked.with_snapshot(sold_out(30_000, 10)).sold_out(), "it is of the old total");
        assert!(restocked.with_snapshot(sold_out(30_000, 11)).sold_out());
    }

    #[test]
    fn one_snapshot_with_fewer_units_sold_is_not_shown() {
        let seen = view(10).with_snapshot(snapshot(1_000, 10, 6));
        let late = seen.with_snapshot(snapshot(900, 10, 4));
        assert_eq!(late.status().sold, 6);
        assert_eq!(late.with_snapshot(snapshot(1_100, 10, 7)).status().sold, 7);
        assert_eq!(
            late.with_snapshot(snapshot(1_100, 10, 5)).status().sold,
            5,
            "a failover took purchases back"
        );
    }
}
