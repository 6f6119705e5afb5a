//! Fixture: a sale on a real cluster, and a node's router in front of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, COOKIE};
use axum::http::{HeaderMap, Request, request};
use axum::response::Response;
use clap::Parser as _;
use node::http::{AppState, ClientAdmission};
use node::identity::Identity;
use node::limits::Limits;
use node::router::router;
use node::sales::Sales;
use node::secret::Signer;
use node::settings::Settings;
use rediscluster::Cluster;
use serde_json::Value;
use stock::calls::{Accept, Configure, Record, TokenSource};
use stock::functions::LIBRARY;
use stock::history::HistoryEntry;
use stock::ids::{SaleId, UserIdKind};
use stock::layout::{SaleKeys, choose_tags};
use stock::presence::{PresentProcess, ProcessInfo, ProcessKind, ProcessList};
use stock::sale::{ChangeHistory, LayoutConfig, Product, Sale, SaleConfig, SaleState, Window};
use stock::store::RestoreSaleList;
use testkit::RedisCluster;
use tower::ServiceExt as _;

pub(crate) const OPEN: Window = Window { starts_at: 0, ends_at: 4_000_000_000_000 };

/// The cluster that tests share.
pub(crate) async fn shared_redis() -> &'static RedisCluster {
    RedisCluster::shared().await.unwrap()
}

/// A node whose default sale no other test uses.
pub(crate) struct TestNode {
    pub(crate) sale: SaleId,
    pub(crate) state: Arc<AppState>,
    limits: Arc<Limits>,
    router: Router,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl TestNode {
    /// Starts a node that sells this number of units now.
    pub(crate) async fn selling(units: u64) -> Self {
        Self::with_config(units, |_| {}).await
    }

    /// Starts a node that sells this number of units, with a changed sale config.
    pub(crate) async fn with_config(units: u64, change: impl FnOnce(&mut SaleConfig)) -> Self {
        Self::start(&[], units, change).await
    }

    /// Starts a node that sells a few units, with further flags.
    pub(crate) async fn with_flags(flags: &[&str]) -> Self {
        Self::start(flags, 10, |_| {}).await
    }

    async fn start(flags: &[&str], units: u64, change: impl FnOnce(&mut SaleConfig)) -> Self {
        let seeds = shared_redis().await.seeds();
        let auth: &[&str] = if flags.contains(&"--auth") { &[] } else { &["--auth", "none"] };
        let settings = Settings::parse_from(["node", "--redis-url", &seeds].iter().chain(auth).chain(flags));
        let cluster = Cluster::connect(settings.redis.connect_options(), &LIBRARY).await.unwrap();
        cluster.load_library().await.unwrap();
        let mut config = config_on(&cluster, units);
        change(&mut config);
        let sale = Sale::new(config).unwrap();
        create(&cluster, &sale).await;
        let settings = Settings { sale_id: sale.id().clone(), ..settings };
        let cluster = Arc::new(cluster);
        let signer = Signer::shared(Arc::clone(&cluster)).await;
        let (identity, _) = Identity::from_settings(&settings.auth, &settings.web.trusted_proxies).unwrap();
        let identity = Arc::new(identity);
        let limits = Arc::new(Limits::start(&cluster, &settings.limits, identity.is_verified()));
        let admission = ClientAdmission::new(&settings.web, Arc::clone(&identity), Arc::clone(&limits));
        let sales = Sales::start(cluster, settings.lanes.clone());
        let state = Arc::new(AppState::new(sales, &settings, signer, identity, Arc::clone(&limits)));
        let router = router(Arc::clone(&state), admission);
        Self { sale: sale.id().clone(), state, limits, router }
    }

    /// Lets the node share its limits with others, as if this many nodes were present in all.
    pub(crate) fn share_limits(&self, nodes: usize) {
        let info = ProcessInfo { name: "node".into(), kind: ProcessKind::Node, version: "1".into() };
        let process = PresentProcess { info, started_at: 0, seen_at: 0 };
        self.limits.update_nodes(&ProcessList { at: 0, processes: vec![process; nodes], unknown: 0 });
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), "").await
    }

    /// Posts JSON, with a CSRF token.
    pub(crate) async fn post(&self, path: &str, body: impl Into<Body>) -> Answer {
        self.send(self.with_csrf_token(post_json(path)).await, body).await
    }

    /// Adds a CSRF token to the request.
    pub(crate) async fn with_csrf_token(&self, request: request::Builder) -> request::Builder {
        let token = self.get("/api/csrf").await.body["csrfToken"].as_str().unwrap().to_owned();
        request.header("x-csrf-token", &token).header(COOKIE, format!("csrfToken={token}"))
    }

    pub(crate) async fn buy(&self, path: &str, user: &str) -> Answer {
        self.post(path, serde_json::json!({ "userId": user }).to_string()).await
    }

    /// Buys as `ann` with this request, to which it adds a CSRF token.
    pub(crate) async fn buy_with(&self, request: request::Builder) -> Answer {
        self.send(self.with_csrf_token(request).await, r#"{"userId":"ann"}"#).await
    }

    /// Returns the response before its body is read.
    pub(crate) async fn respond(&self, request: request::Builder) -> Response {
        self.router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
    }

    pub(crate) async fn send(&self, request: request::Builder, body: impl Into<Body>) -> Answer {
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

/// Starts a request that posts JSON.
pub(crate) fn post_json(path: &str) -> request::Builder {
    Request::post(path).header(CONTENT_TYPE, "application/json")
}

impl Answer {
    /// Asserts that it is a problem with this status, and that header and body have the correlation id of the request.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["correlationId"], self.headers["x-correlation-id"].to_str().unwrap());
    }
}

fn config_on(cluster: &Cluster, total_stock: u64) -> SaleConfig {
    static SALES: AtomicU32 = AtomicU32::new(0);
    let id = format!("edge-{}", SALES.fetch_add(1, Ordering::Relaxed)).parse().unwrap();
    let topology = cluster.topology();
    let tags = choose_tags(&id, 3, |slot| topology.primary(slot).map(|primary| primary.address.clone()));
    SaleConfig {
        id,
        version: 2,
        state: SaleState::Open,
        window: OPEN,
        total_stock,
        product: Product { name: "Chair".into(), price: 49.9, description: "A good one".into() },
        user_ids: UserIdKind::Opaque,
        layout: LayoutConfig::new(tags),
        changes: ChangeHistory::default(),
        archive: None,
    }
}

/// Creates the sale as a coordinator does: lists and records it, creates its shards, mints its tokens and opens it.
async fn create(cluster: &Cluster, sale: &Sale) {
    let (keys, config, shards) = (SaleKeys::new(sale.id()), &*sale.config, sale.shards());
    let mut tokens = vec![0; shards.len()];
    tokens[0] = config.total_stock;
    cluster.write(RestoreSaleList(std::slice::from_ref(sale.id()))).await.unwrap();
    let entry = HistoryEntry::default();
    cluster.write(Record { keys: &keys, based_on: 0, config, mint: &tokens, entry: &entry }).await.unwrap();
    for (shard, &cumulative) in shards.iter().zip(&tokens) {
        let configure = |version, state| Configure { shard, version, state, window: config.window };
        cluster.write(configure(1, SaleState::Creating)).await.unwrap();
        cluster.write(Accept { shard, from: TokenSource::Mint, cumulative }).await.unwrap();
        cluster.write(configure(config.version, config.state)).await.unwrap();
    }
}
