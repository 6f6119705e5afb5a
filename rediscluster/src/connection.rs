//! One connection to one Redis node, and the pipeline that ends in a barrier.
//!
//! Uses plain connections instead of redis-rs' cluster client. That client re-sends after a dropped connection, never
//! gives up on a frozen primary, and shares one socket among all users, which a WAIT then blocks. Here a reply is a
//! reply and a timeout is a timeout; retries are the caller's decision.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, RedisError,
    ServerError, TlsCertificates, Value,
};

use crate::EpochMs;
use crate::call::{Call, CallError};
use crate::topology::{Address, Primary, Replica, listed_replicas, own_replicas};

/// Options of connections, and their timeouts.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Nodes that are queried for the cluster map. User, password and TLS settings of the first one apply to all
    /// nodes.
    pub seeds: Vec<ConnectionInfo>,
    /// PEM file of the authorities that verify the nodes' certificates. It is read for each new connection, so the
    /// authorities can be replaced while the process runs.
    pub ca_file: Option<PathBuf>,
    /// Timeout for connecting and logging in.
    pub connect_timeout: Duration,
    /// Timeout for the reply of a pipeline, in addition to the barrier timeout.
    pub response_timeout: Duration,
    /// Timeout of a barrier that waits for the replicas.
    pub barrier_timeout: Duration,
}

impl ConnectOptions {
    /// Options for the cluster of these seeds with the defaults: 1 s to connect, 1 s for a reply, 500 ms for a
    /// barrier. A replica on the same network confirms in under 1 ms; one that needs 500 ms is not keeping up.
    pub fn new(seeds: Vec<ConnectionInfo>) -> Self {
        Self {
            seeds,
            ca_file: None,
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(1),
            barrier_timeout: Duration::from_millis(500),
        }
    }

    /// Returns the addresses of the seeds.
    pub fn addresses(&self) -> Vec<Address> {
        self.seeds.iter().filter_map(|seed| address_of(seed.addr())).collect()
    }

    /// Returns true when nodes are reached over TLS, which needs host names.
    pub(crate) fn is_tls(&self) -> bool {
        self.seeds.first().is_some_and(|seed| matches!(seed.addr(), ConnectionAddr::TcpTls { .. }))
    }

    /// Returns the seed with the authorities that the file has now. A file that cannot be read or parsed, as while it is
    /// being written, changes nothing.
    fn with_current_authorities(&self, seed: ConnectionInfo) -> ConnectionInfo {
        let pem = self.ca_file.as_ref().and_then(|file| fs::read(file).ok());
        let pem = pem.filter(|pem| pem.windows(CERTIFICATE.len()).any(|window| window == CERTIFICATE));
        let Some(pem) = pem else { return seed };
        let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
        Client::build_with_tls(seed.clone(), certificates)
            .map_or(seed, |client| client.get_connection_info().clone())
    }

    /// Returns the connection settings for a node on the map: those of the first seed, with the node's address.
    fn connection_info(&self, address: &Address) -> Option<ConnectionInfo> {
        let seed = self.with_current_authorities(self.seeds.first()?.clone());
        let (host, port) = (address.host.to_string(), address.port);
        let addr = match seed.addr().clone() {
            ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
                ConnectionAddr::TcpTls { host, port, insecure, tls_params }
            }
            _ => ConnectionAddr::Tcp(host, port),
        };
        // One protocol version, so each reply has one form. No command is sent besides the login and the calls: each
        // further command would have to be granted to the Redis users.
        let settings = seed.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP2);
        let settings = settings.set_skip_set_lib_name();
        let tcp = TcpSettings::default().set_nodelay(true);
        Some(seed.set_addr(addr).set_redis_settings(settings).set_tcp_settings(tcp))
    }
}

/// Marks a certificate in a PEM file.
const CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn address_of(addr: &ConnectionAddr) -> Option<Address> {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some(Address { host: host.as_str().into(), port: *port })
        }
        _ => None,
    }
}

