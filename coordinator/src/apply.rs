//! Applies plans. Every operation here may run twice, in several coordinators at once, or in part.

use rediscluster::{CallError, Cluster};
use serde_json::Value;
use service::time::now;
use stock::archive::{Archive, ArchiveShard};
use stock::calls::{Accept, Accepted, Configure, Configured, RecordAnswer, TokenSource};
use stock::channels::Channel;
use stock::history::ChangeOrigin;
use stock::ids::ShardId;
use stock::layout::{Incarnation, Shard};
use stock::sale::{LayoutConfig, Sale, SaleConfig, SaleState, ShardSettings};

use crate::change::entry;
use crate::desired_state::DesiredState;
use crate::metrics;
use crate::plan::PlanStep;
use crate::records::Records;
use crate::transfers::{Transfer, UnconfirmedReason, UnconfirmedShard, transfer};

/// Applies a plan. Steps that fail are logged, and planned again in the next round.
pub async fn apply(cluster: &Cluster, records: &Records, desired: &DesiredState, steps: &[PlanStep]) {
    let (mut behind, mut short, mut stalled, mut unconfirmed) = (vec![], vec![], vec![], vec![]);
    for &step in steps {
        match step {
            PlanStep::Configure(shard) => behind.push(shard),
            PlanStep::Mint(shard) => short.push(shard),
            PlanStep::Redrive(channel) => stalled.push(channel),
            PlanStep::Open => match open(cluster, records, desired).await {
                Ok(shards) => unconfirmed.extend(shards),
                Err(error) => {
                    tracing::warn!(sale.id = %desired.sale.id(), %error, "the opening is not recorded for sure");
                }
            },
            PlanStep::RaiseVersion(version) => raise_version(records, desired, version).await,
            PlanStep::Remove => match remove(cluster, records, desired).await {
                Ok(shards) => unconfirmed.extend(shards),
                Err(error) => {
                    tracing::warn!(sale.id = %desired.sale.id(), %error, "the removal is not recorded for sure");
                }
            },
        }
    }
    unconfirmed.extend(configure(cluster, desired, &behind).await.err().unwrap_or_default());
    unconfirmed.extend(mint(cluster, desired, &short).await);
    unconfirmed.extend(redrive(cluster, &desired.sale, &stalled).await);
    unconfirmed.iter().for_each(|failure| log(&desired.sale, failure));
}

/// Brings every shard to the recorded state. Returns the incarnations of the shards.
///
/// # Errors
/// Returns the shards that did not confirm it durably.
pub async fn enforce(
    cluster: &Cluster,
    desired: &DesiredState,
) -> Result<Vec<Incarnation>, Vec<UnconfirmedShard>> {
    let all: Vec<ShardId> = desired.sale.shards().iter().map(|shard| shard.id).collect();
    let incarnations = configure(cluster, desired, &all).await?;
    let unconfirmed = mint(cluster, desired, &all).await;
    if unconfirmed.is_empty() { Ok(incarnations) } else { Err(unconfirmed) }
}

/// Opens a sale that is being created, once every shard has confirmed that it holds its stock. Returns the shards that
/// have not. From then on the record names the incarnations of the shards, and a shard that is made again, by a call
/// that was sent before, is not used.
///
/// # Errors
/// Fails when it is unknown whether the opening is recorded. If another coordinator or operator changed the sale first,
/// that is not an error.
pub async fn open(
    cluster: &Cluster,
    records: &Records,
    desired: &DesiredState,
) -> Result<Vec<UnconfirmedShard>, CallError> {
    let incarnations = match enforce(cluster, desired).await {
        Ok(incarnations) => incarnations,
        Err(unconfirmed) => return Ok(unconfirmed),
    };
    let before = &*desired.sale.config;
    let layout = LayoutConfig { incarnations, ..before.layout.clone() };
    let opened = SaleConfig { version: before.version + 1, state: SaleState::Open, layout, ..before.clone() };
    if advance(records, desired, opened, "open").await? == RecordAnswer::Done {
        tracing::info!(sale.id = %before.id, sale.total = before.total_stock, "sale opened");
    }
    Ok(Vec::new())
}

/// Removes all shards of an archived sale. Once no replica has them any more, this is recorded, and nothing is left to
/// do for the sale. Returns the shards that have not confirmed.
///
/// # Errors
/// Fails when it is unknown whether the removal is recorded.
pub async fn remove(
    cluster: &Cluster,
    records: &Records,
    desired: &DesiredState,
) -> Result<Vec<UnconfirmedShard>, CallError> {
    let before = &*desired.sale.config;
    let Some(archive) = before.archive.filter(|archive| !archive.is_removed) else { return Ok(Vec::new()) };
    let shards: Vec<ShardId> = desired.sale.shards().iter().map(|shard| shard.id).collect();
    let calls: Vec<_> = desired.sale.shards().iter().map(|shard| ArchiveShard { shard }).collect();
    let answers = cluster.write_all(&calls).await.into_iter();
    let unconfirmed = unconfirmed(&shards, answers.map(|answer| Ok(answer?)));
    if !unconfirmed.is_empty() {
        return Ok(unconfirmed);
    }
    let archive = Some(Archive { is_removed: true, ..archive });
    let removed = SaleConfig { version: before.version + 1, archive, ..before.clone() };
    if advance(records, desired, removed, "remove shards").await? == RecordAnswer::Done {
        tracing::info!(sale.id = %before.id, "the shards of the archived sale are removed");
    }
    Ok(Vec::new())
}

