//! The headers of answers.

use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Header, HeaderBuilder};

/// On every answer.
pub(super) const ALWAYS: &str = "X-Correlation-Id";

/// Every header that an answer may be told by, with what it says.
pub(super) fn all() -> [(&'static str, Header); 8] {
    [
        (
            ALWAYS,
            text(
                "Names the request, from the client's log to the order in the stream: the one that was sent, or a new one.",
                "5c66c6bc8212cebf",
            ),
        ),
        ("Retry-After", seconds("When to try again.")),
        ("RateLimit-Limit", count("How many requests there may be.")),
        ("RateLimit-Remaining", count("How many are left.")),
        ("RateLimit-Reset", seconds("When the next one may come.")),
        ("RateLimit-Policy", text("How many there may be in how many seconds.", "600;w=60")),
        (
            "Set-Cookie",
            text(
                "`csrfToken`, readable by script, which has to repeat it in `X-CSRF-Token`.",
                "csrfToken=…; Path=/; Max-Age=7200; SameSite=Lax",
            ),
        ),
        ("WWW-Authenticate", text("How to show who asks.", "Bearer")),
    ]
}

/// The name of one of them as documents write it.
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
