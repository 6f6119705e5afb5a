//! Settings of the project's programs in their pods.

use std::collections::BTreeMap;

use deploy::kubernetes::{Container, Overlay, text};
use deploy::settings;
use serde_json::Value;

use crate::Fault;

/// The ports of each program: name and variable.
const NODE: [(&str, &str); 2] = [("http", "PORT"), ("ops", "OPS_PORT")];
const COORDINATOR: [(&str, &str); 1] = [("http", "PORT")];
/// Distance of a Redis server's bus port from its port for clients.
const BUS: u64 = 10_000;
/// Port of the exporter.
const EXPORTER: u64 = 9121;

/// Every variable of a program is one that it reads.
pub(crate) fn known(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        let Some(program) = container.program() else { continue };
        let known = settings::of(program).expect("a program of ours");
        for variable in overlay.environment(container).into_keys().filter(|it| !known.contains(it)) {
            let reason = format!("{program} does not read {variable}");
            faults.push(Fault::of(container.workload.object, format!("{}/env", container.pointer), reason));
        }
    }
    faults
}

/// A container declares the ports that its program opens, and the program listens on all addresses.
pub(crate) fn ports(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        let mut fault = |field: &str, reason: String| {
            faults.push(Fault::of(
                container.workload.object,
                format!("{}/{field}", container.pointer),
                reason,
            ));
        };
        let (opened, declared) = (opened(container, overlay), container.ports());
        if opened != declared {
            fault("ports", format!("it declares {declared:?}, but opens {opened:?}"));
        }
        if container.program().is_some()
            && container.workload.serves()
            && setting(container, overlay, "HOST").is_none_or(|address| address != "0.0.0.0")
        {
            fault("env", "HOST: it does not listen on all addresses".to_owned());
        }
    }
    faults
}

fn opened(container: &Container<'_>, overlay: &Overlay) -> BTreeMap<&'static str, u64> {
    let port = |variable: &str| setting(container, overlay, variable).and_then(|port| port.parse().ok());
    let ours = |ports: &'static [(&str, &str)]| {
        ports.iter().filter_map(|(name, variable)| Some((*name, port(variable)?))).collect()
    };
    match container.program() {
        Some("flashsale-node") => ours(&NODE),
        Some("flashsale-coordinator") => ours(&COORDINATOR),
        Some(_) => BTreeMap::new(),
        None if text(&container.value["image"]).starts_with("oliver006/redis_exporter:") => {
            BTreeMap::from([("metrics", EXPORTER)])
        }
        // A Redis server.
        None if container.workload.serves() => port("PORT")
            .map_or_else(BTreeMap::new, |port: u64| BTreeMap::from([("redis", port), ("bus", port + BUS)])),
        None => BTreeMap::new(),
    }
}

/// Returns the value of a variable in a container, or the program's default.
pub(crate) fn setting(container: &Container<'_>, overlay: &Overlay, variable: &str) -> Option<String> {
    let default = |program| settings::default_of(program, variable).expect("a program of ours");
    let value = overlay.environment(container).remove(variable).flatten();
    value.or_else(|| container.program().and_then(default))
}

/// HTTP probes use a path and port on which the program answers. [`crate::programs`] checks that it does.
pub(crate) fn probe_paths(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let http_get = &container.value[probe]["httpGet"];
            if http_get.is_object() && !answers(container, probe, http_get) {
                let (field, path) = (format!("{}/{probe}", container.pointer), text(&http_get["path"]));
                faults.push(Fault::of(
                    container.workload.object,
                    field,
                    format!("{path} is not the health path on this port"),
                ));
            }
        }
    }
    faults
}

fn answers(container: &Container<'_>, probe: &str, http_get: &Value) -> bool {
    let (path, port) = match container.program() {
        Some("flashsale-node") => (health_path(probe), "ops"),
        Some(_) => (health_path(probe), "http"),
        None => ("/health", "metrics"),
    };
    http_get["path"] == path && http_get["port"] == port
}

/// A program that waits for Redis is alive, but not ready.
pub(crate) fn health_path(probe: &str) -> &'static str {
    if probe == "readinessProbe" { "/readyz" } else { "/healthz" }
}