/// The condition that must hold before the answers of a pipeline may be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Barrier {
    /// No condition: for reads, and for writes that may be lost.
    #[default]
    None,
    /// Every server that could be promoted in place of the primary has every write of the pipeline.
    Copies {
        /// Id of the primary.
        primary: Arc<str>,
        /// Replicas that must follow and confirm.
        required: Vec<Address>,
        /// Failed replicas that the settings allow to leave out.
        excused: Vec<Address>,
    },
}

impl Barrier {
    /// Requires every replica on the map, including failed ones: each could still be promoted.
    pub fn all_replicas(primary: &Primary) -> Self {
        let required = primary.replicas.iter().map(|replica| replica.endpoint.clone()).collect();
        Self::Copies { primary: Arc::clone(&primary.id), required, excused: Vec::new() }
    }

    /// Requires every replica that the cluster does not report as failed. A failed replica that comes back with old
    /// data and is promoted may lose writes that were confirmed without it.
    pub fn live_replicas(primary: &Primary) -> Self {
        let id = Arc::clone(&primary.id);
        let (failed, live): (Vec<&Replica>, Vec<_>) =
            primary.replicas.iter().partition(|replica| replica.is_failed);
        let endpoints = |replicas: Vec<&Replica>| replicas.into_iter().map(|r| r.endpoint.clone()).collect();
        Self::Copies { primary: id, required: endpoints(live), excused: endpoints(failed) }
    }

    /// Returns true when the barrier includes every replica of this primary. A replica that joined later could be
    /// promoted without the pipeline's writes.
    pub(crate) fn covers(&self, primary: &Primary) -> bool {
        primary.replicas.iter().all(|replica| self.includes(replica))
    }

    fn includes(&self, replica: &Replica) -> bool {
        match self {
            Self::None => true,
            Self::Copies { required, excused, .. } => {
                required.contains(&replica.endpoint) || excused.contains(&replica.endpoint)
            }
        }
    }

    /// Appends the commands of the barrier after the calls, on the same connection, so that they cover all calls.
    /// Returns the number of commands.
    ///
    /// `WAIT` waits for the number of servers that must confirm, or for the number that had to confirm last time if
    /// that is larger. The server runs these commands without other commands in between, so their replies describe one
    /// moment. The server is also asked which replicas it has itself: one that copied and then lost its link is in no
    /// count, and the map of another server may lack it. `CLUSTER REPLICAS` takes 0.4 us of a primary. `CLUSTER NODES`
    /// takes 13 us, and 51 us in Valkey, so it is only sent when no replica is required. It also shows the replicas of
    /// deposed primaries.
    fn append_to(&self, pipeline: &mut Pipeline, needed_before: usize, timeout: Duration) -> usize {
        let Self::Copies { primary, required, .. } = self else { return 0 };
        let calls = pipeline.len();
        let replicas = required.len().max(needed_before);
        if replicas > 0 {
            pipeline.cmd("WAIT").arg(replicas).arg(timeout.as_millis() as u64);
        }
        pipeline.cmd("INFO").arg("replication");
        match &required[..] {
            [] => pipeline.cmd("CLUSTER").arg("NODES"),
            _ => pipeline.cmd("CLUSTER").arg("REPLICAS").arg(&**primary),
        };
        pipeline.len() - calls
    }

