//! Server-sent events: what changes, sent to whoever listens.
//!
//! One task a subject writes each change down once; listeners share the bytes. A listener that is slow misses what has
//! been overtaken, and nothing is kept for it: memory is bounded by the number of listeners alone.

use std::collections::HashMap;
use std::hash::Hash;
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::places::{Place, Places};

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
    listeners: Places,
    news: Mutex<PublishedEvent<K>>,
}

struct PublishedEvent<K> {
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
    heard: u64,
    /// What it hears first: how it is when it comes.
    greeting: Option<Bytes>,
    _place: Place,
}

impl<K> Default for PublishedEvent<K> {
    fn default() -> Self {
        Self { by_subject: HashMap::new(), writers: JoinSet::new(), is_closed: false }
    }
}

impl EventPublisher {
    /// Tells all listeners.
    pub fn tell(&self, event: Bytes) {
        self.0.send_modify(|frame| *frame = Frame { event, number: frame.number + 1 });
    }

    /// Sends a line without meaning: proxies close connections that are silent.
    pub fn beat(&self) {
        // The same frame once more: whoever has heard it hears a heartbeat.
        self.0.send_modify(|_| {});
    }

    /// Whether anybody listens.
    pub fn is_heard(&self) -> bool {
        // One is kept for those who come later.
        self.0.receiver_count() > 1
    }
}

impl<K: Eq + Hash> EventHub<K> {
    /// With room for so many listeners.
    pub fn new(listeners_max: usize) -> Self {
        Self { listeners: Places::of(listeners_max), news: Mutex::default() }
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.listeners.taken()
    }

    /// Ends all streams: clients come back, and find another process.
    pub fn close(&self) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        *news = PublishedEvent { is_closed: true, ..PublishedEvent::default() };
    }

    /// One more listener, who hears the greeting first; `None` where all places are taken. Where nobody writes about the
    /// subject, `write` begins to. Once nothing is told any more, the greeting is all: a refusal would be the end for a
    /// browser, which comes back to a stream that ended.
    pub fn listen<W>(
        &self,
        subject: K,
        greeting: &[u8],
        write: impl FnOnce(EventPublisher) -> W,
    ) -> Option<Body>
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let place = self.listeners.take()?;
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if news.is_closed {
            return Some(with_retry(greeting).into());
        }
        let running = news.by_subject.get(&subject).filter(|frames| frames.has_changed().is_ok()).cloned();
        let mut frames = running.unwrap_or_else(|| {
            let (publish, frames) = watch::channel(Frame::default());
            while news.writers.try_join_next().is_some() {}
            news.writers.spawn(write(EventPublisher(publish)));
            news.by_subject.insert(subject, frames.clone());
            frames
        });
        let heard = frames.borrow_and_update().number;
        Some(Listener { frames, heard, greeting: Some(with_retry(greeting)), _place: place }.into_body())
    }
}

fn with_retry(greeting: &[u8]) -> Bytes {
    let retry = format!("retry: {}\n", rand::random_range(RETRY_MS));
    [retry.as_bytes(), greeting].concat().into()
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
        if let Some(greeting) = self.greeting.take() {
            return Some(greeting);
        }
        self.frames.changed().await.ok()?;
        let frame = self.frames.borrow_and_update();
        let is_news = frame.number != self.heard;
        self.heard = frame.number;
        Some(if is_news { frame.event.clone() } else { HEARTBEAT })
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
    fn listen(events: &EventHub<u8>, tellers: &mpsc::UnboundedSender<EventPublisher>) -> Option<Body> {
        let tellers = tellers.clone();
        events.listen(1, b"data: hello\n\n", |teller| async move { tellers.send(teller).unwrap_or_default() })
    }

    async fn hears(body: &mut axum::body::BodyDataStream) -> Option<String> {
        let bytes = timeout(SOON, body.next()).await.expect("something is heard soon")?.unwrap();
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn all_who_listen_to_a_subject_hear_one_writer_until_it_ends() {
        let (events, (tellers, mut begun)) = (EventHub::new(9), mpsc::unbounded_channel());
        let bodies = [listen(&events, &tellers), listen(&events, &tellers)];
        let mut ears = bodies.map(|body| body.unwrap().into_data_stream());
        let teller = timeout(SOON, begun.recv()).await.unwrap().unwrap();

        for ear in &mut ears {
            assert!(hears(ear).await.unwrap().ends_with("data: hello\n\n"));
        }
        teller.tell(event("count", &1));
        for ear in &mut ears {
            assert_eq!(hears(ear).await.unwrap(), "event: count\ndata: 1\n\n");
        }
        teller.beat();
        assert_eq!(hears(&mut ears[0]).await.unwrap(), ":\n\n");
        assert!(begun.try_recv().is_err(), "one writes for both");

        drop(teller);
        assert_eq!(hears(&mut ears[0]).await, None);
        let _later = listen(&events, &tellers).unwrap();
        timeout(SOON, begun.recv()).await.unwrap().expect("another begins to write");
    }

    #[tokio::test]
    async fn a_writer_learns_that_nobody_listens_any_more() {
        let (events, (tellers, mut begun)) = (EventHub::new(9), mpsc::unbounded_channel());
        let ear = listen(&events, &tellers).unwrap();
        let teller = timeout(SOON, begun.recv()).await.unwrap().unwrap();
        assert_eq!((teller.is_heard(), events.listeners()), (true, 1));
        drop(ear);
        assert_eq!((teller.is_heard(), events.listeners()), (false, 0));
    }

    #[tokio::test]
    async fn what_is_closed_sends_listeners_on_and_a_place_that_is_left_is_free() {
        let (events, (tellers, _begun)) = (EventHub::new(1), mpsc::unbounded_channel());
        let first = listen(&events, &tellers);
        assert!(first.is_some() && listen(&events, &tellers).is_none());
        drop(first);
        assert!(listen(&events, &tellers).is_some());
        events.close();
        let mut ear = listen(&events, &tellers).unwrap().into_data_stream();
        assert!(hears(&mut ear).await.unwrap().ends_with("data: hello\n\n"));
        assert_eq!(hears(&mut ear).await, None);
    }
}
