//! Monitoring uses the files of `dashboards/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use deploy::repository;
use serde_json::Value;

use crate::Faults;
use crate::overlay::{Object, Overlay, folder, list, text};

/// Prometheus scrapes itself without configuration.
const OWN_JOB: &str = "prometheus";
/// The overlay without monitoring.
const UNMONITORED: &str = "local";
const EXPORTER: &str = "redis-exporter";
const RULE_FILES: [&str; 2] = ["recording.yml", "alerts.yml"];
const RULES_DIFFER: &str = "they differ from dashboards/prometheus; `UPDATE_RULES=1 cargo test -p deploy --test kubernetes rule_manifest` \
     rewrites them";

fn source(name: &str) -> String {
    fs::read_to_string(repository().join("dashboards/prometheus").join(name)).expect("a file of dashboards")
}

fn yaml(name: &str) -> Value {
    serde_saphyr::from_str(&source(name)).expect("a file that Prometheus takes")
}

/// Returns the objects of a kind that monitors. Their absence is a fault in overlays with monitoring.
fn monitoring_objects<'a>(overlay: &'a Overlay, kind: &'static str, faults: &mut Faults) -> Vec<&'a Object> {
    let objects: Vec<_> = overlay.of_kind(kind).filter(|_| overlay.name != UNMONITORED).collect();
    if objects.is_empty() && overlay.name != UNMONITORED {
        faults.add(overlay.namespace(), kind, "the overlay has none");
    }
    objects
}

/// The rules are those that `dashboards/` tests.
pub(crate) fn rules(overlay: &Overlay, faults: &mut Faults) {
    let files = RULE_FILES.map(yaml);
    let wanted: Vec<&Value> = files.iter().flat_map(|file| list(&file["groups"])).collect();
    for rules in monitoring_objects(overlay, "PrometheusRule", faults) {
        if !list(&rules.0["spec"]["groups"]).iter().eq(wanted.iter().copied()) {
            faults.add(rules, "/spec/groups", RULES_DIFFER);
        }
    }
}

fn manifest() -> PathBuf {
    folder().join("components/monitoring/prometheus-rule.yaml")
}

/// Returns the groups of the rule files with their comments, as the manifest has them.
fn indented_groups() -> String {
    let groups = RULE_FILES.map(|name| {
        let text = source(name);
        let (_, groups) = text.split_once("\ngroups:\n").expect("a file of rules");
        let indented =
            groups.lines().map(|line| if line.is_empty() { line.into() } else { format!("  {line}") });
        indented.map(|line| line + "\n").collect::<String>()
    });
    groups.join("\n")
}

/// The manifest keeps the comments of the files, because people read it too.
#[test]
fn rule_manifest_equals_the_rule_files() {
    let text = fs::read_to_string(manifest()).unwrap();
    let (head, _) = text.split_once("  groups:\n").unwrap();
    let wanted = format!("{head}  groups:\n{}", indented_groups());
    if std::env::var_os("UPDATE_RULES").is_some() {
        fs::write(manifest(), &wanted).unwrap();
    }
    assert!(fs::read_to_string(manifest()).unwrap() == wanted, "{RULES_DIFFER}");
}

/// Dashboards and alerts refer to jobs by name and depend on their scrape interval.
pub(crate) fn jobs(overlay: &Overlay, faults: &mut Faults) {
    let monitors = monitoring_objects(overlay, "PodMonitor", faults);
    let Some(first) = monitors.first() else { return };
    let configuration = yaml("prometheus.yml");
    let configured = list(&configuration["scrape_configs"]);
    let has_exporter = overlay.find("Deployment", EXPORTER).is_some();
    let mut wanted: BTreeSet<&str> = configured.iter().map(|job| text(&job["job_name"])).collect();
    wanted.retain(|job| *job != OWN_JOB && (has_exporter || *job != EXPORTER));

    let endpoints = |monitor: &&'_ Object| list(&monitor.0["spec"]["podMetricsEndpoints"]).to_vec();
    let scraped: Vec<Value> = monitors.iter().flat_map(endpoints).collect();
    let names: BTreeSet<&str> = scraped.iter().map(job).collect();
    if names != wanted {
        let reason = format!("the jobs are {names:?}, but should be {wanted:?}");
        faults.add(first, "/spec/podMetricsEndpoints/0/relabelings", reason);
    }
    for endpoint in &scraped {
        let configured = configured.iter().find(|it| it["job_name"] == job(endpoint));
        let path = configured.map(|job| job.get("metrics_path").cloned().unwrap_or("/metrics".into()));
        let global = |field: &str| Some(configuration["global"][field].clone());
        for (field, wanted) in [
            ("interval", global("scrape_interval")),
            ("scrapeTimeout", global("scrape_timeout")),
            ("path", path),
        ] {
            if wanted.is_some_and(|wanted| endpoint[field] != wanted) {
                faults.add(first, format!("{} {field}", job(endpoint)), "it differs from prometheus.yml");
            }
        }
    }
}

/// Returns the label `job` of an endpoint's series.
fn job(endpoint: &Value) -> &str {
    let mut relabelings = list(&endpoint["relabelings"]).iter();
    relabelings.rfind(|it| it["targetLabel"] == "job").map_or("", |it| text(&it["replacement"]))
}

/// Grafana gets every dashboard unchanged.
pub(crate) fn dashboards(overlay: &Overlay, faults: &mut Faults) {
    if overlay.name == UNMONITORED {
        return;
    }
    let is_for_grafana = |map: &&Object| map.0["metadata"]["labels"]["grafana_dashboard"] == "1";
    let maps: Vec<&Object> = overlay.of_kind("ConfigMap").filter(is_for_grafana).collect();
    for file in fs::read_dir(repository().join("dashboards/grafana/dashboards")).expect("dashboards") {
        let path = file.expect("a file").path();
        let name = path.file_name().expect("a file name").to_string_lossy();
        let wanted = fs::read_to_string(&path).expect("a dashboard");
        if !maps.iter().any(|map| map.0["data"][&*name] == wanted) {
            faults.add(overlay.namespace(), name, "no ConfigMap has the dashboard");
        }
    }
}
