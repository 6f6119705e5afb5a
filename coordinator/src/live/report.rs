//! Response bodies of the live view.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rediscluster::EpochMs;
use serde_json::{Value, json};
use stock::ids::{SaleId, ShardId};
use stock::presence::{PresentProcess, ProcessInfo, ProcessList};
use stock::sale::SaleConfig;
use stock::snapshot::ShardLevel;

use super::moves::TokenArrival;
use crate::desired_state::DesiredState;
use crate::lease_holder::Leadership;
use crate::observation::Observation;
use crate::shard_problem::ProblemKind;

/// Most sales to choose from: those that start last.
const SALES_MAX: usize = 50;

/// `GET /live/sales`. `default` is the sale that is shown when none is named.
pub(super) fn sale_list(known: &BTreeMap<SaleId, DesiredState>, default: Option<&DesiredState>) -> Value {
    let mut configs: Vec<&SaleConfig> = known.values().map(|desired| &*desired.sale.config).collect();
    configs.sort_by_key(|config| Reverse(config.window.starts_at));
    let sale = |config: &&SaleConfig| json!({ "id": config.id, "name": config.product.name });
    json!({
        "default": default.map(|desired| desired.sale.id()),
        "sales": configs.iter().take(SALES_MAX).map(sale).collect::<Vec<_>>(),
    })
}

/// The event `live`, without its time: an observation of a sale, and the tokens that moved since the previous one.
pub(super) fn live(
    observation: &Observation,
    moves: &[TokenArrival],
    processes: Option<&ProcessList>,
    leadership: &Leadership,
) -> Value {
    let Observation { desired, snapshot, violations, .. } = observation;
    let SaleConfig { id, product, state, window, archive, .. } = &*desired.sale.config;
    let levels = (0..).map(ShardId::new).zip(&snapshot.shards).zip(&desired.mint);
    let shards = levels.map(|((id, level), &minted)| shard(observation, id, level, minted));
    let leader = leadership.leader();
    // `None` if the list could not be read.
    let processes: Option<Vec<Value>> = processes.map(|list| {
        list.processes.iter().map(|present| process(present, list.at, leader.as_deref())).collect()
    });
    json!({
        "sale": {
            "id": id,
            "name": product.name,
            "state": state,
            "startsAt": window.starts_at,
            "endsAt": window.ends_at,
        },
        "total": snapshot.total,
        "sold": archive.map_or(snapshot.sold, |archive| archive.sold),
        "stock": snapshot.stock,
        "inFlight": snapshot.in_flight,
        "shards": shards.collect::<Vec<_>>(),
        "moves": moves,
        "violations": violations,
        "processes": processes,
        "answeredBy": run_of(leadership.name()),
    })
}

fn shard(observation: &Observation, id: ShardId, level: &ShardLevel, minted: u64) -> Value {
    let mut body = json!({ "stock": level.stock, "sold": level.sold, "minted": minted });
    if let Some(problem) = observation.persistent_problems.iter().find(|problem| problem.shard == id) {
        body["trouble"] = problem_code(problem.kind).into();
    }
    body
}

/// The code of a problem. Its details are only logged, because they name servers.
const fn problem_code(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Unreadable => "unreadable",
        ProblemKind::Missing => "gone",
        ProblemKind::ForeignRing => "foreign",
        ProblemKind::Overminted => "overminted",
        ProblemKind::Behind => "behind",
        ProblemKind::Conflicting => "contrary",
    }
}

/// The random part of a process' name. The rest names a host, which a viewer without a token must not learn. Logs and
/// the admin API have the whole name.
fn run_of(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or_default()
}

/// A process, with the whole seconds since its last announcement.
fn process(process: &PresentProcess, now: EpochMs, leader: Option<&str>) -> Value {
    let ProcessInfo { name, kind, version } = &process.info;
    json!({
        "name": run_of(name),
        "kind": kind,
        "version": version,
        "startedAt": process.started_at,
        "silentS": now.saturating_sub(process.seen_at) / 1_000,
        "leads": leader == Some(name),
    })
}
