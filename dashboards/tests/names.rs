//! Dashboards, rules and code use the same metric names. Prometheus answers a query for an unknown metric with an
//! empty result and no error, so a mistyped name would be an alert that never fires.

use std::collections::BTreeSet;

use dashboards::{Dashboard, RuleFile, TestFile, Variables, declared_metrics, queries, selectors};

/// Suffixes of the series of a histogram `x`. There is no series `x`.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

const READABLE: &str = "readable dashboards and rules";

/// Metrics of other programs: Prometheus itself, the process (metrics-process), and Debian's
/// prometheus-redis-exporter 1.45 with Redis 7.0.
const THIRD_PARTY_METRICS: [&str; 36] = [
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

/// Returns the metrics in panels, variables and annotations of dashboards.
fn metrics_of_dashboards() -> BTreeSet<String> {
    let mut exprs: Vec<_> =
        queries(&Variables::live()).expect("queries").into_iter().map(|query| query.expr).collect();
    for dashboard in Dashboard::all().expect(READABLE) {
        exprs.extend(dashboard.annotations.list.into_iter().filter_map(|annotation| annotation.expr));
    }
    metrics(&exprs)
}

/// Returns the metrics in rules.
fn metrics_of_rules() -> BTreeSet<String> {
    metrics(&RuleFile::rules().expect(READABLE).into_iter().map(|rule| rule.expr).collect::<Vec<_>>())
}

fn metrics(exprs: &[String]) -> BTreeSet<String> {
    exprs.iter().flat_map(|expr| selectors(expr).expect(READABLE)).map(|selector| selector.metric).collect()
}

/// Returns the series that rules record.
fn recorded() -> BTreeSet<String> {
    RuleFile::rules().expect(READABLE).into_iter().filter_map(|rule| rule.record).collect()
}

/// Returns the metric's name in the code.
fn name_in_code(metric: &str, declared: &BTreeSet<String>) -> Option<String> {
    let of_a_histogram = HISTOGRAM_SUFFIXES.iter().filter_map(|suffix| metric.strip_suffix(suffix));
    [metric].into_iter().chain(of_a_histogram).find(|name| declared.contains(*name)).map(str::to_owned)
}

fn assert_none(wrong: &BTreeSet<String>, what: &str) {
    assert!(wrong.is_empty(), "{what}: {wrong:#?}");
}

#[test]
fn code_declares_metrics() {
    assert!(!declared_metrics().unwrap().is_empty(), "no file declares a metric");
}

#[test]
fn code_declares_every_metric_in_use() {
    let declared = declared_metrics().unwrap();
    let used_metrics = metrics_of_dashboards()
        .into_iter()
        .chain(metrics_of_rules())
        .filter(|metric| metric.starts_with("flashsale_"));
    let unknown = used_metrics.filter(|metric| name_in_code(metric, &declared).is_none()).collect();
    assert_none(&unknown, "used, but not declared in the code");
}

#[test]
fn every_declared_metric_is_in_use() {
    let declared = declared_metrics().unwrap();
    let used_metrics: BTreeSet<_> = metrics_of_dashboards()
        .iter()
        .chain(&metrics_of_rules())
        .filter_map(|metric| name_in_code(metric, &declared))
        .collect();
    assert_none(
        &declared.difference(&used_metrics).cloned().collect(),
        "declared, but on no dashboard and in no rule",
    );
}

#[test]
fn third_party_metrics_equal_the_list() {
    let others: BTreeSet<_> = THIRD_PARTY_METRICS.map(str::to_owned).into();
    let recorded = recorded();
    let used_metrics: BTreeSet<_> = metrics_of_dashboards()
        .into_iter()
        .chain(metrics_of_rules())
        .filter(|metric| !metric.starts_with("flashsale_") && !recorded.contains(metric))
        .collect();
    assert_eq!(used_metrics, others);
}

#[test]
fn recorded_series_are_well_named_and_used() {
    let used = metrics_of_rules();
    for name in recorded() {
        assert_eq!(name.split(':').count(), 3, "{name}");
        assert!(used.contains(&name), "{name} is recorded, but not used");
    }
}

/// A test that feeds a rule a series with another name proves nothing.
#[test]
fn rule_tests_feed_exactly_the_used_metrics() {
    let used = metrics_of_rules();
    let fed =
        TestFile::all().unwrap().into_iter().flat_map(|file| file.tests).flat_map(|test| test.input_series);
    let fed: BTreeSet<_> =
        fed.flat_map(|input| selectors(&input.series).unwrap()).map(|s| s.metric).collect();
    assert_none(&fed.difference(&used).cloned().collect(), "in a rule test, but in no rule");
    let ours = used.difference(&recorded()).cloned().collect::<BTreeSet<_>>();
    assert_none(&ours.difference(&fed).cloned().collect(), "in a rule, but in no rule test");
}
