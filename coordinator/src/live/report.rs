//! Response bodies of the live view.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};
use stock::ids::{SaleId, ShardId};
use stock::presence::{PresentProcess, ProcessKind, ProcessList};
use stock::sale::{EpochMs, SaleConfig, SaleState, Window};
use stock::snapshot::{ShardLevel, Snapshot};

use super::moves::TokenArrival;
use crate::desired_state::DesiredState;
use crate::lease_holder::Leadership;
use crate::observation::Observation;
use crate::shard_problem::ProblemKind;
use crate::violations::Violations;

/// Most sales to choose from: those that start last.
const SALES_MAX: usize = 50;

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
    #[serde(flatten)]
    window: Window,
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

/// The body of `GET /live/sales`. `default` is the sale that is shown when none is named.
pub(super) fn sale_list(known: &BTreeMap<SaleId, DesiredState>, default: Option<&SaleId>) -> Value {
    let mut configs: Vec<&SaleConfig> = known.values().map(|desired| &*desired.sale.config).collect();
    configs.sort_by_key(|config| Reverse(config.window.starts_at));
    let sale = |config: &&SaleConfig| json!({ "id": config.id, "name": config.product.name });
    json!({ "default": default, "sales": configs.iter().take(SALES_MAX).map(sale).collect::<Vec<_>>() })
}

impl LiveEvent {
    pub(super) fn of(
        observation: &Observation,
        moves: Vec<TokenArrival>,
        processes: Option<&ProcessList>,
        leadership: &Leadership,
    ) -> Self {
        let Observation { desired, snapshot, persistent_problems: problems, violations, .. } = observation;
        let Snapshot { taken_at, total, sold, stock, in_flight, .. } = *snapshot;
        let shard = |((id, level), &minted): ((ShardId, &ShardLevel), &u64)| ShardBody {
            stock: level.stock,
            sold: level.sold,
            minted,
            problem: problems.iter().find(|found| found.shard == id).map(|found| problem_code(found.kind)),
        };
        let levels = (0..).map(ShardId::new).zip(&snapshot.shards);
        let leader = leadership.leader();
        let state = LiveState {
            sale: SaleBody::of(&desired.sale.config),
            total,
            sold,
            stock,
            in_flight,
            shards: levels.zip(&desired.mint).map(shard).collect(),
            moves,
            violations: *violations,
            processes: processes.map(|processes| ProcessBody::all(processes, leader.as_deref())),
            answered_by: leadership.name().to_owned(),
        };
        Self { time: (taken_at > 0).then_some(taken_at), state }
    }
}

impl SaleBody {
    fn of(SaleConfig { id, product, state, window, .. }: &SaleConfig) -> Self {
        Self { id: id.clone(), name: product.name.clone(), state: *state, window: *window }
    }
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
