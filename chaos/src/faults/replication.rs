//! Faults during a full copy between the two servers of a pair, and of the replication link between them.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use testkit::until;
use tokio::time::{sleep, timeout};

use super::{
    FaultEffect, hold,
    redis_servers::{config_set, run_command},
};
use crate::testbed::{Testbed, Victim, pick};

/// Duration of a copy, slowed down to this so that hundreds of units are sold meanwhile.
const COPY_TIME: Duration = Duration::from_secs(2);

/// Duration of loading a copy, slowed down to this so that its source can fail in between.
const LOAD_TIME: Duration = Duration::from_millis(500);

/// Time limit for a copy to begin; it begins one or two seconds after the restart.
const COPY_LIMIT: Duration = Duration::from_secs(30);

/// Time limit for a promotion. Detection and election take a second each.
const PROMOTION_LIMIT: Duration = Duration::from_secs(6);

/// Time limit for a server to answer after it was frozen or restarted.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Phase of the copy in which the only complete server fails.
#[derive(Clone, Copy, Debug)]
enum CopyPhase {
    /// The copy is half sent. The copying server cannot be promoted.
    MiddleOfCopy,
    /// The copy is sent and not yet loaded. Once loaded, the copying server can be promoted, and lacks the writes since
    /// the copy began.
    CopySent,
    /// The copy is loaded, and the server is about to follow its primary.
    CopyLoaded,
}

/// Way in which a server fails and is recovered.
#[derive(Clone, Copy, Debug)]
enum FailureMode {
    Killed,
    Frozen,
}

/// Kills a primary, so that its replica is the only server left. While the old primary copies from it, it fails, too.
pub(super) async fn successor_killed(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    let (first, successor) = (victim.addr, victim.replica);
    // A copy without the latest writes is the most dangerous case, so it is drawn twice as often.
    let phases = [CopyPhase::CopySent, CopyPhase::CopyLoaded, CopyPhase::CopySent, CopyPhase::MiddleOfCopy];
    let phase = pick(&phases, draw >> 8).context("no phases")?;
    let failure =
        pick(&[FailureMode::Killed, FailureMode::Frozen], draw >> 16).context("no failure modes")?;

    testbed.redis().kill(first);
    testbed.redis().wait_until_promoted(successor).await?;
    set_delay(testbed, successor, "rdb-key-save-delay", COPY_TIME).await?;
    hold().await;
    testbed.redis().restart(first).await?;
    set_delay(testbed, first, "key-load-delay", LOAD_TIME).await?;
    phase.wait(testbed, &victim).await?;

    failure.begin(testbed, successor);
    // A server with an incomplete copy cannot be promoted. Then its source is primary again once it is back.
    let promotion = timeout(PROMOTION_LIMIT, testbed.redis().wait_until_promoted(first)).await;
    let is_promoted = matches!(promotion, Ok(Ok(())));
    if is_promoted {
        hold().await;
    }
    failure.end(testbed, successor).await?;
    reset_delay(testbed, first, "key-load-delay").await?;
    reset_delay(testbed, successor, "rdb-key-save-delay").await?;
    let leader = if is_promoted { first } else { successor };
    let target = format!("{first}, then {successor} {failure:?} at {phase:?}; {leader} leads");
    Ok(FaultEffect::on(target, victim.shards))
}

/// Cuts the replication link while both servers run. Then the link is restored, or the primary is killed and the
/// replica, which lacks the writes since the cut, is promoted. Depending on the draw, another server that cannot be
/// promoted goes on copying from the primary.
pub(super) async fn link_cut(testbed: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = testbed.victim(draw).await?;
    let is_killed = pick(&[true, false], draw >> 8).context("no choice")?;
    let external = match pick(&[true, false], draw >> 16) {
        Some(true) => Some(testbed.redis().start_external_replica(victim.addr).await?),
        _ => None,
    };
    let copies = 1 + usize::from(external.is_some());
    wait_for_copies(testbed, victim.addr, copies).await?;

    testbed.redis().cut_replication(victim.addr).await?;
    wait_for_copies(testbed, victim.addr, copies - 1).await?;
    hold().await;
    if is_killed {
        testbed.redis().kill(victim.addr);
        testbed.redis().wait_until_promoted(victim.replica).await?;
        hold().await;
        testbed.redis().restart(victim.addr).await?;
    } else {
        testbed.redis().restore_replication(victim.addr).await?;
    }
    let note = if external.is_some() { ", an external replica still copies" } else { "" };
    let then = if is_killed { "primary killed" } else { "restored" };
    Ok(FaultEffect::on(format!("{} from {}{note}; {then}", victim.replica, victim.addr), victim.shards))
}

impl CopyPhase {
    async fn wait(
        self,
        testbed: &Testbed,
        Victim { addr: copier, replica: source, .. }: &Victim,
    ) -> Result<()> {
        match self {
            Self::MiddleOfCopy => {
                let begun = async || replication_info(testbed, *source).await.contains("connected_slaves:1");
                until("the beginning of a copy", COPY_LIMIT, begun).await?;
                sleep(COPY_TIME / 2).await;
                Ok(())
            }
            Self::CopySent => wait_for_copies(testbed, *source, 1).await,
            Self::CopyLoaded => {
                let loaded =
                    async || replication_info(testbed, *copier).await.contains("master_link_status:up");
                until("a loaded copy", COPY_LIMIT, loaded).await
            }
        }
    }
}

impl FailureMode {
    fn begin(self, testbed: &Testbed, server: SocketAddr) {
        match self {
            Self::Killed => testbed.redis().kill(server),
            Self::Frozen => testbed.redis().freeze(server),
        }
    }

    async fn end(self, testbed: &Testbed, server: SocketAddr) -> Result<()> {
        match self {
            Self::Killed => testbed.redis().restart(server).await,
            Self::Frozen => {
                testbed.redis().thaw(server);
                Ok(())
            }
        }
    }
}

/// Waits until a primary has exactly `count` replicas online, loaded or not.
async fn wait_for_copies(testbed: &Testbed, primary: SocketAddr, count: usize) -> Result<()> {
    let sent = async || {
        let replication_info = replication_info(testbed, primary).await;
        replication_info.contains("role:master") && replication_info.matches("state=online").count() == count
    };
    until("the copies of a primary", COPY_LIMIT, sent).await
}

/// Sets a delay per key, in microseconds, such that all keys together take `time`.
async fn set_delay(testbed: &Testbed, server: SocketAddr, setting: &str, time: Duration) -> Result<()> {
    let mut connection = testbed.redis().connection(server).await?;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
    let delay = time.as_micros() as u64 / keys.max(1);
    run_command(testbed, server, config_set(setting, &delay.to_string())).await
}

async fn reset_delay(testbed: &Testbed, server: SocketAddr, setting: &str) -> Result<()> {
    let is_reset = async || run_command(testbed, server, config_set(setting, "0")).await.is_ok();
    until("a reset setting", ANSWER_LIMIT, is_reset).await
}

/// Returns `INFO replication` of a server, or an empty string when it does not answer.
async fn replication_info(testbed: &Testbed, server: SocketAddr) -> String {
    let Ok(mut connection) = testbed.redis().connection(server).await else { return String::new() };
    redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap_or_default()
}