    /// Checks the replies to the barrier's commands. Also returns the number of servers that had to confirm. A server
    /// that is no longer a primary proves nothing.
    fn check(&self, mut replies: Vec<Value>) -> (Result<(), CallError>, usize) {
        let Self::Copies { required, excused, .. } = self else { return (Ok(()), 0) };
        let unlisted = self.unlisted_replicas(replies.pop());
        let replication = replies.pop().and_then(ReplicationInfo::of_primary);
        let confirmed = replies.pop().map_or(0, |reply| redis::from_redis_value(reply).unwrap_or(0));
        let Some(replication) = replication else {
            let replicas = required.len().max(1);
            return (Err(CallError::NotDurable { confirmed: 0, replicas }), required.len());
        };
        let followers = required.iter().filter(|replica| replication.online.contains(replica)).count();
        // `WAIT` reports how many servers confirmed, not which ones. So all servers that copy must confirm, except
        // excused ones that have been silent all the time. A copy in progress confirms nothing, and may be promoted
        // once it is complete.
        let left_out = excused.iter().filter(|replica| replication.silent.contains(replica)).count();
        let replicas = required.len().max(replication.count - left_out).max(unlisted);
        let holds = followers == required.len() && confirmed >= replicas && unlisted == 0;
        let confirmed = confirmed.min(followers);
        let result = if holds { Ok(()) } else { Err(CallError::NotDurable { confirmed, replicas }) };
        (result, replicas)
    }
}

impl Barrier {
    /// Counts the replicas that the server itself knows and the barrier neither requires nor excuses. One is assumed
    /// when the reply is an error.
    fn unlisted_replicas(&self, reply: Option<Value>) -> usize {
        let placeholder = Address { host: "".into(), port: 0 };
        let replicas = reply.and_then(|reply| match reply {
            Value::Array(_) => {
                listed_replicas(&redis::from_redis_value::<Vec<String>>(reply).ok()?, &placeholder)
            }
            _ => own_replicas(&redis::from_redis_value::<String>(reply).ok()?, &placeholder),
        });
        replicas.map_or(1, |replicas| replicas.iter().filter(|replica| !self.includes(replica)).count())
    }
}

/// The servers that copy a primary, as the primary reports them (`INFO replication`).
#[derive(Debug, PartialEq, Eq)]
pub struct ReplicationInfo {
    /// Number of all servers that copy. A server is counted from before the snapshot that it copies is taken, with
    /// every method of copying. So a copy without the latest writes is never missed. `ROLE` lists a server only once
    /// its copy is complete.
    pub count: usize,
    /// Servers whose copy is complete and that follow.
    pub online: Vec<Address>,
    /// Those of `online` that have acknowledged nothing for longer than a barrier waits: frozen or cut off.
    silent: Vec<Address>,
}

/// An acknowledgement that is this many whole seconds old came more than a second ago, before any barrier in progress
/// began.
const SILENT_FROM_SECONDS: i64 = 2;

