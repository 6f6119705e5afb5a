//! Response headers.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Header, HeaderBuilder};

/// Sent with every response.
pub(super) const CORRELATION_ID_HEADER: &str = "X-Correlation-Id";

/// Returns every documented response header.
pub(super) fn all() -> [(&'static str, Header); 8] {
    [
        (
            CORRELATION_ID_HEADER,
            text(
                "Id of the request, from the client's log to the order in the stream: the one that was sent, or a new one.",
                "5c66c6bc8212cebf",
            ),
        ),
        ("Retry-After", seconds("Time until the client should retry.")),
        ("RateLimit-Limit", count("Number of requests that are allowed.")),
        ("RateLimit-Remaining", count("Number of requests that are left.")),
        ("RateLimit-Reset", seconds("Time until the next request is allowed.")),
        (
            "RateLimit-Policy",
            text("Number of requests that are allowed, and the window in seconds.", "600;w=60"),
        ),
        (
            "Set-Cookie",
            text(
                "`csrfToken`, readable by scripts, which have to repeat it in `X-CSRF-Token`.",
                "csrfToken=…; Path=/; Max-Age=7200; SameSite=Lax",
            ),
        ),
        ("WWW-Authenticate", text("How to authenticate.", "Bearer")),
    ]
}

/// Returns the documented spelling of a header name, if it is documented.
pub(super) fn documented(name: &str) -> Option<&'static str> {
    all()
        .into_iter()
        .map(|(documented, _)| documented)
        .find(|documented| documented.eq_ignore_ascii_case(name))
}

fn text(about: &str, example: &str) -> Header {
    of(Type::String, about).example(Some(example.into())).build()
}

fn seconds(about: &str) -> Header {
    of(Type::Integer, &format!("{about} In whole seconds.")).example(Some(1.into())).build()
}

fn count(about: &str) -> Header {
    of(Type::Integer, about).build()
}

fn of(kind: Type, about: &str) -> HeaderBuilder {
    let schema = ObjectBuilder::new().schema_type(kind);
    HeaderBuilder::new().schema(Some(schema)).description(Some(about))
}
