//! The second port: whether the process lives, and whether it should be sent work. Never public.

use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

/// What is served on the second port. More can be merged into it.
pub fn router(readiness: Readiness) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz)).with_state(readiness)
}

/// Whether to send work here. Clones share one answer.
#[derive(Clone)]
pub struct Readiness(Arc<Mutex<ReadinessState>>);

/// Answers at any time whether there is work that can be done, and if not, why.
type Check = Box<dyn Fn() -> Result<(), String> + Send>;

enum ReadinessState {
    Starting(&'static str),
    Serving(Check),
    Draining,
}

impl Readiness {
    /// Not ready: something else has to happen first.
    pub fn starting(reason: &'static str) -> Self {
        Self(Arc::new(Mutex::new(ReadinessState::Starting(reason))))
    }

    /// Started: ready whenever `check` is content. The check must not block.
    pub fn serving(&self, check: impl Fn() -> Result<(), String> + Send + 'static) {
        let mut state = self.state();
        if !matches!(*state, ReadinessState::Draining) {
            *state = ReadinessState::Serving(Box::new(check));
        }
    }

    /// On the way out, for good: nothing new should be sent here.
    pub fn draining(&self) {
        *self.state() = ReadinessState::Draining;
    }

    /// Ready, or why not.
    ///
    /// # Errors
    /// With the reason, for people.
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
        assert_eq!(
            readiness.check(),
            Err("draining".to_owned()),
            "whatever finishes starting now comes too late"
        );
    }
}
