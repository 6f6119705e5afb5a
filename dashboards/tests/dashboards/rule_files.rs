//! Prometheus rules, and the tests for `promtool test rules`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dashboards::folder;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::{files, text};

#[derive(Deserialize)]
struct RuleFile {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

/// An alert or a recording rule.
#[derive(Deserialize)]
pub(crate) struct Rule {
    pub(crate) alert: Option<String>,
    /// Name of the recorded series.
    pub(crate) record: Option<String>,
    pub(crate) expr: String,
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct TestFile {
    tests: Vec<RuleTest>,
}

/// A test: input series, and the alerts that they cause.
#[derive(Deserialize)]
pub(crate) struct RuleTest {
    pub(crate) name: String,
    pub(crate) input_series: Vec<InputSeries>,
    pub(crate) alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
pub(crate) struct InputSeries {
    /// Name with labels.
    pub(crate) series: String,
}

#[derive(Deserialize)]
pub(crate) struct AlertTest {
    pub(crate) alertname: String,
    /// Empty when the alert must stay silent.
    pub(crate) exp_alerts: Vec<IgnoredAny>,
}

pub(crate) fn rule_paths() -> Vec<PathBuf> {
    ["recording.yml", "alerts.yml"].map(|name| folder().join("prometheus").join(name)).into()
}

pub(crate) fn test_paths() -> Vec<PathBuf> {
    files(&folder().join("prometheus/tests"), "yml")
}

/// Returns all rules of all files.
pub(crate) fn rules() -> Vec<Rule> {
    read::<RuleFile>(rule_paths()).flat_map(|file| file.groups).flat_map(|group| group.rules).collect()
}

/// Returns all tests of all files.
pub(crate) fn rule_tests() -> Vec<RuleTest> {
    read::<TestFile>(test_paths()).flat_map(|file| file.tests).collect()
}

fn read<T: DeserializeOwned>(paths: Vec<PathBuf>) -> impl Iterator<Item = T> {
    let parse = |path: PathBuf| serde_saphyr::from_str(&text(&path)).map_err(|error| (path, error)).unwrap();
    paths.into_iter().map(parse)
}
