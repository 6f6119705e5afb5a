//! The connection of a client, with deadlines against clients that stall.
//!
//! An idle connection costs a load balancer nothing and may last long; a head that has begun must end soon. hyper knows
//! only one deadline for both, and sets a timer for each request. Here a connection has a single timer. It is moved when
//! it fires, or when a deadline comes earlier, so that most requests do not touch it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_io_timeout::TimeoutWriter;

use crate::serve::ConnectionLimits;

/// The heads and answers on a connection so far. Clones are the same connection.
#[derive(Clone, Debug)]
pub(crate) struct Exchanges(Arc<ExchangeCount>);

#[derive(Debug)]
struct ExchangeCount {
    /// Odd while a request is being served, so it is even while the next head is awaited, and different for each head.
    count: AtomicU64,
    connected_at: Instant,
    /// Time of the latest answer, in milliseconds since the connection began.
    answered_at: AtomicU64,
}

impl Exchanges {
    /// Begins a connection.
    pub(crate) fn begin() -> Self {
        let connected_at = Instant::now();
        Self(Arc::new(ExchangeCount {
            count: AtomicU64::new(0),
            connected_at,
            answered_at: AtomicU64::new(0),
        }))
    }

    /// Counts the head of a request.
    pub(crate) fn count_head(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the answer to a request.
    pub(crate) fn count_answer(&self) {
        let now = self.0.connected_at.elapsed().as_millis() as u64;
        self.0.answered_at.store(now, Ordering::Relaxed);
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of the head that is awaited, or `None` while a request is being served.
    fn awaited_head(&self) -> Option<u64> {
        let count = self.0.count.load(Ordering::Relaxed);
        count.is_multiple_of(2).then_some(count)
    }

    /// Returns the time of the latest answer, or of the start of the connection.
    fn answered_at(&self) -> Instant {
        self.0.connected_at + Duration::from_millis(self.0.answered_at.load(Ordering::Relaxed))
    }
}

/// A connection whose reads fail when the next head does not begin or takes too long, and whose writes fail when the
/// client stalls.
pub(crate) struct ClientStream {
    stream: Pin<Box<TimeoutWriter<TcpStream>>>,
    exchanges: Exchanges,
    header_read_timeout: Duration,
    idle_timeout: Duration,
    /// The head that has begun to arrive. The first one begins with the connection.
    begun_head: Option<u64>,
    /// The head that did not arrive in one piece, and its deadline.
    late_head: Option<(u64, Instant)>,
    /// Fires not later than the next deadline.
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientStream {
    pub(crate) fn new(stream: TcpStream, limits: &ConnectionLimits, exchanges: Exchanges) -> Self {
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(limits.write_timeout));
        Self {
            stream: Box::pin(stream),
            exchanges,
            header_read_timeout: limits.header_read_timeout,
            idle_timeout: limits.idle_timeout,
            begun_head: Some(0),
            late_head: None,
            timer: None,
        }
    }

    /// Completes when the awaited head is late.
    fn poll_late_head(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = self.exchanges.awaited_head().map(|head| self.deadline_of(head));
        let idle_timeout = self.idle_timeout;
        // hyper may not read again between an answer and the next head. So the timer also runs while a request is being
        // served: then it fires before the deadline of the next head.
        let next = || deadline.unwrap_or_else(|| Instant::now() + idle_timeout);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(next())));
        if deadline.is_some_and(|deadline| timer.deadline() > deadline) {
            timer.as_mut().reset(next());
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if deadline.is_some_and(|deadline| timer.deadline() >= deadline) {
                return Poll::Ready(());
            }
            timer.as_mut().reset(next());
        }
    }

    fn deadline_of(&mut self, head: u64) -> Instant {
        if self.begun_head != Some(head) {
            return self.exchanges.answered_at() + self.idle_timeout;
        }
        let known = self.late_head.filter(|(late, _)| *late == head);
        let (_, deadline) = *self
            .late_head
            .insert(known.unwrap_or_else(|| (head, Instant::now() + self.header_read_timeout)));
        deadline
    }
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        if let Poll::Ready(read) = self.stream.as_mut().poll_read(context, buffer) {
            if buffer.filled().len() > before {
                self.begun_head = self.exchanges.awaited_head();
            }
            return Poll::Ready(read);
        }
        ready!(self.poll_late_head(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream.as_mut().poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.as_mut().poll_shutdown(context)
    }
}
