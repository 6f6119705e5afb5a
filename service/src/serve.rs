//! Serves HTTP until shutdown, and drains within a bounded time.
//!
//! Each connection costs memory before anything is known about the client. So the number of connections, the time for a
//! request's head and its length are limited.

mod idle;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::serve::{Listener, ListenerExt as _};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use futures::TryFutureExt as _;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::Service as _;

use crate::metrics;
use crate::settings::positive_duration;
use idle::{IdleConnections, IdleHandle};

/// Longest head of a request, and largest piece of a body that is read at once. A purchase has about a hundred bytes of
/// head; a browser with many cookies may send a few thousand.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Length of the kernel's accept queue. A crowd that connects in the same second must not have to wait for a repeated
/// SYN.
const BACKLOG: u32 = 4_096;

/// Longest wait for the place of a connection that is being closed.
const ROOM_TIMEOUT: Duration = Duration::from_millis(100);

/// Limits for connections to one port.
#[derive(Args, Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Most open connections; further ones are closed at once
    // An idle connection takes about 22 kB, so the default allows 440 MB.
    #[arg(
        id = "connections-max",
        long = "connections-max",
        env = "CONNECTIONS_MAX",
        default_value = "20000",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000)
    )]
    pub max: usize,

    /// Longest wait for the head of a request, and so for the next request on an idle connection
    // Longer than a load balancer keeps idle connections to a node; otherwise it would send a request into a closing
    // one.
    #[arg(
        long = "header-read-timeout",
        env = "HEADER_READ_TIMEOUT",
        value_parser = positive_duration,
        default_value = "15s"
    )]
    pub header_read_timeout: Duration,

    /// True if at the limit the connection that waits longest for a request is closed, instead of the new one.
    #[arg(skip)]
    pub close_idle: bool,
}

impl Default for ConnectionLimits {
    /// Limits for ports that are not public.
    fn default() -> Self {
        Self { max: 1_000, header_read_timeout: Duration::from_secs(60), close_idle: true }
    }
}

/// The connections to one port. Clones share the limit and the count.
#[derive(Clone, Debug)]
pub struct Connections {
    permits: Arc<Semaphore>,
    max: usize,
    header_read_timeout: Duration,
    close_after_response: Arc<AtomicBool>,
    /// Set if waiting connections make room for new ones.
    idle: Option<IdleConnections>,
}

impl Connections {
    /// Applies these limits to a port that has no connections yet.
    pub fn with_limits(limits: ConnectionLimits) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.max)),
            max: limits.max,
            header_read_timeout: limits.header_read_timeout,
            close_after_response: Arc::default(),
            idle: limits.close_idle.then(IdleConnections::default),
        }
    }

    /// From now on each response closes its connection and announces it with `Connection: close`. A client that keeps
    /// connections alive then opens a new one, or goes to another process. Without the announcement its next request
    /// may already be on the way when the connection closes.
    pub fn close_after_response(&self) {
        self.close_after_response.store(true, Ordering::Relaxed);
    }

    /// Number of open connections.
    pub fn open(&self) -> usize {
        self.max - self.permits.available_permits()
    }

    /// Takes a place for a new connection. If there is none, closes the connection that waits longest for a request.
    async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        if let Some(permit) = self.try_acquire() {
            return Some(permit);
        }
        metrics::connection_refused();
        if !self.idle.as_ref()?.close_longest() {
            return None;
        }
        let freed = timeout(ROOM_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await;
        freed.ok()?.ok()
    }

    fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }
}

/// The address of the client's end of a connection, as an extension of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: cannot listen on {address}: {reason}")]
pub struct BindError {
    setting: &'static str,
    address: SocketAddr,
    reason: String,
}

/// Listens on an address. `setting` is the variable that the port comes from.
///
/// # Errors
/// Fails when the address is in use, does not belong to this host, or is not permitted.
pub fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|error| BindError { setting, address, reason: describe(&error) })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Allows a restart while old connections of the port are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        _ => error.to_string(),
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeOutcome {
    /// Every request was answered.
    Drained,
    /// Some requests were not answered within the grace period.
    TimedOut,
}

