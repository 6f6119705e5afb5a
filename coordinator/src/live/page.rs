//! The page of the live view. The files are in `coordinator/page`; `service` serves them.

use axum::Router;
use service::page::{self, Asset, CSS, JAVASCRIPT, Page, SVG};

const DOCUMENT: &str = include_str!("../../page/index.html");

/// The files that the document references.
const ASSETS: [Asset; 10] = [
    ("icon.svg", SVG, include_str!("../../page/icon.svg")),
    ("page.css", CSS, include_str!("../../page/page.css")),
    ("clock.js", JAVASCRIPT, include_str!("../../page/clock.js")),
    ("flow.js", JAVASCRIPT, include_str!("../../page/flow.js")),
    ("page.js", JAVASCRIPT, include_str!("../../page/page.js")),
    ("pace.js", JAVASCRIPT, include_str!("../../page/pace.js")),
    ("shards.js", JAVASCRIPT, include_str!("../../page/shards.js")),
    ("stream.js", JAVASCRIPT, include_str!("../../page/stream.js")),
    ("view.js", JAVASCRIPT, include_str!("../../page/view.js")),
    ("words.js", JAVASCRIPT, include_str!("../../page/words.js")),
];

/// `GET /` and its assets.
pub(super) fn router() -> Router {
    page::router(Page::new(DOCUMENT, &ASSETS))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the text between each occurrence of `words` and the next quote.
    fn quoted<'a>(text: &'a str, words: &str) -> Vec<&'a str> {
        text.split(words).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
    }

    #[test]
    fn document_references_exactly_the_assets() {
        let mut named: Vec<&str> =
            [quoted(DOCUMENT, "src=\"/assets/"), quoted(DOCUMENT, "href=\"/assets/")].concat();
        named.sort_unstable();
        named.dedup();
        let mut known = ASSETS.map(|(name, _, _)| name);
        known.sort_unstable();
        assert_eq!(named, known);
    }

    #[test]
    fn modules_import_only_existing_files() {
        for (module, _, content) in ASSETS {
            for imported in quoted(&content.replace('\'', "\""), " from \"") {
                let exists = ASSETS.iter().any(|(name, _, _)| imported.strip_prefix("./") == Some(name));
                assert!(exists, "{module} imports {imported}");
            }
        }
    }

    #[test]
    fn page_has_no_inline_or_external_content() {
        for inline in ["<style", "style=", "onclick=", "onload=", "javascript:"] {
            assert!(!DOCUMENT.contains(inline), "{inline}");
        }
        for (name, _, content) in ASSETS.into_iter().chain([("index.html", "", DOCUMENT)]) {
            let foreign = content.replace("http://www.w3.org/2000/svg", "");
            assert!(!foreign.contains("http:") && !foreign.contains("https:"), "{name}");
        }
    }
}
