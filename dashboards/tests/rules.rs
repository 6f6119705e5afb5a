//! Alerts: each explains itself, links to the runbook, and fires exactly when it should.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use dashboards::{AlertTest, Rule, RuleFile, TestFile, folder};

const RUNBOOK: &str = "dashboards/README.md#";

fn alerts() -> Vec<(String, Rule)> {
    let rules = RuleFile::rules().expect("readable rules");
    rules.into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect()
}

/// Returns the expectations of all alert tests.
fn expectations() -> Vec<AlertTest> {
    let tests = TestFile::all().expect("readable tests").into_iter().flat_map(|file| file.tests);
    tests.flat_map(|test| test.alert_rule_test).collect()
}

#[test]
fn alerts_have_severity_texts_and_runbook() {
    for (name, rule) in alerts() {
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(matches!(severity, Some("page" | "ticket")), "{name}: {severity:?}");
        for annotation in ["summary", "description", "runbook_url"] {
            assert!(
                rule.annotations.get(annotation).is_some_and(|text| !text.is_empty()),
                "{name}: {annotation}"
            );
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
    for (name, _) in alerts() {
        let of_alert: Vec<_> = expectations().into_iter().filter(|test| test.alertname == name).collect();
        assert!(of_alert.iter().any(|test| !test.exp_alerts.is_empty()), "{name}: no test sees it fire");
        assert!(of_alert.iter().any(|test| test.exp_alerts.is_empty()), "{name}: no test sees it silent");
    }
}

/// A test of an unknown alert would find it silent and pass.
#[test]
fn tests_name_an_existing_alert() {
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, _)| name).collect();
    for test in TestFile::all().unwrap().into_iter().flat_map(|file| file.tests) {
        for expected in &test.alert_rule_test {
            assert!(names.contains(&expected.alertname), "{}", expected.alertname);
            assert!(
                test.name.starts_with(&expected.alertname),
                "{} is about {}",
                test.name,
                expected.alertname
            );
        }
    }
}

#[test]
fn promtool_accepts_the_rules() {
    promtool(["check", "rules", "--lint=all", "--lint-fatal"], &RuleFile::paths());
}

#[test]
fn promtool_accepts_the_configuration() {
    promtool(
        ["check", "config", "--lint=all", "--lint-fatal"],
        &[folder().join("prometheus/prometheus.yml")],
    );
}

#[test]
fn rule_tests_pass() {
    promtool(["test", "rules"], &TestFile::paths().unwrap());
}

/// Runs `promtool`, and shows its output when it fails.
fn promtool<const N: usize>(arguments: [&str; N], files: &[impl AsRef<Path>]) {
    let files = files.iter().map(|file| file.as_ref().as_os_str());
    let run = Command::new("promtool").args(arguments.map(OsStr::new).into_iter().chain(files)).output();
    let output = run.expect("promtool on the PATH: apt-get install prometheus");
    let output_text = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "promtool {}:\n{}",
        arguments.join(" "),
        String::from_utf8_lossy(&output_text)
    );
}
