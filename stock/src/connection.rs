//! One connection to one Redis node, and the pipeline that ends in a barrier.
//!
//! Plain connections, not redis-rs' cluster client: that one re-sends after a dropped connection, never gives a
//! frozen primary up, and shares one socket among all users, which a WAIT then blocks. Here a reply is a reply,
//! a timeout is a timeout, and who retries is the caller's decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, RedisError,
    ServerError, Value,
};

use crate::calls::{Call, CallError};
use crate::topology::{Address, Primary, Replica, own_replicas};

/// How connections are made, and how long anything may take.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Nodes to ask for the cluster's map; user, password and TLS of the first one hold for all nodes.
    pub seeds: Vec<ConnectionInfo>,
    /// Longest time to connect and log in.
    pub connect_timeout: Duration,
    /// Longest wait for the reply of a pipeline, on top of its barrier's.
    pub response_timeout: Duration,
    /// Longest wait of a barrier for the replicas.
    pub barrier_timeout: Duration,
}

impl ConnectOptions {
    /// Connects to the cluster of these seeds with the defaults: 1 s to connect, 1 s for a reply, 500 ms for a
    /// barrier. A replica on the same network confirms in under 1 ms; one that needs 500 is not keeping up.
    pub fn new(seeds: Vec<ConnectionInfo>) -> Self {
        Self {
            seeds,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
            barrier_timeout: Duration::from_millis(500),
        }
    }

    /// The seeds' addresses.
    pub fn addresses(&self) -> Vec<Address> {
        self.seeds.iter().filter_map(|seed| address_of(seed.addr())).collect()
    }

    /// Whether nodes are reached over TLS, where host names matter.
    pub(crate) fn is_tls(&self) -> bool {
        self.seeds.first().is_some_and(|seed| matches!(seed.addr(), ConnectionAddr::TcpTls { .. }))
    }

    /// How to reach a node that the map names: like the first seed, at another address.
    fn towards(&self, address: &Address) -> Option<ConnectionInfo> {
        let seed = self.seeds.first()?.clone();
        let (host, port) = (address.host.to_string(), address.port);
        let addr = match seed.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        // One protocol, one form of each reply. Nothing is sent but the login and what is asked for: each further command
        // would be one more that users have to be granted.
        let settings = seed.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP2);
        let settings = settings.set_skip_set_lib_name();
        let tcp = TcpSettings::default().set_nodelay(true);
        Some(seed.set_addr(addr).set_redis_settings(settings).set_tcp_settings(tcp))
    }
}

fn address_of(addr: &ConnectionAddr) -> Option<Address> {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.as_str().into(), port: *port })
        }
        _ => None,
    }
}

/// What must hold before a pipeline's answers are told to anybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Barrier {
    /// Nothing: reads, and what may be lost.
    #[default]
    None,
    /// Every server that could be promoted in the primary's place has every write of the pipeline.
    Copies {
        /// Replicas that must follow and confirm.
        required: Vec<Address>,
        /// Failed replicas that the settings allow to leave out.
        excused: Vec<Address>,
    },
}

impl Barrier {
    /// Requires every replica on the map, failed ones among them: each could be promoted yet.
    pub fn all_of(primary: &Primary) -> Self {
        let required = primary.replicas.iter().map(|replica| replica.endpoint.clone()).collect();
        Self::Copies { required, excused: Vec::new() }
    }

    /// Requires every replica that the cluster does not call failed. One that comes back with old data and is promoted
    /// may forget what was confirmed without it.
    pub fn living_of(primary: &Primary) -> Self {
        let (failed, living): (Vec<&Replica>, Vec<_>) =
            primary.replicas.iter().partition(|replica| replica.is_failed);
        let endpoints = |replicas: Vec<&Replica>| replicas.into_iter().map(|r| r.endpoint.clone()).collect();
        Self::Copies { required: endpoints(living), excused: endpoints(failed) }
    }

