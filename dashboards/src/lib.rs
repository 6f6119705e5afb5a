//! The Grafana dashboards and Prometheus rules of a flash sale. They are written by hand and are the source of truth;
//! nothing is generated. `dashboards/README.md` describes their purpose and has the runbook for alerts.
//!
//! Tests check the files against each other, against the code and against a running system. No list of the project's
//! metrics is kept here: the code declares them, and a test compares.

use std::path::PathBuf;

/// Returns the folder `dashboards` of this repository.
pub fn folder() -> PathBuf {
    testkit::workspace_root().join("dashboards")
}
