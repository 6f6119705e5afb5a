//! Waiting for a condition with a deadline, never for a time.
//!
//! Conditions are plain functions that return futures, not `AsyncFnMut`: what waits for such a one cannot be a task of
//! its own (the compiler does not see that its future is `Send`), and a test's saboteur wants to be.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::FutureExt;
use tokio::time::{sleep, timeout};

/// Between two looks at a condition: short beside anything a test waits for, long beside a look's cost.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `condition` holds.
///
/// # Errors
/// When it does not hold within `limit`, counting a look that hangs; the message names `what` was waited for.
pub async fn until<Look>(what: &str, limit: Duration, mut condition: impl FnMut() -> Look) -> Result<()>
where
    Look: Future<Output = bool>,
{
    let as_result = || condition().map(|holds| if holds { Ok(()) } else { Err(anyhow!("not yet")) });
    until_ok(what, limit, as_result).await
}

/// Like [`until`], for conditions that know why they do not hold: the last reason is part of the error.
pub(crate) async fn until_ok<Look>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Look,
) -> Result<()>
where
    Look: Future<Output = Result<()>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let look = timeout(left, condition()).await;
        match look {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) if left > LOOK_EVERY => sleep(LOOK_EVERY).await,
            Ok(Err(reason)) => return Err(reason).with_context(|| not_within(what, limit)),
            Err(_) => bail!(not_within(what, limit)),
        }
    }
}

fn not_within(what: &str, limit: Duration) -> String {
    format!("{what}: not within {limit:.0?}")
}
