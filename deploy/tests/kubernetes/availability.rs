//! What goes on selling while a part is gone: a host, a zone, a pod that is replaced.

use std::collections::BTreeMap;

use deploy::kubernetes::{Container, Overlay, Workload, list, selects, text};
use deploy::settings;
use serde_json::Value;

use crate::Fault;

/// What a node's last words and the end of its process may take.
const END_S: f64 = 2.0;
/// How long a Redis server waits for its replica, unless it is told otherwise.
const SHUTDOWN_S: f64 = 10.0;
const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// There may be only one host, and no zone.
const LAPTOP: &str = "local";
/// Hosts lie in several zones.
const ZONED: &str = "prod";

/// Workloads of which there are several pods.
fn replicated(overlay: &Overlay) -> Vec<Workload<'_>> {
    let several = |workload: &Workload<'_>| workload.serves() && overlay.replicas(workload) > 1;
    overlay.workloads().into_iter().filter(several).collect()
}

/// Whoever empties hosts leaves all of them but one, and is not held up for ever either.
pub(crate) fn budgets(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in replicated(overlay) {
        let labels = workload.labels();
        let mut budgets = overlay
            .of_kind("PodDisruptionBudget")
            .filter(|budget| selects(&budget.0["spec"]["selector"], &labels));
        let is_one = budgets.next().is_some_and(|budget| budget.0["spec"]["maxUnavailable"] == 1);
        // With two of them for one pod nothing is evicted at all.
        if !is_one || budgets.next().is_some() {
            faults.push(Fault::of(
                workload.object,
                "/spec/replicas",
                "it has not one budget with maxUnavailable 1",
            ));
        }
    }
    faults
}

/// A new pod is there before an old one goes, and has been for a moment.
pub(crate) fn rolling(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in overlay.workloads().iter().filter(|workload| workload.object.kind() == "Deployment") {
        let strategy = &workload.object.0["spec"]["strategy"];
        let update = &strategy["rollingUpdate"];
        let is_gentle = strategy["type"] == "RollingUpdate"
            && update["maxUnavailable"] == 0
            && update["maxSurge"].as_u64().is_some_and(|surge| surge > 0);
        if !is_gentle {
            faults.push(Fault::of(
                workload.object,
                "/spec/strategy",
                "an old pod goes before a new one is there",
            ));
        }
    }
    for workload in overlay.workloads().iter().filter(|workload| workload.object.kind() == "StatefulSet") {
        if workload.object.0["spec"]["updateStrategy"]["type"] != "RollingUpdate" {
            faults.push(Fault::of(workload.object, "/spec/updateStrategy", "nobody updates it"));
        }
    }
    faults
}

/// Pods of a kind lie on several hosts and in several zones.
pub(crate) fn spread(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in replicated(overlay) {
        let field = format!("{}/spec/topologySpreadConstraints", workload.template_at);
        let constraints = list(&workload.spec()["topologySpreadConstraints"]);
        for key in [HOST, ZONE] {
            let constraint = constraints.iter().find(|constraint| constraint["topologyKey"] == key);
            match constraint {
                None => {
                    faults.push(Fault::of(workload.object, &field, format!("it may all be in one {key}")))
                }
                Some(it)
                    if overlay.name == ZONED && key == ZONE && it["whenUnsatisfiable"] != "DoNotSchedule" =>
                {
                    faults.push(Fault::of(workload.object, &field, "it may all be in one zone after all"));
                }
                Some(_) => {}
            }
        }
    }
    faults
}

/// The two of a pair are never on one host.
pub(crate) fn apart(overlay: &Overlay) -> Vec<Fault> {
    let pairs = overlay.workloads().into_iter().filter(|workload| workload.object.kind() == "StatefulSet");
    let may_meet = |workload: &Workload<'_>| {
        let affinity = &workload.spec()["affinity"]["podAntiAffinity"];
        let field = if overlay.name == LAPTOP { "preferred" } else { "required" };
        let terms = list(&affinity[format!("{field}DuringSchedulingIgnoredDuringExecution")]).iter();
        let term = |term: &'_ Value| -> Value {
            if overlay.name == LAPTOP { term["podAffinityTerm"].clone() } else { term.clone() }
        };
        !terms
            .map(term)
            .any(|term| term["topologyKey"] == HOST && selects(&term["labelSelector"], &workload.labels()))
    };
    let fault = |workload: Workload<'_>| {
        let field = format!("{}/spec/affinity", workload.template_at);
        Fault::of(workload.object, field, "a host that dies may take both copies")
    };
    pairs.filter(may_meet).map(fault).collect()
}

