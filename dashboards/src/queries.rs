//! What the panels ask Prometheus.

use crate::{Dashboard, Variables};

/// A query of a panel, ready for Prometheus.
#[derive(Clone, Debug)]
pub struct Query {
    /// The dashboard, by its uid.
    pub dashboard: String,
    /// The panel, by its title.
    pub panel: String,
    /// The query within the panel: `A`, `B`, …
    pub ref_id: String,
    /// The query, with values in place of variables.
    pub expr: String,
}

/// All queries of all panels of all dashboards.
///
/// # Errors
/// When a dashboard cannot be read, or a query names a variable without a value.
pub fn queries(variables: &Variables) -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    for dashboard in Dashboard::all()? {
        for panel in dashboard.shown() {
            for target in &panel.targets {
                queries.push(Query {
                    dashboard: dashboard.uid.clone(),
                    panel: panel.title.clone(),
                    ref_id: target.ref_id.clone(),
                    expr: variables.substitute(&target.expr)?,
                });
            }
        }
    }
    Ok(queries)
}
