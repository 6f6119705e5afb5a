//! Plans the next step towards a healthy cluster. Pure.
//!
//! Each plan is made from the facts alone, and each step may run twice. So a run that was killed leaves nothing behind
//! that the next one would have to know.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use rediscluster::Slot;

use crate::balance::{is_uneven, moves_to_balance, share};
use crate::command::Command;
use crate::facts::{Facts, Server};
use crate::health::ensure_healthy;
use crate::slots::Slots;

/// The extent of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// How far it goes.
    pub goal: Goal,
    /// Assigns slots whose data was lost with all servers that had it. They are empty then.
    pub accept_data_loss: bool,
}

/// How far a run goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// All servers are members, and interrupted moves are complete. A new group serves no slots yet, unless the
    /// cluster is being created.
    Form,
    /// In addition, each group has its share of the slots.
    Grow,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send commands to servers. The text says what they lead to.
    Send(&'static str, Vec<(usize, Command)>),
    /// Wait for the cluster: for what, and what is missing.
    Wait(&'static str, String),
    /// Count the keys in the slots of all primaries.
    CountKeys,
    /// Move slots.
    Move(Vec<Move>),
    /// There is nothing to do.
    Done,
}

/// One slot to move, with the indexes of the two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Move {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) slot: Slot,
}

/// A state that only a person can resolve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refusal(pub(crate) String);

const HEALTH: &str = "the cluster to be healthy";

/// Returns the next step.
pub(crate) fn plan(facts: &Facts, request: Request) -> Result<Step, Refusal> {
    refuse_unsafe_state(facts)?;
    let lost = lost_slots(facts);
    if !request.accept_data_loss && !lost.is_empty() {
        return Err(lost_data(facts, &lost));
    }
    let joining = set_epochs(facts)
        .or_else(|| introduce(facts))
        .or_else(|| assign_new_slots(facts))
        .or_else(|| wait_for_only_copies(facts))
        .or_else(|| replace_lost_slots(facts, &lost))
        .or_else(|| allow_replicas(facts))
        .or_else(|| unite_groups(facts))
        .or_else(|| follow_leaders(facts))
        .or_else(|| forget_former_servers(facts));
    if let Some(step) = joining {
        return Ok(step);
    }
    if let Err(why) = ensure_healthy(facts) {
        return Ok(Step::Wait(HEALTH, why));
    }
    if let Some(step) = finish_open_slots(facts)? {
        return Ok(step);
    }
    Ok(match request.goal {
        Goal::Grow if is_uneven(facts) => moves_to_balance(facts).map_or(Step::CountKeys, Step::Move),
        _ => Step::Done,
    })
}

/// Refuses states that only a person can resolve.
fn refuse_unsafe_state(facts: &Facts) -> Result<(), Refusal> {
    for (i, server) in facts.servers.iter().enumerate() {
        let reason = forgot_its_cluster(facts, server)
            .or_else(|| shares_its_role(facts, server))
            .or_else(|| copies_another_group(facts, server))
            .or_else(|| is_of_another_cluster(server, &facts.servers[..i]));
        reason.map_or(Ok(()), |reason| Err(Refusal(reason)))?;
    }
    unknown_member(facts).map_or(Ok(()), |reason| Err(Refusal(reason)))
}

fn forgot_its_cluster(facts: &Facts, server: &Server) -> Option<String> {
    let holds = match server.keys {
        0 => "serves slots".to_owned(),
        keys => format!("holds {keys} keys"),
    };
    let partner = facts.partners(server).next().map_or("none".to_owned(), |it| it.address.to_string());
    let reason = format!(
        "{} {holds} but knows no other server: its nodes.conf is lost. Restore it; or empty its data folder, if its \
         partner {partner} has everything",
        server.address
    );
    (server.others.is_empty() && server.has_data()).then_some(reason)
}

