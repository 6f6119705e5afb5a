//! Request bodies: a JSON object of bounded size, received in bounded time.

use std::error::Error;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use crate::problem::Problem;

/// Longest body. A purchase has about a hundred bytes, and nginx has the same limit.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest time from the headers to the end of the body. A phone on a slow network needs a second or two; a slower
/// client would only occupy a connection.
pub const BODY_READ_MAX: Duration = Duration::from_secs(5);

/// A complete body that was sent as JSON, not parsed yet.
#[derive(Clone, Debug)]
pub struct JsonBody(Bytes);

impl JsonBody {
    /// Parses the JSON object. Unknown members are ignored unless `T` denies them.
    ///
    /// # Errors
    /// Returns a problem with status 400 if the body is not JSON, not an object, or does not fit `T`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        // A byte order mark is ignored, as RFC 8259 allows.
        let text = self.0.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&self.0);
        // Serde would also accept an array for a struct.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(no_object());
        }
        let refused = |error| format!("The body is not the JSON that is asked for: {error}.");
        serde_json::from_slice(text)
            .map_err(|error| Problem::new(StatusCode::BAD_REQUEST).detail(refused(error)))
    }
}

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !claims_json(request.headers()) {
            return Err(unsupported());
        }
        if is_encoded(request.headers()) {
            return Err(encoded());
        }
        // `timeout` sets its timer only if the body has not arrived yet.
        match timeout(BODY_READ_MAX, to_bytes(request.into_body(), BODY_BYTES_MAX)).await {
            Ok(Ok(body)) => Ok(Self(body)),
            Ok(Err(error)) if is_too_long(&error) => Err(too_long()),
            Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST).detail("The body ended before its end.")),
            Err(_) => Err(too_slow()),
        }
    }
}

fn claims_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn is_too_long(error: &axum::Error) -> bool {
    error.source().is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// The problem for a body that is no JSON object.
pub fn no_object() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST).detail("The body must be a JSON object.")
}

/// The problem for a body with another content type.
pub fn unsupported() -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE).detail("The body must be sent as application/json.")
}

/// The problem for a compressed body.
pub fn encoded() -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .detail("The body must be sent without a Content-Encoding.")
}

/// The problem for a body longer than [`BODY_BYTES_MAX`].
pub fn too_long() -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
        .detail(format!("The body must be at most {BODY_BYTES_MAX} bytes long."))
}

/// The problem for a body that did not arrive within [`BODY_READ_MAX`].
pub fn too_slow() -> Problem {
    Problem::new(StatusCode::REQUEST_TIMEOUT).detail("The body took too long to arrive.")
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use axum::body::Body;
    use axum::http::request::Builder;
    use axum::response::IntoResponse as _;
    use futures::stream;

    use super::*;

    async fn read(request: Builder, body: Body) -> Result<JsonBody, StatusCode> {
        let request = request.header(CONTENT_TYPE, "application/json").body(body).unwrap();
        JsonBody::from_request(request, &()).await.map_err(|problem| problem.into_response().status())
    }

    #[tokio::test]
    async fn unfinished_body_times_out() {
        let endless = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
        assert_eq!(read(Request::post("/"), endless).await.unwrap_err(), StatusCode::REQUEST_TIMEOUT);
    }

    #[tokio::test]
    async fn interrupted_body_is_a_bad_request() {
        let broken = Body::from_stream(stream::iter([Ok("{"), Err(std::io::Error::other("gone"))]));
        assert_eq!(read(Request::post("/"), broken).await.unwrap_err(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn compressed_body_is_an_unsupported_media_type() {
        let gzip = Request::post("/").header(CONTENT_ENCODING, "gzip");
        assert_eq!(read(gzip, Body::from("{}")).await.unwrap_err(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(encoded().into_response().headers()[ACCEPT_ENCODING], "identity");
        assert!(
            read(Request::post("/").header(CONTENT_ENCODING, "identity"), Body::from("{}")).await.is_ok()
        );
    }

    #[tokio::test]
    async fn body_must_be_an_object_not_an_array() {
        #[derive(Debug, Deserialize)]
        struct Wanted {
            units: u64,
        }
        let parse = async |body| read(Request::post("/"), Body::from(body)).await.unwrap().parse::<Wanted>();
        assert_eq!(parse(r#" {"units":7} "#).await.unwrap().units, 7);
        assert_eq!(parse("\u{feff}{\"units\":7}").await.unwrap().units, 7, "with a byte order mark");
        for other in ["[7]", "7", "", "{}", r#"{"units":"7"}"#, r#"{"units":7}}"#] {
            assert!(parse(other).await.is_err(), "{other}");
        }
    }
}
