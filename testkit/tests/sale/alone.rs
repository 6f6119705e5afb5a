//! Nodes on their own: the coordinator is gone, or the primary that holds what coordinators publish.

use std::time::Duration;

use jiff::SignedDuration;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use stock::layout::{SALES_KEY, SaleKeys, slot_of_tag};
use testkit::stack::SaleOptions;
use testkit::{BuyerAnswer, Buyers, StackOptions, until};

use crate::actors::{OpenSale, assert_all_definite, purchases, sale_of, tally, wishes};

/// What has to happen happens by then, on a busy machine too.
const SOON: Duration = Duration::from_secs(20);
/// How soon each node goes by what an operator changed.
const CHANGE_SEEN_MAX: Duration = Duration::from_secs(1);

fn users(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|n| format!("buyer-{n:04}")).collect()
}

async fn buys(sale: &OpenSale, users: &[String]) -> Vec<BuyerAnswer> {
    Buyers::new(16).buy_persistently(wishes(users, &sale.stack.url()), SOON).await
}

/// A sale with two coordinators.
async fn with_two_coordinators(options: StackOptions) -> OpenSale {
    OpenSale::with(StackOptions { coordinators: 2, ..options }).await
}

/// Changes the sale while its leader is frozen, and kills both coordinators as soon as the other has answered: none of
/// them published a snapshot after the change.
async fn change_and_lose_coordinators(sale: &OpenSale, action: &str, body: Value) {
    let coordinators = sale.stack.coordinators();
    let client = Client::builder().timeout(SOON).build().unwrap();
    let leads = async |url: &str| {
        let view = client.get(format!("{url}/admin/coordinators")).bearer_auth(sale.stack.admin_token());
        view.send().await.unwrap().json::<Value>().await.unwrap()["leads"] == true
    };
    let (leader, other) = match leads(coordinators[0].url()).await {
        true => (&coordinators[0], &coordinators[1]),
        false => (&coordinators[1], &coordinators[0]),
    };
    assert!(leads(leader.url()).await, "none of the coordinators leads");
    leader.process().freeze();
    let url = format!("{}/admin/sales/flash/{action}", other.url());
    let changing = client.post(url).bearer_auth(sale.stack.admin_token()).json(&body).send();
    let status = changing.await.unwrap().status();
    coordinators.iter().for_each(|coordinator| coordinator.process().kill());
    assert_eq!(status, StatusCode::OK);
}

/// A node's status of the sale; `None` where it does not say.
async fn status_at(node: &str) -> Option<Value> {
    let answer = Client::new().get(format!("{node}/api/sale/status")).send().await.ok()?;
    if answer.status().is_success() { answer.json().await.ok() } else { None }
}

