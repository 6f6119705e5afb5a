//! The Grafana dashboards and Prometheus rules of a flash sale, read into types, for tests that hold them against each
//! other and against the code.
//!
//! The files are kept by hand and are the truth: nothing is generated, and nothing is written. What they are for, and
//! what to do when an alert fires, stands in `dashboards/README.md`.
//!
//! It knows no metric by name. Which there are, the code that counts them says; `tests/names.rs` compares.

mod code;
mod dashboard;
mod promql;
mod queries;
mod rules;
mod variables;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use code::{declared_in, metrics_of_the_code};
pub use dashboard::{
    Annotation, Annotations, Colour, Current, Dashboard, Datasource, Defaults, FieldConfig, GridPos, Link,
    Matcher, Override, OverrideProperty, Panel, Target, Templating, Threshold, Thresholds, Variable,
};
pub use promql::{Selector, selectors};
pub use queries::{Query, queries};
pub use rules::{AlertTest, Expected, Group, InputSeries, Rule, RuleFile, RuleTest, TestFile};
pub use variables::Variables;

/// The folder `dashboards` of this repository.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files of a folder with this extension, by name.
fn files(folder: &Path, extension: &str) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths: Vec<_> = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    let mut files: Vec<_> =
        paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    Ok(files)
}

/// The text of a file.
fn text(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}
