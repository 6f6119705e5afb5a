//! Shutdown signals.

use tokio::signal::unix::{SignalKind, signal};

/// Completes when the process is asked to stop: SIGTERM from an orchestrator, SIGINT from a terminal.
///
/// The handlers are installed by the call, not by the first poll, so no signal is missed in between.
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
