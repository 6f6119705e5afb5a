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

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A complete body that was sent as JSON, not parsed yet.
#[derive(Clone, Debug)]
pub struct JsonBody(Bytes);

impl JsonBody {
    /// Parses the JSON object. Unknown members are ignored unless `T` denies them.
    ///
    /// # Errors
    /// Returns a problem with status 400 if the body is not JSON, not an object, or does not fit `T`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Problem> {
        // RFC 8259 allows to ignore a byte order mark.
        let text = self.0.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&self.0);
        // Serde would also accept an array for a struct.
        if !text.trim_ascii_start().starts_with(b"{") {
            return Err(no_object());
        }
        serde_json::from_slice(text).map_err(|error| {
            let mut again = serde_json::Deserializer::from_slice(text);
            // The first parse does not track the path, because a purchase would pay for it.
            let path = serde_path_to_error::deserialize::<_, T>(&mut again)
                .err()
                .map(|error| error.path().to_string());
            Problem::new(StatusCode::BAD_REQUEST).detail(reason_of(&error, &path.unwrap_or_default()))
        })
    }
}

/// Returns the error in the words of JSON, with the member at `path` that it is about.
fn reason_of(error: &serde_json::Error, path: &str) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return format!("The body is not valid JSON: {text}.");
    }
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(reason, _)| reason);
    let quoted = text.split('`').nth(1).unwrap_or(path);
    let expected = text.split_once(", expected ").map(|(_, expected)| expected);
    match (text.split(' ').next(), expected) {
        (Some("missing"), _) => format!("{quoted} is missing."),
        (Some("duplicate"), _) => format!("{quoted} must not be there twice."),
        (Some("unknown"), Some(members)) if text.starts_with("unknown field") => {
            format!(
                "{quoted} is not a member of this request, which are {}.",
                members.trim_start_matches("one of ").replace("` or `", "`, `")
            )
        }
        (_, Some(expected)) => format!("{path} must be {}.", in_json_words(expected)),
        _ => format!("{path}: {text}."),
    }
}

fn in_json_words(expected: &str) -> &str {
    match expected {
        "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, not negative and not too large",
        "a boolean" => "true or false",
        other => other,
    }
}

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        if !claims_json(request.headers()) {
            return Err(unsupported());
        }
        if !is_plain(request.headers()) {
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

fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|encoding| encoding.as_bytes().eq_ignore_ascii_case(b"identity"))
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

/// The problem for a compressed body. A purchase is too short to gain from it.
fn encoded() -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
        .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
        .detail("The body must be sent without a content encoding.")
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
    async fn body_must_be_an_object_not_an_array() {
        #[derive(Debug, Deserialize)]
        struct Wanted {
            units: u64,
        }
        let parse = async |body| read(Request::post("/"), Body::from(body)).await.unwrap().parse::<Wanted>();
        assert_eq!(parse(r#" {"units":7} "#).await.unwrap().units, 7);
        for other in ["[7]", "7", "", "{}", r#"{"units":"7"}"#, r#"{"units":7}}"#] {
            assert!(parse(other).await.is_err(), "{other}");
        }
    }

    #[tokio::test]
    async fn byte_order_mark_is_ignored() {
        let body = read(Request::post("/"), Body::from("\u{feff}{}")).await.unwrap();
        assert!(body.parse::<serde_json::Value>().is_ok());
    }

    #[tokio::test]
    async fn compressed_body_is_unsupported() {
        for (encoding, status) in [("gzip", Some(415)), ("br", Some(415)), ("identity", None)] {
            let answer = read(Request::post("/").header(CONTENT_ENCODING, encoding), Body::from("{}")).await;
            assert_eq!(answer.err().map(|status| status.as_u16()), status, "{encoding}");
        }
        let refusal = encoded().into_response();
        assert_eq!(refusal.headers()[ACCEPT_ENCODING], "identity");
    }

    #[tokio::test]
    async fn errors_name_the_member_in_words_of_json() {
        #[derive(Debug, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        #[expect(dead_code, reason = "only its errors are of interest")]
        struct Wanted {
            product_price: f64,
            units: u16,
        }
        for (body, reason) in [
            (r#"{"productPrice":"7","units":1}"#, "productPrice must be a number."),
            (
                r#"{"productPrice":7,"units":-1}"#,
                "units must be a whole number, not negative and not too large.",
            ),
            (r#"{"units":1}"#, "productPrice is missing."),
            (r#"{"units":1,"units":1}"#, "units must not be there twice."),
            (r#"{"price":1}"#, "price is not a member of this request, which are `productPrice`, `units`."),
        ] {
            let problem = JsonBody(Bytes::from(body)).parse::<Wanted>().unwrap_err();
            let answer = to_bytes(problem.into_response().into_body(), BODY_BYTES_MAX).await.unwrap();
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["detail"], reason);
        }
    }
}
