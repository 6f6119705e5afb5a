//! The API as it describes itself: an OpenAPI document, made from the types that requests are read into and from the
//! answers themselves.
//!
//! What an answer looks like is never written down a second time: status, headers, media type and example are taken
//! from a sample that goes through the same code as the answer to a buyer. Only what a program cannot know stands here
//! in words.

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

/// The name of the security scheme of AUTH=jwt.
const BEARER: &str = "bearer";

const ABOUT: &str = "\
A flash sale: a fixed stock, sold to a crowd that arrives in the same second. No unit is sold twice, nobody gets more \
than one, and an answer that was given stays true.\n\n\
Two families of calls are over the same sales; a unit bought in one is known in the other. \
Every error that a family has no words of its own for is `application/problem+json` (RFC 9457). \
Every answer carries `X-Correlation-Id`, and every problem has it as `correlationId`. \
A 503 says that nothing is known to have been bought: come back after `Retry-After`. \
A method that a path does not have is answered 405 with `Allow`. Bodies are at most 16 KiB.";

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
        tag(by_sale::TAG, "Clients that know of many sales, and say which one or mean the default one."),
        tag(single_sale::TAG, "Clients that know of one sale only: the default one."),
        tag(operations::TAG, "What this is."),
    ];
    let paths = operations::all()
        .into_iter()
        .fold(PathsBuilder::new(), |paths, Entry { path, item }| paths.path(path, item));
    OpenApiBuilder::new().info(info).tags(Some(tags)).paths(paths).components(Some(components())).build()
}

fn components() -> Components {
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").description(Some(
        "Only where the nodes run with AUTH=jwt: the token's `sub` is the user, and no request is about anybody else.",
    ));
    let components = ComponentsBuilder::new().security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    let components =
        schemas::all().into_iter().fold(components, |all, (name, schema)| all.schema(name, schema));
    headers::all().into_iter().fold(components, |all, (name, header)| all.header(name, header)).build()
}

#[cfg(test)]
mod tests;
