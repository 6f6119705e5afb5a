//! The API's own description: an OpenAPI document, built from the request types and from real responses.
//!
//! Nothing about a response is written twice: status, headers, media type and example come from a sample that passes
//! through the same code as a response to a buyer. Only facts that a program cannot know are written here as text.

mod answers;
mod by_sale;
mod headers;
mod operations;
mod parameters;
mod samples;
pub(super) mod schemas;
mod single_sale;

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{Components, ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathsBuilder};

use operations::Entry;

/// Name of the security scheme of AUTH=jwt.
const BEARER: &str = "bearer";

const ABOUT: &str = "\
A flash sale: a fixed stock for a crowd that arrives in the same second. No unit is sold twice, no user gets more than \
one, and every answer stays true.\n\n\
Two families of endpoints serve the same sales: a unit bought through one is visible in the other. \
Errors without a format of the family's own are `application/problem+json` (RFC 9457). \
Every response has an `X-Correlation-Id`, and every problem repeats it as `correlationId`. \
A 503 means that no purchase is known to have been made: retry after `Retry-After`. \
An unsupported method is answered with 405 and `Allow`. Bodies are limited to 16 KiB.";

/// `GET /api/openapi.json`
pub(crate) async fn document() -> impl IntoResponse {
    static JSON: LazyLock<Bytes> = LazyLock::new(|| {
        Bytes::from(serde_json::to_vec(&description()).expect("a description has only plain members"))
    });
    ([(CONTENT_TYPE, "application/json")], JSON.clone())
}

fn description() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Flash sale")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .build();
    let tag = |name, about| TagBuilder::new().name(name).description(Some(about)).build();
    let tags = [
        tag(
            by_sale::TAG,
            "For clients that know several sales. The path names a sale or means the default one.",
        ),
        tag(single_sale::TAG, "For clients that know a single sale: the default one."),
        tag(operations::TAG, "This document."),
    ];
    let paths = operations::all()
        .into_iter()
        .fold(PathsBuilder::new(), |paths, Entry { path, item }| paths.path(path, item));
    OpenApiBuilder::new().info(info).tags(Some(tags)).paths(paths).components(Some(components())).build()
}

fn components() -> Components {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
        "Only with AUTH=jwt: the token's `sub` is the user, and requests for other users are refused.",
    ));
    let components = ComponentsBuilder::new().security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    let components =
        schemas::all().into_iter().fold(components, |all, (name, schema)| all.schema(name, schema));
    headers::all().into_iter().fold(components, |all, (name, header)| all.header(name, header)).build()
}

#[cfg(test)]
mod tests;
