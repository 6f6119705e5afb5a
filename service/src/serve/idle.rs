//! Connections that wait for a request, so that the one that waits longest can make room for a new one.
//!
//! A connection waits before the head of its first request is complete, and between the end of a response and the next
//! head. A client cannot hold a place by connecting, by sending half a head, or by keeping connections open.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use tokio::sync::Notify;

/// The waiting connections of a port, in the order in which they began to wait.
#[derive(Clone, Debug, Default)]
pub(super) struct IdleConnections(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_turn: BTreeMap<u64, Arc<Notify>>,
}

impl IdleConnections {
    /// Adds a connection, which waits for its first request.
    pub(super) fn add(&self) -> IdleHandle {
        let handle = IdleHandle { list: self.clone(), close: Arc::default(), turn: Arc::default() };
        handle.wait();
        handle
    }

    /// Closes the connection that waits longest. Returns false if none waits.
    pub(super) fn close_longest(&self) -> bool {
        let longest = self.lock().by_turn.pop_first();
        longest.is_some_and(|(_, close)| {
            close.notify_one();
            true
        })
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection in the list. Clones are the same connection.
#[derive(Clone, Debug)]
pub(super) struct IdleHandle {
    list: IdleConnections,
    close: Arc<Notify>,
    turn: Arc<Mutex<Option<u64>>>,
}

impl IdleHandle {
    /// Completes when the connection must make room.
    pub(super) async fn closed(&self) {
        self.close.notified().await;
    }

    /// A request began: the connection no longer waits.
    pub(super) fn work(&self) {
        if let Some(turn) = self.turn().take() {
            self.list.lock().by_turn.remove(&turn);
        }
    }

    /// The connection waits for a request, from now on.
    fn wait(&self) {
        let mut turn = self.turn();
        let mut waiting = self.list.lock();
        let next = waiting.next;
        waiting.next += 1;
        waiting.by_turn.insert(next, Arc::clone(&self.close));
        drop(waiting);
        *turn = Some(next);
    }

    fn turn(&self) -> MutexGuard<'_, Option<u64>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wraps the body of a response. When it has ended, the connection waits again.
    pub(super) fn until_sent(self, body: Body) -> Body {
        Body::new(TrackedBody { body, handle: self })
    }
}

/// A body whose end makes its connection wait again.
struct TrackedBody {
    body: Body,
    handle: IdleHandle,
}

impl Drop for TrackedBody {
    fn drop(&mut self) {
        self.handle.wait();
    }
}

impl HttpBody for TrackedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn longest_waiting_connection_makes_room() {
        let idle = IdleConnections::default();
        assert!(!idle.close_longest());
        let (first, second) = (idle.add(), idle.add());
        first.work();
        assert!(idle.close_longest());
        assert!(second.closed().now_or_never().is_some() && first.closed().now_or_never().is_none());
        assert!(!idle.close_longest(), "a request in progress is not interrupted");
        drop(first.clone().until_sent(Body::empty()));
        assert!(idle.close_longest() && first.closed().now_or_never().is_some());
    }
}
