//! Sells the stock of a sale without nodes: as fast as Redis takes it.

use anyhow::{Context, Result, ensure};
use rediscluster::{Cluster, ConnectOptions};
use stock::calls::{Attempt, Buy, BuyOutcome};
use stock::functions::LIBRARY;
use stock::ids::{OrderId, SaleId, UserId, UserIdKind};
use stock::layout::SaleKeys;
use stock::sale::Sale;
use stock::store::ReadConfig;
use testkit::Stack;

/// Returns the sale of a stack, and a connection to its Redis Cluster.
pub(super) async fn sale_of(stack: &Stack) -> Result<(Cluster, Sale)> {
    let seeds: Result<_, _> =
        stack.redis().seeds().split(',').map(redis::IntoConnectionInfo::into_connection_info).collect();
    let cluster = Cluster::connect(ConnectOptions::new(seeds?), &LIBRARY).await?;
    let keys = SaleKeys::new(&"flash".parse::<SaleId>()?);
    let config = cluster.read(ReadConfig(&keys)).await?.context("the sale exists")?;
    Ok((cluster, Sale::new(config)?))
}

/// Sells units to users at their home shards, as many at each shard as its part of all units, with this many buyers per
/// call.
pub(super) async fn sell(cluster: &Cluster, sale: &Sale, units: u64, batch: usize) -> Result<()> {
    sell_to(cluster, sale, units, batch, 0).await
}

/// Sells units as [`sell`] does, to users from this number on.
pub(super) async fn sell_to(
    cluster: &Cluster,
    sale: &Sale,
    units: u64,
    batch: usize,
    first_user: u64,
) -> Result<()> {
    let mut stock = sale.split(units);
    let mut users = (first_user..).map(user);
    let mut queues: Vec<Vec<Attempt>> = vec![Vec::new(); stock.len()];
    while stock.iter().any(|&left| left > 0) {
        let user = users.next().context("users do not run out")?;
        let home = sale.ring().home(&user).index();
        if stock[home] == 0 {
            continue;
        }
        stock[home] -= 1;
        queues[home].push(Attempt { user, order: OrderId::random(), correlation: "trace".into() });
        if queues[home].len() == batch || stock[home] == 0 {
            let attempts = std::mem::take(&mut queues[home]);
            let bought = cluster
                .read(Buy { shard: &sale.shards()[home], attempts: &attempts, not_after: Buy::AT_ANY_TIME })
                .await?;
            // A call whose answer came too late was repeated.
            let all = bought
                .outcomes
                .iter()
                .all(|outcome| matches!(outcome, BuyOutcome::Bought(_) | BuyOutcome::Repeat(_)));
            ensure!(all, "shard {home} did not sell: {:?}", bought.outcomes);
        }
    }
    Ok(())
}

fn user(number: u64) -> UserId {
    let id = format!("{number:011}@buyer.example");
    UserId::parse(&id, UserIdKind::Opaque).expect("25 plain characters are a user id")
}
