//! Nodes sell on their own: without a coordinator, or without the primary that holds the coordinators' data.

use std::time::Duration;

use buyers::{AnswerKind, BuyerClient, SaleStatus, read_json};
use jiff::SignedDuration;
use rediscluster::slot_of_tag;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use stock::calls::Donate;
use stock::ids::ShardId;
use stock::layout::{ACTIVE_SALES_KEY, SALES_KEY, SaleKeys};
use testkit::stack::{Coordinator, SaleOptions};
use testkit::{Buyers, StackOptions, until};

use crate::fixture::{
    OpenSale, TIMEOUT, assert_all_definite, assert_purchases, buy_at, buyers, purchase_attempts, purchases,
    sale_options, tally, users_with_home,
};

/// Time within which each node applies an operator's change.
const CHANGE_SEEN_MAX: Duration = Duration::from_secs(1);

/// Starts a sale with one unit in each shard, which no coordinator moves ahead of demand.
async fn start_with_one_unit_in_each_shard(shards: u32, nodes: u16) -> OpenSale {
    let sale = SaleOptions { shards: Some(shards), ..sale_options(shards.into()) };
    let coordinator_environment = vec![("REBALANCE_PERIOD".into(), "0s".into())];
    OpenSale::start_with(StackOptions { nodes, sale, coordinator_environment, ..StackOptions::default() })
        .await
}

/// Leaves the only token of a shard in its channel to another one, as a process that dies after its donation does.
async fn abandon_token(sale: &OpenSale, donor: ShardId, receiver: ShardId) {
    let donated = sale.cluster.write(Donate { shard: sale.sale.shard(donor), to: receiver, want: 1 }).await;
    assert_eq!(donated.unwrap().stock, 0, "shard {donor} had more than one token");
}

/// Changes the sale while the leader is frozen, and kills both coordinators as soon as the follower has answered. No
/// coordinator publishes a snapshot after the change.
async fn change_then_kill_coordinators(sale: &OpenSale, action: &str, body: Value) {
    let coordinators = sale.stack.coordinators();
    let leads = async |url: &str| sale.stack.admin().leads(url).await.unwrap();
    let (leader, other) = match leads(coordinators[0].url()).await {
        true => (&coordinators[0], &coordinators[1]),
        false => (&coordinators[1], &coordinators[0]),
    };
    assert!(leads(leader.url()).await, "none of the coordinators leads");
    leader.process().freeze();
    change(sale, other, action, body).await;
    coordinators.iter().for_each(|coordinator| coordinator.process().kill());
}

async fn change(sale: &OpenSale, coordinator: &Coordinator, action: &str, body: Value) {
    let path = format!("sales/flash/{action}");
    let request = sale.stack.admin().post(coordinator.url(), &path).json(&body);
    read_json::<Value>(request).await.unwrap();
}

