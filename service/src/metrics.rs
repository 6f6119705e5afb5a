//! What a process counts, for Prometheus: the exporter, and what every process has to show.
//!
//! Counters and histograms are counted when something happens. Gauges are looked at when somebody asks: they cost
//! nothing in between, and one that nothing sets any more, because its lane is closed or its coordinator no longer
//! leads, is no longer shown. Each metric stands in one file of its binary, and its doc is its HELP.

mod requests;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_util::MetricKindMask;

pub(crate) use requests::Requests;
pub use requests::expect_requests;

/// Names metrics by kind, and describes each by its doc.
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
    /// From a request to the head of its answer, by route as the router has it, method and status.
    Histogram REQUEST_DURATION = "flashsale_http_request_duration_seconds";
    /// Connections to the port for clients that are open.
    Gauge CONNECTIONS = "flashsale_connections";
    /// Connections that were closed at once because all places were taken.
    Counter CONNECTIONS_REFUSED = "flashsale_connections_refused_total";
    /// Always 1; the labels say what runs.
    Gauge BUILD_INFO = "flashsale_build_info";
    /// Threads that run tasks.
    Gauge RUNTIME_WORKERS = "flashsale_runtime_workers";
    /// Tasks that have not ended.
    Gauge RUNTIME_TASKS = "flashsale_runtime_tasks";
    /// Tasks that wait for any worker; those that wait for a certain one are not among them.
    Gauge RUNTIME_QUEUE_DEPTH = "flashsale_runtime_queue_depth";
    /// Time that all workers together spent at work. Only grows; a gauge, since counters here are whole numbers.
    Gauge RUNTIME_BUSY = "flashsale_runtime_busy_seconds_total";
}

/// What a metric is.
#[derive(Clone, Copy, Debug)]
pub enum MetricKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How often which values were seen.
    Histogram,
}

impl MetricKind {
    /// Gives a metric of this kind its HELP. What [`name_metrics`](crate::name_metrics) calls.
    pub fn describe(self, name: &'static str, help: &'static str) {
        let help = help.trim_start();
        match self {
            Self::Counter => describe_counter!(name, help),
            Self::Gauge => describe_gauge!(name, help),
            Self::Histogram => describe_histogram!(name, help),
        }
    }
}

/// Bounds for all that takes time, in seconds: a function call of one buyer takes some 100 us, and after 10 s nobody
/// waits any more. Three bounds a decade tell a quantile to within a factor of 2.5.
const DURATION_BUCKETS: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bounds for how many there are of something at a time: up to what a pipeline takes along.
const SIZE_BUCKETS: [f64; 10] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

/// How often what was recorded is sorted into buckets: until then it is kept as it came, so a busy node should not wait.
const UPKEEP_PERIOD: Duration = Duration::from_secs(1);
/// A gauge that was not set for this long before it is asked for is of something that is no more.
const GAUGE_IDLE: Duration = Duration::from_millis(500);
/// The text format that Prometheus reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Sets gauges, when somebody asks for them.
type GaugeUpdater = Box<dyn Fn() + Send + Sync>;

/// Shows everything that this process counts. Cheap to clone.
#[derive(Clone)]
pub struct Exporter(Arc<Inner>);

struct Inner {
    recorded: PrometheusHandle,
    process: metrics_process::Collector,
    updaters: Mutex<Vec<GaugeUpdater>>,
}

impl Exporter {
    /// From now on what is counted is kept. `version` is the binary's; `describe` that of its metrics.
    ///
    /// # Errors
    /// When something else keeps it already.
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
        }))
    }

    fn describe_all(&self, describe_own: fn()) {
        describe();
        describe_own();
        self.0.process.describe();
        metrics::counter!(CONNECTIONS_REFUSED).increment(0);
    }

    /// Has gauges set whenever somebody asks for the metrics. `update` must not block.
    pub fn on_scrape(&self, update: impl Fn() + Send + Sync + 'static) {
        self.updaters().push(Box::new(update));
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
            // A look that fails must not take the other figures along.
            if catch_unwind(AssertUnwindSafe(update)).is_err() {
                tracing::error!("a gauge could not be looked at");
            }
        }
        self.0.recorded.render()
    }

    /// Sorts what was recorded into buckets for as long as `work` takes.
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
            () = upkeep => unreachable!("nothing ends it"),
        }
    }

    fn updaters(&self) -> std::sync::MutexGuard<'_, Vec<GaugeUpdater>> {
        self.0.updaters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn builder() -> PrometheusBuilder {
    let seconds = Matcher::Suffix("_seconds".into());
    PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &DURATION_BUCKETS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_size".into()), &SIZE_BUCKETS))
        .expect("there are bounds")
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

/// Shows how many connections are open.
pub fn show_connections(open: usize) {
    gauge!(CONNECTIONS).set(open as f64);
}

/// Counts a connection for which there was no place.
pub(crate) fn connection_refused() {
    metrics::counter!(CONNECTIONS_REFUSED).increment(1);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use metrics::{counter, histogram, with_local_recorder};

    use super::*;

    /// What `show` tells after `work`, with a recorder of the test's own.
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
        std::thread::sleep(GAUGE_IDLE + Duration::from_millis(50));
        assert!(!show().contains("test_gauge{"), "it is gone");
        is_active.store(true, Ordering::Relaxed);
        assert!(show().contains("test_gauge{primary=\"a:1\"} 7\n"), "and can come back");
    }

    #[test]
    fn idle_counter_does_not_disappear() {
        let recorder = builder().build_recorder();
        let exporter = Exporter::of(recorder.handle());
        with_local_recorder(&recorder, || {
            counter!("test_total", "outcome" => "never").increment(0);
        });
        let show = || with_local_recorder(&recorder, || exporter.show());
        let line = "test_total{outcome=\"never\"} 0\n";
        assert!(show().contains(line), "registered at 0");
        std::thread::sleep(GAUGE_IDLE + Duration::from_millis(50));
        assert!(show().contains(line));
    }

    #[test]
    fn panicking_gauge_updater_does_not_affect_others() {
        let text = shown(|exporter| {
            exporter.on_scrape(|| panic!("a look of this test"));
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
