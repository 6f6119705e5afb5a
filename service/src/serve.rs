//! Serves HTTP until shutdown, and drains within a bounded time.
//!
//! Each connection costs memory before anything is known about the client. So the number of connections, the share of
//! one client, the time for a request's head and its length, and the time of a stalled write are limited.

mod idle;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONNECTION, HOST};
use axum::http::{HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse as _, Response};
use axum::serve::{Listener, ListenerExt as _};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use futures::TryFutureExt as _;
use futures::future::{Either, ready};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::Service as _;

use crate::client_stream::{ClientStream, Exchanges};
use crate::metrics;
use crate::network::{ClientNetwork, NetworkShare, NetworkShares};
use crate::problem::Problem;
use crate::settings::positive_duration;
use crate::{correlation, problem};
use idle::{IdleConnections, IdleHandle};

/// Longest head of a request, and largest piece of a body that is read at once. A purchase has about a hundred bytes of
/// head; a browser with many cookies may send a few thousand.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Length of the kernel's accept queue. A crowd that connects in the same second must not have to wait for a repeated
/// SYN.
const BACKLOG: u32 = 4_096;

/// See [`ConnectionLimits::write_timeout`].
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Part of all connections that one client network may hold: 1/8.
const NETWORK_SHARE_DIVISOR: usize = 8;

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

    /// Longest time for the head of a request, from its first byte; for the first request, from the connection's start
    #[arg(
        long = "header-read-timeout",
        env = "HEADER_READ_TIMEOUT",
        value_parser = positive_duration,
        default_value = "15s"
    )]
    pub header_read_timeout: Duration,

    /// Longest wait for the next request on an idle connection; longer than load balancers keep theirs
    // Otherwise a load balancer would send a request into a closing connection. Most keep idle connections for 60 to 75
    // seconds.
    #[arg(
        long = "idle-timeout",
        env = "IDLE_TIMEOUT",
        value_parser = positive_duration,
        default_value = "90s"
    )]
    pub idle_timeout: Duration,

    /// Longest time in which a write makes no progress, because the client does not read its answers.
    #[arg(skip = WRITE_TIMEOUT)]
    pub write_timeout: Duration,

    /// True if at the limit the connection that waits longest for a request is closed, instead of the new one.
    #[arg(skip)]
    pub close_idle: bool,
}

impl Default for ConnectionLimits {
    /// Limits for ports that are not public.
    fn default() -> Self {
        let minute = Duration::from_mins(1);
        Self {
            max: 1_000,
            header_read_timeout: minute,
            idle_timeout: minute,
            write_timeout: WRITE_TIMEOUT,
            close_idle: true,
        }
    }
}

/// The connections to one port. Clones share the limit and the count.
#[derive(Clone, Debug)]
pub struct Connections {
    permits: Arc<Semaphore>,
    limits: ConnectionLimits,
    shares: Option<Arc<PeerShares>>,
    close_after_response: Arc<AtomicBool>,
    /// Set if waiting connections make room for new ones.
    idle: Option<IdleConnections>,
}

/// The connections of each client network.
#[derive(Debug)]
struct PeerShares {
    /// Peers without a limit: many clients share their address.
    unlimited: Vec<IpNet>,
    open: NetworkShares,
}

/// The right to hold a connection open.
#[derive(Debug)]
struct ConnectionPermit {
    _connection: OwnedSemaphorePermit,
    _share: Option<NetworkShare>,
}

