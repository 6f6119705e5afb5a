//! `restore`: a sale whose data in Redis is lost is built anew from PostgreSQL.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use buyers::{ANSWER_LIMIT, Answer, AnswerKind, BuyerClient, PurchaseRequest};
use futures::StreamExt as _;
use futures::stream;
use reqwest::{Client, StatusCode};
use serde_json::json;
use stock::audit::audit;
use stock::layout::SaleKeys;
use stock::sale::{Sale, SaleState};
use stock::store::ReadConfig;
use testkit::{ClusterOptions, Process, RedisCluster, procfs, until};
use tokio::time::sleep;

use crate::fixture::{SOON, Shop, TOKEN, cluster};

/// The number of the first launch of the command; ledgers have lower ones.
const COMMANDS: u16 = 10;
/// Orders that are generated for a restore of many.
const GENERATED: usize = 100_000;

/// A shop whose buyers have keys, so that they can repeat their attempts.
struct Drill {
    shop: Shop,
    client: BuyerClient,
    commands: u16,
}

impl Drill {
    async fn open(units: u64) -> Self {
        Self::open_with(units, &[]).await
    }

    /// Opens a drill whose ledger has these settings.
    async fn open_with(units: u64, settings: &[(String, String)]) -> Self {
        let shop = Shop::open(units).await;
        shop.stack.start_ledger_with(settings).await.unwrap();
        Self { shop, client: BuyerClient::new(ANSWER_LIMIT), commands: COMMANDS }
    }

    /// Lets these users buy, each with a key of their own. Returns the orders of those who have a unit.
    async fn buy(&self, users: std::ops::Range<usize>) -> BTreeMap<usize, String> {
        let attempts = stream::iter(users).map(async |user| (user, self.attempt(user).await));
        let answers: Vec<(usize, Answer)> = attempts.buffer_unordered(16).collect().await;
        let bought = answers.into_iter().filter(|(_, answer)| answer.kind == AnswerKind::Purchased);
        bought.map(|(user, answer)| (user, answer.order.unwrap())).collect()
    }

    /// Repeats the attempt of a user until its outcome is definite.
    async fn attempt(&self, user: usize) -> Answer {
        let (name, key) = (format!("buyer-{user:05}"), format!("key-{user}"));
        let purchase = PurchaseRequest { user: &name, key: Some(&key), ..PurchaseRequest::default() };
        loop {
            let answer = self.client.buy(&self.shop.stack.url(), purchase).await;
            if answer.kind.is_definite() {
                return answer;
            }
            sleep(answer.retry_after.unwrap_or(Duration::from_millis(100))).await;
        }
    }

    /// The hash tags of the shards, as the record names them.
    async fn shard_tags(&self) -> Vec<String> {
        let cluster = self.shop.cluster().await;
        let record = cluster.read(ReadConfig(&SaleKeys::new(&"flash".parse().unwrap()))).await;
        record.unwrap().unwrap().layout.tags.iter().map(|tag| format!("{tag:?}")).collect()
    }

    /// Deletes everything that the Redis servers hold.
    async fn lose_redis_data(&self) {
        for primary in self.shop.stack.redis().primaries().await {
            let mut server = self.shop.stack.redis().connection(primary).await.unwrap();
            redis::cmd("FLUSHALL").exec_async(&mut server).await.unwrap();
            redis::cmd("FUNCTION").arg("FLUSH").exec_async(&mut server).await.unwrap();
        }
    }

    fn launch(&mut self, redis_url: &str, arguments: &[&str]) -> Process {
        self.commands += 1;
        let launch = self.shop.database.ledger(self.commands, redis_url).arg("restore");
        launch.args(arguments).spawn().unwrap()
    }

