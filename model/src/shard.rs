//! The servers of a shard: primary, replica, and the demoted primary that does not know yet that it was demoted.
//!
//! Replication is asynchronous: a replica holds the contents of its primary after some prefix of the primary's
//! writes. No client reads a replica, so the end of that prefix matters in two places only: which barriers are
//! confirmed, and which data survives a failover. The model therefore lets the replica follow at once until it [falls
//! behind](ReplicaLink::Behind). From then on it stands still until it is promoted.
//!
//! Every real run corresponds to a run of the model with the same answers: the run in which the replica falls behind
//! at the last write that it is promoted with. A barrier that is confirmed in the real run lies before that write, so
//! it is confirmed in the model too. A replica that lags and is never promoted differs only by barriers that fail,
//! and a lost answer models those.

use crate::contents::ShardContents;
use crate::protocol::{Protection, Protocol};

/// A shard in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Contents of the current primary.
    pub primary: ShardContents,
    /// State of its replica.
    pub link: ReplicaLink,
    /// True while the map of some node still says that this primary has no replica.
    pub alone_on_a_map: bool,
    /// True while a call is in flight whose barrier was chosen by such a map. Used only when answers wait.
    pub alone_in_flight: bool,
    /// True when a server outside the cluster copies this primary. It confirms every write, and is never promoted.
    pub external_copier: bool,
    /// The primary before the last failover, until it joins as a replica.
    pub stale_primary: Option<StalePrimary>,
}

/// State of a primary's replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplicaLink {
    /// Follows, and has every write.
    InStep,
    /// Stopped with these contents. It will be promoted, and later writes of the primary are lost.
    Behind(ShardContents),
    /// Copies from its primary. These are its contents at the fork. If the primary fails now, the replica is promoted
    /// with them: newer writes exist on the primary only, and the replica confirms none of them.
    Copying(ShardContents),
    /// No replica: the primary was promoted, and its predecessor has not joined yet.
    Alone,
}

/// A demoted primary. It answers callers that have not noticed the failover, but no replica follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StalePrimary {
    /// Its contents.
    pub contents: ShardContents,
    /// True while the map of some node still says that it is a primary without replicas.
    pub alone_on_a_map: bool,
    /// True while a call is in flight whose barrier was chosen by such a map. Used only when answers wait.
    pub alone_in_flight: bool,
    /// True when a server outside the cluster copies it.
    pub external_copier: bool,
}

/// The server of a shard that a call reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// The current primary.
    Primary,
    /// The demoted primary.
    StalePrimary,
}

impl Shard {
    /// Returns a shard whose replica has every write.
    pub fn new(contents: ShardContents) -> Self {
        Self {
            primary: contents,
            link: ReplicaLink::InStep,
            alone_on_a_map: false,
            alone_in_flight: false,
            external_copier: false,
            stale_primary: None,
        }
    }

    /// Returns the servers that answer calls.
    pub fn servers(&self) -> impl Iterator<Item = Server> + use<> {
        [Some(Server::Primary), self.stale_primary.map(|_| Server::StalePrimary)].into_iter().flatten()
    }

    /// Returns the contents of a server. Returns `None` for a demoted primary that has joined or never existed.
    pub fn contents(&self, server: Server) -> Option<&ShardContents> {
        match server {
            Server::Primary => Some(&self.primary),
            Server::StalePrimary => self.stale_primary.as_ref().map(|stale_primary| &stale_primary.contents),
        }
    }

    /// Returns the contents of a server for writing.
    pub fn contents_mut(&mut self, server: Server) -> Option<&mut ShardContents> {
        match server {
            Server::Primary => Some(&mut self.primary),
            Server::StalePrimary => {
                self.stale_primary.as_mut().map(|stale_primary| &mut stale_primary.contents)
            }
        }
    }

