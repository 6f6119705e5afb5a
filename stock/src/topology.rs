//! The cluster map: maps each slot to its primary, as reported by one of the nodes.
//!
//! It is parsed from `CLUSTER NODES`. All versions of Redis report it in the same form. It also lists failed replicas
//! (a barrier must not become weaker because a replica died) and the age of its information.

use std::fmt;
use std::sync::Arc;

use crate::layout::{SLOTS, Slot};

/// Address of a Redis node: `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Host name or IP address.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A node that serves slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Its address.
    pub address: Address,
    /// Its replicas on the map, including failed ones: each may still be promoted.
    pub replicas: Vec<Replica>,
}

impl Primary {
    /// Counts the replicas that the cluster reports as failed.
    pub fn replicas_failed(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.is_failed).count()
    }
}

/// A replica of a primary, on the map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// IP address and port, which its primary also reports. Empty for a replica that lost its address.
    pub endpoint: Address,
    /// True when the cluster reports it as failed. It may come back with old data and be promoted.
    pub is_failed: bool,
}

/// The cluster map at some moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    primaries: Vec<Primary>,
    /// Index of the primary of each slot. Empty before the first map.
    owners: Vec<Option<u16>>,
    /// All nodes including replicas. Any of them can be queried for the map.
    nodes: Vec<Address>,
    /// Highest configuration epoch of the nodes that serve slots. It only rises, so a higher one is newer information.
    /// The epochs of other nodes come and go.
    epoch: u64,
}

impl Topology {
    /// Parses the answer of `CLUSTER NODES`. `asked` replaces the address of a node that does not know its own.
    /// Returns `None` when the text has another form.
    pub fn parse(text: &str, asked: &Address, prefer_hostnames: bool) -> Option<Self> {
        let lines: Vec<Line<'_>> = text.lines().map(Line::parse).collect::<Option<_>>()?;
        let mut topology = Self { owners: vec![None; usize::from(SLOTS)], ..Self::default() };
        for line in lines.iter().filter(|line| line.is_member()) {
            let address = line.address(asked, prefer_hostnames)?;
            topology.nodes.push(address.clone());
            if line.slots.is_empty() {
                continue;
            }
            topology.epoch = topology.epoch.max(line.epoch);
            let index = u16::try_from(topology.primaries.len()).ok()?;
            let replicas = lines.iter().filter(|replica| replica.primary == line.id);
            let replicas = replicas.map(|replica| replica.as_replica(asked)).collect::<Option<_>>()?;
            topology.primaries.push(Primary { address, replicas });
            for range in &line.slots {
                topology.owners.get_mut(range.clone())?.fill(Some(index));
            }
        }
        Some(topology)
    }

    /// Returns the primary of this slot, or `None` when the slot has none.
    pub fn primary(&self, slot: Slot) -> Option<&Primary> {
        let index = (*self.owners.get(usize::from(slot))?)?;
        self.primaries.get(usize::from(index))
    }

    /// Returns all nodes that serve slots.
    pub fn primaries(&self) -> &[Primary] {
        &self.primaries
    }

    /// Returns all nodes, including replicas.
    pub fn nodes(&self) -> &[Address] {
        &self.nodes
    }

    /// Counts the slots without a primary.
    pub fn unserved(&self) -> usize {
        usize::from(SLOTS) - self.owners.iter().flatten().count()
    }

    /// Returns true when this map is at least as new as `other`. Among maps of the same epoch, the one with fewer
    /// served slots is older: its node has not heard of all others yet.
    pub fn supersedes(&self, other: &Self) -> bool {
        let newness = |map: &Self| (map.epoch, usize::from(SLOTS) - map.unserved());
        newness(self) >= newness(other)
    }
}

