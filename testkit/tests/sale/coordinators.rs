//! Coordinators come and go: one of them leads, and a sale needs none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Client, Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use stock::ids::ShardId;
use testkit::stack::Coordinator;
use testkit::{BuyerAnswer, Buyers, PurchaseAttempt, StackOptions, until};

use crate::actors::{OpenSale, assert_all_definite, sale_of, users_at_home_in, wishes};

/// `LEASE_DURATION` as it is where nobody sets it.
const LEASE: Duration = Duration::from_secs(2);
/// Whatever has to happen happens by then, on a busy machine too.
const SOON: Duration = Duration::from_secs(20);

/// `GET /admin/coordinators`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    leader: Option<String>,
    answered_by: String,
    leads: bool,
}

async fn view_of(sale: &OpenSale, coordinator: &Coordinator) -> Option<View> {
    let (status, view) = ask(sale, coordinator, Method::GET, "/admin/coordinators", &Value::Null).await?;
    (status == StatusCode::OK).then(|| serde_json::from_value(view).unwrap())
}

async fn ask(
    sale: &OpenSale,
    coordinator: &Coordinator,
    method: Method,
    path: &str,
    body: &Value,
) -> Option<(StatusCode, Value)> {
    let request = Client::new().request(method, format!("{}{path}", coordinator.url()));
    let request = request.bearer_auth(sale.stack.admin_token()).timeout(Duration::from_secs(10));
    let response = request.json(body).send().await.ok()?;
    Some((response.status(), response.json().await.ok()?))
}

/// Two coordinators, one of which leads while the other knows it.
async fn with_leader_and_follower(units: u64) -> (OpenSale, Arc<Coordinator>, Arc<Coordinator>) {
    let sale =
        OpenSale::with(StackOptions { coordinators: 2, sale: sale_of(units), ..StackOptions::default() })
            .await;
    let (leader, follower) = leader_and_follower(&sale).await;
    (sale, leader, follower)
}

/// The two coordinators that run, once both say which of them leads.
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
    until("two coordinators agree on who leads", SOON, agreed).await.unwrap();
    if view_of(sale, &running[1]).await.unwrap().leads {
        running.swap(0, 1);
    }
    (running.remove(0), running.remove(0))
}

/// How long it takes until this coordinator leads.
async fn takes_over(sale: &OpenSale, coordinator: &Coordinator) -> Duration {
    let began = Instant::now();
    let leads = async || view_of(sale, coordinator).await.is_some_and(|view| view.leads);
    until("another coordinator leads", SOON, leads).await.unwrap();
    began.elapsed()
}

async fn buys(users: &[String], sale: &OpenSale) -> Vec<BuyerAnswer> {
    let wishes: Vec<PurchaseAttempt> = wishes(users, &sale.stack.url());
    Buyers::new(32).buy_persistently(wishes, SOON).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_leads_at_once_after_a_good_end_and_within_the_lease_after_a_bad_one() {
    let (sale, leader, follower) = with_leader_and_follower(10).await;

    leader.process().term();
    let after_term = takes_over(&sale, &follower).await;
    assert_eq!(leader.process().wait(SOON).await.unwrap().code(), Some(0));

    sale.stack.start_coordinator().await.unwrap();
    let (leader, follower) = leader_and_follower(&sale).await;
    leader.process().kill();
    let after_kill = takes_over(&sale, &follower).await;

    println!("led by another {after_term:.2?} after SIGTERM, {after_kill:.2?} after SIGKILL");
    assert!(after_term < LEASE / 2, "{after_term:?}: the lease was left to run out");
    // The lease was renewed before the kill, if only just; a busy machine takes its time to see who leads.
    assert!(after_kill < LEASE + LEASE / 2, "{after_kill:?}: longer than the lease");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_past_its_lease_does_no_harm_when_it_wakes() {
    // Given a crowd that lives in one shard, so that most units have to be stolen or brought there.
    let (sale, leader, follower) = with_leader_and_follower(900).await;
    let users = users_at_home_in(&sale.sale, ShardId::new(5), 1_200);
    let mut answers = buys(&users[..300], &sale).await;

    // When the leader freezes in the middle, the other takes over, and it wakes while the crowd goes on.
    leader.process().freeze();
    let (bought, _) = tokio::join!(buys(&users[300..600], &sale), takes_over(&sale, &follower));
    answers.extend(bought);
    leader.process().thaw();
    answers.extend(buys(&users[600..], &sale).await);

    // Then it follows, and the books are right.
    let other = view_of(&sale, &follower).await.unwrap().answered_by;
    let follows =
        async || view_of(&sale, &leader).await.is_some_and(|view| view.leader.as_ref() == Some(&other));
    until("the one that was frozen follows", SOON, follows).await.unwrap();
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_may_ask_any_coordinator() {
    let (sale, _leader, follower) = with_leader_and_follower(10).await;
    let ask =
        async |method, path: &str, body: Value| ask(&sale, &follower, method, path, &body).await.unwrap();

    // Reading.
    let (status, detail) = ask(Method::GET, "/admin/sales/flash", Value::Null).await;
    assert_eq!((status, &detail["problems"]), (StatusCode::OK, &json!([])));
    let stock: u64 =
        detail["shards"].as_array().unwrap().iter().map(|one| one["stock"].as_u64().unwrap()).sum();
    assert_eq!(stock, 10);

    // Changing.
    for (action, state) in [("pause", "paused"), ("resume", "open")] {
        let path = format!("/admin/sales/flash/{action}");
        let (status, changed) = ask(Method::POST, &path, json!({})).await;
        assert_eq!((status, &changed["state"]), (StatusCode::OK, &json!(state)));
    }

    // And creating: the sale can be bought from.
    let lamps = json!({
        "id": "lamps", "totalStock": 3, "startsAt": "-1m", "endsAt": "1h",
        "productName": "Lamp", "productPrice": 9.5,
    });
    assert_eq!(ask(Method::POST, "/admin/sales", lamps).await.0, StatusCode::CREATED);
    let wish = wishes(&["ann".to_owned()], &sale.stack.url());
    let answers = Buyers::new(1).of_sale("lamps").buy(wish).await;
    assert!(answers[0].is_purchased(), "{answers:?}");
    let (status, audit) = ask(Method::GET, "/admin/sales/lamps/audit", Value::Null).await;
    assert_eq!((status, &audit["ok"], &audit["sold"]), (StatusCode::OK, &json!(true), &json!(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_without_any_coordinator_sells_everything_and_tells_its_status() {
    // Given a sale that no coordinator looks after any more.
    let sale = OpenSale::with(StackOptions { sale: sale_of(600), ..StackOptions::default() }).await;
    for coordinator in sale.stack.coordinators() {
        coordinator.process().kill();
    }

    // When a crowd comes, then the status follows it.
    let anywhere: Vec<String> = (0..200).map(|n| format!("buyer-{n:03}")).collect();
    let mut answers = buys(&anywhere, &sale).await;
    let shown = async || sale.stack.status().await.is_ok_and(|status| status.sold() == 200);
    until("the status shows what was sold", SOON, shown).await.unwrap();

    // And those who live in one shard get all that is left in the others.
    answers.extend(buys(&users_at_home_in(&sale.sale, ShardId::new(5), 800), &sale).await);
    assert_all_definite(&answers);
    let shown = async || sale.stack.status().await.is_ok_and(|status| status.remaining_stock == 0);
    until("the status shows that all is sold", SOON, shown).await.unwrap();

    // And a coordinator that comes back finds the books right.
    sale.stack.start_coordinator().await.unwrap();
    sale.assert_sold_out(&answers).await;
}
