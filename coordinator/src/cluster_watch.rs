//! Keeps the cluster's map current, and the function library on every primary.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use crate::context::Context;
use crate::rounds::{Stop, every};

/// Longest time between two refreshes of the cluster's map. A failover is noticed earlier, by its errors.
const MAP_AGE_MAX: Duration = Duration::from_millis(500);
/// Time between two checks whether the map is suspect.
const MAP_CHECK: Duration = Duration::from_millis(100);
/// Time between two checks that every primary has the function library. Nodes may not be allowed to load it, and they
/// also call primaries without any shard, such as one that has just joined or was flushed.
const LIBRARY_CHECK: Duration = Duration::from_secs(1);

pub(crate) async fn run(context: &Context, stop: Stop) {
    let mut refreshed_at = Instant::now();
    tokio::join!(
        every(MAP_CHECK, stop.clone(), async || follow_map(context, &mut refreshed_at).await),
        every(LIBRARY_CHECK, stop, async || ensure_library(context).await),
    );
}

async fn follow_map(context: &Context, refreshed_at: &mut Instant) {
    if !context.map_is_suspect.swap(false, Ordering::Relaxed) && refreshed_at.elapsed() < MAP_AGE_MAX {
        return;
    }
    *refreshed_at = Instant::now();
    let (reads, writes) = tokio::join!(context.reads.refresh(), context.writes.refresh());
    if let Err(error) = reads.and(writes) {
        tracing::debug!(%error, "the cluster's map could not be refreshed");
    }
}

async fn ensure_library(context: &Context) {
    // An unreachable primary is asked again soon. A call that misses the library there reports an error.
    if let Err(error) = context.reads.load_library().await {
        tracing::debug!(%error, "function library not checked on every primary");
    }
}
