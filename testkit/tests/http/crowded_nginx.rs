//! Connections that stay open at nginx, from crowds and from attackers. None of them takes the place of a purchase.

use std::{
    iter::repeat_n,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes},
    routing::get,
};
use futures::{StreamExt as _, stream};
use testkit::{
    Folder, Lifetime, Nginx,
    nginx::NginxOptions,
    ports::{PortBlock, loopback},
    until,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::{Mutex, MutexGuard, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};

const LISTEN: &str = "GET /api/sale/events HTTP/1.1\r\nhost: shop\r\n\r\n";
const HALF_HEAD: &str = "POST /api/sale/purchase HTTP/1.1\r\nhost: sh";
const HEAD_OF_A_BODY: &str = "POST /api/sale/purchase HTTP/1.1\r\nhost: shop\r\ncontent-length: 99\r\n\r\n";
const PURCHASE: &str = "POST /api/sale/purchase HTTP/1.1\r\nhost: shop\r\ncontent-length: 2\r\n\r\n{}";

/// `limit_conn` of all event streams and of those of one client network, and of its requests with bodies.
const STREAMS_MAX: usize = 4_096;
const STREAMS_OF_NETWORK_MAX: usize = 512;
const BODIES_OF_NETWORK_MAX: usize = 1_024;
/// `limit_conn` of all requests besides purchases and streams.
const OTHERS_MAX: usize = 2_048;
/// `client_header_timeout`.
const HEAD_LIMIT: Duration = Duration::from_secs(5);

const SOON: Duration = Duration::from_secs(20);
/// Port of a buyer with an address of its own. It is outside the kernel's range and the blocks of testkit.
const BUYER_PORT: u16 = 9_999;
/// The balancer that nginx trusts.
const BALANCER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
const CONCURRENT_CONNECTS: usize = 128;
/// Pause between two bytes of a slow body, well below `client_body_timeout`.
const DRIP: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn viewers_leave_room_for_purchases() {
    let shop = CrowdedShop::open().await;
    let viewers = shop.connect((0..4_500).map(buyer), LISTEN).await;

    let (streams, refusals): (Vec<_>, Vec<_>) =
        heads_of(viewers).await.into_iter().partition(|(_, head)| head.starts_with("HTTP/1.1 200"));

    shop.assert_sells_to_strangers("4,500 viewers").await;
    // Some streams are refused because the fake node does not accept them in time.
    assert!((STREAMS_MAX / 2..=STREAMS_MAX).contains(&streams.len()), "{} streams", streams.len());
    for (_, head) in refusals {
        assert!(head.starts_with("HTTP/1.1 503") && head.contains("Retry-After: 1"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_heads_leave_room_for_purchases() {
    let shop = CrowdedShop::open().await;
    let mut attackers = shop.attack([Ipv4Addr::LOCALHOST], 8_250, HALF_HEAD, u32::MAX).await;

    // nginx closes the connections twice in this time. They are opened again at once.
    let began = Instant::now();
    while began.elapsed() < HEAD_LIMIT * 2 {
        shop.assert_sells_to_strangers("8,250 half-sent heads of one address").await;
        sleep(Duration::from_millis(250)).await;
    }
    attackers.shutdown().await;

    let mut last = connect_from(Ipv4Addr::LOCALHOST, shop.address, HALF_HEAD).await;
    let end = timeout(HEAD_LIMIT + SOON, last.read_to_end(&mut Vec::new())).await;
    assert!(end.is_ok(), "a connection without a head stays open");
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_of_three_networks_leave_room_for_purchases() {
    // One worker may happen to accept all connections.
    let shop = CrowdedShop::open_with_workers("1").await;
    let networks = [1, 2, 3].map(|number| Ipv4Addr::new(127, 200, 0, number));

    // As many connections as the rule for the host allows each network. Those that nginx refuses are opened again.
    let mut attackers = shop.attack(networks, 6_144, HEAD_OF_A_BODY, 1).await;

    shop.assert_sells_to_strangers("slow bodies of three networks").await;
    attackers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_bodies_leave_room_for_pages() {
    let shop = CrowdedShop::open().await;
    let attacker = Ipv4Addr::new(127, 200, 0, 1);

    let slow = "POST /api/csrf HTTP/1.1\r\nhost: shop\r\ncontent-length: 99\r\n\r\n";
    let mut attackers = shop.attack([attacker], OTHERS_MAX + 100, slow, 3).await;

    let page = "GET / HTTP/1.1\r\nhost: shop\r\n\r\n";
    let (_, head) = &heads_of(shop.connect([buyer(1)].into_iter(), page).await).await[0];
    assert!(head.starts_with("HTTP/1.1 200"), "the page of another network: {head}");
    assert_eq!(
        shop.buy(attacker).await.as_deref(),
        Some("200"),
        "purchases of the address are counted apart"
    );
    attackers.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_a_share_of_streams() {
    let shop = CrowdedShop::open().await;
    let greedy = shop.connect((0..600).map(|_| Ipv4Addr::LOCALHOST), LISTEN).await;

    let greedy = heads_of(greedy).await;
    let other = heads_of(shop.connect([buyer(1)].into_iter(), LISTEN).await).await;

    let streams = greedy.iter().filter(|(_, head)| head.starts_with("HTTP/1.1 200")).count();
    assert!((STREAMS_OF_NETWORK_MAX / 2..=STREAMS_OF_NETWORK_MAX).contains(&streams), "{streams} streams");
    assert!(other[0].1.starts_with("HTTP/1.1 200"), "{}", other[0].1);
    assert_eq!(shop.buy(Ipv4Addr::LOCALHOST).await.as_deref(), Some("200"), "a purchase needs no stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn ipv6_network_gets_one_share() {
    let shop = CrowdedShop::open().await;
    // A balancer in front reports the addresses of its clients.
    let listen = async |client: String| {
        let request =
            format!("GET /api/sale/events HTTP/1.1\r\nhost: shop\r\nx-forwarded-for: {client}\r\n\r\n");
        let mut connection = connect_from_port((BALANCER, 0).into(), shop.address, &request).await;
        let head = timeout(SOON, head_of(&mut connection)).await.unwrap_or_default();
        (connection, head.starts_with("HTTP/1.1 200"))
    };
    let mut held = Vec::new();
    for number in 0..600 {
        held.push(listen(format!("2001:db8::{number:x}")).await);
    }

    let streams = held.iter().filter(|(_, is_accepted)| *is_accepted).count();
    assert!((STREAMS_OF_NETWORK_MAX / 2..=STREAMS_OF_NETWORK_MAX).contains(&streams), "{streams} streams");
    for other in ["2001:db8:0:1::1", "203.0.113.9", "203.0.113.8"] {
        assert!(listen(other.to_owned()).await.1, "{other}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_a_share_of_page_loads() {
    let shop = CrowdedShop::open().await;
    let request = "GET /assets/none HTTP/1.1\r\nhost: shop\r\n";
    let thousand = [&format!("{request}\r\n").repeat(999), request, "connection: close\r\n\r\n"].concat();

    let mut answers = String::new();
    // The burst is 20,000, and each second allows 1,000 more.
    for _ in 0..60 {
        let mut greedy = connect_from(Ipv4Addr::LOCALHOST, shop.address, &thousand).await;
        answers.clear();
        timeout(SOON, greedy.read_to_string(&mut answers)).await.unwrap().unwrap();
        if answers.contains("HTTP/1.1 429") {
            break;
        }
    }

    assert!(answers.contains("HTTP/1.1 429") && answers.contains("Retry-After: 1"), "no 429");
    assert_eq!(shop.buy(Ipv4Addr::LOCALHOST).await.as_deref(), Some("200"), "the API is not counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_gets_a_share_of_bodies() {
    let shop = CrowdedShop::open().await;

    let attacker = Ipv4Addr::LOCALHOST;
    let mut attackers = shop.attack([attacker], BODIES_OF_NETWORK_MAX + 100, HEAD_OF_A_BODY, 0).await;

    let refused = async || shop.buy(attacker).await.as_deref() == Some("503");
    until("nginx refuses the address", Duration::from_secs(40), refused).await.unwrap();
    shop.assert_sells_to_strangers("slow bodies of one address").await;
    attackers.shutdown().await;
}

/// Connections that attackers hold.
struct Attack {
    shop: SocketAddr,
    start: &'static str,
    /// How often a connection is opened again, at once, when nginx has closed it.
    reopenings: u32,
    /// Leaves room in the kernel's queue of connections, which only the host can protect.
    connecting: Semaphore,
    opened: AtomicUsize,
}

impl Attack {
    /// Sends `start`, and after a complete head single bytes of a body, often enough that no timeout ends it.
    async fn hold(self: Arc<Self>, from: Ipv4Addr) {
        for _ in 0..=self.reopenings {
            let permit = self.connecting.acquire().await.unwrap();
            let connection = connect_from(from, self.shop, self.start).await;
            self.opened.fetch_add(1, Ordering::Relaxed);
            drop(permit);
            drip(connection, self.start.ends_with("\r\n\r\n")).await;
        }
    }
}

/// Ends when nginx has closed the connection.
async fn drip(mut connection: TcpStream, sends_body: bool) {
    let (mut reader, mut writer) = connection.split();
    let body = async {
        while writer.write_all(b" ").await.is_ok() {
            sleep(DRIP).await;
        }
    };
    let answers = async { while reader.read(&mut [0; 1_024]).await.is_ok_and(|count| count > 0) {} };
    tokio::select! {
        () = body, if sends_body => {}
        () = answers => {}
    }
}

/// nginx in front of a fake node that sells and sends events. Only one runs at a time.
struct CrowdedShop {
    address: SocketAddr,
    /// Number of the next buyer whose address no other one had.
    strangers: AtomicU32,
    _nginx: Nginx,
    _folder: Folder,
    _ports: PortBlock,
    _lock: MutexGuard<'static, ()>,
}

impl CrowdedShop {
    async fn open() -> Self {
        Self::open_with_workers("auto").await
    }

    async fn open_with_workers(workers: &'static str) -> Self {
        static LOCK: Mutex<()> = Mutex::const_new(());
        let lock = LOCK.lock().await;
        service::files::raise_open_files_limit();
        let (ports, folder) = (PortBlock::take().unwrap(), Folder::temporary().unwrap());
        let options = NginxOptions {
            port: ports.first(),
            workers,
            nodes: vec![fake_node().await],
            balancers: vec!["127.0.0.9".to_owned()],
            folder: folder.path().into(),
            lifetime: Lifetime::Attached,
        };
        let nginx = Nginx::start(options).await.unwrap();
        let address = loopback(ports.first());
        Self { address, strangers: 60_000.into(), _nginx: nginx, _folder: folder, _ports: ports, _lock: lock }
    }

    /// Opens a connection from each address and sends the same bytes on each.
    async fn connect(
        &self,
        addresses: impl Iterator<Item = Ipv4Addr>,
        bytes: &'static str,
    ) -> Vec<TcpStream> {
        let connect = |address| connect_from(address, self.address, bytes);
        stream::iter(addresses).map(connect).buffer_unordered(CONCURRENT_CONNECTS).collect().await
    }

    /// Holds as many connections of each of these networks; see [`Attack`]. Waits until all were opened once.
    async fn attack(
        &self,
        networks: impl IntoIterator<Item = Ipv4Addr>,
        connections: usize,
        start: &'static str,
        reopenings: u32,
    ) -> JoinSet<()> {
        let attack = Arc::new(Attack {
            shop: self.address,
            start,
            reopenings,
            connecting: Semaphore::new(CONCURRENT_CONNECTS),
            opened: AtomicUsize::new(0),
        });
        let addresses: Vec<_> =
            networks.into_iter().flat_map(|network| repeat_n(network, connections)).collect();
        let count = addresses.len();
        let attackers = addresses.into_iter().map(|from| Arc::clone(&attack).hold(from)).collect();
        let opened = async || attack.opened.load(Ordering::Relaxed) >= count;
        until("the attackers' connections", Duration::from_secs(60), opened).await.unwrap();
        attackers
    }

    /// Asserts that 80 buyers, each with an address of its own, buy without delay.
    async fn assert_sells_to_strangers(&self, during: &str) {
        let purchases = (0..80).map(|_| self.buy(buyer(self.strangers.fetch_add(1, Ordering::Relaxed))));
        let answers: Vec<_> = stream::iter(purchases).buffer_unordered(8).collect().await;
        let sold = answers.iter().filter(|status| status.as_deref() == Some("200")).count();
        println!("{sold} of 80 purchases during {during}");
        assert_eq!(sold, 80, "purchases during {during}: {answers:?}");
    }

    /// Returns the status of a purchase on a new connection, or `None` if it is closed without an answer.
    async fn buy(&self, from: Ipv4Addr) -> Option<String> {
        let mut connection = connect_from(from, self.address, PURCHASE).await;
        let head = timeout(SOON, head_of(&mut connection)).await.ok()?;
        Some(head.split(' ').nth(1)?.to_owned())
    }
}

/// A loopback address that no other buyer has.
fn buyer(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 1).to_bits() + number)
}

async fn connect_from(from: Ipv4Addr, to: SocketAddr, bytes: &str) -> TcpStream {
    // Only attackers have several connections. For others the kernel would choose a port that no address uses.
    let port = if is_attacker(from) { 0 } else { BUYER_PORT };
    connect_from_port((from, port).into(), to, bytes).await
}

async fn connect_from_port(from: SocketAddr, to: SocketAddr, bytes: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    if from.ip() != Ipv4Addr::LOCALHOST {
        socket.set_reuseaddr(from.port() != 0).unwrap();
        socket.bind(from).unwrap();
    }
    let mut connection = socket.connect(to).await.unwrap();
    // A server that is full closes the connection. The answer shows it.
    connection.write_all(bytes.as_bytes()).await.unwrap_or_default();
    connection
}

fn is_attacker(address: Ipv4Addr) -> bool {
    address == Ipv4Addr::LOCALHOST || address.octets()[1] == 200
}

async fn heads_of(connections: Vec<TcpStream>) -> Vec<(TcpStream, String)> {
    let read = async |mut connection: TcpStream| {
        let head = timeout(SOON, head_of(&mut connection)).await.unwrap_or_default();
        (connection, head)
    };
    stream::iter(connections).map(read).buffer_unordered(CONCURRENT_CONNECTS).collect().await
}

/// Reads the head of an answer. It is empty if the connection is closed.
async fn head_of(connection: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut buffer = [0; 1_024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut buffer).await {
            Ok(count @ 1..) => head.extend_from_slice(&buffer[..count]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// Answers every purchase at once, and keeps every event stream open.
async fn fake_node() -> SocketAddr {
    let events = async || {
        let first = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b"data: {}\n\n"))]);
        Body::from_stream(first.chain(stream::pending()))
    };
    let router = Router::new().route("/api/sale/events", get(events)).fallback(async || "{}");
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(loopback(0)).unwrap();
    let listener = socket.listen(4_096).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}
