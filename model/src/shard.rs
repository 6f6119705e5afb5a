//! A shard's servers: primary, replica, and the one that was deposed and does not know it yet.
//!
//! Replication is asynchronous: the replica's books are those of its primary after some prefix of its writes. Nobody
//! reads a replica, so where the prefix ends matters in two places only: which barriers are confirmed, and what is
//! left after a failover. So the model lets the replica follow at once until it [falls behind](Link::Behind), from
//! where on it stands still until it is promoted. Every real run has one of the model with the same answers: the one
//! in which the replica falls behind at the very write up to which it will be promoted. A barrier that is confirmed
//! in the real run lies before that write, so it is confirmed here; a replica that merely lags and is not promoted
//! can be told from one that does not only by a barrier that fails, and a lost answer stands for that.

use crate::books::Books;
use crate::protocol::{Protection, Protocol};

/// A shard in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The current primary's books.
    pub primary: Books,
    /// Its replica.
    pub link: Link,
    /// Some node's map of the cluster still says that this primary has no replica.
    pub alone_on_a_map: bool,
    /// The primary before the last failover, until it joins as a replica.
    pub zombie: Option<Zombie>,
}

/// How a primary's replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Link {
    /// It follows: it has every write.
    InStep,
    /// It stands still with these books. It will be promoted, and what the primary writes from here on is lost.
    Behind(Books),
    /// It copies from its primary. These are its books at the fork, and it is promoted with them if the primary dies
    /// now: newer writes are on the primary only, and it confirms none of them.
    Copying(Books),
    /// There is none: the primary was promoted itself, and the old one has not joined it yet.
    Alone,
}

/// A deposed primary. It answers the calls of those who have not noticed, but no replica follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Zombie {
    /// Its books.
    pub books: Books,
    /// Some node's map still says that it is a primary without replicas.
    pub alone_on_a_map: bool,
}

/// Which server of a shard a call reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// The current primary.
    Primary,
    /// The deposed one.
    Zombie,
}

impl Shard {
    /// A primary with a replica in step.
    pub fn new(books: Books) -> Self {
        Self { primary: books, link: Link::InStep, alone_on_a_map: false, zombie: None }
    }

    /// The servers that answer calls.
    pub fn servers(&self) -> impl Iterator<Item = Server> + use<> {
        [Some(Server::Primary), self.zombie.map(|_| Server::Zombie)].into_iter().flatten()
    }

    /// A server's books. A zombie that is gone has none.
    pub fn books(&self, server: Server) -> Option<&Books> {
        match server {
            Server::Primary => Some(&self.primary),
            Server::Zombie => self.zombie.as_ref().map(|zombie| &zombie.books),
        }
    }

    /// The same, to be written.
    pub fn books_mut(&mut self, server: Server) -> Option<&mut Books> {
        match server {
            Server::Primary => Some(&mut self.primary),
            Server::Zombie => self.zombie.as_mut().map(|zombie| &mut zombie.books),
        }
    }

    /// Whether the barrier behind a call that was just executed lets some node have the answer.
    ///
    /// A node whose map knows a replica waits for one: a zombie has none, one that is behind never confirms a write,
    /// and confirms what wrote nothing. A node whose map knows none waits for nobody; there the role guard looks
    /// whether one is connected after all, and counts it from before the fork of its copy.
    pub fn confirms(&self, server: Server, wrote: bool, protocol: Protocol) -> bool {
        match (server, &self.link) {
            (Server::Zombie, _) => self.zombie.is_some_and(|zombie| zombie.alone_on_a_map),
            (Server::Primary, Link::InStep | Link::Alone) => true,
            (Server::Primary, _)
                if !self.alone_on_a_map && !protocol.has(Protection::EveryCopierConfirms) =>
            {
                true
            }
            (Server::Primary, Link::Copying(_)) => {
                let guarded = protocol.has(Protection::RoleGuard) && protocol.has(Protection::CopiersCount);
                !wrote || self.alone_on_a_map && !guarded
            }
            (Server::Primary, Link::Behind(_)) => {
                !wrote || self.alone_on_a_map && !protocol.has(Protection::RoleGuard)
            }
        }
    }

    /// The replica stops following.
    pub fn fall_behind(&mut self) {
        self.link = Link::Behind(self.primary);
    }

    /// The replica, with these books, becomes the primary; the primary a zombie. Maps that are read now show a
    /// primary without replicas.
    pub fn fail_over(&mut self, promoted: Books) {
        self.zombie = Some(Zombie { books: self.primary, alone_on_a_map: self.alone_on_a_map });
        self.primary = promoted;
        self.link = Link::Alone;
        self.alone_on_a_map = true;
    }

    /// The deposed primary joins as replica, and its copy begins. It can be promoted once it has loaded all of the
    /// copy. Until then nothing changes but the primary's newer writes, so the model lets it load at once.
    pub fn join(&mut self, protocol: Protocol) {
        self.zombie = None;
        self.link = match protocol.has(Protection::FullCopy) {
            true => Link::Copying(self.primary),
            false => Link::Copying(Books::default()),
        };
    }
}
