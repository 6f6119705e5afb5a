//! What is named in requests and answers, as JSON Schema.

#![expect(dead_code, reason = "these types only describe others; nobody makes one")]

use utoipa::openapi::schema::{ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::{by_sale, csrf, single_sale};

/// Every schema that is named, in any order.
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

/// Who buys.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Purchase {
    user_id: UserId,
}

/// Who buys.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SingleSalePurchase {
    user_id: LongUserId,
}

/// What is the matter (RFC 9457).
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Problem {
    /// The kind of problem, for programs; `about:blank` where the status says all.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    /// The kind in words.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What is the matter this time, and what to do about it.
    #[schema(required = false, value_type = String)]
    detail: Option<String>,
    /// The request that it belongs to; the same as in `X-Correlation-Id`.
    #[schema(max_length = 64)]
    correlation_id: String,
    /// With `/problems/unknown-outcome`: the purchase attempt that may have been made.
    #[schema(required = false, value_type = OrderId)]
    order_id: Option<OrderId>,
    /// With `/problems/csrf`: what is wrong with the token that came.
    #[schema(required = false, value_type = BadToken)]
    reason: Option<BadToken>,
    /// With `/problems/csrf`: a new token.
    #[schema(required = false, value_type = CsrfToken)]
    csrf_token: Option<CsrfToken>,
}

/// What is wrong with a CSRF token.
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

/// A sale's name.
#[derive(ToSchema)]
#[schema(pattern = "^[a-z0-9-]{1,32}$", examples("flash"))]
pub(crate) struct SaleId(String);

/// Names one purchase attempt: 14 characters of Crockford's base 32.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9A-HJKMNP-TV-Z]{14}$", examples("71R7D8J57MH5DF"))]
pub(crate) struct OrderId(String);

/// A moment, UTC.
#[derive(ToSchema)]
#[schema(format = DateTime, examples("2026-11-21T20:00:00.007Z"))]
pub(crate) struct Moment(String);

/// A CSRF token: signed, good on every node for two hours (CSRF_LIFETIME).
#[derive(ToSchema)]
#[schema(pattern = "^[A-Za-z0-9_-]{70}$")]
pub(crate) struct CsrfToken(String);

/// What Unicode calls white space, which is trimmed away.
macro_rules! white {
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

/// Who buys or has bought, as any sale takes it.
pub(crate) struct UserId;

/// The same with at least three characters.
pub(crate) struct LongUserId;

impl UserId {
    /// White space, then at most 128 characters, none of them a control character and the outer ones not white either,
    /// then white space.
    const PATTERN: &str = concat!(
        "^[",
        white!(),
        "]*[^",
        white!(),
        control!(),
        "]",
        "([^",
        control!(),
        "]{0,126}[^",
        white!(),
        control!(),
        "])?[",
        white!(),
        "]*$"
    );
}

impl LongUserId {
    const PATTERN: &str = concat!(
        "^[",
        white!(),
        "]*[^",
        white!(),
        control!(),
        "]",
        "[^",
        control!(),
        "]{1,126}[^",
        white!(),
        control!(),
        "][",
        white!(),
        "]*$"
    );
}

/// JSON Schema counts characters: that bytes are limited is left to the format, which is told in words.
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
            .description(Some("What `GET status` answers."))
            .content_media_type("application/json")
            .content_schema(Some(Ref::from_schema_name(by_sale::StatusBody::name())));
        let event = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["status"]));
        let retry = ObjectBuilder::new().schema_type(Type::Integer).description(Some(
            "With the first event: after how many milliseconds to come back once the stream has ended.",
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
        let about = "Who buys. It is trimmed and brought to NFC; what is left must be 1 to 128 bytes of UTF-8 without \
                     control characters. Where the sale says that its user ids are e-mail addresses, all spellings \
                     of one are that one, and none may only look like another. With AUTH=jwt it may be left out of a body: the token names the user.";
        user_id(Self::PATTERN, about)
    }
}

impl PartialSchema for LongUserId {
    fn schema() -> RefOr<Schema> {
        user_id(Self::PATTERN, "As `UserId`, but of at least 3 characters.")
    }
}
