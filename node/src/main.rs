//! `flashsale-node`: reads settings, connects to the cluster, serves buyers, drains and exits.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use futures::FutureExt as _;
use node::http::{AppState, ClientAdmission};
use node::identity::{Identity, KeyReloader};
use node::limits::Limits;
use node::metrics;
use node::router;
use node::sales::Sales;
use node::secret::Signer;
use node::settings::{Auth, DrainSettings, ListenSettings, Settings};
use service::metrics::{Exporter, show_connections};
use service::ops::Readiness;
use service::presence::{self, PresenceTask};
use service::serve::{Connections, ServeOutcome};
use service::{connect, exit, files, healthcheck, logs, ops, serve, settings, shutdown};
use stock::functions::LIBRARY;
use stock::presence::{Presence, ProcessInfo, ProcessKind};

/// A request makes about fifty allocations. With glibc's allocator they take a sixth of a node's CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    if let Some(health) = healthcheck::run_if_requested(ListenSettings::ops).await {
        return health;
    }
    let settings: Settings = settings::parse();
    let (identity, reloader) = Identity::from_settings(&settings.auth, &settings.web.trusted_proxies)
        .unwrap_or_else(|invalid| settings::refuse(invalid));
    let _traces = logs::init(settings.log_format, "flashsale-node", &settings.traces);
    files::raise_open_files_limit();
    exit::code(run(settings, identity, reloader).await)
}

/// Serves the operations port for the whole life of the process.
async fn run(settings: Settings, identity: Identity, reloader: KeyReloader) -> anyhow::Result<()> {
    let hangups = shutdown::hangups();
    let readiness = Readiness::starting("waiting for the Redis Cluster");
    let exporter = metrics::install()?;
    metrics::set_auth(settings.auth.auth);
    exporter.on_scrape({
        let readiness = readiness.clone();
        move || metrics::set_readiness(readiness.check().is_ok())
    });
    let listener = serve::bind("OPS_PORT", settings.listen.ops())?;
    let router = ops::router(readiness.clone()).merge(exporter.router());
    let serving = serve_buyers(settings, identity, readiness, &exporter);
    let serving = serve::during(listener, router, exporter.with_upkeep(serving));
    tokio::select! {
        served = serving => served,
        never = reloader.run(hangups) => match never {},
    }
}

/// Serves buyers from the moment the cluster is reachable until the process is asked to stop.
async fn serve_buyers(
    settings: Settings,
    identity: Identity,
    readiness: Readiness,
    exporter: &Exporter,
) -> anyhow::Result<()> {
    let stop = shutdown::requested().shared();
    let identity = Arc::new(identity);
    let NodeServices { sales, signer, limits, presence } = tokio::select! {
        connected = connect(&settings, identity.is_verified()) => connected?,
        () = stop.clone() => return Ok(()),
    };
    let listener = serve::bind("PORT", settings.listen.public())?;
    let state =
        Arc::new(AppState::new(sales.clone(), &settings, signer, Arc::clone(&identity), Arc::clone(&limits)));
    let admission = ClientAdmission::new(&settings.web, identity, limits);
    let router = router::router(Arc::clone(&state), admission);
    log_start(&settings);
    readiness.serving({
        let sales = sales.clone();
        move || sales.ready()
    });
    let connections =
        Connections::with_limits(settings.connections).shared_by_networks(settings.networks_without_share());
    exporter.on_scrape({
        let (sales, state, connections) = (sales.clone(), Arc::clone(&state), connections.clone());
        move || {
            sales.update_gauges();
            state.update_gauges();
            show_connections(connections.open());
        }
    });
    exporter.show_sales({
        let sales = sales.clone();
        move |sale| sales.shows(sale)
    });
    let port_closing = begin_drain(stop, readiness, &connections, settings.drain).inspect(|()| state.close());
    let served =
        serve::until(listener, router, connections.clone(), port_closing, settings.drain.timeout).await;
    if served == ServeOutcome::TimedOut {
        tracing::warn!("some requests were not answered within DRAIN_TIMEOUT");
    }
    sales.stop().await;
    presence.stop().await;
    tracing::info!("node stopped");
    Ok(())
}

/// Parts of a node that need a connection to the cluster.
struct NodeServices {
    sales: Sales,
    signer: Signer,
    limits: Arc<Limits>,
    presence: PresenceTask,
}

async fn connect(settings: &Settings, is_verified: bool) -> anyhow::Result<NodeServices> {
    let cluster = connect::cluster(&settings.redis.connect_options(), &LIBRARY).await.context("REDIS_URL")?;
    // An unreachable primary does not stop the start: its lane loads the library when it finds it missing.
    if let Err(error) = cluster.load_library().await {
        tracing::warn!(error = %error, "function library not loaded everywhere");
    }
    let cluster = Arc::new(cluster);
    let signer = match settings.web.csrf_secrets() {
        [] => Signer::shared(Arc::clone(&cluster)).await,
        secrets => Signer::with(secrets),
    };
    let limits = Arc::new(Limits::start(&cluster, &settings.limits, is_verified));
    let name = presence::name(settings.listen.public().port());
    let process = ProcessInfo::of_this_release(name, ProcessKind::Node);
    let shared_limits = Arc::clone(&limits);
    let presence = PresenceTask::start(
        Arc::clone(&cluster),
        move |uptime| Presence::report(&process, uptime),
        move |present| shared_limits.update_nodes(&present),
    );
    let sales = Sales::start(cluster, settings.lanes.clone());
    Ok(NodeServices { sales, signer, limits, presence })
}

fn log_start(settings: &Settings) {
    let (public, ops) = (settings.listen.public(), settings.listen.ops());
    let auth = settings.auth.auth;
    tracing::info!(
        http.address = %public,
        ops.address = %ops,
        sale.id = %settings.sale_id,
        auth = auth.name(),
        "node serves"
    );
    if auth == Auth::None {
        tracing::warn!("AUTH=none: each client can buy and look up orders as any user");
    }
}

/// Completes when the port for buyers has to close. By then readiness has been red for `DRAIN_DELAY`, so load balancers
/// have stopped sending requests, and clients with keep-alive connections have been asked to close them.
async fn begin_drain(
    stop: impl Future<Output = ()>,
    readiness: Readiness,
    connections: &Connections,
    drain: DrainSettings,
) {
    stop.await;
    readiness.draining();
    connections.close_after_response();
    tokio::time::sleep(drain.delay).await;
}
