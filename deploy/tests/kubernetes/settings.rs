//! Settings of the project's programs in their pods.

use std::collections::BTreeMap;

use deploy::settings;
use service::settings::duration;

use crate::overlay::{Overlay, text};
use crate::workload::Container;
use crate::{Faults, PROBES};

/// Distance of a Redis server's bus port from its port for clients.
const BUS: u64 = 10_000;
/// Seconds.
const HOUR: f64 = 3_600.0;
/// Port of the exporter.
const EXPORTER: u64 = 9121;

/// Every variable of a program is one that it reads.
pub(crate) fn known(overlay: &Overlay, faults: &mut Faults) {
    for container in &overlay.containers() {
        let Some(program) = container.program() else { continue };
        let known = settings::of(program).expect("a program of ours");
        for variable in overlay.environment(container).into_keys().filter(|it| !known.contains(it)) {
            faults.add_in_container(container, "env", format!("{program} does not read {variable}"));
        }
    }
}

/// A container declares the ports that its program opens, and the program listens on all addresses.
pub(crate) fn ports(overlay: &Overlay, faults: &mut Faults) {
    for container in &overlay.containers() {
        let (opened, declared) = (opened(container, overlay), container.ports());
        if opened != declared {
            let reason = format!("it declares {declared:?}, but opens {opened:?}");
            faults.add_in_container(container, "ports", reason);
        }
        let host = setting(container, overlay, "HOST");
        let is_ours = container.program().is_some() && container.workload.serves();
        if is_ours && host.as_deref() != Some("0.0.0.0") {
            faults.add_in_container(container, "env", "HOST: it does not listen on all addresses");
        }
    }
}

fn opened(container: &Container<'_>, overlay: &Overlay) -> BTreeMap<&'static str, u64> {
    let port = |variable: &str| setting(container, overlay, variable).and_then(|port| port.parse().ok());
    let is_exporter = text(&container.value["image"]).starts_with("oliver006/redis_exporter:");
    let ports = match container.program() {
        Some("flashsale-node" | "flashsale-coordinator" | "flashsale-ledger") => {
            vec![("http", port("PORT")), ("ops", port("OPS_PORT"))]
        }
        Some(_) => Vec::new(),
        None if is_exporter => vec![("metrics", Some(EXPORTER))],
        // A Redis server.
        None if container.workload.serves() => {
            vec![("redis", port("PORT")), ("bus", port("PORT").map(|port| port + BUS))]
        }
        None => Vec::new(),
    };
    ports.into_iter().filter_map(|(name, port)| Some((name, port?))).collect()
}

/// Returns the value of a variable in a container, or the program's default.
pub(crate) fn setting(container: &Container<'_>, overlay: &Overlay, variable: &str) -> Option<String> {
    let default = |program| settings::default_of(program, variable).expect("a program of ours");
    let value = overlay.environment(container).remove(variable).flatten();
    value.or_else(|| container.program().and_then(default))
}

/// HTTP probes use a path and port on which the program answers. [`crate::programs`] checks that it does.
pub(crate) fn probe_paths(overlay: &Overlay, faults: &mut Faults) {
    for container in &overlay.containers() {
        for probe in PROBES {
            let http_get = &container.value[probe]["httpGet"];
            let (path, port) = match container.program() {
                Some(_) => (health_path(probe), "ops"),
                None => ("/health", "metrics"),
            };
            if http_get.is_object() && (http_get["path"] != path || http_get["port"] != port) {
                let reason = format!("{} is not the health path on this port", http_get["path"]);
                faults.add_in_container(container, probe, reason);
            }
        }
    }
}

/// A program that waits for Redis is alive, but not ready.
pub(crate) fn health_path(probe: &str) -> &'static str {
    if probe == "readinessProbe" { "/readyz" } else { "/healthz" }
}

/// A node keeps an idle connection longer than the proxies in front of it. Otherwise they would send requests into
/// connections that it is closing, and answer 502.
pub(crate) fn idle_connections(overlay: &Overlay, faults: &mut Faults) {
    // Envoy, the class of the Gateway, keeps them for an hour. Other proxies keep them for 60 to 75 seconds.
    let needed = if has_any(overlay, "Gateway") { HOUR } else { 75.0 };
    for container in &nodes(overlay) {
        let given = setting(container, overlay, "IDLE_TIMEOUT").expect("it has a default");
        if duration(&given).expect("a duration").as_secs_f64() <= needed {
            let reason = format!("IDLE_TIMEOUT: {given} is not longer than the {needed} s of the proxies");
            faults.add_in_container(container, "env", reason);
        }
    }
}

/// A node with a public address serves no documentation.
pub(crate) fn documentation(overlay: &Overlay, faults: &mut Faults) {
    let is_public = has_any(overlay, "Gateway") || has_any(overlay, "Ingress");
    for container in nodes(overlay).iter().filter(|_| is_public) {
        if setting(container, overlay, "API_DOCS").as_deref() != Some("false") {
            faults.add_in_container(container, "env", "API_DOCS: the documentation is public");
        }
    }
}

fn has_any(overlay: &Overlay, kind: &str) -> bool {
    overlay.of_kind(kind).next().is_some()
}

fn nodes(overlay: &Overlay) -> Vec<Container<'_>> {
    let mut containers = overlay.containers();
    containers.retain(|container| container.program() == Some("flashsale-node"));
    containers
}
