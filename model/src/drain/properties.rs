//! The promises of the ledger, as predicates on a state.

use stateright::Property;

use super::steps::Written;
use super::{DrainModel, State};

/// Each row is an order of the shard, with the same number, and no failover takes it back.
pub const ROWS_STAY: &str = "every row is an order that stays";
/// After the last fault, each order of the shard is a row, or the ledger reports the shard.
pub const EVERY_ORDER_IS_A_ROW: &str = "every order becomes a row, or the shard is reported";
/// No user has two rows.
pub const ONE_ROW_PER_USER: &str = "no user has two rows";
/// Rows become visible in the order of their numbers, which have no gaps: a reader needs one cursor and misses nothing.
pub const NUMBERS_HAVE_NO_GAPS: &str = "the numbers of rows have no gaps";
/// A ledger reports a shard only after that shard sold twice to a user.
pub const NO_FALSE_ALARM: &str = "the ledger raises no false alarm";

const ORDER_IS_TAKEN_BACK: &str = "a failover takes back an order, and rows exist";
const LEDGER_IS_OVERTAKEN: &str = "a ledger is overtaken by another one";
const LATE_STATEMENT_WRITES: &str = "a statement that was given up writes rows";
const SECOND_ORDER_IS_REPORTED: &str = "a second order of a user is reported";

/// Returns the properties that always hold. For the complete protocol, also the situations that must be reachable.
pub(super) fn all(model: &DrainModel) -> Vec<Property<DrainModel>> {
    let mut properties = vec![
        Property::always(ROWS_STAY, |_, state: &State| {
            let durable = &state.stream[..state.durable_length()];
            state.tables.rows.iter().all(|row| durable.get(row.seq - 1) == Some(&row.order))
        }),
        Property::always(EVERY_ORDER_IS_A_ROW, |model: &DrainModel, state: &State| {
            [state.stream.len(), state.durable_length()]
                .into_iter()
                .all(|length| becomes_rows(model, state, length))
        }),
        Property::always(ONE_ROW_PER_USER, |_, state: &State| {
            let rows = &state.tables.rows;
            let is_only =
                |index: usize| rows[..index].iter().all(|row| row.order.user != rows[index].order.user);
            (0..rows.len()).all(is_only)
        }),
        Property::always(NUMBERS_HAVE_NO_GAPS, |_, state: &State| {
            let rows = &state.tables.rows;
            rows.iter().zip(1..).all(|(row, number)| row.position == number)
                && state.tables.numbered == rows.len()
        }),
        Property::always(NO_FALSE_ALARM, |model: &DrainModel, state: &State| {
            !state.events.shard_was_reported || state.second_orders_left < model.second_orders
        }),
    ];
    if model.missing.is_none() {
        properties.extend([
            Property::sometimes(ORDER_IS_TAKEN_BACK, |_, state: &State| {
                state.events.order_was_taken_back && !state.tables.rows.is_empty()
            }),
            Property::sometimes(LEDGER_IS_OVERTAKEN, |_, state: &State| state.events.ledger_was_overtaken),
            Property::sometimes(LATE_STATEMENT_WRITES, |_, state: &State| state.events.late_statement_wrote),
        ]);
        properties.extend((model.second_orders > 0).then(second_order_is_reported));
    }
    properties
}

fn second_order_is_reported() -> Property<DrainModel> {
    Property::sometimes(SECOND_ORDER_IS_REPORTED, |_, state: &State| state.events.shard_was_reported)
}

/// Compares the first `length` entries with the rows that a new ledger leaves.
fn becomes_rows(model: &DrainModel, state: &State, length: usize) -> bool {
    let (tables, written) = model.settled(state, length);
    let drained: Vec<_> = (1..).zip(state.stream[..length].iter().copied()).take(tables.cursor).collect();
    let mut rows: Vec<_> = tables.rows.iter().map(|row| (row.seq, row.order)).collect();
    rows.sort_unstable();
    rows == drained && (tables.cursor == length || written == Written::Refused)
}
