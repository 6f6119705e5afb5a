//! Prometheus rules, and the tests for `promtool test rules`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{files, folder, text};

/// A file of rules.
#[derive(Clone, Debug, Deserialize)]
pub struct RuleFile {
    /// Groups of rules.
    pub groups: Vec<Group>,
}

/// A group of rules that are evaluated in order.
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Rules.
    pub rules: Vec<Rule>,
}

/// An alert or a recording rule.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    /// Name of the alert.
    pub alert: Option<String>,
    /// Name of the recorded series.
    pub record: Option<String>,
    /// Query.
    pub expr: String,
    /// Labels of the alert.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Texts for people.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A file of tests.
#[derive(Clone, Debug, Deserialize)]
pub struct TestFile {
    /// Tests.
    pub tests: Vec<RuleTest>,
}

/// A test: input series, and the alerts that they cause.
#[derive(Clone, Debug, Deserialize)]
pub struct RuleTest {
    /// Name.
    pub name: String,
    /// Input series.
    pub input_series: Vec<InputSeries>,
    /// Expected alerts.
    pub alert_rule_test: Vec<AlertTest>,
}

/// An input series.
#[derive(Clone, Debug, Deserialize)]
pub struct InputSeries {
    /// Name with labels.
    pub series: String,
}

/// The expectation for one alert.
#[derive(Clone, Debug, Deserialize)]
pub struct AlertTest {
    /// Name of the alert.
    pub alertname: String,
    /// Expected alerts. Empty when it must stay silent.
    pub exp_alerts: Vec<Expected>,
}

/// An expected alert.
#[derive(Clone, Debug, Deserialize)]
pub struct Expected {
    /// Its labels.
    pub exp_labels: BTreeMap<String, String>,
}

impl RuleFile {
    /// Reads `recording.yml` and `alerts.yml`.
    ///
    /// # Errors
    /// Fails when a file cannot be read or has no rules.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        Self::paths().iter().map(|path| read(path)).collect()
    }

    /// Returns the paths of the rule files.
    pub fn paths() -> [PathBuf; 2] {
        ["recording.yml", "alerts.yml"].map(|name| folder().join("prometheus").join(name))
    }

    /// Returns all rules of all files.
    ///
    /// # Errors
    /// See [`RuleFile::all`].
    pub fn rules() -> anyhow::Result<Vec<Rule>> {
        Ok(Self::all()?.into_iter().flat_map(|file| file.groups).flat_map(|group| group.rules).collect())
    }
}

impl TestFile {
    /// Reads all test files.
    ///
    /// # Errors
    /// Fails when a file cannot be read or has no tests.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        Self::paths()?.iter().map(|path| read(path)).collect()
    }

    /// Returns the paths of the test files.
    ///
    /// # Errors
    /// Fails when their folder cannot be read.
    pub fn paths() -> anyhow::Result<Vec<PathBuf>> {
        files(&folder().join("prometheus/tests"), "yml")
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    serde_saphyr::from_str(&text(path)?).with_context(|| path.display().to_string())
}
