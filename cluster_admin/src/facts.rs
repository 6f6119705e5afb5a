//! Facts about the cluster: each server's own view of it, read from all servers at about the same time.
//!
//! Each decision is made from one reading.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;
use rediscluster::{Address, Line, SLOTS, Slot};

use crate::moves::SLOTS_AT_ONCE;
use crate::slots::Slots;

/// The views of all servers, group by group.
#[derive(Clone, Debug)]
pub struct Facts {
    pub(crate) servers: Vec<Server>,
}

/// One server, and its view of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// The address at which it was asked.
    pub(crate) address: Address,
    /// The group that it belongs to.
    pub(crate) group: usize,
    /// Its id in the cluster.
    pub(crate) id: String,
    /// The id of the primary that it replicates.
    pub(crate) primary: Option<String>,
    /// Where other servers reach it.
    pub(crate) endpoint: Endpoint,
    /// Its configuration epoch.
    pub(crate) epoch: u64,
    /// The slots that it claims for itself.
    pub(crate) slots: Slots,
    /// The slots that it gives away, with the target's id.
    pub(crate) leaving: BTreeMap<Slot, String>,
    /// The slots that it receives, with the source's id.
    pub(crate) entering: BTreeMap<Slot, String>,
    /// The other servers that it knows, by id.
    pub(crate) others: BTreeMap<String, Node>,
    /// The number of its keys.
    pub(crate) keys: u64,
    /// The link of a replica to its primary is up.
    pub(crate) has_link: bool,
    /// The number of its replicas whose copy is complete.
    pub(crate) replicas_online: usize,
    /// The user `replica` is disabled. `start.sh` disables it on a server that was never part of a cluster.
    pub(crate) blocks_replicas: bool,
    /// It serves requests. A new primary waits for two seconds.
    pub(crate) is_ok: bool,
    /// Those of its slots that hold keys, once they have been counted.
    pub(crate) filled: Option<BTreeSet<Slot>>,
    /// Its refusal to answer some of the questions. The facts then say what is usual.
    pub(crate) refusal: Option<String>,
}

/// Another server in a server's view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    flags: String,
    pub(crate) endpoint: Endpoint,
    pub(crate) is_connected: bool,
    pub(crate) slots: Slots,
}

/// The address of a server for other servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) ip: String,
    pub(crate) port: u16,
    pub(crate) bus_port: u16,
}