async fn until_each_node_shows(
    sale: &OpenSale,
    what: &str,
    limit: Duration,
    is_shown: impl Fn(&Value) -> bool,
) {
    for node in sale.stack.nodes() {
        let shown = async || status_at(node.url()).await.is_some_and(|status| is_shown(&status));
        until(what, limit, shown).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn units_restocked_right_before_all_coordinators_die_are_sold() {
    // Given a sale of which every unit is sold.
    let sale = with_two_coordinators(StackOptions { sale: sale_of(60), ..StackOptions::default() }).await;
    let mut answers = buys(&sale, &users(0..80)).await;
    assert_all_definite(&answers);
    assert_eq!(purchases(&answers).len(), 60);

    // When an operator is told that there are more, and all coordinators die at once.
    change_and_lose_coordinators(&sale, "restock", json!({ "units": 110 })).await;
    until_each_node_shows(&sale, "the new total", CHANGE_SEEN_MAX, |status| status["totalStock"] == 170)
        .await;

    // Then nobody is sent away while there are units.
    let later = buys(&sale, &users(100..210)).await;
    assert_eq!(purchases(&later).len(), 110, "buyers were told {:?}", tally(&later));
    let too_late = buys(&sale, &users(300..320)).await;
    assert_eq!(tally(&too_late).keys().collect::<Vec<_>>(), ["409 out_of_stock"]);

    // And a coordinator that comes back finds the books right.
    answers.extend(later);
    sale.stack.start_coordinator().await.unwrap();
    let audit = sale.stack.audit("flash").await.unwrap();
    assert!(audit.ok && audit.sold == 170, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_extended_right_before_all_coordinators_die_stays_open() {
    // Given a sale that is nearly over, and more than a minute later buyers are refused without asking Redis.
    let minutes = |minutes| Duration::from_mins(minutes);
    let options = SaleOptions { duration: minutes(10), ..sale_of(600) };
    let options = StackOptions { clocks: true, sale: options, ..StackOptions::default() };
    let sale = with_two_coordinators(options).await;
    let old_end = sale.sale.config.window.ends_at;

    // When an operator is told that it goes on, all coordinators die at once, and the old end is long past.
    let end = jiff::Timestamp::now() + minutes(60);
    change_and_lose_coordinators(&sale, "extend", json!({ "endsAt": end.to_string() })).await;
    let redis = sale.stack.redis();
    for server in redis.servers().await {
        redis.set_clock(server.addr, SignedDuration::from_mins(15)).unwrap();
    }
    let is_past = |status: &Value| {
        let now: jiff::Timestamp = status["serverTime"].as_str().unwrap().parse().unwrap();
        now.as_millisecond() as u64 > old_end
    };
    until_each_node_shows(&sale, "a time after the old end", SOON, is_past).await;
    until_each_node_shows(&sale, "that it goes on", CHANGE_SEEN_MAX, |status| status["status"] == "active")
        .await;

    // Then buyers are served.
    let answers = buys(&sale, &users(0..100)).await;
    assert_eq!(purchases(&answers).len(), 100, "buyers were told {:?}", tally(&answers));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_list_stops_no_node_that_sells_and_hides_no_sale() {
    // Given a sale without any coordinator, two nodes of which one is not running, and the list of sales gone.
    let sale = OpenSale::of(300).await;
    let (node, other) = (sale.stack.nodes()[0].clone(), sale.stack.nodes()[1].clone());
    sale.stack.coordinators()[0].process().kill();
    other.process().kill();
    let redis = sale.stack.redis();
    let topology = sale.cluster.topology();
    let of_list = topology.primary(slot_of_tag(SALES_KEY)).unwrap().address.to_string().parse().unwrap();
    let mut connection = redis.connection(of_list).await.unwrap();
    let deleted: u64 = redis::cmd("DEL").arg(SALES_KEY).query_async(&mut connection).await.unwrap();
    assert_eq!(deleted, 1);

    // When the node that runs has looked for the list again: one that is asked for another sale cannot know it.
    let status_of = async |node: &str, sale: &str| {
        let answer = Client::new().get(format!("{node}/api/sales/{sale}/status")).send().await;
        answer.map_or(StatusCode::BAD_GATEWAY, |answer| answer.status())
    };
    let unknown = async || status_of(node.url(), "another").await == StatusCode::SERVICE_UNAVAILABLE;
    until("the node misses the list", SOON, unknown).await.unwrap();

    // Then it goes on selling.
    let wishes = wishes(&users(0..100), node.url());
    let answers = Buyers::new(16).buy_persistently(wishes, SOON).await;
    assert_eq!(purchases(&answers).len(), 100, "buyers were told {:?}", tally(&answers));

    // And one that starts now says that it does not know, never that there is no such sale.
    let asking = async {
        let answers = async || status_of(other.url(), "flash").await == StatusCode::SERVICE_UNAVAILABLE;
        until("the fresh node answers", SOON, answers).await.unwrap();
        for _ in 0..20 {
            assert_eq!(status_of(other.url(), "flash").await, StatusCode::SERVICE_UNAVAILABLE);
        }
    };
    tokio::select! {
        ready = other.restart() => panic!("a node that knows no sale says that it is ready: {ready:?}"),
        () = asking => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_moves_on_while_the_pair_with_its_snapshot_is_away() {
    // Given a sale whose snapshot lies on one pair, and nobody has bought.
    let sale = OpenSale::of(1_200).await;
    let redis = sale.stack.redis();
    let topology = sale.cluster.topology();
    let slot = SaleKeys::new(sale.sale.id()).slot;
    let primary = topology.primary(slot).unwrap().address.to_string().parse().unwrap();
    let replica = redis.replicas_of(primary).await[0];

    // When both servers of it freeze, and buyers come whose shards lie elsewhere.
    let elsewhere = |user: &&String| {
        let user = stock::ids::UserId::parse(user, stock::ids::UserIdKind::Opaque).unwrap();
        let shard = sale.sale.shard(sale.sale.ring().home(&user));
        topology.primary(shard.slot).unwrap().address.to_string() != primary.to_string()
    };
    let users: Vec<String> = users(0..300).iter().filter(elsewhere).take(100).cloned().collect();
    [primary, replica].iter().for_each(|&server| redis.freeze(server));
    let answers = buys(&sale, &users).await;
    assert_eq!(purchases(&answers).len(), 100, "buyers were told {:?}", tally(&answers));

    // Then the status shows what they bought.
    let bought = |status: &Value| status["remainingStock"].as_u64() == Some(1_100);
    until_each_node_shows(&sale, "what the others sold", SOON, bought).await;
    [primary, replica].iter().for_each(|&server| redis.thaw(server));
}
