//! The end of a sale in Redis: archiving, and what is left of the sale then.

use std::net::SocketAddr;

use reqwest::{Client, StatusCode};
use serde_json::{Map, Value, json};
use stock::archive::Archive;
use stock::calls::{Attempt, Buy, Recall, Record, RecordAnswer, SaleRecord};
use stock::history::{ChangeOrigin, HistoryEntry};
use stock::ids::{OrderId, UserId, UserIdKind};
use stock::layout::SaleKeys;
use stock::sale::{Sale, SaleConfig, SaleState};
use stock::store::ReadConfig;
use testkit::until;

use crate::fixture::{SOON, Shop};

/// Orders that need several megabytes in Redis.
const MANY: u64 = 30_000;
const BUYERS_PER_CALL: usize = 64;

impl Shop {
    /// Lets many users try to buy at a sale, without the HTTP API. Returns the number of those who have.
    async fn buy_many(&self, sale: &str, users: u64) -> u64 {
        let cluster = self.cluster().await;
        let keys = SaleKeys::new(&sale.parse().unwrap());
        let sale = Sale::new(cluster.read(ReadConfig(&keys)).await.unwrap().unwrap()).unwrap();
        let mut buyers: Vec<Vec<Attempt>> = sale.shards().iter().map(|_| Vec::new()).collect();
        for number in 0..users {
            let user = UserId::parse(&format!("buyer-{number:05}"), UserIdKind::Opaque).unwrap();
            let home = sale.ring().home(&user).index();
            buyers[home].push(Attempt { user, order: OrderId::random(), correlation: "archive".into() });
        }
        let mut bought = 0;
        for (shard, attempts) in sale.shards().iter().zip(&buyers) {
            for attempts in attempts.chunks(BUYERS_PER_CALL) {
                let buy = Buy { shard, attempts, not_after: Buy::AT_ANY_TIME };
                let answer = cluster.write(buy).await.unwrap();
                bought += answer.outcomes.iter().filter(|outcome| outcome.is_claimed()).count() as u64;
            }
        }
        bought
    }