impl Topology {
    /// Returns true when this map should be used instead of `other`, read at the same time. Among equally new maps,
    /// the one with more replicas wins: not every node knows a replica that has just joined, and a barrier must not
    /// leave it out.
    pub(crate) fn is_preferred_to(&self, other: &Self) -> bool {
        let replicas = |map: &Self| map.primaries.iter().map(|primary| primary.replicas.len()).sum::<usize>();
        self.supersedes(other) && (!other.supersedes(self) || replicas(self) > replicas(other))
    }
}

/// Returns the replicas of the server that gave this answer of `CLUSTER NODES`, as the server itself knows them.
pub(crate) fn own_replicas(text: &str, asked: &Address) -> Option<Vec<Replica>> {
    let lines: Vec<Line<'_>> = text.lines().map(Line::parse).collect::<Option<_>>()?;
    let own = lines.iter().find(|line| line.flags.split(',').any(|flag| flag == "myself"))?;
    lines.iter().filter(|line| line.primary == own.id).map(|line| line.as_replica(asked)).collect()
}

/// A line of `CLUSTER NODES`: `id host:port@bus,hostname flags primary ping pong epoch link slot…`.
struct Line<'a> {
    id: &'a str,
    endpoint: &'a str,
    flags: &'a str,
    primary: &'a str,
    epoch: u64,
    slots: Vec<std::ops::RangeInclusive<usize>>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, endpoint, flags, primary) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let epoch = words.nth(2)?.parse().ok()?;
        let _link = words.next()?;
        // `[slot->-id]` marks a slot that is being moved. Its owner stays listed until the move is complete.
        let slots = words.filter(|word| !word.is_empty() && !word.starts_with('[')).map(slot_range);
        Some(Self { id, endpoint, flags, primary, epoch, slots: slots.collect::<Option<_>>()? })
    }

    /// A replica that lost its address still counts: it can be promoted as soon as it is reachable again.
    fn as_replica(&self, asked: &Address) -> Option<Replica> {
        Some(Replica { endpoint: self.address(asked, false)?, is_failed: self.is_failed() })
    }

    fn is_member(&self) -> bool {
        !self.flags.split(',').any(|flag| matches!(flag, "noaddr" | "handshake"))
    }

    fn is_failed(&self) -> bool {
        self.flags.split(',').any(|flag| flag == "fail")
    }

    fn address(&self, asked: &Address, prefer_hostname: bool) -> Option<Address> {
        let (endpoint, names) = self.endpoint.split_once(',').unwrap_or((self.endpoint, ""));
        let (host, port) = endpoint.split('@').next()?.rsplit_once(':')?;
        let hostname = names.split(',').next().filter(|name| prefer_hostname && !name.is_empty());
        let host = match hostname.unwrap_or(host) {
            "" => Arc::clone(&asked.host),
            host => host.into(),
        };
        Some(Address { host, port: port.parse().ok()? })
    }
}