impl ReplicationInfo {
    /// Parses the reply. Returns `None` when the server is not a primary.
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

/// Parses `slave0:ip=…,port=…,state=online,offset=…,lag=…` into the address and the seconds since the last
/// acknowledgement. Returns `None` for any other line.
fn online_replica(line: &str) -> Option<(Address, i64)> {
    let (name, fields) = line.strip_prefix("slave")?.split_once(':')?;
    name.parse::<u32>().ok()?;
    let field = |name: &str| fields.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let address = Address { host: field("ip")?.into(), port: field("port")?.parse().ok()? };
    // The lag is the difference of two clocks of the server, so it is -1 for some milliseconds of each second.
    let lag_seconds = field("lag")?.parse().ok()?;
    (field("state") == Some("online")).then_some((address, lag_seconds))
}

/// The reason why there is no connection to a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {reason}")]
pub struct ConnectError {
    /// The node.
    pub address: Address,
    /// The reason. Its text is the same for all nodes that fail for the same reason.
    pub reason: String,
}

impl From<ConnectError> for CallError {
    fn from(connect_error: ConnectError) -> Self {
        Self::NoReply(connect_error.to_string())
    }
}

/// A connection to one node. Clones share the socket.
#[derive(Clone)]
pub struct Connection {
    inner: MultiplexedConnection,
    barrier_timeout: Duration,
    /// Number of servers that had to confirm last time.
    needed: Arc<AtomicUsize>,
}

impl Connection {
    /// Connects and logs in, within the connect timeout.
    pub async fn open(options: &ConnectOptions, address: &Address) -> Result<Self, ConnectError> {
        let connect_error = |reason: String| ConnectError { address: address.clone(), reason };
        let info = options
            .connection_info(address)
            .ok_or_else(|| connect_error("no seed to take the login from".into()))?;
        let refused = |error: RedisError| connect_error(connect_error_reason(&error, &info));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout + options.barrier_timeout));
        let client = Client::open(info.clone()).map_err(refused)?;
        // The library's own timeout does not cover the login.
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        match tokio::time::timeout(options.connect_timeout, connecting).await {
            Ok(Ok(inner)) => {
                Ok(Self { inner, barrier_timeout: options.barrier_timeout, needed: Arc::default() })
            }
            Ok(Err(error)) => Err(refused(error)),
            Err(_) => Err(connect_error("no connection in time".into())),
        }
    }

    /// Sends one command and reads its reply.
    pub async fn query<T: redis::FromRedisValue>(&mut self, cmd: &Cmd) -> Result<T, CallError> {
        match self.inner.send_packed_command(cmd).await? {
            Value::ServerError(error) => Err(reply_error(&error)),
            reply => Ok(redis::from_redis_value(reply)?),
        }
    }

    /// Reads from the server which servers copy it. Returns `None` when it is not a primary.
    pub async fn replication_info(&mut self) -> Result<Option<ReplicationInfo>, CallError> {
        self.query(redis::cmd("INFO").arg("replication")).await.map(ReplicationInfo::of_primary)
    }

    /// Sends a whole pipeline and reads all replies.
    ///
    /// # Errors
    /// Fails when no reply came at all. The connection must not be used any more.
    pub async fn send(&mut self, mut pipeline: Pipeline, barrier: &Barrier) -> Result<Replies, CallError> {
        let calls = pipeline.len();
        self.append(barrier, &mut pipeline);
        let mut replies = self.exchange(&pipeline).await?;
        let durable = self.check(barrier, replies.split_off(calls));
        Ok(Replies { replies: replies.into_iter(), durable })
    }

    /// Like [`Connection::send`], and also returns the time that the primary spent on the pipeline.
    pub async fn send_timed(
        &mut self,
        TimedPipeline(mut pipeline): TimedPipeline,
        barrier: &Barrier,
    ) -> Result<(Replies, PipelineTime), CallError> {
        pipeline.add_command(time());
        let calls = pipeline.len();
        let barrier_commands = self.append(barrier, &mut pipeline);
        if barrier_commands > 0 {
            pipeline.add_command(time());
        }
        let mut replies = self.exchange(&pipeline).await?;
        let mut barrier_replies = replies.split_off(calls);
        let confirmed = barrier_replies.split_off(barrier_commands).pop();
        let durable = self.check(barrier, barrier_replies);
        let called = replies.pop();
        let mut replies = replies.into_iter();
        let time_spent = PipelineTime::between(replies.next(), called, confirmed);
        Ok((Replies { replies, durable }, time_spent))
    }

    fn append(&self, barrier: &Barrier, pipeline: &mut Pipeline) -> usize {
        barrier.append_to(pipeline, self.needed.load(Ordering::Relaxed), self.barrier_timeout)
    }

    fn check(&self, barrier: &Barrier, replies: Vec<Value>) -> Result<(), CallError> {
        let (result, needed) = barrier.check(replies);
        self.needed.store(needed, Ordering::Relaxed);
        result
    }

    /// Sends a pipeline without a barrier and returns the replies. A refused command has an error as its reply.
    ///
    /// # Errors
    /// Fails when no reply came at all. The connection must not be used any more.
    pub async fn exchange(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, CallError> {
        let replies = self.inner.send_packed_commands(pipeline, 0, pipeline.len()).await?;
        match (replies.len(), pipeline.len()) {
            (received, sent) if received != sent => {
                Err(CallError::Malformed(format!("{received} replies to {sent} commands")))
            }
            _ => Ok(replies),
        }
    }
}

