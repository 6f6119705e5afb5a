//! The order stream of a shard.

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Slot};

use crate::calls::Claim;
use crate::ids::UserId;
use crate::layout::Shard;
use crate::snapshot::Confirmed;

/// An order in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Number of its entry.
    pub seq: u64,
    /// Place of the buyer in the entry, from 0.
    pub place: u16,
    /// The buyer.
    pub user: UserId,
    /// The claim that belongs to the order.
    pub claim: Claim,
    /// Correlation id of the request.
    pub correlation: Box<str>,
}

/// Reads how far a shard's stream is, without a barrier: a failover may undo the latest entries.
#[derive(Clone, Copy, Debug)]
pub struct ReadProgress<'a> {
    /// The shard.
    pub shard: &'a Shard,
}

impl Call for ReadProgress<'_> {
    type Answer = Confirmed;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&self.shard.meta).arg("sold").arg("seq").arg("ring");
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Confirmed, CallError> {
        let (sold, seq, ring): (Option<u64>, Option<u64>, Option<String>) = from_redis_value(reply)?;
        let ring = ring.ok_or(CallError::NoShard)?;
        if !self.shard.accepts(&ring) {
            return Err(CallError::WrongRing(ring));
        }
        sold.zip(seq).map(|(sold, seq)| Confirmed { sold, seq }).ok_or(CallError::NoShard)
    }
}

/// Reads the claims of users in their home shard, without a barrier.
#[derive(Clone, Debug)]
pub struct ReadClaims<'a> {
    /// The home shard of all users.
    pub shard: &'a Shard,
    /// The users; at least one.
    pub users: &'a [&'a UserId],
}

impl Call for ReadClaims<'_> {
    type Answer = Vec<Option<Claim>>;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(&self.shard.claims);
        for user in self.users {
            cmd.arg(user.as_str());
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Vec<Option<Claim>>, CallError> {
        let found: Vec<Option<String>> = from_redis_value(reply)?;
        found.into_iter().map(|claim| claim.as_deref().map(Claim::parse).transpose()).collect()
    }
}

/// Reads the orders of a range of entries, in their order.
#[derive(Clone, Debug)]
pub struct ReadOrders<'a> {
    /// The shard.
    pub shard: &'a Shard,
    /// Number of the entry before the first one to read.
    pub after: u64,
    /// Number of the last entry to read; `None` for no limit.
    pub until: Option<u64>,
    /// Most entries to read. An entry holds up to 64 orders.
    pub entries: usize,
}

impl Call for ReadOrders<'_> {
    type Answer = Vec<Order>;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let until = self.until.map_or_else(|| "+".to_owned(), |until| format!("{until}-0"));
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(&self.shard.orders).arg(format!("{}-0", self.after + 1)).arg(until);
        cmd.arg("COUNT").arg(self.entries);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Vec<Order>, CallError> {
        let entries: Vec<(String, Vec<(String, String)>)> = from_redis_value(reply)?;
        let mut orders = Vec::new();
        for (id, fields) in entries {
            let malformed = || CallError::Malformed(format!("order entry {id:?}"));
            let seq = id.strip_suffix("-0").and_then(|seq| seq.parse().ok()).ok_or_else(malformed)?;
            for ((user, order), place) in fields.into_iter().zip(0..) {
                let (claim, correlation) = parse_order(&order)?;
                orders.push(Order { seq, place, user: UserId::stored(user), claim, correlation });
            }
        }
        Ok(orders)
    }
}

/// Parses `<order id>:<purchased at, ms>:<correlation id>`. A correlation id may contain colons.
fn parse_order(order: &str) -> Result<(Claim, Box<str>), CallError> {
    let malformed = || CallError::Malformed(format!("{order:?} is not an order"));
    let (end, _) = order.match_indices(':').nth(1).ok_or_else(malformed)?;
    Ok((Claim::parse(&order[..end])?, order[end + 1..].into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OrderId;

    #[test]
    fn order_parses_when_correlation_id_contains_colons() {
        let order = OrderId::random();
        let (claim, correlation) = parse_order(&format!("{order}:1500:trace:7:span")).unwrap();
        assert_eq!(claim, Claim { order, purchased_at: 1_500 });
        assert_eq!(&*correlation, "trace:7:span");
        assert!(
            parse_order(&format!("{order}:1500")).is_err(),
            "an order without its correlation id was accepted"
        );
    }
}
