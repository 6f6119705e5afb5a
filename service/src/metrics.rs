//! Prometheus metrics: the exporter, and the metrics that every process has.
//!
//! Counters and histograms are updated when something happens. Gauges are set on each scrape, so they cost nothing in
//! between. A gauge that is no longer set, because its lane is closed or its coordinator no longer leads, disappears.
//! Each metric is defined in one file of its binary, and its doc comment is its HELP. A counter cannot disappear, so the
//! series of a sale that is at rest are left out when the metrics are shown.

mod requests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

use crate::operators::Refusal;
pub(crate) use requests::Requests;
pub use requests::expect_requests;

/// Defines constants for metric names by kind, and a function `describe` that registers each doc comment as HELP.
#[macro_export]
macro_rules! name_metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $metric:ident = $name:literal;)+) => {
        $($(#[doc = $help])+ const $metric: &str = $name;)+

        fn describe() {
            $($crate::metrics::MetricKind::$kind.describe($metric, concat!($($help),+));)+
        }
    };
}

crate::name_metrics! {
    /// Time from a request to the head of its response, by route pattern, method and status.
    Histogram REQUEST_DURATION = "flashsale_http_request_duration_seconds";
    /// Connections to the port for clients that are open.
    Gauge CONNECTIONS = "flashsale_connections";
    /// Connections that were closed because the limit, or the share of their client network, was reached: new ones, or on
    /// ports that are not public, those that waited longest for a request.
    Counter CONNECTIONS_REFUSED = "flashsale_connections_refused_total";
    /// Requests to the API for operators that were refused: without a token, with a wrong one, or beyond the role of
    /// the operator.
    Counter OPERATOR_REFUSALS = "flashsale_operator_refusals_total";
    /// Always 1; the labels name the version and revision that runs.
    Gauge BUILD_INFO = "flashsale_build_info";
    /// Worker threads of the runtime.
    Gauge RUNTIME_WORKERS = "flashsale_runtime_workers";
    /// Tasks that have not finished.
    Gauge RUNTIME_TASKS = "flashsale_runtime_tasks";
    /// Tasks that wait for any worker, without those that wait for a specific one.
    Gauge RUNTIME_QUEUE_DEPTH = "flashsale_runtime_queue_depth";
    /// Time that all workers together spent busy. Only grows; a gauge, because counters here are whole numbers.
    Gauge RUNTIME_BUSY = "flashsale_runtime_busy_seconds_total";
}

/// Registers the counters of refused operators with 0. A series that first appears at 1 has no rate.
pub(crate) fn register_operator_refusals() {
    for refusal in Refusal::ALL {
        metrics::counter!(OPERATOR_REFUSALS, "reason" => refusal.as_str()).increment(0);
    }
}

/// Counts a refused request of an operator.
pub(crate) fn operator_refused(refusal: Refusal) {
    metrics::counter!(OPERATOR_REFUSALS, "reason" => refusal.as_str()).increment(1);
}

/// Kind of a metric.
#[derive(Clone, Copy, Debug)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observed values by range.
    Histogram,
}

impl MetricKind {
    /// Registers the HELP of a metric. Called by [`name_metrics`](crate::name_metrics).
    pub fn describe(self, name: &'static str, help: &'static str) {
        let help = help.trim_start();
        match self {
            Self::Counter => describe_counter!(name, help),
            Self::Gauge => describe_gauge!(name, help),
            Self::Histogram => describe_histogram!(name, help),
        }
    }
}

/// Bucket bounds for durations, in seconds. A function call of one buyer takes about 100 us, and no client waits longer
/// than 10 s. Three bounds per decade locate a quantile within a factor of 2.5.
const DURATION_BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bucket bounds for sizes of batches, up to the largest pipeline.
const SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// Time between two runs that sort recorded values into buckets. Until then every value is kept in memory, so a busy
/// node must not wait long.
const UPKEEP_PERIOD: Duration = Duration::from_secs(1);
/// A gauge that was not set for this long before a scrape is removed, because its subject no longer exists.
const GAUGE_IDLE: Duration = Duration::from_millis(500);
/// The text format that Prometheus reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Sets gauges on a scrape.
type GaugeUpdater = Box<dyn Fn() + Send + Sync>;

/// Tells whether the series of a sale are shown.
type SaleFilter = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Renders all metrics of this process. Cheap to clone.
#[derive(Clone)]
pub struct Exporter(Arc<Inner>);

