//! Forms a cluster of new servers and checks when it is whole. Uses plain commands, because Valkey's package has no
//! command-line client.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use redis::Cmd;

use crate::{redis_server::Server, wait::until_ok};

/// The number of slots in a Redis Cluster, fixed by its protocol.
const SLOTS: usize = 16_384;

/// Time limit until a cluster is whole. A new cluster accepts writes 2 s after its primaries started, by a constant of
/// the server. The replacement of a failed primary and a full copy may come on top. The rest is for a busy machine.
const WHOLE_LIMIT: Duration = Duration::from_secs(30);

/// A server and its role in a new cluster.
pub(crate) struct Member<'a> {
    pub(crate) server: &'a Server,
    /// The index of the member that this one replicates, or `None` for a primary.
    pub(crate) replica_of: Option<usize>,
}

/// Introduces the members to each other, assigns the slots to the primaries, and attaches each replica to its primary.
pub(crate) async fn form(members: &[Member<'_>]) -> Result<()> {
    // A server accepts an epoch only before it knows another server.
    try_join_all((1_usize..).zip(members).map(|(epoch, member)| set_epoch(member, epoch))).await?;
    try_join_all(members.iter().enumerate().map(|(i, member)| introduce(i, member, members))).await?;
    assign_slots(members).await?;
    try_join_all(members.iter().map(|member| follow_primary(member, members))).await?;
    Ok(())
}

/// Waits until the cluster is whole: every server sees every slot served and every other server, and each primary's
/// replicas hold its data.
pub(crate) async fn wait_until_whole(servers: &[Arc<Server>], replicas_per_primary: u16) -> Result<()> {
    let whole = async || {
        try_join_all(servers.iter().map(|server| ensure_whole(server, servers.len(), replicas_per_primary)))
            .await?;
        Ok(())
    };
    until_ok("a whole cluster", WHOLE_LIMIT, whole).await
}

/// Sets a distinct epoch, so that the primaries need not settle conflicts over slots.
async fn set_epoch(member: &Member<'_>, epoch: usize) -> Result<()> {
    run(member.server, redis::cmd("CLUSTER").arg("SET-CONFIG-EPOCH").arg(epoch)).await
}

/// Makes a server meet all later members directly, which is faster than gossip.
async fn introduce(number: usize, member: &Member<'_>, members: &[Member<'_>]) -> Result<()> {
    for other in &members[number + 1..] {
        meet(member.server, other.server).await?;
    }
    Ok(())
}

/// Makes a server meet another one.
pub(crate) async fn meet(server: &Server, other: &Server) -> Result<()> {
    let (addr, bus) = (other.addr(), bus_port(other).await?);
    let mut meet = redis::cmd("CLUSTER");
    run(server, meet.arg("MEET").arg(addr.ip().to_string()).arg(addr.port()).arg(bus)).await
}

async fn bus_port(server: &Server) -> Result<u16> {
    let mut connection = server.connection().await?;
    let answer: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("cluster-port").query_async(&mut connection).await?;
    Ok(answer.last().context("CONFIG GET cluster-port has an empty answer")?.parse()?)
}

async fn assign_slots(members: &[Member<'_>]) -> Result<()> {
    let primaries: Vec<_> = members.iter().filter(|member| member.replica_of.is_none()).collect();
    let bound = |i: usize| SLOTS * i / primaries.len();
    let assignments = primaries.iter().enumerate().map(async |(i, primary)| {
        let mut add = redis::cmd("CLUSTER");
        run(primary.server, add.arg("ADDSLOTSRANGE").arg(bound(i)).arg(bound(i + 1) - 1)).await
    });
    try_join_all(assignments).await?;
    Ok(())
}

/// Attaches a replica to its primary.
async fn follow_primary(member: &Member<'_>, members: &[Member<'_>]) -> Result<()> {
    let Some(primary) = member.replica_of.map(|number| members[number].server) else { return Ok(()) };
    replicate(member.server, primary).await
}

/// Makes a server a replica of a primary. Retries, because a server refuses to follow one that it has not met yet.
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

/// Checks that a server lists all servers and replicas and is connected to them. Clients read the slot map from any
/// server.
async fn ensure_knows_all(server: &Server, servers: usize, replicas_per_primary: u16) -> Result<()> {
    let mut connection = server.connection().await?;
    let nodes: String = redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await?;
    // Votes do not travel over a missing link, so a replica that started just before would not be promoted.
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
