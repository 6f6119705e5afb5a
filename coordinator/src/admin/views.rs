//! Response bodies for operators.

use rediscluster::{CallError, Topology};
use serde_json::{Value, json};
use service::time::{iso8601, now};
use stock::calls::Level;
use stock::history::{ChangeOrigin, HISTORY_ENTRIES_MAX, HistoryEntry};
use stock::layout::{HashTag, Shard};
use stock::sale::{Sale, SaleConfig};

use crate::lease_holder::Leadership;
use crate::new_sale::warnings;
use crate::operations::{Inspection, SalePage};

/// `GET /admin/coordinators`. The leader is the one that the answering coordinator knows.
pub(super) fn coordinators(leadership: &Leadership) -> Value {
    let (leader, answered_by) = (leadership.leader(), leadership.name());
    json!({ "leader": leader, "answeredBy": answered_by, "leads": leader.as_deref() == Some(answered_by) })
}

/// `GET /admin/sales`. `next` is the id after which the next page starts, `null` on the last one.
pub(super) fn sales(SalePage { sales, next }: &SalePage) -> Value {
    json!({ "sales": sales.iter().map(sale).collect::<Vec<_>>(), "next": next })
}

/// The settings of a sale. `state` is its stage: a sale that has not started is `upcoming`, one whose window is over `ended`.
pub(super) fn sale(sale: &Sale) -> Value {
    let SaleConfig { id, version, window, total_stock, product, user_ids, archive, .. } = &*sale.config;
    json!({
        "id": id,
        "state": sale.config.stage_at(now()),
        "version": version,
        "totalStock": total_stock,
        "startsAt": iso8601(window.starts_at),
        "endsAt": iso8601(window.ends_at),
        "productName": product.name,
        "productPrice": product.price,
        "productDescription": product.description,
        "userIds": user_ids,
        "archive": archive,
        "warnings": warnings(sale),
    })
}

/// `GET /admin/sales/{sale}`.
pub(super) fn detail(inspection: &Inspection) -> Value {
    let Inspection { desired, levels, topology, snapshot, problems } = inspection;
    let shards = desired.sale.shards().iter().zip(&desired.sale.config.layout.tags).zip(levels);
    let mut detail = sale(&desired.sale);
    detail["shards"] = shards.map(|((of, tag), level)| shard(of, tag, level, topology)).collect();
    detail["snapshot"] = json!(snapshot);
    detail["problems"] = problems.iter().map(ToString::to_string).collect();
    detail
}

/// `GET /admin/sales/{sale}/history`: latest change first.
pub(super) fn history(entries: &[HistoryEntry]) -> Value {
    json!({ "changes": entries.iter().rev().map(change).collect::<Vec<_>>(), "keptAtMost": HISTORY_ENTRIES_MAX })
}

/// A change. Its `operator` is `null` if a coordinator made it on its own.
fn change(entry: &HistoryEntry) -> Value {
    let HistoryEntry { version, at, change, values, origin } = entry;
    let ChangeOrigin { operator, address, correlation_id, reason } = origin;
    json!({
        "version": version,
        "at": iso8601(*at),
        "change": change,
        "values": values,
        "operator": operator,
        "address": address,
        "correlationId": correlation_id,
        "reason": reason,
    })
}

/// A shard. Its version and numbers are `null` if it cannot be read.
fn shard(shard: &Shard, tag: &HashTag, level: &Result<Level, CallError>, topology: &Topology) -> Value {
    let level = level.as_ref().ok();
    json!({
        "id": shard.id,
        "tag": tag,
        "slot": shard.slot,
        "primary": topology.primary(shard.slot).map(|primary| primary.address.to_string()),
        "version": level.map(|level| level.settings.version),
        "stock": level.map(|level| level.stock),
        "sold": level.map(|level| level.sold),
    })
}
