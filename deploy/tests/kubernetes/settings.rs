//! What our programs are told, and what they do with it.

use std::collections::BTreeMap;

use deploy::kubernetes::{Container, Overlay, text};
use deploy::settings;
use serde_json::Value;

use crate::Fault;

/// What each program opens: its ports' names, the variables that say which, and where it answers health questions.
const NODE: [(&str, &str); 2] = [("http", "PORT"), ("ops", "OPS_PORT")];
const COORDINATOR: [(&str, &str); 1] = [("http", "PORT")];
/// How far a Redis server's bus is from the port for clients.
const BUS: u64 = 10_000;
/// What the exporter listens on.
const EXPORTER: u64 = 9121;

/// Every variable of a program of ours is one that it reads.
pub(crate) fn known(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        let Some(program) = container.program() else { continue };
        let known = settings::of(program).expect("a program of ours");
        for variable in overlay.environment(container).into_keys().filter(|it| !known.contains(it)) {
            let why = format!("{program} reads no {variable}");
            faults.push(Fault::of(container.workload.object, format!("{}/env", container.at), why));
        }
    }
    faults
}

/// A container says that it has the ports that its program opens, and opens them for others.
pub(crate) fn ports(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        let mut fault = |field: &str, why: String| {
            faults.push(Fault::of(container.workload.object, format!("{}/{field}", container.at), why));
        };
        let (opened, said) = (opened(container, overlay), container.ports());
        if opened != said {
            fault("ports", format!("it says {said:?}, and opens {opened:?}"));
        }
        if container.program().is_some()
            && setting(container, overlay, "HOST").is_none_or(|address| address != "0.0.0.0")
        {
            fault("env", "HOST: nobody else reaches it".to_owned());
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
        Some(_) => ours(&COORDINATOR),
        None if text(&container.value["image"]).starts_with("oliver006/redis_exporter:") => {
            BTreeMap::from([("metrics", EXPORTER)])
        }
        // A Redis server.
        None if container.workload.serves() => port("PORT")
            .map_or_else(BTreeMap::new, |port: u64| BTreeMap::from([("redis", port), ("bus", port + BUS)])),
        None => BTreeMap::new(),
    }
}

/// What holds for a container: what it is told, or what its program does otherwise.
pub(crate) fn setting(container: &Container<'_>, overlay: &Overlay, variable: &str) -> Option<String> {
    let default = |program| settings::default_of(program, variable).expect("a program of ours");
    let told = overlay.environment(container).remove(variable).flatten();
    told.or_else(|| container.program().and_then(default))
}

/// Whoever is asked over HTTP is asked where it answers; that a program does, [`crate::programs`] sees.
pub(crate) fn probe_paths(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let asked = &container.value[probe]["httpGet"];
            if asked.is_object() && !answers(container, probe, asked) {
                let (field, path) = (format!("{}/{probe}", container.at), text(&asked["path"]));
                faults.push(Fault::of(
                    container.workload.object,
                    field,
                    format!("{path} is not what to ask there"),
                ));
            }
        }
    }
    faults
}

fn answers(container: &Container<'_>, probe: &str, asked: &Value) -> bool {
    let (path, port) = match container.program() {
        Some("flashsale-node") => (health_path(probe), "ops"),
        Some(_) => (health_path(probe), "http"),
        None => ("/health", "metrics"),
    };
    asked["path"] == path && asked["port"] == port
}

/// A program that waits for Redis lives, and is not ready.
pub(crate) fn health_path(probe: &str) -> &'static str {
    if probe == "readinessProbe" { "/readyz" } else { "/healthz" }
}
