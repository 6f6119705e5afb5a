//! The storefront page: plain files inside the program, made ready to send once, at the start.
//!
//! It knows no sale. What is shown comes from the API, so the page is the same for everybody, and a CDN can carry it
//! through the rush. The files lie in `node/page`; they are what the browser runs, nothing is built.

use std::io::Write as _;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use flate2::Compression;
use flate2::write::GzEncoder;
use service::problem::Problem;
use sha2::{Digest, Sha256};

const DOCUMENT: &str = include_str!("../../page/index.html");

/// What the document names as `/assets/NAME`.
const ASSETS: [(&str, &str, &str); 12] = [
    ("icon.svg", "image/svg+xml", include_str!("../../page/icon.svg")),
    ("page.css", "text/css; charset=utf-8", include_str!("../../page/page.css")),
    ("attempt.js", JAVASCRIPT, include_str!("../../page/attempt.js")),
    ("clock.js", JAVASCRIPT, include_str!("../../page/clock.js")),
    ("live.js", JAVASCRIPT, include_str!("../../page/live.js")),
    ("memory.js", JAVASCRIPT, include_str!("../../page/memory.js")),
    ("page.js", JAVASCRIPT, include_str!("../../page/page.js")),
    ("pause.js", JAVASCRIPT, include_str!("../../page/pause.js")),
    ("sale.js", JAVASCRIPT, include_str!("../../page/sale.js")),
    ("shop.js", JAVASCRIPT, include_str!("../../page/shop.js")),
    ("view.js", JAVASCRIPT, include_str!("../../page/view.js")),
    ("words.js", JAVASCRIPT, include_str!("../../page/words.js")),
];

const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
/// The address may name a sale that is nobody else's business.
const NO_REFERRER: HeaderValue = HeaderValue::from_static("no-referrer");

/// Long enough for a CDN to ask once for a whole crowd, short enough for a new version to be everywhere in seconds.
/// While no node answers, an old page is better than none: it waits for the shop by itself.
const FOR_SECONDS: HeaderValue = HeaderValue::from_static("public, max-age=10, stale-if-error=3600");

/// The address of an asset names its content.
const FOREVER: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// While nodes of two versions run, another one may have the asset already.
const NOT_AT_ALL: HeaderValue = HeaderValue::from_static("no-store");

/// The page's own files and nothing else; no markup from strings, no frame around it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// `GET /`
pub(crate) async fn document(State(page): State<Arc<Page>>, request: HeaderMap) -> Response {
    page.document.answer(&request)
}

/// `GET /assets/{version}/{name}`
pub(crate) async fn asset(
    State(page): State<Arc<Page>>,
    Path((version, name)): Path<(String, String)>,
    request: HeaderMap,
) -> Response {
    match page.asset(&version, &name) {
        Some(asset) => asset.answer(&request),
        None => ([(CACHE_CONTROL, NOT_AT_ALL)], Problem::new(StatusCode::NOT_FOUND)).into_response(),
    }
}

/// The page and its assets, ready to send.
pub(crate) struct Page {
    /// Names the content of all assets: they call each other by relative names, and so never mix with other versions.
    version: String,
    document: Ready,
    assets: Vec<(&'static str, Ready)>,
}

/// A file in both forms that it is sent in.
struct Ready {
    plain: Form,
    gzip: Form,
}

/// A file in one encoding. To a cache another encoding is another thing, with an `ETag` of its own.
struct Form {
    etag: HeaderValue,
    /// What is true of it also while a client has it already.
    validity: HeaderMap,
    content: HeaderMap,
    bytes: Bytes,
}

impl Page {
    pub(crate) fn new() -> Self {
        let version = digest(ASSETS.iter().flat_map(|(name, _, content)| [*name, *content]));
        let document = DOCUMENT.replace("/assets/", &format!("/assets/{version}/"));
        let assets = ASSETS.iter().map(|&(name, content_type, content)| {
            let headers = [(CONTENT_TYPE, HeaderValue::from_static(content_type))];
            (name, Ready::new(content, FOREVER, headers))
        });
        let headers = [(CONTENT_TYPE, HTML), (CONTENT_SECURITY_POLICY, POLICY), (REFERRER_POLICY, NO_REFERRER)];
        Self { version, assets: assets.collect(), document: Ready::new(&document, FOR_SECONDS, headers) }
    }

    fn asset(&self, version: &str, name: &str) -> Option<&Ready> {
        let is_ours = version == self.version;
        self.assets.iter().find(|(known, _)| is_ours && *known == name).map(|(_, asset)| asset)
    }
}

impl Ready {
    fn new<const N: usize>(content: &str, cache: HeaderValue, headers: [(HeaderName, HeaderValue); N]) -> Self {
        let digest = digest([content]);
        let content_headers = HeaderMap::from_iter([(X_CONTENT_TYPE_OPTIONS, NOSNIFF)].into_iter().chain(headers));
        let plain = Form::new(&digest, cache.clone(), content_headers.clone(), content.to_owned().into());
        let mut gzip = Form::new(&format!("{digest}-gzip"), cache, content_headers, gzip(content.as_bytes()));
        gzip.content.insert(CONTENT_ENCODING, GZIP);
        Self { plain, gzip }
    }

    fn answer(&self, request: &HeaderMap) -> Response {
        let form = if takes_gzip(request) { &self.gzip } else { &self.plain };
        if knows(request, &form.etag) {
            return (StatusCode::NOT_MODIFIED, form.validity.clone()).into_response();
        }
        let mut response = Response::new(form.bytes.clone().into());
        response.headers_mut().extend(form.validity.clone());
        response.headers_mut().extend(form.content.clone());
        response
    }
}

impl Form {
    fn new(name: &str, cache: HeaderValue, content: HeaderMap, bytes: Bytes) -> Self {
        let etag = HeaderValue::try_from(format!("\"{name}\"")).expect("hexadecimal digits are visible ASCII");
        let validity = [(CACHE_CONTROL, cache), (ETAG, etag.clone()), (VARY, ACCEPT_ENCODING.into())];
        Self { etag, validity: HeaderMap::from_iter(validity), content, bytes }
    }
}

/// Whether the client has this very form already.
fn knows(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let known = list(request, IF_NONE_MATCH);
    // A proxy that touched the bytes has weakened the name; for a comparison that does not matter (RFC 9110, 13.1.2).
    known.map(|known| known.trim_start_matches("W/")).any(|known| known == "*" || known.as_bytes() == etag)
}

fn takes_gzip(request: &HeaderMap) -> bool {
    list(request, ACCEPT_ENCODING).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let is_refused = weight.trim().strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

/// The members of a header that is a list.
fn list(request: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The first 64 bits are enough to tell versions apart; nobody gains by forging one.
fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut sha = Sha256::new();
    parts.into_iter().for_each(|part| sha.update(part));
    sha.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory does not refuse a write").into()
}

#[cfg(test)]
mod tests;