fn shares_its_role(facts: &Facts, server: &Server) -> Option<String> {
    let serves = |server: &Server| !server.slots.is_empty();
    let other = facts.partners(server).find(|partner| serves(server) && serves(partner))?;
    let reason = || format!("{} and {} both serve slots: they are not a pair", server.address, other.address);
    facts.replaced_primary(server.group).is_none().then(reason)
}

/// With other data it could be promoted, so it is not told to follow its partner.
fn copies_another_group(facts: &Facts, server: &Server) -> Option<String> {
    let primary = facts.named(server.primary.as_ref()?).filter(|primary| primary.group != server.group)?;
    Some(format!(
        "{} copies {}, which is not its partner. If it belongs to this pair, empty its data folder: with other data it \
         could be promoted",
        server.address, primary.address
    ))
}

fn is_of_another_cluster(server: &Server, earlier: &[Server]) -> Option<String> {
    let is_member_with_data = |server: &Server| !server.others.is_empty() && server.has_data();
    let is_apart = |other: &&Server| is_member_with_data(other) && !server.others.contains_key(&other.id);
    let other = earlier.iter().filter(|_| is_member_with_data(server)).find(is_apart)?;
    Some(format!(
        "{} and {} hold data but do not know each other: these are two clusters",
        server.address, other.address
    ))
}

fn unknown_member(facts: &Facts) -> Option<String> {
    let is_transient =
        |id: &str| facts.entries(id).any(|node| node.is_in_handshake() || node.has_no_address());
    let mut strangers = facts.strangers();
    let (viewer, id, node) =
        strangers.find(|(_, id, node)| facts.at(&node.endpoint).is_none() && !is_transient(id))?;
    let (ip, port) = (&node.endpoint.ip, node.endpoint.port);
    Some(format!("{} knows {ip}:{port} ({id}), which PAIRS does not name", viewer.address))
}

/// The slots whose data no server has: none claims them, none could be promoted to, and the cluster is not new.
fn lost_slots(facts: &Facts) -> Slots {
    if is_new(facts) || facts.servers.iter().any(|server| only_copy(facts, server).is_some()) {
        return Slots::default();
    }
    facts.unclaimed()
}

fn lost_data(facts: &Facts, lost: &Slots) -> Refusal {
    let owner = facts.strangers().find(|(_, _, node)| !node.slots.is_empty());
    let owner = owner.map_or("a server that was forgotten".to_owned(), |(_, id, node)| {
        format!("{}:{} ({id})", node.endpoint.ip, node.endpoint.port)
    });
    Refusal(format!(
        "the data of slots {lost} is lost: {owner} served them, and neither it nor a copy of it is left. Restore the \
         data folder of one of its servers, with nodes.conf. If the data is gone for good, repeat with \
         --accept-data-loss: the slots are then assigned again, empty"
    ))
}

/// Returns true while the cluster is being created: no server holds a key, and no server that is gone served a slot.
fn is_new(facts: &Facts) -> bool {
    !facts.have_keys() && facts.strangers().all(|(_, _, node)| node.slots.is_empty())
}

/// Sets distinct epochs, so that the primaries need not settle conflicts over slots.
fn set_epochs(facts: &Facts) -> Option<Step> {
    let is_fresh = facts.servers.iter().all(|server| server.others.is_empty());
    let without = facts.servers.iter().enumerate().filter(|(_, server)| is_fresh && server.epoch == 0);
    send("distinct epochs", without.map(|(i, _)| (i, Command::SetEpoch(i + 1))))
}

/// Introduces servers that do not know each other.
fn introduce(facts: &Facts) -> Option<Step> {
    let servers = &facts.servers;
    let pairs = (0..servers.len()).flat_map(|i| (i + 1..servers.len()).map(move |j| (i, j)));
    let strange =
        pairs.filter(|&(i, j)| !(servers[i].knows(&servers[j].id) && servers[j].knows(&servers[i].id)));
    let meetings = strange.map(|(i, j)| (i, Command::Meet(servers[j].endpoint.clone())));
    send("all servers to know each other", meetings)
}

