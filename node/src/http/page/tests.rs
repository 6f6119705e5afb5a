use std::io::Read as _;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    ETAG, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, Method, Request};
use flate2::read::GzDecoder;
use serde_json::Value;
use service::edge::{self, AdmitAll};
use tower::ServiceExt as _;

use super::*;

/// Every buyer loads the page, some over a slow connection.
const BYTES_MAX: usize = 32_000;

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn unzipped(&self) -> String {
        let mut text = String::new();
        GzDecoder::new(&self.body[..]).read_to_string(&mut text).unwrap();
        text
    }
}

async fn send(method: Method, path: &str, headers: &[(HeaderName, &str)]) -> Answer {
    let router = edge::wrap(router(None), AdmitAll, Duration::from_secs(1));
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(name, *value));
    let response = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

async fn load(path: &str, headers: &[(HeaderName, &str)]) -> Answer {
    send(Method::GET, path, headers).await
}

/// Returns the text after each occurrence of `words`, up to the next quote.
fn quoted<'a>(text: &'a str, words: &str) -> Vec<&'a str> {
    text.split(words).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

async fn addresses() -> Vec<String> {
    let document = load("/", &[]).await;
    let text = document.text();
    let addresses = [quoted(text, "src=\""), quoted(text, "href=\"")].concat();
    addresses.into_iter().map(str::to_owned).collect()
}

#[test]
fn page_stays_below_its_size_limit() {
    let bytes = DOCUMENT.len() + ASSETS.iter().map(|(_, _, content)| content.len()).sum::<usize>();
    assert!(bytes < BYTES_MAX, "{bytes} bytes");
}

#[test]
fn document_names_the_sign_in_page() {
    assert_eq!(DOCUMENT.matches(SIGN_IN).count(), 1);
    assert_eq!(document(None), DOCUMENT);
    let url = Url::parse("https://shop.example/a\"b<c>?x=1&y='2\"<").unwrap();
    let element = r#"<meta name="sign-in" content="https://shop.example/a%22b%3Cc%3E?x=1&amp;y=%272%22%3C">"#;
    assert!(document(Some(&url)).contains(element), "{}", document(Some(&url)));
}

#[tokio::test]
async fn document_names_exactly_the_embedded_immutable_assets() {
    let mut names = Vec::new();
    for address in addresses().await {
        let asset = load(&address, &[]).await;
        assert_eq!(asset.status, 200, "{address}");
        assert_eq!(asset.header(CACHE_CONTROL), Some("public, max-age=31536000, immutable"), "{address}");
        assert_eq!(asset.header(X_CONTENT_TYPE_OPTIONS), Some("nosniff"), "{address}");
        names.push(address.rsplit('/').next().unwrap().to_owned());
    }
    names.sort_unstable();
    names.dedup();
    let mut known = ASSETS.map(|(name, _, _)| name);
    known.sort_unstable();
    assert_eq!(names, known, "assets named in the document, and embedded assets");
}

#[test]
fn modules_import_only_embedded_assets() {
    for (module, _, content) in ASSETS {
        for imported in quoted(&content.replace('\'', "\""), " from \"") {
            let exists = ASSETS.iter().any(|(name, _, _)| imported.strip_prefix("./") == Some(name));
            assert!(exists, "{module} imports {imported}");
        }
    }
}

#[tokio::test]
async fn asset_address_contains_the_content_version() {
    let page = Page::new(DOCUMENT, &ASSETS);
    let version = page.version();
    assert!(version.len() == 16 && version.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
    assert!(addresses().await.iter().all(|address| address.starts_with(&format!("/assets/{version}/"))));
    let of = |content| Page::new(DOCUMENT, &[("page.css", CSS, content)]).version().to_owned();
    assert_ne!(of("a{}"), of("b{}"));
}

#[tokio::test]
async fn missing_asset_is_an_uncacheable_problem() {
    let page = Page::new(DOCUMENT, &ASSETS);
    let version = page.version();
    for path in ["/assets/0000000000000000/page.css", &format!("/assets/{version}/other.js")] {
        let answer = load(path, &[]).await;
        let problem: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, &problem["status"]), (404, &Value::from(404)), "{path}");
        assert_eq!(answer.header(CONTENT_TYPE), Some("application/problem+json"), "{path}");
        assert_eq!(answer.header(CACHE_CONTROL), Some("no-store"), "{path}");
    }
}