    async fn admin(&self, request: reqwest::RequestBuilder) -> (StatusCode, Value) {
        let response = request.send().await.unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn change(&self, action: &str, body: Value) -> (StatusCode, Value) {
        self.post(&format!("sales/flash/{action}"), body).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let coordinators = self.stack.coordinators();
        let url = coordinators.last().unwrap().url().to_owned();
        self.admin(self.stack.admin().post(&url, path).json(&body)).await
    }

    /// Memory of all primaries without buffers, in bytes.
    async fn redis_memory(&self) -> u64 {
        let mut total = 0;
        for primary in self.stack.redis().primaries().await {
            let mut connection = self.stack.redis().connection(primary).await.unwrap();
            let info: String = redis::cmd("INFO").arg("memory").query_async(&mut connection).await.unwrap();
            let field = |name: &str| {
                let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                line.map_or(0, |value| value.trim().parse::<u64>().unwrap())
            };
            let buffers =
                ["mem_replication_backlog", "mem_clients_slaves", "mem_clients_normal", "mem_aof_buffer"];
            total += field("used_memory") - buffers.map(field).iter().sum::<u64>();
        }
        total
    }

    async fn record(&self) -> SaleRecord {
        let keys = SaleKeys::new(&"flash".parse().unwrap());
        self.cluster().await.write(Recall { keys: &keys }).await.unwrap().unwrap()
    }

    /// Records that the sale is archived, as a coordinator does before it removes the first shard.
    async fn record_archive(&self, sold: u64) {
        let SaleRecord { config: ended, mint } = self.record().await;
        let (keys, version) = (SaleKeys::new(&ended.id), ended.version + 1);
        let archive = Some(Archive { sold, is_removed: false });
        let config = SaleConfig { version, state: SaleState::Archived, archive, ..ended.clone() };
        let (at, change) = (config.window.ends_at, "archive".to_owned());
        let entry = HistoryEntry { version, at, change, values: Map::new(), origin: ChangeOrigin::default() };
        let record =
            Record { keys: &keys, based_on: ended.version, config: &config, mint: &mint, entry: &entry };
        assert_eq!(self.cluster().await.write(record).await.unwrap(), RecordAnswer::Done);
    }

    /// Keys of the sale's shards on all primaries.
    async fn shard_keys(&self) -> Vec<String> {
        let mut found = Vec::new();
        for primary in self.stack.redis().primaries().await {
            found.extend(self.shard_keys_on(primary).await);
        }
        found
    }

    async fn shard_keys_on(&self, server: SocketAddr) -> Vec<String> {
        let mut connection = self.stack.redis().connection(server).await.unwrap();
        redis::cmd("KEYS").arg("fs:{flash.*").query_async(&mut connection).await.unwrap()
    }

    /// Ends a sale with some buyers. Returns the units sold.
    async fn end_with_buyers(&self) -> u64 {
        let sold = self.buy(0..20).await.len() as u64;
        let ended = async || self.change("end", json!({})).await.0 == StatusCode::OK;
        until("the sale has ended", SOON, ended).await.unwrap();
        sold
    }

    async fn wait_until_removed(&self) {
        let removed = async || self.record().await.config.is_removed();
        until("the removal is recorded", SOON, removed).await.unwrap();
    }

    async fn lookup(&self, base_url: &str) -> (StatusCode, Value) {
        let url = format!("{base_url}/api/sales/flash/purchase/buyer-00003");
        self.admin(Client::new().get(url)).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_sale_leaves_redis() {
    // Given servers that have executed every command of a sale: each takes memory at its first use, for good.
    let shop = Shop::open(100).await;
    shop.start_ledger().await;
    shop.buy(0..20).await;
    let archive = async |sale: &str| {
        assert_eq!(shop.post(&format!("sales/{sale}/end"), json!({})).await.0, StatusCode::OK);
        let archived =
            async || shop.post(&format!("sales/{sale}/archive"), json!({})).await.0 == StatusCode::OK;
        until("the sale is archived", SOON, archived).await.unwrap();
    };
    archive("flash").await;
    let before = shop.redis_memory().await;

    // When another sale sells many units, and is archived.
    let sale = json!({
        "id": "large", "totalStock": MANY + 100, "startsAt": "2026-01-01T00:00:00Z", "endsAt": "2126-01-01T00:00:00Z",
        "productName": "Sofa", "productPrice": 799.99,
    });
    let (status, created) = shop.post("sales", sale).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    shop.buy_many("large", MANY).await;
    let during = shop.redis_memory().await;
    assert!(during > before + 2_000_000, "{before} bytes before, {during} with orders");
    archive("large").await;

    // Then Redis has its memory back.
    let is_freed = async || shop.redis_memory().await <= before + before / 100;
    let freed = until("Redis has its memory back", SOON, is_freed).await;
    let after = shop.redis_memory().await;
    println!("Redis memory: {before} before, {during} with orders, {after} after archiving");
    freed.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn archived_sale_keeps_its_status() {
    let shop = Shop::open(300).await;
    let sold = shop.buy(0..200).await.len() as u64;

    // Given a sale that goes on, and one whose orders are nowhere else, archiving is refused.
    let (status, problem) = shop.change("archive", json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert_eq!(shop.change("end", json!({})).await.0, StatusCode::OK);
    let (status, problem) = shop.change("archive", json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("flashsale-ledger"), "{problem}");
    assert_eq!(shop.lookup(&shop.stack.url()).await.1["hasPurchased"], true);

    // When a ledger has them, the sale is archived.
    shop.start_ledger().await;
    let archived =
        async || shop.change("archive", json!({ "reason": "all shipped" })).await.0 == StatusCode::OK;
    until("the sale is archived", SOON, archived).await.unwrap();
    assert_eq!(shop.database.count("order_events") as u64, sold);

    // Then the status is as before, and nothing untrue is said about a buyer: on a new node, too.
    let node = shop.stack.start_node().await.unwrap();
    for url in [shop.stack.url(), node.url().to_owned()] {
        let gone = async || shop.lookup(&url).await.0 == StatusCode::GONE;
        until("lookups say that the sale is archived", SOON, gone).await.unwrap();
        let request = Client::new().post(format!("{url}/api/sales/flash/purchase"));
        let (status, refused) = shop.admin(request.json(&json!({ "userId": "late" }))).await;
        assert_eq!((status, &refused["reason"]), (StatusCode::FORBIDDEN, &"sale_not_active".into()));
    }
    let status = shop.stack.stock_status().await.unwrap();
    assert_eq!((status.stock, status.sold), (300 - sold, sold));

    // A coordinator that knows nothing of it does not bring it back, and repeats the answer.
    shop.stack.coordinators()[0].process().kill();
    shop.stack.start_coordinator().await.unwrap();
    let again = async || {
        let (status, sale) = shop.change("archive", json!({})).await;
        status == StatusCode::OK && sale["state"] == "archived" && sale["archive"]["sold"] == sold
    };
    until("another coordinator confirms it", SOON, again).await.unwrap();
    assert_eq!(shop.change("resume", json!({})).await.0, StatusCode::CONFLICT);
    let recorded = "sale_versions WHERE config->>'state' = 'archived'";
    until("the ledger records it", SOON, async || shop.database.count(recorded) > 0).await.unwrap();
    assert!(!shop.log(1).contains("not written"), "{}", shop.log(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn sale_is_archived_without_a_ledger_only_on_request() {
    let shop = Shop::open(100).await;
    shop.buy(0..20).await;
    assert_eq!(shop.change("end", json!({})).await.0, StatusCode::OK);
    assert_eq!(shop.change("archive", json!({ "ordersExported": false })).await.0, StatusCode::CONFLICT);
    assert_eq!(shop.change("archive", json!({ "ordersExportd": true })).await.0, StatusCode::BAD_REQUEST);
    let (status, sale) = shop.change("archive", json!({ "ordersExported": true })).await;
    assert_eq!((status, &sale["archive"]["sold"]), (StatusCode::OK, &20.into()), "{sale}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_sale_is_written_again_when_postgres_was_restored() {
    let shop = Shop::open(100).await;
    shop.start_ledger().await;
    let orders = shop.buy(0..20).await;
    shop.database.wait_for_orders(20).await;
    assert_eq!(shop.change("end", json!({})).await.0, StatusCode::OK);

    // When PostgreSQL has an earlier state, as from a backup.
    let earlier =
        "DELETE FROM order_events; UPDATE cursors SET seq = 0, orders = 0; UPDATE positions SET position = 0";
    shop.database.postgres.sql(earlier).unwrap();

    shop.database.wait_for_orders(20).await;
    shop.assert_orders(&orders);
    let archived = async || shop.change("archive", json!({})).await.0 == StatusCode::OK;
    until("the sale is archived", SOON, archived).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn next_leader_removes_shards_of_an_archived_sale() {
    let shop = Shop::open(100).await;
    let sold = shop.end_with_buyers().await;
    // Given a coordinator that died after it recorded an archive, and before it removed a shard.
    shop.stack.coordinators()[0].process().kill();
    shop.record_archive(sold).await;
    assert!(!shop.shard_keys().await.is_empty());

    // Then the status is that of the record, and the next leader removes the shards.
    let is_of_record = async || {
        let status = shop.stack.stock_status().await.unwrap();
        (status.stock, status.sold) == (100 - sold, sold)
    };
    until("the nodes have read the record", SOON, is_of_record).await.unwrap();
    shop.stack.start_coordinator().await.unwrap();
    shop.wait_until_removed().await;
    assert_eq!(shop.shard_keys().await, [""; 0]);
    let node = shop.stack.start_node().await.unwrap();
    let gone = async || shop.lookup(node.url()).await.0 == StatusCode::GONE;
    until("lookups say that the sale is archived", SOON, gone).await.unwrap();
    let status = shop.stack.stock_status().await.unwrap();
    assert_eq!((status.stock, status.sold), (100 - sold, sold));
    let (status, sale) = shop.change("archive", json!({})).await;
    assert_eq!((status, &sale["archive"]["sold"]), (StatusCode::OK, &sold.into()), "{sale}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_a_failover_brings_back_are_removed() {
    let shop = Shop::open(100).await;
    let sold = shop.end_with_buyers().await;
    // Given a replica that misses the removal of its shards. It has the record, which is on another primary.
    let redis = shop.stack.redis();
    let record = shop.record().await.config;
    let of_record = redis.primary_of(SaleKeys::new(&record.id).slot).await.unwrap();
    let sale = Sale::new(record).unwrap();
    let mut primary = of_record;
    for shard in sale.shards() {
        if primary == of_record {
            primary = redis.primary_of(shard.slot).await.unwrap();
        }
    }
    assert_ne!(primary, of_record);
    let replica = redis.replicas_of(primary).await[0];
    redis.cut_replication(primary).await.unwrap();
    shop.record_archive(sold).await;
    let removed = async || shop.shard_keys_on(primary).await.is_empty();
    until("the primary has no shard", SOON, removed).await.unwrap();
    assert!(!shop.shard_keys_on(replica).await.is_empty());
    // An operator is not told that the sale is archived.
    let (status, problem) = shop.change("archive", json!({})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");

    // When the replica is promoted, the shards are back.
    assert!(!shop.record().await.config.is_removed());
    redis.kill(primary);
    redis.wait_until_promoted(replica).await.unwrap();

    // Then they are removed again, before the record says that they are gone for good.
    shop.wait_until_removed().await;
    assert_eq!(shop.shard_keys().await, [""; 0]);
    let (status, sale) = shop.change("archive", json!({})).await;
    assert_eq!((status, &sale["archive"]["sold"]), (StatusCode::OK, &sold.into()), "{sale}");
}

#[tokio::test(flavor = "multi_thread")]
async fn thawed_leader_leaves_an_archived_sale_alone() {
    let shop = Shop::open(100).await;
    let sold = shop.end_with_buyers().await;
    // Given a leader that has been frozen since before the archive.
    let frozen = shop.stack.coordinators()[0].clone();
    shop.stack.start_coordinator().await.unwrap();
    let second = shop.stack.coordinators()[1].clone();
    let leads = async |url: &str| shop.stack.admin().leads(url).await.is_ok_and(|leads| leads);
    until("the first one leads", SOON, async || leads(frozen.url()).await).await.unwrap();
    frozen.process().freeze();
    let export = json!({ "ordersExported": true });
    let archived = async || shop.change("archive", export.clone()).await.0 == StatusCode::OK;
    until("the sale is archived", SOON, archived).await.unwrap();
    shop.wait_until_removed().await;
    let before = shop.record().await;

    // When it is thawed, and leads again.
    frozen.process().thaw();
    second.process().kill();
    until("it leads again", SOON, async || leads(frozen.url()).await).await.unwrap();

    // Then no key is back, and it has the record of the archive.
    let request = shop.stack.admin().post(frozen.url(), "sales/flash/archive").json(&export);
    let (status, sale) = shop.admin(request).await;
    assert_eq!((status, &sale["archive"]["sold"]), (StatusCode::OK, &sold.into()), "{sale}");
    assert_eq!(shop.shard_keys().await, [""; 0]);
    assert_eq!(shop.record().await, before);
}
