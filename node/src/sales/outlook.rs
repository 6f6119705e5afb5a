//! What a node knows of a sale without asking: the config, the latest snapshot, and Redis' clock.

use std::sync::Arc;
use std::time::Duration;

use stock::sale::{EpochMs, Sale, SaleConfig, State};
use stock::snapshot::Snapshot;
use tokio::time::Instant;

use super::Clock;

/// Before the start, the node refuses from memory up to this long; from then on Redis decides. Far more than
/// the error of the clock, which is half a round trip.
const START_MARGIN_MS: EpochMs = 1_000;
/// After the end, buyers still reach Redis for this long: one whose answer was lost gets it.
const END_MARGIN_MS: EpochMs = 60_000;

/// A node's view of a sale at some moment.
#[derive(Clone)]
pub struct Outlook {
    /// Config and layout.
    pub sale: Sale,
    /// The latest snapshot, a coordinator's or the node's own.
    pub snapshot: Option<Snapshot>,
    snapshot_seen: Instant,
    clock: Clock,
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

impl Outlook {
    pub(super) fn new(sale: Sale, snapshot: Option<Snapshot>, clock: Clock) -> Self {
        Self { sale, snapshot, snapshot_seen: Instant::now(), clock }
    }

    /// What is known after another reading. A snapshot that is older than the one at hand does not replace it.
    pub(super) fn next(&self, sale: Sale, snapshot: Option<Snapshot>, clock: Clock) -> Self {
        let taken_at = |snapshot: &Option<Snapshot>| snapshot.as_ref().map(|snapshot| snapshot.taken_at);
        if taken_at(&snapshot) > taken_at(&self.snapshot) {
            return Self { sale, snapshot, snapshot_seen: Instant::now(), clock };
        }
        Self { sale, clock, ..self.clone() }
    }

    /// How long ago the snapshot was first seen; where there is none, since when there is none.
    pub(super) fn snapshot_age(&self) -> Duration {
        self.snapshot_seen.elapsed()
    }

    /// Whether every unit is sold.
    pub fn sold_out(&self) -> bool {
        self.snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.sold_out && snapshot.total >= self.sale.config.total_stock)
    }

    /// The phase by Redis' clock, as well as it is known here.
    pub fn phase(&self) -> Phase {
        phase_at(&self.sale.config, self.clock.now())
    }

    /// The phase to tell a buyer whom Redis refused: near an edge, this node's idea of the time may differ.
    pub(super) fn refused_phase(&self) -> Phase {
        match self.phase() {
            Phase::Active if self.clock.now() < self.sale.config.window.middle() => Phase::Upcoming,
            Phase::Active => Phase::Ended,
            phase => phase,
        }
    }

    /// The phase, where it is certain that Redis would refuse to sell: so far from the window's edges that no
    /// clock's error matters. A refusal may come from memory; permission never does.
    pub(super) fn refusal(&self) -> Option<Phase> {
        refusal_at(&self.sale.config, self.clock.now())
    }

    /// What everybody may see.
    pub fn status(&self) -> Status {
        Status {
            config: Arc::clone(&self.sale.config),
            phase: self.phase(),
            sold: self.snapshot.as_ref().map_or(0, |snapshot| snapshot.sold),
            sold_out: self.sold_out(),
            server_time: self.clock.now(),
        }
    }
}

fn phase_at(config: &SaleConfig, now: EpochMs) -> Phase {
    match config.state {
        State::Ended => Phase::Ended,
        _ if now >= config.window.ends_at => Phase::Ended,
        State::Paused => Phase::Paused,
        State::Creating | State::Open if now < config.window.starts_at => Phase::Upcoming,
        State::Creating | State::Open => Phase::Active,
    }
}

fn refusal_at(config: &SaleConfig, now: EpochMs) -> Option<Phase> {
    let window = config.window;
    if now + START_MARGIN_MS < window.starts_at {
        return Some(Phase::Upcoming);
    }
    (now >= window.ends_at.saturating_add(END_MARGIN_MS)).then_some(Phase::Ended)
}

#[cfg(test)]
mod tests {
    use stock::ids::UserIdKind;
    use stock::layout::Tag;
    use stock::sale::{Changes, LayoutConfig, Product, Window};

    use super::*;

    fn sale(state: State) -> SaleConfig {
        SaleConfig {
            id: "flash".parse().unwrap(),
            version: 1,
            state,
            window: Window { starts_at: 100_000, ends_at: 200_000 },
            total_stock: 10,
            product: Product { name: "Chair".into(), price: 1.0, description: String::new() },
            user_ids: UserIdKind::Opaque,
            layout: LayoutConfig::new(vec![Tag::new("0")]),
            changes: Changes::default(),
        }
    }

    #[test]
    fn the_phase_follows_window_and_state() {
        let phase = |state, now| phase_at(&sale(state), now);
        assert_eq!(phase(State::Open, 99_999), Phase::Upcoming);
        assert_eq!(phase(State::Open, 100_000), Phase::Active);
        assert_eq!(phase(State::Open, 199_999), Phase::Active);
        assert_eq!(phase(State::Open, 200_000), Phase::Ended);
        assert_eq!(phase(State::Paused, 150_000), Phase::Paused);
        assert_eq!(phase(State::Paused, 200_000), Phase::Ended);
        assert_eq!(phase(State::Ended, 50_000), Phase::Ended);
    }

    #[test]
    fn near_the_edges_of_the_window_redis_is_asked() {
        let refusal = |now| refusal_at(&sale(State::Open), now);
        assert_eq!(refusal(98_000), Some(Phase::Upcoming));
        assert_eq!(refusal(99_000), None, "a node whose clock is late must not open late");
        assert_eq!(refusal(200_500), None, "a node whose clock is early must not close early");
        assert_eq!(refusal(259_999), None, "a lost answer can still be had");
        assert_eq!(refusal(260_000), Some(Phase::Ended));
    }

    #[test]
    fn a_paused_sale_still_knows_who_bought() {
        assert_eq!(refusal_at(&sale(State::Paused), 150_000), None);
        assert_eq!(refusal_at(&sale(State::Ended), 150_000), None);
    }
}