/// Records the same sale with another version, state, or incarnations.
async fn advance(
    records: &Records,
    desired: &DesiredState,
    config: SaleConfig,
    change: &str,
) -> Result<RecordAnswer, CallError> {
    let entry = entry(change, Value::Null, &config, &ChangeOrigin::default(), now());
    let sale = desired.sale.at(config).expect("none of them makes a valid sale invalid");
    let after = DesiredState { sale, mint: desired.mint.clone() };
    records.record(desired.sale.config.version, &after, &entry).await
}

/// Raises the version of a record. The change is based on the version that is known to be durable, so a coordinator
/// that has missed the latest change changes nothing.
async fn raise_version(records: &Records, desired: &DesiredState, version: u64) {
    let id = desired.sale.id();
    let raised = SaleConfig { version, ..(*desired.sale.config).clone() };
    match advance(records, desired, raised, "raise version").await {
        Ok(RecordAnswer::Done) => {
            tracing::warn!(sale.id = %id, sale.version = version, "shards were ahead of the record: version raised");
        }
        Ok(RecordAnswer::Overtaken(_)) => {}
        Err(error) => tracing::warn!(sale.id = %id, %error, "the raised version is not recorded for sure"),
    }
}

async fn configure(
    cluster: &Cluster,
    desired: &DesiredState,
    shards: &[ShardId],
) -> Result<Vec<Incarnation>, Vec<UnconfirmedShard>> {
    let recorded = desired.sale.config.shard_settings();
    let ShardSettings { version, state, window } = recorded;
    let call = |&shard: &ShardId| Configure { shard: desired.sale.shard(shard), version, state, window };
    let calls: Vec<_> = shards.iter().map(call).collect();
    let incarnation = |answer: Result<Configured, CallError>| {
        let Configured { settings, incarnation } = answer?;
        match settings.differences(recorded) {
            differences if differences.is_empty() => Ok(incarnation),
            differences => Err(UnconfirmedReason::OtherSettings(differences)),
        }
    };
    let mut incarnations = Vec::with_capacity(shards.len());
    let answers = cluster.write_all(&calls).await.into_iter().map(incarnation);
    let unconfirmed =
        unconfirmed(shards, answers.map(|answer| answer.map(|incarnation| incarnations.push(incarnation))));
    if unconfirmed.is_empty() { Ok(incarnations) } else { Err(unconfirmed) }
}

async fn mint(cluster: &Cluster, desired: &DesiredState, shards: &[ShardId]) -> Vec<UnconfirmedShard> {
    let call = |&shard: &ShardId| Accept {
        shard: desired.sale.shard(shard),
        from: TokenSource::Mint,
        cumulative: desired.mint[shard.index()],
    };
    let calls: Vec<_> = shards.iter().map(call).collect();
    let answers = cluster.write_all(&calls).await.into_iter().zip(&calls);
    // A shard takes the maximum, so it may hold more than is recorded. Then the tokens above the record are not of this sale.
    let compare = |(answer, call): (Result<Accepted, CallError>, &Accept<'_>)| match answer? {
        Accepted { cumulative, .. } if cumulative == call.cumulative => Ok(()),
        Accepted { cumulative, .. } => {
            Err(UnconfirmedReason::OtherMint { held: cumulative, recorded: call.cumulative })
        }
    };
    unconfirmed(shards, answers.map(compare))
}

async fn redrive(cluster: &Cluster, sale: &Sale, channels: &[Channel]) -> Vec<UnconfirmedShard> {
    let transfers: Vec<_> = channels.iter().map(|&channel| Transfer { sale, channel, tokens: 0 }).collect();
    let mut failed = Vec::new();
    for (Channel { donor, receiver }, outcome) in channels.iter().zip(transfer(cluster, &transfers).await) {
        match outcome {
            Ok(()) => {
                metrics::redriven(sale.id(), 1);
                tracing::info!(sale.id = %sale.id(), shard.id = %receiver, shard.giver = %donor, "channel re-driven");
            }
            Err(unconfirmed) => failed.push(unconfirmed),
        }
    }
    failed
}

fn unconfirmed(
    shards: &[ShardId],
    answers: impl Iterator<Item = Result<(), UnconfirmedReason>>,
) -> Vec<UnconfirmedShard> {
    let failure =
        |(&shard, answer): (_, Result<(), _>)| answer.err().map(|reason| UnconfirmedShard { shard, reason });
    shards.iter().zip(answers).filter_map(failure).collect()
}

fn log(sale: &Sale, UnconfirmedShard { shard, reason }: &UnconfirmedShard) {
    let Shard { slot, .. } = sale.shard(*shard);
    tracing::warn!(sale.id = %sale.id(), shard.id = %shard, shard.slot = slot, error = %reason, "a shard did not confirm");
}
