//! The time by Redis, as far as a node knows it. Each primary opens and ends the sales of its shards by its own clock,
//! and any of these clocks may be wrong.
//!
//! A refusal from memory takes all primaries' clocks to agree. The time that is shown is their median, and never runs
//! backwards. This machine's own clock decides nothing: it stands in for clocks that are not known.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stock::calls::CallError;
use stock::cluster::Cluster;
use stock::sale::EpochMs;
use stock::store::ReadTime;
use stock::topology::Address;
use tokio::time::{Instant, timeout};

use futures::future::join_all;

/// The primaries' clocks.
#[derive(Debug, Default)]
pub(super) struct Clocks(Mutex<ClockReadings>);

#[derive(Debug, Default)]
struct ClockReadings {
    offsets: Offsets,
    shown: LastShownTime,
}

impl Clocks {
    /// Asks each primary for its time, for no longer than `limit`. Answers whether any of them answered.
    pub(super) async fn measure(&self, cluster: &Cluster, limit: Duration) -> bool {
        let topology = cluster.topology();
        let asking = topology.primaries().iter().map(|primary| async move {
            let ahead = timeout(limit, measure_offset_us(cluster, &primary.address)).await;
            (primary.address.clone(), ahead.ok().and_then(Result::ok))
        });
        let measured = join_all(asking).await;
        let any_answered = measured.iter().any(|(_, ahead)| ahead.is_some());
        self.lock().offsets.update(measured);
        any_answered
    }

    /// The time to show: the median of the primaries' clocks.
    pub(super) fn now(&self) -> EpochMs {
        let readings = &mut *self.lock();
        let local = local_us();
        readings.shown.at(local, local + readings.offsets.median_us()).max(0) as EpochMs / 1_000
    }

    /// The time by the clock that is furthest behind and by the one that is furthest ahead; `None` while the clock of
    /// any primary is not known.
    pub(super) fn bounds(&self) -> Option<RangeInclusive<EpochMs>> {
        let at = |ahead_us: i64| (local_us() + ahead_us).max(0) as EpochMs / 1_000;
        let (behind, ahead) = self.lock().offsets.extremes_us()?;
        Some(at(behind)..=at(ahead))
    }

    fn lock(&self) -> MutexGuard<'_, ClockReadings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a primary's clock is ahead. Takes the middle of the request for the moment of the answer.
async fn measure_offset_us(cluster: &Cluster, primary: &Address) -> Result<i64, CallError> {
    let asked = local_us();
    let answered = cluster.poll_at(primary, ReadTime).await?;
    Ok(answered as i64 * 1_000 - asked.midpoint(local_us()))
}

/// This machine's clock as it was when the process started, and what has passed since: nobody sets that.
fn local_us() -> i64 {
    static STARTED: LazyLock<(Instant, Duration)> = LazyLock::new(|| {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        (Instant::now(), since_epoch.expect("the clock is not set before 1970"))
    });
    let (started, at) = *STARTED;
    (at + started.elapsed()).as_micros() as i64
}

/// How far the clock of each primary is ahead of this machine's, microseconds.
#[derive(Debug, Default)]
struct Offsets {
    by_primary: BTreeMap<Address, Offset>,
}

#[derive(Clone, Copy, Debug)]
struct Offset {
    /// Zero where it was never measured.
    ahead_us: i64,
    /// Whether the primary answered when it was last asked.
    is_current: bool,
}

impl Offsets {
    /// Takes in what each of the present primaries answered. One that did not answer keeps its place in the median.
    fn update(&mut self, measured: Vec<(Address, Option<i64>)>) {
        let before = std::mem::take(&mut self.by_primary);
        let offset = |(address, ahead): (Address, Option<i64>)| {
            let ahead_before = before.get(&address).map_or(0, |offset| offset.ahead_us);
            let offset = Offset { ahead_us: ahead.unwrap_or(ahead_before), is_current: ahead.is_some() };
            (address, offset)
        };
        self.by_primary = measured.into_iter().map(offset).collect();
    }

