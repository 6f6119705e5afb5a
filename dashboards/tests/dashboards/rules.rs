//! Alerts: each explains itself, links to the runbook, and fires exactly when it should.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use dashboards::folder;

use crate::rule_files::{Rule, rule_paths, rule_tests, rules, test_paths};

const RUNBOOK: &str = "dashboards/README.md#";

fn alerts() -> Vec<(String, Rule)> {
    rules().into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect()
}

#[test]
fn alerts_have_severity_texts_and_runbook() {
    for (name, rule) in alerts() {
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("page" | "ticket")), "{name}: {severity:?}");
        for annotation in ["summary", "description", "runbook_url"] {
            let text = rule.annotations.get(annotation);
            assert!(text.is_some_and(|text| !text.is_empty()), "{name}: {annotation}");
        }
    }
}

#[test]
fn alert_names_are_unique() {
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), alerts().len());
}

#[test]
fn runbook_has_one_paragraph_per_alert() {
    let readme = fs::read_to_string(folder().join("README.md")).unwrap();
    let headings = readme.lines().filter_map(|line| line.strip_prefix("### "));
    let anchors: BTreeSet<_> =
        headings.filter(|heading| heading.starts_with("Flashsale")).map(anchor).collect();
    let linked: BTreeSet<_> = alerts()
        .iter()
        .map(|(name, rule)| {
            let link = &rule.annotations["runbook_url"];
            assert_eq!(*link, format!("{RUNBOOK}{}", anchor(name)), "{name}");
            anchor(name)
        })
        .collect();
    assert_eq!(anchors, linked);
}

/// Returns the anchor of a heading of one word.
fn anchor(heading: &str) -> String {
    heading.to_lowercase()
}

#[test]
fn alerts_have_firing_and_silent_tests() {
    let expectations: Vec<_> = rule_tests().into_iter().flat_map(|test| test.alert_rule_test).collect();
    for (name, _) in alerts() {
        let of_alert: Vec<_> = expectations.iter().filter(|test| test.alertname == name).collect();
        assert!(of_alert.iter().any(|test| !test.exp_alerts.is_empty()), "{name}: no test sees it fire");
        assert!(of_alert.iter().any(|test| test.exp_alerts.is_empty()), "{name}: no test sees it silent");
    }
}

/// A test of an unknown alert would find it silent and pass.
#[test]
fn tests_name_an_existing_alert() {
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, _)| name).collect();
    for test in rule_tests() {
        for alert in test.alert_rule_test.iter().map(|expected| &expected.alertname) {
            assert!(names.contains(alert), "{alert}");
            assert!(test.name.starts_with(alert), "{} is about {alert}", test.name);
        }
    }
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(["check", "rules", "--lint=all", "--lint-fatal"], &rule_paths());
}

#[test]
fn promtool_accepts_the_configuration() {
    let configuration = folder().join("prometheus/prometheus.yml");
    promtool(["check", "config", "--lint=all", "--lint-fatal"], &[configuration]);
}

#[test]
fn rule_tests_pass() {
    promtool(["test", "rules"], &test_paths());
}

/// Runs `promtool`, and shows its output when it fails.
fn promtool<const N: usize>(arguments: [&str; N], files: &[PathBuf]) {
    let files = files.iter().map(|file| file.as_os_str());
    let run = Command::new("promtool").args(arguments.map(OsStr::new).into_iter().chain(files)).output();
    let output = run.expect("promtool on the PATH: apt-get install prometheus");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {}:\n{text}", arguments.join(" "));
}
