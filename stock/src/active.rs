//! The set of active sales: those that nodes and coordinators follow all the time. The leader takes a sale out of it once
//! the sale has ended and its totals are final, and every change by an operator puts it back.
//!
//! The set saves work and decides nothing: a sale is left alone only if it is over by its own record, too. A complete set
//! also contains the empty text, so that a set without sales is not mistaken for a lost one.

use std::collections::BTreeSet;

use redis::{Cmd, Value};
use rediscluster::{Call, CallError, Slot, slot_of_tag};

use crate::ids::SaleId;
use crate::layout::{ACTIVE_SALES_KEY, SALES_KEY};
use crate::store::parse_list;

/// Reads the ids of the active sales. Returns `None` when the set was lost or never made: then all sales count as active.
pub struct ListActiveSales;

impl Call for ListActiveSales {
    type Answer = Option<BTreeSet<SaleId>>;

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        Cmd::smembers(ACTIVE_SALES_KEY)
    }

    fn answer(&self, reply: Value) -> Result<Self::Answer, CallError> {
        Ok(parse_list(reply)?.map(BTreeSet::from_iter))
    }
}

/// A change of the set. Idempotent.
pub enum ChangeActiveSales<'a> {
    /// Adds sales. A lost set stays incomplete.
    Add(&'a [SaleId]),
    /// Removes sales.
    Remove(&'a [SaleId]),
    /// Adds all sales, and marks the set as complete.
    Restore(&'a [SaleId]),
}

impl Call for ChangeActiveSales<'_> {
    type Answer = ();

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        let names = |sales: &'_ [SaleId]| sales.iter().map(ToString::to_string).collect::<Vec<_>>();
        match self {
            Self::Add(sales) => Cmd::sadd(ACTIVE_SALES_KEY, names(sales)),
            Self::Remove(sales) => Cmd::srem(ACTIVE_SALES_KEY, names(sales)),
            Self::Restore(sales) => Cmd::sadd(ACTIVE_SALES_KEY, [names(sales), vec![String::new()]].concat()),
        }
    }

    fn answer(&self, _reply: Value) -> Result<(), CallError> {
        Ok(())
    }
}
