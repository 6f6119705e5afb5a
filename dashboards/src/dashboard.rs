//! A dashboard as it lies in its file: of Grafana's model as much as the tests ask about.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::{files, folder, text};

/// A dashboard of Grafana.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    /// What links and bookmarks name it by.
    pub uid: String,
    /// Its title.
    pub title: String,
    /// The question it answers.
    pub description: String,
    /// What other dashboards find it by.
    pub tags: Vec<String>,
    /// The version of Grafana's model.
    pub schema_version: u32,
    /// Whether it can be changed in the browser.
    pub editable: bool,
    /// Links to other dashboards.
    pub links: Vec<Link>,
    /// Marks in time that all panels show.
    pub annotations: Annotations,
    /// What a viewer can choose.
    pub templating: Templating,
    /// Rows too: they are panels to Grafana.
    pub panels: Vec<Panel>,
}

/// A link to other dashboards.
#[derive(Clone, Debug, Deserialize)]
pub struct Link {
    /// `dashboards`: those with the tags.
    #[serde(rename = "type")]
    pub kind: String,
    /// The tags.
    pub tags: Vec<String>,
}

/// Marks in time.
#[derive(Clone, Debug, Deserialize)]
pub struct Annotations {
    /// Each with its query, where Prometheus is asked for it.
    pub list: Vec<Annotation>,
}

/// A mark in time.
#[derive(Clone, Debug, Deserialize)]
pub struct Annotation {
    /// Its name.
    pub name: String,
    /// The query, if it has one.
    pub expr: Option<String>,
}

/// What a viewer can choose.
#[derive(Clone, Debug, Deserialize)]
pub struct Templating {
    /// The variables.
    pub list: Vec<Variable>,
}

/// A variable.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Its name, without `$`.
    pub name: String,
    /// What a viewer reads.
    pub label: String,
    /// `datasource` or `query`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whom it asks.
    pub datasource: Option<Datasource>,
    /// What its values come from.
    pub query: String,
    /// Whether several values can be chosen.
    pub multi: bool,
    /// Whether all values can be chosen at once.
    pub include_all: bool,
    /// What stands for all values.
    pub all_value: Option<String>,
    /// When its values are asked for again; 2: whenever the time range changes.
    pub refresh: u32,
    /// What is chosen at first.
    pub current: Current,
}

/// What is chosen of a variable.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Current {
    /// The values.
    #[serde(default)]
    pub value: Vec<String>,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Datasource {
    /// `prometheus`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Which of them.
    pub uid: String,
}

/// A panel, or a row.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Panel {
    /// Unique within its dashboard.
    pub id: u32,
    /// `row`, `stat`, `timeseries`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Its title.
    pub title: String,
    /// The question it answers, and what is bad.
    #[serde(default)]
    pub description: String,
    /// Whom it asks.
    pub datasource: Option<Datasource>,
    /// Its place.
    pub grid_pos: GridPos,
    /// How values look.
    #[serde(default)]
    pub field_config: FieldConfig,
    /// Its queries.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// A place on the grid, which is 24 columns wide.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct GridPos {
    /// Height.
    pub h: u32,
    /// Width.
    pub w: u32,
    /// Column.
    pub x: u32,
    /// Line.
    pub y: u32,
}

/// How values look.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct FieldConfig {
    /// Of all series.
    pub defaults: Defaults,
    /// Of some of them.
    pub overrides: Vec<Override>,
}

/// How values of all series look.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Defaults {
    /// Grafana's name of the unit.
    pub unit: Option<String>,
    /// Where colours change.
    pub thresholds: Option<Thresholds>,
}

/// Where colours change.
#[derive(Clone, Debug, Deserialize)]
pub struct Thresholds {
    /// From the lowest on.
    pub steps: Vec<Threshold>,
}

/// From here on this colour.
#[derive(Clone, Debug, Deserialize)]
pub struct Threshold {
    /// The colour.
    pub color: String,
    /// From here on; none for the lowest.
    pub value: Option<f64>,
}

/// How some series look.
#[derive(Clone, Debug, Deserialize)]
pub struct Override {
    /// Which.
    pub matcher: Matcher,
    /// What differs.
    pub properties: Vec<OverrideProperty>,
}

/// Which series.
#[derive(Clone, Debug, Deserialize)]
pub struct Matcher {
    /// `byName` or `byRegexp`.
    pub id: String,
    /// The name or the expression.
    pub options: String,
}

/// What differs.
#[derive(Clone, Debug, Deserialize)]
pub struct OverrideProperty {
    /// Which property.
    pub id: String,
    /// Its value.
    pub value: serde_json::Value,
}

impl OverrideProperty {
    /// The colour, where it is one that is fixed.
    pub fn colour(&self) -> Option<Colour> {
        let is_colour = self.id == "color";
        is_colour.then(|| serde_json::from_value(self.value.clone()).ok()).flatten()
    }
}

/// A colour that is fixed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Colour {
    /// Its name, or `#rrggbb`.
    pub fixed_color: String,
}

/// A query of a panel.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Unique within its panel.
    pub ref_id: String,
    /// Whom it asks.
    pub datasource: Datasource,
    /// The query, with variables.
    pub expr: String,
    /// What series are called.
    pub legend_format: String,
    /// Whether only the latest moment is asked for.
    pub instant: bool,
}

impl Dashboard {
    /// All of them.
    ///
    /// # Errors
    /// When a file cannot be read or is no dashboard.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        files(&folder().join("grafana/dashboards"), "json")?.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        serde_json::from_str(&text(path)?).with_context(|| path.display().to_string())
    }

    /// Panels that show something: all but rows.
    pub fn shown(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.kind != "row")
    }

    /// The variable of this name.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.templating.list.iter().find(|variable| variable.name == name)
    }
}
