//! Response bodies of the live view.

use std::collections::BTreeMap;

use rediscluster::EpochMs;
use serde::Serialize;
use stock::ids::SaleId;
use stock::presence::{PresentProcess, ProcessKind, ProcessList};
use stock::sale::{SaleConfig, SaleState};
use stock::snapshot::{ShardLevel, Snapshot};

use super::moves::TokenArrival;
use crate::desired_state::DesiredState;
use crate::reconcile::Observation;
use crate::shard_problem::{ProblemKind, ShardProblem};
use crate::violations::Violations;

/// Most sales to choose from: those that start last.
const SALES_MAX: usize = 50;

/// `GET /live/sales`.
#[derive(Serialize)]
pub(super) struct LiveSaleList {
    /// The sale that is shown when none is named.
    default: Option<SaleId>,
    sales: Vec<SaleName>,
}

#[derive(Serialize)]
struct SaleName {
    id: SaleId,
    name: String,
}

/// The event `live`: an observation of a sale.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LiveEvent {
    /// The time by Redis' clock; `None` if no shard could be read.
    time: Option<EpochMs>,
    #[serde(flatten)]
    pub(super) state: LiveState,
}

/// A report without its time.
#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LiveState {
    sale: SaleBody,
    total: u64,
    sold: u64,
    stock: u64,
    in_flight: u64,
    shards: Vec<ShardBody>,
    /// Tokens that moved since the previous report.
    moves: Vec<TokenArrival>,
    violations: Violations,
    /// `None` if the list could not be read.
    processes: Option<Vec<ProcessBody>>,
    answered_by: String,
}

#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct SaleBody {
    id: SaleId,
    name: String,
    state: SaleState,
    starts_at: EpochMs,
    ends_at: EpochMs,
}

#[derive(Clone, PartialEq, Serialize)]
struct ShardBody {
    stock: u64,
    sold: u64,
    /// Tokens that were minted to it.
    minted: u64,
    #[serde(rename = "trouble", skip_serializing_if = "Option::is_none")]
    problem: Option<&'static str>,
}

#[derive(Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessBody {
    name: String,
    kind: ProcessKind,
    version: String,
    started_at: EpochMs,
    /// Whole seconds since its last announcement.
    silent_s: u64,
    leads: bool,
}

/// The input of a report.
pub(super) struct LiveInput<'a> {
    pub(super) observation: &'a Observation,
    pub(super) moves: Vec<TokenArrival>,
    pub(super) violations: Violations,
    pub(super) problems: Vec<ShardProblem>,
    pub(super) processes: Option<&'a ProcessList>,
    pub(super) leader: Option<&'a str>,
    pub(super) answered_by: &'a str,
}

impl LiveSaleList {
    pub(super) fn of(known: &BTreeMap<SaleId, DesiredState>, default: Option<SaleId>) -> Self {
        let mut configs: Vec<&SaleConfig> = known.values().map(|desired| &*desired.sale.config).collect();
        configs.sort_by_key(|config| std::cmp::Reverse(config.window.starts_at));
        let name =
            |config: &SaleConfig| SaleName { id: config.id.clone(), name: config.product.name.clone() };
        Self { default, sales: configs.into_iter().take(SALES_MAX).map(name).collect() }
    }
}

impl LiveEvent {
    pub(super) fn of(input: LiveInput<'_>) -> Self {
        let Observation { desired, snapshot, .. } = input.observation;
        let Snapshot { taken_at, total, sold, stock, in_flight, .. } = *snapshot;
        let shards = snapshot.shards.iter().zip(&desired.mint).enumerate();
        let body =
            |(shard, (level, &minted))| ShardBody::of(level, minted, problem_of(&input.problems, shard));
        let processes = input.processes.map(|processes| ProcessBody::all(processes, input.leader));
        let state = LiveState {
            sale: SaleBody::of(&desired.sale.config),
            total,
            sold,
            stock,
            in_flight,
            shards: shards.map(body).collect(),
            moves: input.moves,
            violations: input.violations,
            processes,
            answered_by: input.answered_by.to_owned(),
        };
        Self { time: (taken_at > 0).then_some(taken_at), state }
    }
}

impl SaleBody {
    fn of(config: &SaleConfig) -> Self {
        let SaleConfig { id, product, state, window, .. } = config;
        let (id, name, state) = (id.clone(), product.name.clone(), *state);
        Self { id, name, state, starts_at: window.starts_at, ends_at: window.ends_at }
    }
}

impl ShardBody {
    fn of(level: &ShardLevel, minted: u64, problem: Option<&ShardProblem>) -> Self {
        let problem = problem.map(|problem| problem_code(problem.kind));
        Self { stock: level.stock, sold: level.sold, minted, problem }
    }
}

fn problem_of(problems: &[ShardProblem], shard: usize) -> Option<&ShardProblem> {
    problems.iter().find(|problem| problem.shard.index() == shard)
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

impl ProcessBody {
    fn all(processes: &ProcessList, leader: Option<&str>) -> Vec<Self> {
        processes.processes.iter().map(|process| Self::of(process, processes.at, leader)).collect()
    }

    fn of(process: &PresentProcess, now: EpochMs, leader: Option<&str>) -> Self {
        let info = process.info.clone();
        Self {
            leads: leader == Some(&info.name),
            name: info.name,
            kind: info.kind,
            version: info.version,
            started_at: process.started_at,
            silent_s: now.saturating_sub(process.seen_at) / 1_000,
        }
    }
}