/// Serves until `shutdown` completes. Then it accepts no connections, closes idle ones, and gives requests in flight
/// the time `grace` to finish.
pub async fn until(
    listener: TcpListener,
    router: Router,
    connections: Connections,
    shutdown: impl Future<Output = ()>,
    grace: Duration,
) -> ServeOutcome {
    let graceful = GracefulShutdown::new();
    let mut tasks = JoinSet::new();
    tokio::select! {
        () = shutdown => {}
        () = accept(listener, router, connections, &graceful, &mut tasks) => unreachable!("accept loops for ever"),
    }
    match timeout(grace, graceful.shutdown()).await {
        Ok(()) => ServeOutcome::Drained,
        Err(_) => ServeOutcome::TimedOut,
    }
}

/// Serves while `work` runs.
pub async fn during<T>(listener: TcpListener, router: Router, work: impl Future<Output = T>) -> T {
    let connections = Connections::with_limits(ConnectionLimits::default());
    tokio::select! {
        done = work => done,
        _ = until(listener, router, connections, std::future::pending(), Duration::ZERO) => {
            unreachable!("shutdown never completes")
        }
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    connections: Connections,
    graceful: &GracefulShutdown,
    tasks: &mut JoinSet<()>,
) {
    let mut listener = without_delay(listener);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(connections.header_read_timeout)
        .max_buf_size(HEAD_BYTES_MAX);
    loop {
        let (stream, address) = listener.accept().await;
        while tasks.try_join_next().is_some() {}
        let Some(permit) = connections.acquire().await else {
            tracing::debug!(connections = connections.max, "no room for another connection");
            continue;
        };
        let idle = connections.idle.as_ref().map(IdleConnections::add);
        let end = Arc::clone(&connections.close_after_response);
        let served = serve_connection(
            http.clone(),
            stream,
            Peer(address),
            router.clone(),
            end,
            idle.clone(),
            graceful.watcher(),
        );
        tasks.spawn(async move {
            match &idle {
                None => served.await,
                Some(handle) => tokio::select! {
                    () = served => {}
                    () = handle.closed() => {}
                },
            }
            idle.inspect(IdleHandle::work);
            drop(permit);
        });
    }
}

/// Answers the requests of one connection, until a response closes it because of `end`.
async fn serve_connection(
    http: http1::Builder,
    stream: TcpStream,
    peer: Peer,
    router: Router,
    end: Arc<AtomicBool>,
    idle: Option<IdleHandle>,
    watcher: Watcher,
) {
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        let (end, idle) = (Arc::clone(&end), idle.clone());
        idle.iter().for_each(IdleHandle::work);
        // `Router` is always ready, so `poll_ready` is not needed.
        router.clone().call(request.map(Body::new)).map_ok(move |mut answer| {
            if end.load(Ordering::Relaxed) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            match idle {
                Some(handle) => answer.map(|body| handle.until_sent(body)),
                None => answer,
            }
        })
    });
    if let Err(error) = watcher.watch(http.serve_connection(TokioIo::new(stream), answer)).await {
        tracing::debug!(%error, "a connection ended before its time");
    }
}

