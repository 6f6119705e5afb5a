//! When to stop.

use tokio::signal::unix::{SignalKind, signal};

/// Completes when the process is asked to end: SIGTERM from an orchestrator, SIGINT from a terminal.
///
/// Listens from the call on, not from the first poll, so no signal is missed in between.
pub fn requested() -> impl Future<Output = ()> + Send + 'static {
    let listen = |kind| signal(kind).expect("a signal handler can be installed");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "asked to stop");
    }
}
