//! Rules of Prometheus, and what `promtool test rules` is asked to try on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{files, folder, text};

/// A file of rules.
#[derive(Clone, Debug, Deserialize)]
pub struct RuleFile {
    /// Its groups.
    pub groups: Vec<Group>,
}

/// Rules that are evaluated one after the other.
#[derive(Clone, Debug, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// A rule: an alert, or a series that is recorded.
#[derive(Clone, Debug, Deserialize)]
pub struct Rule {
    /// The name of the alert.
    pub alert: Option<String>,
    /// The name of the series.
    pub record: Option<String>,
    /// The query.
    pub expr: String,
    /// Labels of the alert.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What people read.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A file of tests.
#[derive(Clone, Debug, Deserialize)]
pub struct TestFile {
    /// The tests.
    pub tests: Vec<RuleTest>,
}

/// A story of series, and the alerts it ends in.
#[derive(Clone, Debug, Deserialize)]
pub struct RuleTest {
    /// What it tells.
    pub name: String,
    /// What is measured meanwhile.
    pub input_series: Vec<InputSeries>,
    /// The alerts.
    pub alert_rule_test: Vec<AlertTest>,
}

/// What is measured.
#[derive(Clone, Debug, Deserialize)]
pub struct InputSeries {
    /// The name with its labels.
    pub series: String,
}

/// Whether an alert fires.
#[derive(Clone, Debug, Deserialize)]
pub struct AlertTest {
    /// The alert.
    pub alertname: String,
    /// How it fires; nothing if it stays silent.
    pub exp_alerts: Vec<Expected>,
}

/// How an alert fires.
#[derive(Clone, Debug, Deserialize)]
pub struct Expected {
    /// With these labels.
    pub exp_labels: BTreeMap<String, String>,
}

impl RuleFile {
    /// `recording.yml` and `alerts.yml`.
    ///
    /// # Errors
    /// When one cannot be read or has no rules.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        Self::paths().iter().map(|path| read(path)).collect()
    }

    /// Where they are.
    pub fn paths() -> [PathBuf; 2] {
        ["recording.yml", "alerts.yml"].map(|name| folder().join("prometheus").join(name))
    }

    /// All rules of all files.
    ///
    /// # Errors
    /// See [`RuleFile::all`].
    pub fn rules() -> anyhow::Result<Vec<Rule>> {
        Ok(Self::all()?.into_iter().flat_map(|file| file.groups).flat_map(|group| group.rules).collect())
    }
}

impl TestFile {
    /// All of them.
    ///
    /// # Errors
    /// When one cannot be read or has no tests.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        Self::paths()?.iter().map(|path| read(path)).collect()
    }

    /// Where they are.
    ///
    /// # Errors
    /// When their folder cannot be read.
    pub fn paths() -> anyhow::Result<Vec<PathBuf>> {
        files(&folder().join("prometheus/tests"), "yml")
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    serde_saphyr::from_str(&text(path)?).with_context(|| path.display().to_string())
}
