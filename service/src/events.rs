//! Server-sent events: one publisher per subject, many listeners.
//!
//! One task per subject encodes each change once; all listeners share the bytes. A slow listener skips events that were
//! overtaken, and nothing is buffered for it, so memory is bounded by the number of listeners.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::network::{ClientNetwork, NetworkShare, NetworkShares};

/// Shortest time between two events: at most five per second.
pub const EVENT_PERIOD: Duration = Duration::from_millis(200);
const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");
/// Range of the reconnect delay that clients are told. It is random, so that they do not all come back at once.
const RETRY_MS: RangeInclusive<u32> = 1_000..=3_000;
/// Lifetime of a stream. It is random, so that streams that began together do not end together. The client reconnects,
/// perhaps to another process, and its place is free for others until then.
const LIFETIME: Range<Duration> = Duration::from_mins(10)..Duration::from_mins(15);
/// Part of all places that one client network may hold: 1/16.
const NETWORK_SHARE_DIVISOR: usize = 16;
/// Makes nginx pass events on without buffering.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// A response whose body is a stream of events.
pub fn stream_of(events: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, events).into_response()
}

/// Encodes an event.
///
/// # Panics
/// When the data cannot be serialized as JSON.
pub fn event(kind: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).expect("event data serializes to JSON");
    format!("event: {kind}\ndata: {json}\n\n").into()
}

/// All listeners and publishers, by subject.
pub struct EventHub<K> {
    permits: Arc<Semaphore>,
    listeners_max: usize,
    shares: NetworkShares,
    lifetime: Range<Duration>,
    state: Mutex<HubState<K>>,
}

struct HubState<K> {
    by_subject: HashMap<K, watch::Receiver<Frame>>,
    writers: JoinSet<()>,
    is_closed: bool,
}

/// The latest event of a subject.
#[derive(Clone, Default)]
struct Frame {
    /// The event, encoded.
    event: Bytes,
    /// Number of events published so far.
    number: u64,
}

/// Publishes events to the listeners of one subject.
pub struct EventPublisher(watch::Sender<Frame>);

struct Listener {
    frames: watch::Receiver<Frame>,
    /// The number of the last event it sent.
    last_number: u64,
    /// The event with the current state, which every new listener gets first.
    first_event: Option<Bytes>,
    /// The stream ends with the first event or heartbeat after this time.
    ends_at: Instant,
    _permit: OwnedSemaphorePermit,
    _share: Option<NetworkShare>,
}

impl<K> Default for HubState<K> {
    fn default() -> Self {
        Self { by_subject: HashMap::new(), writers: JoinSet::new(), is_closed: false }
    }
}

impl EventPublisher {
    /// Sends an event to all listeners.
    pub fn publish(&self, event: Bytes) {
        self.0.send_modify(|frame| *frame = Frame { event, number: frame.number + 1 });
    }

    /// Sends an empty line, because proxies close connections that stay silent.
    pub fn send_heartbeat(&self) {
        // The frame is unchanged, so listeners that have sent it send a heartbeat.
        self.0.send_modify(|_| {});
    }

    /// Returns true if the subject has listeners.
    pub fn has_listeners(&self) -> bool {
        // The hub keeps one receiver for future listeners.
        self.0.receiver_count() > 1
    }
}

impl<K: Eq + Hash> EventHub<K> {
    /// A hub with at most this many listeners at a time.
    pub fn new(listeners_max: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(listeners_max)),
            listeners_max,
            shares: NetworkShares::new((listeners_max / NETWORK_SHARE_DIVISOR).max(1)),
            lifetime: LIFETIME,
            state: Mutex::default(),
        }
    }

    fn random_lifetime(&self) -> Duration {
        rand::random_range(self.lifetime.clone())
    }

    /// Number of listeners.
    pub fn listeners(&self) -> usize {
        self.listeners_max - self.permits.available_permits()
    }

    /// Ends all streams. Clients reconnect and reach another process.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = HubState { is_closed: true, ..HubState::default() };
    }

    /// Adds a listener, which gets `first_event` first. Returns `None` if the hub is full, or if the listener's
    /// network holds a sixteenth of it; a listener without a network is not limited. Calls `writer` if the subject has
    /// no running publisher. On a closed hub the stream consists of the first event only: browsers
    /// reconnect after a stream ended, but not after an error status.
    pub fn listen<W>(
        &self,
        subject: K,
        network: Option<ClientNetwork>,
        first_event: &[u8],
        writer: impl FnOnce(EventPublisher) -> W,
    ) -> Option<Body>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let share = match network {
            Some(network) => Some(self.shares.try_acquire(network)?),
            None => None,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_closed {
            return Some(with_retry(first_event).into());
        }
        let running = state.by_subject.get(&subject).filter(|frames| frames.has_changed().is_ok()).cloned();
        let mut frames = running.unwrap_or_else(|| {
            let (sender, frames) = watch::channel(Frame::default());
            while state.writers.try_join_next().is_some() {}
            state.writers.spawn(writer(EventPublisher(sender)));
            state.by_subject.insert(subject, frames.clone());
            frames
        });
        let last_number = frames.borrow_and_update().number;
        let listener = Listener {
            frames,
            last_number,
            first_event: Some(with_retry(first_event)),
            ends_at: Instant::now() + self.random_lifetime(),
            _permit: permit,
            _share: share,
        };
        Some(listener.into_body())
    }
}

fn with_retry(first_event: &[u8]) -> Bytes {
    let retry = format!("retry: {}\n", rand::random_range(RETRY_MS));
    [retry.as_bytes(), first_event].concat().into()
}

