//! The dashboards and rules: their form, their names, and their results in a running system.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

mod code;
mod dashboard;
mod lint;
mod live;
mod names;
mod promql;
mod queries;
mod rule_files;
mod rules;

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the files of a folder with this extension, sorted by name.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn assert_none(wrong: impl IntoIterator<Item = String>, what: &str) {
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}
