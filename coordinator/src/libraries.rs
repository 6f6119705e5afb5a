//! Function libraries on the primaries: that of this release, and those of other releases that run during an update.
//!
//! All coordinators load and copy libraries. The leader removes the library of a release that no process has used for a
//! day: its functions may lack a check that a later release has added, and a user of Redis who may call functions may
//! call old ones, too.
//!
//! A library that is in use is never removed: if the leader does not know which ones are, the day begins again. It does
//! not know that after a change of leadership, while a primary or the list of processes cannot be read, and while the
//! list is full or shows a process that does not report its library. A coordinator whose library was removed by mistake
//! loads it again within a second.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rediscluster::ClusterError;
use stock::functions::{LIBRARY, LIBRARY_PREFIX};
use stock::presence::Presence;
use tokio::time::Instant;

use crate::context::Context;
use crate::rounds::{Stop, every};

/// Time between two checks that every primary has all libraries. Nodes may not be allowed to load theirs, and they also
/// call primaries without any shard, such as one that has just joined or was flushed.
const PERIOD: Duration = Duration::from_secs(1);

/// Keeps the libraries on every primary, and removes unused ones.
pub(crate) async fn run(context: &Context, stop: Stop) {
    let mut unused = UnusedLibraries::default();
    every(PERIOD, stop, async || check(context, &mut unused).await).await;
}

async fn check(context: &Context, unused: &mut UnusedLibraries) {
    // An unreachable primary is asked again soon. A call that misses the library there reports an error.
    let present = match spread(context).await {
        Ok(present) => present,
        Err(error) => {
            tracing::debug!(%error, "function libraries not checked on every primary");
            return unused.forget();
        }
    };
    let used = if context.leadership.leads() { used_libraries(context).await } else { None };
    let Some(used) = used else { return unused.forget() };
    for name in unused.update(present, &used, Instant::now(), context.timing.library_unused_max) {
        match context.reads.delete_library(&name).await {
            Ok(()) => tracing::info!(library.name = name, "function library of an old release removed"),
            Err(error) => {
                tracing::warn!(library.name = name, %error, "function library of an old release not removed");
            }
        }
    }
}

async fn spread(context: &Context) -> Result<BTreeSet<String>, ClusterError> {
    context.reads.load_library().await?;
    context.reads.spread_libraries(LIBRARY_PREFIX).await
}

/// Returns the libraries that processes use, or `None` if that is not known.
async fn used_libraries(context: &Context) -> Option<BTreeSet<String>> {
    context.reads.poll(Presence { update: None }).await.ok()?.libraries()
}

/// Libraries that no process uses. Pure: no clock and no Redis.
#[derive(Default)]
struct UnusedLibraries {
    since: BTreeMap<String, Instant>,
}

impl UnusedLibraries {
    /// Starts the time of all libraries again.
    fn forget(&mut self) {
        self.since.clear();
    }

    /// Returns the libraries to remove. The time of each starts again, in case it cannot be removed.
    fn update(
        &mut self,
        present: BTreeSet<String>,
        used: &BTreeSet<String>,
        now: Instant,
        unused_max: Duration,
    ) -> Vec<String> {
        let unused = present.into_iter().filter(|name| !used.contains(name) && *name != LIBRARY.name);
        self.since =
            unused.map(|name| (name.clone(), self.since.get(&name).copied().unwrap_or(now))).collect();
        self.since
            .extract_if(.., |_, since| now.duration_since(*since) >= unused_max)
            .map(|(name, _)| name)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.map(str::to_owned).into()
    }

    #[test]
    fn library_is_removed_when_no_process_used_it_for_a_day() {
        let (mut unused, began) = (UnusedLibraries::default(), Instant::now());
        let mut at = |hours, used| {
            unused.update(names(["old", "new"]), used, began + Duration::from_hours(hours), DAY)
        };
        let (both, new) = (names(["old", "new"]), names(["new"]));
        assert!(at(0, &new).is_empty());
        assert!(at(20, &both).is_empty(), "a process of the old release has started");
        assert!(at(21, &new).is_empty());
        assert!(at(44, &new).is_empty(), "unused for 23 hours");
        assert_eq!(at(45, &new), ["old"]);
        assert!(at(46, &new).is_empty(), "if it is still there, the day begins again");
    }

    #[test]
    fn day_begins_again_when_the_processes_were_not_known() {
        let (mut unused, began) = (UnusedLibraries::default(), Instant::now());
        assert!(unused.update(names(["old"]), &names([]), began, DAY).is_empty());
        unused.forget();
        assert!(unused.update(names(["old"]), &names([]), began + DAY, DAY).is_empty());
        assert_eq!(unused.update(names(["old"]), &names([]), began + 2 * DAY, DAY), ["old"]);
    }

    #[test]
    fn own_library_is_not_removed_when_the_list_lacks_this_process() {
        let (mut unused, began) = (UnusedLibraries::default(), Instant::now());
        for days in 0..3 {
            let removed = unused.update(names([&LIBRARY.name]), &names([]), began + days * DAY, DAY);
            assert!(removed.is_empty(), "after {days} days");
        }
    }
}
