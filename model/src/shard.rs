//! A shard's servers: primary, replica, and the one that was deposed and does not know it yet.
//!
//! Replication is asynchronous: the replica's books are those of its primary after some prefix of its writes. Nobody
//! reads a replica, so where the prefix ends matters in two places only: which barriers are confirmed, and what is
//! left after a failover. So the model lets the replica follow at once until it [falls behind](Link::Behind), from
//! where on it stands still until it is promoted. Every real run has one of the model with the same answers: the one
//! in which the replica falls behind at the very write up to which it will be promoted. A barrier that is confirmed
//! in the real run lies before that write, so it is confirmed here; a replica that merely lags and is not promoted
//! can be told from one that does not only by a barrier that fails, and a lost answer stands for that.

use crate::contents::ShardContents;
use crate::protocol::{Protection, Protocol};

/// A shard in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The current primary's books.
    pub primary: ShardContents,
    /// Its replica.
    pub link: ReplicaLink,
    /// Some node's map of the cluster still says that this primary has no replica.
    pub alone_on_a_map: bool,
    /// Only where answers wait: a call is under way whose barrier was chosen by such a map.
    pub alone_in_flight: bool,
    /// A server outside the cluster copies this primary. It confirms every write, and is never promoted.
    pub outsider: bool,
    /// The primary before the last failover, until it joins as a replica.
    pub zombie: Option<StalePrimary>,
}

/// How a primary's replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicaLink {
    /// It follows: it has every write.
    InStep,
    /// It stands still with these books. It will be promoted, and what the primary writes from here on is lost.
    Behind(ShardContents),
    /// It copies from its primary. These are its books at the fork, and it is promoted with them if the primary dies
    /// now: newer writes are on the primary only, and it confirms none of them.
    Copying(ShardContents),
    /// There is none: the primary was promoted itself, and the old one has not joined it yet.
    Alone,
}

/// A deposed primary. It answers the calls of those who have not noticed, but no replica follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StalePrimary {
    /// Its books.
    pub books: ShardContents,
    /// Some node's map still says that it is a primary without replicas.
    pub alone_on_a_map: bool,
    /// Only where answers wait: so did the map by which the barrier of a call under way was chosen.
    pub alone_in_flight: bool,
    /// A server outside the cluster copies it.
    pub outsider: bool,
}

/// Which server of a shard a call reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// The current primary.
    Primary,
    /// The deposed one.
    StalePrimary,
}

impl Shard {
    /// A primary with a replica in step.
    pub fn new(books: ShardContents) -> Self {
        Self {
            primary: books,
            link: ReplicaLink::InStep,
            alone_on_a_map: false,
            alone_in_flight: false,
            outsider: false,
            zombie: None,
        }
    }

    /// The servers that answer calls.
    pub fn servers(&self) -> impl Iterator<Item = Server> + use<> {
        [Some(Server::Primary), self.zombie.map(|_| Server::StalePrimary)].into_iter().flatten()
    }

    /// A server's books. A zombie that is gone has none.
    pub fn books(&self, server: Server) -> Option<&ShardContents> {
        match server {
            Server::Primary => Some(&self.primary),
            Server::StalePrimary => self.zombie.as_ref().map(|zombie| &zombie.books),
        }
    }

    /// The same, to be written.
    pub fn books_mut(&mut self, server: Server) -> Option<&mut ShardContents> {
        match server {
            Server::Primary => Some(&mut self.primary),
            Server::StalePrimary => self.zombie.as_mut().map(|zombie| &mut zombie.books),
        }
    }

    /// Whether the barrier behind a call that was just executed lets some node have the answer.
    ///
    /// A node whose map knows the replica requires it; a node whose map knows none requires none. Both check the list of
    /// servers that copy this one, as it reports them itself.
    pub fn confirms(&self, server: Server, wrote: bool, protocol: Protocol) -> bool {
        self.holds(server, Required::Replica, wrote, protocol)
            || self.is_alone_on_a_map(server) && self.holds(server, Required::None, wrote, protocol)
    }

    /// Whether the barrier of a call that was just executed holds, where it was chosen by a map without replicas: now, or
    /// when the call began.
    pub fn holds_alone(&self, server: Server, wrote: bool, protocol: Protocol) -> bool {
        let in_flight = match server {
            Server::Primary => self.alone_in_flight,
            Server::StalePrimary => self.zombie.is_some_and(|zombie| zombie.alone_in_flight),
        };
        (in_flight || self.is_alone_on_a_map(server)) && self.holds(server, Required::None, wrote, protocol)
    }

