//! What watches is what `dashboards/` has.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use deploy::kubernetes::{Object, Overlay, folder, list, text};
use deploy::repository;
use serde_json::Value;

use crate::Fault;

/// Prometheus watches itself without being told to.
const OWN: &str = "prometheus";
/// The overlay that leaves monitoring out.
const UNWATCHED: &str = "local";
const EXPORTER: &str = "redis-exporter";

fn source(name: &str) -> String {
    fs::read_to_string(repository().join("dashboards/prometheus").join(name)).expect("a file of dashboards")
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("a file that Prometheus takes")
}

/// The one object of a kind, where things are watched at all.
fn watching<'a>(overlay: &'a Overlay, kind: &'static str) -> Result<Option<&'a Object>, Fault> {
    if overlay.name == UNWATCHED {
        return Ok(None);
    }
    let namespace = overlay.of_kind("Namespace").next().expect("an overlay has a namespace");
    overlay.of_kind(kind).next().map(Some).ok_or_else(|| Fault::of(namespace, kind, "there is none"))
}

/// The rules are those that are tested in `dashboards/`.
pub(crate) fn rules(overlay: &Overlay) -> Vec<Fault> {
    let rules = match watching(overlay, "PrometheusRule") {
        Ok(Some(rules)) => rules,
        Ok(None) => return Vec::new(),
        Err(fault) => return vec![fault],
    };
    let files = ["recording.yml", "alerts.yml"].map(|name| yaml(&source(name)));
    let wanted: Vec<&Value> = files.iter().flat_map(|file| list(&file["groups"])).collect();
    let is_same = list(&rules.0["spec"]["groups"]).iter().eq(wanted);
    let why = "they are not those of dashboards/prometheus; `UPDATE_RULES=1 cargo test -p deploy --test kubernetes rules` \
               rewrites them";
    if is_same { Vec::new() } else { vec![Fault::of(rules, "/spec/groups", why)] }
}

fn manifest() -> PathBuf {
    folder().join("components/monitoring/prometheus-rule.yaml")
}

/// The files' groups with their comments, below the manifest's own head.
fn written(head: &str) -> String {
    let mut written = head.to_owned();
    for name in ["recording.yml", "alerts.yml"] {
        let text = source(name);
        let (_, groups) = text.split_once("\ngroups:\n").expect("a file of rules");
        if name != "recording.yml" {
            written.push('\n');
        }
        for line in groups.lines() {
            let indent = if line.is_empty() { "" } else { "  " };
            written += &format!("{indent}{line}\n");
        }
    }
    written
}

/// People read the manifest too, so it keeps the files' comments.
#[test]
fn the_manifest_of_rules_is_the_files_to_the_letter() {
    let text = fs::read_to_string(manifest()).unwrap();
    let (head, _) = text.split_once("  groups:\n").unwrap();
    let wanted = written(&format!("{head}  groups:\n"));
    if std::env::var_os("UPDATE_RULES").is_some() {
        fs::write(manifest(), &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(manifest()).unwrap() == wanted,
        "the rules are others; `UPDATE_RULES=1 cargo test -p deploy --test kubernetes rules` rewrites them"
    );
}

/// Dashboards and alerts ask for jobs by their names, and count on points that come so often.
pub(crate) fn jobs(overlay: &Overlay) -> Vec<Fault> {
    let monitors: Vec<&Object> = overlay.of_kind("PodMonitor").collect();
    match watching(overlay, "PodMonitor") {
        Ok(Some(_)) => {}
        Ok(None) => return Vec::new(),
        Err(fault) => return vec![fault],
    }
    let configuration = yaml(&source("prometheus.yml"));
    let has_exporter = overlay.find("Deployment", EXPORTER).is_some();
    let known = list(&configuration["scrape_configs"]).iter().map(|job| text(&job["job_name"]));
    let wanted: BTreeSet<&str> =
        known.filter(|job| *job != OWN && (has_exporter || *job != EXPORTER)).collect();
    let endpoints = |monitor: &'_ Object| list(&monitor.0["spec"]["podMetricsEndpoints"]).to_vec();
    let watched: Vec<(&Object, Value)> = monitors
        .iter()
        .flat_map(|monitor| endpoints(monitor).into_iter().map(move |it| (*monitor, it)))
        .collect();

    let mut faults = Vec::new();
    let names: BTreeSet<&str> = watched.iter().map(|(_, endpoint)| job(endpoint)).collect();
    if names != wanted {
        let why = format!("the jobs are {names:?}, and should be {wanted:?}");
        faults.push(Fault::of(monitors[0], "/spec/podMetricsEndpoints/0/relabelings", why));
    }
    for (monitor, endpoint) in &watched {
        for (field, global) in [("interval", "scrape_interval"), ("scrapeTimeout", "scrape_timeout")] {
            if endpoint[field] != configuration["global"][global] {
                faults.push(Fault::of(
                    monitor,
                    format!("/spec/podMetricsEndpoints/0/{field}"),
                    "it is another",
                ));
            }
        }
        let configured =
            list(&configuration["scrape_configs"]).iter().find(|it| it["job_name"] == job(endpoint));
        let path = configured.and_then(|job| job["metrics_path"].as_str()).unwrap_or("/metrics");
        if configured.is_some() && endpoint["path"] != path {
            faults.push(Fault::of(monitor, "/spec/podMetricsEndpoints/0/path", format!("it is not {path}")));
        }
    }
    faults
}

/// The label `job` that an endpoint's series end up with.
fn job(endpoint: &Value) -> &str {
    let mut relabelings = list(&endpoint["relabelings"]).iter();
    relabelings.rfind(|it| it["targetLabel"] == "job").map_or("", |it| text(&it["replacement"]))
}

/// Grafana gets every dashboard, as it is.
pub(crate) fn dashboards(overlay: &Overlay) -> Vec<Fault> {
    if overlay.name == UNWATCHED {
        return Vec::new();
    }
    let namespace = overlay.of_kind("Namespace").next().expect("an overlay has a namespace");
    let is_for_grafana = |map: &&Object| map.0["metadata"]["labels"]["grafana_dashboard"] == "1";
    let maps: Vec<&Object> = overlay.of_kind("ConfigMap").filter(is_for_grafana).collect();
    let files = fs::read_dir(repository().join("dashboards/grafana/dashboards")).expect("dashboards");
    let mut faults = Vec::new();
    for path in files.map(|file| file.expect("a file").path()) {
        let name = path.file_name().expect("it has one").to_string_lossy().into_owned();
        let wanted = fs::read_to_string(&path).expect("a dashboard");
        if !maps.iter().any(|map| map.0["data"][&name] == wanted) {
            faults.push(Fault::of(namespace, &name, "no ConfigMap has the dashboard"));
        }
    }
    faults
}