async fn wait_until_each_node_shows(
    sale: &OpenSale,
    what: &str,
    limit: Duration,
    is_shown: impl Fn(&SaleStatus) -> bool,
) {
    for node in sale.stack.nodes() {
        let client = BuyerClient::new(TIMEOUT);
        let shown = async || client.sale_status(node.url()).await.is_ok_and(|status| is_shown(&status));
        until(what, limit, shown).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restock_is_sold_when_coordinators_die_afterwards() {
    // Given a sale that is sold out.
    let options = StackOptions { coordinators: 2, sale: sale_options(60), ..StackOptions::default() };
    let sale = OpenSale::start_with(options).await;
    let mut answers = sale.buy(&buyers(0..80)).await;
    assert_all_definite(&answers);
    assert_purchases(&answers, 60);

    // When a restock is acknowledged, and both coordinators die at once.
    change_then_kill_coordinators(&sale, "restock", json!({ "units": 110 })).await;
    wait_until_each_node_shows(&sale, "the new total", CHANGE_SEEN_MAX, |status| status.total_stock == 170)
        .await;

    // Then no buyer is sent away while units are left.
    let later = sale.buy(&buyers(100..210)).await;
    assert_purchases(&later, 110);
    let too_late = sale.buy(&buyers(300..320)).await;
    assert_eq!(tally(&too_late).keys().collect::<Vec<_>>(), [&AnswerKind::SoldOut]);

    // And a restarted coordinator finds no violation.
    answers.extend(later);
    sale.stack.start_coordinator().await.unwrap();
    let audit = sale.stack.audit("flash").await.unwrap();
    assert!(audit.ok && audit.sold == 170, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn extension_applies_when_coordinators_die_afterwards() {
    // Given a sale that ends in ten minutes. Nodes refuse buyers more than a minute after the end without asking
    // Redis.
    let minutes = |minutes| Duration::from_mins(minutes);
    let options = SaleOptions { duration: minutes(10), ..sale_options(600) };
    let options = StackOptions { coordinators: 2, clocks: true, sale: options, ..StackOptions::default() };
    let sale = OpenSale::start_with(options).await;
    let old_end = sale.sale.config.window.ends_at;

    // When an extension is acknowledged, both coordinators die at once, and the old end passes.
    let end = jiff::Timestamp::now() + minutes(60);
    change_then_kill_coordinators(&sale, "extend", json!({ "endsAt": end.to_string() })).await;
    let redis = sale.stack.redis();
    for server in redis.servers().await {
        redis.set_clock(server.addr, SignedDuration::from_mins(15)).unwrap();
    }
    let is_past = |status: &SaleStatus| status.server_time.as_millisecond() as u64 > old_end;
    wait_until_each_node_shows(&sale, "a time after the old end", TIMEOUT, is_past).await;
    wait_until_each_node_shows(&sale, "the extended sale is active", CHANGE_SEEN_MAX, |status| {
        status.status == "active"
    })
    .await;

    // Then buyers are served.
    let answers = sale.buy(&buyers(0..100)).await;
    assert_purchases(&answers, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_keep_selling_when_sale_list_is_lost() {
    // Given a sale without a coordinator, two nodes of which one is stopped, and deleted lists of all and of active sales.
    let sale = OpenSale::start(300).await;
    let (node, other) = (sale.stack.nodes()[0].clone(), sale.stack.nodes()[1].clone());
    sale.stack.coordinators()[0].process().kill();
    other.process().kill();
    let list_primary = sale.primary_of(slot_of_tag(SALES_KEY));
    let delete = redis::cmd("DEL").arg(SALES_KEY).arg(ACTIVE_SALES_KEY).to_owned();
    assert_eq!(sale.query::<u64>(list_primary, &delete).await, 2);

    // When the running node has noticed the missing list: it answers 503 for a sale that it does not know.
    let status_of = async |node: &str, sale: &str| {
        let answer = Client::new().get(format!("{node}/api/sales/{sale}/status")).send().await;
        answer.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
    };
    let unknown = async || status_of(node.url(), "another").await == StatusCode::SERVICE_UNAVAILABLE;
    until("the node notices the missing list", TIMEOUT, unknown).await.unwrap();

    // Then it continues to sell.
    assert_purchases(&buy_at(node.url(), &buyers(0..100)).await, 100);

    // And a node that starts now answers 503, never 404.
    let checks = async {
        let answers = async || status_of(other.url(), "flash").await == StatusCode::SERVICE_UNAVAILABLE;
        until("the fresh node answers", TIMEOUT, answers).await.unwrap();
        for _ in 0..20 {
            assert_eq!(status_of(other.url(), "flash").await, StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    tokio::select! {
        ready = other.restart() => panic!("a node without a list of sales became ready: {ready:?}"),
        () = checks => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn status_advances_while_snapshot_shard_is_frozen() {
    // Given a sale without purchases, whose snapshot is held by one primary and its replica.
    let sale = OpenSale::start(1_200).await;
    let redis = sale.stack.redis();
    let primary = sale.primary_of(SaleKeys::new(sale.sale.id()).slot);
    let replica = redis.replicas_of(primary).await[0];

    // When both freeze, and buyers come whose shards are on other primaries.
    let elsewhere = |user: &&String| {
        let user = stock::ids::UserId::parse(user, stock::ids::UserIdKind::Opaque).unwrap();
        sale.primary_of(sale.sale.shard(sale.sale.ring().home(&user)).slot) != primary
    };
    let users: Vec<String> = buyers(0..300).iter().filter(elsewhere).take(100).cloned().collect();
    [primary, replica].iter().for_each(|&server| redis.freeze(server));
    assert_purchases(&sale.buy(&users).await, 100);

    // Then the status shows these purchases.
    let bought = |status: &SaleStatus| status.remaining_stock == 1_100;
    wait_until_each_node_shows(&sale, "the purchases on other shards", TIMEOUT, bought).await;
    [primary, replica].iter().for_each(|&server| redis.thaw(server));
}

#[tokio::test(flavor = "multi_thread")]
async fn restock_is_sold_while_record_is_unreadable() {
    // Given a sale that is sold out, and buyers of a shard that gets no unit of the next restock. Another primary than
    // that shard's holds the sale's record, and coordinators move no units between shards.
    let options = StackOptions {
        nodes: 1,
        sale: SaleOptions { shards: Some(3), ..sale_options(3) },
        coordinator_environment: vec![("REBALANCE_PERIOD".into(), "0s".into())],
        ..StackOptions::default()
    };
    let sale = OpenSale::start_with(options).await;
    assert_all_definite(&sale.buy(&buyers(0..30)).await);
    wait_until_each_node_shows(&sale, "the sale is sold out", TIMEOUT, |status| status.sold_out).await;
    let record_primary = sale.primary_of(SaleKeys::new(sale.sale.id()).slot);
    let restocked = sale.sale.split(1).iter().position(|&units| units > 0).unwrap();
    let mut others = sale.sale.shards().iter().filter(|shard| shard.id.index() != restocked);
    let home = others.find(|shard| sale.primary_of(shard.slot) != record_primary).unwrap();
    let buyers = users_with_home(&sale.sale, home.id, 20);

    // When a restock of one unit is acknowledged, and the primary with the record freezes at once.
    change(&sale, &sale.stack.coordinators()[0], "restock", json!({ "units": 1 })).await;
    sale.stack.redis().freeze(record_primary);

    // Then no buyer hears that all is sold before one has bought the unit.
    let mut answers = Vec::new();
    for buyer in &buyers {
        let attempt = purchase_attempts([buyer], &sale.node_url());
        answers.extend(Buyers::new(1).buy(attempt).await);
        if !purchases(&answers).is_empty() {
            break;
        }
    }
    sale.stack.redis().thaw(record_primary);
    let told = tally(&answers);
    assert_eq!(
        (purchases(&answers).len(), told.get(&AnswerKind::SoldOut)),
        (1, None),
        "the answers are {told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_tokens_are_sold_without_coordinator() {
    // Given a sale without a coordinator, and two of its three units in channels to the same shard.
    let sale = start_with_one_unit_in_each_shard(3, 2).await;
    sale.stack.coordinators()[0].process().kill();
    let [buying, receiver, other] = [0, 1, 2].map(ShardId::new);
    abandon_token(&sale, buying, receiver).await;
    abandon_token(&sale, other, receiver).await;

    // When all buyers come to a shard that those channels do not lead to.
    let answers = sale.buy(&users_with_home(&sale.sale, buying, 5)).await;

    // Then all units are sold.
    assert_purchases(&answers, 3);
    assert_all_definite(&answers);
    sale.stack.start_coordinator().await.unwrap();
    sale.assert_sold_out(&answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unconfirmed_donations_are_sold_without_coordinator() {
    // Given a sale without a coordinator, and a shard that has sold its unit.
    let sale = start_with_one_unit_in_each_shard(3, 1).await;
    sale.stack.coordinators()[0].process().kill();
    let home = ShardId::new(1);
    let users = users_with_home(&sale.sale, home, 5);
    let mut answers = sale.buy(&users[..1]).await;
    assert_purchases(&answers, 1);

    // When its next buyers come while the replicas of both other shards are frozen, until both have donated. The node
    // asks the second one because the first donation is not confirmed in time.
    let redis = sale.stack.redis();
    let mut frozen = Vec::new();
    for shard in sale.sale.shards().iter().filter(|shard| shard.id != home) {
        frozen.extend(redis.replicas_of(sale.primary_of(shard.slot)).await);
    }
    frozen.iter().for_each(|&replica| redis.freeze(replica));
    let fault = async {
        until("both donations", TIMEOUT, async || sale.tokens_in_channels().await == 2).await.unwrap();
        frozen.iter().for_each(|&replica| redis.thaw(replica));
    };
    let ((), later) = tokio::join!(fault, sale.buy(&users[1..]));

    // Then all units are sold.
    answers.extend(later);
    assert_purchases(&answers, 3);
    assert_all_definite(&answers);
    sale.stack.start_coordinator().await.unwrap();
    sale.assert_sold_out(&answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_token_is_sold_while_none_leads() {
    // Given a sale whose coordinator cannot lead, because primary and replica of the lease are dead.
    let sale = start_with_one_unit_in_each_shard(6, 1).await;
    let redis = sale.stack.redis();
    let lease_primary = sale.primary_of(slot_of_tag(SALES_KEY));
    let (reachable, lost): (Vec<_>, Vec<_>) =
        sale.sale.shards().iter().partition(|shard| sale.primary_of(shard.slot) != lease_primary);
    let lease_replica = redis.replicas_of(lease_primary).await[0];
    [lease_replica, lease_primary].iter().for_each(|&server| redis.kill(server));
    let coordinators = sale.stack.coordinators();
    let is_following =
        async || sale.stack.admin().leads(coordinators[0].url()).await.is_ok_and(|leads| !leads);
    until("the end of leadership", TIMEOUT, is_following).await.unwrap();

    // When a token is abandoned in the channel between two reachable shards, and all buyers come to a third one.
    let [donor, receiver, home] = [0, 1, 2].map(|index: usize| reachable[index].id);
    abandon_token(&sale, donor, receiver).await;
    let units = reachable.len();
    let answers = sale.buy(&users_with_home(&sale.sale, home, units)).await;

    // Then all units of the reachable shards are sold.
    assert_eq!((units, lost.len()), (4, 2), "the shards are not spread evenly");
    assert_purchases(&answers, units);
    assert!(coordinators[0].process().is_running());
}