impl Listener {
    fn into_body(self) -> Body {
        Body::from_stream(stream::unfold(self, async |mut listener| {
            let bytes = listener.next().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), listener))
        }))
    }

    /// Returns the next bytes to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first_event) = self.first_event.take() {
            return Some(first_event);
        }
        self.frames.changed().await.ok()?;
        // Heartbeats arrive often enough, so no timer is needed.
        if self.ends_at <= Instant::now() {
            return None;
        }
        let frame = self.frames.borrow_and_update();
        let is_new = frame.number != self.last_number;
        self.last_number = frame.number;
        Some(if is_new { frame.event.clone() } else { HEARTBEAT })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use futures::StreamExt as _;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// Adds a listener. A newly started writer passes its publisher on through `publishers`.
    fn listen(events: &EventHub<u8>, publishers: &mpsc::UnboundedSender<EventPublisher>) -> Option<Body> {
        let publishers = publishers.clone();
        events.listen(1, None, b"data: hello\n\n", |publisher| async move {
            publishers.send(publisher).unwrap_or_default();
        })
    }

    async fn next_event(body: &mut axum::body::BodyDataStream) -> Option<String> {
        let bytes = timeout(SOON, body.next()).await.expect("an event arrives in time")?.unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn all_listeners_share_one_writer_until_it_ends() {
        let (events, (publishers, mut started)) = (EventHub::new(9), mpsc::unbounded_channel());
        let bodies = [listen(&events, &publishers), listen(&events, &publishers)];
        let mut streams = bodies.map(|body| body.unwrap().into_data_stream());
        let publisher = timeout(SOON, started.recv()).await.unwrap().unwrap();

        for stream in &mut streams {
            assert!(next_event(stream).await.unwrap().ends_with("data: hello\n\n"));
        }
        publisher.publish(event("count", &1));
        for stream in &mut streams {
            assert_eq!(next_event(stream).await.unwrap(), "event: count\ndata: 1\n\n");
        }
        publisher.send_heartbeat();
        assert_eq!(next_event(&mut streams[0]).await.unwrap(), ":\n\n");
        assert!(started.try_recv().is_err(), "both share one writer");

        drop(publisher);
        assert_eq!(next_event(&mut streams[0]).await, None);
        let _later = listen(&events, &publishers).unwrap();
        timeout(SOON, started.recv()).await.unwrap().expect("a new writer starts");
    }

    #[tokio::test]
    async fn writer_sees_when_the_last_listener_leaves() {
        let (events, (publishers, mut started)) = (EventHub::new(9), mpsc::unbounded_channel());
        let stream = listen(&events, &publishers).unwrap();
        let publisher = timeout(SOON, started.recv()).await.unwrap().unwrap();
        assert_eq!((publisher.has_listeners(), events.listeners()), (true, 1));
        drop(stream);
        assert_eq!((publisher.has_listeners(), events.listeners()), (false, 0));
    }

    #[tokio::test]
    async fn client_network_holds_a_share_of_listeners() {
        let events = EventHub::new(32);
        let listen = |network: &str| {
            let network = ClientNetwork::of(network.parse().unwrap());
            events.listen(1, Some(network), b"", |_| std::future::pending())
        };
        let greedy: Vec<_> = (0..3).map(|_| listen("192.0.2.7")).collect();
        assert!(greedy[..2].iter().all(Option::is_some) && greedy[2].is_none(), "a sixteenth of 32");
        assert_eq!(events.listeners(), 2, "a refused listener takes no place");
        assert!(listen("192.0.2.8").is_some());
        drop(greedy);
        assert!(listen("192.0.2.7").is_some());
    }

    #[tokio::test]
    async fn stream_ends_after_its_lifetime() {
        let (publishers, mut started) = mpsc::unbounded_channel();
        let mut events = EventHub::new(9);
        events.lifetime = Duration::ZERO..Duration::from_nanos(1);
        let mut stream = listen(&events, &publishers).unwrap().into_data_stream();
        let publisher = timeout(SOON, started.recv()).await.unwrap().unwrap();
        assert!(next_event(&mut stream).await.unwrap().ends_with("data: hello\n\n"), "the state arrives");
        publisher.send_heartbeat();
        assert_eq!(next_event(&mut stream).await, None);
        drop(stream);
        assert_eq!(events.listeners(), 0);
    }

    #[test]
    fn streams_that_begin_together_end_apart() {
        let events = EventHub::<u8>::new(1);
        let lifetimes: BTreeSet<Duration> = (0..100).map(|_| events.random_lifetime()).collect();
        assert!(lifetimes.len() > 90, "only {} different lifetimes", lifetimes.len());
        let minutes = |lifetime: &Duration| lifetime.as_secs() / 60;
        assert!(lifetimes.iter().all(|lifetime| (10..15).contains(&minutes(lifetime))), "{lifetimes:?}");
    }

    #[tokio::test]
    async fn closed_hub_ends_streams_and_permits_are_reusable() {
        let (events, (publishers, _begun)) = (EventHub::new(1), mpsc::unbounded_channel());
        let first = listen(&events, &publishers);
        assert!(first.is_some() && listen(&events, &publishers).is_none());
        drop(first);
        assert!(listen(&events, &publishers).is_some());
        events.close();
        let mut stream = listen(&events, &publishers).unwrap().into_data_stream();
        assert!(next_event(&mut stream).await.unwrap().ends_with("data: hello\n\n"));
        assert_eq!(next_event(&mut stream).await, None);
    }
}
