//! Response headers.

use axum::http::HeaderName;
use serde_json::Value;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Header, HeaderBuilder};

/// Sent with every response.
pub(super) const CORRELATION_ID: &str = "X-Correlation-Id";

const ABOUT_CORRELATION_ID: &str = "Id of the request, from the client's log to the order in the stream: the one that was sent, or a new one.";
const ABOUT_COOKIE: &str = "`csrfToken`, readable by scripts, which have to repeat it in `X-CSRF-Token`.";

/// Returns every documented response header.
#[rustfmt::skip]
pub(super) fn all() -> [(&'static str, Header); 8] {
    use Type::{Integer, String};
    [
        (CORRELATION_ID, of(String, ABOUT_CORRELATION_ID, "5c66c6bc8212cebf")),
        ("Retry-After", of(Integer, "Time until the client should retry. In whole seconds.", 1)),
        ("RateLimit-Limit", of(Integer, "Number of requests that are allowed.", 600)),
        ("RateLimit-Remaining", of(Integer, "Number of requests that are left.", 0)),
        ("RateLimit-Reset", of(Integer, "Time until the next request is allowed. In whole seconds.", 1)),
        ("RateLimit-Policy", of(String, "Number of requests that are allowed, and the window in seconds.", "600;w=60")),
        ("Set-Cookie", of(String, ABOUT_COOKIE, "csrfToken=…; Path=/; Max-Age=7200; SameSite=Lax")),
        ("WWW-Authenticate", of(String, "How to authenticate.", "Bearer")),
    ]
}

/// Returns the documented spelling of a header name, if it is documented.
pub(super) fn documented(name: &HeaderName) -> Option<&'static str> {
    all()
        .map(|(documented, _)| documented)
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name.as_str()))
}

fn of(kind: Type, about: &str, example: impl Into<Value>) -> Header {
    let schema = ObjectBuilder::new().schema_type(kind);
    HeaderBuilder::new().schema(Some(schema)).description(Some(about)).example(Some(example.into())).build()
}
