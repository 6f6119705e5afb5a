//! `deploy/k8s`: every overlay as `kubectl` builds it, checked for consistency, against the programs, and against its
//! source files.
//!
//! A policy checks one overlay and reports its faults. [`mutations`] shows that each policy detects faults.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

mod addresses;
mod auth;
mod availability;
mod grace;
mod monitoring;
mod mutations;
mod network;
mod overlay;
mod pods;
mod programs;
mod references;
mod schemas;
mod secrets;
mod selector;
mod settings;
mod workload;

use std::fmt::Display;

use crate::overlay::{Object, Overlay, built};
use crate::workload::{Container, Workload};

/// A check of an overlay.
type Policy = fn(&Overlay, &mut Faults);

/// All policies by name.
const POLICIES: [(&str, Policy); 30] = [
    ("probes", pods::probes),
    ("resources", pods::resources),
    ("restricted", pods::restricted),
    ("non-root", pods::non_root),
    ("read-only", pods::read_only),
    ("tokens", pods::tokens),
    ("images", pods::images),
    ("namespace", pods::namespace),
    ("budgets", availability::budgets),
    ("rolling", availability::rolling),
    ("spread", availability::spread),
    ("separate hosts", availability::separate_hosts),
    ("grace", grace::grace),
    ("settings", settings::known),
    ("program ports", settings::ports),
    ("idle connections", settings::idle_connections),
    ("documentation", settings::documentation),
    ("probe paths", settings::probe_paths),
    ("auth", auth::auth),
    ("references", references::references),
    ("paths", references::paths),
    ("named ports", references::named_ports),
    ("selectors", references::selectors),
    ("addresses", addresses::addresses),
    ("network", network::edges),
    ("own user", secrets::own_user),
    ("plain secrets", secrets::no_plain_secrets),
    ("rules", monitoring::rules),
    ("jobs", monitoring::jobs),
    ("dashboards", monitoring::dashboards),
];

const PROBES: [&str; 3] = ["startupProbe", "livenessProbe", "readinessProbe"];

/// The faults that a policy found, each with its object, field and reason.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn of(policy: Policy, overlay: &Overlay) -> Vec<String> {
        let mut faults = Self::default();
        policy(overlay, &mut faults);
        faults.0
    }

    fn add(&mut self, object: &Object, field: impl Display, reason: impl Display) {
        self.0.push(format!("{} {field}: {reason}", object.title()));
    }

    /// Adds a fault in a field of the pod spec.
    fn add_in_pod(&mut self, workload: &Workload<'_>, field: &str, reason: impl Display) {
        self.add(workload.object, workload.pointer(field), reason);
    }

    fn add_in_container(&mut self, container: &Container<'_>, field: &str, reason: impl Display) {
        self.add(container.workload.object, format!("{} {field}", container.pointer), reason);
    }
}

#[test]
fn every_overlay_passes_every_policy() {
    assert!(built().len() >= 3, "the overlays are local, prod and managed-redis");
    let mut faults = Vec::new();
    for overlay in built() {
        for (name, policy) in POLICIES {
            let found = Faults::of(policy, overlay).into_iter();
            faults.extend(found.map(|fault| format!("{} ({name}): {fault}", overlay.name)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
