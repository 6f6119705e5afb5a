//! The storefront page. It only shows what the API reports, and never decides if a user may buy. The files are in
//! `node/page`, and `service` sends them.

use axum::Router;
use service::page::{self, Asset, CSS, JAVASCRIPT, Page, SVG};
use url::Url;

const DOCUMENT: &str = include_str!("../../page/index.html");

/// Files that the document refers to.
const ASSETS: [Asset; 12] = [
    ("icon.svg", SVG, include_str!("../../page/icon.svg")),
    ("page.css", CSS, include_str!("../../page/page.css")),
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

/// The element of the document that names the page on which the shop signs buyers in.
const SIGN_IN: &str = r#"<meta name="sign-in" content="">"#;

/// Returns the routes of `GET /` and its assets.
pub(crate) fn router(sign_in: Option<&Url>) -> Router {
    page::router(Page::new(&document(sign_in), &ASSETS))
}

fn document(sign_in: Option<&Url>) -> String {
    // A parsed URL contains neither double quotes nor angle brackets.
    let url = sign_in.map(|url| url.as_str().replace('&', "&amp;")).unwrap_or_default();
    DOCUMENT.replace(SIGN_IN, &SIGN_IN.replace(r#""""#, &format!("\"{url}\"")))
}

#[cfg(test)]
mod tests;
