//! Shutdown signals.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGHUP, with which operators ask a process to read its files again. After this call the signal does not end
/// the process.
pub fn hangups() -> Signal {
    signal(SignalKind::hangup()).expect("a signal handler can be installed")
}

/// Completes when the process is asked to stop: SIGTERM from an orchestrator, SIGINT from a terminal. SIGHUP
/// does not end it, because operators expect that it reads files again.
///
/// The handlers are installed by the call, not by the first poll, so no signal is missed in between.
pub fn requested() -> impl Future<Output = ()> + Send + 'static {
    let listen = |kind| signal(kind).expect("a signal handler can be installed");
    let (mut terminate, mut interrupt) = (listen(SignalKind::terminate()), listen(SignalKind::interrupt()));
    let mut hangups = hangups();
    async move {
        let signal = loop {
            tokio::select! {
                _ = terminate.recv() => break "SIGTERM",
                _ = interrupt.recv() => break "SIGINT",
                _ = hangups.recv() => tracing::info!("SIGHUP does not stop the process"),
            }
        };
        tracing::info!(signal, "asked to stop");
    }
}