fn slot_range(word: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODES: &str = "\
aaa 127.0.0.1:7001@17001,one.example myself,master - 0 0 1 connected 0-5460 [5461->-bbb]
bbb 127.0.0.1:7002@17002 master - 0 1426238316232 7 connected 5461-10922
ccc 127.0.0.1:7003@17003 master,fail - 1426238316232 0 3 disconnected
ddd 127.0.0.1:7004@17004 slave aaa 0 1426238316232 1 connected
eee 127.0.0.1:7005@17005 slave,fail bbb 0 1426238316232 2 disconnected
fff 127.0.0.1:7006@17006 master - 0 1426238316232 8 connected 10923-16382 16383
ggg :0@0 slave,fail,noaddr fff 0 1426238316232 2 disconnected
";

    fn asked() -> Address {
        Address { host: "seed".into(), port: 7001 }
    }

    #[test]
    fn map_lists_primaries_with_failed_replicas() {
        let topology = Topology::parse(NODES, &asked(), false).unwrap();
        let primary =
            |slot| topology.primary(slot).map(|p| (p.address.port, p.replicas.len(), p.replicas_failed()));
        assert_eq!(primary(0), Some((7001, 1, 0)));
        assert_eq!(primary(5461), Some((7002, 1, 1)));
        assert_eq!(
            primary(16383),
            Some((7006, 1, 1)),
            "a replica that lost its address may still be promoted"
        );
        assert_eq!(topology.primaries().len(), 3, "a failed primary without slots serves nothing");
        assert_eq!(topology.nodes().len(), 6);
        assert_eq!(topology.unserved(), 0);
    }

    #[test]
    fn map_counts_slots_without_a_primary() {
        let topology =
            Topology::parse("a :7001@17001 myself,master - 0 0 1 connected 0-9\n", &asked(), false).unwrap();
        assert_eq!(
            topology.primary(0).unwrap().address,
            asked(),
            "a node without an address gets the queried one"
        );
        assert_eq!(topology.primary(10), None);
        assert_eq!(topology.unserved(), 16_374);
    }

    #[test]
    fn host_names_are_used_when_preferred() {
        let topology = Topology::parse(NODES, &asked(), true).unwrap();
        assert_eq!(topology.primary(0).unwrap().address.to_string(), "one.example:7001");
        assert_eq!(topology.primary(5461).unwrap().address.to_string(), "127.0.0.1:7002");
    }

    #[test]
    fn replica_has_the_address_its_primary_reports() {
        let topology = Topology::parse(NODES, &asked(), true).unwrap();
        let [replica] = &topology.primary(0).unwrap().replicas[..] else { panic!("one replica") };
        assert_eq!(replica.endpoint.to_string(), "127.0.0.1:7004");
    }

    #[test]
    fn own_replicas_are_parsed_from_a_map() {
        let replicas = own_replicas(NODES, &asked()).unwrap();
        let names: Vec<String> = replicas.iter().map(|replica| replica.endpoint.to_string()).collect();
        assert_eq!(names, ["127.0.0.1:7004"]);
        assert_eq!(own_replicas("bbb 127.0.0.1:7002@17002 master - 0 0 7 connected", &asked()), None);
    }

    #[test]
    fn map_with_higher_epoch_supersedes() {
        let newer = Topology::parse(NODES, &asked(), false).unwrap();
        let older = Topology::parse(&NODES.replace(" 8 connected", " 2 connected"), &asked(), false).unwrap();
        assert!(newer.supersedes(&older) && newer.supersedes(&newer) && !older.supersedes(&newer));
    }

    #[test]
    fn map_of_a_new_node_does_not_supersede() {
        let known = Topology::parse(NODES, &asked(), false).unwrap();
        let new_node = "hhh 127.0.0.1:7009@17009 myself,master - 0 0 9 connected\n";
        let joined = Topology::parse(&format!("{NODES}{new_node}"), &asked(), false).unwrap();
        let new_node = Topology::parse(new_node, &asked(), false).unwrap();
        assert!(!new_node.supersedes(&known), "the epoch of a node without slots does not count");
        assert!(known.supersedes(&joined) && joined.supersedes(&known));
        let half =
            Topology::parse(&NODES.replace("10923-16382 16383", "10923-16382"), &asked(), false).unwrap();
        assert!(known.supersedes(&half) && !half.supersedes(&known), "its node does not know all slots yet");
    }

    #[test]
    fn map_with_more_replicas_is_preferred() {
        let known = Topology::parse(NODES, &asked(), false).unwrap();
        let without = NODES.replace("ddd 127.0.0.1:7004@17004 slave aaa", "ddd 127.0.0.1:7004@17004 slave -");
        let without = Topology::parse(&without, &asked(), false).unwrap();
        assert!(known.is_preferred_to(&without) && !without.is_preferred_to(&known));
        assert!(
            without.supersedes(&known),
            "a map without a replica that left may still replace the older one"
        );
    }

    #[test]
    fn parse_rejects_text_that_is_no_map() {
        assert_eq!(Topology::parse("ERR unknown command", &asked(), false), None);
    }
}