    /// Whether some node's map says that this is a primary without replicas.
    pub fn is_alone_on_a_map(&self, server: Server) -> bool {
        match server {
            Server::Primary => self.alone_on_a_map,
            Server::StalePrimary => self.zombie.is_some_and(|zombie| zombie.alone_on_a_map),
        }
    }

    fn holds(&self, server: Server, required: Required, wrote: bool, protocol: Protocol) -> bool {
        let (replicas, outsider) = match (server, self.zombie) {
            (Server::Primary, _) => (self.replica(wrote, protocol), self.outsider),
            (Server::StalePrimary, Some(zombie)) => (vec![Replica::GONE], zombie.outsider),
            (Server::StalePrimary, None) => return false,
        };
        replicas.iter().any(|replica| replica.suffices(required, outsider, protocol))
    }

    /// The replica as the primary may see it. One that stands still either lags, and confirms what wrote nothing, or is
    /// cut off.
    fn replica(&self, wrote: bool, protocol: Protocol) -> Vec<Replica> {
        let in_step = Replica { copies: true, is_online: true, confirms: true };
        let lags = Replica { confirms: !wrote, ..in_step };
        let is_on_all_maps = !self.alone_on_a_map;
        match self.link {
            ReplicaLink::InStep => vec![in_step],
            ReplicaLink::Behind(_)
                if !is_on_all_maps && protocol.has(Protection::PrimaryNamesItsReplicas) =>
            {
                vec![lags]
            }
            ReplicaLink::Behind(_) => vec![lags, Replica::GONE],
            ReplicaLink::Copying(_) => {
                vec![Replica { copies: protocol.has(Protection::CopiersCount), ..Replica::GONE }]
            }
            ReplicaLink::Alone => vec![Replica::GONE],
        }
    }

    /// The replica stops following.
    pub fn fall_behind(&mut self) {
        self.link = ReplicaLink::Behind(self.primary);
    }

    /// The replica, with these books, becomes the primary; the primary a zombie. Maps that are read now show a
    /// primary without replicas.
    pub fn fail_over(&mut self, promoted: ShardContents) {
        let Self { alone_on_a_map, alone_in_flight, outsider, .. } = *self;
        self.zombie = Some(StalePrimary { books: self.primary, alone_on_a_map, alone_in_flight, outsider });
        self.primary = promoted;
        self.link = ReplicaLink::Alone;
        (self.alone_on_a_map, self.alone_in_flight, self.outsider) = (true, false, false);
    }

    /// Every node has a map with the replica. A call that is under way may have begun by the map before.
    pub fn read_map(&mut self, answers_wait: bool) {
        self.alone_in_flight |= self.alone_on_a_map && answers_wait;
        self.alone_on_a_map = false;
    }

    /// The deposed primary joins as replica, and its copy begins. A server outside the cluster that copies it copies a
    /// replica from now on, and counts no more. It can be promoted once it has loaded all of the
    /// copy. Until then nothing changes but the primary's newer writes, so the model lets it load at once.
    pub fn join(&mut self, protocol: Protocol) {
        self.zombie = None;
        self.link = match protocol.has(Protection::FullCopy) {
            true => ReplicaLink::Copying(self.primary),
            false => ReplicaLink::Copying(ShardContents::default()),
        };
    }
}

/// The replicas that a barrier requires, by its node's map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Required {
    Replica,
    None,
}

/// The replica as the server reports it.
#[derive(Clone, Copy)]
struct Replica {
    copies: bool,
    is_online: bool,
    confirms: bool,
}

impl Replica {
    const GONE: Self = Self { copies: false, is_online: false, confirms: false };

    /// The rule of a barrier. The server counts those that confirm, and does not say which they are.
    fn suffices(self, required: Required, outsider: bool, protocol: Protocol) -> bool {
        let (needed, all_confirm) = match required {
            Required::Replica => (1, Protection::EveryCopierConfirms),
            Required::None => (0, Protection::RoleGuard),
        };
        let confirmed = u8::from(self.confirms) + u8::from(outsider);
        let copiers = u8::from(self.copies) + u8::from(outsider);
        let follows = self.is_online || needed == 0 || !protocol.has(Protection::ReplicaFollows);
        let complete = confirmed >= copiers || !protocol.has(all_confirm);
        confirmed >= needed && follows && complete
    }
}
