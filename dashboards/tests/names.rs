//! Dashboards, rules and code name the same metrics. Prometheus answers a query for a metric that does not exist with
//! nothing, and without an error: a name that was mistyped would be an alert that never fires.

use std::collections::BTreeSet;

use dashboards::{Dashboard, RuleFile, TestFile, Variables, metrics_of_the_code, queries, selectors};

/// What a histogram `x` is asked by: it has no series `x`.
const OF_A_HISTOGRAM: [&str; 3] = ["_bucket", "_sum", "_count"];

const READABLE: &str = "dashboards and rules that can be read";

/// What others count: Prometheus itself, the process (metrics-process), and Debian's prometheus-redis-exporter 1.45 in
/// front of Redis 7.0.
const OF_OTHERS: [&str; 36] = [
    "ALERTS",
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "process_threads",
    "redis_aof_current_size_bytes",
    "redis_aof_enabled",
    "redis_aof_last_write_status",
    "redis_aof_rewrite_in_progress",
    "redis_blocked_clients",
    "redis_cluster_slots_ok",
    "redis_cluster_state",
    "redis_commands_duration_seconds_total",
    "redis_commands_failed_calls_total",
    "redis_commands_processed_total",
    "redis_commands_rejected_calls_total",
    "redis_commands_total",
    "redis_connected_clients",
    "redis_connected_slave_offset_bytes",
    "redis_connected_slaves",
    "redis_cpu_sys_seconds_total",
    "redis_cpu_user_seconds_total",
    "redis_evicted_keys_total",
    "redis_instance_info",
    "redis_master_link_up",
    "redis_master_repl_offset",
    "redis_memory_max_bytes",
    "redis_memory_used_bytes",
    "redis_memory_used_rss_bytes",
    "redis_net_input_bytes_total",
    "redis_net_output_bytes_total",
    "redis_rejected_connections_total",
    "redis_up",
    "up",
];

/// The metrics that panels, variables and annotations of dashboards name.
fn shown() -> BTreeSet<String> {
    let mut exprs: Vec<_> =
        queries(&Variables::live()).expect("queries").into_iter().map(|query| query.expr).collect();
    for dashboard in Dashboard::all().expect(READABLE) {
        exprs.extend(dashboard.annotations.list.into_iter().filter_map(|annotation| annotation.expr));
    }
    metrics(&exprs)
}

/// The metrics that rules name.
fn watched() -> BTreeSet<String> {
    metrics(&RuleFile::rules().expect(READABLE).into_iter().map(|rule| rule.expr).collect::<Vec<_>>())
}

fn metrics(exprs: &[String]) -> BTreeSet<String> {
    exprs.iter().flat_map(|expr| selectors(expr).expect(READABLE)).map(|selector| selector.metric).collect()
}

/// The series that rules record.
fn recorded() -> BTreeSet<String> {
    RuleFile::rules().expect(READABLE).into_iter().filter_map(|rule| rule.record).collect()
}

/// The metric as the code names it.
fn of_the_code(metric: &str, declared: &BTreeSet<String>) -> Option<String> {
    let of_a_histogram = OF_A_HISTOGRAM.iter().filter_map(|suffix| metric.strip_suffix(suffix));
    [metric].into_iter().chain(of_a_histogram).find(|name| declared.contains(*name)).map(str::to_owned)
}

fn assert_none(wrong: &BTreeSet<String>, what: &str) {
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}

#[test]
fn the_code_declares_metrics() {
    assert!(!metrics_of_the_code().unwrap().is_empty(), "no file declares any");
}

#[test]
fn every_metric_of_ours_that_is_asked_for_is_counted_by_the_code() {
    let declared = metrics_of_the_code().unwrap();
    let asked = shown().into_iter().chain(watched()).filter(|metric| metric.starts_with("flashsale_"));
    let unknown = asked.filter(|metric| of_the_code(metric, &declared).is_none()).collect();
    assert_none(&unknown, "asked for, but no code counts it");
}

#[test]
fn every_metric_that_the_code_counts_is_asked_for() {
    let declared = metrics_of_the_code().unwrap();
    let asked: BTreeSet<_> =
        shown().iter().chain(&watched()).filter_map(|metric| of_the_code(metric, &declared)).collect();
    assert_none(
        &declared.difference(&asked).cloned().collect(),
        "counted, but on no dashboard and in no rule",
    );
}

#[test]
fn metrics_of_others_are_in_one_list_and_all_of_them_are_asked_for() {
    let others: BTreeSet<_> = OF_OTHERS.map(str::to_owned).into();
    let recorded = recorded();
    let asked: BTreeSet<_> = shown()
        .into_iter()
        .chain(watched())
        .filter(|metric| !metric.starts_with("flashsale_") && !recorded.contains(metric))
        .collect();
    assert_eq!(asked, others);
}

#[test]
fn what_is_recorded_is_named_by_level_metric_and_operations_and_asked_for_by_a_rule() {
    let watched = watched();
    for name in recorded() {
        assert_eq!(name.split(':').count(), 3, "{name}");
        assert!(watched.contains(&name), "{name} is recorded for nobody");
    }
}

/// A test of a rule that feeds it a series of another name proves nothing.
#[test]
fn tests_of_rules_feed_them_what_they_ask_for() {
    let watched = watched();
    let fed =
        TestFile::all().unwrap().into_iter().flat_map(|file| file.tests).flat_map(|test| test.input_series);
    let fed: BTreeSet<_> =
        fed.flat_map(|input| selectors(&input.series).unwrap()).map(|s| s.metric).collect();
    assert_none(&fed.difference(&watched).cloned().collect(), "fed to rules, but no rule asks for it");
    let ours = watched.difference(&recorded()).cloned().collect::<BTreeSet<_>>();
    assert_none(&ours.difference(&fed).cloned().collect(), "asked for by rules, but no test feeds it");
}
