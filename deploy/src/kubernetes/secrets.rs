//! Secrets. No manifest contains one; operators create them. A table in `deploy/k8s/README.md` lists the required
//! Secrets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, ensure};

/// Beginning of the table's header row. The first column names a Secret, the second its keys.
const HEAD: &str = "| Secret";

/// Reads the keys of each Secret from the table.
///
/// # Errors
/// Fails when the README cannot be read or has no such table.
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

/// Returns the texts between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_rows_list_secrets_and_keys() {
        let text = "`other`\n\n| Secret | Keys | |\n|---|---|---|\n| `a-b` | `x.crt`, `y` | of `z` |\n\n| `no` | `x` |\n";
        let keys = BTreeSet::from(["x.crt".to_owned(), "y".to_owned()]);
        assert_eq!(in_table(text), BTreeMap::from([("a-b".to_owned(), keys)]));
    }
}
