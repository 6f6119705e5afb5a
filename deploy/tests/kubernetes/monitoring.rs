//! Monitoring uses the files of `dashboards/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use deploy::kubernetes::{Object, Overlay, folder, list, text};
use deploy::repository;
use serde_json::Value;

use crate::Fault;

/// Prometheus scrapes itself without configuration.
const OWN_JOB: &str = "prometheus";
/// The overlay without monitoring.
const UNMONITORED: &str = "local";
const EXPORTER: &str = "redis-exporter";

fn source(name: &str) -> String {
    fs::read_to_string(repository().join("dashboards/prometheus").join(name)).expect("a file of dashboards")
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("a file that Prometheus takes")
}

/// Returns the first object of a kind, in overlays with monitoring.
fn monitoring_object<'a>(overlay: &'a Overlay, kind: &'static str) -> Result<Option<&'a Object>, Fault> {
    if overlay.name == UNMONITORED {
        return Ok(None);
    }
    let namespace = overlay.of_kind("Namespace").next().expect("an overlay has a namespace");
    overlay.of_kind(kind).next().map(Some).ok_or_else(|| Fault::of(namespace, kind, "the overlay has none"))
}

/// The rules are those that `dashboards/` tests.
pub(crate) fn rules(overlay: &Overlay) -> Vec<Fault> {
    let rules = match monitoring_object(overlay, "PrometheusRule") {
        Ok(Some(rules)) => rules,
        Ok(None) => return Vec::new(),
        Err(fault) => return vec![fault],
    };
    let files = ["recording.yml", "alerts.yml"].map(|name| yaml(&source(name)));
    let wanted: Vec<&Value> = files.iter().flat_map(|file| list(&file["groups"])).collect();
    let is_same = list(&rules.0["spec"]["groups"]).iter().eq(wanted);
    let reason = "they differ from dashboards/prometheus; `UPDATE_RULES=1 cargo test -p deploy --test kubernetes rule_manifest` \
               rewrites them";
    if is_same { Vec::new() } else { vec![Fault::of(rules, "/spec/groups", reason)] }
}

fn manifest() -> PathBuf {
    folder().join("components/monitoring/prometheus-rule.yaml")
}

/// Returns the groups of the rule files with their comments, indented below the head of the manifest.
fn manifest_text(head: &str) -> String {
    let mut manifest_text = head.to_owned();
    for name in ["recording.yml", "alerts.yml"] {
        let text = source(name);
        let (_, groups) = text.split_once("\ngroups:\n").expect("a file of rules");
        if name != "recording.yml" {
            manifest_text.push('\n');
        }
        for line in groups.lines() {
            let indent = if line.is_empty() { "" } else { "  " };
            manifest_text += &format!("{indent}{line}\n");
        }
    }
    manifest_text
}

/// The manifest keeps the comments of the files, because people read it too.
#[test]
fn rule_manifest_equals_the_rule_files() {
    let text = fs::read_to_string(manifest()).unwrap();
    let (head, _) = text.split_once("  groups:\n").unwrap();
    let wanted = manifest_text(&format!("{head}  groups:\n"));
    if std::env::var_os("UPDATE_RULES").is_some() {
        fs::write(manifest(), &wanted).unwrap();
    }
    assert!(
        fs::read_to_string(manifest()).unwrap() == wanted,
        "the rules differ; `UPDATE_RULES=1 cargo test -p deploy --test kubernetes rule_manifest` rewrites them"
    );
}

/// Dashboards and alerts refer to jobs by name and depend on their scrape interval.
pub(crate) fn jobs(overlay: &Overlay) -> Vec<Fault> {
    let monitors: Vec<&Object> = overlay.of_kind("PodMonitor").collect();
    match monitoring_object(overlay, "PodMonitor") {
        Ok(Some(_)) => {}
        Ok(None) => return Vec::new(),
        Err(fault) => return vec![fault],
    }
    let configuration = yaml(&source("prometheus.yml"));
    let has_exporter = overlay.find("Deployment", EXPORTER).is_some();
    let known = list(&configuration["scrape_configs"]).iter().map(|job| text(&job["job_name"]));
    let wanted: BTreeSet<&str> =
        known.filter(|job| *job != OWN_JOB && (has_exporter || *job != EXPORTER)).collect();
    let endpoints = |monitor: &'_ Object| list(&monitor.0["spec"]["podMetricsEndpoints"]).to_vec();
    let scraped: Vec<(&Object, Value)> = monitors
        .iter()
        .flat_map(|monitor| endpoints(monitor).into_iter().map(move |it| (*monitor, it)))
        .collect();

    let mut faults = Vec::new();
    let names: BTreeSet<&str> = scraped.iter().map(|(_, endpoint)| job(endpoint)).collect();
    if names != wanted {
        let reason = format!("the jobs are {names:?}, but should be {wanted:?}");
        faults.push(Fault::of(monitors[0], "/spec/podMetricsEndpoints/0/relabelings", reason));
    }
    for (monitor, endpoint) in &scraped {
        for (field, global) in [("interval", "scrape_interval"), ("scrapeTimeout", "scrape_timeout")] {
            if endpoint[field] != configuration["global"][global] {
                faults.push(Fault::of(
                    monitor,
                    format!("/spec/podMetricsEndpoints/0/{field}"),
                    "it differs from prometheus.yml",
                ));
            }
        }
        let configured =
            list(&configuration["scrape_configs"]).iter().find(|it| it["job_name"] == job(endpoint));
        let path = configured.and_then(|job| job["metrics_path"].as_str()).unwrap_or("/metrics");
        if configured.is_some() && endpoint["path"] != path {
            faults.push(Fault::of(
                monitor,
                "/spec/podMetricsEndpoints/0/path",
                format!("it differs from {path}"),
            ));
        }
    }
    faults
}

/// Returns the label `job` of an endpoint's series.
fn job(endpoint: &Value) -> &str {
    let mut relabelings = list(&endpoint["relabelings"]).iter();
    relabelings.rfind(|it| it["targetLabel"] == "job").map_or("", |it| text(&it["replacement"]))
}

/// Grafana gets every dashboard unchanged.
pub(crate) fn dashboards(overlay: &Overlay) -> Vec<Fault> {
    if overlay.name == UNMONITORED {
        return Vec::new();
    }
    let namespace = overlay.of_kind("Namespace").next().expect("an overlay has a namespace");
    let is_for_grafana = |map: &&Object| map.0["metadata"]["labels"]["grafana_dashboard"] == "1";
    let maps: Vec<&Object> = overlay.of_kind("ConfigMap").filter(is_for_grafana).collect();
    let files = fs::read_dir(repository().join("dashboards/grafana/dashboards")).expect("dashboards");
    let mut faults = Vec::new();
    for path in files.map(|file| file.expect("a file").path()) {
        let name = path.file_name().expect("a file name").to_string_lossy().into_owned();
        let wanted = fs::read_to_string(&path).expect("a dashboard");
        if !maps.iter().any(|map| map.0["data"][&name] == wanted) {
            faults.push(Fault::of(namespace, &name, "no ConfigMap has the dashboard"));
        }
    }
    faults
}
