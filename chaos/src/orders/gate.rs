//! A network between one ledger and PostgreSQL. It can catch one statement that writes orders, and hold it back.
//!
//! The gate reads the messages of a client as far as it must: the text of a statement is in `Parse`, and its execution
//! begins with `Bind`, which names it. Messages of the server are not read.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use testkit::ports::loopback;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::oneshot,
    time::timeout,
};

/// Longest message of a client: far beyond a batch of 4,096 orders.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Time limit for PostgreSQL to answer a caught statement.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// The moment at which a connection stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The ledger has sent the statement, and PostgreSQL has not received it.
    BeforeStatement,
    /// PostgreSQL has received the statement.
    AfterStatement,
    /// PostgreSQL has answered, and the ledger has not received the answer.
    BeforeAnswer,
}

/// The gate of a ledger. It ends with its last clone.
#[derive(Clone)]
pub(crate) struct Gate {
    port: u16,
    trap: Arc<Mutex<Option<Trap>>>,
}

struct Trap {
    /// Part of the statement's text.
    text: &'static str,
    moment: Moment,
    caught: oneshot::Sender<CaughtStatement>,
}

/// A connection that stands still. Dropping it ends the connection on both sides.
pub(crate) struct CaughtStatement {
    bytes: Vec<u8>,
    moment: Moment,
    to_server: OwnedWriteHalf,
    from_server: OwnedReadHalf,
    _client: (OwnedReadHalf, OwnedWriteHalf),
}

impl Gate {
    /// Opens a gate to the server at `server_port`.
    pub(crate) async fn open(server_port: u16) -> Result<Self> {
        let listener = TcpListener::bind(loopback(0)).await.context("the gate of a ledger")?;
        let port = listener.local_addr()?.port();
        let gate = Self { port, trap: Arc::default() };
        let trap = Arc::downgrade(&gate.trap);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Some(trap) = trap.upgrade() else { return };
                tokio::spawn(async move {
                    // A server that does not run refuses connections, and so does the gate.
                    if let Ok(server) = TcpStream::connect(loopback(server_port)).await {
                        forward(Self { port, trap }, client, server).await;
                    }
                });
            }
        });
        Ok(gate)
    }

    /// The port of the gate.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until the ledger sends a statement with this text, and stops its connection at this moment.
    ///
    /// # Errors
    /// Fails when none is sent within `limit`.
    pub(crate) async fn catch(
        &self,
        text: &'static str,
        moment: Moment,
        limit: Duration,
    ) -> Result<CaughtStatement> {
        let (caught, statement) = oneshot::channel();
        *self.lock() = Some(Trap { text, moment, caught });
        let statement = timeout(limit, statement).await;
        *self.lock() = None;
        statement.ok().and_then(Result::ok).with_context(|| format!("no statement with {text:?} was sent"))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Trap>> {
        self.trap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the trap if it is set for this statement.
    fn trap_for(&self, statement: &str) -> Option<Trap> {
        let mut trap = self.lock();
        // A closed trap was left by a wait that was given up.
        trap.take_if(|trap| trap.caught.is_closed());
        trap.take_if(|trap| statement.contains(trap.text))
    }
}

impl CaughtStatement {
    /// Delivers a statement that was held back, and waits for its answer, which its ledger does not get.
    ///
    /// # Errors
    /// Fails when PostgreSQL does not answer.
    pub(crate) async fn deliver_late(mut self) -> Result<()> {
        self.to_server.write_all(&self.bytes).await?;
        let answered = timeout(ANSWER_LIMIT, self.from_server.read(&mut [0; 1_024])).await;
        answered.context("PostgreSQL does not answer a late statement")??;
        Ok(())
    }
}

async fn forward(gate: Gate, client: TcpStream, server: TcpStream) {
    // A message is sent at once, not when the one before it is acknowledged.
    if client.set_nodelay(true).and(server.set_nodelay(true)).is_err() {
        return;
    }
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut client = ClientMessages { from: from_client, statements: HashMap::new(), is_first: true };
    let trapped = tokio::select! {
        trapped = forward_until_trapped(&gate, &mut client, &mut to_server) => trapped.ok().flatten(),
        _ = copy(&mut from_server, &mut to_client) => None,
    };
    let Some((trap, bytes)) = trapped else { return };
    let moment = trap.moment;
    let mut caught =
        CaughtStatement { bytes, moment, to_server, from_server, _client: (client.from, to_client) };
    if caught.reach_moment().await.is_ok() {
        // If the waiter has given up, the connection ends.
        trap.caught.send(caught).ok();
    }
}

impl CaughtStatement {
    async fn reach_moment(&mut self) -> io::Result<()> {
        if self.moment == Moment::BeforeStatement {
            return Ok(());
        }
        self.to_server.write_all(&self.bytes).await?;
        if self.moment == Moment::BeforeAnswer {
            timeout(ANSWER_LIMIT, self.from_server.read(&mut [0; 1_024])).await??;
        }
        Ok(())
    }
}

/// Forwards what the client sends. Returns the trap and the bytes of the statement that it was set for.
async fn forward_until_trapped(
    gate: &Gate,
    client: &mut ClientMessages,
    to_server: &mut OwnedWriteHalf,
) -> io::Result<Option<(Trap, Vec<u8>)>> {
    loop {
        let message = client.next().await?;
        let bound = client.bound_statement(&message);
        if let Some(trap) = bound.and_then(|statement| gate.trap_for(&statement)) {
            return Ok(Some((trap, client.up_to_sync(message).await?)));
        }
        to_server.write_all(&message).await?;
    }
}

/// The messages of a client, and the texts of its statements by name.
struct ClientMessages {
    from: OwnedReadHalf,
    statements: HashMap<Vec<u8>, String>,
    is_first: bool,
}

impl ClientMessages {
    /// Reads a message: a type, except for the first message, and the length of what follows, itself included.
    async fn next(&mut self) -> io::Result<Vec<u8>> {
        let mut message = vec![0; if self.is_first { 4 } else { 5 }];
        self.is_first = false;
        self.from.read_exact(&mut message).await?;
        let length =
            message[message.len() - 4..].iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        if !(4..MESSAGE_BYTES_MAX).contains(&length) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let head = message.len();
        message.resize(head + length - 4, 0);
        self.from.read_exact(&mut message[head..]).await?;
        Ok(message)
    }

    /// Appends the messages up to `Sync`, which ends the statement.
    async fn up_to_sync(&mut self, mut bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        loop {
            let message = self.next().await?;
            bytes.extend_from_slice(&message);
            if message[0] == b'S' {
                return Ok(bytes);
            }
        }
    }

    /// Remembers the statement of a `Parse` message. Returns the text of the statement that a `Bind` message names.
    fn bound_statement(&mut self, message: &[u8]) -> Option<String> {
        let mut texts = message.get(5..)?.split(|&byte| byte == 0);
        let (first, second) = (texts.next()?, texts.next()?);
        match message[0] {
            b'P' => {
                self.statements.insert(first.to_vec(), String::from_utf8_lossy(second).into_owned());
                None
            }
            b'B' => self.statements.get(second).cloned(),
            _ => None,
        }
    }
}
