//! Makes a cluster of servers that do not know each other, with plain commands (Valkey's package brings no command-line
//! client), and tells when a cluster is whole.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use redis::Cmd;

use crate::{redis_server::Server, wait::until_ok};

/// A Redis Cluster has this many slots, by its protocol.
const SLOTS: usize = 16_384;

/// A fresh cluster opens for writes two seconds after its primaries started, by a constant of the server; a failed
/// primary's replacement and a full copy come on top. The rest is for a machine that is busy with everything else.
const WHOLE_LIMIT: Duration = Duration::from_secs(30);

/// A server's part in a cluster that is to be formed.
pub(crate) struct Member<'a> {
    pub(crate) server: &'a Server,
    /// The number of the member it is a replica of; a primary if none.
    pub(crate) copies: Option<usize>,
}

/// Introduces the members, deals the slots to the primaries and gives each replica its primary.
pub(crate) async fn form(members: &[Member<'_>]) -> Result<()> {
    // A server takes an epoch only before it knows another one.
    try_join_all((1_usize..).zip(members).map(|(epoch, member)| set_epoch(member, epoch))).await?;
    try_join_all(members.iter().enumerate().map(|(i, member)| introduce(i, member, members))).await?;
    deal_slots(members).await?;
    try_join_all(members.iter().map(|member| follow_primary(member, members))).await?;
    Ok(())
}

/// Waits until every server sees every slot served and every other server, and each primary's replicas hold its data.
pub(crate) async fn wait_until_whole(servers: &[Arc<Server>], replicas_per_primary: u16) -> Result<()> {
    let whole = async || {
        try_join_all(servers.iter().map(|server| ensure_whole(server, servers.len(), replicas_per_primary)))
            .await?;
        Ok(())
    };
    until_ok("a whole cluster", WHOLE_LIMIT, whole).await
}

/// Distinct epochs spare the primaries the rounds of settling who may keep which slot.
async fn set_epoch(member: &Member<'_>, epoch: usize) -> Result<()> {
    run(member.server, redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(epoch)).await
}

/// Has a server meet all that come after it directly, which spares the gossip.
async fn introduce(number: usize, member: &Member<'_>, members: &[Member<'_>]) -> Result<()> {
    for other in &members[number + 1..] {
        meet(member.server, other.server).await?;
    }
    Ok(())
}

/// Has a server get to know another one.
pub(crate) async fn meet(server: &Server, other: &Server) -> Result<()> {
    let (addr, bus) = (other.addr(), bus_port(other).await?);
    let mut meet = redis::cmd("CLUSTER");
    run(server, meet.arg("MEET").arg(addr.ip().to_string()).arg(addr.port()).arg(bus)).await
}

async fn bus_port(server: &Server) -> Result<u16> {
    let mut connection = server.connection().await?;
    let answer: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("cluster-port").query_async(&mut connection).await?;
    Ok(answer.last().context("CONFIG GET cluster-port answered nothing")?.parse()?)
}

async fn deal_slots(members: &[Member<'_>]) -> Result<()> {
    let primaries: Vec<_> = members.iter().filter(|member| member.copies.is_none()).collect();
    let bound = |i: usize| SLOTS * i / primaries.len();
    let deals = primaries.iter().enumerate().map(async |(i, primary)| {
        let mut add = redis::cmd("CLUSTER");
        run(primary.server, add.arg("ADDSLOTSRANGE").arg(bound(i)).arg(bound(i + 1) - 1)).await
    });
    try_join_all(deals).await?;
    Ok(())
}

/// A server refuses to follow one it has not met yet, so this is tried until it has.
async fn follow_primary(member: &Member<'_>, members: &[Member<'_>]) -> Result<()> {
    let Some(primary) = member.copies.map(|number| members[number].server) else { return Ok(()) };
    replicate(member.server, primary).await
}

/// Has a server become a replica of a primary.
pub(crate) async fn replicate(server: &Server, primary: &Server) -> Result<()> {
    let primary_id = primary.id().await?;
    let follow = async || run(server, redis::cmd("CLUSTER").arg("REPLICATE").arg(&primary_id)).await;
    until_ok("a replica following its primary", WHOLE_LIMIT, follow).await
}

async fn ensure_whole(server: &Server, servers: usize, replicas_per_primary: u16) -> Result<()> {
    let state = server.cluster_info().await?;
    let says = |field: &str, value: &str| state.field(field) == Some(value);
    ensure!(says("cluster_state", "ok"), "{} says that the cluster is not ok", server.addr());
    ensure!(says("cluster_slots_ok", &SLOTS.to_string()), "{} misses slots", server.addr());
    ensure_knows_all(server, servers, replicas_per_primary).await?;
    ensure_copied(server, replicas_per_primary).await
}

/// Clients read the slot map from any server: each must list every replica by now, and hear of each.
async fn ensure_knows_all(server: &Server, servers: usize, replicas_per_primary: u16) -> Result<()> {
    let mut connection = server.connection().await?;
    let nodes: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await?;
    // A link that is missing carries no vote: a replica that started a moment ago would ask for a promotion in vain.
    ensure!(!nodes.contains(" disconnected"), "{} is not connected to all servers", server.addr());
    let flags: Vec<&str> = nodes.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let healthy = flags.iter().filter(|flags| !flags.contains("fail") && !flags.contains("handshake"));
    let replicas = healthy.clone().filter(|flags| flags.contains("slave")).count();
    let per_primary = usize::from(replicas_per_primary);
    ensure!(healthy.count() == servers, "{} does not see all servers", server.addr());
    ensure!(
        replicas == servers / (1 + per_primary) * per_primary,
        "{} does not see all replicas",
        server.addr()
    );
    Ok(())
}

async fn ensure_copied(server: &Server, replicas_per_primary: u16) -> Result<()> {
    let replication = server.info("replication").await?;
    if replication.field("role") == Some("slave") {
        ensure!(replication.field("master_link_status") == Some("up"), "{} has no copy yet", server.addr());
        return Ok(());
    }
    let online = (0..replicas_per_primary).filter(|i| {
        replication.field(&format!("slave{i}")).is_some_and(|replica| replica.contains("state=online"))
    });
    ensure!(online.count() == usize::from(replicas_per_primary), "{} misses a replica", server.addr());
    Ok(())
}

pub(crate) async fn run(server: &Server, command: &mut Cmd) -> Result<()> {
    Ok(command.exec_async(&mut server.connection().await?).await?)
}
