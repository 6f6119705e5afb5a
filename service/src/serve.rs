//! Serving until it is time to stop, and then no longer than is right.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::serve::{Listener, ListenerExt as _};
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Nobody can be served at this address.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: cannot listen on {address}: {reason}")]
pub struct BindError {
    setting: &'static str,
    address: SocketAddr,
    reason: String,
}

/// Listens on an address. `setting` is the variable that the port comes from.
///
/// # Errors
/// When the address is taken, is not ours, or is not allowed.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let refused = |error| BindError { setting, address, reason: in_plain_words(&error) };
    TcpListener::bind(address).await.map_err(refused)
}

fn in_plain_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        _ => error.to_string(),
    }
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request was answered.
    Whole,
    /// Some were not within the grace.
    Cut,
}

/// Serves until `shutdown` completes. Then no connection is accepted any more, idle ones are closed, and requests
/// in flight have `grace` to be answered.
pub async fn until(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
    grace: Duration,
) -> Drained {
    let (closing, closed) = oneshot::channel();
    let shutdown = shutdown.map(|()| {
        // Nobody listens only when serving has ended already.
        let _ = closing.send(());
    });
    let serving = axum::serve(without_delay(listener), router).with_graceful_shutdown(shutdown);
    let grace_is_over = closed.then(|_| tokio::time::sleep(grace));
    tokio::select! {
        _ = serving.into_future() => Drained::Whole,
        () = grace_is_over => Drained::Cut,
    }
}

/// Serves for as long as `work` takes.
pub async fn during<T>(listener: TcpListener, router: Router, work: impl Future<Output = T>) -> T {
    let serving = axum::serve(without_delay(listener), router).into_future();
    tokio::select! {
        done = work => done,
        _ = serving => unreachable!("nothing asks it to end"),
    }
}

/// An answer is one small segment: waiting for more to send would only delay it.
fn without_delay(listener: TcpListener) -> impl Listener<Addr = SocketAddr> {
    listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!(%error, "a connection without TCP_NODELAY");
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    /// A server with one request in flight, which is answered when `answer` says so.
    struct Serving {
        address: SocketAddr,
        client: TcpStream,
        answer: Arc<Notify>,
        stop: oneshot::Sender<()>,
        end: JoinHandle<Drained>,
    }

    async fn serving(grace: Duration) -> Serving {
        let (answer, arrived) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = {
            let (answer, arrived) = (Arc::clone(&answer), Arc::clone(&arrived));
            async move || {
                arrived.notify_one();
                answer.notified().await;
                "answered"
            }
        };
        let listener = bind("PORT", SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let router = Router::new().route("/", get(handler));
        let end = tokio::spawn(until(listener, router, stopped.map(|_| ()), grace));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
        arrived.notified().await;
        Serving { address, client, answer, stop, end }
    }

    #[tokio::test]
    async fn a_request_in_flight_is_answered_while_nobody_new_is_let_in() {
        let Serving { address, mut client, answer, stop, end } = serving(Duration::from_secs(60)).await;

        stop.send(()).unwrap();
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        answer.notify_one();

        let mut response = String::new();
        client.read_to_string(&mut response).await.unwrap();
        assert!(response.starts_with("HTTP/1.1 200") && response.ends_with("answered"), "{response}");
        assert_eq!(end.await.unwrap(), Drained::Whole);
    }

    #[tokio::test]
    async fn a_request_that_outlives_the_grace_does_not_hold_up_the_end() {
        let Serving { client: _client, stop, end, .. } = serving(Duration::from_millis(10)).await;
        stop.send(()).unwrap();
        assert_eq!(end.await.unwrap(), Drained::Cut);
    }
}
