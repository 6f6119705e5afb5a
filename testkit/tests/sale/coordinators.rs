//! Coordinators start and stop: one of them leads, and an open sale needs none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use buyers::read_json;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use stock::ids::ShardId;
use testkit::stack::Coordinator;
use testkit::{Buyers, StackOptions, until};

use crate::fixture::{
    OpenSale, TIMEOUT, assert_all_definite, assert_purchases, buyers, metric, purchase_attempts, read_sale,
    sale_options, users_with_home,
};

/// The default of `LEASE_DURATION`.
const LEASE: Duration = Duration::from_secs(2);

/// The answer to `GET /admin/coordinators`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LeadershipView {
    leader: Option<String>,
    answered_by: String,
    leads: bool,
}

async fn view_of(sale: &OpenSale, coordinator: &Coordinator) -> Option<LeadershipView> {
    read_json(sale.stack.admin().get(coordinator.url(), "coordinators").timeout(TIMEOUT)).await.ok()
}

/// Starts a sale with two coordinators and returns the leader and the follower.
async fn start_with_leader_and_follower(units: u64) -> (OpenSale, Arc<Coordinator>, Arc<Coordinator>) {
    let options = StackOptions { coordinators: 2, sale: sale_options(units), ..StackOptions::default() };
    let sale = OpenSale::start_with(options).await;
    let (leader, follower) = leader_and_follower(&sale).await;
    (sale, leader, follower)
}

/// Returns the two running coordinators, leader first, once both agree on the leader.
async fn leader_and_follower(sale: &OpenSale) -> (Arc<Coordinator>, Arc<Coordinator>) {
    let coordinators = sale.stack.coordinators();
    let mut running: Vec<_> = coordinators.into_iter().filter(|one| one.process().is_running()).collect();
    assert_eq!(running.len(), 2);
    let agreed = async || {
        let (Some(one), Some(two)) = (view_of(sale, &running[0]).await, view_of(sale, &running[1]).await)
        else {
            return false;
        };
        assert!(!(one.leads && two.leads), "both lead: {one:?} {two:?}");
        let leader = if one.leads { &one } else { &two };
        leader.leads && [&one, &two].iter().all(|view| view.leader.as_ref() == Some(&leader.answered_by))
    };
    until("two coordinators agree on the leader", TIMEOUT, agreed).await.unwrap();
    if view_of(sale, &running[1]).await.unwrap().leads {
        running.swap(0, 1);
    }
    (running.remove(0), running.remove(0))
}