impl Facts {
    pub(crate) fn members(&self, group: usize) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(move |server| server.group == group)
    }

    /// The other servers of a server's group.
    pub(crate) fn partners(&self, server: &Server) -> impl Iterator<Item = &Server> {
        self.members(server.group).filter(|partner| partner.id != server.id)
    }

    pub(crate) fn groups(&self) -> usize {
        self.servers.last().map_or(0, |server| server.group + 1)
    }

    /// The primary of a group: the server with most slots, else the one that is copied, else the only primary, else
    /// the first.
    pub(crate) fn leader_of(&self, group: usize) -> &Server {
        let members: Vec<&Server> = self.members(group).collect();
        let primaries = || members.iter().filter(|server| server.primary.is_none());
        let is_copied =
            |server: &Server| members.iter().any(|copy| copy.primary.as_ref() == Some(&server.id));
        let with_slots = members
            .iter()
            .filter(|server| !server.slots.is_empty())
            .max_by_key(|server| (server.slots.len(), server.epoch));
        let copied = || primaries().find(|server| is_copied(server));
        let only = || primaries().next().filter(|_| primaries().count() == 1);
        with_slots.or_else(copied).or_else(only).unwrap_or(&members[0])
    }

    /// The primary of a group that was replaced while slots moved to it. It kept those that its replica did not list
    /// yet, which are at most as many as move at once. They belong to its successor, the leader.
    pub(crate) fn replaced_primary(&self, group: usize) -> Option<&Server> {
        let leader = self.leader_of(group);
        let is_copied = |id: &String| self.servers.iter().any(|server| server.primary.as_ref() == Some(id));
        self.partners(leader).find(|server| {
            (1..=SLOTS_AT_ONCE).contains(&server.slots.len())
                && leader.knows(&server.id)
                && server.knows(&leader.id)
                && !is_copied(&server.id)
        })
    }

    pub(crate) fn leaders(&self) -> Vec<&Server> {
        (0..self.groups()).map(|group| self.leader_of(group)).collect()
    }

    /// The server that has this id.
    pub(crate) fn named(&self, id: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.id == id)
    }

    /// The server at an endpoint.
    pub(crate) fn at(&self, endpoint: &Endpoint) -> Option<&Server> {
        let is_at = |other: &Endpoint| (&other.ip, other.port) == (&endpoint.ip, endpoint.port);
        self.servers.iter().find(|server| is_at(&server.endpoint))
    }

    /// All entries of all views that belong to no server here, with the viewer.
    pub(crate) fn strangers(&self) -> impl Iterator<Item = (&Server, &String, &Node)> {
        let of = |server| Server::others(server).map(move |(id, node)| (server, id, node));
        self.servers.iter().flat_map(of).filter(|(_, id, _)| self.named(id).is_none())
    }

    /// The entries of all views for an id.
    pub(crate) fn entries(&self, id: &str) -> impl Iterator<Item = &Node> {
        self.servers.iter().filter_map(move |server| server.others.get(id))
    }

    /// Returns true when another server lists this id with slots.
    pub(crate) fn is_listed_with_slots(&self, id: &str) -> bool {
        self.entries(id).any(|node| !node.slots.is_empty())
    }

    pub(crate) fn have_keys(&self) -> bool {
        self.servers.iter().any(|server| server.keys > 0)
    }

    /// The slots that no server claims for itself.
    pub(crate) fn unclaimed(&self) -> Slots {
        let mut claimed = vec![false; usize::from(SLOTS)];
        for range in self.servers.iter().flat_map(|server| server.slots.ranges()) {
            claimed[usize::from(*range.start())..=usize::from(*range.end())].fill(true);
        }
        (0..SLOTS).filter(|slot| !claimed[usize::from(*slot)]).collect()
    }
}

impl Server {
    pub(crate) fn is_primary(&self) -> bool {
        self.primary.is_none()
    }

    pub(crate) fn has_data(&self) -> bool {
        self.keys > 0 || !self.slots.is_empty()
    }

    pub(crate) fn knows(&self, id: &str) -> bool {
        self.others.get(id).is_some_and(|node| !node.is_in_handshake())
    }

    /// Returns true when it lists the slot as served by this id.
    pub(crate) fn lists(&self, slot: Slot, id: &str) -> bool {
        self.others.get(id).is_some_and(|node| node.slots.contains(slot))
    }

    fn others(&self) -> impl Iterator<Item = (&String, &Node)> {
        self.others.iter()
    }

    /// Parses the replies to [`questions`]. Returns `None` when one of them is no answer.
    pub(crate) fn parse(address: &Address, group: usize, replies: Vec<Value>) -> Option<Self> {
        let [nodes, cluster, replication, keyspace, user, client] = replies.try_into().ok()?;
        let text = |reply: Value| redis::from_redis_value::<String>(reply).ok();
        let (nodes, replication, keyspace) = (text(nodes)?, text(replication)?, text(keyspace)?);
        // A user that only checks may not be permitted to ask these.
        let (state, client) = (text(cluster), text(client).unwrap_or_default());
        let lines: Vec<Line<'_>> = nodes.lines().map(Line::parse).collect::<Option<_>>()?;
        let own = lines.iter().find(|line| line.is("myself"))?;
        let (leaving, entering) = (open_slots(own, "->-"), open_slots(own, "-<-"));
        let others = lines.iter().filter(|line| !line.is("myself"));
        let other = |line: &Line<'_>| Some((line.id.to_owned(), Node::of(line)?));
        Some(Self {
            address: address.clone(),
            group,
            id: own.id.to_owned(),
            primary: (own.primary != "-").then(|| own.primary.to_owned()),
            endpoint: Endpoint::of(own.endpoint, local_ip(&client).unwrap_or(&address.host))?,
            epoch: own.epoch,
            slots: slots_of(own),
            leaving,
            entering,
            others: others.map(other).collect::<Option<_>>()?,
            keys: keys_in(&keyspace)?,
            has_link: field(&replication, "master_link_status") == Some("up"),
            replicas_online: replication.matches(",state=online,").count(),
            blocks_replicas: is_disabled(user),
            is_ok: state.is_none_or(|state| field(&state, "cluster_state") == Some("ok")),
            filled: None,
            refusal: None,
        })
    }
}