fn assign_new_slots(facts: &Facts) -> Option<Step> {
    if is_new(facts) { assign(facts, &facts.unclaimed()) } else { None }
}

/// Gives unclaimed slots to the groups that have less than their share.
fn assign(facts: &Facts, unclaimed: &Slots) -> Option<Step> {
    let mut slots = unclaimed.iter();
    let commands = (0..facts.groups()).filter_map(|group| {
        let leader = facts.leader_of(group);
        let lacks = share(group, facts.groups()).saturating_sub(leader.slots.len());
        let given: Slots = slots.by_ref().take(lacks).collect();
        (!given.is_empty()).then(|| (index(facts, leader), Command::AddSlots(given)))
    });
    send("all slots to be assigned", commands)
}

/// Waits while a replica may hold the only copy of its group. A primary that came back with an empty folder is a new
/// server to the cluster. Until its replica is promoted, that replica must not be told to copy the empty server.
fn wait_for_only_copies(facts: &Facts) -> Option<Step> {
    let why = facts.servers.iter().find_map(|server| only_copy(facts, server))?;
    Some(Step::Wait("the only copies of data to be promoted", why))
}

/// Returns the reason why a replica may not follow another primary, if any. One whose primary serves no slots may
/// follow another by itself, or has old data: it could be promoted before it has copied.
fn only_copy(facts: &Facts, server: &Server) -> Option<String> {
    let primary = server.primary.as_ref()?;
    if facts.members(server.group).any(|member| member.id == *primary) {
        return None;
    }
    let (address, serves) = (&server.address, facts.is_listed_with_slots(primary));
    match (serves, server.keys) {
        (true, _) => Some(format!(
            "{address} has the only copy of its pair and is not the primary; if this persists, run CLUSTER FAILOVER \
             TAKEOVER on it"
        )),
        (false, 0) => None,
        (false, _) => Some(format!(
            "{address} has the data of a server that serves no slots any more; if this persists, empty its data folder"
        )),
    }
}

/// Forgets the lost owners everywhere first: a server does not accept a slot that it lists for another one.
fn replace_lost_slots(facts: &Facts, lost: &Slots) -> Option<Step> {
    if lost.is_empty() {
        return None;
    }
    let owners = facts.strangers().filter(|(_, id, _)| facts.is_listed_with_slots(id));
    let forget = owners.map(|(viewer, id, _)| (index(facts, viewer), Command::Forget(id.clone())));
    send("the owners of lost slots to be forgotten", forget).or_else(|| assign(facts, lost))
}

/// A server that was never part of a cluster blocks replicas, because a replica with the only copy of the data could
/// be copying from that address.
fn allow_replicas(facts: &Facts) -> Option<Step> {
    let blocking = facts.servers.iter().enumerate().filter(|(_, server)| server.blocks_replicas);
    send("replicas to be allowed", blocking.map(|(i, _)| (i, Command::AllowReplicas)))
}

/// Moves the slots that a replaced primary kept to its successor.
fn unite_groups(facts: &Facts) -> Option<Step> {
    let moves = (0..facts.groups()).filter_map(|group| {
        let replaced = facts.replaced_primary(group)?;
        let (from, to) = (index(facts, replaced), index(facts, facts.leader_of(group)));
        Some(replaced.slots.iter().map(move |slot| Move { from, to, slot }))
    });
    let moves: Vec<Move> = moves.flatten().collect();
    (!moves.is_empty()).then_some(Step::Move(moves))
}

/// Makes each server without slots a replica of its group's primary.
fn follow_leaders(facts: &Facts) -> Option<Step> {
    let follow = facts.servers.iter().enumerate().filter_map(|(i, server)| {
        let leader = facts.leader_of(server.group);
        let follows = server.id == leader.id || server.primary.as_ref() == Some(&leader.id);
        (!follows).then(|| (i, Command::Replicate(leader.id.clone())))
    });
    send("replicas to follow their primaries", follow)
}

