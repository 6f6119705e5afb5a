//! Serves a page for browsers: plain files compiled into the program, encoded once at the start.
//!
//! It knows no sale. The data shown comes from other endpoints, so the page is the same for all clients and can be
//! cached. The files are sent as they are in the repository, without a build step.

use std::io::{Read as _, Write as _};
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
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::problem::Problem;

/// Content type of modules.
pub const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
/// Content type of style sheets.
pub const CSS: &str = "text/css; charset=utf-8";
/// Content type of SVG images.
pub const SVG: &str = "image/svg+xml";
const HTML: &str = "text/html; charset=utf-8";

/// A file that the document references as `/assets/NAME`: its name, content type and content.
pub type Asset = (&'static str, &'static str, &'static str);

/// Long enough for a CDN to ask once for a whole crowd, short enough for a new version to be everywhere within seconds.
/// While no node answers, an old page is better than none: its script keeps trying to reach the shop.
const DOCUMENT_CACHING: HeaderValue = HeaderValue::from_static("public, max-age=10, stale-if-error=3600");

/// The URL of an asset contains a digest of the content, so it never changes.
const ASSET_CACHING: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");

/// Allows only the page's own files: no markup from strings, no embedding in frames.
const CONTENT_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
);

/// The page and its assets, ready to send.
pub struct Page {
    /// Digest of the content of all assets. They reference each other by relative URLs, so versions never mix.
    version: String,
    document: EncodedAsset,
    assets: Vec<(&'static str, EncodedAsset)>,
}

/// A file in both encodings.
struct EncodedAsset {
    content_type: HeaderValue,
    plain: ContentVariant,
    gzip: ContentVariant,
}

/// A file in one encoding. Each encoding has its own `ETag`, because caches treat encodings as different
/// representations.
struct ContentVariant {
    /// Also sent with a 304, whose headers replace those in the cache, including the content policy.
    headers: HeaderMap,
    bytes: Bytes,
}

/// Routes of a page: `GET /` and `GET /assets/{version}/{name}`. They need no authentication.
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
    /// Builds the page from its document and the assets that the document references.
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

    /// Digest of the content of all assets.
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

/// Returns true if the client has this variant in its cache.
fn is_cached(request: &HeaderMap, etag: &HeaderValue) -> bool {
    let known = list(request, IF_NONE_MATCH);
    // A proxy that changed the bytes has marked the tag as weak, which does not matter for this comparison (RFC 9110,
    // 13.1.2).
    known.map(|known| known.trim_start_matches("W/")).any(|known| known == "*" || known.as_bytes() == etag)
}

/// Returns true if the client accepts gzip.
pub fn accepts_gzip(request: &HeaderMap) -> bool {
    list(request, ACCEPT_ENCODING).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let is_refused = weight.trim().strip_prefix("q=").and_then(|q| q.parse().ok()) == Some(0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

/// The members of a header that is a comma-separated list.
fn list(request: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let lines = request.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// The first 64 bits are enough to tell versions apart, and forging a version gains nothing.
fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut sha = Sha256::new();
    parts.into_iter().for_each(|part| sha.update(part));
    sha.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Decompresses a file of this program.
///
/// # Panics
/// When the bytes are not gzip.
pub fn gunzip(bytes: &[u8]) -> Bytes {
    let mut plain = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut plain).expect("the program's own files are valid");
    plain.into()
}

fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("writing to memory cannot fail").into()
}
