//! A dashboard file: the parts of Grafana's model that the tests check.

use serde::Deserialize;

use crate::{files, text};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Dashboard {
    pub(crate) uid: String,
    pub(crate) title: String,
    pub(crate) description: String,
    pub(crate) tags: Vec<String>,
    pub(crate) schema_version: u32,
    pub(crate) editable: bool,
    pub(crate) links: Vec<Link>,
    /// Marks in time, shown in all panels.
    pub(crate) annotations: List<Annotation>,
    /// Variables that a viewer can choose.
    pub(crate) templating: List<Variable>,
    /// Panels, including rows.
    pub(crate) panels: Vec<Panel>,
}

#[derive(Deserialize)]
pub(crate) struct List<T> {
    pub(crate) list: Vec<T>,
}

#[derive(Deserialize)]
pub(crate) struct Link {
    /// `dashboards` for all dashboards with the tags.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) tags: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Annotation {
    pub(crate) expr: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) label: String,
    /// `datasource` or `query`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) datasource: Option<Datasource>,
    pub(crate) query: String,
    /// True when several values can be chosen.
    pub(crate) multi: bool,
    pub(crate) include_all: bool,
    pub(crate) all_value: Option<String>,
    /// 2 means on every change of the time range.
    pub(crate) refresh: u32,
    pub(crate) current: Current,
}

/// The chosen values of a variable.
#[derive(Deserialize)]
pub(crate) struct Current {
    #[serde(default)]
    pub(crate) value: Vec<String>,
}

#[derive(Deserialize)]
pub(crate) struct Datasource {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) uid: String,
}

/// A panel, or a row.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Panel {
    pub(crate) id: u32,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) title: String,
    #[serde(default)]
    pub(crate) description: String,
    pub(crate) datasource: Option<Datasource>,
    pub(crate) grid_pos: GridPos,
    #[serde(default)]
    pub(crate) field_config: FieldConfig,
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
}

/// A position on the grid, which is 24 columns wide.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct GridPos {
    pub(crate) h: u32,
    pub(crate) w: u32,
    pub(crate) x: u32,
    pub(crate) y: u32,
}

/// Display of values.
#[derive(Default, Deserialize)]
pub(crate) struct FieldConfig {
    pub(crate) defaults: Defaults,
    pub(crate) overrides: Vec<Override>,
}

#[derive(Default, Deserialize)]
pub(crate) struct Defaults {
    pub(crate) unit: Option<String>,
    pub(crate) thresholds: Option<Thresholds>,
}

#[derive(Deserialize)]
pub(crate) struct Thresholds {
    pub(crate) steps: Vec<Threshold>,
}

#[derive(Deserialize)]
pub(crate) struct Threshold {
    /// First value with the colour of this step. `None` for the lowest step.
    pub(crate) value: Option<f64>,
}

/// Display settings for some series.
#[derive(Deserialize)]
pub(crate) struct Override {
    pub(crate) matcher: Matcher,
    pub(crate) properties: Vec<OverrideProperty>,
}

#[derive(Deserialize)]
pub(crate) struct Matcher {
    /// `byName` or `byRegexp`.
    pub(crate) id: String,
    pub(crate) options: String,
}

#[derive(Deserialize)]
pub(crate) struct OverrideProperty {
    id: String,
    value: serde_json::Value,
}

impl OverrideProperty {
    /// Returns the colour, if this property sets a fixed colour.
    pub(crate) fn colour(&self) -> Option<&str> {
        self.value["fixedColor"].as_str().filter(|_| self.id == "color")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Target {
    pub(crate) ref_id: String,
    pub(crate) datasource: Datasource,
    /// Query with variables.
    pub(crate) expr: String,
}

/// Reads all dashboards.
pub(crate) fn dashboards() -> Vec<Dashboard> {
    let files = files(&dashboards::folder().join("grafana/dashboards"), "json");
    let read = |text: String| serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    files.iter().map(|path| read(text(path))).collect()
}

impl Dashboard {
    /// Returns all panels except rows.
    pub(crate) fn data_panels(&self) -> impl Iterator<Item = &Panel> {
        self.panels.iter().filter(|panel| panel.kind != "row")
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&Variable> {
        self.templating.list.iter().find(|variable| variable.name == name)
    }
}
