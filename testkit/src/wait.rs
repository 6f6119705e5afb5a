//! Waiting for a condition with a deadline, never for a time.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Between two looks at a condition: short beside anything a test waits for, long beside a look's cost.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `condition` holds.
///
/// # Errors
/// When it does not hold within `limit`, counting a look that hangs; the message names `what` was waited for.
pub async fn until(what: &str, limit: Duration, condition: impl AsyncFnMut() -> bool) -> Result<()> {
    until_ok(what, limit, bool_to_result(condition)).await
}

/// Like [`until`], for conditions that know why they do not hold: the last reason is part of the error.
pub(crate) async fn until_ok(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let look = tokio::time::timeout(left, condition()).await;
        match look {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) if left > LOOK_EVERY => tokio::time::sleep(LOOK_EVERY).await,
            Ok(Err(reason)) => return Err(reason).with_context(|| not_within(what, limit)),
            Err(_) => bail!(not_within(what, limit)),
        }
    }
}

fn bool_to_result(mut condition: impl AsyncFnMut() -> bool) -> impl AsyncFnMut() -> Result<()> {
    async move || if condition().await { Ok(()) } else { bail!("not yet") }
}

fn not_within(what: &str, limit: Duration) -> String {
    format!("{what}: not within {limit:.0?}")
}
