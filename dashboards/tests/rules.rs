//! Each alert is worth waking for: it says what it means and what to do, and fires when it should and only then.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use dashboards::{AlertTest, Rule, RuleFile, TestFile, folder};

const RUNBOOK: &str = "dashboards/README.md#";

fn alerts() -> Vec<(String, Rule)> {
    let rules = RuleFile::rules().expect("rules that can be read");
    rules.into_iter().filter_map(|rule| Some((rule.alert.clone()?, rule))).collect()
}

/// What the tests expect of alerts.
fn expectations() -> Vec<AlertTest> {
    let tests = TestFile::all().expect("tests that can be read").into_iter().flat_map(|file| file.tests);
    tests.flat_map(|test| test.alert_rule_test).collect()
}

#[test]
fn each_alert_says_how_urgent_it_is_what_it_means_and_where_to_read_on() {
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
fn names_of_alerts_are_unique() {
    let names: BTreeSet<_> = alerts().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), alerts().len());
}

#[test]
fn each_alert_has_a_paragraph_in_the_runbook_and_each_paragraph_an_alert() {
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

/// Where a link to a heading goes, for headings of one word.
fn anchor(heading: &str) -> String {
    heading.to_lowercase()
}

#[test]
fn each_alert_has_a_test_that_it_fires_and_one_that_it_stays_silent() {
    for (name, _) in alerts() {
        let of_it: Vec<_> = expectations().into_iter().filter(|test| test.alertname == name).collect();
        assert!(of_it.iter().any(|test| !test.exp_alerts.is_empty()), "{name}: no test sees it fire");
        assert!(of_it.iter().any(|test| test.exp_alerts.is_empty()), "{name}: no test sees it silent");
    }
}

/// A test of an alert that does not exist would find it silent, and be green.
#[test]
fn tests_are_of_alerts_that_exist_and_say_so() {
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
fn promtool_finds_nothing_wrong_with_the_rules() {
    promtool(["check", "rules", "--lint=all", "--lint-fatal"], &RuleFile::paths());
}

#[test]
fn promtool_finds_nothing_wrong_with_the_configuration() {
    promtool(
        ["check", "config", "--lint=all", "--lint-fatal"],
        &[folder().join("prometheus/prometheus.yml")],
    );
}

#[test]
fn alerts_fire_when_they_should_and_only_then() {
    promtool(["test", "rules"], &TestFile::paths().unwrap());
}

/// Runs Prometheus' own tool, and shows what it says if it is not content.
fn promtool<const N: usize>(arguments: [&str; N], files: &[impl AsRef<Path>]) {
    let files = files.iter().map(|file| file.as_ref().as_os_str());
    let run = Command::new("promtool").args(arguments.map(OsStr::new).into_iter().chain(files)).output();
    let output = run.expect("promtool on the PATH: apt-get install prometheus");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {}:\n{}", arguments.join(" "), String::from_utf8_lossy(&said));
}
