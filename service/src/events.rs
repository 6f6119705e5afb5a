//! Server-sent events: what changes, sent to whoever listens.
//!
//! One task a subject writes each change down once; listeners share the bytes. A listener that is slow misses what has
//! been overtaken, and nothing is kept for it: memory is bounded by the number of listeners alone.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
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

/// Shortest time between two events: at most five a second.
pub const EVENT_PERIOD: Duration = Duration::from_millis(200);
const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");
/// When clients come back after the stream ended: not all at once.
const RETRY_MS: RangeInclusive<u32> = 1_000..=3_000;
/// Has nginx pass events on as they come.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// An answer that goes on.
pub fn stream_of(events: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, events).into_response()
}

/// An event as it is sent.
///
/// # Panics
/// When the data cannot be JSON.
pub fn event(kind: &str, data: &impl Serialize) -> Bytes {
    let json = serde_json::to_string(data).expect("what is told has only plain members");
    format!("event: {kind}\ndata: {json}\n\n").into()
}

/// Whoever listens, and what they hear, by subject.
pub struct EventHub<K> {
    permits: Arc<Semaphore>,
    listeners_max: usize,
    state: Mutex<HubState<K>>,
}

struct HubState<K> {
    by_subject: HashMap<K, watch::Receiver<Frame>>,
    writers: JoinSet<()>,
    is_closed: bool,
}

/// What there is to hear.
#[derive(Clone, Default)]
struct Frame {
    /// The latest event.
    event: Bytes,
    /// How many there were.
    number: u64,
}

/// What the task that writes about a subject tells its listeners with.
pub struct EventPublisher(watch::Sender<Frame>);

struct Listener {
    frames: watch::Receiver<Frame>,
    /// The number of the last one it heard.
    last_number: u64,
    /// What it hears first: how it is when it comes.
    first_event: Option<Bytes>,
    _permit: OwnedSemaphorePermit,
}

impl<K> Default for HubState<K> {
    fn default() -> Self {
        Self { by_subject: HashMap::new(), writers: JoinSet::new(), is_closed: false }
    }
}

impl EventPublisher {
    /// Tells all listeners.
    pub fn publish(&self, event: Bytes) {
        self.0.send_modify(|frame| *frame = Frame { event, number: frame.number + 1 });
    }

    /// Sends a line without meaning: proxies close connections that are silent.
    pub fn send_heartbeat(&self) {
        // The same frame once more: whoever has heard it hears a heartbeat.
        self.0.send_modify(|_| {});
    }

    /// Whether anybody listens.
    pub fn has_listeners(&self) -> bool {
        // One is kept for those who come later.
        self.0.receiver_count() > 1
    }
}

impl<K: Eq + Hash> EventHub<K> {
    /// With room for so many listeners.
    pub fn new(listeners_max: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(listeners_max)), listeners_max, state: Mutex::default() }
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.listeners_max - self.permits.available_permits()
    }

    /// Ends all streams: clients come back, and find another process.
    pub fn close(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = HubState { is_closed: true, ..HubState::default() };
    }

    /// One more listener, who hears the first_event first; `None` where all places are taken. Where nobody writes about the
    /// subject, `write` begins to. Once nothing is told any more, the first_event is all: a refusal would be the end for a
    /// browser, which comes back to a stream that ended.
    pub fn listen<W>(
        &self,
        subject: K,
        first_event: &[u8],
        writer: impl FnOnce(EventPublisher) -> W,
    ) -> Option<Body>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
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
        Some(
            Listener { frames, last_number, first_event: Some(with_retry(first_event)), _permit: permit }
                .into_body(),
        )
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

    /// What to send next; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first_event) = self.first_event.take() {
            return Some(first_event);
        }
        self.frames.changed().await.ok()?;
        let frame = self.frames.borrow_and_update();
        let is_new = frame.number != self.last_number;
        self.last_number = frame.number;
        Some(if is_new { frame.event.clone() } else { HEARTBEAT })
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// Listens; whoever has to begin to write sends what it writes with.
    fn listen(events: &EventHub<u8>, publishers: &mpsc::UnboundedSender<EventPublisher>) -> Option<Body> {
        let publishers = publishers.clone();
        events.listen(1, b"data: hello\n\n", |publisher| async move {
            publishers.send(publisher).unwrap_or_default()
        })
    }

    async fn next_event(body: &mut axum::body::BodyDataStream) -> Option<String> {
        let bytes = timeout(SOON, body.next()).await.expect("something is heard soon")?.unwrap();
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
        assert!(started.try_recv().is_err(), "one writes for both");

        drop(publisher);
        assert_eq!(next_event(&mut streams[0]).await, None);
        let _later = listen(&events, &publishers).unwrap();
        timeout(SOON, started.recv()).await.unwrap().expect("another begins to write");
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
