//! Writes the orders of all sales into PostgreSQL.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use ledger::audit::Audits;
use ledger::feed::{Feeds, replay};
use ledger::ledger::Ledger;
use ledger::orders::Orders;
use ledger::settings::{ListenSettings, Settings};
use ledger::{api, metrics, migrate, restore};
use service::edge::{self, AdmitAll};
use service::metrics::show_connections;
use service::ops::Readiness;
use service::presence::{self, PresenceTask};
use service::serve::{ConnectionLimits, Connections};
use service::{connect, exit, healthcheck, logs, ops, serve, settings, shutdown};
use stock::functions::LIBRARY;
use stock::presence::{Presence, ProcessInfo, ProcessKind};

/// Longest time for requests in flight on shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Periods between two looks for orders to deliver. A look costs PostgreSQL more than one at Redis does.
const FEED_PERIOD: u32 = 4;

/// Longest time of a request to the port for probes and metrics.
const OPS_DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    if let Some(health) = healthcheck::run_if_requested(ListenSettings::probes).await {
        return health;
    }
    if let Some(outcome) = migrate::run_if_requested().await {
        return outcome;
    }
    if let Some(outcome) = restore::run_if_requested().await {
        return outcome;
    }
    if let Some(outcome) = replay::run_if_requested().await {
        return outcome;
    }
    let settings: Settings = settings::parse();
    let _traces = logs::init(settings.log_format.unwrap_or_default(), "flashsale-ledger", &settings.traces);
    exit::code(run(settings).await)
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = tokio::spawn(shutdown::requested()).map(drop).shared();
    let address = settings.listen.address();
    let listener = serve::bind("PORT", address)?;
    let ops_listener = settings.listen.ops().map(|address| serve::bind("OPS_PORT", address)).transpose()?;
    let (readiness, exporter) = (Readiness::starting("waiting for the Redis Cluster"), metrics::install()?);
    let feeds = Feeds::new(&settings.feed, &settings.database, settings.drain_period * FEED_PERIOD)?;
    let connections = Connections::with_limits(ConnectionLimits::default());
    exporter.on_scrape({
        let connections = connections.clone();
        move || show_connections(connections.open())
    });
    let ops_routes = ops::router(readiness.clone()).merge(exporter.router());
    let ops_router = edge::wrap(ops_routes.clone(), AdmitAll, OPS_DEADLINE);
    let (orders, audits) = (Orders::new(&settings.database), Audits::new(settings.database.clone()));
    let router = api::router(orders, audits.clone(), settings.operator_tokens(), ops_routes);
    let serving = tokio::spawn(serve::until(listener, router, connections, stop.clone(), GRACE));
    exporter.on_scrape(feeds.gauges());
    // Orders in PostgreSQL are delivered while Redis is away, too.
    let feeding = tokio::spawn({
        let stop = stop.clone();
        async move { feeds.run(stop).await }
    });
    tracing::info!(%address, "serving the orders API, probes and metrics");

    let work = async {
        let options = settings.redis.connect_options();
        let cluster = tokio::select! {
            cluster = connect::cluster(&options, &LIBRARY) => Arc::new(cluster?),
            () = stop.clone() => return Ok(()),
        };
        audits.set_cluster(Arc::clone(&cluster));
        // Coordinators of a later release keep the function library of each process on the list.
        let process = ProcessInfo::of_this_release(presence::name(address.port()), ProcessKind::Ledger);
        let report = move |uptime| Presence::report(&process, uptime);
        let presence = PresenceTask::start(Arc::clone(&cluster), report, |_| ());
        let ledger = Arc::new(Ledger::new(cluster, settings.database, settings.drain_period));
        readiness.serving({
            let ledger = Arc::clone(&ledger);
            move || ledger.check()
        });
        exporter.on_scrape({
            let ledger = Arc::clone(&ledger);
            move || ledger.update_gauges()
        });
        ledger.run(stop.clone()).await;
        presence.stop().await;
        anyhow::Ok(())
    };
    let work = exporter.with_upkeep(work);
    match ops_listener {
        Some(listener) => serve::during(listener, ops_router, work).await?,
        None => work.await?,
    }
    readiness.draining();
    feeding.await?;
    serving.await?;
    Ok(())
}