    /// Whether it takes in every replica of this primary. One that has joined since could be promoted without the
    /// pipeline's writes.
    pub(crate) fn covers(&self, primary: &Primary) -> bool {
        primary.replicas.iter().all(|replica| self.names(replica))
    }

    fn names(&self, replica: &Replica) -> bool {
        match self {
            Self::None => true,
            Self::Copies { required, excused } => {
                required.contains(&replica.endpoint) || excused.contains(&replica.endpoint)
            }
        }
    }

    /// Appends what is sent behind the calls, on the same connection: there it stands for all of them. Answers the number
    /// of commands. Waits for as many servers as must confirm, or for as many as had to the last time, where those are
    /// more. The server runs them without anything in between, so all are of one moment. Where nobody has to confirm, the
    /// server is asked for its own map, too: one that copied and lost its link shows there, and on no count.
    fn append_to(&self, pipeline: &mut Pipeline, needed_before: usize, timeout: Duration) -> usize {
        let Self::Copies { required, .. } = self else { return 0 };
        let calls = pipeline.len();
        let replicas = required.len().max(needed_before);
        if replicas > 0 {
            pipeline.cmd("WAIT").arg(replicas).arg(timeout.as_millis() as u64);
        }
        pipeline.cmd("INFO").arg("replication");
        if required.is_empty() {
            pipeline.cmd("CLUSTER").arg("NODES");
        }
        pipeline.len() - calls
    }

    /// Whether it held, by the replies to its commands; and how many servers had to confirm. A server that is no primary
    /// any more proves nothing.
    fn check(&self, mut replies: Vec<Value>) -> (Result<(), CallError>, usize) {
        let Self::Copies { required, excused } = self else { return (Ok(()), 0) };
        let unknown = if required.is_empty() { self.left_out_by_mistake(replies.pop()) } else { 0 };
        let copiers = replies.pop().and_then(ReplicationInfo::of_primary);
        let confirmed = replies.pop().map_or(0, |reply| redis::from_redis_value(reply).unwrap_or(0));
        let Some(copiers) = copiers else {
            let replicas = required.len().max(1);
            return (Err(CallError::NotDurable { confirmed: 0, replicas }), required.len());
        };
        let following = required.iter().filter(|replica| copiers.online.contains(replica)).count();
        // `WAIT` tells how many confirmed, not which: all that copy must, but for those that were silent all the time. A
        // copy that is under way confirms nothing, and may be promoted once it is there.
        let left_out = excused.iter().filter(|replica| copiers.silent.contains(replica)).count();
        let replicas = required.len().max(copiers.count - left_out).max(unknown);
        let holds = following == required.len() && confirmed >= replicas && unknown == 0;
        let confirmed = confirmed.min(following);
        let held = if holds { Ok(()) } else { Err(CallError::NotDurable { confirmed, replicas }) };
        (held, replicas)
    }
}

impl Barrier {
    /// How many replicas the server itself knows that the barrier neither requires nor excuses.
    fn left_out_by_mistake(&self, nodes: Option<Value>) -> usize {
        let nobody = Address { host: "".into(), port: 0 };
        let text = nodes.and_then(|nodes| redis::from_redis_value::<String>(nodes).ok());
        let replicas = text.and_then(|text| own_replicas(&text, &nobody));
        replicas.map_or(1, |replicas| replicas.iter().filter(|replica| !self.names(replica)).count())
    }
}

/// The servers that copy a primary, as it says itself (`INFO replication`).
#[derive(Debug, PartialEq, Eq)]
pub struct ReplicationInfo {
    /// All of them. One is counted from before the snapshot is taken that it copies, in every way of copying, so a copy
    /// without the latest writes is never overlooked. `ROLE` lists it only once it has copied.
    pub count: usize,
    /// Those that have copied and follow.
    pub online: Vec<Address>,
    /// Those of them that have acknowledged nothing for longer than a barrier waits: frozen, or cut off.
    silent: Vec<Address>,
}

/// An acknowledgement of so many whole seconds ago came more than a second ago, before any barrier under way began.
const SILENT_FROM_SECONDS: i64 = 2;

