//! Carries plans out. Everything here can be done twice, by several, and in part.

use std::fmt;

use stock::calls::{Accept, CallError, Configure, Recorded, Source};
use stock::cluster::Cluster;
use stock::ids::ShardId;
use stock::layout::Shard;
use stock::sale::{Sale, SaleConfig, State};

use crate::channels::Channel;
use crate::desired::Desired;
use crate::metrics;
use crate::plan::Action;
use crate::records::Records;
use crate::transfers::{Transfer, transfer};

/// A shard that did not confirm.
#[derive(Clone, Debug)]
pub struct Unconfirmed {
    /// The shard.
    pub shard: ShardId,
    /// Why.
    pub error: CallError,
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.error)
    }
}

/// Carries out a plan. What fails is logged, and planned again.
pub async fn carry_out(cluster: &Cluster, records: &Records, desired: &Desired, actions: &[Action]) {
    let (mut behind, mut short, mut stalled) = (Vec::new(), Vec::new(), Vec::new());
    for &action in actions {
        match action {
            Action::Configure(shard) => behind.push(shard),
            Action::Mint(shard) => short.push(shard),
            Action::Redrive(channel) => stalled.push(channel),
            Action::Open => open_and_log(cluster, records, desired).await,
        }
    }
    let mut unconfirmed = configure(cluster, desired, &behind).await;
    unconfirmed.extend(mint(cluster, desired, &short).await);
    unconfirmed.extend(redrive(cluster, &desired.sale, &stalled).await);
    unconfirmed.iter().for_each(|failure| log(&desired.sale, failure));
}

/// Brings every shard to what is recorded. The shards that did not confirm that it is so and lasts.
pub async fn enforce(cluster: &Cluster, desired: &Desired) -> Vec<Unconfirmed> {
    let all: Vec<ShardId> = desired.sale.shards().iter().map(|shard| shard.id).collect();
    let unconfigured = configure(cluster, desired, &all).await;
    if unconfigured.is_empty() { mint(cluster, desired, &all).await } else { unconfigured }
}

/// Opens a sale that was being created, once every shard has confirmed that it holds its stock.
///
/// # Errors
/// When it is unknown whether the opening is recorded. That somebody else changed the sale first is none.
pub async fn open(
    cluster: &Cluster,
    records: &Records,
    desired: &Desired,
) -> Result<Vec<Unconfirmed>, CallError> {
    let unconfirmed = enforce(cluster, desired).await;
    if !unconfirmed.is_empty() {
        return Ok(unconfirmed);
    }
    let before = &*desired.sale.config;
    let config = SaleConfig { version: before.version + 1, state: State::Open, ..before.clone() };
    let sale = desired.sale.at(config).expect("opening a sale makes no valid one invalid");
    let opened = Desired { sale, mint: desired.mint.clone() };
    if records.record(cluster, before.version, &opened).await? == Recorded::Done {
        tracing::info!(sale.id = %before.id, sale.total = before.total_stock, "sale opened");
    }
    Ok(Vec::new())
}

async fn open_and_log(cluster: &Cluster, records: &Records, desired: &Desired) {
    match open(cluster, records, desired).await {
        Ok(unconfirmed) => unconfirmed.iter().for_each(|failure| log(&desired.sale, failure)),
        Err(error) => {
            tracing::warn!(sale.id = %desired.sale.id(), %error, "the opening is not recorded for sure");
        }
    }
}

async fn configure(cluster: &Cluster, desired: &Desired, shards: &[ShardId]) -> Vec<Unconfirmed> {
    let sale = &desired.sale;
    let SaleConfig { version, state, window, .. } = *sale.config;
    let call = |&shard: &ShardId| Configure { shard: sale.shard(shard), version, state, window };
    let calls: Vec<_> = shards.iter().map(call).collect();
    unconfirmed(shards, cluster.write_all(&calls).await)
}

async fn mint(cluster: &Cluster, desired: &Desired, shards: &[ShardId]) -> Vec<Unconfirmed> {
    let call = |&shard: &ShardId| Accept {
        shard: desired.sale.shard(shard),
        from: Source::Mint,
        cumulative: desired.mint[shard.index()],
    };
    let calls: Vec<_> = shards.iter().map(call).collect();
    unconfirmed(shards, cluster.write_all(&calls).await)
}

async fn redrive(cluster: &Cluster, sale: &Sale, channels: &[Channel]) -> Vec<Unconfirmed> {
    let transfers: Vec<_> = channels.iter().map(|&channel| Transfer { sale, channel, tokens: 0 }).collect();
    let mut failed = Vec::new();
    for (Channel { giver, receiver }, outcome) in channels.iter().zip(transfer(cluster, &transfers).await) {
        match outcome {
            Ok(()) => {
                metrics::redriven(sale.id(), 1);
                tracing::info!(sale.id = %sale.id(), shard.id = %receiver, shard.giver = %giver, "channel re-driven");
            }
            Err(unconfirmed) => failed.push(unconfirmed),
        }
    }
    failed
}

fn unconfirmed<T>(shards: &[ShardId], answers: Vec<Result<T, CallError>>) -> Vec<Unconfirmed> {
    let failure =
        |(&shard, answer): (_, Result<T, _>)| answer.err().map(|error| Unconfirmed { shard, error });
    shards.iter().zip(answers).filter_map(failure).collect()
}

fn log(sale: &Sale, Unconfirmed { shard, error }: &Unconfirmed) {
    let Shard { slot, .. } = sale.shard(*shard);
    tracing::warn!(sale.id = %sale.id(), shard.id = %shard, shard.slot = slot, %error, "a shard did not confirm");
}