/// Waits until this coordinator leads and returns the time that took.
async fn wait_until_leads(sale: &OpenSale, coordinator: &Coordinator) -> Duration {
    let began = Instant::now();
    let leads = async || view_of(sale, coordinator).await.is_some_and(|view| view.leads);
    until("another coordinator leads", TIMEOUT, leads).await.unwrap();
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn successor_leads_at_once_or_within_the_lease() {
    let (sale, leader, follower) = start_with_leader_and_follower(10).await;

    leader.process().term();
    let after_term = wait_until_leads(&sale, &follower).await;
    assert_eq!(leader.process().wait(TIMEOUT).await.unwrap().code(), Some(0));

    sale.stack.start_coordinator().await.unwrap();
    let (leader, follower) = leader_and_follower(&sale).await;
    leader.process().kill();
    let after_kill = wait_until_leads(&sale, &follower).await;

    println!("a successor led {after_term:.2?} after SIGTERM, {after_kill:.2?} after SIGKILL");
    assert!(after_term < LEASE / 2, "{after_term:?}: the lease was left to run out");
    // The lease may have been renewed just before the kill. A busy machine notices the new leader late.
    assert!(after_kill < LEASE + LEASE / 2, "{after_kill:?}: longer than the lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_frozen_past_its_lease_resumes_as_follower() {
    // Given buyers who all have one home shard, so that most units must be stolen or rebalanced to it.
    let (sale, leader, follower) = start_with_leader_and_follower(900).await;
    let users = users_with_home(&sale.sale, ShardId::new(5), 1_200);
    let mut answers = sale.buy(&users[..300]).await;

    // When the leader freezes, the other takes over, and the first one resumes while purchases continue.
    leader.process().freeze();
    let (bought, _) = tokio::join!(sale.buy(&users[300..600]), wait_until_leads(&sale, &follower));
    answers.extend(bought);
    leader.process().thaw();
    answers.extend(sale.buy(&users[600..]).await);

    // Then the first one follows, and the audit finds no violation.
    let other = view_of(&sale, &follower).await.unwrap().answered_by;
    let follows =
        async || view_of(&sale, &leader).await.is_some_and(|view| view.leader.as_ref() == Some(&other));
    until("the former leader follows", TIMEOUT, follows).await.unwrap();
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_coordinator_serves_the_admin_api() {
    let (sale, _leader, follower) = start_with_leader_and_follower(10).await;
    let (admin, url) = (sale.stack.admin(), follower.url());
    let send = async |request: RequestBuilder| {
        let response = request.send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };

    // Reads.
    let (status, detail) = send(admin.get(url, "sales/flash")).await;
    assert_eq!((status, &detail["problems"]), (StatusCode::OK, &json!([])));
    let stock: u64 =
        detail["shards"].as_array().unwrap().iter().map(|one| one["stock"].as_u64().unwrap()).sum();
    assert_eq!(stock, 10);

    // Changes.
    for (action, state) in [("pause", "paused"), ("resume", "open")] {
        let (status, changed) = send(admin.post(url, &format!("sales/flash/{action}"))).await;
        assert_eq!((status, &changed["state"]), (StatusCode::OK, &json!(state)));
    }

    // Creates a sale, which then sells.
    let lamps = json!({
        "id": "lamps", "totalStock": 3, "startsAt": "-1m", "endsAt": "1h",
        "productName": "Lamp", "productPrice": 9.5,
    });
    assert_eq!(send(admin.post(url, "sales").json(&lamps)).await.0, StatusCode::CREATED);
    let attempt = purchase_attempts(&["ann".to_owned()], &sale.stack.url());
    let answers = Buyers::new(1).of_sale("lamps").buy(attempt).await;
    assert!(answers[0].is_purchased(), "{answers:?}");
    let (status, audit) = send(admin.get(url, "sales/lamps/audit")).await;
    assert_eq!((status, &audit["ok"], &audit["sold"]), (StatusCode::OK, &json!(true), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn sale_without_coordinators_sells_out_with_current_status() {
    // Given a sale without a running coordinator.
    let sale = OpenSale::start(600).await;
    for coordinator in sale.stack.coordinators() {
        coordinator.process().kill();
    }

    // When buyers come, then the status follows.
    let mut answers = sale.buy(&buyers(0..200)).await;
    sale.wait_for_stock(400).await;

    // And buyers of one home shard get all units left in the other shards.
    answers.extend(sale.buy(&users_with_home(&sale.sale, ShardId::new(5), 800)).await);
    assert_all_definite(&answers);
    sale.wait_for_stock(0).await;

    // And a restarted coordinator finds no violation.
    sale.stack.start_coordinator().await.unwrap();
    sale.assert_sold_out(&answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recreated_sale_sells_what_it_has() {
    // Given a sale that is sold out, a leader that has confirmed this and is frozen, and no other coordinator.
    let (sale, leader, follower) = start_with_leader_and_follower(12).await;
    sale.buy(&buyers(0..40)).await;
    sale.wait_for_stock(0).await;
    leader.process().freeze();
    follower.process().kill();

    // When all data is deleted, the other coordinator creates the sale again, and then the first one leads again.
    for primary in sale.stack.redis().primaries().await {
        sale.query::<()>(primary, &redis::cmd("FLUSHALL")).await;
    }
    follower.restart().await.unwrap();
    sale.wait_for_stock(12).await;
    leader.process().thaw();
    follower.process().kill();
    wait_until_leads(&sale, &leader).await;
    let snapshots = async || metric(leader.url(), "flashsale_snapshot_duration_seconds_count").await;
    let taken_before = snapshots().await;
    let repeated = async || snapshots().await > taken_before + 10;
    until("the leader publishes snapshots", TIMEOUT, repeated).await.unwrap();

    // Then all of its units are sold, also to buyers who are at home in one shard.
    let second = read_sale(&sale.cluster, "flash").await;
    assert_eq!(sale.stack.status().await.unwrap().remaining_stock, 12);
    assert_purchases(&sale.buy(&users_with_home(&second, ShardId::new(0), 12)).await, 12);
}
