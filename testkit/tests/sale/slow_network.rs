//! A network between the clients of one Redis primary and that primary, which can hold back one connection.
//!
//! TCP delivers what a client has sent even when the client has closed its connection. A lost packet that is sent
//! again, or a full buffer, therefore brings a command to the server after its sender has given it up.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use redis::aio::MultiplexedConnection;
use testkit::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::fixture::{OpenSale, TIMEOUT};

/// What the client of a connection that is held back gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Symptom {
    /// Nothing: its command is not answered.
    Silence,
    /// The end of the connection.
    Disconnect,
}

/// Progress of the connection that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Waiting,
    Held,
    Released,
    /// The server has answered the bytes that came late.
    Executed,
}

/// Text that selects the connection to hold back, and how its sender notices.
type Trap = (Vec<u8>, Symptom);

#[derive(Clone)]
pub(crate) struct SlowNetwork {
    /// Selects the connection to hold back, until one has sent its text.
    trap: Arc<Mutex<Option<Trap>>>,
    progress: Arc<watch::Sender<Progress>>,
    /// A connection to the primary, not through the network.
    primary: MultiplexedConnection,
}

impl SlowNetwork {
    /// Leads all connections that are opened to this primary from now on through the network. Waits until every server
    /// of the cluster names the network's address: a process may ask any of them for the map, at any time.
    pub(crate) async fn before(sale: &OpenSale, primary: SocketAddr) -> Self {
        let connection = sale.stack.redis().connection(primary).await.unwrap();
        let progress = Arc::new(watch::Sender::new(Progress::Waiting));
        let network = Self { trap: Arc::default(), progress, primary: connection };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(network.clone().serve(listener, primary));
        network.announce(port).await;
        let is_on_all_maps = async || {
            let names_network = |map: &String| map.contains(&format!(":{port}@"));
            sale.stack.redis().maps().await.iter().all(|map| map.as_ref().is_ok_and(names_network))
        };
        until("the network is on every server's map", TIMEOUT, is_on_all_maps).await.unwrap();
        sale.cluster.refresh().await.unwrap();
        network
    }

    /// Leads new connections to the primary itself. Those that exist stay.
    pub(crate) async fn remove(&self) {
        self.announce(0).await;
    }

    async fn announce(&self, port: u16) {
        let mut config = redis::cmd("CONFIG");
        config.arg("SET").arg("cluster-announce-port").arg(port);
        config.exec_async(&mut self.primary.clone()).await.unwrap();
    }

    /// Holds back the next connection that sends this text, from these bytes on.
    pub(crate) fn hold_connection_with(&self, text: &str, symptom: Symptom) {
        self.progress.send_replace(Progress::Waiting);
        *self.trap.lock().unwrap_or_else(PoisonError::into_inner) = Some((text.into(), symptom));
    }

    /// Waits until a connection is held back.
    pub(crate) async fn wait_until_held(&self) {
        self.wait_for(Progress::Held).await;
    }

    /// Delivers the bytes that were held back, and waits until the server has executed them.
    pub(crate) async fn release(&self) {
        self.wait_until_held().await;
        self.progress.send_replace(Progress::Released);
        self.wait_for(Progress::Executed).await;
    }

    async fn wait_for(&self, progress: Progress) {
        let mut now = self.progress.subscribe();
        let reached = tokio::time::timeout(TIMEOUT, now.wait_for(|now| *now >= progress)).await;
        reached.unwrap_or_else(|_| panic!("the connection is not {progress:?} in time")).unwrap();
    }

    async fn serve(self, listener: TcpListener, server: SocketAddr) {
        while let Ok((client, _)) = listener.accept().await {
            let network = self.clone();
            tokio::spawn(async move {
                if let Ok(server) = TcpStream::connect(server).await {
                    network.forward(client, server).await;
                }
            });
        }
    }

    async fn forward(self, client: TcpStream, server: TcpStream) {
        let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
            (client.into_split(), server.into_split());
        let trapped = tokio::select! {
            trapped = self.forward_until_trapped(&mut from_client, &mut to_server) => trapped,
            _ = copy(&mut from_server, &mut to_client) => None,
        };
        let Some((bytes, symptom)) = trapped else { return };
        let client = (symptom == Symptom::Silence).then_some((from_client, to_client));
        self.progress.send_replace(Progress::Held);
        self.wait_for_release().await;
        to_server.write_all(&bytes).await.unwrap();
        let executed = from_server.read(&mut [0; 1_024]).await;
        assert!(executed.is_ok_and(|bytes| bytes > 0), "the server did not answer the late bytes");
        self.progress.send_replace(Progress::Executed);
        drop(client);
    }

    async fn wait_for_release(&self) {
        let mut now = self.progress.subscribe();
        let _test_ended = now.wait_for(|now| *now >= Progress::Released).await;
    }

    /// Forwards what the client sends. Returns the bytes with the text that was waited for.
    async fn forward_until_trapped(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> Option<Trap> {
        let mut buffer = vec![0; 65_536];
        loop {
            let length = from.read(&mut buffer).await.ok().filter(|length| *length > 0)?;
            let bytes = &buffer[..length];
            let symptom = {
                let mut trap = self.trap.lock().unwrap_or_else(PoisonError::into_inner);
                let is_hit =
                    |(text, _): &mut (Vec<u8>, _)| bytes.windows(text.len()).any(|part| part == text);
                trap.take_if(is_hit).map(|(_, symptom)| symptom)
            };
            if let Some(symptom) = symptom {
                return Some((bytes.to_vec(), symptom));
            }
            to.write_all(bytes).await.ok()?;
        }
    }
}
