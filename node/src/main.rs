//! `flashsale-node`: settings, logs, cluster, sales; serve, drain, end.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use futures::FutureExt as _;
use node::http::Shop;
use node::metrics::Exporter;
use node::router;
use node::sales::Sales;
use node::settings::{DrainSettings, Settings};
use service::ops::Readiness;
use service::serve::Drained;
use service::{connect, exit, files, logs, ops, serve, settings, shutdown};

/// A request allocates some fifty times: with glibc's allocator that is a sixth of a node's CPU.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    let settings: Settings = settings::parse();
    logs::init(settings.log_format);
    files::allow_many();
    exit::code(run(settings).await)
}

/// Answers operators for as long as the node lives.
async fn run(settings: Settings) -> anyhow::Result<()> {
    let readiness = Readiness::starting("waiting for the Redis Cluster");
    let metrics = Exporter::install()?;
    let listener = serve::bind("OPS_PORT", settings.listen.ops()).await?;
    let router = ops::router(readiness.clone()).merge(metrics.router());
    serve::during(listener, router, metrics.during(sell(settings, readiness))).await
}

/// Answers buyers from the moment there is a cluster until the node is asked to stop.
async fn sell(settings: Settings, readiness: Readiness) -> anyhow::Result<()> {
    let stop = shutdown::requested().shared();
    let sales = tokio::select! {
        sales = open(&settings) => sales?,
        () = stop.clone() => return Ok(()),
    };
    let listener = serve::bind("PORT", settings.listen.public()).await?;
    let router = router::router(Arc::new(Shop::new(sales.clone(), settings.sale_id.clone())));
    announce(&settings);
    readiness.serving({
        let sales = sales.clone();
        move || sales.ready()
    });
    let closing = close_after(stop, readiness, settings.drain);
    if serve::until(listener, router, closing, settings.drain.timeout).await == Drained::Cut {
        tracing::warn!("some requests were not answered within DRAIN_TIMEOUT");
    }
    sales.stop().await;
    tracing::info!("node stopped");
    Ok(())
}

async fn open(settings: &Settings) -> anyhow::Result<Sales> {
    let cluster = connect::cluster(&settings.redis.connect_options()).await.context("REDIS_URL")?;
    // A primary that is away now is no reason to die: its lane loads the library when it misses it.
    if let Err(error) = cluster.load_library().await {
        tracing::warn!(error = %error, "function library not loaded everywhere");
    }
    Ok(Sales::start(Arc::new(cluster), settings.lanes.clone()))
}

fn announce(settings: &Settings) {
    let (public, ops) = (settings.listen.public(), settings.listen.ops());
    tracing::info!(http.address = %public, ops.address = %ops, sale.id = %settings.sale_id, "node serves");
}

/// Completes when the port for buyers is to be closed: load balancers have had time to look elsewhere.
async fn close_after(stop: impl Future<Output = ()>, readiness: Readiness, drain: DrainSettings) {
    stop.await;
    readiness.draining();
    tokio::time::sleep(drain.delay).await;
}