/// Forgets former servers that serve nothing. A server that came back with an empty folder has a new id.
fn forget_former_servers(facts: &Facts) -> Option<Step> {
    let is_gone = |id: &str| facts.entries(id).any(|node| node.has_failed() || node.has_no_address());
    let former = || {
        let known = facts.strangers().filter(|(_, _, node)| !node.is_in_handshake());
        known.filter(|(_, id, _)| !facts.is_listed_with_slots(id))
    };
    let gone = former().filter(|(_, id, _)| is_gone(id));
    let forget = gone.map(|(viewer, id, _)| (index(facts, viewer), Command::Forget(id.clone())));
    let unnoticed = || {
        let (viewer, id, _) = former().next()?;
        Some(Step::Wait(HEALTH, format!("{} does not know yet that {id} is gone", viewer.address)))
    };
    send("former servers to be forgotten", forget).or_else(unnoticed)
}

/// Continues moves that were interrupted, to their targets.
fn finish_open_slots(facts: &Facts) -> Result<Option<Step>, Refusal> {
    let (mut commands, mut moves) = (Vec::new(), Vec::new());
    for (slot, OpenSlot { target, holders }) in open_slots(facts)? {
        let source = facts.servers.iter().position(|server| server.slots.contains(slot));
        match source.filter(|source| *source != target) {
            None => commands.extend(holders.into_iter().map(|holder| (holder, Command::Close(slot)))),
            // When the source was replaced in the meantime, the target regards the slot as unserved and imports
            // nothing.
            Some(source) if !facts.servers[target].lists(slot, &facts.servers[source].id) => {
                commands.push((target, Command::Assign(slot, facts.servers[source].id.clone())));
            }
            Some(source) => moves.push(Move { from: source, to: target, slot }),
        }
    }
    let moves = (!moves.is_empty()).then_some(Step::Move(moves));
    Ok(send("interrupted moves to continue", commands).or(moves))
}

/// A slot whose move is not complete.
struct OpenSlot {
    target: usize,
    /// The primaries on which it is open.
    holders: Vec<usize>,
}

fn open_slots(facts: &Facts) -> Result<BTreeMap<Slot, OpenSlot>, Refusal> {
    let mut open: BTreeMap<Slot, OpenSlot> = BTreeMap::new();
    for (i, server) in facts.servers.iter().enumerate().filter(|(_, server)| server.is_primary()) {
        let entering = server.entering.keys().map(|slot| (*slot, Some(i)));
        let leaving = server.leaving.iter().map(|(slot, id)| (*slot, target_of(facts, server, id)));
        for (slot, target) in entering.chain(leaving) {
            let gone =
                || Refusal(format!("slot {slot} of {} is moving to a server that is gone", server.address));
            let target = target.ok_or_else(gone)?;
            let known = open.entry(slot).or_insert_with(|| OpenSlot { target, holders: Vec::new() });
            if known.target != target {
                return Err(Refusal(format!("slot {slot} is moving to two servers")));
            }
            known.holders.push(i);
        }
    }
    Ok(open)
}

/// The primary of the group to which a slot moves. The target may have been replaced, or have lost its id.
fn target_of(facts: &Facts, source: &Server, id: &str) -> Option<usize> {
    let known = || facts.at(&source.others.get(id)?.endpoint);
    let target = facts.named(id).or_else(known)?;
    Some(index(facts, facts.leader_of(target.group)))
}

pub(crate) fn index(facts: &Facts, server: &Server) -> usize {
    let found = facts.servers.iter().position(|other| other.id == server.id);
    found.expect("it is one of these servers")
}

fn send(purpose: &'static str, commands: impl IntoIterator<Item = (usize, Command)>) -> Option<Step> {
    let commands: Vec<_> = commands.into_iter().collect();
    (!commands.is_empty()).then_some(Step::Send(purpose, commands))
}
