//! Rebalancing: buyers with few home shards rarely wait for steals.

use std::time::Duration;

use futures::future::join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use stock::ids::{ShardId, UserId, UserIdKind};
use stock::sale::Sale;
use testkit::{BuyerAnswer, Buyers, StackOptions};
use tokio::time::{Instant, sleep_until};

use crate::fixture::{
    OpenSale, TIMEOUT, assert_all_definite, metric, purchase_attempts, sale_options, users_with_home,
};

/// The home shards of four out of five buyers.
const POPULAR: [ShardId; 2] = [ShardId::new(0), ShardId::new(1)];
const UNITS: usize = 4_000;
/// A few more than the units, so that everything is sold.
const BUYERS: usize = 4_200;
/// Buyers per second: the sale takes eight seconds and eighty snapshots.
const ARRIVALS_PER_S: f64 = 500.0;
/// Seed of the order in which buyers arrive.
const SEED: u64 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn rebalancing_keeps_steal_delays_rare() {
    let without = measure_delayed_share(&[("REBALANCE_PERIOD", "0ms")]).await;
    let with = measure_delayed_share(&[]).await;
    println!(
        "purchases that waited for a steal: {:.2} %, without rebalancing {:.2} %",
        100.0 * with,
        100.0 * without
    );
    assert!(with <= 0.01, "{:.2} % of the purchases waited", 100.0 * with);
    assert!(without > 2.0 * with, "rebalancing makes little difference");
}

/// Runs a skewed sale with these coordinator variables. Returns the fraction of purchases that waited for a steal.
async fn measure_delayed_share(environment: &[(&str, &str)]) -> f64 {
    let environment = environment.iter().map(|&(variable, value)| (variable.into(), value.into()));
    let options = StackOptions {
        nodes: 1,
        sale: sale_options(UNITS as u64),
        coordinator_environment: environment.collect(),
        ..StackOptions::default()
    };
    let sale = OpenSale::start_with(options).await;

    let answers = buy_at_steady_rate(&crowd(&sale.sale), &sale).await;

    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
    read_delayed_count(&sale).await as f64 / UNITS as f64
}

/// Buyers of whom four in five have popular home shards, in random order.
fn crowd(sale: &Sale) -> Vec<String> {
    let home = |id: &str| sale.ring().home(&UserId::parse(id, UserIdKind::Opaque).unwrap());
    let elsewhere = (0..).map(|n| format!("buyer-{n:06}")).filter(|id| !POPULAR.contains(&home(id)));
    let mut crowd: Vec<String> = elsewhere.take(BUYERS / 5).collect();
    crowd.extend(POPULAR.iter().flat_map(|&shard| users_with_home(sale, shard, BUYERS * 2 / 5)));
    crowd.shuffle(&mut StdRng::seed_from_u64(SEED));
    crowd
}

/// Sends the purchases at a steady rate, without waiting for earlier answers.
async fn buy_at_steady_rate(users: &[String], sale: &OpenSale) -> Vec<BuyerAnswer> {
    let (buyers, began) = (Buyers::new(64), Instant::now());
    let purchase_attempts = purchase_attempts(users, sale.stack.nodes()[0].url());
    let purchases = purchase_attempts.into_iter().enumerate().map(|(n, attempt)| {
        let (buyers, arrives_at) =
            (buyers.clone(), began + Duration::from_secs_f64(n as f64 / ARRIVALS_PER_S));
        tokio::spawn(async move {
            sleep_until(arrives_at).await;
            buyers.buy_persistently(vec![attempt], TIMEOUT).await
        })
    });
    join_all(purchases).await.into_iter().flat_map(Result::unwrap).collect()
}

async fn read_delayed_count(sale: &OpenSale) -> u64 {
    let node = &sale.stack.nodes()[0];
    metric(node.ops_url(), "flashsale_purchases_delayed_by_steal_total{sale=\"flash\"}").await
}