impl ReplicationInfo {
    /// `None` where the server is no primary.
    fn of_primary(info: Value) -> Option<Self> {
        let text: String = redis::from_redis_value(info).ok()?;
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        if field("role") != Some("master") {
            return None;
        }
        let count = field("connected_slaves")?.parse().ok()?;
        let (mut online, mut silent) = (Vec::new(), Vec::new());
        for (address, lag_seconds) in text.lines().filter_map(online_replica) {
            silent.extend((lag_seconds >= SILENT_FROM_SECONDS).then(|| address.clone()));
            online.push(address);
        }
        Some(Self { count, online, silent })
    }
}

/// The address in `slave0:ip=…,port=…,state=online,offset=…,lag=…`, and the seconds since it acknowledged something;
/// `None` for any other line.
fn online_replica(line: &str) -> Option<(Address, i64)> {
    let (name, fields) = line.strip_prefix("slave")?.split_once(':')?;
    name.parse::<u32>().ok()?;
    let field = |name: &str| fields.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let address = Address { host: field("ip")?.into(), port: field("port")?.parse().ok()? };
    // Of two clocks of the server, so it is -1 for some milliseconds of each second.
    let lag_seconds = field("lag")?.parse().ok()?;
    (field("state") == Some("online")).then_some((address, lag_seconds))
}

/// Why there is no connection to a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {reason}")]
pub struct ConnectError {
    /// The node.
    pub address: Address,
    /// What is in the way, in words that are the same for every node where it is the same.
    pub reason: String,
}

impl From<ConnectError> for CallError {
    fn from(unconnected: ConnectError) -> Self {
        Self::NoReply(unconnected.to_string())
    }
}

/// A connection of its owner's own.
#[derive(Clone)]
pub struct Connection {
    inner: MultiplexedConnection,
    barrier_timeout: Duration,
    /// How many servers had to confirm the last time.
    needed: Arc<AtomicUsize>,
}

impl Connection {
    /// Connects and logs in, within the connect timeout.
    pub async fn open(options: &ConnectOptions, address: &Address) -> Result<Self, ConnectError> {
        let unconnected = |reason: String| ConnectError { address: address.clone(), reason };
        let info =
            options.towards(address).ok_or_else(|| unconnected("no seed to take the login from".into()))?;
        let refused = |error: RedisError| unconnected(refusal_to_connect(&error, &info));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout + options.barrier_timeout));
        let client = Client::open(info.clone()).map_err(refused)?;
        // The library's own timeout leaves out the login.
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(options.connect_timeout, connecting).await {
            Ok(Ok(inner)) => {
                Ok(Self { inner, barrier_timeout: options.barrier_timeout, needed: Arc::default() })
            }
            Ok(Err(error)) => Err(refused(error)),
            Err(_) => Err(unconnected("no connection in time".into())),
        }
    }

    /// Sends one command and reads its reply.
    pub async fn query<T: redis::FromRedisValue>(&mut self, cmd: &Cmd) -> Result<T, CallError> {
        match self.inner.send_packed_command(cmd).await? {
            Value::ServerError(error) => Err(refusal(&error)),
            reply => Ok(redis::from_redis_value(reply)?),
        }
    }

    /// Asks the server which others copy it; `None` where it is no primary.
    pub async fn copiers(&mut self) -> Result<Option<ReplicationInfo>, CallError> {
        self.query(redis::cmd("INFO").arg("replication")).await.map(ReplicationInfo::of_primary)
    }

    /// Sends a pipeline whole and reads all replies. An outer error means that none of them came and the
    /// connection is of no use any more.
    pub async fn send(&mut self, mut pipeline: Pipeline, barrier: &Barrier) -> Result<Replies, CallError> {
        let calls = pipeline.len();
        self.append(barrier, &mut pipeline);
        let mut replies = self.exchange(&pipeline).await?;
        let durable = self.check(barrier, replies.split_off(calls));
        Ok(Replies { replies: replies.into_iter(), durable })
    }

    /// Sends a pipeline as [`Connection::send`] does, and tells what the primary spent on it.
    pub async fn send_timed(
        &mut self,
        TimedPipeline(mut pipeline): TimedPipeline,
        barrier: &Barrier,
    ) -> Result<(Replies, PipelineTime), CallError> {
        pipeline.add_command(time());
        let calls = pipeline.len();
        let proofs = self.append(barrier, &mut pipeline);
        if proofs > 0 {
            pipeline.add_command(time());
        }
        let mut replies = self.exchange(&pipeline).await?;
        let mut behind = replies.split_off(calls);
        let confirmed = behind.split_off(proofs).pop();
        let durable = self.check(barrier, behind);
        let called = replies.pop();
        let mut replies = replies.into_iter();
        let spent = PipelineTime::between(replies.next(), called, confirmed);
        Ok((Replies { replies, durable }, spent))
    }

    fn append(&self, barrier: &Barrier, pipeline: &mut Pipeline) -> usize {
        barrier.append_to(pipeline, self.needed.load(Ordering::Relaxed), self.barrier_timeout)
    }

    fn check(&self, barrier: &Barrier, replies: Vec<Value>) -> Result<(), CallError> {
        let (held, needed) = barrier.check(replies);
        self.needed.store(needed, Ordering::Relaxed);
        held
    }

    async fn exchange(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, CallError> {
        let replies = self.inner.send_packed_commands(pipeline, 0, pipeline.len()).await?;
        match (replies.len(), pipeline.len()) {
            (received, sent) if received != sent => {
                Err(CallError::Malformed(format!("{received} replies to {sent} commands")))
            }
            _ => Ok(replies),
        }
    }
}