impl Connections {
    /// Applies these limits to a port that has no connections yet.
    pub fn with_limits(limits: ConnectionLimits) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(limits.max)),
            limits,
            shares: None,
            close_after_response: Arc::default(),
            idle: limits.close_idle.then(IdleConnections::default),
        }
    }

    /// Limits each client network to an eighth of the connections, except peers in these networks: proxies, and clients
    /// without a limit on their address.
    #[must_use]
    pub fn shared_by_networks(self, unlimited: Vec<IpNet>) -> Self {
        let open = NetworkShares::new((self.limits.max / NETWORK_SHARE_DIVISOR).max(1));
        Self { shares: Some(Arc::new(PeerShares { unlimited, open })), ..self }
    }

    /// From now on each response closes its connection and announces it with `Connection: close`. A client that keeps
    /// connections alive then opens a new one, or goes to another process. Without the announcement its next request
    /// may already be on the way when the connection closes.
    pub fn close_after_response(&self) {
        self.close_after_response.store(true, Ordering::Relaxed);
    }

    /// Number of open connections.
    pub fn open(&self) -> usize {
        self.limits.max - self.permits.available_permits()
    }

    /// Takes a place for a new connection. If there is none, closes the connection that waits longest for a request.
    async fn acquire(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        let permit = self.try_acquire(peer);
        if permit.is_some() {
            return permit;
        }
        metrics::connection_refused();
        if !self.idle.as_ref()?.close_longest() {
            return None;
        }
        let freed = timeout(ROOM_TIMEOUT, Arc::clone(&self.permits).acquire_owned()).await;
        drop(freed.ok()?);
        self.try_acquire(peer)
    }

    fn try_acquire(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        let connection = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let share = match &self.shares {
            Some(shares) if !shares.is_unlimited(peer.to_canonical()) => {
                Some(shares.open.try_acquire(ClientNetwork::of(peer))?)
            }
            _ => None,
        };
        Some(ConnectionPermit { _connection: connection, _share: share })
    }
}