    /// Of an even number of primaries this machine's clock makes an odd one: two that disagree are no majority.
    fn median_us(&self) -> i64 {
        let own = self.by_primary.len().is_multiple_of(2).then_some(0);
        let mut ahead: Vec<i64> = self.by_primary.values().map(|offset| offset.ahead_us).chain(own).collect();
        ahead.sort_unstable();
        ahead[ahead.len() / 2]
    }

    fn extremes_us(&self) -> Option<(i64, i64)> {
        let is_known = self.by_primary.values().all(|offset| offset.is_current);
        let ahead = || self.by_primary.values().map(|offset| offset.ahead_us);
        if is_known { ahead().min().zip(ahead().max()) } else { None }
    }
}

/// The time as it was last shown.
#[derive(Debug, Default)]
struct LastShownTime {
    local_us: i64,
    shown_us: i64,
}

impl LastShownTime {
    /// The time to show now. Where the clocks went back it runs at half speed until they have caught up.
    fn at(&mut self, local_us: i64, clocks_us: i64) -> i64 {
        let slowly = self.shown_us + (local_us - self.local_us).max(0) / 2;
        *self = Self { local_us, shown_us: clocks_us.max(slowly) };
        self.shown_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    fn primary(port: u16) -> Address {
        Address { host: "redis".into(), port }
    }

    fn offsets(measured: &[(u16, Option<i64>)]) -> Offsets {
        let mut offsets = Offsets::default();
        offsets.update(measured.iter().map(|&(port, ahead)| (primary(port), ahead)).collect());
        offsets
    }

    #[test]
    fn one_wrong_clock_does_not_move_the_median() {
        assert_eq!(offsets(&[(1, Some(5)), (2, Some(HOUR_US)), (3, Some(7))]).median_us(), 7);
        assert_eq!(offsets(&[(1, Some(5)), (2, Some(-HOUR_US)), (3, Some(7))]).median_us(), 5);
        assert_eq!(
            offsets(&[(1, Some(5)), (2, Some(HOUR_US))]).median_us(),
            5,
            "our own clock breaks the tie"
        );
    }

    #[test]
    fn a_primary_that_does_not_answer_keeps_its_place_in_the_median() {
        let mut offsets = offsets(&[(1, Some(5)), (2, Some(HOUR_US)), (3, Some(-HOUR_US))]);
        offsets.update(vec![(primary(1), None), (primary(2), Some(HOUR_US)), (primary(3), Some(-HOUR_US))]);
        assert_eq!(offsets.median_us(), 5);
    }

    #[test]
    fn an_unknown_clock_is_taken_for_our_own_in_the_median() {
        assert_eq!(offsets(&[(1, None), (2, Some(HOUR_US)), (3, None)]).median_us(), 0);
        assert_eq!(Offsets::default().median_us(), 0);
    }

    #[test]
    fn the_extremes_are_known_only_while_each_primary_answers() {
        let all = offsets(&[(1, Some(5)), (2, Some(HOUR_US)), (3, Some(-7))]);
        assert_eq!(all.extremes_us(), Some((-7, HOUR_US)));
        assert_eq!(offsets(&[(1, Some(5)), (2, None), (3, Some(7))]).extremes_us(), None);
        assert_eq!(Offsets::default().extremes_us(), None);
    }

    #[test]
    fn a_promoted_primary_is_unknown_until_it_has_answered() {
        let mut offsets = offsets(&[(1, Some(5)), (2, Some(6))]);
        offsets.update(vec![(primary(1), Some(5)), (primary(9), None)]);
        assert_eq!(offsets.extremes_us(), None);
        offsets.update(vec![(primary(1), Some(5)), (primary(9), Some(-HOUR_US))]);
        assert_eq!(offsets.extremes_us(), Some((-HOUR_US, 5)), "the one that was replaced counts no more");
    }

    #[test]
    fn shown_time_never_runs_backwards_and_catches_up() {
        let mut shown = LastShownTime::default();
        assert_eq!(shown.at(1_000, 51_000), 51_000);
        assert_eq!(shown.at(2_000, 12_000), 51_500, "the clocks went back: time runs slower");
        assert_eq!(shown.at(10_000, 20_000), 55_500);
        assert_eq!(shown.at(90_000, 100_000), 100_000, "and is right again");
        assert_eq!(shown.at(80_000, 90_000), 100_000);
    }
}
