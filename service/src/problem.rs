//! Errors as clients see them: `application/problem+json` of RFC 9457.
//!
//! A problem says what the client can act on, and reveals no internals. The log has the rest, under the same
//! correlation id.

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::correlation::CorrelationId;

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// An error response. The edge adds the correlation id to its body.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    status: StatusCode,
    kind: ProblemType,
    detail: Option<Cow<'static, str>>,
    extensions: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Type of a problem, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProblemType {
    /// A relative URI that never changes.
    pub uri: &'static str,
    /// A short description, the same for every problem of this type.
    pub title: &'static str,
}

impl Problem {
    /// A problem with nothing to add to its status.
    pub fn new(status: StatusCode) -> Self {
        let kind = ProblemType { uri: "about:blank", title: status.canonical_reason().unwrap_or("Error") };
        Self { status, kind, detail: None, extensions: Map::new(), headers: Vec::new() }
    }

    /// Sets the type, which distinguishes the problem from others of the same status.
    #[must_use]
    pub fn of_kind(self, kind: ProblemType) -> Self {
        Self { kind, ..self }
    }

    /// Sets the explanation: what happened this time, and what the client can do about it.
    #[must_use]
    pub fn detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Sets `Retry-After`: whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(self, pause: Duration) -> Self {
        self.header(RETRY_AFTER, retry_after(pause))
    }

    /// Adds a member to the body.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.extensions.insert(member.to_owned(), value.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The short description of its type.
    pub fn title(&self) -> &'static str {
        self.kind.title
    }

    fn write_to(&self, response: &mut Response, correlation: Option<&CorrelationId>) {
        *response.body_mut() = Body::from(self.to_json(correlation));
        let headers = response.headers_mut();
        headers.remove(CONTENT_LENGTH);
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.extend(self.headers.iter().cloned());
    }

    fn to_json(&self, correlation: Option<&CorrelationId>) -> Vec<u8> {
        let members = Members {
            kind: self.kind.uri,
            title: self.kind.title,
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            correlation_id: correlation.map(CorrelationId::as_str),
            extensions: &self.extensions,
        };
        serde_json::to_vec(&members).expect("a problem serializes to JSON")
    }
}

/// The value of a `Retry-After` header: whole seconds, never less than `pause`.
pub fn retry_after(pause: Duration) -> HeaderValue {
    HeaderValue::from(pause.as_millis().div_ceil(1_000) as u64)
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status;
        self.write_to(&mut response, None);
        // The edge takes it from here to add the correlation id.
        response.extensions_mut().insert(self);
        response
    }
}

/// Completes a response at the edge: every error whose body is not the API's own JSON becomes a problem, and every
/// problem names the correlation id of its request.
pub(crate) fn complete(response: &mut Response, correlation: &CorrelationId) {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return;
    }
    match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem.write_to(response, Some(correlation)),
        None if is_json(response.headers()) => {}
        None => Problem::new(status).write_to(response, Some(correlation)),
    }
}

/// Logs a panic of a handler, and returns the response for it.
pub(crate) fn from_panic(panic: &(dyn Any + Send), correlation: &CorrelationId) -> Response {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(correlation.id = %correlation, panic = text.unwrap_or("of an unknown kind"), "a handler panicked");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR).into_response()
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/json"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Members<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'a str>,
    #[serde(flatten)]
    extensions: &'a Map<String, Value>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn problem_body_has_type_detail_and_correlation_id() {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE)
            .of_kind(ProblemType { uri: "/problems/busy", title: "Too many buyers waiting" })
            .detail("Try again in a moment.")
            .with("orderId", "0123456789ABCD");
        let body: Value =
            serde_json::from_slice(&problem.to_json(CorrelationId::parse("abc").as_ref())).unwrap();
        let expected = json!({
            "type": "/problems/busy",
            "title": "Too many buyers waiting",
            "status": 503,
            "detail": "Try again in a moment.",
            "correlationId": "abc",
            "orderId": "0123456789ABCD",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn retry_after_rounds_up_to_whole_seconds() {
        for (pause_ms, header) in [(1, "1"), (1_000, "1"), (1_001, "2")] {
            assert_eq!(retry_after(Duration::from_millis(pause_ms)), header);
        }
    }
}
