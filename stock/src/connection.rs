//! One connection to one Redis node, and the pipeline that ends in a barrier.
//!
//! Plain connections, not redis-rs' cluster client: that one re-sends after a dropped connection, never gives a
//! frozen primary up, and shares one socket among all users, which a WAIT then blocks. Here a reply is a reply,
//! a timeout is a timeout, and who retries is the caller's decision.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, RedisError,
    ServerError, Value,
};

use crate::calls::{Call, CallError};
use crate::topology::{Address, Primary};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Nothing: reads, and what may be lost.
    None,
    /// So many replicas confirmed every write of the pipeline.
    Replicas(usize),
    /// The primary stands alone: besides so many that the cluster calls failed, it has no replica. The map that
    /// says so may be older than a replica that has joined since and could be promoted, so the primary is asked.
    Alone {
        /// Replicas that are known to be away.
        failed: usize,
    },
}

impl Barrier {
    /// All that this primary has must confirm, dead ones too: each could be promoted yet.
    pub fn all_of(primary: &Primary) -> Self {
        match primary.replicas {
            0 => Self::Alone { failed: 0 },
            replicas => Self::Replicas(replicas),
        }
    }

    /// All that the cluster does not call failed must confirm. One that comes back with old data and is promoted
    /// may forget what was confirmed without it.
    pub fn living_of(primary: &Primary) -> Self {
        match primary.replicas - primary.replicas_failed {
            0 => Self::Alone { failed: primary.replicas_failed },
            replicas => Self::Replicas(replicas),
        }
    }

    /// What is sent behind the calls of a pipeline, on the same connection: there it stands for all of them.
    fn command(self, timeout: Duration) -> Option<Cmd> {
        match self {
            Self::None => None,
            Self::Replicas(replicas) => {
                let mut wait = redis::cmd("WAIT");
                wait.arg(replicas).arg(timeout.as_millis() as u64);
                Some(wait)
            }
            Self::Alone { .. } => Some(redis::cmd("ROLE")),
        }
    }

    /// Whether it held, by the reply to [`Barrier::command`]. What is not its reply proves nothing: a node that is
    /// a replica by now refuses to wait, as it refuses the calls.
    fn check(self, reply: Value) -> Result<(), CallError> {
        let (confirmed, replicas) = match self {
            Self::None => return Ok(()),
            Self::Replicas(replicas) => (redis::from_redis_value(reply).unwrap_or(0), replicas),
            Self::Alone { failed } => (failed, replicas_online(reply).unwrap_or(failed + 1)),
        };
        if confirmed >= replicas { Ok(()) } else { Err(CallError::NotDurable { confirmed, replicas }) }
    }
}

/// The replicas that a primary serves now, by its answer to ROLE; `None` where it is no primary.
fn replicas_online(role: Value) -> Option<usize> {
    let (role, _offset, replicas): (String, u64, Vec<Value>) = redis::from_redis_value(role).ok()?;
    (role == "master").then_some(replicas.len())
}

/// Why there is no connection to a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address}: {reason}")]
pub struct Unconnected {
    /// The node.
    pub address: Address,
    /// What is in the way, in words that are the same for every node where it is the same.
    pub reason: String,
}

impl From<Unconnected> for CallError {
    fn from(unconnected: Unconnected) -> Self {
        Self::NoReply(unconnected.to_string())
    }
}

/// A connection of its owner's own.
#[derive(Clone)]
pub struct Connection {
    inner: MultiplexedConnection,
    barrier_timeout: Duration,
}

impl Connection {
    /// Connects and logs in, within the connect timeout.
    pub async fn open(options: &ConnectOptions, address: &Address) -> Result<Self, Unconnected> {
        let unconnected = |reason: String| Unconnected { address: address.clone(), reason };
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
            Ok(Ok(inner)) => Ok(Self { inner, barrier_timeout: options.barrier_timeout }),
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

    /// Sends a pipeline whole and reads all replies. An outer error means that none of them came and the
    /// connection is of no use any more.
    pub async fn send(&mut self, mut pipeline: Pipeline, barrier: Barrier) -> Result<Replies, CallError> {
        let calls = pipeline.len();
        if let Some(command) = barrier.command(self.barrier_timeout) {
            pipeline.add_command(command);
        }
        let mut replies = self.exchange(&pipeline).await?;
        let durable = replies.split_off(calls).pop().map_or(Ok(()), |reply| barrier.check(reply));
        Ok(Replies { replies: replies.into_iter(), durable })
    }

    /// Sends a pipeline as [`Connection::send`] does, and tells what the primary spent on it.
    pub async fn send_timed(
        &mut self,
        TimedPipeline(mut pipeline): TimedPipeline,
        barrier: Barrier,
    ) -> Result<(Replies, Spent), CallError> {
        pipeline.add_command(time());
        let calls = pipeline.len();
        if let Some(command) = barrier.command(self.barrier_timeout) {
            pipeline.add_command(command).add_command(time());
        }
        let mut replies = self.exchange(&pipeline).await?;
        let mut behind = replies.split_off(calls).into_iter();
        let durable = behind.next().map_or(Ok(()), |reply| barrier.check(reply));
        let called = replies.pop();
        let mut replies = replies.into_iter();
        let spent = Spent::between(replies.next(), called, behind.next());
        Ok((Replies { replies, durable }, spent))
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
pub struct Spent {
    /// On all calls together.
    pub calls: Option<Duration>,
    /// On waiting for its replicas; nothing where there was no barrier.
    pub barrier: Option<Duration>,
}

impl Spent {
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
        () if words.contains("UnknownIssuer") => {
            "its certificate is from an authority that is not trusted here (UnknownIssuer)".into()
        }
        () if words.contains("InvalidContentType") => "it does not speak TLS on this port".into(),
        () => words,
    }
}
