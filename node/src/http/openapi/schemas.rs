//! JSON Schemas of requests, and of what responses contain.

#![expect(dead_code, reason = "these types only describe others and are never constructed")]

use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Object, Ref};

use crate::csrf::BadToken;
use crate::http::by_sale::StatusBody;

/// Request to buy one unit.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Purchase {
    user_id: UserId,
}

/// Request to buy one unit.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SingleSalePurchase {
    user_id: LongUserId,
}

/// A problem (RFC 9457).
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    /// The type of problem, for programs; `about:blank` when the status says all.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    /// The type in words.
    title: String,
    /// The status of the response.
    status: u16,
    /// The reason for this problem, and how to solve it.
    #[schema(required = false)]
    detail: String,
    /// The id of the request; the same as in `X-Correlation-Id`.
    #[schema(max_length = 64)]
    correlation_id: String,
    /// With `/problems/unknown-outcome`: the purchase attempt that may have succeeded.
    #[schema(required = false)]
    order_id: OrderId,
    /// With `/problems/csrf`: why the token was refused.
    #[schema(required = false)]
    reason: BadToken,
    /// With `/problems/csrf`: a new token.
    #[schema(required = false)]
    csrf_token: CsrfToken,
}

/// A server-sent event.
#[derive(ToSchema)]
pub(crate) struct Event {
    #[schema(pattern = "^status$")]
    event: String,
    #[schema(schema_with = status_text)]
    data: String,
    /// With the first event: time in milliseconds after which to reconnect once the stream has ended.
    #[schema(required = false)]
    retry: u64,
}

fn status_text() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("The response of `GET status`."))
        .content_media_type("application/json")
        .content_schema(Some(Ref::from_schema_name(StatusBody::name())))
        .build()
}

/// An OpenAPI document.
#[derive(ToSchema)]
pub(crate) struct Document(serde_json::Map<String, serde_json::Value>);

/// The id of a sale.
#[derive(ToSchema)]
#[schema(pattern = "^[a-z0-9-]{1,32}$", examples("flash"))]
pub(crate) struct SaleId(String);

/// Names one purchase attempt: 14 characters of Crockford's base 32.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9A-HJKMNP-TV-Z]{14}$", examples("71R7D8J57MH5DF"))]
pub(crate) struct OrderId(String);

/// A point in time, UTC.
#[derive(ToSchema)]
#[schema(format = DateTime, examples("2026-11-21T20:00:00.007Z"))]
pub(crate) struct Moment(String);

/// A CSRF token: signed, valid on every node for two hours (CSRF_LIFETIME).
#[derive(ToSchema)]
#[schema(pattern = "^[A-Za-z0-9_-]{70}$")]
pub(crate) struct CsrfToken(String);

/// The buyer. The id is trimmed and normalized to NFC. The result must be 1 to 128 bytes of UTF-8 without control or
/// invisible characters. When the sale's user ids are e-mail addresses, all spellings of an address are the same user, and
/// addresses that only look like another one are refused. With AUTH=jwt the body may omit the id: the token names the
/// user.
// White space, then at most 128 characters without control characters and invisible ones, of which the first and the
// last are not white space, then white space. JSON Schema limits characters, not bytes: the format stands for the limit of bytes.
#[derive(ToSchema)]
#[schema(
    format = "user-id",
    examples("ada"),
    pattern = "^[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]*[^\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufff8\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]([^\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufff8\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]{0,126}[^\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufff8\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}])?[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]*$"
)]
pub(crate) struct UserId(String);

/// Like `UserId`, with at least 3 characters.
#[derive(ToSchema)]
#[schema(
    format = "user-id",
    examples("ada"),
    pattern = "^[\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]*[^\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufff8\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}][^\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufff8\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}]{1,126}[^\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u206f\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufff8\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}][\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]*$"
)]
pub(crate) struct LongUserId(String);
