//! The cluster as one thing to call: finds the primary of a slot, loads the library where it is missing,
//! follows the map when it changes, and repeats what is safe to repeat.
//!
//! It knows nothing of sales. Nodes keep a connection of their own for each lane and use this one for the rest;
//! a coordinator does everything through it.

mod library;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use redis::Pipeline;
use tokio::time::{Instant, timeout_at};

use crate::calls::{Call, CallError};
use crate::connection::{Barrier, ConnectError, ConnectOptions, Connection};
use crate::topology::{Address, Primary, Topology};

/// How often a call is tried in all. With the pauses between, the last try comes after about half a second:
/// long enough for a slot to move, too short to sit out a failover, which is for the caller to decide.
const TRIES_MAX: u32 = 5;

/// Longest wait for a node's map.
const MAP_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the others may take once one has answered. All are asked at once, and one that is frozen must not keep
/// the news from those who wait for it.
const MAP_GRACE: Duration = Duration::from_millis(100);

/// A map that is older proves nothing about who copies a primary: less than it takes that a replica joins, is promoted,
/// and leaves a deposed primary behind that still takes itself for one. A process that was frozen may hold an older map.
const MAP_AGE_MAX: Duration = Duration::from_millis(1_500);

/// The pause before each further try: 20 ms, doubled each time, half of it by chance.
pub fn backoff(tries: u32) -> Duration {
    let full = Duration::from_millis(20 << tries.min(5));
    full.mul_f64(rand::random_range(0.5..1.0))
}

/// Why there is no cluster to work with.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Somebody answers, but it is not a cluster. Waiting will not help.
    #[error("{0} is not a Redis Cluster node (cluster support is disabled)")]
    NotACluster(Address),
    /// Nobody answers who knows the map.
    #[error("no node of the cluster answers: {0}")]
    Unreachable(String),
    /// Some slots have no primary.
    #[error("{0} of the cluster's 16384 slots are served by nobody")]
    Incomplete(usize),
    /// The library could not be loaded.
    #[error("the function library could not be loaded on {0}: {1}")]
    Library(Address, CallError),
}

/// A cluster: its map and a connection to each node that was needed so far. Shared by reference.
pub struct Cluster {
    options: ConnectOptions,
    topology: ArcSwap<Topology>,
    read_at: Mutex<Instant>,
    connections: Mutex<HashMap<Address, Connection>>,
    /// Whether this user was found not to be one who loads the library.
    leaves_loading: AtomicBool,
}

impl Cluster {
    /// Asks the seeds for the map. Refuses a cluster that does not serve all slots.
    pub async fn connect(options: ConnectOptions) -> Result<Self, ClusterError> {
        let cluster = Self {
            options,
            topology: ArcSwap::default(),
            read_at: Mutex::new(Instant::now()),
            connections: Mutex::default(),
            leaves_loading: AtomicBool::new(false),
        };
        cluster.refresh().await?;
        match cluster.topology().unserved() {
            0 => Ok(cluster),
            slots => Err(ClusterError::Incomplete(slots)),
        }
    }

    /// How connections are made.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// The map as it was last seen.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// How old the map is: nobody was asked since.
    pub fn map_age(&self) -> Duration {
        self.read_at.lock().expect("nothing panics while it holds the time").elapsed()
    }

    /// Whether an answer with this barrier may be told, by the map at the time of the answer: the server is still a
    /// primary, and the barrier takes in every replica that has joined since.
    pub fn supports(&self, address: &Address, barrier: &Barrier) -> Result<(), CallError> {
        let topology = self.topology();
        match topology.primaries().iter().find(|primary| primary.address == *address) {
            _ if *barrier == Barrier::None => Ok(()),
            None => Err(CallError::NoReply(format!("{address} serves no slots any more"))),
            Some(_) if self.map_age() > MAP_AGE_MAX => {
                Err(CallError::NoReply(format!("the map is too old to tell who copies {address}")))
            }
            Some(primary) if barrier.covers(primary) => Ok(()),
            Some(primary) => Err(CallError::NotDurable { confirmed: 0, replicas: primary.replicas.len() }),
        }
    }

    /// Asks all known nodes at once for the map and takes the newest that comes. A dead node costs nothing but
    /// its own timeout, and one that was cut off cannot bring an old map back.
    pub async fn refresh(&self) -> Result<(), ClusterError> {
        let (known, asked_at) = (self.topology(), Instant::now());
        let mut asked = self.options.addresses();
        asked.extend(known.nodes().iter().filter(|node| !asked.contains(node)).cloned().collect::<Vec<_>>());

        let mut silence = Vec::new();
        let mut newest: Option<Topology> = None;
        for map in self.maps_of(&asked).await {
            match map {
                Ok(map) if newest.as_ref().is_none_or(|newest| map.is_preferred_to(newest)) => {
                    newest = Some(map);
                }
                Ok(_) => {}
                Err(MapError::Silent(why)) => silence.push(why),
                Err(MapError::NotACluster(address)) => return Err(ClusterError::NotACluster(address)),
            }
        }
        let newest = newest.ok_or_else(|| ClusterError::Unreachable(in_one_line(silence)))?;
        *self.read_at.lock().expect("nothing panics while it holds the time") = asked_at;
        if newest != *known && newest.supersedes(&known) {
            self.topology.store(Arc::new(newest));
        }
        Ok(())
    }

