//! Which metrics the code counts: the string literals `"flashsale_…"` of the files that declare them.
//!
//! The sources are read as text, so that this crate depends on no program, and a name that was mistyped on either side
//! is found without starting anything.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::{files, folder, text};

/// The crates that count something, each in its file or folder `metrics`.
const CRATES: [&str; 3] = ["node", "coordinator", "service"];
/// What every metric of ours begins with.
const PREFIX: &str = "\"flashsale_";

/// The names of all metrics that the code declares.
///
/// # Errors
/// When a file cannot be read.
pub fn metrics_of_the_code() -> anyhow::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for file in sources()? {
        names.extend(declared_in(&text(&file)?));
    }
    Ok(names)
}

/// The names of metrics among the string literals of a source.
pub fn declared_in(source: &str) -> BTreeSet<String> {
    let literals =
        source.match_indices(PREFIX).filter_map(|(start, _)| source[start + 1..].split('"').next());
    literals.filter(|literal| literal.chars().all(is_of_a_name)).map(str::to_owned).collect()
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

/// `metrics.rs` and `metrics/*.rs` of each crate, as far as there are such.
fn sources() -> anyhow::Result<Vec<PathBuf>> {
    let mut sources = Vec::new();
    for name in CRATES {
        let src = folder().join("..").join(name).join("src");
        sources.extend(Some(src.join("metrics.rs")).filter(|file| file.is_file()));
        if src.join("metrics").is_dir() {
            sources.extend(files(&src.join("metrics"), "rs")?);
        }
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_literals_and_not_comments() {
        let source = r#"
            // flashsale_forgotten_total
            const A: &str = "flashsale_a_total";
            gauge!("flashsale_b", "sale" => sale);
            error!("flashsale_c is no name");
        "#;
        let expected = ["flashsale_a_total", "flashsale_b"].map(str::to_owned);
        assert_eq!(declared_in(source), BTreeSet::from(expected));
    }
}