impl PeerShares {
    fn is_unlimited(&self, peer: IpAddr) -> bool {
        self.unlimited.iter().any(|network| network.contains(&peer))
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
    // `ClientStream` has the deadlines.
    http.header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX);
    loop {
        let (stream, address) = listener.accept().await;
        while tasks.try_join_next().is_some() {}
        let Some(permit) = connections.acquire(address.ip()).await else {
            tracing::debug!(
                connections = connections.open(),
                "no room for another connection of this client"
            );
            continue;
        };
        let idle = connections.idle.as_ref().map(IdleConnections::add);
        let end = Arc::clone(&connections.close_after_response);
        let exchanges = Exchanges::begin();
        let stream = ClientStream::new(stream, &connections.limits, exchanges.clone());
        let service = ConnectionService {
            peer: Peer(address),
            router: router.clone(),
            exchanges,
            end,
            idle: idle.clone(),
        };
        let served = serve_connection(http.clone(), stream, service, graceful.watcher());
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

/// Answers the requests of one connection.
struct ConnectionService {
    peer: Peer,
    router: Router,
    exchanges: Exchanges,
    /// When it is set, a response closes the connection.
    end: Arc<AtomicBool>,
    /// Set if the connection makes room for new ones while it waits.
    idle: Option<IdleHandle>,
}

async fn serve_connection(
    http: http1::Builder,
    stream: ClientStream,
    service: ConnectionService,
    watcher: Watcher,
) {
    let ConnectionService { peer, router, exchanges, end, idle } = service;
    let answer = service_fn(move |mut request: Request<Incoming>| {
        exchanges.count_head();
        request.extensions_mut().insert(peer);
        let (exchanges, end, idle) = (exchanges.clone(), Arc::clone(&end), idle.clone());
        idle.iter().for_each(IdleHandle::work);
        let answer = if names_its_host(&request) {
            // `Router` is always ready, so `poll_ready` is not needed.
            Either::Left(router.clone().call(request.map(Body::new)))
        } else {
            Either::Right(ready(Ok(no_host(&request))))
        };
        answer.map_ok(move |mut answer| {
            exchanges.count_answer();
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

/// HTTP/1.1 requires one `Host` (RFC 9112). nginx and nodes must not disagree about a request.
fn names_its_host(request: &Request<Incoming>) -> bool {
    request.version() != Version::HTTP_11 || request.headers().get_all(HOST).iter().count() == 1
}

fn no_host(request: &Request<Incoming>) -> Response {
    let correlation = correlation::from_headers(request.headers());
    let problem = Problem::new(StatusCode::BAD_REQUEST).detail("HTTP/1.1 requires one Host header.");
    let mut response = problem.into_response();
    problem::complete(&mut response, &correlation);
    correlation::echo(&correlation, false, response.headers_mut());
    response
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
    use std::net::Ipv4Addr;

    use axum::routing::get;
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::{Notify, oneshot};
    use tokio::task::JoinHandle;

    use super::*;

    const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

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
        let permit = connections.try_acquire(HOST);
        assert!(permit.is_some() && connections.try_acquire(HOST).is_none());
        assert_eq!(connections.open(), 1, "a refused connection is not counted");
        drop(permit);
        assert!(connections.try_acquire(HOST).is_some());
    }

    #[test]
    fn client_network_holds_a_share_of_connections() {
        let sixteen = ConnectionLimits { max: 16, ..ConnectionLimits::default() };
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let connections = Connections::with_limits(sixteen).shared_by_networks(proxies);
        let connect = |peer: &str| connections.try_acquire(peer.parse().unwrap());

        let greedy: Vec<_> = (0..3).map(|_| connect("192.0.2.7")).collect();
        assert!(greedy[..2].iter().all(Option::is_some) && greedy[2].is_none(), "an eighth of 16");
        assert_eq!(connections.open(), 2, "a refused connection is not counted");

        let of_proxies: Vec<_> = (0..13).map(|_| connect("::ffff:10.0.0.1")).collect();
        assert!(of_proxies.iter().all(Option::is_some), "many clients share the address of a proxy");
        assert!(connect("192.0.2.8").is_some(), "the last place is for another client");

        drop(greedy);
        assert!(connect("192.0.2.7").is_some());
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
    async fn idle_connection_outlives_the_deadline_of_heads() {
        let head = Duration::from_millis(100);
        let limits = ConnectionLimits { header_read_timeout: head, ..ConnectionLimits::default() };
        let Serving { address, mut client, answer, stop: _stop, .. } =
            serving(limits, Duration::from_secs(60)).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost: te").await.unwrap();
        assert!(is_closed_soon(&mut slow).await, "the first head has a deadline");

        answer.notify_one();
        let mut response = [0; 512];
        assert_ne!(client.read(&mut response).await.unwrap(), 0);

        assert!(
            timeout(3 * head, client.read(&mut response)).await.is_err(),
            "the idle connection stays open"
        );

        client.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
        assert!(is_closed_soon(&mut client).await, "the next head has its own deadline");
    }

    #[tokio::test]
    async fn request_in_flight_outlives_the_deadline_of_heads() {
        let head = Duration::from_millis(100);
        let limits = ConnectionLimits { header_read_timeout: head, ..ConnectionLimits::default() };
        let Serving { address, answer, stop: _stop, .. } = serving(limits, Duration::from_secs(60)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        for piece in [&b"GET / HT"[..], b"TP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\n", b"{}"] {
            client.write_all(piece).await.unwrap();
            tokio::time::sleep(head / 10).await;
        }

        assert!(timeout(3 * head, client.read(&mut [0; 1])).await.is_err(), "it waits for the answer");
        answer.notify_waiters();

        let mut status = [0; 12];
        client.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }

    #[tokio::test]
    async fn client_that_never_reads_is_disconnected() {
        let hasty =
            ConnectionLimits { write_timeout: Duration::from_millis(50), ..ConnectionLimits::default() };
        let connections = Connections::with_limits(hasty);
        let listener = bind("PORT", SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || vec![b'a'; 64 << 20]));
        let serving = until(listener, router, connections.clone(), std::future::pending(), Duration::ZERO);
        let _serving = JoinSet::from_iter([serving.map(|_| ())]);

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        client.readable().await.unwrap();

        let closed = async {
            while connections.open() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(5), closed)
            .await
            .expect("the connection ends while the client does not read");
    }

    #[tokio::test]
    async fn idle_connection_is_closed_in_time() {
        let idle =
            ConnectionLimits { idle_timeout: Duration::from_millis(50), ..ConnectionLimits::default() };
        let Serving { mut client, answer, stop: _stop, .. } = serving(idle, Duration::from_secs(60)).await;
        answer.notify_one();
        assert_ne!(client.read(&mut [0; 512]).await.unwrap(), 0);
        assert!(is_closed_soon(&mut client).await, "the connection was closed");
    }

    #[tokio::test]
    async fn request_without_exactly_one_host_is_refused() {
        let Serving { address, stop: _stop, .. } =
            serving(ConnectionLimits::default(), Duration::from_secs(60)).await;
        for (head, expected) in [
            ("GET /none HTTP/1.1\r\n\r\n", b"HTTP/1.1 400"),
            ("GET /none HTTP/1.1\r\nhost: one\r\nhost: other\r\n\r\n", b"HTTP/1.1 400"),
            ("GET /none HTTP/1.1\r\nhost: one\r\n\r\n", b"HTTP/1.1 404"),
            ("GET /none HTTP/1.0\r\n\r\n", b"HTTP/1.0 404"),
        ] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            let mut status = [0; 12];
            client.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, expected, "{head:?}");
        }
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
