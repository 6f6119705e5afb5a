//! JSON Schemas of requests and responses.

#![expect(dead_code, reason = "these types only describe others and are never constructed")]

use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::{by_sale, csrf, single_sale};

/// Returns every named schema, in any order.
pub(super) fn all() -> Vec<(String, RefOr<Schema>)> {
    let mut all = Vec::new();
    add::<by_sale::StatusBody>(&mut all);
    add::<by_sale::Purchased>(&mut all);
    add::<by_sale::Refused>(&mut all);
    add::<by_sale::LookupBody>(&mut all);
    add::<single_sale::StatusBody>(&mut all);
    add::<single_sale::PurchaseResult>(&mut all);
    add::<single_sale::Busy>(&mut all);
    add::<single_sale::InvalidUser>(&mut all);
    add::<single_sale::LookupBody>(&mut all);
    add::<csrf::IssuedToken>(&mut all);
    add::<csrf::MissingCsrfToken>(&mut all);
    add::<Purchase>(&mut all);
    add::<SingleSalePurchase>(&mut all);
    add::<Problem>(&mut all);
    add::<Event>(&mut all);
    add::<Document>(&mut all);
    all
}

fn add<T: ToSchema>(all: &mut Vec<(String, RefOr<Schema>)>) {
    all.push((T::name().into_owned(), T::schema()));
    T::schemas(all);
}

/// Request to buy one unit.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Purchase {
    user_id: UserId,
}

/// Request to buy one unit.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SingleSalePurchase {
    user_id: LongUserId,
}

/// A problem (RFC 9457).
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem {
    /// The type of problem, for programs; `about:blank` when the status says all.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    /// The type in words.
    title: String,
    /// The status of the response.
    status: u16,
    /// The reason for this problem, and how to solve it.
    #[schema(required = false, value_type = String)]
    detail: Option<String>,
    /// The id of the request; the same as in `X-Correlation-Id`.
    #[schema(max_length = 64)]
    correlation_id: String,
    /// With `/problems/unknown-outcome`: the purchase attempt that may have succeeded.
    #[schema(required = false, value_type = OrderId)]
    order_id: Option<OrderId>,
    /// With `/problems/csrf`: why the token was refused.
    #[schema(required = false, value_type = BadToken)]
    reason: Option<BadToken>,
    /// With `/problems/csrf`: a new token.
    #[schema(required = false, value_type = CsrfToken)]
    csrf_token: Option<CsrfToken>,
}

/// Why a CSRF token was refused.
#[derive(ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BadToken {
    Missing,
    Mismatch,
    Invalid,
    Expired,
}

/// A server-sent event.
pub(super) struct Event;

/// An OpenAPI document.
#[derive(ToSchema)]
pub(super) struct Document(serde_json::Map<String, serde_json::Value>);

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

/// Unicode white space, which is trimmed.
macro_rules! white_space {
    () => {
        r"\t-\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
    };
}
/// Control characters.
macro_rules! control {
    () => {
        r"\u0000-\u001f\u007f-\u009f"
    };
}

/// A user id, as every sale accepts it.
pub(crate) struct UserId;

/// A user id of at least three characters.
pub(crate) struct LongUserId;

impl UserId {
    /// White space, then at most 128 characters without control characters, of which the first and the last are not
    /// white space, then white space.
    const PATTERN: &str = concat!(
        "^[",
        white_space!(),
        "]*[^",
        white_space!(),
        control!(),
        "]",
        "([^",
        control!(),
        "]{0,126}[^",
        white_space!(),
        control!(),
        "])?[",
        white_space!(),
        "]*$"
    );
}

impl LongUserId {
    const PATTERN: &str = concat!(
        "^[",
        white_space!(),
        "]*[^",
        white_space!(),
        control!(),
        "]",
        "[^",
        control!(),
        "]{1,126}[^",
        white_space!(),
        control!(),
        "][",
        white_space!(),
        "]*$"
    );
}

/// JSON Schema limits characters, not bytes. The limit of bytes is part of the format, which the description states.
fn user_id(pattern: &str, about: &str) -> RefOr<Schema> {
    let schema = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::Custom("user-id".into())))
        .description(Some(about))
        .pattern(Some(pattern))
        .examples(["ada"]);
    schema.into()
}

impl ToSchema for Event {}
impl ToSchema for UserId {}
impl ToSchema for LongUserId {}

impl PartialSchema for Event {
    fn schema() -> RefOr<Schema> {
        let status = ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("The response of `GET status`."))
            .content_media_type("application/json")
            .content_schema(Some(Ref::from_schema_name(by_sale::StatusBody::name())));
        let event = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["status"]));
        let retry = ObjectBuilder::new().schema_type(Type::Integer).description(Some(
            "With the first event: time in milliseconds after which to reconnect once the stream has ended.",
        ));
        let schema = ObjectBuilder::new()
            .description(Some("A server-sent event."))
            .property("event", event)
            .property("data", status)
            .property("retry", retry)
            .required("event")
            .required("data");
        schema.into()
    }
}

impl PartialSchema for UserId {
    fn schema() -> RefOr<Schema> {
        let about = "The buyer. The id is trimmed and normalized to NFC. The result must be 1 to 128 bytes of UTF-8 without \
                     control characters. When the sale's user ids are e-mail addresses, all spellings of an address are the \
                     same user, and addresses that only look like another one are refused. With AUTH=jwt the body may omit the id: the \
                     token names the user.";
        user_id(Self::PATTERN, about)
    }
}

impl PartialSchema for LongUserId {
    fn schema() -> RefOr<Schema> {
        user_id(Self::PATTERN, "Like `UserId`, with at least 3 characters.")
    }
}