/// A pipeline with `TIME` commands between its steps. All replies arrive together, so only the primary's clock can
/// time the steps. Each `TIME` takes 0.2 us of the primary.
pub struct TimedPipeline(Pipeline);

impl TimedPipeline {
    /// Creates a pipeline without calls.
    pub fn begin() -> Self {
        let mut pipeline = Pipeline::new();
        pipeline.add_command(time());
        Self(pipeline)
    }

    /// Appends a call.
    pub fn add(&mut self, call: Cmd) {
        self.0.add_command(call);
    }

    /// Returns true when the pipeline has no calls.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 1
    }
}

/// Time that a primary spent on a pipeline, by its own clock. A value is `None` when the primary did not report it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PipelineTime {
    /// The primary's time before the calls.
    pub began: Option<EpochMs>,
    /// Time spent on all calls together.
    pub calls: Option<Duration>,
    /// Time spent waiting for replicas; `None` without a barrier.
    pub barrier: Option<Duration>,
}

impl PipelineTime {
    fn between(began: Option<Value>, called: Option<Value>, confirmed: Option<Value>) -> Self {
        let [began, called, confirmed] = [began, called, confirmed].map(|reply| reply.and_then(timestamp));
        // Saturates, as the clock may be set back in between.
        let from = |since: Option<Duration>, until: Option<Duration>| Some(until?.saturating_sub(since?));
        let epoch_ms = |since_epoch: Duration| since_epoch.as_millis() as EpochMs;
        Self { began: began.map(epoch_ms), calls: from(began, called), barrier: from(called, confirmed) }
    }
}

fn time() -> Cmd {
    redis::cmd("TIME")
}

