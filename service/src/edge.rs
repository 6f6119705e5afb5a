//! What surrounds every handler: the request gets its name, a panic stays with its request, and whatever goes
//! wrong leaves as a problem.
//!
//! One layer for all of it, because each layer of a router costs every request an allocation.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tower::{Layer, Service};
use tracing::Instrument as _;

use crate::{correlation, problem};

/// Surrounds a router, its fallbacks too.
pub fn around(router: Router) -> Router {
    router.layer(EdgeLayer)
}

#[derive(Clone, Copy)]
struct EdgeLayer;

impl<S> Layer<S> for EdgeLayer {
    type Service = Edge<S>;

    fn layer(&self, inner: S) -> Edge<S> {
        Edge { inner }
    }
}

#[derive(Clone)]
struct Edge<S> {
    inner: S,
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let correlation = correlation::of(request.headers());
        let span = tracing::debug_span!("request", correlation.id = %correlation);
        request.extensions_mut().insert(correlation.clone());
        let answering = AssertUnwindSafe(self.inner.call(request)).catch_unwind();
        let completed = async move {
            let mut response = answering.await.unwrap_or_else(|panic| Ok(problem::of_panic(&*panic)))?;
            problem::complete(&mut response, &correlation);
            correlation::echo(&correlation, response.headers_mut());
            Ok(response)
        };
        Box::pin(completed.instrument(span))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::http::header::{ALLOW, CONTENT_TYPE};
    use axum::routing::{get, post};
    use serde_json::Value;
    use tower::ServiceExt as _;

    use super::*;
    use crate::correlation::Correlation;
    use crate::json::Document;

    fn router() -> Router {
        let echo = async |Correlation(id): Correlation| id.as_str().to_owned();
        let parse = async |document: Document| document.parse::<Value>().map(|_| ());
        let own = async || (StatusCode::CONFLICT, axum::Json("the API's own words"));
        let panic = async || -> () { panic!("secret") };
        let routes = Router::new().route("/echo", get(echo)).route("/own", get(own));
        around(routes.route("/parse", post(parse)).route("/panic", get(panic)))
    }

    async fn answer(request: axum::http::request::Builder, body: impl Into<Body>) -> Response {
        let request = request.header("x-correlation-id", "trace-1").body(body.into()).unwrap();
        router().oneshot(request).await.unwrap()
    }

    async fn body(response: Response) -> String {
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.into()).unwrap()
    }

    /// The status of an answer that must be a problem with the request's correlation id.
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
    async fn a_handler_sees_the_id_that_the_client_gets_back() {
        let response = answer(Request::get("/echo"), "").await;
        assert_eq!(response.headers()["x-correlation-id"], "trace-1");
        assert_eq!(body(response).await, "trace-1");
    }

    #[tokio::test]
    async fn whatever_goes_wrong_is_a_problem_with_the_request_s_name() {
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
    async fn an_error_in_the_api_s_own_form_stays_as_it_is() {
        let response = answer(Request::get("/own"), "").await;
        assert_eq!(response.headers()["x-correlation-id"], "trace-1");
        assert_eq!(body(response).await, "\"the API's own words\"");
    }

    #[tokio::test]
    async fn nothing_of_a_panic_leaks() {
        assert!(!body(answer(Request::get("/panic"), "").await).await.contains("secret"));
    }
}
