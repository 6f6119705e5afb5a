//! Client of the whole cluster: finds the primary of a slot, loads the library where it is missing, follows changes of
//! the map, and retries calls that are safe to retry.
//!
//! It knows nothing of sales. Nodes open their own connection for each lane and use this client for all other calls.
//! Coordinators use it for everything.

mod library;

pub use library::Library;

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

use crate::call::{Call, CallError};
use crate::connection::{Barrier, ConnectError, ConnectOptions, Connection};
use crate::topology::{Address, Primary, Topology};

/// Most tries of a call. With the pauses in between, the last try comes after about half a second. That is long enough
/// for a slot to move. A failover takes longer; waiting for one is up to the caller.
const TRIES_MAX: u32 = 5;

/// Timeout for reading one node's map.
const MAP_TIMEOUT: Duration = Duration::from_millis(500);
/// Extra time for the remaining nodes once the first one has answered. All nodes are queried at once, and a frozen
/// node must not delay a new map for long.
const MAP_GRACE: Duration = Duration::from_millis(100);

/// Maximum age of a map that may confirm a barrier. It is shorter than the time in which a replica can join, be
/// promoted, and leave a demoted primary behind that still believes that it is primary. A process that was frozen may
/// hold an older map.
const MAP_AGE_MAX: Duration = Duration::from_millis(1_500);

/// Returns the pause before each further try: 20 ms, doubled with each try, with random jitter of up to half.
pub fn backoff(tries: u32) -> Duration {
    let full = Duration::from_millis(20 << tries.min(5));
    full.mul_f64(rand::random_range(0.5..1.0))
}

/// The reason why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The server answers, but it is not part of a cluster. Waiting does not help.
    #[error("{0} is not a Redis Cluster node (cluster support is disabled)")]
    NotACluster(Address),
    /// No node answered with a map.
    #[error("no node of the cluster answers: {0}")]
    Unreachable(String),
    /// Some slots have no primary.
    #[error("{0} of the cluster's 16384 slots have no primary")]
    Incomplete(usize),
    /// A library could not be loaded, copied or deleted.
    #[error("the function libraries could not be changed on {0}: {1}")]
    Library(Address, CallError),
}

/// A cluster: its map, and one connection to each node used so far. All methods take `&self`, so it can be shared.
pub struct Cluster {
    options: ConnectOptions,
    topology: ArcSwap<Topology>,
    read_at: Mutex<Instant>,
    connections: Mutex<HashMap<Address, Connection>>,
    library: &'static Library,
    /// True once Redis has refused to let this user load the library.
    may_not_load: AtomicBool,
}

impl Cluster {
    /// Queries the seeds for the map. Calls use the functions of this library.
    ///
    /// # Errors
    /// Fails when no node answers, when a seed is not part of a cluster, or when a slot has no primary.
    pub async fn connect(options: ConnectOptions, library: &'static Library) -> Result<Self, ClusterError> {
        let cluster = Self {
            options,
            topology: ArcSwap::default(),
            read_at: Mutex::new(Instant::now()),
            connections: Mutex::default(),
            library,
            may_not_load: AtomicBool::new(false),
        };
        cluster.refresh().await?;
        match cluster.topology().unserved() {
            0 => Ok(cluster),
            slots => Err(ClusterError::Incomplete(slots)),
        }
    }

    /// Returns the options that connections are opened with.
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Returns the latest map.
    pub fn topology(&self) -> Arc<Topology> {
        self.topology.load_full()
    }

    /// Returns the time since the latest map was requested.
    pub fn map_age(&self) -> Duration {
        self.read_at.lock().expect("nothing panics while it holds the time").elapsed()
    }

