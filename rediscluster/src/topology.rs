//! The cluster map: maps each slot to its primary, as reported by one of the nodes.
//!
//! It is parsed from `CLUSTER NODES`. All versions of Redis report it in the same form. It also lists failed replicas
//! (a barrier must not become weaker because a replica died) and the age of its information.

use std::fmt;
use std::sync::Arc;

use crate::slot::{SLOTS, Slot};

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
    /// Its id in the cluster.
    pub id: Arc<str>,
    /// Its address.
    pub address: Address,
    /// The replicas on the map that may be promoted in its place, including failed ones.
    pub replicas: Vec<Replica>,
}

impl Primary {
    /// Counts the replicas that the cluster reports as failed.
    pub fn replicas_failed(&self) -> usize {
        self.replicas.iter().filter(|replica| replica.is_failed).count()
    }
}

/// A replica on the map.
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
    /// Number of replicas, and how many of them follow a node that serves slots.
    replicas: (usize, usize),
}

impl Topology {
    /// Parses the answer of `CLUSTER NODES`. `asked` replaces the address of a node that does not know its own.
    /// Returns `None` when the text has another form.
    pub fn parse(text: &str, asked: &Address, prefer_hostnames: bool) -> Option<Self> {
        let lines = Lines::parse(text)?;
        let mut topology = Self { owners: vec![None; usize::from(SLOTS)], ..Self::default() };
        let replicas = || lines.0.iter().filter(|line| line.is("slave"));
        topology.replicas =
            (replicas().count(), replicas().filter(|line| lines.serves(line.primary)).count());
        for line in lines.0.iter().filter(|line| line.is_member()) {
            let address = line.address(asked, prefer_hostnames)?;
            topology.nodes.push(address.clone());
            if line.slots.is_empty() {
                continue;
            }
            topology.epoch = topology.epoch.max(line.epoch);
            let index = u16::try_from(topology.primaries.len()).ok()?;
            let replicas = lines.replicas_of(line, asked)?;
            topology.primaries.push(Primary { id: line.id.into(), address, replicas });
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
    /// leave it out. After a failover a replica tells the nodes one by one which primary it follows now, so the next
    /// criterion is how many follow a node that serves slots.
    pub(crate) fn is_preferred_to(&self, other: &Self) -> bool {
        self.supersedes(other) && (!other.supersedes(self) || self.replicas > other.replicas)
    }
}

/// Returns the replicas that may be promoted in place of the server that gave this answer of `CLUSTER NODES`, as the
/// server itself knows them.
pub(crate) fn own_replicas(text: &str, asked: &Address) -> Option<Vec<Replica>> {
    let lines = Lines::parse(text)?;
    lines.replicas_of(lines.0.iter().find(|line| line.is("myself"))?, asked)
}

/// Parses the answer of `CLUSTER REPLICAS`: lines of the same form.
pub(crate) fn listed_replicas(lines: &[String], asked: &Address) -> Option<Vec<Replica>> {
    lines.iter().map(|line| Line::parse(line.trim_end())?.as_replica(asked)).collect()
}

/// All lines of a map.
struct Lines<'a>(Vec<Line<'a>>);

impl<'a> Lines<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        text.lines().map(Line::parse).collect::<Option<_>>().map(Self)
    }

    fn find(&self, id: &str) -> Option<&Line<'a>> {
        self.0.iter().find(|line| line.id == id)
    }

    fn serves(&self, id: &str) -> bool {
        self.find(id).is_some_and(|line| !line.slots.is_empty())
    }

    /// Returns the replicas that may be promoted in place of this primary: those that follow it, and those that may
    /// follow it once they learn who serves the slots of their former primary. A slot only moves to a node with a
    /// higher configuration epoch, so nodes with a lower one did not get these slots.
    fn replicas_of(&self, primary: &Line<'_>, asked: &Address) -> Option<Vec<Replica>> {
        let may_follow = |line: &Line<'_>| {
            line.primary == primary.id || self.is_orphan(line) && line.epoch <= primary.epoch
        };
        self.0.iter().filter(|line| may_follow(line)).map(|line| line.as_replica(asked)).collect()
    }

    /// Returns true for a replica that slept through a failover: its primary serves no slots, has become a replica, or
    /// is not on the map. The map does not tell who serves these slots now. Exception: a replica and an empty primary
    /// that both answer have just joined; a sleeper does not answer.
    fn is_orphan(&self, line: &Line<'_>) -> bool {
        let has_joined = || {
            let is_live_primary = |primary: &Line<'_>| primary.is("master") && primary.answers();
            line.answers() && self.find(line.primary).is_some_and(is_live_primary)
        };
        line.is("slave") && !self.serves(line.primary) && !has_joined()
    }
}

