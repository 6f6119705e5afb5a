//! Rebalancing: a crowd that comes from few homes seldom waits for steals.

use std::time::Duration;

use futures::future::join_all;
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use stock::ids::{ShardId, UserId, UserIdKind};
use stock::sale::Sale;
use testkit::{BuyerAnswer, Buyers, StackOptions};
use tokio::time::{Instant, sleep_until};

use crate::actors::{OpenSale, assert_all_definite, sale_of, users_at_home_in, wishes};

/// Where four of five buyers live.
const POPULAR: [ShardId; 2] = [ShardId::new(0), ShardId::new(1)];
const UNITS: usize = 4_000;
/// A few more than units, so that everything is sold.
const BUYERS: usize = 4_200;
/// Buyers a second: the sale takes eight seconds, of which snapshots show eighty.
const ARRIVALS_PER_S: f64 = 500.0;
/// The order in which buyers come.
const SEED: u64 = 1;
/// Buyers keep trying for so long.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_from_two_of_twelve_shards_seldom_waits_for_a_steal() {
    let without = share_delayed(&[("REBALANCE_PERIOD", "0ms")]).await;
    let with = share_delayed(&[]).await;
    println!(
        "purchases that waited for a steal: {:.2} %, without rebalancing {:.2} %",
        100.0 * with,
        100.0 * without
    );
    assert!(with <= 0.01, "{:.2} % of the purchases waited", 100.0 * with);
    assert!(without > 2.0 * with, "rebalancing makes little difference");
}

/// The share of purchases that waited for a steal in a skewed sale, with coordinators of this environment.
async fn share_delayed(environment: &[(&str, &str)]) -> f64 {
    let environment = environment.iter().map(|&(variable, value)| (variable.into(), value.into()));
    let options = StackOptions {
        nodes: 1,
        sale: sale_of(UNITS as u64),
        coordinator_environment: environment.collect(),
        ..StackOptions::default()
    };
    let sale = OpenSale::with(options).await;

    let answers = arrive(&crowd(&sale.sale), &sale).await;

    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
    delayed(&sale).await as f64 / UNITS as f64
}

/// Buyers of whom four in five live in the popular shards, in any order.
fn crowd(sale: &Sale) -> Vec<String> {
    let home = |id: &str| sale.ring().home(&UserId::parse(id, UserIdKind::Opaque).unwrap());
    let elsewhere = (0..).map(|n| format!("buyer-{n:06}")).filter(|id| !POPULAR.contains(&home(id)));
    let mut crowd: Vec<String> = elsewhere.take(BUYERS / 5).collect();
    crowd.extend(POPULAR.iter().flat_map(|&shard| users_at_home_in(sale, shard, BUYERS * 2 / 5)));
    crowd.shuffle(&mut StdRng::seed_from_u64(SEED));
    crowd
}

/// They come one after the other at a steady pace, and nobody waits for those before.
async fn arrive(users: &[String], sale: &OpenSale) -> Vec<BuyerAnswer> {
    let (buyers, began) = (Buyers::new(64), Instant::now());
    let wishes = wishes(users, sale.stack.nodes()[0].url());
    let purchases = wishes.into_iter().enumerate().map(|(n, wish)| {
        let (buyers, arrives_at) =
            (buyers.clone(), began + Duration::from_secs_f64(n as f64 / ARRIVALS_PER_S));
        tokio::spawn(async move {
            sleep_until(arrives_at).await;
            buyers.buy_persistently(vec![wish], PATIENCE).await
        })
    });
    join_all(purchases).await.into_iter().flat_map(Result::unwrap).collect()
}

/// What the node counted.
async fn delayed(sale: &OpenSale) -> u64 {
    let url = format!("{}/metrics", sale.stack.nodes()[0].ops_url());
    let metrics = reqwest::get(url).await.unwrap().text().await.unwrap();
    let series = "flashsale_purchases_delayed_by_steal_total{sale=\"flash\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(series));
    count.unwrap_or_else(|| panic!("{series}is not in\n{metrics}")).parse().unwrap()
}