    /// Checks a barrier again, against the map at the time of the answer. The server must still be a primary, and the
    /// barrier must include every replica that has joined since.
    ///
    /// # Errors
    /// Returns [`CallError::NoReply`] when the server is no longer a primary or the map is too old. Returns
    /// [`CallError::NotDurable`] when the map shows a replica that the barrier does not include.
    pub fn recheck_barrier(&self, address: &Address, barrier: &Barrier) -> Result<(), CallError> {
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

    /// Queries all known nodes at once for the map and keeps the newest one. A dead node delays this by its own
    /// timeout at most. An older map never replaces a newer one, so a node that was cut off cannot bring its old map
    /// back.
    ///
    /// # Errors
    /// Fails when no node answers with a map, or when one answers that it is not part of a cluster.
    pub async fn refresh(&self) -> Result<(), ClusterError> {
        let (known, asked_at) = (self.topology(), Instant::now());
        let mut asked = self.options.addresses();
        asked.extend(known.nodes().iter().filter(|node| !asked.contains(node)).cloned().collect::<Vec<_>>());

        let mut unreachable = Vec::new();
        let mut newest: Option<Topology> = None;
        for map in self.fetch_maps(&asked).await {
            match map {
                Ok(map) if newest.as_ref().is_none_or(|newest| map.is_preferred_to(newest)) => {
                    newest = Some(map);
                }
                Ok(_) => {}
                Err(MapError::Unreachable(why)) => unreachable.push(why),
                Err(MapError::NotACluster(address)) => return Err(ClusterError::NotACluster(address)),
            }
        }
        let newest = newest.ok_or_else(|| ClusterError::Unreachable(grouped_by_reason(unreachable)))?;
        *self.read_at.lock().expect("nothing panics while it holds the time") = asked_at;
        if newest != *known && newest.supersedes(&known) {
            self.topology.store(Arc::new(newest));
        }
        Ok(())
    }

    /// Reads the maps of these nodes. Returns one result per node.
    async fn fetch_maps(&self, asked: &[Address]) -> Vec<Result<Topology, MapError>> {
        let mut deadline = Instant::now() + MAP_TIMEOUT;
        let mut unreachable: BTreeSet<&Address> = asked.iter().collect();
        let asking = asked.iter().map(|address| async move { (address, self.fetch_map(address).await) });
        let mut asking: FuturesUnordered<_> = asking.collect();
        let mut maps = Vec::with_capacity(asked.len());
        while let Ok(Some((address, map))) = timeout_at(deadline, asking.next()).await {
            if map.is_ok() {
                deadline = deadline.min(Instant::now() + MAP_GRACE);
            }
            unreachable.remove(address);
            maps.push(map);
        }
        let unreachable = unreachable.into_iter().map(|address| {
            self.drop_connection(address);
            Err(MapError::unreachable(address, "no map in time"))
        });
        maps.extend(unreachable);
        maps
    }

    async fn fetch_map(&self, address: &Address) -> Result<Topology, MapError> {
        let mut connection = self.connection(address).await.map_err(MapError::Unreachable)?;
        match connection.query::<String>(redis::cmd("CLUSTER").arg("NODES")).await {
            Ok(text) => Topology::parse(&text, address, self.options.is_tls())
                .ok_or_else(|| MapError::unreachable(address, "a map of unknown form")),
            Err(CallError::Refused(why)) if why.contains("cluster support disabled") => {
                Err(MapError::NotACluster(address.clone()))
            }
            Err(error) => {
                self.drop_connection(address);
                Err(MapError::unreachable(address, error))
            }
        }
    }

    /// Makes one call. The answer may be lost when its primary fails later.
    pub async fn read<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        self.one(call, false).await
    }

