//! The queries of the panels.

use crate::{Dashboard, Variables};

/// A query of a panel, with its variables replaced.
#[derive(Clone, Debug)]
pub struct Query {
    /// Uid of the dashboard.
    pub dashboard: String,
    /// Title of the panel.
    pub panel: String,
    /// Query within the panel: `A`, `B`, …
    pub ref_id: String,
    /// The query, with values in place of variables.
    pub expr: String,
}

/// Returns all queries of all panels of all dashboards.
///
/// # Errors
/// Fails when a dashboard cannot be read, or a query contains a variable without a value.
pub fn queries(variables: &Variables) -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    for dashboard in Dashboard::all()? {
        for panel in dashboard.data_panels() {
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
