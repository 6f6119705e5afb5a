//! Secrets: they are made by people, and no manifest has one. What there must be is a table in `deploy/k8s/README.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};

/// The column that names a Secret; the next one has its keys.
const HEAD: &str = "| Secret";

/// The keys of each Secret, as the table has them.
///
/// # Errors
/// When there is no table.
pub fn secrets() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let path = super::folder().join("README.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let secrets = in_table(&text);
    ensure!(!secrets.is_empty(), "{} has no table of Secrets", path.display());
    Ok(secrets)
}

fn in_table(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let table =
        text.lines().skip_while(|line| !line.starts_with(HEAD)).take_while(|line| line.starts_with('|'));
    let rows = table.filter_map(|line| {
        let mut cells = line.split('|').skip(1);
        Some((quoted(cells.next()?).next()?, quoted(cells.next()?).collect()))
    });
    rows.collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_secret_with_its_keys() {
        let text = "`other`\n\n| Secret | Keys | |\n|---|---|---|\n| `a-b` | `x.crt`, `y` | of `z` |\n\n| `no` | `x` |\n";
        let keys = BTreeSet::from(["x.crt".to_owned(), "y".to_owned()]);
        assert_eq!(in_table(text), BTreeMap::from([("a-b".to_owned(), keys)]));
    }
}