/// A line of `CLUSTER NODES`: `id host:port@bus,hostname flags primary ping pong epoch link slot…`.
pub struct Line<'a> {
    /// The node's id.
    pub id: &'a str,
    /// `host:port@bus,hostname`.
    pub endpoint: &'a str,
    /// Flags, separated by commas.
    pub flags: &'a str,
    /// The id of the primary that it replicates, or `-`.
    pub primary: &'a str,
    /// Its configuration epoch.
    pub epoch: u64,
    /// True when the node that gave the map has a link to it.
    pub is_connected: bool,
    /// Slots that it serves.
    pub slots: Vec<std::ops::RangeInclusive<usize>>,
    /// Slots that it gives away (`[slot->-id]`) or receives (`[slot-<-id]`). A node reports only its own.
    pub open_slots: Vec<&'a str>,
}

impl<'a> Line<'a> {
    /// Parses a line. Returns `None` when it has another form.
    pub fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, endpoint, flags, primary) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let epoch = words.nth(2)?.parse().ok()?;
        let is_connected = words.next()? == "connected";
        // The owner of an open slot stays listed until the move is complete.
        let (open_slots, slots): (Vec<_>, Vec<_>) =
            words.filter(|word| !word.is_empty()).partition(|word| word.starts_with('['));
        let slots = slots.into_iter().map(slot_range).collect::<Option<_>>()?;
        Some(Self { id, endpoint, flags, primary, epoch, is_connected, slots, open_slots })
    }

    /// A replica that lost its address still counts: it can be promoted as soon as it is reachable again.
    fn as_replica(&self, asked: &Address) -> Option<Replica> {
        Some(Replica { endpoint: self.address(asked, false)?, is_failed: self.is("fail") })
    }

    /// Returns true when the line has this flag.
    pub fn is(&self, flag: &str) -> bool {
        self.flags.split(',').any(|other| other == flag)
    }

    fn is_member(&self) -> bool {
        !self.is("noaddr") && !self.is("handshake")
    }

    /// Returns true unless the node that gave the map, or the cluster, suspects a failure.
    fn answers(&self) -> bool {
        !self.is("fail?") && !self.is("fail")
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
    fn listed_replicas_are_parsed() {
        let line = "ddd 127.0.0.1:7004@17004 slave,fail aaa 0 1426238316232 1 connected";
        let replica = Replica { endpoint: Address { host: "127.0.0.1".into(), port: 7004 }, is_failed: true };
        assert_eq!(
            listed_replicas(&[line.into(), format!("{line}\n")], &asked()),
            Some(vec![replica.clone(), replica])
        );
        assert_eq!(listed_replicas(&["no line".into()], &asked()), None);
    }

    #[test]
    fn own_replicas_are_parsed_from_a_map() {
        let replicas = own_replicas(NODES, &asked()).unwrap();
        let names: Vec<String> = replicas.iter().map(|replica| replica.endpoint.to_string()).collect();
        assert_eq!(names, ["127.0.0.1:7004"]);
        assert_eq!(own_replicas("bbb 127.0.0.1:7002@17002 master - 0 0 7 connected", &asked()), None);
    }

    /// The replicas of each primary of a map, by port, and the server's own.
    fn replicas_on(text: &str) -> (Vec<(u16, Vec<u16>)>, Vec<u16>) {
        let ports = |replicas: &[Replica]| replicas.iter().map(|r| r.endpoint.port).collect::<Vec<_>>();
        let topology = Topology::parse(text, &asked(), false).unwrap();
        let listed = topology.primaries().iter().map(|p| (p.address.port, ports(&p.replicas))).collect();
        (listed, ports(&own_replicas(text, &asked()).unwrap()))
    }

    /// A promoted primary (7002, which gave the map), two others, and a replica (7005) of the deposed primary.
    const AFTER_FAILOVER: &str = "\
aaa 127.0.0.1:7001@17001 master,fail - 0 1426238316232 4 disconnected
bbb 127.0.0.1:7002@17002 myself,master - 0 0 7 connected 0-5460
ccc 127.0.0.1:7003@17003 master - 0 1426238316232 5 connected 5461-10922
ddd 127.0.0.1:7004@17004 master - 0 1426238316232 3 connected 10923-16383
eee 127.0.0.1:7005@17005 slave aaa 0 1426238316232 4 connected
";

    #[test]
    fn replica_of_deposed_primary_counts_for_later_ones() {
        let counts = (vec![(7002, vec![7005]), (7003, vec![7005]), (7004, vec![])], vec![7005]);
        assert_eq!(replicas_on(AFTER_FAILOVER), counts);
        let edited = |from: &str, to: &str| replicas_on(&AFTER_FAILOVER.replace(from, to));
        let suspected = edited("master,fail - 0", "master,fail? - 0");
        assert_eq!(suspected, counts, "its primary does not answer");
        let copying = edited("7001@17001 master,fail -", "7001@17001 slave bbb");
        assert_eq!(copying.0[0], (7002, vec![7001, 7005]), "its primary has become a replica");
        let forgotten = edited(AFTER_FAILOVER.split_inclusive('\n').next().unwrap(), "").1;
        assert_eq!(forgotten, [7005], "its primary is not on the map");
    }

    #[test]
    fn replica_of_an_empty_primary_counts_when_one_fails() {
        let joined = AFTER_FAILOVER.replace("master,fail - 0", "master - 0");
        assert_eq!(replicas_on(&joined).0[0], (7002, vec![]), "both have just joined");
        let failed = |flags: &str| replicas_on(&joined.replace("slave aaa", flags)).1;
        assert_eq!((failed("slave,fail aaa"), failed("slave,fail? aaa")), (vec![7005], vec![7005]));
        let grown = joined.replace("4 disconnected", "4 connected 16383");
        let grown = grown.replace("slave aaa", "slave,fail aaa").replace("-16383\n", "-16382\n");
        assert_eq!(replicas_on(&grown).1, [] as [u16; 0], "it counts for its primary only");
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
        let without: String =
            NODES.lines().filter(|line| !line.starts_with("ddd")).map(|line| format!("{line}\n")).collect();
        let without = Topology::parse(&without, &asked(), false).unwrap();
        assert!(known.is_preferred_to(&without) && !without.is_preferred_to(&known));
        assert!(
            without.supersedes(&known),
            "a map without a replica that left may still replace the older one"
        );
        let moved = AFTER_FAILOVER.replace("slave aaa", "slave bbb");
        let [moved, before] =
            [&moved, AFTER_FAILOVER].map(|text| Topology::parse(text, &asked(), false).unwrap());
        assert!(moved.is_preferred_to(&before) && !before.is_preferred_to(&moved));
    }

    #[test]
    fn parse_rejects_text_that_is_no_map() {
        assert_eq!(Topology::parse("ERR unknown command", &asked(), false), None);
    }
}