/// Whatever a pod does before it ends, it has the time for.
pub(crate) fn grace(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in overlay.containers().iter().filter(|container| container.workload.serves()) {
        let needed = seconds_before(container, overlay) + seconds_to_end(container, overlay) + END_S;
        let spec = container.workload.spec();
        let given = spec["terminationGracePeriodSeconds"].as_f64().unwrap_or(30.0);
        if given < needed {
            let field = format!("{}/spec/terminationGracePeriodSeconds", container.workload.template_at);
            let why = format!("it is killed after {given} s, and needs {needed} s");
            faults.push(Fault::of(container.workload.object, field, why));
        }
    }
    faults
}

/// How long its `preStop` may take.
fn seconds_before(container: &Container<'_>, overlay: &Overlay) -> f64 {
    let hook = &container.value["lifecycle"]["preStop"];
    let script = list(&hook["exec"]["command"]).last().map_or("", text);
    let script = file(container, overlay, script);
    let limits = ["WAIT_LIMIT:=", "FAREWELL_S="];
    let waits = limits.iter().filter_map(|limit| number_after(script, limit));
    hook["sleep"]["seconds"].as_f64().unwrap_or(0.0) + waits.sum::<f64>()
}

/// How long a program takes from SIGTERM on.
fn seconds_to_end(container: &Container<'_>, overlay: &Overlay) -> f64 {
    if let Some(program) = container.program() {
        let environment = overlay.environment(container);
        let drain = ["DRAIN_DELAY", "DRAIN_TIMEOUT"].into_iter();
        return drain
            .filter_map(|variable| effective(program, variable, &environment))
            .map(|text| duration(&text))
            .sum();
    }
    match text_of(container, "CONF_FOLDER") {
        "" => 0.0,
        folder => {
            let configuration = file(container, overlay, &format!("{folder}/redis.conf"));
            number_after(configuration, "\nshutdown-timeout ").unwrap_or(SHUTDOWN_S)
        }
    }
}

fn effective(
    program: &str,
    variable: &str,
    environment: &BTreeMap<String, Option<String>>,
) -> Option<String> {
    let set = environment.get(variable).cloned().flatten();
    set.or_else(|| settings::default_of(program, variable).expect("a program of ours"))
}

fn text_of<'a>(container: &Container<'a>, variable: &str) -> &'a str {
    let entry = list(&container.value["env"]).iter().find(|entry| entry["name"] == variable);
    entry.map_or("", |entry| text(&entry["value"]))
}

/// What a container finds in a file of a ConfigMap.
fn file<'a>(container: &Container<'_>, overlay: &'a Overlay, path: &str) -> &'a str {
    let (folder, name) = path.rsplit_once('/').unwrap_or_default();
    let mounts = list(&container.value["volumeMounts"]);
    let volumes = list(&container.workload.spec()["volumes"]);
    mounts
        .iter()
        .find(|mount| mount["mountPath"] == folder)
        .and_then(|mount| volumes.iter().find(|volume| volume["name"] == mount["name"]))
        .and_then(|volume| overlay.find("ConfigMap", text(&volume["configMap"]["name"])))
        .map_or("", |map| text(&map.0["data"][name]))
}

fn number_after(text: &str, words: &str) -> Option<f64> {
    let (_, rest) = text.split_once(words)?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// In the programs' own words: `500ms`, `10s`, `1m`.
fn duration(text: &str) -> f64 {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let unit = match unit {
        "ms" => 0.001,
        "m" => 60.0,
        _ => 1.0,
    };
    number.parse::<f64>().expect("a duration") * unit
}
