//! The row of an order.

use serde::Serialize;
use stock::orders::Order;
use uuid::Uuid;

/// Namespace of the ids of events. It must never change: consumers recognize repeated events by their ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f2a_1f5e_7d0b_4c52_9a55_3f1d_07c8_e1b4);

/// What an order's event says.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Payload<'a> {
    pub(crate) sale: &'a str,
    pub(crate) order_id: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) purchased_at: String,
    pub(crate) correlation_id: &'a str,
}

/// Returns the id of an order's event. It is the same each time, at each ledger.
pub(crate) fn id(sale: &str, creation: &str, order: &Order) -> Uuid {
    Uuid::new_v5(
        &NAMESPACE,
        format!("{sale}/{creation}/{}/{}", order.claim.order.as_str(), order.user.as_str()).as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use stock::ids::{UserId, UserIdKind};

    use super::*;

    fn order(id: &str) -> Order {
        let claim = stock::calls::Claim { order: id.parse().unwrap(), purchased_at: 1 };
        Order {
            seq: 1,
            place: 0,
            user: UserId::parse("ann", UserIdKind::Opaque).unwrap(),
            claim,
            correlation: "c".into(),
        }
    }

    #[test]
    fn event_id_depends_on_sale_creation_and_order_only() {
        let (one, other) = ("QWGK1PFYHPXQSB", "PCMGGTW0Y0ZRE5");
        let first = id("flash", "a1", &order(one));
        assert_eq!(first, id("flash", "a1", &Order { seq: 9, ..order(one) }));
        assert_eq!(first.to_string(), "daaa286b-4a74-5cc2-931d-b580c8e036cc");
        for different in
            [id("flash", "a1", &order(other)), id("flash", "a2", &order(one)), id("f", "a1", &order(one))]
        {
            assert_ne!(first, different);
        }
    }
}
