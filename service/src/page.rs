//! A page for browsers: plain files inside the program, made ready to send once, at the start.
//!
//! It knows no sale. What is shown comes from elsewhere, so the page is the same for everybody, and a cache may carry
//! it. The files are what the browser runs, nothing is built.

use std::io::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// What modules are sent as.
pub const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// What style sheets are sent as.
pub const CSS: &str = "text/css; charset=utf-8";
/// What drawings are sent as.
pub const SVG: &str = "image/svg+xml";
const HTML: &str = "text/html; charset=utf-8";

/// A file that the document names as `/assets/NAME`: its name, what it is sent as, and what is in it.
pub type Asset = (&'static str, &'static str, &'static str);

/// Long enough for a CDN to ask once for a whole crowd, short enough for a new version to be everywhere in seconds.
/// While no node answers, an old page is better than none: it waits for the shop by itself.
const DOCUMENT_CACHING: HeaderValue = HeaderValue::from_static("public, max-age=10, stale-if-error=3600");

/// The address of an asset names its content.
const ASSET_CACHING: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// The page's own files and nothing else; no markup from strings, no frame around it.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
     variant-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The page and its assets, ready to send.
pub struct Page {
    /// Names the content of all assets: they call each other by relative names, and so never mix with other versions.
    version: String,
    document: EncodedAsset,
    assets: Vec<(&'static str, EncodedAsset)>,
}

/// A file in both forms that it is sent in.
struct EncodedAsset {
    content_type: HeaderValue,
    plain: ContentVariant,
    gzip: ContentVariant,
}

/// A file in one encoding. To a cache another encoding is another thing, with an `ETag` of its own.
struct ContentVariant {
    /// Of a 304, too: what it says replaces what a cache knows, the policy included.
    headers: HeaderMap,
    bytes: Bytes,
}

/// `GET /` and `GET /assets/{version}/{name}`: a page, for whoever asks.
pub fn router(page: Page) -> Router {
    Router::new()
        .route("/", get(document))
        .route("/assets/{version}/{name}", get(asset))
        .with_state(Arc::new(page))
}

/// `GET /`
async fn document(State(page): State<Arc<Page>>, request: HeaderMap) -> Response {
    page.document.respond(&request)
}

/// `GET /assets/{version}/{name}`
async fn asset(
    State(page): State<Arc<Page>>,
    Path((version, name)): Path<(String, String)>,
    request: HeaderMap,
) -> Result<Response, Problem> {
    let asset = page.asset(&version, &name).ok_or_else(|| Problem::new(StatusCode::NOT_FOUND))?;
    Ok(asset.respond(&request))
}

impl Page {
    /// A page of this document, and of what it names.
    pub fn new(document: &str, assets: &[Asset]) -> Self {
        let version = digest(assets.iter().flat_map(|(name, _, content)| [*name, *content]));
        let document = document.replace("/assets/", &format!("/assets/{version}/"));
        let document = EncodedAsset::new(
            HTML,
            &document,
            &[(CACHE_CONTROL, DOCUMENT_CACHING), (CONTENT_SECURITY_POLICY, CONTENT_POLICY)],
        );
        let ready = |content_type, content| {
            EncodedAsset::new(content_type, content, &[(CACHE_CONTROL, ASSET_CACHING)])
        };
        let assets = assets.iter().map(|&(name, content_type, content)| (name, ready(content_type, content)));
        Self { version, document, assets: assets.collect() }
    }

    /// Names the content of all assets.
    pub fn version(&self) -> &str {
        &self.version
    }

    fn asset(&self, version: &str, name: &str) -> Option<&EncodedAsset> {
        let is_current = version == self.version;
        self.assets.iter().find(|(known, _)| is_current && *known == name).map(|(_, asset)| asset)
    }
}

impl EncodedAsset {
    fn new(content_type: &'static str, content: &str, headers: &[(HeaderName, HeaderValue)]) -> Self {
        let digest = digest([content]);
        Self {
            content_type: HeaderValue::from_static(content_type),
            plain: ContentVariant::new(&digest, headers, content.to_owned().into()),
            gzip: ContentVariant::new(&format!("{digest}-gzip"), headers, gzip(content.as_bytes())),
        }
    }

    fn respond(&self, request: &HeaderMap) -> Response {
        let accepts_gzip = accepts_gzip(request);
        let variant = if accepts_gzip { &self.gzip } else { &self.plain };
        if is_cached(request, &variant.headers[ETAG]) {
            return (StatusCode::NOT_MODIFIED, variant.headers.clone()).into_response();
        }
        let content_type = [(CONTENT_TYPE, self.content_type.clone())];
        let encoding = accepts_gzip.then_some([(CONTENT_ENCODING, "gzip")]);
        (variant.headers.clone(), content_type, encoding, variant.bytes.clone()).into_response()
    }
}

impl ContentVariant {
    fn new(name: &str, headers: &[(HeaderName, HeaderValue)], bytes: Bytes) -> Self {
        let etag =
            HeaderValue::try_from(format!("\"{name}\"")).expect("hexadecimal digits are visible ASCII");
        let own = [(ETAG, etag), (VARY, ACCEPT_ENCODING.into())];
        Self { headers: own.into_iter().chain(headers.iter().cloned()).collect(), bytes }
    }
}

/// Whether the client has this very form already.
fn is_cached(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let known = list(request, IF_NONE_MATCH);
    // A proxy that touched the bytes has weakened the name; for a comparison that does not matter (RFC 9110, 13.1.2).
    known.map(|known| known.trim_start_matches("W/")).any(|known| known == "*" || known.as_bytes() == etag)
}

fn accepts_gzip(request: &HeaderMap) -> bool {
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
