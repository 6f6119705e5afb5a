//! `GET events`: a sale's status, sent to whoever listens whenever it changes.
//!
//! One task a sale writes each change down once; listeners share the bytes. A listener that is slow misses what has
//! been overtaken, and nothing is kept for it: memory is bounded by the number of listeners alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use futures::stream;
use service::places::{Place, Places};
use service::problem::Problem;
use stock::ids::SaleId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::Shop;
use super::by_sale::StatusBody;
use super::problems::too_many_listeners;
use super::request::Named;
use crate::sales::{LiveSale, Outlook, Status};

/// Shortest time between two events: at most five a second.
const EVENT_PERIOD: Duration = Duration::from_millis(200);
/// A line without meaning is sent after this long without an event: proxies close connections that are silent.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(10);
const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");
/// When clients come back after the stream ended: not all at once.
const RETRY_MS: std::ops::RangeInclusive<u32> = 1_000..=3_000;
/// Has nginx pass events on as they come.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// `GET events`
pub(crate) async fn events(State(shop): State<Arc<Shop>>, named: Named) -> Result<Response, Problem> {
    let sale = shop.sale(named.sale.as_ref()).await?;
    let listener = shop.events.listen(&sale).ok_or_else(too_many_listeners)?;
    Ok(stream_of(listener.into_body()))
}

/// An answer that goes on.
pub(super) fn stream_of(events: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, events).into_response()
}

/// Whoever listens, and what they hear.
pub(crate) struct Events {
    listeners: Places,
    news: Mutex<News>,
}

#[derive(Default)]
struct News {
    by_sale: HashMap<SaleId, watch::Receiver<Frame>>,
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

struct Listener {
    frames: watch::Receiver<Frame>,
    /// The number of the last one it heard.
    heard: u64,
    /// What it hears first: the status as it is when it comes, with the time as it is then.
    greeting: Option<Bytes>,
    _place: Place,
}

impl Events {
    pub(super) fn new(listeners_max: usize) -> Self {
        Self { listeners: Places::of(listeners_max), news: Mutex::default() }
    }

    /// Ends all streams: clients come back, and find another node.
    pub(crate) fn close(&self) {
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        *news = News { is_closed: true, ..News::default() };
    }

    /// One more listener; `None` where all places are taken, or nothing is told any more.
    fn listen(&self, sale: &LiveSale) -> Option<Listener> {
        let place = self.listeners.take()?;
        let mut news = self.news.lock().unwrap_or_else(PoisonError::into_inner);
        if news.is_closed {
            return None;
        }
        let id = sale.config().id.clone();
        let running = news.by_sale.get(&id).filter(|frames| frames.has_changed().is_ok()).cloned();
        let mut frames = running.unwrap_or_else(|| {
            let (publish, frames) = watch::channel(Frame::default());
            while news.writers.try_join_next().is_some() {}
            news.writers.spawn(write(sale.outlooks(), publish));
            news.by_sale.insert(id, frames.clone());
            frames
        });
        let heard = frames.borrow_and_update().number;
        Some(Listener { frames, heard, greeting: Some(greeting(&sale.status())), _place: place })
    }

    /// How many listen.
    pub(super) fn listeners(&self) -> usize {
        self.listeners.taken()
    }
}

/// Writes down what changes, for as long as the node serves the sale.
async fn write(mut outlooks: watch::Receiver<Arc<Outlook>>, publish: watch::Sender<Frame>) {
    let mut told: Option<StatusBody> = None;
    let mut beat_at = Instant::now();
    loop {
        let status = StatusBody::of(&outlooks.borrow_and_update().status());
        if told.as_ref().is_none_or(|told| !told.says_the_same_as(&status)) {
            publish.send_modify(|frame| *frame = Frame { event: event(&status), number: frame.number + 1 });
            told = Some(status);
            beat_at = Instant::now() + HEARTBEAT_PERIOD;
        } else if beat_at <= Instant::now() {
            // The same frame once more: whoever has heard it hears a heartbeat.
            publish.send_modify(|_| {});
            beat_at = Instant::now() + HEARTBEAT_PERIOD;
        }
        sleep_until(Instant::now() + EVENT_PERIOD).await;
        if let Ok(Err(_no_longer_served)) = timeout_at(beat_at, outlooks.changed()).await {
            return;
        }
    }
}

fn greeting(status: &Status) -> Bytes {
    let retry = format!("retry: {}\n", rand::random_range(RETRY_MS));
    [retry.as_bytes(), &event(&StatusBody::of(status))].concat().into()
}

/// An event as it is sent.
pub(super) fn event(status: &StatusBody) -> Bytes {
    let json = serde_json::to_string(status).expect("a status has only plain members");
    format!("event: status\ndata: {json}\n\n").into()
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