    /// Adds rows for orders that no shard has sold, as after a long sale.
    fn add_rows(&self, count: usize) {
        self.sql(&format!(
            "INSERT INTO order_events (sale, creation, shard, incarnation, seq, n, position, id, aggregatetype,
                 aggregateid, type, payload, user_id, at)
             SELECT sale, creation, shard, incarnation, 1000000 + number, 0, (SELECT position FROM positions) + number,
                 gen_random_uuid(), aggregatetype, lpad(number::text, 14, '0'), type,
                 payload || jsonb_build_object('userId', 'generated-' || number), 'generated-' || number, at
             FROM order_events, generate_series(1, {count}) AS number WHERE position = 1;
             UPDATE cursors SET orders = orders + {count} WHERE shard = (SELECT shard FROM order_events WHERE position = 1);
             UPDATE positions SET position = position + {count}"
        ));
    }

    /// Runs the command, and returns its exit code and output.
    async fn restore_on(&mut self, redis_url: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let process = self.launch(redis_url, arguments);
        let code = process.wait(SOON).await.unwrap().code();
        (code, fs::read_to_string(process.log()).unwrap())
    }

    async fn restore(&mut self, arguments: &[&str]) -> (Option<i32>, String) {
        let seeds = self.shop.stack.redis().seeds();
        self.restore_on(&seeds, arguments).await
    }

    /// Runs the command for the sale, and expects that it succeeds.
    async fn restored(&mut self) -> String {
        let (code, output) = self.restore(&["--sale", "flash", "--yes"]).await;
        assert_eq!(code, Some(0), "{output}");
        output
    }

    async fn resume(&self) {
        let (admin, url) = (self.shop.stack.admin(), self.shop.stack.coordinators()[0].url().to_owned());
        let resumed = async || {
            let request = admin.post(&url, "sales/flash/resume").json(&json!({}));
            request.send().await.is_ok_and(|answer| answer.status().is_success())
        };
        until("the sale is resumed", SOON, resumed).await.unwrap();
        until("nodes serve the sale", SOON, async || self.status().await == "active").await.unwrap();
    }

    async fn status(&self) -> String {
        self.shop.stack.status().await.map(|status| status.status).unwrap_or_default()
    }

    /// Asserts that the audit of a coordinator is ok, and returns the units sold.
    async fn audited(&self) -> u64 {
        let report = self.shop.stack.audit("flash").await.unwrap();
        assert!(report.ok, "{:?}", report.violations);
        report.sold
    }

    fn sql(&self, sql: &str) -> String {
        self.shop.database.postgres.sql(sql).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_sale_is_restored_and_sold_to_the_end() {
    // Given a sale in full swing: 120 orders in the ledger, 10 that it has not drained, and a user who was erased.
    let mut drill = Drill::open(300).await;
    let drained = drill.buy(0..120).await;
    drill.shop.database.wait_for_orders(120).await;
    let erase = format!("{}/sales/flash/orders/{}/user", drill.shop.database.ledger_url(1), drained[&0]);
    let erased = Client::new().delete(erase).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(erased.status(), StatusCode::NO_CONTENT);
    let is_seen = async || drill.sql("SELECT sold FROM sightings") == "120";
    until("the ledger has seen all orders", SOON, is_seen).await.unwrap();
    drill.shop.ledger(1).kill();
    let lost = drill.buy(120..130).await;
    assert_eq!((drained.len(), lost.len()), (120, 10));

    // When all data of Redis is lost, while nodes and coordinators run on.
    drill.lose_redis_data().await;
    let (code, shown) = drill.restore(&["--sale", "flash"]).await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("the ledger has 120 orders, 1 of them of erased users"), "{shown}");
    assert!(
        shown.contains("at most 180 acknowledged purchases are lost")
            && shown.contains("nothing was changed"),
        "{shown}"
    );
    assert!(shown.contains("the latest look at Redis, 0 orders were not in the ledger"), "{shown}");
    let output = drill.restored().await;
    assert!(output.contains("120 of 120 orders") && output.contains("180 free units"), "{output}");

    // Then the sale is there, paused, and complete.
    let is_paused = async || drill.status().await == "paused";
    until("nodes serve the restored sale", SOON, is_paused).await.unwrap();
    assert_eq!(drill.audited().await, 120);
    assert_eq!(drill.attempt(500).await.kind, AnswerKind::NotActive);

    // Buyers who repeat their attempts get their orders; those whose orders were lost get them again.
    drill.shop.start_ledger().await;
    drill.resume().await;
    let repeated = drill.buy(1..130).await;
    let expected: BTreeMap<usize, String> =
        drained.iter().chain(&lost).skip(1).map(|(user, order)| (*user, order.clone())).collect();
    assert_eq!(repeated, expected);

    // And it is sold to the end: each unit once, and nobody has two.
    let late = drill.buy(500..800).await;
    assert_eq!(late.len(), 300 - 120 - 10);
    let of_all = drill.buy(1..130).await;
    assert_eq!(of_all, expected);
    assert_eq!(drill.audited().await, 300);
    drill.shop.database.wait_for_orders(300).await;
    let orders = drained.values().chain(lost.values()).chain(late.values()).cloned().collect();
    let rows = drill.sql("SELECT aggregateid FROM order_events");
    assert_eq!(rows.lines().map(str::to_owned).collect::<BTreeSet<_>>(), orders);
    assert_eq!(rows.lines().count(), 300, "a row for each order");
    assert_eq!(
        drill.sql("SELECT count(DISTINCT user_id) FROM order_events"),
        "299",
        "users, without the erased one"
    );
    assert_eq!(drill.sql("SELECT max(position), count(DISTINCT position) FROM order_events"), "300|300");
    let conflicts = "flashsale_ledger_conflicts{sale=\"flash\"}";
    assert_eq!(drill.shop.database.metric(2, conflicts).await, Some(0.0));

    // A second restore is refused.
    let (code, output) = drill.restore(&["--sale", "flash", "--yes"]).await;
    assert!(code == Some(2) && output.contains("Redis has a sale `flash`"), "{code:?} {output}");
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_restore_goes_on() {
    let mut drill = Drill::open(200).await;
    let orders = drill.buy(0..100).await;
    drill.shop.database.wait_for_orders(100).await;
    drill.lose_redis_data().await;

    // Given restores that end at each of their steps: without replicas, killed before the cursors, after the record.
    let replicas = drill.shop.stack.redis().replicas().await;
    replicas.iter().for_each(|&replica| drill.shop.stack.redis().freeze(replica));
    let (code, output) = drill.restore(&["--sale", "flash", "--yes"]).await;
    assert!(code == Some(1) && output.contains("did not take its"), "{code:?} {output}");
    replicas.iter().for_each(|&replica| drill.shop.stack.redis().thaw(replica));
    drill.sql(
        "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'",
    );
    for (event, table, reached) in [
        ("INSERT", "cursors", "100 free units are minted"),
        ("UPDATE", "restores", "100 free units are minted"),
    ] {
        drill.sql(&format!(
            "CREATE TRIGGER stall BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION stall()"
        ));
        let seeds = drill.shop.stack.redis().seeds();
        let restore = drill.launch(&seeds, &["--sale", "flash", "--yes"]);
        let stalls = async || {
            fs::read_to_string(restore.log()).unwrap().contains(reached)
                && drill.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "1"
        };
        until(&format!("the restore stalls at {table}"), SOON, stalls).await.unwrap();
        restore.kill();
        restore.wait(SOON).await.unwrap();
        drill.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        drill.sql(&format!("DROP TRIGGER stall ON {table}"));
        if table == "cursors" {
            // The sale is not there before its cursors are.
            let status = drill.client.sale_status(&drill.shop.stack.url()).await;
            assert!(status.is_err() || status.unwrap().status != "paused");
        }
    }

    // Then the next one ends it.
    let output = drill.restored().await;
    assert!(output.contains("last steps are repeated"), "{output}");
    until("nodes serve the sale", SOON, async || drill.status().await == "paused").await.unwrap();
    assert_eq!(drill.audited().await, 100);
    drill.resume().await;
    assert_eq!(drill.buy(0..100).await, orders);
    assert_eq!(drill.buy(100..250).await.len(), 100);
    assert_eq!(drill.audited().await, 200);
    drill.shop.database.wait_for_orders(200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_in_flight_is_restored() {
    let mut drill = Drill::open(100).await;
    drill.buy(0..30).await;
    drill.shop.database.wait_for_orders(30).await;
    // Given a statement of the ledger that PostgreSQL has not finished when Redis loses its data.
    drill.sql(
        "CREATE FUNCTION stall() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.08); RETURN NEW; END';
         CREATE TRIGGER stall BEFORE INSERT ON order_events FOR EACH ROW EXECUTE FUNCTION stall()",
    );
    let late = drill.buy(30..50).await;
    assert_eq!(late.len(), 20);
    drill.lose_redis_data().await;

    drill.restored().await;

    // Then its rows are claims, too: the ledger has no row that the sale does not know.
    until("nodes serve the sale", SOON, async || drill.status().await == "paused").await.unwrap();
    let sold = drill.audited().await;
    drill.sql("DROP TRIGGER stall ON order_events");
    assert_eq!(drill.sql("SELECT count(*) FROM order_events"), sold.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn late_statement_writes_nothing_after_a_restore() {
    // Given a ledger whose statements are in PostgreSQL, and do not begin before a lock is released.
    let patient = [("DATABASE_TIMEOUT".to_owned(), "5m".to_owned())];
    let mut drill = Drill::open_with(100, &patient).await;
    let drained = drill.buy(0..30).await;
    drill.shop.database.wait_for_orders(30).await;
    let postgres = drill.shop.database.postgres.clone();
    let lock = "BEGIN; LOCK TABLE order_events IN SHARE MODE; SELECT pg_sleep(300)";
    let locking = thread::spawn(move || postgres.sql(lock));
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until("the lock", SOON, async || drill.sql(sleeps) == "1").await.unwrap();
    let late = drill.buy(30..50).await;
    let writes = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%WITH held%'
                      AND pid <> pg_backend_pid()";
    until("the statement waits", SOON, async || drill.sql(writes) == "1").await.unwrap();

    // When the sale is restored without these orders, and the statements begin.
    drill.lose_redis_data().await;
    let output = drill.restored().await;
    assert!(output.contains("30 of 30 orders"), "{output}");
    drill.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    assert!(locking.join().unwrap().is_err());
    until("the statement has ended", SOON, async || drill.sql(writes) == "0").await.unwrap();

    // Then they write no row: the restored sale does not know these orders.
    assert_eq!(drill.shop.database.count("order_events"), 30);
    // Buyers who repeat their attempts get the same orders, and the same ledger writes each once.
    drill.resume().await;
    let repeated = drill.buy(0..50).await;
    assert_eq!(repeated, drained.into_iter().chain(late).collect());
    let orders = repeated.into_values().chain(drill.buy(50..60).await.into_values()).collect();
    drill.shop.database.wait_for_orders(60).await;
    let rows = drill.sql("SELECT aggregateid FROM order_events");
    assert_eq!(rows.lines().map(str::to_owned).collect::<BTreeSet<_>>(), orders);
    assert_eq!((rows.lines().count(), drill.audited().await), (60, 60));
    let conflicts = "flashsale_ledger_conflicts{sale=\"flash\"}";
    assert_eq!(drill.shop.database.metric(1, conflicts).await, Some(0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sale_is_restored_on_another_cluster() {
    // Given a sale with many orders.
    let mut drill = Drill::open(150_000).await;
    let orders = drill.buy(0..40).await.len() + GENERATED;
    drill.shop.database.wait_for_orders(40).await;
    drill.add_rows(GENERATED);
    let options = ClusterOptions { replicas_per_primary: 0, ..ClusterOptions::default() };
    let redis = RedisCluster::start(options).await.unwrap();

    // When it is restored on an empty cluster.
    let (began, mut memory) = (Instant::now(), 0);
    let process = drill.launch(&redis.seeds(), &["--sale", "flash", "--yes"]);
    while process.is_running() {
        memory = memory.max(procfs::peak_resident_bytes(process.pid()).unwrap_or_default());
        sleep(Duration::from_millis(10)).await;
    }
    let output = fs::read_to_string(process.log()).unwrap();
    println!("{orders} orders in {:?}, at most {memory} bytes", began.elapsed());

    // Then it is complete, and the command has held a part of the orders at a time.
    assert!(process.wait(SOON).await.unwrap().success(), "{output}");
    assert!(memory < 64 << 20, "{memory} bytes");
    let cluster = cluster(&redis.seeds()).await;
    let config = cluster.read(ReadConfig(&SaleKeys::new(&"flash".parse().unwrap()))).await.unwrap().unwrap();
    assert_eq!((config.state, config.total_stock, config.layout.tags.len()), (SaleState::Paused, 150_000, 6));
    let report = audit(&cluster, &Sale::new(config).unwrap()).await.unwrap();
    assert!(report.ok, "{:?}", report.violations);
    assert_eq!(
        (report.sold, report.stock, report.orders as usize),
        (orders as u64, 150_000 - orders as u64, orders)
    );
    // The ledger of the lost cluster can no longer write.
    drill.buy(40..50).await;
    let replaced = async || drill.shop.log(1).contains("a restore of the sale has replaced the shard");
    until("the ledger says so", SOON, replaced).await.unwrap();
    assert_eq!(drill.shop.database.count("order_events"), orders);
}

#[tokio::test(flavor = "multi_thread")]
async fn sold_out_sale_sells_lost_units_again() {
    // Given a sale that nodes and coordinators know as sold out, and a ledger that lacks ten orders.
    let mut drill = Drill::open(60).await;
    drill.buy(0..50).await;
    drill.shop.database.wait_for_orders(50).await;
    drill.shop.ledger(1).kill();
    drill.buy(50..60).await;
    let sold_out = async || drill.attempt(99).await.kind == AnswerKind::SoldOut;
    until("the sale is sold out", SOON, sold_out).await.unwrap();
    let lost_tags = drill.shard_tags().await;
    drill.lose_redis_data().await;

    drill.restored().await;
    drill.resume().await;

    // Then no key of a lost shard is in use, so one that comes back is not mistaken for a restored one.
    let restored_tags = drill.shard_tags().await;
    assert_eq!(restored_tags.len(), lost_tags.len());
    assert!(!restored_tags.iter().any(|tag| lost_tags.contains(tag)), "{lost_tags:?} {restored_tags:?}");

    // And the ten units are sold to other buyers, and the sale is sold out again.
    assert_eq!(drill.buy(100..130).await.len(), 10);
    assert_eq!(drill.audited().await, 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_refuses_what_it_must_not_do() {
    let mut drill = Drill::open(100).await;
    drill.buy(0..20).await;
    drill.shop.database.wait_for_orders(20).await;
    let refused = async |drill: &mut Drill, sale: &str, reason: &str| {
        let (code, output) = drill.restore(&["--sale", sale, "--yes"]).await;
        assert!(code == Some(2) && output.contains(reason), "{code:?}: {output}, expected: {reason}");
    };

    refused(&mut drill, "flush", "the ledger has no sale `flush`").await;
    refused(&mut drill, "flash", "Redis has a sale `flash`: version 2, open, the same creation").await;
    // A sale that has lost its record only.
    let keys = SaleKeys::new(&"flash".parse().unwrap());
    for primary in drill.shop.stack.redis().primaries().await {
        let mut server = drill.shop.stack.redis().connection(primary).await.unwrap();
        redis::cmd("DEL").arg(&keys.config).query_async::<i32>(&mut server).await.ok();
    }
    refused(&mut drill, "flash", "Redis has 6 shards of this sale").await;
    drill.lose_redis_data().await;
    let (code, output) = drill.restore(&["--sale", "flash", "--creation", "0123"]).await;
    assert!(code == Some(2) && output.contains("no creation `0123`"), "{code:?}: {output}");
    // Books that do not balance.
    drill.sql("DELETE FROM order_events WHERE position = 7");
    refused(&mut drill, "flash", "the ledger has 19 orders, but its cursors say 20").await;
    drill.shop.ledger(1).kill();
    drill.sql("DROP TABLE sale_versions");
    refused(&mut drill, "flash", "the tables are missing").await;

    drill.shop.database.postgres.kill();
    let (code, output) = drill.restore(&["--sale", "flash"]).await;
    assert!(code == Some(1) && output.contains("DATABASE_URL"), "{code:?}: {output}");
    let (code, output) = drill.restore(&["--sale", "Flash!"]).await;
    assert!(code == Some(64) && output.contains("--sale"), "{code:?}: {output}");
}
