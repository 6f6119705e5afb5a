//! `deploy/k8s`: every overlay as `kubectl` builds it, checked for consistency, against the programs, and against its
//! source files.
//!
//! A policy checks one overlay and returns its faults. [`mutations`] shows that each policy detects faults.

mod addresses;
mod availability;
mod grace;
mod monitoring;
mod mutations;
mod network;
mod pods;
mod programs;
mod references;
mod schemas;
mod secrets;
mod settings;

use std::fmt;
use std::sync::OnceLock;

use deploy::kubernetes::{Object, Overlay, overlays};

/// A check of an overlay.
type Policy = fn(&Overlay) -> Vec<Fault>;

/// All policies by name.
const POLICIES: [(&str, Policy); 27] = [
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
    ("probe paths", settings::probe_paths),
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

/// A fault in one field.
#[derive(Debug)]
struct Fault {
    object: String,
    field: String,
    reason: String,
}

impl Fault {
    fn of(object: &Object, field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { object: object.title(), field: field.into(), reason: reason.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.object, self.field, self.reason)
    }
}

/// Returns all overlays, built once.
fn built() -> &'static [Overlay] {
    static BUILT: OnceLock<Vec<Overlay>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let names = overlays().expect("a folder of overlays");
        names.iter().map(|name| Overlay::build(name).unwrap_or_else(|error| panic!("{error:#}"))).collect()
    })
}

/// Returns one overlay.
fn overlay(name: &str) -> &'static Overlay {
    built().iter().find(|overlay| overlay.name == name).expect("an overlay of that name")
}

#[test]
fn every_overlay_passes_every_policy() {
    assert!(built().len() >= 3, "the overlays are local, prod and managed-redis");
    let mut faults = Vec::new();
    for overlay in built() {
        for (name, policy) in POLICIES {
            faults.extend(policy(overlay).iter().map(|fault| format!("{} ({name}): {fault}", overlay.name)));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