    /// Makes one call and returns its answer once its writes are on every replica.
    pub async fn write<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        self.one(call, true).await
    }

    async fn one<C: Call>(&self, call: C, durable: bool) -> Result<C::Answer, CallError> {
        self.with_retries(&[call], durable).await.pop().expect("one call has one answer")
    }

    /// Makes many calls: one pipeline per primary, all primaries at once. Returns one answer per call, in order.
    pub async fn read_all<C: Call>(&self, calls: &[C]) -> Vec<Result<C::Answer, CallError>> {
        self.with_retries(calls, false).await
    }

    /// Like [`Cluster::read_all`], with a barrier at the end of each pipeline.
    pub async fn write_all<C: Call>(&self, calls: &[C]) -> Vec<Result<C::Answer, CallError>> {
        self.with_retries(calls, true).await
    }

    /// Like [`Cluster::read_all`], but tries each call once. For periodic calls, which must not let one dead primary
    /// delay the others.
    pub async fn poll_all<C: Call>(&self, calls: &[C]) -> Vec<Result<C::Answer, CallError>> {
        self.try_all_once(calls, false).await
    }

    /// Like [`Cluster::poll_all`], for one call.
    pub async fn poll<C: Call>(&self, call: C) -> Result<C::Answer, CallError> {
        self.poll_all(&[call]).await.pop().expect("one call has one answer")
    }

    /// Makes one call at the given primary, regardless of the call's slot, and tries it once.
    pub async fn poll_at<C: Call>(&self, primary: &Address, call: C) -> Result<C::Answer, CallError> {
        let mut answers = self.batch(primary, &[call], vec![0], Barrier::None).await;
        answers.pop().expect("one call has one answer").1
    }

    /// Like [`Cluster::write_all`], but tries each call once. For calls that take effect again with each repetition. A
    /// call without an answer may still have been executed.
    pub async fn write_all_once<C: Call>(&self, calls: &[C]) -> Vec<Result<C::Answer, CallError>> {
        self.try_all_once(calls, true).await
    }

    async fn try_all_once<C: Call>(&self, calls: &[C], durable: bool) -> Vec<Result<C::Answer, CallError>> {
        let indices: Vec<usize> = (0..calls.len()).collect();
        let mut answers = self.try_once(calls, &indices, durable).await;
        answers.sort_unstable_by_key(|(index, _)| *index);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    async fn with_retries<C: Call>(&self, calls: &[C], durable: bool) -> Vec<Result<C::Answer, CallError>> {
        let mut answers: Vec<Option<Result<C::Answer, CallError>>> = calls.iter().map(|_| None).collect();
        for tries in 1..=TRIES_MAX {
            let needs_try = |answer: &Option<Result<_, CallError>>| match answer {
                None => true,
                Some(Ok(_)) => false,
                Some(Err(error)) => error.is_transient(),
            };
            let unanswered: Vec<usize> = (0..calls.len()).filter(|&call| needs_try(&answers[call])).collect();
            if unanswered.is_empty() {
                break;
            }
            if tries > 1 {
                tokio::time::sleep(backoff(tries - 2)).await;
                // Retry even when no node answered: the old map may still be right.
                if let Err(error) = self.refresh().await {
                    tracing::debug!(error = %error, "the cluster's map could not be refreshed");
                }
            }
            for (call, answer) in self.try_once(calls, &unanswered, durable).await {
                answers[call] = Some(answer);
            }
        }
        answers.into_iter().map(|answer| answer.expect("every call was tried")).collect()
    }

    /// Tries the calls with these indices once.
    async fn try_once<C: Call>(
        &self,
        calls: &[C],
        indices: &[usize],
        durable: bool,
    ) -> Vec<(usize, Result<C::Answer, CallError>)> {
        if durable && self.map_age() > MAP_AGE_MAX / 2 {
            // Without a fresh map no barrier would hold. A failure to refresh shows up in the answers of the calls.
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
                None => answers.push((index, Err(CallError::Moved("no primary serves the slot".into())))),
            }
        }
        let batches = by_primary.into_iter().map(|(address, (primary, batch))| async move {
            let barrier = if durable { Barrier::all_replicas(primary) } else { Barrier::None };
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
                replies.map(|replies| replies.require(self.recheck_barrier(address, &barrier)))
            }
            Err(error) => Err(error.into()),
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
                self.drop_connection(address);
                batch.into_iter().map(|index| (index, Err(error.clone()))).collect()
            }
        }
    }

    /// Returns the shared connection to a node, opening it when there is none.
    async fn connection(&self, address: &Address) -> Result<Connection, ConnectError> {
        if let Some(connection) = self.lock_connections().get(address) {
            return Ok(connection.clone());
        }
        let connection = Connection::open(&self.options, address).await?;
        Ok(self.lock_connections().entry(address.clone()).or_insert(connection).clone())
    }

    fn drop_connection(&self, address: &Address) {
        self.lock_connections().remove(address);
    }

    fn lock_connections(&self) -> std::sync::MutexGuard<'_, HashMap<Address, Connection>> {
        self.connections.lock().expect("nothing panics while it holds the connections")
    }
}

/// The reason why a node's map could not be read.
enum MapError {
    NotACluster(Address),
    Unreachable(ConnectError),
}

impl MapError {
    fn unreachable(address: &Address, reason: impl ToString) -> Self {
        Self::Unreachable(ConnectError { address: address.clone(), reason: reason.to_string() })
    }
}

/// Lists each reason once, with all nodes that it applies to: a wrong password is wrong on every node. The order is
/// fixed, so the same failures give the same line.
fn grouped_by_reason(unreachable: Vec<ConnectError>) -> String {
    let mut by_reason: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for ConnectError { address, reason } in unreachable {
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
    fn reason_shared_by_nodes_is_listed_once() {
        let unreachable = |port, reason: &str| ConnectError {
            address: Address { host: "redis".into(), port },
            reason: reason.into(),
        };
        let unreachable =
            vec![unreachable(3, "refused"), unreachable(2, "frozen"), unreachable(1, "refused")];
        assert_eq!(grouped_by_reason(unreachable), "frozen (redis:2); refused (redis:1, redis:3)");
    }
}
