//! Dashboards, rules and code use the same metric names. Prometheus answers a query for an unknown metric with an
//! empty result and no error, so a mistyped name would be an alert that never fires.

use std::collections::BTreeSet;

use crate::assert_none;
use crate::code::declared_metrics;
use crate::dashboard::dashboards;
use crate::promql::selectors;
use crate::queries::{Variables, queries};
use crate::rule_files::{rule_tests, rules};

/// Suffixes of the series of a histogram `x`. There is no series `x`.
const HISTOGRAM_SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

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
    let annotations = dashboards().into_iter().flat_map(|dashboard| dashboard.annotations.list);
    let queries = queries(&Variables::live()).into_iter().map(|query| query.expr);
    metrics(queries.chain(annotations.filter_map(|annotation| annotation.expr)))
}

/// Returns the metrics in rules.
fn metrics_of_rules() -> BTreeSet<String> {
    metrics(rules().into_iter().map(|rule| rule.expr))
}

/// Returns the metrics in panels, annotations and rules.
fn used_metrics() -> BTreeSet<String> {
    &metrics_of_dashboards() | &metrics_of_rules()
}

fn metrics(exprs: impl Iterator<Item = String>) -> BTreeSet<String> {
    exprs.flat_map(|expr| selectors(&expr).unwrap()).map(|selector| selector.metric).collect()
}

/// Returns the series that rules record.
fn recorded() -> BTreeSet<String> {
    rules().into_iter().filter_map(|rule| rule.record).collect()
}

/// Returns the metric's name in the code.
fn name_in_code(metric: &str, declared: &BTreeSet<String>) -> Option<String> {
    let of_a_histogram = HISTOGRAM_SUFFIXES.iter().filter_map(|suffix| metric.strip_suffix(suffix));
    [metric].into_iter().chain(of_a_histogram).find(|name| declared.contains(*name)).map(str::to_owned)
}

#[test]
fn code_declares_metrics() {
    assert!(!declared_metrics().is_empty(), "no file declares a metric");
}

#[test]
fn code_declares_every_metric_in_use() {
    let declared = declared_metrics();
    let ours = used_metrics().into_iter().filter(|metric| metric.starts_with("flashsale_"));
    let unknown = ours.filter(|metric| name_in_code(metric, &declared).is_none());
    assert_none(unknown, "used, but not declared in the code");
}

#[test]
fn every_declared_metric_is_in_use() {
    let declared = declared_metrics();
    let used = used_metrics().iter().filter_map(|metric| name_in_code(metric, &declared)).collect();
    assert_none(&declared - &used, "declared, but on no dashboard and in no rule");
}

#[test]
fn third_party_metrics_equal_the_list() {
    let mut others = &used_metrics() - &recorded();
    others.retain(|metric| !metric.starts_with("flashsale_"));
    assert_eq!(others, THIRD_PARTY_METRICS.map(str::to_owned).into());
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
    let fed = metrics(rule_tests().into_iter().flat_map(|test| test.input_series).map(|input| input.series));
    assert_none(&fed - &used, "in a rule test, but in no rule");
    assert_none(&(&used - &recorded()) - &fed, "in a rule, but in no rule test");
}