struct Inner {
    recorded: PrometheusHandle,
    process: metrics_process::Collector,
    updaters: Mutex<Vec<GaugeUpdater>>,
    shows_sale: OnceLock<SaleFilter>,
}

impl Exporter {
    /// Installs the recorder: from here on metrics are kept. `version` is the version of the binary; `describe_own`
    /// registers its own metrics.
    ///
    /// # Errors
    /// Fails when another recorder is installed already.
    pub fn install(version: &'static str, describe_own: fn()) -> anyhow::Result<Self> {
        let exporter = Self::of(builder().install_recorder().context("metrics")?);
        exporter.describe_all(describe_own);
        exporter.on_scrape(move || show_process(version));
        Ok(exporter)
    }

    fn of(recorded: PrometheusHandle) -> Self {
        Self(Arc::new(Inner {
            recorded,
            process: metrics_process::Collector::default(),
            updaters: Mutex::default(),
            shows_sale: OnceLock::new(),
        }))
    }

    fn describe_all(&self, describe_own: fn()) {
        describe();
        describe_own();
        self.0.process.describe();
        metrics::counter!(CONNECTIONS_REFUSED).increment(0);
    }

    /// Registers a function that sets gauges on each scrape. `update` must not block.
    pub fn on_scrape(&self, update: impl Fn() + Send + Sync + 'static) {
        self.updaters().push(Box::new(update));
    }

    /// Shows only the series of sales for which this returns true. Series without a sale are always shown.
    ///
    /// # Panics
    /// When it is called twice.
    pub fn show_sales(&self, shows_sale: impl Fn(&str) -> bool + Send + Sync + 'static) {
        assert!(self.0.shows_sale.set(Box::new(shows_sale)).is_ok(), "the filter is set once");
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        let exporter = self.clone();
        let show = async move || ([(CONTENT_TYPE, TEXT_FORMAT)], exporter.show());
        Router::new().route("/metrics", get(show))
    }

    fn show(&self) -> String {
        self.0.process.collect();
        for update in &*self.updaters() {
            // A panicking update must not take the other metrics with it.
            if catch_unwind(AssertUnwindSafe(update)).is_err() {
                tracing::error!("a gauge could not be updated");
            }
        }
        let text = self.0.recorded.render();
        match self.0.shows_sale.get() {
            Some(shows_sale) => without_hidden_sales(&text, shows_sale),
            None => text,
        }
    }

    /// Sorts recorded values into buckets while `work` runs.
    pub async fn with_upkeep<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ticks = tokio::time::interval(UPKEEP_PERIOD);
        let upkeep = async {
            loop {
                ticks.tick().await;
                self.0.recorded.run_upkeep();
            }
        };
        tokio::select! {
            done = work => done,
            () = upkeep => unreachable!("upkeep loops for ever"),
        }
    }

    fn updaters(&self) -> std::sync::MutexGuard<'_, Vec<GaugeUpdater>> {
        self.0.updaters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn without_hidden_sales(text: &str, shows_sale: &SaleFilter) -> String {
    let (mut shown, mut latest) = (String::with_capacity(text.len()), ("", true));
    for line in text.split_inclusive('\n') {
        let sale = line.split_once("sale=\"").and_then(|(_, rest)| rest.split_once('"'));
        let Some((sale, _)) = sale else {
            shown.push_str(line);
            continue;
        };
        if latest.0 != sale {
            latest = (sale, shows_sale(sale));
        }
        if latest.1 {
            shown.push_str(line);
        }
    }
    shown
}

fn builder() -> PrometheusBuilder {
    let seconds = Matcher::Suffix("_seconds".into());
    PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &DURATION_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), &SIZE_BUCKETS))
        .expect("the bounds are not empty")
        .idle_timeout(MetricKindMask::GAUGE, Some(GAUGE_IDLE))
}

fn show_process(version: &'static str) {
    let revision = option_env!("FLASHSALE_REVISION").unwrap_or("unknown");
    gauge!(BUILD_INFO, "version" => version, "revision" => revision).set(1);
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let runtime = runtime.metrics();
    let workers = runtime.num_workers();
    let busy: Duration = (0..workers).map(|worker| runtime.worker_total_busy_duration(worker)).sum();
    gauge!(RUNTIME_WORKERS).set(workers as f64);
    gauge!(RUNTIME_TASKS).set(runtime.num_alive_tasks() as f64);
    gauge!(RUNTIME_QUEUE_DEPTH).set(runtime.global_queue_depth() as f64);
    gauge!(RUNTIME_BUSY).set(busy.as_secs_f64());
}

