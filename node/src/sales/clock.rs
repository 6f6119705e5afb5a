//! Redis time, as known to a node. Each primary opens and ends the sales of its shards by its own clock, and any of
//! these clocks may be wrong.
//!
//! The node refuses from memory only while the clocks of all primaries agree. The time that is shown is their median,
//! and never runs backwards. The local clock decides nothing; it only replaces clocks that are not known.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rediscluster::{Address, CallError, Cluster, EpochMs};
use stock::store::ReadTime;
use tokio::time::{Instant, timeout};

use futures::future::join_all;

/// Clocks of the primaries.
#[derive(Debug, Default)]
pub(super) struct Clocks(Mutex<ClockReadings>);

#[derive(Debug, Default)]
struct ClockReadings {
    offsets: Offsets,
    shown: LastShownTime,
}

impl Clocks {
    /// Asks each primary for its time, for at most `limit`. Returns true when at least one answered.
    pub(super) async fn measure(&self, cluster: &Cluster, limit: Duration) -> bool {
        let topology = cluster.topology();
        let requests = topology.primaries().iter().map(|primary| async move {
            let ahead = timeout(limit, measure_offset_us(cluster, &primary.address)).await;
            (primary.address.clone(), ahead.ok().and_then(Result::ok))
        });
        let measured = join_all(requests).await;
        let any_answered = measured.iter().any(|(_, ahead)| ahead.is_some());
        self.lock().offsets.update(measured);
        any_answered
    }

    /// Returns the time to show: the median of the primaries' clocks.
    pub(super) fn now(&self) -> EpochMs {
        let readings = &mut *self.lock();
        let local = local_us();
        readings.shown.at(local, local + readings.offsets.median_us()).max(0) as EpochMs / 1_000
    }

    /// Returns the range from the slowest to the fastest clock, or `None` while the clock of any primary is unknown.
    pub(super) fn bounds(&self) -> Option<RangeInclusive<EpochMs>> {
        let at = |ahead_us: i64| (local_us() + ahead_us).max(0) as EpochMs / 1_000;
        let (behind, ahead) = self.lock().offsets.extremes_us()?;
        Some(at(behind)..=at(ahead))
    }

    fn lock(&self) -> MutexGuard<'_, ClockReadings> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures how far a primary's clock is ahead of the local one, in microseconds. Assumes that the primary read its
/// clock halfway between request and response.
async fn measure_offset_us(cluster: &Cluster, primary: &Address) -> Result<i64, CallError> {
    let asked = local_us();
    let answered = cluster.poll_at(primary, ReadTime).await?;
    Ok(answered as i64 * 1_000 - asked.midpoint(local_us()))
}

/// Returns the local clock at the start of the process plus the elapsed monotonic time. Setting the system clock does
/// not change it.
fn local_us() -> i64 {
    static STARTED: LazyLock<(Instant, Duration)> = LazyLock::new(|| {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        (Instant::now(), since_epoch.expect("the clock is not set before 1970"))
    });
    let (started, at) = *STARTED;
    (at + started.elapsed()).as_micros() as i64
}

/// Offset of each primary's clock from the local one, in microseconds.
#[derive(Debug, Default)]
struct Offsets {
    by_primary: BTreeMap<Address, Offset>,
}

#[derive(Clone, Copy, Debug)]
struct Offset {
    /// Zero when it was never measured.
    ahead_us: i64,
    /// True when the primary answered the latest measurement.
    is_current: bool,
}

impl Offsets {
    /// Replaces the offsets by those of the current primaries. A primary that did not answer keeps its last offset.
    fn update(&mut self, measured: Vec<(Address, Option<i64>)>) {
        let before = std::mem::take(&mut self.by_primary);
        let offset = |(address, ahead): (Address, Option<i64>)| {
            let ahead_before = before.get(&address).map_or(0, |offset| offset.ahead_us);
            let offset = Offset { ahead_us: ahead.unwrap_or(ahead_before), is_current: ahead.is_some() };
            (address, offset)
        };
        self.by_primary = measured.into_iter().map(offset).collect();
    }

    /// Returns the median offset. With an even number of primaries the local clock is added, because two clocks that
    /// disagree have no majority.
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

/// The time that was last shown.
#[derive(Debug, Default)]
struct LastShownTime {
    local_us: i64,
    shown_us: i64,
}

impl LastShownTime {
    /// Returns the time to show now. When the clocks went back, it runs at half speed until they have caught up.
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
    fn median_ignores_one_wrong_clock() {
        assert_eq!(offsets(&[(1, Some(5)), (2, Some(HOUR_US)), (3, Some(7))]).median_us(), 7);
        assert_eq!(offsets(&[(1, Some(5)), (2, Some(-HOUR_US)), (3, Some(7))]).median_us(), 5);
        assert_eq!(
            offsets(&[(1, Some(5)), (2, Some(HOUR_US))]).median_us(),
            5,
            "the local clock breaks the tie"
        );
    }

    #[test]
    fn silent_primary_keeps_its_offset_in_the_median() {
        let mut offsets = offsets(&[(1, Some(5)), (2, Some(HOUR_US)), (3, Some(-HOUR_US))]);
        offsets.update(vec![(primary(1), None), (primary(2), Some(HOUR_US)), (primary(3), Some(-HOUR_US))]);
        assert_eq!(offsets.median_us(), 5);
    }

    #[test]
    fn unknown_clock_counts_as_the_local_clock() {
        assert_eq!(offsets(&[(1, None), (2, Some(HOUR_US)), (3, None)]).median_us(), 0);
        assert_eq!(Offsets::default().median_us(), 0);
    }

    #[test]
    fn extremes_are_known_only_while_all_primaries_answer() {
        let all = offsets(&[(1, Some(5)), (2, Some(HOUR_US)), (3, Some(-7))]);
        assert_eq!(all.extremes_us(), Some((-7, HOUR_US)));
        assert_eq!(offsets(&[(1, Some(5)), (2, None), (3, Some(7))]).extremes_us(), None);
        assert_eq!(Offsets::default().extremes_us(), None);
    }

    #[test]
    fn promoted_primary_is_unknown_until_it_answers() {
        let mut offsets = offsets(&[(1, Some(5)), (2, Some(6))]);
        offsets.update(vec![(primary(1), Some(5)), (primary(9), None)]);
        assert_eq!(offsets.extremes_us(), None);
        offsets.update(vec![(primary(1), Some(5)), (primary(9), Some(-HOUR_US))]);
        assert_eq!(offsets.extremes_us(), Some((-HOUR_US, 5)), "the replaced primary no longer counts");
    }

    #[test]
    fn shown_time_never_runs_backwards_and_catches_up() {
        let mut shown = LastShownTime::default();
        assert_eq!(shown.at(1_000, 51_000), 51_000);
        assert_eq!(shown.at(2_000, 12_000), 51_500, "the clocks went back, so time runs slower");
        assert_eq!(shown.at(10_000, 20_000), 55_500);
        assert_eq!(shown.at(90_000, 100_000), 100_000, "it has caught up");
        assert_eq!(shown.at(80_000, 90_000), 100_000);
    }
}
