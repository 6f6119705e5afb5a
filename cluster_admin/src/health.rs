//! The condition that every change ends with: clients may write as soon as it holds.

use rediscluster::SLOTS;

use crate::facts::{Facts, Server};

/// Checks that every server's view has the same group for each slot and the same roles, that all are connected, and that
/// every group has a primary whose replicas have its data. Exception: the slot of a move whose source was replaced is
/// served by no server until the move is complete.
///
/// # Errors
/// Returns what is missing.
pub fn ensure_healthy(facts: &Facts) -> Result<(), String> {
    facts.servers.iter().try_for_each(|server| ensure_role(facts, server))?;
    facts.servers.iter().try_for_each(|server| ensure_connected(facts, server))?;
    ensure_served(facts)?;
    let idle = facts.servers.iter().find(|server| !server.is_ok);
    idle.map_or(Ok(()), |server| Err(format!("{} does not serve requests yet", server.address)))
}

fn ensure_role(facts: &Facts, server: &Server) -> Result<(), String> {
    let address = &server.address;
    if !server.is_primary() {
        let missing = || format!("{address} does not have its primary's data yet");
        return if server.has_link { Ok(()) } else { Err(missing()) };
    }
    if let Some(other) = facts.partners(server).find(|partner| partner.is_primary()) {
        return Err(format!("{address} and {} are both primaries", other.address));
    }
    let (online, needed) = (server.replicas_online, facts.partners(server).count());
    if online < needed {
        return Err(format!("{online} of {needed} replicas follow {address}"));
    }
    Ok(())
}

/// Votes do not travel over a missing link, so a replica that started just before would not be promoted.
fn ensure_connected(facts: &Facts, server: &Server) -> Result<(), String> {
    let mut others = facts.servers.iter().filter(|other| other.id != server.id);
    let is_reachable = |other: &&Server| {
        let node = server.others.get(&other.id);
        node.is_some_and(|node| node.is_connected && !node.is_in_handshake() && !node.has_failed())
    };
    if let Some(other) = others.clone().find(|other| !is_reachable(other)) {
        return Err(format!("{} is not connected to {}", server.address, other.address));
    }
    let has_other_role = |other: &&Server| {
        server.others.get(&other.id).is_some_and(|node| node.is_primary() != other.is_primary())
    };
    match others.find(has_other_role) {
        Some(other) => Err(format!("{} does not know the role of {} yet", server.address, other.address)),
        None => Ok(()),
    }
}

fn ensure_served(facts: &Facts) -> Result<(), String> {
    let mut group_of = vec![None; usize::from(SLOTS)];
    for viewer in &facts.servers {
        let mut is_seen = vec![false; usize::from(SLOTS)];
        let others = viewer.others.iter().map(|(id, node)| (id, &node.slots));
        for (id, slots) in others.chain([(&viewer.id, &viewer.slots)]).filter(|(_, slots)| !slots.is_empty())
        {
            let owner =
                facts.named(id).ok_or_else(|| format!("slots {slots} were served by {id}, which is gone"))?;
            for slot in slots.iter() {
                let group = group_of[usize::from(slot)].get_or_insert(owner.group);
                if *group != owner.group {
                    return Err(format!("servers disagree about the group of slot {slot}"));
                }
                is_seen[usize::from(slot)] = true;
            }
        }
        viewer.entering.keys().for_each(|slot| is_seen[usize::from(*slot)] = true);
        let unserved = is_seen.iter().filter(|is_seen| !**is_seen).count();
        if unserved > 0 {
            return Err(format!("{} knows of {unserved} unserved slots", viewer.address));
        }
    }
    Ok(())
}