/// Sets the number of open connections.
pub fn show_connections(open: usize) {
    gauge!(CONNECTIONS).set(open as f64);
}

/// Counts a connection that was refused because the limit was reached.
pub(crate) fn connection_refused() {
    metrics::counter!(CONNECTIONS_REFUSED).increment(1);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    use metrics::{counter, histogram, with_local_recorder};

    use super::*;

    /// Returns the rendered metrics after `work`, with a recorder of this test.
    fn shown(work: impl FnOnce(&Exporter)) -> String {
        let recorder = builder().build_recorder();
        let exporter = Exporter::of(recorder.handle());
        with_local_recorder(&recorder, || {
            exporter.describe_all(|| ());
            work(&exporter);
            exporter.show()
        })
    }

    #[test]
    fn durations_are_exported_as_histogram_buckets() {
        let text = shown(|_| histogram!("test_duration_seconds").record(0.003));
        assert!(text.contains("# TYPE test_duration_seconds histogram"), "{text}");
        assert!(text.contains("test_duration_seconds_bucket{le=\"0.0025\"} 0\n"), "{text}");
        assert!(text.contains("test_duration_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
    }

    #[test]
    fn metric_doc_comment_is_its_help_text() {
        let text = shown(|exporter| exporter.on_scrape(|| show_connections(3)));
        let help = "# HELP flashsale_connections Connections to the port for clients that are open.\n";
        assert!(text.contains(help), "{text}");
        assert!(text.contains("flashsale_connections 3\n"), "{text}");
    }

    #[test]
    fn gauge_disappears_when_it_is_no_longer_set() {
        let is_active = Arc::new(AtomicBool::new(true));
        let recorder = builder().build_recorder();
        let exporter = Exporter::of(recorder.handle());
        let flag = Arc::clone(&is_active);
        exporter.on_scrape(move || {
            if flag.load(Ordering::Relaxed) {
                gauge!("test_gauge", "primary" => "a:1").set(7);
            }
        });
        let show = || with_local_recorder(&recorder, || exporter.show());

        assert!(show().contains("test_gauge{primary=\"a:1\"} 7\n"));
        is_active.store(false, Ordering::Relaxed);
        wait_until_idle_gauge_is_gone(show, "test_gauge{");
        is_active.store(true, Ordering::Relaxed);
        assert!(show().contains("test_gauge{primary=\"a:1\"} 7\n"), "and reappears when it is set");
    }

    #[test]
    fn idle_counter_does_not_disappear() {
        let recorder = builder().build_recorder();
        let exporter = Exporter::of(recorder.handle());
        with_local_recorder(&recorder, || {
            counter!("test_total", "outcome" => "never").increment(0);
            gauge!("test_gauge").set(1);
        });
        let show = || with_local_recorder(&recorder, || exporter.show());
        let line = "test_total{outcome=\"never\"} 0\n";
        assert!(show().contains(line), "registered at 0");
        wait_until_idle_gauge_is_gone(show, "test_gauge ");
        assert!(show().contains(line));
    }

    #[test]
    fn series_of_hidden_sale_are_left_out() {
        let count = || ["a", "b"].map(|sale| counter!("test_total", "sale" => sale).increment(1));
        let text = shown(|exporter| {
            count();
            exporter.show_sales(|sale| sale == "b");
            exporter.on_scrape(|| show_connections(3));
        });
        assert!(!text.contains("sale=\"a\"") && text.contains("test_total{sale=\"b\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE test_total counter\n"), "{text}");
        assert!(text.contains("flashsale_connections 3\n"), "{text}");
    }

    fn wait_until_idle_gauge_is_gone(show: impl Fn() -> String, gauge: &str) {
        let began = Instant::now();
        while show().contains(gauge) {
            assert!(began.elapsed() < 20 * GAUGE_IDLE, "the gauge is not removed");
            std::thread::sleep(GAUGE_IDLE / 20);
        }
    }

    #[test]
    fn panicking_gauge_updater_does_not_affect_others() {
        let text = shown(|exporter| {
            exporter.on_scrape(|| panic!("an update of this test"));
            exporter.on_scrape(|| show_connections(3));
        });
        assert!(text.contains("flashsale_connections 3\n"), "{text}");
    }

    #[test]
    fn process_metrics_are_exported() {
        let text = shown(|_| ());
        for metric in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
            assert!(text.contains(&format!("\n{metric} ")), "{metric} is missing in {text}");
        }
    }
}
