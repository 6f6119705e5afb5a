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

/// A crowd of distinct users of the default sale, each buying once.
#[derive(Clone, Debug)]
pub struct OpenLoop {
    /// Whom they ask.
    pub addr: SocketAddr,
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
#[derive(Clone, Copy, Debug)]
pub struct Shot {
    /// The answer's status; none if none came.
    pub status: Option<u16>,
    /// Whether the answer says when to come back.
    pub retry_after: bool,
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
    pub async fn run(self) -> Result<Vec<Shot>> {
        let mut streams = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.addr).await.context("no connection for the crowd")?;
            stream.set_nodelay(true)?;
            streams.push(stream);
        }
        let crowd = Arc::new(Schedule {
            began: Instant::now(),
            next: AtomicU64::new(0),
            total: u64::from(self.rate) * self.duration.as_millis() as u64 / 1000,
            options: self,
        });
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
}

impl Schedule {
    fn take(&self) -> Option<(u64, Instant)> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let due = self.began + Duration::from_secs(number) / self.options.rate;
        (number < self.total).then_some((number, due))
    }
}

/// One connection: sends what is due, one request after the other, on a new socket where the old one broke.
async fn visit(stream: TcpStream, crowd: Arc<Schedule>) -> Vec<Shot> {
    let (mut stream, mut shots) = (Some(stream), Vec::new());
    while let Some((number, due)) = crowd.take() {
        sleep_until(due).await;
        let sent = Instant::now();
        let answer = timeout_at(sent + ANSWER_LIMIT, ask(&mut stream, &crowd.options, number)).await;
        let answer = answer.unwrap_or_else(|late| Err(late.into()));
        if answer.is_err() {
            stream = None;
        }
        let (status, retry_after) = answer.map_or((None, false), |(status, retry)| (Some(status), retry));
        shots.push(Shot { status, retry_after, latency: due.elapsed(), service_time: sent.elapsed() });
    }
    shots
}

async fn ask(stream: &mut Option<TcpStream>, options: &OpenLoop, number: u64) -> Result<(u16, bool)> {
    let stream = match stream {
        Some(stream) => stream,
        none => none.insert(TcpStream::connect(options.addr).await?),
    };
    let body = format!(r#"{{"userId":"{}-{number}"}}"#, options.users);
    let request = format!(
        "POST /api/sale/purchase HTTP/1.1\r\nhost: sale\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
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

/// Status, and whether there is a `Retry-After`; nothing while the answer is not complete.
fn parse(bytes: &[u8]) -> Result<Option<(u16, bool)>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    let header = |name: &str| response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    let length = header("content-length").context("an answer without a length")?;
    let length: usize = std::str::from_utf8(length.value)?.parse()?;
    let status = response.code.context("an answer without a status")?;
    Ok((bytes.len() >= head + length).then_some((status, header("retry-after").is_some())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_once_it_is_complete() {
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy";
        assert_eq!(parse(answer).unwrap(), Some((503, true)));
        assert_eq!(parse(&answer[..answer.len() - 1]).unwrap(), None);
        assert_eq!(parse(&answer[..20]).unwrap(), None);
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap(), Some((200, false)));
    }
}
