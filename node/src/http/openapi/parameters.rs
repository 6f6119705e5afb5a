//! Parameters of requests.

use stock::ids::IDEMPOTENCY_KEY_BYTES_MAX;
use utoipa::ToSchema;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{Ref, RefOr, Required, Schema};

use super::schemas::{CsrfToken, SaleId};

/// The sale, in the path.
pub(super) fn sale() -> Parameter {
    in_path("sale", "Id of the sale.", reference::<SaleId>())
}

/// The user, in the path.
pub(super) fn user<Id: ToSchema>() -> Parameter {
    in_path("userId", "Id of the user.", reference::<Id>())
}

/// The id of the request.
pub(super) fn correlation_id() -> Parameter {
    let about = "Id of the request. It is logged, stored with the order and sent back. A value that is not 1 to 64 visible \
                 ASCII characters is replaced.";
    header("X-Correlation-Id", about, ObjectBuilder::new().schema_type(Type::String).into())
}

/// The key of the attempt.
pub(super) fn idempotency_key() -> Parameter {
    let about = "Names the attempt. When a purchase that was made is repeated with the same key, the response is 200 with the \
                 same order id again, not 409.";
    let key = ObjectBuilder::new()
        .schema_type(Type::String)
        .pattern(Some(format!("^[!-~]{{1,{IDEMPOTENCY_KEY_BYTES_MAX}}}$")))
        .examples(["6f0ad8a2"]);
    header("Idempotency-Key", about, key.into())
}

/// The CSRF token, as every purchase of the single-sale endpoints sends it.
pub(super) fn csrf_token() -> [Parameter; 2] {
    let about = "The same token as in the cookie.";
    [
        with_required(header("X-CSRF-Token", about, reference::<CsrfToken>()), Required::True),
        cookie("The token from `GET /api/csrf`.", Required::True),
    ]
}

/// The CSRF token, for requests whose origin the browser does not state.
pub(super) fn optional_csrf_token() -> [Parameter; 2] {
    let about = "The same token as in the cookie. It is required when the request has cookies and the browser does not show \
                 by `Sec-Fetch-Site` or `Origin` that a page of this site sent it. A token that is sent must be valid.";
    [
        header("X-CSRF-Token", about, reference::<CsrfToken>()),
        cookie("The token from `GET /api/csrf`.", Required::False),
    ]
}

/// Refers to a schema by its name.
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