    /// What each of these nodes says that says something in time.
    async fn maps_of(&self, asked: &[Address]) -> Vec<Result<Topology, MapError>> {
        let mut deadline = Instant::now() + MAP_TIMEOUT;
        let mut silent: BTreeSet<&Address> = asked.iter().collect();
        let asking = asked.iter().map(|address| async move { (address, self.map_of(address).await) });
        let mut asking: FuturesUnordered<_> = asking.collect();
        let mut maps = Vec::with_capacity(asked.len());
        while let Ok(Some((address, map))) = timeout_at(deadline, asking.next()).await {
            if map.is_ok() {
                deadline = deadline.min(Instant::now() + MAP_GRACE);
            }
            silent.remove(address);
            maps.push(map);
        }
        let silence = silent.into_iter().map(|address| {
            self.forget(address);
            Err(MapError::silent(address, "no map in time"))
        });
        maps.extend(silence);
        maps
    }

    async fn map_of(&self, address: &Address) -> Result<Topology, MapError> {
        let mut connection = self.connection(address).await.map_err(MapError::Silent)?;
        match connection.query::<String>(redis::cmd("CLUSTER").arg("NODES")).await {
            Ok(text) => Topology::parse(&text, address, self.options.is_tls())
                .ok_or_else(|| MapError::silent(address, "a map of unknown form")),
            Err(CallError::Refused(why)) if why.contains("cluster support disabled") => {
                Err(MapError::NotACluster(address.clone()))
            }
            Err(error) => {
                self.forget(address);
                Err(MapError::silent(address, error))
            }
        }
    }

