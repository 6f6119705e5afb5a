//! The metrics that the code declares: the string literals `"flashsale_…"` in the files that declare metrics.
//!
//! The sources are read as text, so these tests depend on no program. A mistyped name on either side is found without
//! starting a process.

use std::collections::BTreeSet;

use crate::{files, text};

/// The crates with metrics, each in `metrics.rs` or a folder `metrics`.
const CRATES: [&str; 4] = ["node", "coordinator", "ledger", "service"];
/// Prefix of every metric of the project, with the opening quote.
const PREFIX: &str = "\"flashsale_";

/// Returns the names of all metrics that the code declares.
pub(crate) fn declared_metrics() -> BTreeSet<String> {
    let mut sources = Vec::new();
    for name in CRATES {
        let src = testkit::workspace_root().join(name).join("src");
        sources.extend(Some(src.join("metrics.rs")).filter(|file| file.is_file()));
        if src.join("metrics").is_dir() {
            sources.extend(files(&src.join("metrics"), "rs"));
        }
    }
    sources.iter().flat_map(|file| declared_in(&text(file))).collect()
}

/// Returns the metric names among the string literals of a source.
fn declared_in(source: &str) -> BTreeSet<String> {
    let literals =
        source.match_indices(PREFIX).filter_map(|(start, _)| source[start + 1..].split('"').next());
    let is_name_char = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    literals.filter(|literal| literal.chars().all(is_name_char)).map(str::to_owned).collect()
}

#[test]
fn names_come_from_literals_not_comments() {
    let source = r#"
        // flashsale_forgotten_total
        const A: &str = "flashsale_a_total";
        gauge!("flashsale_b", "sale" => sale);
        error!("flashsale_c is no name");
    "#;
    let expected = ["flashsale_a_total", "flashsale_b"].map(str::to_owned);
    assert_eq!(declared_in(source), BTreeSet::from(expected));
}
