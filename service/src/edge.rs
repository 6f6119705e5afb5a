//! The layer around every handler: it adds the correlation id, the deadline and default headers, contains panics, and
//! turns errors into problem responses.
//!
//! It is a single layer, because each layer of a router costs every request an allocation.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, ready};
use tokio::time::{Instant, timeout};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::correlation::{CORRELATION_ID, CorrelationId};
use crate::metrics::Requests;
use crate::problem::Problem;
use crate::{correlation, problem, traces};

/// Value of `Retry-After` when a handler missed its deadline.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Headers of every response that does not set them itself. An API response is not a page, must not leak into other
/// sites, and must not be cached.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Decides whether a request is admitted, before any handler sees it.
pub trait AdmissionControl: Send + Sync + 'static {
    /// Admits a request or rejects it with a problem. May leave what it found in the request's extensions.
    fn admit(&self, request: &mut Request) -> AdmissionDecision;
}

/// The decision on a request.
pub enum AdmissionDecision {
    /// The handler is called.
    Admit,
    /// The client gets this problem instead.
    Reject(Problem),
    /// The decision is not known yet; the request waits for it.
    Pending(BoxFuture<'static, Result<(), Problem>>),
}

/// Admits every request.
pub struct AdmitAll;

impl AdmissionControl for AdmitAll {
    fn admit(&self, _: &mut Request) -> AdmissionDecision {
        AdmissionDecision::Admit
    }
}

/// Wraps a router, including its fallbacks. The deadline covers the time from a request's head to the head of its
/// response. Handlers have shorter deadlines with more specific answers; this one catches the rest.
pub fn wrap(router: Router, admission: impl AdmissionControl, deadline: Duration) -> Router {
    router.layer(EdgeLayer(Arc::new(EdgeRules { admission, deadline, requests: Requests::default() })))
}

/// Rules that apply to every request.
struct EdgeRules<G> {
    admission: G,
    deadline: Duration,
    requests: Requests,
}

struct EdgeLayer<G>(Arc<EdgeRules<G>>);

impl<G> Clone for EdgeLayer<G> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, G> Layer<S> for EdgeLayer<G> {
    type Service = Edge<S, G>;

    fn layer(&self, inner: S) -> Edge<S, G> {
        Edge { inner, rules: Arc::clone(&self.0) }
    }
}

struct Edge<S, G> {
    inner: S,
    rules: Arc<EdgeRules<G>>,
}

impl<S: Clone, G> Clone for Edge<S, G> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), rules: Arc::clone(&self.rules) }
    }
}

impl<S, G: AdmissionControl> Service<Request> for Edge<S, G>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let correlation = correlation::from_headers(request.headers());
        let uses_other_name = request.headers().contains_key(CORRELATION_ID);
        request.extensions_mut().insert(correlation.clone());
        let (log, rules) = (RequestLog::of(&request), Arc::clone(&self.rules));
        let span = log.span(&correlation);
        traces::set_parent(&span, request.headers());
        // Almost all requests are admitted at once, and cost no more than the handler's own future.
        let response = match self.rules.admission.admit(&mut request) {
            AdmissionDecision::Admit => Either::Left(self.inner.call(request)),
            AdmissionDecision::Reject(problem) => {
                Either::Right(Either::Left(ready(Ok(problem.into_response()))))
            }
            AdmissionDecision::Pending(decision) => {
                // `poll_ready` was called on this service, so it serves the request, and its clone serves the next one.
                let next = self.inner.clone();
                let mut inner = std::mem::replace(&mut self.inner, next);
                Either::Right(Either::Right(async move {
                    match decision.await {
                        Ok(()) => inner.call(request).await,
                        Err(problem) => Ok(problem.into_response()),
                    }
                }))
            }
        };
        let guarded = timeout(rules.deadline, AssertUnwindSafe(response).catch_unwind());
        let completed = async move {
            let mut response = match guarded.await {
                Ok(answer) => {
                    answer.unwrap_or_else(|panic| Ok(problem::from_panic(&*panic, &correlation)))?
                }
                Err(_) => timed_out().into_response(),
            };
            problem::complete(&mut response, &correlation);
            correlation::echo(&correlation, uses_other_name, response.headers_mut());
            add_missing(response.headers_mut());
            log.finish(response.status(), &rules.requests);
            Ok(response)
        };
        Box::pin(completed.instrument(span))
    }
}

/// The answer to a request whose handler missed the deadline.
pub fn timed_out() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE).retry_after(RETRY_AFTER)
}

fn add_missing(headers: &mut HeaderMap) {
    headers.reserve(HEADERS.len());
    for (name, value) in &HEADERS {
        headers.entry(name).or_insert_with(|| value.clone());
    }
}

