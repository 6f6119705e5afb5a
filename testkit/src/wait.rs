//! Waits for a condition with a deadline, never for a fixed time.
//!
//! Conditions are plain functions that return futures, not `AsyncFnMut`. With `AsyncFnMut` the compiler cannot see
//! that the future is `Send`, so a function that waits could not run in a spawned task, as the faults of some tests
//! do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use futures::FutureExt;
use tokio::time::{sleep, timeout};

/// Time between two checks: short compared to anything a test waits for, long compared to the cost of a check.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Polls `condition` until it returns true.
///
/// # Errors
/// Fails when the condition is not true within `limit`; a check that hangs counts too. The message contains `what`.
pub async fn until<Check>(what: &str, limit: Duration, mut condition: impl FnMut() -> Check) -> Result<()>
where
    Check: Future<Output = bool>,
{
    let as_result = || condition().map(|holds| if holds { Ok(()) } else { Err(anyhow!("not yet")) });
    until_ok(what, limit, as_result).await
}

/// Like [`until`], for conditions that return an error while they do not hold. The last such error is part of the
/// result.
///
/// # Errors
/// Fails when the condition does not hold within `limit`; a check that hangs counts too.
pub async fn until_ok<Check>(what: &str, limit: Duration, mut condition: impl FnMut() -> Check) -> Result<()>
where
    Check: Future<Output = Result<()>>,
{
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = timeout(left, condition()).await;
        match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(_)) if left > POLL_INTERVAL => sleep(POLL_INTERVAL).await,
            Ok(Err(reason)) => return Err(reason).with_context(|| not_within(what, limit)),
            Err(_) => bail!(not_within(what, limit)),
        }
    }
}

fn not_within(what: &str, limit: Duration) -> String {
    format!("{what}: not within {limit:.0?}")
}
