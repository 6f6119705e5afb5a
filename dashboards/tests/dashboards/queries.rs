//! The queries of the panels, with values in place of Grafana's variables.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::dashboard::dashboards;

/// A query of a panel that Prometheus can run.
pub(crate) struct Query {
    /// Dashboard and title of the panel.
    pub(crate) panel: String,
    pub(crate) expr: String,
}

/// Returns all queries of all panels of all dashboards.
pub(crate) fn queries(variables: &Variables) -> Vec<Query> {
    let mut queries = Vec::new();
    for dashboard in dashboards() {
        for panel in dashboard.data_panels() {
            for target in &panel.targets {
                let expr = variables.substitute(&target.expr).unwrap();
                queries.push(Query { panel: format!("{} / {}", dashboard.uid, panel.title), expr });
            }
        }
    }
    queries
}

/// Values of variables.
pub(crate) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Returns values that select all series over the last minute, for a system that was just started.
    pub(crate) fn live() -> Self {
        let values = [
            ("job", ".+"),
            ("instance", ".+"),
            ("sale", ".+"),
            ("__rate_interval", "1m"),
            ("__interval", "5s"),
            ("__range", "1m"),
        ];
        Self(values.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Replaces the value of one variable.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Returns the text with values in place of `$name` and `${name}`. Fails when a variable has no value.
    pub(crate) fn substitute(&self, text: &str) -> Result<String> {
        let mut pieces = text.split('$');
        let mut substituted = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let (name, rest) = name_and_rest(piece);
            let value = self.0.get(name).with_context(|| format!("no value for `${name}` in {text}"))?;
            substituted.push_str(value);
            substituted.push_str(rest);
        }
        Ok(substituted)
    }
}

/// Splits the text after a `$` into the variable's name and the rest.
fn name_and_rest(piece: &str) -> (&str, &str) {
    if let Some((name, rest)) = piece.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
        return (name, rest);
    }
    let end = piece.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(piece.len());
    piece.split_at(end)
}

#[test]
fn both_spellings_of_a_variable_are_substituted() {
    let query = r#"rate(up{job=~"$job", instance=~"${instance}"}[$__rate_interval])"#;
    let expected = r#"rate(up{job=~".+", instance=~"a:1"}[1m])"#;
    assert_eq!(Variables::live().with("instance", "a:1").substitute(query).unwrap(), expected);
}

#[test]
fn unknown_variable_is_an_error() {
    let error = Variables::live().substitute("up[$foo]").unwrap_err();
    assert_eq!(error.to_string(), "no value for `$foo` in up[$foo]");
}