/// Parses the reply to `TIME`.
fn timestamp(reply: Value) -> Option<Duration> {
    let (seconds, micros): (u64, u64) = redis::from_redis_value(reply).ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

/// The replies of a pipeline, read in the order of its calls.
pub struct Replies {
    replies: std::vec::IntoIter<Value>,
    durable: Result<(), CallError>,
}

impl Replies {
    /// Marks the replies as not durable when `check` failed. Used with the newer map at the time of the answer, see
    /// [`crate::Cluster::recheck_barrier`].
    #[must_use]
    pub fn require(mut self, check: Result<(), CallError>) -> Self {
        self.durable = self.durable.and(check);
        self
    }

    /// Returns true when the barrier held, or when there was none.
    pub fn are_durable(&self) -> bool {
        self.durable.is_ok()
    }

    /// Returns the answer to the next call, which must be `call`.
    ///
    /// # Errors
    /// Returns [`CallError::NotDurable`] instead of an answer when the barrier failed: a failover may still undo the
    /// call.
    pub fn next<C: Call>(&mut self, call: &C) -> Result<C::Answer, CallError> {
        let answer = match self.replies.next() {
            Some(Value::ServerError(error)) => return Err(reply_error(&error)),
            Some(reply) => call.answer(reply)?,
            None => return Err(CallError::Malformed("more calls than replies".into())),
        };
        self.durable.clone().map(|()| answer)
    }
}

fn reply_error(error: &ServerError) -> CallError {
    CallError::from_reply(error.code(), error.details().unwrap_or_default())
}

/// Describes the failure in plain words when an operator must act on it, otherwise in the library's words. Never
/// contains the password.
fn connect_error_reason(error: &RedisError, info: &ConnectionInfo) -> String {
    if error.kind() == ErrorKind::AuthenticationFailed {
        let user = info.redis_settings().username().unwrap_or("default");
        return format!("the login as {user:?} is refused: another password, or no such user (WRONGPASS)");
    }
    let message = error.to_string();
    match () {
        // `BadSignature` is reported when both authorities have the same name.
        () if message.contains("UnknownIssuer") || message.contains("BadSignature") => {
            "its certificate is from an authority that is not trusted here".into()
        }
        () if message.contains("InvalidContentType") => "it does not speak TLS on this port".into(),
        () => message,
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

    fn check(required: &[u16], excused: &[u16], confirmed: i64, info: &str) -> Result<(), CallError> {
        check_with_own(required, confirmed, info, required, excused)
    }

    /// Checks a barrier at a server that lists these replicas itself.
    fn check_with_own(
        own: &[u16],
        confirmed: i64,
        info: &str,
        required: &[u16],
        excused: &[u16],
    ) -> Result<(), CallError> {
        let endpoints =
            |ports: &[u16]| ports.iter().map(|&port| endpoint("127.0.0.1", port)).collect::<Vec<_>>();
        let (required, excused) = (endpoints(required), endpoints(excused));
        let line = |port| format!("bbb 127.0.0.1:{port}@17002 slave aaa 0 0 1 connected");
        let own_map = "aaa 127.0.0.1:7001@17001 myself,master - 0 0 1 connected 0-5460\n".into();
        let replicas = own.iter().map(|port| Value::BulkString(line(port).into()));
        let own =
            if required.is_empty() { Value::BulkString(own_map) } else { Value::Array(replicas.collect()) };
        let barrier = Barrier::Copies { primary: "aaa".into(), required, excused };
        barrier.check(vec![Value::Int(confirmed), Value::BulkString(info.into()), own]).0
    }

    #[test]
    fn barrier_fails_when_its_server_has_another_replica() {
        let info = INFO.replace("connected_slaves:3", "connected_slaves:1");
        let check =
            |own: &[u16], required: &[u16], excused: &[u16]| check_with_own(own, 1, &info, required, excused);
        let not_durable = Err(CallError::NotDurable { confirmed: 1, replicas: 1 });
        assert_eq!(check(&[7004], &[7004], &[]), Ok(()));
        assert_eq!(check(&[7004, 7005], &[7004], &[]), not_durable);
        assert_eq!(check(&[7004, 7005], &[7004], &[7005]), Ok(()), "an excused replica may be missing");
    }

    #[test]
    fn replication_info_parses_the_reply() {
        let replication = ReplicationInfo::of_primary(Value::BulkString(INFO.into())).unwrap();
        let online = vec![endpoint("127.0.0.1", 7004), endpoint("::1", 7006)];
        assert_eq!(replication, ReplicationInfo { count: 3, online, silent: Vec::new() });
        let replica = INFO.replace("role:master", "role:slave");
        assert_eq!(ReplicationInfo::of_primary(Value::BulkString(replica.into())), None);
    }

    #[test]
    fn barrier_holds_when_all_copying_servers_confirmed() {
        let without_copy = INFO.replace("connected_slaves:3", "connected_slaves:2");
        assert_eq!(check(&[7004], &[], 2, &without_copy), Ok(()));
        let not_durable = |confirmed, replicas| Err(CallError::NotDurable { confirmed, replicas });
        assert_eq!(check(&[7004], &[], 1, &without_copy), not_durable(1, 2), "another server also copies");
        assert_eq!(check(&[7004], &[], 2, INFO), not_durable(1, 3), "a copy is in progress");
        assert_eq!(
            check(&[7005], &[], 2, &without_copy),
            not_durable(0, 2),
            "the replica does not follow yet"
        );
        assert_eq!(
            check(&[], &[7004], 1, &without_copy),
            not_durable(0, 2),
            "the failed replica may be the one that confirmed"
        );
        let silent = without_copy.replacen("lag=0", "lag=2", 1);
        assert_eq!(check(&[], &[7004], 1, &silent), Ok(()), "a silent failed replica may be left out");
        assert_eq!(check(&[7004], &[], 1, &silent), not_durable(1, 2), "but only when it is excused");
        assert_eq!(check(&[], &[], 0, "role:master\nconnected_slaves:0\n"), Ok(()));
        assert_eq!(check(&[], &[], 0, "role:slave\nconnected_slaves:0\n"), not_durable(0, 1));
    }
}