/// Sets TCP_NODELAY: a response is one small segment, and waiting for more data would only delay it.
fn without_delay(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = SocketAddr> {
    listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection without TCP_NODELAY");
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::{Notify, oneshot};
    use tokio::task::JoinHandle;

    use super::*;

    /// A server with one request in flight, which is answered when `answer` is notified.
    struct Serving {
        address: SocketAddr,
        connections: Connections,
        client: TcpStream,
        answer: Arc<Notify>,
        stop: oneshot::Sender<()>,
        end: JoinHandle<ServeOutcome>,
    }

    async fn serving(limits: ConnectionLimits, grace: Duration) -> Serving {
        let (answer, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (answer, arrived) = (Arc::clone(&answer), Arc::clone(&arrived));
            async move || {
                arrived.notify_one();
                answer.notified().await;
                "answered"
            }
        };
        let listener = bind("PORT", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (router, connections) =
            (Router::new().route("/", get(handler)), Connections::with_limits(limits));
        let end = tokio::spawn(until(listener, router, connections.clone(), stopped.map(|_| ()), grace));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        arrived.notified().await;
        Serving { address, connections, client, answer, stop, end }
    }

    #[tokio::test]
    async fn shutdown_answers_in_flight_requests_and_refuses_connections() {
        let Serving { address, mut client, answer, stop, end, .. } =
            serving(ConnectionLimits::default(), Duration::from_secs(60)).await;

        stop.send(()).unwrap();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        answer.notify_one();

        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("answered"), "{response}");
        assert_eq!(end.await.unwrap(), ServeOutcome::Drained);
    }

    #[tokio::test]
    async fn draining_server_answers_and_closes_each_connection() {
        let Serving { address, connections, mut client, answer, stop: _stop, .. } =
            serving(ConnectionLimits::default(), Duration::from_secs(60)).await;
        connections.close_after_response();
        let mut late = TcpStream::connect(address).await.unwrap();
        late.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();

        for client in [&mut client, &mut late] {
            answer.notify_one();
            let mut response = String::new();
            client.read_to_string(&mut response).await.unwrap();
            assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("answered"), "{response}");
            assert!(response.contains("connection: close\r\n"), "{response}");
        }
    }

    #[tokio::test]
    async fn shutdown_does_not_wait_beyond_the_grace() {
        let Serving { client: _client, stop, end, .. } =
            serving(ConnectionLimits::default(), Duration::from_millis(10)).await;
        stop.send(()).unwrap();
        assert_eq!(end.await.unwrap(), ServeOutcome::TimedOut);
    }

    /// Returns true if the server closes the connection well before its own timeouts would.
    async fn is_closed_soon(stream: &mut TcpStream) -> bool {
        let mut byte = [0; 1];
        let end = timeout(Duration::from_secs(5), stream.read(&mut byte)).await;
        end.is_ok_and(|read| read.unwrap_or_default() == 0)
    }

    #[test]
    fn connection_permit_is_reusable_after_release() {
        let one = ConnectionLimits { max: 1, ..ConnectionLimits::default() };
        let connections = Connections::with_limits(one);
        let permit = connections.try_acquire();
        assert!(permit.is_some() && connections.try_acquire().is_none());
        assert_eq!(connections.open(), 1, "a refused connection is not counted");
        drop(permit);
        assert!(connections.try_acquire().is_some());
    }

    #[tokio::test]
    async fn connection_beyond_the_limit_is_closed_at_once() {
        let one = ConnectionLimits { max: 1, ..ConnectionLimits::default() };
        let Serving { address, mut client, answer, stop: _stop, .. } =
            serving(one, Duration::from_secs(60)).await;

        let mut second = TcpStream::connect(address).await.unwrap();
        assert!(is_closed_soon(&mut second).await, "the second connection was closed");

        answer.notify_one();
        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200", "the first one is served all the same");
    }

    #[tokio::test]
    async fn idle_connections_make_room_for_a_request() {
        let few = ConnectionLimits { max: 4, ..ConnectionLimits::default() };
        let Serving { address, connections, mut client, answer, stop: _stop, .. } =
            serving(few, Duration::from_secs(60)).await;
        let mut idle = Vec::new();
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: te").await.unwrap();
            idle.push(stream);
        }
        assert!(is_closed_soon(&mut idle[0]).await, "the longest idle connection makes room");

        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();

        for client in [&mut client, &mut second] {
            answer.notify_one();
            let mut status = [0; 12];
            timeout(Duration::from_secs(5), client.read_exact(&mut status)).await.unwrap().unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
        }
        assert!(connections.open() <= 4);
    }

    #[tokio::test]
    async fn incomplete_request_head_times_out() {
        let hasty = ConnectionLimits {
            header_read_timeout: Duration::from_millis(20),
            ..ConnectionLimits::default()
        };
        let Serving { address, stop: _stop, .. } = serving(hasty, Duration::from_secs(60)).await;

        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost: te").await.unwrap();

        assert!(is_closed_soon(&mut slow).await, "the connection was closed");
    }

    #[tokio::test]
    async fn oversized_request_head_is_refused() {
        let Serving { address, stop: _stop, .. } =
            serving(ConnectionLimits::default(), Duration::from_secs(60)).await;

        let mut client = TcpStream::connect(address).await.unwrap();
        let head =
            format!("GET / HTTP/1.1\r\nhost: test\r\nlong: {}\r\n\r\n", "a".repeat(2 * HEAD_BYTES_MAX));
        client.write_all(head.as_bytes()).await.unwrap();

        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 431");
    }
}