#[tokio::test]
async fn known_etag_is_answered_with_304() {
    let document = load("/", &[]).await;
    let etag = document.header(ETAG).unwrap();
    assert!(etag.starts_with('"'), "a strong ETag: {etag}");
    for known in [etag, &format!("W/{etag}"), &format!("\"other\", {etag}"), "*"] {
        let again = load("/", &[(IF_NONE_MATCH, known)]).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{known}");
        assert_eq!(again.header(ETAG), Some(etag));
        // Browsers update a cached page with the headers of a 304: another policy would break the page.
        for name in [CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, VARY] {
            assert_eq!(again.header(name.clone()), document.header(name));
        }
    }
    assert_eq!(load("/", &[(IF_NONE_MATCH, "\"other\"")]).await.status, 200);
}

#[tokio::test]
async fn gzip_response_has_its_own_etag() {
    let plain = load("/", &[]).await;
    let gzip = load("/", &[(ACCEPT_ENCODING, "br;q=1.0, gzip;q=0.8, *;q=0.1")]).await;
    assert_eq!((plain.header(CONTENT_ENCODING), gzip.header(CONTENT_ENCODING)), (None, Some("gzip")));
    assert_eq!((plain.header(VARY), gzip.header(VARY)), (Some("accept-encoding"), Some("accept-encoding")));
    assert_ne!(plain.header(ETAG), gzip.header(ETAG));
    assert_eq!(gzip.unzipped(), plain.text());

    let etag = plain.header(ETAG).unwrap();
    let other_encoding = load("/", &[(ACCEPT_ENCODING, "gzip"), (IF_NONE_MATCH, etag)]).await;
    assert_eq!(other_encoding.status, 200);
    for refusal in ["identity", "gzip;q=0", "gzip; q=0.000", "xgzip"] {
        assert_eq!(
            load("/", &[(ACCEPT_ENCODING, refusal)]).await.header(CONTENT_ENCODING),
            None,
            "{refusal}"
        );
    }
}

#[tokio::test]
async fn head_returns_the_headers_of_get() {
    let (get, head) = (load("/", &[]).await, send(Method::HEAD, "/", &[]).await);
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in [ETAG, CONTENT_TYPE, CACHE_CONTROL, CONTENT_SECURITY_POLICY] {
        assert_eq!(head.header(name.clone()), get.header(name));
    }
    assert_eq!(head.header(CONTENT_LENGTH), Some(get.body.len().to_string().as_str()));
}

#[tokio::test]
async fn page_loads_nothing_from_other_sites() {
    let document = load("/", &[]).await;
    let policy = document.header(CONTENT_SECURITY_POLICY).unwrap();
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    for directive in ["frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"] {
        assert!(policy.contains(directive), "{policy}");
    }

    let html = document.text();
    for inline in ["<style", "style=", "onclick=", "onload=", "javascript:"] {
        assert!(!html.contains(inline), "{inline}");
    }
    assert_eq!(
        html.matches("<script").count(),
        html.matches("<script type=\"module\" src=\"/assets/").count()
    );
    for (name, _, content) in ASSETS.into_iter().chain([("index.html", "", DOCUMENT)]) {
        let foreign = content.replace("http://www.w3.org/2000/svg", "");
        assert!(
            !foreign.contains("//www") && !foreign.contains("http:") && !foreign.contains("https:"),
            "{name}"
        );
    }
}
