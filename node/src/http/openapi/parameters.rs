//! What requests may say besides their body.

use stock::ids::IDEMPOTENCY_KEY_BYTES_MAX;
use utoipa::ToSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Required, Schema};

use super::schemas::{CsrfToken, SaleId};

/// Which sale.
pub(super) fn sale() -> Parameter {
    in_path("sale", "Which sale.", reference::<SaleId>())
}

/// Which user.
pub(super) fn user<Id: ToSchema>() -> Parameter {
    in_path("userId", "Whose purchase.", reference::<Id>())
}

/// Names the request.
pub(super) fn correlation_id() -> Parameter {
    let about = "Names the request; it is logged, kept with the order and sent back. One that is not 1 to 64 visible ASCII \
                 characters is replaced.";
    header("X-Correlation-Id", about, ObjectBuilder::new().schema_type(Type::String).into())
}

/// Names the attempt.
pub(super) fn idempotency_key() -> Parameter {
    let about = "Names the attempt: repeated with the same key, a purchase that was made is answered 200 again, with the \
                 same order id, and not 409.";
    let key = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^[!-~]{{1,{IDEMPOTENCY_KEY_BYTES_MAX}}}$")))
        .examples(["6f0ad8a2"]);
    header("Idempotency-Key", about, key.into())
}

/// The token, as every purchase of one family brings it.
pub(super) fn csrf_token() -> [Parameter; 2] {
    let about = "The same token as in the cookie.";
    [
        with_required(header("X-CSRF-Token", about, reference::<CsrfToken>()), Required::True),
        cookie("The token that `GET /api/csrf` gave.", Required::True),
    ]
}

/// The token, where a request says nothing else of where it is from.
pub(super) fn optional_csrf_token() -> [Parameter; 2] {
    let about = "The same token as in the cookie. It is asked for where cookies come with the request and the browser \
                 does not say by `Sec-Fetch-Site` or `Origin` that a page of ours sent it; one that is sent must be good.";
    [
        header("X-CSRF-Token", about, reference::<CsrfToken>()),
        cookie("The token that `GET /api/csrf` gave.", Required::False),
    ]
}

/// A schema by its name.
pub(super) fn reference<T: ToSchema>() -> RefOr<Schema> {
    Ref::from_schema_name(T::name()).into()
}

fn in_path(name: &str, about: &str, schema: RefOr<Schema>) -> Parameter {
    of(name, ParameterIn::Path, about, Required::True, schema)
}

fn header(name: &str, about: &str, schema: RefOr<Schema>) -> Parameter {
    of(name, ParameterIn::Header, about, Required::False, schema)
}

fn cookie(about: &str, required: Required) -> Parameter {
    of("csrfToken", ParameterIn::Cookie, about, required, reference::<CsrfToken>())
}

fn with_required(parameter: Parameter, required: Required) -> Parameter {
    ParameterBuilder::from(parameter).required(required).build()
}

fn of(name: &str, place: ParameterIn, about: &str, required: Required, schema: RefOr<Schema>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .description(Some(about))
        .required(required)
        .schema(Some(schema))
        .build()
}
