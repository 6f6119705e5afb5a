//! Effects of actions: ledgers follow the rules of the drain, and PostgreSQL executes their statements.

use super::{Batch, DrainModel, DrainProtection, Ledger, ReplicaLink, Row, State, Tables};

/// The answer of PostgreSQL to a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// The cursor moved.
    Moved,
    /// The cursor was elsewhere.
    Overtaken,
    /// A row breaks a constraint.
    Refused,
}

impl DrainModel {
    pub(super) fn has(self, protection: DrainProtection) -> bool {
        self.missing != Some(protection)
    }

    pub(super) fn fail_over(state: &mut State) {
        let left = state.durable_length();
        state.events.order_was_taken_back |= left < state.stream.len();
        state.stream.truncate(left);
        state.link = ReplicaLink::Alone;
        state.failovers_left -= 1;
    }

    pub(super) fn confirm(self, state: &mut State, ledger: usize) {
        let Ledger::AtCursor(after) = state.ledgers[ledger] else { return };
        if state.confirms() || !self.has(DrainProtection::BarrierBeforeRead) {
            let until = state.stream.len();
            match until < after {
                true => state.events.shard_was_reported = true,
                false if until > after => state.ledgers[ledger] = Ledger::Confirmed { after, until },
                false => {}
            }
        }
    }

    pub(super) fn read(self, state: &mut State, ledger: usize) {
        let Ledger::Confirmed { after, until } = state.ledgers[ledger] else { return };
        let until = if self.has(DrainProtection::ReadEndsAtBarrier) { until } else { state.stream.len() };
        match state.stream.get(after..until) {
            Some(orders) => {
                state.ledgers[ledger] = Ledger::Writing(Batch { after, orders: orders.to_vec() });
            }
            None => {
                state.events.shard_was_reported = true;
                state.ledgers[ledger] = Ledger::AtCursor(after);
            }
        }
    }

    pub(super) fn write(self, state: &mut State, ledger: usize, answered: bool) {
        let Ledger::Writing(batch) = std::mem::take(&mut state.ledgers[ledger]) else { return };
        let written = self.execute(&mut state.tables, &batch);
        if !answered {
            return;
        }
        match written {
            Written::Moved if !self.has(DrainProtection::RowsWithCursor) => {
                state.ledgers[ledger] = Ledger::WritingRows(batch);
            }
            Written::Moved => state.ledgers[ledger] = Ledger::AtCursor(batch.after + batch.orders.len()),
            Written::Overtaken => state.events.ledger_was_overtaken = true,
            Written::Refused => {
                state.events.shard_was_reported = true;
                state.ledgers[ledger] = Ledger::AtCursor(batch.after);
            }
        }
    }

    pub(super) fn write_rows(self, state: &mut State, ledger: usize) {
        let Ledger::WritingRows(batch) = std::mem::take(&mut state.ledgers[ledger]) else { return };
        let written = self.insert(&mut state.tables, &batch);
        state.events.shard_was_reported |= written == Written::Refused;
    }

    pub(super) fn write_late(self, state: &mut State) {
        let Some(batch) = state.late.take() else { return };
        let written = self.execute(&mut state.tables, &batch);
        state.events.late_statement_wrote |= written == Written::Moved;
    }

    /// Executes the statement. It is atomic: a refused row moves nothing.
    fn execute(self, tables: &mut Tables, batch: &Batch) -> Written {
        if self.has(DrainProtection::CursorIsCompared) && tables.cursor != batch.after {
            return Written::Overtaken;
        }
        let mut changed = tables.clone();
        changed.cursor = batch.after + batch.orders.len();
        if self.has(DrainProtection::RowsWithCursor) && self.insert(&mut changed, batch) == Written::Refused {
            return Written::Refused;
        }
        *tables = changed;
        Written::Moved
    }

    fn insert(self, tables: &mut Tables, batch: &Batch) -> Written {
        let mut changed = tables.clone();
        for (&order, seq) in batch.orders.iter().zip(batch.after + 1..) {
            changed.numbered += 1;
            let has_entry = changed.rows.iter().any(|row| row.seq == seq);
            let has_user = self.has(DrainProtection::UniqueUser)
                && changed.rows.iter().any(|row| row.order.user == order.user);
            if has_user && !has_entry && self.has(DrainProtection::ConflictTarget) {
                return Written::Refused;
            }
            if !has_entry && !has_user {
                changed.rows.push(Row { seq, order, position: changed.numbered });
            }
        }
        *tables = changed;
        Written::Moved
    }

    /// Returns PostgreSQL's contents after the last fault, when the shard holds the first `length` entries: a new ledger
    /// has drained them, or a refused statement stopped it.
    pub(super) fn settled(self, state: &State, length: usize) -> (Tables, Written) {
        let mut tables = state.tables.clone();
        let after = tables.cursor;
        let orders = state.stream[..length].get(after..).unwrap_or_default().to_vec();
        let batch = Batch { after, orders };
        let mut written = self.execute(&mut tables, &batch);
        if written == Written::Moved && !self.has(DrainProtection::RowsWithCursor) {
            written = self.insert(&mut tables, &batch);
        }
        (tables, written)
    }
}

impl State {
    /// Returns true when a barrier is confirmed now.
    pub(super) fn confirms(&self) -> bool {
        matches!(self.link, ReplicaLink::InStep | ReplicaLink::Alone)
    }

    /// The number of entries that remain after the next failover.
    pub(super) fn durable_length(&self) -> usize {
        match self.link {
            ReplicaLink::Behind(length) | ReplicaLink::Copying(length) => length,
            ReplicaLink::InStep | ReplicaLink::Alone => self.stream.len(),
        }
    }
}
