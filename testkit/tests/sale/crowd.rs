//! A large crowd buys everything: each unit goes to a different buyer, at a bounded number of calls.

use stock::ids::ShardId;
use testkit::{BuyerAnswer, Buyers, PurchaseAttempt};

use crate::fixture::{
    OpenSale, assert_all_definite, assert_repeats_recognized, buyers, purchase_attempts, purchases, tally,
    users_with_home,
};

/// Maximum of function calls per purchase request over a whole sale, including snapshots.
const CALLS_PER_REQUEST_MAX: f64 = 1.1;

#[tokio::test(flavor = "multi_thread")]
async fn thousand_units_go_to_distinct_buyers() {
    let sale = OpenSale::start(1_000).await;
    let users = buyers(0..20_000);
    let before = sale.function_calls().await;

    // Every third buyer sends the purchase twice at once. Half of these use both nodes.
    let mut answers = Vec::new();
    for (wave, connections) in users.chunks(users.len() / 4 + 1).zip([512, 64, 128, 256]) {
        answers.extend(Buyers::new(connections).buy(attempts_with_repeats(wave, &sale)).await);
    }

    assert_eq!(purchases(&answers).len(), 1_000);
    assert_all_served(&sale, &answers, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seven_units_on_twelve_shards_sell_out() {
    let sale = OpenSale::start(7).await;
    let users = buyers(0..5_000);
    let before = sale.function_calls().await;

    let answers = Buyers::new(128).buy(attempts_with_repeats(&users, &sale)).await;

    assert_all_served(&sale, &answers, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buyers_of_one_home_shard_buy_everything() {
    let sale = OpenSale::start(1_000).await;
    let users = users_with_home(&sale.sale, ShardId::new(5), 4_000);
    let before = sale.function_calls().await;

    let answers = Buyers::new(128).buy(attempts_with_repeats(&users, &sale)).await;

    assert_all_served(&sale, &answers, before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sequential_buyers_cost_few_calls() {
    let sale = OpenSale::start(300).await;
    let users = users_with_home(&sale.sale, ShardId::new(0), 400);
    let before = sale.function_calls().await;
    let began = std::time::Instant::now();

    let answers = Buyers::new(1).buy(purchase_attempts(&users, &sale.stack.url())).await;

    // Sequential purchases cannot be batched, so the snapshots (12 calls, ten times per second) dominate the count.
    let snapshots = (began.elapsed().as_secs_f64() + 1.0) * 10.0 * 12.0;
    let calls = sale.function_calls().await - before;
    println!("answers: {:?}, {calls} calls, at most {snapshots:.0} of them for snapshots", tally(&answers));
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
    let writing_calls = sale.stack.redis().command_stats("fcall").await.unwrap().calls;
    println!("{writing_calls} calls that write");
    assert!(writing_calls <= 2 * answers.len() as u64, "{writing_calls} calls for {} buyers", answers.len());
}

/// Asserts that every answer is definite, everything is sold, and few calls were made since `calls_before`.
async fn assert_all_served(sale: &OpenSale, answers: &[BuyerAnswer], calls_before: u64) {
    println!("answers: {:?}", tally(answers));
    assert_all_definite(answers);
    assert_repeats_recognized(answers);
    sale.assert_sold_out(answers).await;
    assert_calls_bounded(sale.function_calls().await - calls_before, answers.len());
}

/// Purchase attempts of these users. Every third user sends the purchase twice in a row, every sixth through both
/// nodes.
fn attempts_with_repeats(users: &[String], sale: &OpenSale) -> Vec<PurchaseAttempt> {
    let nodes: Vec<String> = sale.stack.nodes().iter().map(|node| node.url().to_owned()).collect();
    let attempt =
        |user: &String, base_url: &str| PurchaseAttempt { user: user.clone(), base_url: base_url.to_owned() };
    let attempts_of = |(n, user): (usize, &String)| match n % 6 {
        0 => nodes.iter().map(|node| attempt(user, node)).collect(),
        3 => vec![attempt(user, &sale.stack.url()), attempt(user, &sale.stack.url())],
        _ => vec![attempt(user, &sale.stack.url())],
    };
    users.iter().enumerate().flat_map(attempts_of).collect()
}

fn assert_calls_bounded(calls: u64, requests: usize) {
    let per_request = calls as f64 / requests as f64;
    println!("{calls} function calls for {requests} requests: {per_request:.3} each");
    assert!(per_request <= CALLS_PER_REQUEST_MAX, "{per_request:.3} function calls a request");
}