/// Counts and logs one request. The log line has the level `debug`, for debugging single requests under little load.
struct RequestLog {
    at: Instant,
    method: Method,
    /// The route pattern without the values of its parameters: user ids must not be logged.
    route: Option<MatchedPath>,
}

impl RequestLog {
    fn of(request: &Request) -> Self {
        let route = request.extensions().get().cloned();
        Self { at: Instant::now(), method: request.method().clone(), route }
    }

    fn route(&self) -> &str {
        self.route.as_ref().map_or("none", MatchedPath::as_str)
    }

    /// Its fields are named by OpenTelemetry's conventions.
    fn span(&self, correlation: &CorrelationId) -> Span {
        tracing::debug_span!(
            "request",
            otel.kind = "server",
            otel.name = format_args!("{} {}", self.method, self.route()),
            http.request.method = %self.method,
            http.route = self.route(),
            http.response.status_code = Empty,
            correlation.id = %correlation,
        )
    }

    fn finish(&self, status: StatusCode, requests: &Requests) {
        let took = self.at.elapsed();
        requests.record(self.route.as_ref(), &self.method, status, took);
        Span::current().record("http.response.status_code", status.as_u16());
        tracing::debug!(took_us = took.as_micros() as u64, http.status = status.as_u16(), "answered");
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::{ALLOW, CONTENT_TYPE};
    use axum::routing::{get, post};
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;
    use crate::correlation::Correlation;
    use crate::json::JsonBody;

    fn router() -> Router {
        let echo = async |Correlation(id): Correlation| id.as_str().to_owned();
        let parse = async |document: JsonBody| document.parse::<Value>().map(|_| ());
        let own = async || (StatusCode::CONFLICT, axum::Json("the API's own words"));
        let panic = async || -> () { panic!("secret") };
        let routes = Router::new().route("/echo", get(echo)).route("/own", get(own));
        wrap(
            routes.route("/parse", post(parse)).route("/panic", get(panic)),
            AdmitAll,
            Duration::from_secs(15),
        )
    }

    async fn answer(request: axum::http::request::Builder, body: impl Into<Body>) -> Response {
        let request = request.header("x-correlation-id", "trace-1").body(body.into()).unwrap();
        router().oneshot(request).await.unwrap()
    }

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.into()).unwrap()
    }

    /// Asserts that the response is a problem with the request's correlation id, and returns its status.
    async fn problem(response: Response) -> StatusCode {
        let status = response.status();
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()["x-correlation-id"], "trace-1");
        let body: Value = serde_json::from_str(&body(response).await).unwrap();
        assert_eq!(
            (body["status"].as_u64(), body["correlationId"].as_str()),
            (Some(status.as_u16().into()), Some("trace-1"))
        );
        status
    }

    #[tokio::test]
    async fn handler_and_client_get_the_same_correlation_id() {
        let response = answer(Request::get("/echo"), "").await;
        assert_eq!(response.headers()["x-correlation-id"], "trace-1");
        assert_eq!(body(response).await, "trace-1");
    }

    #[tokio::test]
    async fn correlation_id_is_echoed_under_its_other_name() {
        let request = Request::get("/echo").header("correlation-id", "trace-2").body(Body::empty()).unwrap();
        let response = router().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["correlation-id"], "trace-2");
        assert_eq!(response.headers()["x-correlation-id"], "trace-2");
        assert_eq!(body(response).await, "trace-2");
        assert!(!answer(Request::get("/echo"), "").await.headers().contains_key("correlation-id"));
    }

    #[tokio::test]
    async fn every_error_is_a_problem_with_correlation_id() {
        assert_eq!(problem(answer(Request::get("/nowhere"), "").await).await, StatusCode::NOT_FOUND);
        assert_eq!(
            problem(answer(Request::get("/panic"), "").await).await,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert_eq!(
            problem(answer(Request::post("/parse"), "{}").await).await,
            StatusCode::UNSUPPORTED_MEDIA_TYPE
        );

        let not_allowed = answer(Request::delete("/parse"), "").await;
        assert_eq!(not_allowed.headers()[ALLOW], "POST");
        assert_eq!(problem(not_allowed).await, StatusCode::METHOD_NOT_ALLOWED);
    }

    #[tokio::test]
    async fn json_error_body_stays_unchanged() {
        let response = answer(Request::get("/own"), "").await;
        assert_eq!(response.headers()["x-correlation-id"], "trace-1");
        assert_eq!(body(response).await, "\"the API's own words\"");
    }

    #[tokio::test]
    async fn panic_message_does_not_leak() {
        assert!(!body(answer(Request::get("/panic"), "").await).await.contains("secret"));
    }
}
