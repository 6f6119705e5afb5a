//! A dashboard file: the parts of Grafana's model that the tests check.

use std::path::Path;

use anyhow::Context as _;
use serde::Deserialize;

use crate::{files, folder, text};

/// A Grafana dashboard.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dashboard {
    /// Identifier in links and bookmarks.
    pub uid: String,
    /// Title.
    pub title: String,
    /// The question that it answers.
    pub description: String,
    /// Tags by which other dashboards find it.
    pub tags: Vec<String>,
    /// Version of Grafana's model.
    pub schema_version: u32,
    /// True when it can be changed in the browser.
    pub editable: bool,
    /// Links to other dashboards.
    pub links: Vec<Link>,
    /// Annotations, shown in all panels.
    pub annotations: Annotations,
    /// Variables that a viewer can choose.
    pub templating: Templating,
    /// Panels, including rows.
    pub panels: Vec<Panel>,
}

/// A link to other dashboards.
#[derive(Clone, Debug, Deserialize)]
pub struct Link {
    /// `dashboards` for all dashboards with the tags.
    #[serde(rename = "type")]
    pub kind: String,
    /// Tags.
    pub tags: Vec<String>,
}

/// Annotations: marks in time.
#[derive(Clone, Debug, Deserialize)]
pub struct Annotations {
    /// The annotations. Those from Prometheus have a query.
    pub list: Vec<Annotation>,
}

/// One annotation.
#[derive(Clone, Debug, Deserialize)]
pub struct Annotation {
    /// Name.
    pub name: String,
    /// Query, if any.
    pub expr: Option<String>,
}

/// Variables that a viewer can choose.
#[derive(Clone, Debug, Deserialize)]
pub struct Templating {
    /// The variables.
    pub list: Vec<Variable>,
}

/// A variable.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Variable {
    /// Name without `$`.
    pub name: String,
    /// Label for viewers.
    pub label: String,
    /// `datasource` or `query`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Data source of its query.
    pub datasource: Option<Datasource>,
    /// The query for its values.
    pub query: String,
    /// True when several values can be chosen.
    pub multi: bool,
    /// True when all values can be chosen at once.
    pub include_all: bool,
    /// Value that stands for all values.
    pub all_value: Option<String>,
    /// Time of refresh. 2 means on every change of the time range.
    pub refresh: u32,
    /// Initial choice.
    pub current: Current,
}

/// The chosen values of a variable.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Current {
    /// The values.
    #[serde(default)]
    pub value: Vec<String>,
}

/// A data source.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Datasource {
    /// `prometheus`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Identifier of the data source.
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
    /// Title.
    pub title: String,
    /// The question that it answers, and which values are bad.
    #[serde(default)]
    pub description: String,
    /// Data source.
    pub datasource: Option<Datasource>,
    /// Position.
    pub grid_pos: GridPos,
    /// Display of values.
    #[serde(default)]
    pub field_config: FieldConfig,
    /// Queries.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// A position on the grid, which is 24 columns wide.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct GridPos {
    /// Height.
    pub h: u32,
    /// Width.
    pub w: u32,
    /// Column.
    pub x: u32,
    /// Row.
    pub y: u32,
}

/// Display of values.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct FieldConfig {
    /// Settings for all series.
    pub defaults: Defaults,
    /// Settings for some series.
    pub overrides: Vec<Override>,
}

/// Display settings for all series.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Defaults {
    /// Unit, in Grafana's notation.
    pub unit: Option<String>,
    /// Values at which the colour changes.
    pub thresholds: Option<Thresholds>,
}

/// Values at which the colour changes.
#[derive(Clone, Debug, Deserialize)]
pub struct Thresholds {
    /// Steps in ascending order.
    pub steps: Vec<Threshold>,
}

/// A colour from a value on.
#[derive(Clone, Debug, Deserialize)]
pub struct Threshold {
    /// Colour.
    pub color: String,
    /// First value with this colour. `None` for the lowest step.
    pub value: Option<f64>,
}

/// Display settings for some series.
#[derive(Clone, Debug, Deserialize)]
pub struct Override {
    /// Selects the series.
    pub matcher: Matcher,
    /// Settings that differ.
    pub properties: Vec<OverrideProperty>,
}

/// Selects series.
#[derive(Clone, Debug, Deserialize)]
pub struct Matcher {
    /// `byName` or `byRegexp`.
    pub id: String,
    /// Name or regular expression.
    pub options: String,
}

/// A setting that differs.
#[derive(Clone, Debug, Deserialize)]
pub struct OverrideProperty {
    /// Name of the property.
    pub id: String,
    /// Value.
    pub value: serde_json::Value,
}

impl OverrideProperty {
    /// Returns the colour, if this property sets a fixed colour.
    pub fn colour(&self) -> Option<Colour> {
        let is_colour = self.id == "color";
        is_colour.then(|| serde_json::from_value(self.value.clone()).ok()).flatten()
    }
}

/// A fixed colour.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Colour {
    /// Name, or `#rrggbb`.
    pub fixed_color: String,
}

/// A query of a panel.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// Unique within its panel.
    pub ref_id: String,
    /// Data source.
    pub datasource: Datasource,
    /// Query with variables.
    pub expr: String,
    /// Names of the series.
    pub legend_format: String,
    /// True when only the latest value is requested.
    pub instant: bool,
}

impl Dashboard {
    /// Reads all dashboards.
    ///
    /// # Errors
    /// Fails when a file cannot be read or is not a dashboard.
    pub fn all() -> anyhow::Result<Vec<Self>> {
        files(&folder().join("grafana/dashboards"), "json")?.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        serde_json::from_str(&text(path)?).with_context(|| path.display().to_string())
    }

    /// Returns all panels except rows.
    pub fn data_panels(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.kind != "row")
    }

    /// Returns the variable with this name.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.templating.list.iter().find(|variable| variable.name == name)
    }
}
