//! Creates the default sale, keeps all sales as they are recorded, and serves operators.

use std::future::Future;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use coordinator::admin::{self, CoordinatorHandle};
use coordinator::cluster_command;
use coordinator::coordinator::Coordinator;
use coordinator::live::LiveFeed;
use coordinator::metrics;
use coordinator::settings::{ListenSettings, Settings};
use coordinator::start;
use futures::FutureExt as _;
use futures::future::pending;
use service::edge::{self, AdmitAll};
use service::metrics::{Exporter, show_connections};
use service::ops::Readiness;
use service::serve::{ConnectionLimits, Connections};
use service::{exit, files, healthcheck, logs, ops, serve, shutdown, time};

/// Longest time for requests in flight on shutdown: a change waits for its shards through the first seconds of a
/// failover.
const GRACE: Duration = Duration::from_secs(10);

/// Longest time for a probe, or for the metrics.
const OPS_DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(health) = healthcheck::run_if_requested(ListenSettings::probes).await {
        return health;
    }
    if let Some(outcome) = cluster_command::run_if_requested().await {
        return outcome;
    }
    let settings = Settings::parse(time::now());
    let _traces =
        logs::init(settings.log_format.unwrap_or_default(), "flashsale-coordinator", &settings.traces);
    files::raise_open_files_limit();
    exit::code(run(settings).await)
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = tokio::spawn(shutdown::requested()).map(drop).shared();
    let address = settings.listen.address();
    let listener = serve::bind("PORT", address)?;
    let ops_listener = settings.listen.ops().map(|address| serve::bind("OPS_PORT", address)).transpose()?;

    let (handle, readiness) =
        (CoordinatorHandle::default(), Readiness::starting("waiting for the Redis Cluster"));
    let (exporter, connections) =
        (metrics::install()?, Connections::with_limits(ConnectionLimits::default()));
    exporter.on_scrape({
        let connections = connections.clone();
        move || show_connections(connections.open())
    });
    let live = LiveFeed::new(handle.clone(), settings.sale_id.clone());
    let ops_routes = ops::router(readiness.clone()).merge(exporter.router());
    let ops_router = edge::wrap(ops_routes.clone(), AdmitAll, OPS_DEADLINE);
    let router = admin::router(handle.clone(), settings.operator_tokens(), ops_routes).merge(live.router());
    let closing = stop.clone().inspect({
        let live = live.clone();
        move |()| live.close()
    });
    let serving = tokio::spawn(serve::until(listener, router, connections, closing, GRACE));
    tracing::info!(%address, "serving the live view and the admin API");

    let work = exporter.with_upkeep(coordinate(&settings, handle, &live, &readiness, &exporter, stop));
    match ops_listener {
        Some(listener) => serve::during(listener, ops_router, work).await?,
        None => work.await?,
    }
    readiness.draining();
    serving.await?;
    Ok(())
}

async fn coordinate(
    settings: &Settings,
    handle: CoordinatorHandle,
    live: &LiveFeed,
    readiness: &Readiness,
    exporter: &Exporter,
    stop: impl Future<Output = ()> + Clone + Send + 'static,
) -> anyhow::Result<()> {
    let coordinator = tokio::select! {
        connected = start::connect(settings) => Arc::new(connected?),
        () = stop.clone() => return Ok(()),
    };
    handle.set(coordinator.clone());
    exporter.on_scrape({
        let coordinator = coordinator.clone();
        move || coordinator.update_gauges()
    });
    exporter.show_sales({
        let coordinator = coordinator.clone();
        move |sale| coordinator.shows_sale(sale)
    });
    tokio::select! {
        () = coordinator.run(stop) => {}
        () = open_default_sale(settings, &coordinator, readiness).then(|()| pending()) => {}
        () = live.record_history(&coordinator) => {}
    }
    Ok(())
}

async fn open_default_sale(settings: &Settings, coordinator: &Coordinator, readiness: &Readiness) {
    if let Some(sale) = settings.default_sale() {
        readiness.serving(|| Err("the default sale is not open yet".to_owned()));
        start::default_sale(&coordinator.sales, &sale).await;
    }
    readiness.serving(|| Ok(()));
    tracing::info!("ready");
}
