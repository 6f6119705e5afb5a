//! Open-loop load: requests are due at a steady rate, however fast the server answers.
//!
//! A real crowd does not slow down when a server does. Latency is counted from the moment a request was due, so a
//! stalled server cannot hide its latency by delaying the next request. The client is written on plain sockets: a
//! request costs a tenth of what it costs with a full HTTP client.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use buyers::{Answer, ApiFamily, Received};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};

/// Timeout of one request. Real buyers have left by then.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Size limit of an answer. The answer to a purchase has some hundred bytes of headers and of body.
const ANSWER_BYTES_MAX: usize = 4096;

/// Load by distinct users, each buying once.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// The address that receives the requests.
    pub addr: SocketAddr,
    /// The value of the `Host` header.
    pub host: String,
    /// The path of a purchase: `/api/sale/purchase` for the default sale.
    pub path: String,
    /// The prefix of the user ids.
    pub users: String,
    /// Requests per second.
    pub rate: u32,
    /// How long requests are due.
    pub duration: Duration,
    /// Number of connections. A request that is due while all are busy is sent late, and its latency includes the
    /// delay.
    pub connections: usize,
}

/// The result of one request.
#[derive(Clone, Debug)]
pub struct BuyerResult {
    /// The user id. It is also the `Idempotency-Key`, so a retry by the same user is recognized.
    pub user: String,
    /// The time at which the request was sent.
    pub sent: std::time::Instant,
    /// The answer.
    pub answer: Answer,
    /// Time from when the request was due to the last byte of its answer.
    pub latency: Duration,
    /// Time from when the request was sent to the last byte of its answer.
    pub service_time: Duration,
}

impl OpenLoop {
    /// Sends all requests and returns the results, in no particular order.
    ///
    /// # Errors
    /// Fails when a connection cannot be opened.
    pub async fn run(self) -> Result<Vec<BuyerResult>> {
        self.run_while(|_| true).await
    }

    /// Sends requests and passes each result to `keep_going`. Once it returns false, no further request is sent. The
    /// results are in no particular order.
    ///
    /// # Errors
    /// Fails when a connection cannot be opened.
    pub async fn run_while(
        self,
        keep_going: impl Fn(&BuyerResult) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<BuyerResult>> {
        let mut streams = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.addr).await.context("cannot open a connection")?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let schedule = Arc::new(Schedule::start(self, keep_going));
        let mut connections = JoinSet::new();
        for stream in streams {
            connections.spawn(run_connection(stream, Arc::clone(&schedule)));
        }
        Ok(connections.join_all().await.into_iter().flatten().collect())
    }
}

/// The requests that are not sent yet, shared by all connections.
struct Schedule {
    began: Instant,
    next: AtomicU64,
    total: u64,
    options: OpenLoop,
    keep_going: Box<dyn Fn(&BuyerResult) -> bool + Send + Sync>,
}

impl Schedule {
    fn start(options: OpenLoop, keep_going: impl Fn(&BuyerResult) -> bool + Send + Sync + 'static) -> Self {
        Self {
            began: Instant::now(),
            next: AtomicU64::new(0),
            total: u64::from(options.rate) * options.duration.as_millis() as u64 / 1000,
            options,
            keep_going: Box::new(keep_going),
        }
    }

    fn take(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.began + Duration::from_secs(number) / self.options.rate;
        (number < self.total).then_some((number, due))
    }
}

/// Sends the due requests over one connection, one after the other. A broken socket is replaced.
async fn run_connection(stream: TcpStream, schedule: Arc<Schedule>) -> Vec<BuyerResult> {
    let (mut stream, mut results) = (Some(stream), Vec::new());
    while let Some((number, due)) = schedule.take() {
        sleep_until(due).await;
        let (user, sent) = (format!("{}-{number}", schedule.options.users), Instant::now());
        let answer =
            timeout_at(sent + ANSWER_LIMIT, send_request(&mut stream, &schedule.options, &user)).await;
        let answer = answer.unwrap_or_else(|elapsed| Err(elapsed.into()));
        let (latency, service_time, sent) = (due.elapsed(), sent.elapsed(), sent.into_std());
        if answer.is_err() {
            stream = None;
        }
        let answer = answer.map_or_else(
            |error| Answer { reason: Some(format!("{error:#}")), ..Answer::default() },
            |received| Answer::to_purchase(ApiFamily::BySale, received),
        );
        results.push(BuyerResult { user, sent, answer, latency, service_time });
        if !results.last().is_some_and(&schedule.keep_going) {
            schedule.next.store(schedule.total, Ordering::Relaxed);
        }
    }
    results
}

async fn send_request(stream: &mut Option<TcpStream>, options: &OpenLoop, user: &str) -> Result<Received> {
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
        anyhow::ensure!(more > 0, "the server closed the connection");
        read += more;
        if let Some(received) = parse(&buffer[..read])? {
            return Ok(received);
        }
    }
}

/// Parses a response. Returns `None` while it is incomplete.
fn parse(bytes: &[u8]) -> Result<Option<Received>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    let number = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()?.parse().ok()
    };
    let length = number("content-length").context("the answer has no content-length")?;
    let status = response.code.context("the answer has no status")?;
    let (retry_after, body) = (number("retry-after"), bytes.get(head..head + length as usize));
    let retry_after = retry_after.map(Duration::from_secs);
    Ok(body.map(|body| Received { status, retry_after, body: body.into() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_depend_on_answers() {
        let (users, host, path) = ("u".to_owned(), "sale".to_owned(), "/api/sale/purchase".to_owned());
        let (addr, duration) = (([127, 0, 0, 1], 1).into(), Duration::from_millis(2_500));
        let load = OpenLoop { addr, host, path, users, rate: 400, duration, connections: 1 };
        let schedule = Schedule::start(load, |_| true);

        let due: Vec<Duration> =
            std::iter::from_fn(|| schedule.take()).map(|(_, due)| due - schedule.began).collect();

        assert_eq!(due.len(), 1_000);
        assert_eq!(due[..3], [0.0, 2.5, 5.0].map(|ms: f64| Duration::from_secs_f64(ms / 1e3)));
        assert_eq!(due[999], Duration::from_micros(2_497_500));
    }

    #[test]
    fn response_is_parsed_once_complete() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy";
        let retry_after = Some(Duration::from_secs(1));
        let busy = Received { status: 503, retry_after, body: b"busy".into() };
        assert_eq!(parse(answer).unwrap(), Some(busy));
        assert_eq!(parse(&answer[..answer.len() - 1]).unwrap(), None);
        assert_eq!(parse(&answer[..20]).unwrap(), None);
        let nothing = Received { status: 200, ..Received::default() };
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap(), Some(nothing));
    }
}
