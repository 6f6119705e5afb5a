//! Load that does not wait for answers: requests are due at a steady rate, whatever the server does.
//!
//! A crowd does not slow down because a server does. Latency is counted from the moment a request was due, so a
//! server that stalls cannot hide it by keeping the next request from being sent. Written close to the socket: a
//! request costs a tenth of what a full HTTP client takes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

/// Without an answer by then a buyer has gone.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Answers to a purchase have some hundred bytes of headers and of body.
const ANSWER_BYTES_MAX: usize = 4096;

/// A crowd of distinct users, each buying once.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// Whom they ask.
    pub addr: SocketAddr,
    /// What they call it, in the `Host` header.
    pub host: String,
    /// Where purchases go: `/api/sale/purchase` for the default sale.
    pub path: String,
    /// What their ids begin with.
    pub users: String,
    /// How many come each second.
    pub rate: u32,
    /// How long they keep coming.
    pub duration: Duration,
    /// Connections that they share. One more request than this at a time is sent late, and counts as late.
    pub connections: usize,
}

/// What one of them met.
#[derive(Clone, Debug)]
pub struct BuyerResult {
    /// The user, and the `Idempotency-Key` of the attempt: who comes back with it is recognised.
    pub user: String,
    /// When it was sent.
    pub sent: std::time::Instant,
    /// The answer's status; none if none came.
    pub status: Option<u16>,
    /// Whether the answer says when to come back.
    pub retry_after: bool,
    /// The answer's body.
    pub body: Vec<u8>,
    /// From when the request was due to the last byte of its answer.
    pub latency: Duration,
    /// From when it was sent.
    pub service_time: Duration,
}

impl OpenLoop {
    /// Sends everything; what each met, in no order.
    ///
    /// # Errors
    /// When the connections cannot be had.
    pub async fn run(self) -> Result<Vec<BuyerResult>> {
        self.run_while(|_| true).await
    }

    /// Tells of each answer as it comes; once that returns false, nobody comes any more. What each met, in no order.
    ///
    /// # Errors
    /// When the connections cannot be had.
    pub async fn run_while(
        self,
        goes_on: impl Fn(&BuyerResult) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<BuyerResult>> {
        let mut streams = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.addr).await.context("no connection for the crowd")?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let crowd = Arc::new(Schedule::begin(self, goes_on));
        let mut visitors = JoinSet::new();
        for stream in streams {
            visitors.spawn(visit(stream, Arc::clone(&crowd)));
        }
        Ok(visitors.join_all().await.into_iter().flatten().collect())
    }
}

/// Who is next, and when.
struct Schedule {
    began: Instant,
    next: AtomicU64,
    total: u64,
    options: OpenLoop,
    goes_on: Box<dyn Fn(&BuyerResult) -> bool + Send + Sync>,
}

impl Schedule {
    fn begin(options: OpenLoop, goes_on: impl Fn(&BuyerResult) -> bool + Send + Sync + 'static) -> Self {
        Self {
            began: Instant::now(),
            next: AtomicU64::new(0),
            total: u64::from(options.rate) * options.duration.as_millis() as u64 / 1000,
            options,
            goes_on: Box::new(goes_on),
        }
    }

    fn take(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.began + Duration::from_secs(number) / self.options.rate;
        (number < self.total).then_some((number, due))
    }
}

/// One connection: sends what is due, one request after the other, on a new socket where the old one broke.
async fn visit(stream: TcpStream, crowd: Arc<Schedule>) -> Vec<BuyerResult> {
    let (mut stream, mut shots) = (Some(stream), Vec::new());
    while let Some((number, due)) = crowd.take() {
        sleep_until(due).await;
        let (user, sent) = (format!("{}-{number}", crowd.options.users), Instant::now());
        let answer = timeout_at(sent + ANSWER_LIMIT, ask(&mut stream, &crowd.options, &user)).await;
        let answer = answer.unwrap_or_else(|late| Err(late.into()));
        let (latency, service_time, sent) = (due.elapsed(), sent.elapsed(), sent.into_std());
        if answer.is_err() {
            stream = None;
        }
        let status = answer.as_ref().ok().map(|answer| answer.status);
        let Answer { retry_after, body, .. } = answer.unwrap_or_default();
        shots.push(BuyerResult { user, sent, status, retry_after, body, latency, service_time });
        if !shots.last().is_some_and(&crowd.goes_on) {
            crowd.next.store(crowd.total, Ordering::Relaxed);
        }
    }
    shots
}

/// A complete answer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answer {
    status: u16,
    retry_after: bool,
    body: Vec<u8>,
}

async fn ask(stream: &mut Option<TcpStream>, options: &OpenLoop, user: &str) -> Result<Answer> {
    let stream = match stream {
        Some(stream) => stream,
        none => none.insert(TcpStream::connect(options.addr).await?),
    };
    let (OpenLoop { path, host, .. }, body) = (options, format!(r#"{{"userId":"{user}"}}"#));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nidempotency-key: {user}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let (mut buffer, mut read) = ([0; ANSWER_BYTES_MAX], 0);
    loop {
        let more = stream.read(&mut buffer[read..]).await?;
        anyhow::ensure!(more > 0, "the server hung up");
        read += more;
        if let Some(answer) = parse(&buffer[..read])? {
            return Ok(answer);
        }
    }
}

/// Nothing while the answer is not complete.
fn parse(bytes: &[u8]) -> Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    let header = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let length = header("content-length").context("an answer without a length")?;
    let length: usize = std::str::from_utf8(length.value)?.parse()?;
    let status = response.code.context("an answer without a status")?;
    let (retry_after, body) = (header("retry-after").is_some(), bytes.get(head..head + length));
    Ok(body.map(|body| Answer { status, retry_after, body: body.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_when_is_decided_before_the_first_answer() {
        let (users, host, path) = ("u".to_owned(), "sale".to_owned(), "/api/sale/purchase".to_owned());
        let (addr, duration) = (([127, 0, 0, 1], 1).into(), Duration::from_millis(2_500));
        let crowd = OpenLoop { addr, host, path, users, rate: 400, duration, connections: 1 };
        let schedule = Schedule::begin(crowd, |_| true);

        let due: Vec<Duration> =
            std::iter::from_fn(|| schedule.take()).map(|(_, due)| due - schedule.began).collect();

        assert_eq!(due.len(), 1_000);
        assert_eq!(due[..3], [0.0, 2.5, 5.0].map(|ms: f64| Duration::from_secs_f64(ms / 1e3)));
        assert_eq!(due[999], Duration::from_micros(2_497_500));
    }

    #[test]
    fn an_answer_is_read_once_it_is_complete() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy";
        let busy = Answer { status: 503, retry_after: true, body: b"busy".into() };
        assert_eq!(parse(answer).unwrap(), Some(busy));
        assert_eq!(parse(&answer[..answer.len() - 1]).unwrap(), None);
        assert_eq!(parse(&answer[..20]).unwrap(), None);
        let nothing = Answer { status: 200, ..Answer::default() };
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap(), Some(nothing));
    }
}