    /// Returns true when the barrier after a call that was just executed lets some node read the answer.
    ///
    /// A node whose map lists the replica requires it. A node whose map lists none requires none. Both check the list
    /// of copying servers that the primary itself reports.
    pub fn confirms(&self, server: Server, wrote: bool, protocol: Protocol) -> bool {
        self.holds(server, Required::Replica, wrote, protocol)
            || self.is_alone_on_a_map(server) && self.holds(server, Required::None, wrote, protocol)
    }

    /// Returns true when the barrier of a call that was just executed holds, for a map without replicas: the current
    /// map or the map when the call began.
    pub fn holds_alone(&self, server: Server, wrote: bool, protocol: Protocol) -> bool {
        let in_flight = match server {
            Server::Primary => self.alone_in_flight,
            Server::StalePrimary => {
                self.stale_primary.is_some_and(|stale_primary| stale_primary.alone_in_flight)
            }
        };
        (in_flight || self.is_alone_on_a_map(server)) && self.holds(server, Required::None, wrote, protocol)
    }

    /// Returns true when the map of some node says that this is a primary without replicas.
    pub fn is_alone_on_a_map(&self, server: Server) -> bool {
        match server {
            Server::Primary => self.alone_on_a_map,
            Server::StalePrimary => {
                self.stale_primary.is_some_and(|stale_primary| stale_primary.alone_on_a_map)
            }
        }
    }

    fn holds(&self, server: Server, required: Required, wrote: bool, protocol: Protocol) -> bool {
        let (replicas, external_copier) = match (server, self.stale_primary) {
            (Server::Primary, _) => (self.replica(wrote, protocol), self.external_copier),
            (Server::StalePrimary, Some(stale_primary)) => {
                (vec![Replica::GONE], stale_primary.external_copier)
            }
            (Server::StalePrimary, None) => return false,
        };
        replicas.iter().any(|replica| replica.suffices(required, external_copier, protocol))
    }

    /// Returns the states of the replica that the primary may see. A replica that stands still either lags, and
    /// confirms calls that wrote nothing, or is cut off.
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

    /// Promotes the replica with these contents and demotes the primary. Maps that are read now show a primary
    /// without replicas.
    pub fn fail_over(&mut self, promoted: ShardContents) {
        let Self { alone_on_a_map, alone_in_flight, external_copier, .. } = *self;
        self.stale_primary =
            Some(StalePrimary { contents: self.primary, alone_on_a_map, alone_in_flight, external_copier });
        self.primary = promoted;
        self.link = ReplicaLink::Alone;
        (self.alone_on_a_map, self.alone_in_flight, self.external_copier) = (true, false, false);
    }

    /// All nodes read a map with the replica. A call in flight may have begun with the previous map.
    pub fn read_map(&mut self, answers_wait: bool) {
        self.alone_in_flight |= self.alone_on_a_map && answers_wait;
        self.alone_on_a_map = false;
    }

    /// The demoted primary joins as replica and begins its copy. A server outside the cluster that copies it now
    /// copies a replica and is no longer counted. The replica can be promoted once it has loaded the whole copy.
    /// Until then only the primary changes, by newer writes, so the model loads the copy at once.
    pub fn join(&mut self, protocol: Protocol) {
        self.stale_primary = None;
        self.link = match protocol.has(Protection::FullCopy) {
            true => ReplicaLink::Copying(self.primary),
            false => ReplicaLink::Copying(ShardContents::default()),
        };
    }
}

/// The replicas that a barrier requires, according to the node's map.
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

    /// Checks the rule of a barrier. The server reports how many servers confirm, but not which ones.
    fn suffices(self, required: Required, external_copier: bool, protocol: Protocol) -> bool {
        let (needed, all_confirm) = match required {
            Required::Replica => (1, Protection::EveryCopierConfirms),
            Required::None => (0, Protection::RoleGuard),
        };
        let confirmed = u8::from(self.confirms) + u8::from(external_copier);
        let copiers = u8::from(self.copies) + u8::from(external_copier);
        let follows = self.is_online || needed == 0 || !protocol.has(Protection::ReplicaFollows);
        let complete = confirmed >= copiers || !protocol.has(all_confirm);
        confirmed >= needed && follows && complete
    }
}
