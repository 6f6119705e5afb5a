//! Calls on the data that each sale has once (config and snapshot), on the list of sales, and on the nodes' shared
//! secret.

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, EpochMs, Slot, slot_of_tag};

use crate::calls::parse_config;
use crate::ids::SaleId;
use crate::layout::{SALES_KEY, SECRET_KEY, SaleKeys};
use crate::sale::SaleConfig;
use crate::snapshot::Snapshot;

/// Parses the text of a snapshot.
///
/// # Errors
/// Returns [`CallError::Malformed`] when this release does not know its form.
pub fn parse_snapshot(json: &str) -> Result<Snapshot, CallError> {
    serde_json::from_str(json).map_err(|error| CallError::Malformed(format!("a snapshot: {error}")))
}

/// Lists all sales. Returns `None` when the list was lost or never created.
///
/// A complete list also contains the empty text. Redis deletes empty sets, so without it a list without sales could
/// not be distinguished from a lost list.
pub struct ListSales;

const COMPLETE_MARKER: &str = "";

impl Call for ListSales {
    type Answer = Option<Vec<SaleId>>;

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        Cmd::smembers(SALES_KEY)
    }

    fn answer(&self, reply: Value) -> Result<Option<Vec<SaleId>>, CallError> {
        let mut sales = parse_list(reply)?;
        sales.iter_mut().for_each(|sales| sales.sort_unstable());
        Ok(sales)
    }
}

/// Reads the ids in a set of sales. Returns `None` if the set is not marked as complete.
pub(crate) fn parse_list(reply: Value) -> Result<Option<Vec<SaleId>>, CallError> {
    let ids: Vec<String> = from_redis_value(reply)?;
    if ids.iter().all(|id| id != COMPLETE_MARKER) {
        return Ok(None);
    }
    Ok(Some(ids.iter().filter_map(|id| id.parse().ok()).collect()))
}

/// Adds a sale to the list. Idempotent. A lost list stays incomplete: the other sales are still missing.
pub struct AddSaleToList<'a>(pub &'a SaleId);

impl Call for AddSaleToList<'_> {
    type Answer = ();

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        Cmd::sadd(SALES_KEY, self.0.as_str())
    }

    fn answer(&self, _reply: Value) -> Result<(), CallError> {
        Ok(())
    }
}

/// Adds all recorded sales to the list and marks it as complete. Removes none.
pub struct RestoreSaleList<'a>(pub &'a [SaleId]);

impl Call for RestoreSaleList<'_> {
    type Answer = ();

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        let members: Vec<&str> = self.0.iter().map(SaleId::as_str).chain([COMPLETE_MARKER]).collect();
        Cmd::sadd(SALES_KEY, members)
    }

    fn answer(&self, _reply: Value) -> Result<(), CallError> {
        Ok(())
    }
}

/// Reads a sale's config. Returns `None` when there is no such sale.
pub struct ReadConfig<'a>(pub &'a SaleKeys);

impl Call for ReadConfig<'_> {
    type Answer = Option<SaleConfig>;

    fn slot(&self) -> Slot {
        self.0.slot
    }

    fn command(&self) -> Cmd {
        Cmd::get(&self.0.config)
    }

    fn answer(&self, reply: Value) -> Result<Option<SaleConfig>, CallError> {
        let json: Option<String> = from_redis_value(reply)?;
        json.as_deref().map(parse_config).transpose()
    }
}

/// Reads the stored text of a sale's config or snapshot. Returns `None` when there is none. Readers poll it far more
/// often than it changes, and comparing texts needs no parsing.
pub struct ReadText<'a> {
    /// The sale's slot.
    pub slot: Slot,
    /// One of the sale's keys.
    pub key: &'a str,
}

impl Call for ReadText<'_> {
    type Answer = Option<String>;

    fn slot(&self) -> Slot {
        self.slot
    }

    fn command(&self) -> Cmd {
        Cmd::get(self.key)
    }

    fn answer(&self, reply: Value) -> Result<Option<String>, CallError> {
        Ok(from_redis_value(reply)?)
    }
}

/// Reads a sale's latest snapshot. Returns `None` when none was published.
pub struct ReadSnapshot<'a>(pub &'a SaleKeys);

impl Call for ReadSnapshot<'_> {
    type Answer = Option<Snapshot>;

    fn slot(&self) -> Slot {
        self.0.slot
    }

    fn command(&self) -> Cmd {
        Cmd::get(&self.0.snapshot)
    }

    fn answer(&self, reply: Value) -> Result<Option<Snapshot>, CallError> {
        let json: Option<String> = from_redis_value(reply)?;
        json.as_deref().map(parse_snapshot).transpose()
    }
}

/// Reads the clock of a primary: the one given to [`rediscluster::Cluster::poll_at`], otherwise the one that holds the
/// list of sales.
pub struct ReadTime;

impl Call for ReadTime {
    type Answer = EpochMs;

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        redis::cmd("TIME")
    }

    fn answer(&self, reply: Value) -> Result<EpochMs, CallError> {
        let (seconds, micros): (u64, u64) = from_redis_value(reply)?;
        Ok(seconds * 1_000 + micros / 1_000)
    }
}

/// Publishes a snapshot.
pub struct PublishSnapshot<'a> {
    /// The sale's keys.
    pub keys: &'a SaleKeys,
    /// The snapshot.
    pub snapshot: &'a Snapshot,
}

impl Call for PublishSnapshot<'_> {
    type Answer = ();

    fn slot(&self) -> Slot {
        self.keys.slot
    }

    fn command(&self) -> Cmd {
        let json = serde_json::to_string(self.snapshot).expect("a snapshot has only plain fields");
        Cmd::set(&self.keys.snapshot, json)
    }

    fn answer(&self, _reply: Value) -> Result<(), CallError> {
        Ok(())
    }
}

/// Agrees with all nodes on a secret. Returns the stored secret, or stores the proposal when there is none.
pub struct ShareSecret<'a> {
    /// A new secret.
    pub proposal: &'a str,
}

impl Call for ShareSecret<'_> {
    type Answer = String;

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        let mut cmd = redis::cmd("SET");
        cmd.arg(SECRET_KEY).arg(self.proposal).arg("NX").arg("GET");
        cmd
    }

    fn answer(&self, reply: Value) -> Result<String, CallError> {
        let held: Option<String> = from_redis_value(reply)?;
        Ok(held.unwrap_or_else(|| self.proposal.to_owned()))
    }
}
