//! The operations port: liveness and readiness. It must never be public.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

/// The routes of the operations port. More routes can be merged into it.
pub fn router(readiness: Readiness) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(readiness)
}

/// Readiness of this process to receive traffic. Clones share one state.
#[derive(Clone)]
pub struct Readiness(Arc<Mutex<ReadinessState>>);

/// Returns an error with the reason when the process cannot do its work. Can be called at any time.
type Check = Box<dyn Fn() -> Result<(), String> + Send>;

enum ReadinessState {
    Starting(&'static str),
    Serving(Check),
    Draining,
}

impl Readiness {
    /// Not ready yet, for this reason.
    pub fn starting(reason: &'static str) -> Self {
        Self(Arc::new(Mutex::new(ReadinessState::Starting(reason))))
    }

    /// Marks the process as started: it is ready when `check` succeeds. `check` must not block.
    pub fn serving(&self, check: impl Fn() -> Result<(), String> + Send + 'static) {
        let mut state = self.state();
        if !matches!(*state, ReadinessState::Draining) {
            *state = ReadinessState::Serving(Box::new(check));
        }
    }

    /// Marks the process as shutting down. It stays not ready for good.
    pub fn draining(&self) {
        *self.state() = ReadinessState::Draining;
    }

    /// Returns whether the process is ready.
    ///
    /// # Errors
    /// Returns the reason why it is not ready, for people.
    pub fn check(&self) -> Result<(), String> {
        match &*self.state() {
            ReadinessState::Starting(reason) => Err((*reason).to_owned()),
            ReadinessState::Serving(check) => check(),
            ReadinessState::Draining => Err("draining".to_owned()),
        }
    }

    fn state(&self) -> MutexGuard<'_, ReadinessState> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, String) {
    match readiness.check() {
        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason + "\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_ready_between_start_and_draining() {
        let readiness = Readiness::starting("no cluster yet");
        assert_eq!(readiness.check(), Err("no cluster yet".to_owned()));
        readiness.serving(|| Ok(()));
        assert_eq!(readiness.check(), Ok(()));
        readiness.serving(|| Err("list of sales not read".to_owned()));
        assert_eq!(readiness.check(), Err("list of sales not read".to_owned()));
        readiness.draining();
        readiness.serving(|| Ok(()));
        assert_eq!(readiness.check(), Err("draining".to_owned()), "draining is final");
    }
}
