//! Faults of a pair around a copy, and of the link between its two servers.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result};
use testkit::until;
use tokio::time::{sleep, timeout};

use super::{
    FaultEffect, hold,
    redis_servers::{config_set, tell},
};
use crate::testbed::{Testbed, Victim, pick};

/// A copy is made this slowly, so that hundreds of units are sold meanwhile.
const COPY_TIME: Duration = Duration::from_secs(2);

/// A copy is loaded this slowly, so that its source can die in between.
const LOAD_TIME: Duration = Duration::from_millis(500);

/// A copy begins within a second or two of the restart.
const COPY_LIMIT: Duration = Duration::from_secs(30);

/// A copy that can lead is promoted by then: detection and election take a second each.
const PROMOTION_LIMIT: Duration = Duration::from_secs(6);

/// A server that was frozen or restarted answers by then.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// When the lone primary is hit.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The copy is half made. It cannot lead.
    MiddleOfCopy,
    /// The copy is sent and not yet loaded. It can lead once it is, and lacks what was written since it began.
    CopySent,
    /// The copy is loaded and about to follow.
    CopyLoaded,
}

/// How a server is taken away, and brought back.
#[derive(Clone, Copy, Debug)]
enum Absence {
    Killed,
    Frozen,
}

/// A primary dies and its replica leads alone. While the old primary copies, the leader is taken away, too.
pub(super) async fn successor_killed(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    let (first, successor) = (victim.addr, victim.replica);
    // A copy that lacks the latest writes is the dangerous one, so it comes twice as often.
    let moments = [Moment::CopySent, Moment::CopyLoaded, Moment::CopySent, Moment::MiddleOfCopy];
    let moment = pick(&moments, draw >> 8).context("there are moments")?;
    let absence = pick(&[Absence::Killed, Absence::Frozen], draw >> 16).context("there are absences")?;

    stage.redis().kill(first);
    stage.redis().wait_until_promoted(successor).await?;
    slow_down(stage, successor, "rdb-key-save-delay", COPY_TIME).await?;
    hold().await;
    stage.redis().restart(first).await?;
    slow_down(stage, first, "key-load-delay", LOAD_TIME).await?;
    moment.wait(stage, &victim).await?;

    absence.begin(stage, successor);
    // A copy that is not complete cannot lead: then its source does once it is back.
    let promotion = timeout(PROMOTION_LIMIT, stage.redis().wait_until_promoted(first)).await;
    let is_promoted = matches!(promotion, Ok(Ok(())));
    if is_promoted {
        hold().await;
    }
    absence.end(stage, successor).await?;
    at_full_speed(stage, first, "key-load-delay").await?;
    at_full_speed(stage, successor, "rdb-key-save-delay").await?;
    let leader = if is_promoted { first } else { successor };
    let target = format!("{first}, then {successor} {absence:?} at {moment:?}; {leader} leads");
    Ok(FaultEffect::to(target, victim.shards))
}

/// The replica loses its link while both servers live. Then the link is back, or the primary dies and the replica, which
/// lacks what was written since, takes over. By draw another server, which cannot be promoted, goes on copying.
pub(super) async fn link_cut(stage: &Testbed, draw: u32) -> Result<FaultEffect> {
    let victim = stage.victim(draw).await?;
    let is_killed = pick(&[true, false], draw >> 8).context("two endings")?;
    let outsider = match pick(&[true, false], draw >> 16) {
        Some(true) => Some(stage.redis().start_outsider(victim.addr).await?),
        _ => None,
    };
    let copies = 1 + usize::from(outsider.is_some());
    wait_for_copies(stage, victim.addr, copies).await?;

    stage.redis().cut_replication(victim.addr).await?;
    wait_for_copies(stage, victim.addr, copies - 1).await?;
    hold().await;
    if is_killed {
        stage.redis().kill(victim.addr);
        stage.redis().wait_until_promoted(victim.replica).await?;
        hold().await;
        stage.redis().restart(victim.addr).await?;
    } else {
        stage.redis().restore_replication(victim.addr).await?;
    }
    let beside = if outsider.is_some() { ", a server outside still copies" } else { "" };
    let then = if is_killed { "primary killed" } else { "restored" };
    Ok(FaultEffect::to(format!("{} from {}{beside}; {then}", victim.replica, victim.addr), victim.shards))
}

impl Moment {
    async fn wait(
        self,
        stage: &Testbed,
        Victim { addr: copier, replica: source, .. }: &Victim,
    ) -> Result<()> {
        match self {
            Self::MiddleOfCopy => {
                let begun = async || info(stage, *source).await.contains("connected_slaves:1");
                until("the beginning of a copy", COPY_LIMIT, begun).await?;
                sleep(COPY_TIME / 2).await;
                Ok(())
            }
            Self::CopySent => wait_for_copies(stage, *source, 1).await,
            Self::CopyLoaded => {
                let loaded = async || info(stage, *copier).await.contains("master_link_status:up");
                until("a loaded copy", COPY_LIMIT, loaded).await
            }
        }
    }
}

impl Absence {
    fn begin(self, stage: &Testbed, server: SocketAddr) {
        match self {
            Self::Killed => stage.redis().kill(server),
            Self::Frozen => stage.redis().freeze(server),
        }
    }

    async fn end(self, stage: &Testbed, server: SocketAddr) -> Result<()> {
        match self {
            Self::Killed => stage.redis().restart(server).await,
            Self::Frozen => {
                stage.redis().thaw(server);
                Ok(())
            }
        }
    }
}

/// Waits until a primary has sent so many copies, whether they are loaded or not.
async fn wait_for_copies(stage: &Testbed, primary: SocketAddr, count: usize) -> Result<()> {
    let sent = async || {
        let info = info(stage, primary).await;
        info.contains("role:master") && info.matches("state=online").count() == count
    };
    until("the copies of a primary", COPY_LIMIT, sent).await
}

/// Has all keys together take so long where this setting delays each of them by microseconds.
async fn slow_down(stage: &Testbed, server: SocketAddr, setting: &str, time: Duration) -> Result<()> {
    let mut connection = stage.redis().connection(server).await?;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut connection).await?;
    let delay = time.as_micros() as u64 / keys.max(1);
    tell(stage, server, config_set(setting, &delay.to_string())).await
}

async fn at_full_speed(stage: &Testbed, server: SocketAddr, setting: &str) -> Result<()> {
    let told = async || tell(stage, server, config_set(setting, "0")).await.is_ok();
    until("a server that takes its setting back", ANSWER_LIMIT, told).await
}

/// What a server says of its replication; nothing where it does not answer.
async fn info(stage: &Testbed, server: SocketAddr) -> String {
    let Ok(mut connection) = stage.redis().connection(server).await else { return String::new() };
    redis::cmd("INFO").arg("replication").query_async(&mut connection).await.unwrap_or_default()
}
