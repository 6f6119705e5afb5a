//! Swagger UI for the API, embedded in this program. It needs no access to the internet.

use std::sync::{Arc, LazyLock};

use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use service::page::{accepts_gzip, gunzip};
use service::problem::Problem;
use utoipa_swagger_ui::{Config, SwaggerFile, serve};

use super::openapi;

/// The page loads only its own files, draws icons from `data:` URLs, and calls only this API.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `GET /api/docs`
pub(crate) async fn page() -> Redirect {
    Redirect::permanent("/api/docs/index.html")
}

/// `GET /api/docs/{file}`
pub(crate) async fn file(Path(name): Path<String>, request: HeaderMap) -> Result<Response, Problem> {
    static CONFIG: LazyLock<Arc<Config<'static>>> =
        LazyLock::new(|| Arc::new(Config::from(openapi::PATH).validator_url("none").use_base_layout()));
    match serve(&name, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => Ok(answer(file, accepts_gzip(&request))),
        Ok(None) => Err(Problem::new(StatusCode::NOT_FOUND)),
        Err(error) => {
            tracing::error!(%error, "the documentation cannot be shown");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR))
        }
    }
}

/// Compressed files are sent as they are to clients that accept gzip, and uncompressed to others.
fn answer(file: SwaggerFile<'static>, accepts_gzip: bool) -> Response {
    let SwaggerFile { bytes, content_type, gzpipped: is_gzipped, .. } = file;
    let bytes = if is_gzipped && !accepts_gzip { gunzip(&bytes) } else { bytes.into_owned().into() };
    let headers = [
        (CONTENT_TYPE, HeaderValue::try_from(content_type).expect("media types are ASCII")),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (CACHE_CONTROL, HeaderValue::from_static("max-age=3600")),
        (VARY, ACCEPT_ENCODING.into()),
    ];
    let encoding =
        (is_gzipped && accepts_gzip).then_some([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
    (headers, encoding, bytes).into_response()
}
