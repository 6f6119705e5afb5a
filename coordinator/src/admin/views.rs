//! Response bodies for operators.

use rediscluster::{CallError, Slot, Topology};
use serde::Serialize;
use service::time::iso8601;
use stock::calls::Level;
use stock::ids::{SaleId, ShardId, UserIdKind};
use stock::layout::{HashTag, Shard};
use stock::sale::{Sale, SaleConfig, SaleState};
use stock::snapshot::Snapshot;

use crate::coordinator::Inspection;
use crate::leading::Leadership;

/// `GET /admin/coordinators`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CoordinatorsView {
    /// The leader, as far as the answering coordinator knows.
    leader: Option<String>,
    answered_by: String,
    leads: bool,
}

/// `GET /admin/sales`.
#[derive(Serialize)]
pub(super) struct SaleList {
    sales: Vec<SaleView>,
}

/// The settings of a sale.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SaleView {
    id: SaleId,
    state: SaleState,
    version: u64,
    total_stock: u64,
    starts_at: String,
    ends_at: String,
    product_name: String,
    product_price: f64,
    product_description: String,
    user_ids: UserIdKind,
}

/// `GET /admin/sales/{sale}`.
#[derive(Serialize)]
pub(super) struct SaleDetail {
    #[serde(flatten)]
    sale: SaleView,
    shards: Vec<ShardView>,
    snapshot: Option<Snapshot>,
    problems: Vec<String>,
}

/// A shard. Without its version and numbers if it cannot be read.
#[derive(Serialize)]
struct ShardView {
    id: ShardId,
    tag: HashTag,
    slot: Slot,
    primary: Option<String>,
    version: Option<u64>,
    stock: Option<u64>,
    sold: Option<u64>,
}

impl CoordinatorsView {
    pub(super) fn of(leadership: &Leadership) -> Self {
        let (leader, answered_by) = (leadership.leader(), leadership.name().to_owned());
        Self { leads: leader.as_ref() == Some(&answered_by), leader, answered_by }
    }
}

impl SaleList {
    pub(super) fn of(sales: &[Sale]) -> Self {
        Self { sales: sales.iter().map(|sale| SaleView::of(&sale.config)).collect() }
    }
}

impl SaleView {
    pub(super) fn of(config: &SaleConfig) -> Self {
        let SaleConfig { id, version, state, window, total_stock, product, user_ids, .. } = config;
        Self {
            id: id.clone(),
            state: *state,
            version: *version,
            total_stock: *total_stock,
            starts_at: iso8601(window.starts_at),
            ends_at: iso8601(window.ends_at),
            product_name: product.name.clone(),
            product_price: product.price,
            product_description: product.description.clone(),
            user_ids: *user_ids,
        }
    }
}

impl SaleDetail {
    pub(super) fn of(inspection: Inspection) -> Self {
        let Inspection { desired, levels, topology, snapshot, problems } = inspection;
        let config = &desired.sale.config;
        let shards = desired.sale.shards().iter().zip(&config.layout.tags).zip(&levels);
        Self {
            sale: SaleView::of(config),
            shards: shards.map(|((shard, tag), level)| ShardView::of(shard, tag, level, &topology)).collect(),
            snapshot,
            problems: problems.iter().map(ToString::to_string).collect(),
        }
    }
}

impl ShardView {
    fn of(shard: &Shard, tag: &HashTag, level: &Result<Level, CallError>, topology: &Topology) -> Self {
        let level = level.as_ref().ok();
        Self {
            id: shard.id,
            tag: tag.clone(),
            slot: shard.slot,
            primary: topology.primary(shard.slot).map(|primary| primary.address.to_string()),
            version: level.map(|level| level.settings.version),
            stock: level.map(|level| level.stock),
            sold: level.map(|level| level.sold),
        }
    }
}