    /// Makes one call and answers from its primary, whatever happens to that primary later.
    pub async fn read<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        self.only(call, false).await
    }

    /// Makes one call and answers once its writes are on every replica.
    pub async fn write<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        self.only(call, true).await
    }

    async fn only<C: Call>(&self, call: C, durable: bool) -> Result<C::Answer, CallError> {
        self.all(&[call], durable).await.pop().expect("one call has one answer")
    }

    /// Makes many calls, one pipeline a primary, all primaries at once. An answer each, in order.
    pub async fn read_all<C: Call>(&self, calls: &[C]) -> Vec<Result<C::Answer, CallError>> {
        self.all(calls, false).await
    }

    /// Like [`Cluster::read_all`], with a barrier at the end of each pipeline.
    pub async fn write_all<C: Call>(&self, calls: &[C]) -> Vec<Result<C::Answer, CallError>> {
        self.all(calls, true).await
    }

    /// Like [`Cluster::read_all`], but each call is tried once: for whoever asks again soon anyway, and must not
    /// let one dead primary hold up the others.
    pub async fn poll_all<C: Call>(&self, calls: &[C]) -> Vec<Result<C::Answer, CallError>> {
        self.all_once(calls, false).await
    }

    /// [`Cluster::poll_all`] of one call.
    pub async fn poll<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        self.poll_all(&[call]).await.pop().expect("one call has one answer")
    }

    /// Makes one call at this primary, whatever slot it is for; tried once.
    pub async fn poll_at<C: Call>(&self, primary: &Address, call: C) -> Result<C::Answer, CallError> {
        let mut answers = self.batch(primary, &[call], vec![0], Barrier::None).await;
        answers.pop().expect("one call has one answer").1
    }

    /// Like [`Cluster::write_all`], but each call is tried once: for what is done again when it is repeated. No
    /// answer still does not mean that it was not done.
    pub async fn write_all_once<C: Call>(&self, calls: &[C]) -> Vec<Result<C::Answer, CallError>> {
        self.all_once(calls, true).await
    }

    async fn all_once<C: Call>(&self, calls: &[C], durable: bool) -> Vec<Result<C::Answer, CallError>> {
        let indices: Vec<usize> = (0..calls.len()).collect();
        let mut answers = self.once(calls, &indices, durable).await;
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn all<C: Call>(&self, calls: &[C], durable: bool) -> Vec<Result<C::Answer, CallError>> {
        let mut answers: Vec<Option<Result<C::Answer, CallError>>> = calls.iter().map(|_| None).collect();
        for tries in 1..=TRIES_MAX {
            let open = |answer: &Option<Result<_, CallError>>| match answer {
                None => true,
                Some(Ok(_)) => false,
                Some(Err(error)) => error.is_transient(),
            };
            let unanswered: Vec<usize> = (0..calls.len()).filter(|&call| open(&answers[call])).collect();
            if unanswered.is_empty() {
                break;
            }
            if tries > 1 {
                tokio::time::sleep(backoff(tries - 2)).await;
                // Nobody answering is no reason to stop: the old map may still be right.
                if let Err(error) = self.refresh().await {
                    tracing::debug!(error = %error, "the cluster's map could not be refreshed");
                }
            }
            for (call, answer) in self.once(calls, &unanswered, durable).await {
                answers[call] = Some(answer);
            }
        }
        answers.into_iter().map(|answer| answer.expect("every call was tried")).collect()
    }

    /// One try of the calls with these indices.
    async fn once<C: Call>(
        &self,
        calls: &[C],
        indices: &[usize],
        durable: bool,
    ) -> Vec<(usize, Result<C::Answer, CallError>)> {
        if durable && self.map_age() > MAP_AGE_MAX / 2 {
            // Without a fresh one no barrier would hold. Its errors show in the calls.
            let _unreachable = self.refresh().await;
        }
        let topology = self.topology();
        let mut by_primary: BTreeMap<&Address, (&Primary, Vec<usize>)> = BTreeMap::new();
        let mut answers = Vec::with_capacity(indices.len());
        for &index in indices {
            match topology.primary(calls[index].slot()) {
                Some(primary) => {
                    by_primary.entry(&primary.address).or_insert((primary, Vec::new())).1.push(index);
                }
                None => answers.push((index, Err(CallError::Moved("nobody serves the slot".into())))),
            }
        }
        let batches = by_primary.into_iter().map(|(address, (primary, batch))| async move {
            let barrier = if durable { Barrier::all_of(primary) } else { Barrier::None };
            self.batch(address, calls, batch, barrier).await
        });
        answers.extend(join_all(batches).await.into_iter().flatten());
        answers
    }

    async fn batch<C: Call>(
        &self,
        address: &Address,
        calls: &[C],
        batch: Vec<usize>,
        barrier: Barrier,
    ) -> Vec<(usize, Result<C::Answer, CallError>)> {
        let mut pipeline = Pipeline::with_capacity(batch.len() + 1);
        for &index in &batch {
            pipeline.add_command(calls[index].command());
        }
        let replies = match self.connection(address).await {
            Ok(mut connection) => {
                let replies = connection.send(pipeline, &barrier).await;
                replies.map(|replies| replies.provided(self.supports(address, &barrier)))
            }
            Err(unconnected) => Err(unconnected.into()),
        };
        match replies {
            Ok(mut replies) => {
                let answers: Vec<_> =
                    batch.into_iter().map(|index| (index, replies.next(&calls[index]))).collect();
                if answers.iter().any(|(_, answer)| matches!(answer, Err(CallError::FunctionMissing)))
                    && let Err(error) = self.load_library_on(address).await
                {
                    tracing::warn!(redis.address = %address, error = %error, "function library not loaded");
                }
                answers
            }
            Err(error) => {
                self.forget(address);
                batch.into_iter().map(|index| (index, Err(error.clone()))).collect()
            }
        }
    }

    /// The shared connection to a node, opened where there is none.
    async fn connection(&self, address: &Address) -> Result<Connection, ConnectError> {
        if let Some(connection) = self.held().get(address) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(&self.options, address).await?;
        Ok(self.held().entry(address.clone()).or_insert(connection).clone())
    }

    fn forget(&self, address: &Address) {
        self.held().remove(address);
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Connection>> {
        self.connections.lock().expect("nothing panics while it holds the connections")
    }
}

/// Why a node's map is not known.
enum MapError {
    NotACluster(Address),
    Silent(ConnectError),
}

impl MapError {
    fn silent(address: &Address, reason: impl ToString) -> Self {
        Self::Silent(ConnectError { address: address.clone(), reason: reason.to_string() })
    }
}

/// Each reason once, with all whom it concerns: a wrong password is as wrong everywhere. The same reasons are the same
/// line, in whatever order they came.
fn in_one_line(silence: Vec<ConnectError>) -> String {
    let mut by_reason: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ConnectError { address, reason } in silence {
        by_reason.entry(reason).or_default().insert(address.to_string());
    }
    let parts = by_reason.into_iter().map(|(reason, nodes)| {
        let nodes: Vec<String> = nodes.into_iter().collect();
        format!("{reason} ({})", nodes.join(", "))
    });
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_that_many_nodes_have_is_told_once() {
        let silent = |port, reason: &str| ConnectError {
            address: Address { host: "redis".into(), port },
            reason: reason.into(),
        };
        let silence = vec![silent(3, "refused"), silent(2, "frozen"), silent(1, "refused")];
        assert_eq!(in_one_line(silence), "frozen (redis:2); refused (redis:1, redis:3)");
    }
}