/// A pipeline in which the primary looks at its clock between the steps: 0.2 us of it each, for what no clock on this
/// side could tell apart.
pub struct TimedPipeline(Pipeline);

impl TimedPipeline {
    /// No calls yet.
    pub fn begin() -> Self {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(time());
        Self(pipeline)
    }

    /// One more call.
    pub fn add(&mut self, call: Cmd) {
        self.0.add_command(call);
    }

    /// Whether there is no call in it.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 1
    }
}

/// What a primary spent on a pipeline, by its own clock; nothing where it did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineTime {
    /// On all calls together.
    pub calls: Option<Duration>,
    /// On waiting for its replicas; nothing where there was no barrier.
    pub barrier: Option<Duration>,
}

impl PipelineTime {
    fn between(began: Option<Value>, called: Option<Value>, confirmed: Option<Value>) -> Self {
        let [began, called, confirmed] = [began, called, confirmed].map(|reply| reply.and_then(moment));
        // Somebody may set the clock back in between.
        let from = |since: Option<Duration>, until: Option<Duration>| Some(until?.saturating_sub(since?));
        Self { calls: from(began, called), barrier: from(called, confirmed) }
    }
}

fn time() -> Cmd {
    redis::cmd("TIME")
}

/// A primary's clock, by its answer to TIME.
fn moment(reply: Value) -> Option<Duration> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(reply).ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

/// The replies of a pipeline, to be read in the order of its calls.
pub struct Replies {
    replies: std::vec::IntoIter<Value>,
    durable: Result<(), CallError>,
}

impl Replies {
    /// Counts the barrier as failed where `proof` does: what the map says by now may take it away.
    #[must_use]
    pub fn provided(mut self, proof: Result<(), CallError>) -> Self {
        self.durable = self.durable.and(proof);
        self
    }

    /// Whether the barrier held, where there was one.
    pub fn are_durable(&self) -> bool {
        self.durable.is_ok()
    }

    /// The answer to the next call, which must be `call`. Where the barrier failed, what would be an answer is
    /// [`CallError::NotDurable`]: it may be forgotten yet.
    pub fn next<C: Call>(&mut self, call: &C) -> Result<C::Answer, CallError> {
        let answer = match self.replies.next() {
            Some(Value::ServerError(error)) => return Err(refusal(&error)),
            Some(reply) => call.answer(reply)?,
            None => return Err(CallError::Malformed("more calls than replies".into())),
        };
        self.durable.clone().map(|()| answer)
    }
}

