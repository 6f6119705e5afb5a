//! The connection of a client, with deadlines against clients that stall.
//!
//! hyper limits the time until a whole head has arrived, which includes the idle time before it, and does not limit
//! writes. An idle connection costs a load balancer nothing and may last long; a head that has begun must end soon.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_io_timeout::TimeoutWriter;

use crate::serve::ConnectionLimits;

/// Number of heads and answers on a connection so far. It is odd while a request is being served, so it is even while
/// the next head is awaited, and different for each head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Exchanges(Arc<AtomicU64>);

impl Exchanges {
    /// Counts the head of a request, or its answer.
    pub(crate) fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of the head that is awaited, or `None` while a request is being served.
    fn awaited_head(&self) -> Option<u64> {
        let count = self.0.load(Ordering::Relaxed);
        count.is_multiple_of(2).then_some(count)
    }
}

/// A connection whose reads fail when a head takes too long, and whose writes fail when the client stalls.
pub(crate) struct ClientStream {
    stream: Pin<Box<TimeoutWriter<TcpStream>>>,
    exchanges: Exchanges,
    header_read_timeout: Duration,
    /// The head that has begun to arrive. The first one begins with the connection.
    begun_head: Option<u64>,
    /// The head that has a deadline, and the deadline. It is set when the head did not arrive in one piece.
    deadline: Option<(u64, Pin<Box<Sleep>>)>,
}

impl ClientStream {
    pub(crate) fn new(stream: TcpStream, limits: &ConnectionLimits, exchanges: Exchanges) -> Self {
        let mut stream = TimeoutWriter::new(stream);
        stream.set_timeout(Some(limits.write_timeout));
        Self {
            stream: Box::pin(stream),
            exchanges,
            header_read_timeout: limits.header_read_timeout,
            begun_head: Some(0),
            deadline: None,
        }
    }

    /// Completes when the head that has begun is late. Is pending for ever if none has begun.
    fn poll_late_head(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let awaited = self.exchanges.awaited_head();
        let Some(head) = self.begun_head.filter(|begun| awaited == Some(*begun)) else {
            self.deadline = None;
            return Poll::Pending;
        };
        let timeout = self.header_read_timeout;
        let deadline = self.deadline.take().filter(|(of, _)| *of == head);
        let (_, deadline) =
            self.deadline.insert(deadline.unwrap_or_else(|| (head, Box::pin(sleep(timeout)))));
        deadline.as_mut().poll(context)
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