impl Node {
    pub(crate) fn is_in_handshake(&self) -> bool {
        self.has("handshake")
    }

    /// Returns true when the viewer, or the cluster, suspects a failure.
    pub(crate) fn has_failed(&self) -> bool {
        self.has("fail") || self.has("fail?")
    }

    pub(crate) fn is_primary(&self) -> bool {
        self.has("master")
    }

    pub(crate) fn has_no_address(&self) -> bool {
        self.has("noaddr")
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.split(',').any(|other| other == flag)
    }

    #[cfg(test)]
    pub(crate) fn seen(flags: &str, endpoint: Endpoint, is_connected: bool, slots: Slots) -> Self {
        Self { flags: flags.to_owned(), endpoint, is_connected, slots }
    }

    fn of(line: &Line<'_>) -> Option<Self> {
        Some(Self {
            flags: line.flags.to_owned(),
            endpoint: Endpoint::of(line.endpoint, "")?,
            is_connected: line.is_connected,
            slots: slots_of(line),
        })
    }
}

impl Endpoint {
    /// Parses `host:port@bus,hostname`. `own_ip` replaces the address of a server that does not know its own.
    fn of(text: &str, own_ip: &str) -> Option<Self> {
        let (client, bus) = text.split(',').next()?.split_once('@')?;
        let (ip, port) = client.rsplit_once(':')?;
        let ip = if ip.is_empty() { own_ip } else { ip };
        Some(Self { ip: ip.to_owned(), port: port.parse().ok()?, bus_port: bus.parse().ok()? })
    }
}

/// The questions behind a server's view.
pub(crate) fn questions() -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    pipeline.cmd("CLUSTER").arg("NODES").cmd("CLUSTER").arg("INFO");
    pipeline.cmd("INFO").arg("replication").cmd("INFO").arg("keyspace");
    pipeline.cmd("ACL").arg("GETUSER").arg("replica").cmd("CLIENT").arg("INFO");
    pipeline
}

fn slots_of(line: &Line<'_>) -> Slots {
    let slot = |slot: &usize| Slot::try_from(*slot).unwrap_or(SLOTS - 1);
    Slots::new(line.slots.iter().map(|range| slot(range.start())..=slot(range.end())))
}

/// Parses those of `[slot->-id]` and `[slot-<-id]` that have this arrow.
fn open_slots(line: &Line<'_>, arrow: &str) -> BTreeMap<Slot, String> {
    let open = |word: &&str| {
        let (slot, id) = word.trim_matches(['[', ']']).split_once(arrow)?;
        Some((slot.parse().ok()?, id.to_owned()))
    };
    line.open_slots.iter().filter_map(open).collect()
}

/// Parses `db0:keys=5,expires=0,…`. An empty server has no such line.
fn keys_in(keyspace: &str) -> Option<u64> {
    let Some(database) = field(keyspace, "db0") else { return Some(0) };
    database.split(',').find_map(|field| field.strip_prefix("keys="))?.parse().ok()
}

/// Parses the server's own address in `CLIENT INFO`: `id=3 addr=… laddr=127.0.0.1:7001 …`.
fn local_ip(client: &str) -> Option<&str> {
    let address = client.split(' ').find_map(|field| field.strip_prefix("laddr="))?;
    address.rsplit_once(':').map(|(ip, _)| ip)
}

/// Parses `ACL GETUSER`, which begins with the user's flags.
fn is_disabled(user: Value) -> bool {
    let Value::Array(fields) = user else { return false };
    let flags =
        fields.into_iter().nth(1).and_then(|flags| redis::from_redis_value::<Vec<String>>(flags).ok());
    flags.is_some_and(|flags| flags.iter().any(|flag| flag == "off"))
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