fn refusal(error: &ServerError) -> CallError {
    CallError::from_reply(error.code(), error.details().unwrap_or_default())
}

/// What an operator has to do something about, in plain words; all else as the library says it. Never the password.
fn refusal_to_connect(error: &RedisError, info: &ConnectionInfo) -> String {
    if error.kind() == ErrorKind::AuthenticationFailed {
        let user = info.redis_settings().username().unwrap_or("default");
        return format!("the login as {user:?} is refused: another password, or no such user (WRONGPASS)");
    }
    let words = error.to_string();
    match () {
        // The latter where the authorities have the same name.
        () if words.contains("UnknownIssuer") || words.contains("BadSignature") => {
            "its certificate is from an authority that is not trusted here".into()
        }
        () if words.contains("InvalidContentType") => "it does not speak TLS on this port".into(),
        () => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "\
# Replication\r
role:master\r
connected_slaves:3\r
slave0:ip=127.0.0.1,port=7004,state=online,offset=1,lag=0\r
slave1:ip=127.0.0.1,port=7005,state=wait_bgsave,offset=0,lag=0\r
slave2:ip=::1,port=7006,state=online,offset=1,lag=-1,type=replica\r
slaves_waiting_psync:0\r
master_repl_offset:9\r
";

    fn endpoint(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    fn held(required: &[u16], excused: &[u16], confirmed: i64, info: &str) -> Result<(), CallError> {
        let endpoints = |ports: &[u16]| ports.iter().map(|&port| endpoint("127.0.0.1", port)).collect();
        let barrier = Barrier::Copies { required: endpoints(required), excused: endpoints(excused) };
        let own_map = "aaa 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460\n".into();
        let mut replies = vec![Value::Int(confirmed), Value::BulkString(info.into())];
        replies.extend(required.is_empty().then_some(Value::BulkString(own_map)));
        barrier.check(replies).0
    }

    #[test]
    fn copiers_are_read_from_the_primary_s_own_words() {
        let copiers = ReplicationInfo::of_primary(Value::BulkString(INFO.into())).unwrap();
        let online = vec![endpoint("127.0.0.1", 7004), endpoint("::1", 7006)];
        assert_eq!(copiers, ReplicationInfo { count: 3, online, silent: Vec::new() });
        let replica = INFO.replace("role:master", "role:slave");
        assert_eq!(ReplicationInfo::of_primary(Value::BulkString(replica.into())), None);
    }

    #[test]
    fn a_barrier_holds_when_all_that_copy_confirmed() {
        let without_copy = INFO.replace("connected_slaves:3", "connected_slaves:2");
        assert_eq!(held(&[7004], &[], 2, &without_copy), Ok(()));
        let unknown = |confirmed, replicas| Err(CallError::NotDurable { confirmed, replicas });
        assert_eq!(held(&[7004], &[], 1, &without_copy), unknown(1, 2), "another server copies, too");
        assert_eq!(held(&[7004], &[], 2, INFO), unknown(1, 3), "a copy is under way");
        assert_eq!(held(&[7005], &[], 2, &without_copy), unknown(0, 2), "the replica does not follow yet");
        assert_eq!(
            held(&[], &[7004], 1, &without_copy),
            unknown(0, 2),
            "it may be the failed one that confirmed"
        );
        let silent = without_copy.replacen("lag=0", "lag=2", 1);
        assert_eq!(held(&[], &[7004], 1, &silent), Ok(()), "a failed one that says nothing may be left out");
        assert_eq!(held(&[7004], &[], 1, &silent), unknown(1, 2), "but only where the settings say so");
        assert_eq!(held(&[], &[], 0, "role:master\nconnected_slaves:0\n"), Ok(()));
        assert_eq!(held(&[], &[], 0, "role:slave\nconnected_slaves:0\n"), unknown(0, 1));
    }
}
