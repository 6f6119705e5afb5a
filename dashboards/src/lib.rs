//! Parsers for the Grafana dashboards and Prometheus rules of a flash sale. Tests use them to check the files against
//! each other and against the code.
//!
//! The files are written by hand and are the source of truth; nothing is generated. `dashboards/README.md` describes
//! their purpose and has the runbook for alerts.
//!
//! This crate contains no list of the project's metrics. The code declares them, and `tests/names.rs` compares.

mod code;
mod dashboard;
mod promql;
mod queries;
mod rules;
mod variables;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::Context as _;

pub use code::{declared_in, declared_metrics};
pub use dashboard::{
    Annotation, Annotations, Colour, Current, Dashboard, Datasource, Defaults, FieldConfig, GridPos, Link,
    Matcher, Override, OverrideProperty, Panel, Target, Templating, Threshold, Thresholds, Variable,
};
pub use promql::{Selector, selectors};
pub use queries::{Query, queries};
pub use rules::{AlertTest, Expected, Group, InputSeries, Rule, RuleFile, RuleTest, TestFile};
pub use variables::Variables;

/// Returns the folder `dashboards` of this repository.
pub fn folder() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| testkit::workspace_root().join("dashboards"));
    &FOLDER
}

/// Returns the files of a folder with this extension, sorted by name.
fn files(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    let mut files: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    Ok(files)
}

/// Reads a file.
fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}
