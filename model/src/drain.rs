//! Third model: the drain of a shard's order stream into PostgreSQL.
//!
//! The shard has a primary with a replica, and each entry of its stream is one order. Ledgers read the stream behind
//! barrier B3, and write rows and cursor with one statement. The answer of a statement may be lost, and a statement may
//! run long after its ledger gave it up, for example when PostgreSQL was frozen. Failovers take back orders that no
//! barrier confirmed, and their users buy again.
//!
//! A demoted primary has no state: no barrier after a write to it is confirmed. A ledger's map never goes back to it, so
//! a read after a barrier reaches the same primary or its successor.
//!
//! A shard never sells twice to a user, as the first model shows. The ledger does not rely on that: the model lets a
//! shard do it, and the ledger must report it.

mod display;
mod properties;
mod steps;

pub use properties::{
    EVERY_ORDER_IS_A_ROW, NO_FALSE_ALARM, NUMBERS_HAVE_NO_GAPS, ONE_ROW_PER_USER, ROWS_STAY,
};
use stateright::{Model, Property};

/// One protection of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainProtection {
    /// Barrier B3: a ledger reads only entries that all replicas have.
    BarrierBeforeRead,
    /// A ledger reads up to the entry that was the last one before the barrier, not to the end of the stream.
    ReadEndsAtBarrier,
    /// One statement moves the cursor and writes the rows. Without it, one statement moves the cursor first, and another
    /// one writes the rows.
    RowsWithCursor,
    /// A statement does nothing when the cursor is not where its ledger read it.
    CursorIsCompared,
    /// The statement tolerates existing rows of the same entries only. Without it, `ON CONFLICT DO NOTHING` has no target
    /// and tolerates a second order of a user, too.
    ConflictTarget,
    /// PostgreSQL refuses a second row of a user.
    UniqueUser,
}

impl DrainProtection {
    /// Returns the property that breaks without this protection. Others may break too.
    pub const fn keeps(self) -> &'static str {
        match self {
            Self::BarrierBeforeRead | Self::ReadEndsAtBarrier => ROWS_STAY,
            Self::RowsWithCursor | Self::ConflictTarget => EVERY_ORDER_IS_A_ROW,
            Self::CursorIsCompared => NUMBERS_HAVE_NO_GAPS,
            Self::UniqueUser => ONE_ROW_PER_USER,
        }
    }
}

/// An order, which is the whole entry of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelOrder {
    /// The buyer.
    pub user: u8,
    /// The attempt, which the order id identifies.
    pub attempt: u8,
}

/// State of the primary's replica, as in [`crate::shard::ReplicaLink`]. A number is the length of its stream, which is a
/// prefix of the primary's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplicaLink {
    /// Follows, and has every write.
    #[default]
    InStep,
    /// Stopped, and will be promoted with this many entries.
    Behind(usize),
    /// Copies from the primary. May be promoted with the entries at the fork.
    Copying(usize),
    /// No replica: the primary was promoted, and its predecessor has not joined yet.
    Alone,
}

/// A row of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// Number of the entry in the stream, from 1.
    pub seq: usize,
    /// The order.
    pub order: ModelOrder,
    /// Number of the row in its sale, from 1.
    pub position: usize,
}

/// The contents of PostgreSQL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tables {
    /// Number of the latest drained entry.
    pub cursor: usize,
    /// The rows, in the order in which they became visible.
    pub rows: Vec<Row>,
    /// The latest number given to a row.
    pub numbered: usize,
}

/// Entries that a ledger read, and the cursor from which it read them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Batch {
    /// The cursor.
    pub after: usize,
    /// The entries behind it.
    pub orders: Vec<ModelOrder>,
}

/// The knowledge of a ledger. A frozen ledger keeps it for any length of time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ledger {
    /// It has a new connection to PostgreSQL, and has read nothing.
    #[default]
    Connected,
    /// It knows the cursor.
    AtCursor(usize),
    /// A barrier confirmed the entries up to this number.
    Confirmed {
        /// The cursor.
        after: usize,
        /// The last confirmed entry.
        until: usize,
    },
    /// It writes these entries.
    Writing(Batch),
    /// It has moved the cursor and writes the rows next. Exists only when these are two statements.
    WritingRows(Batch),
}

/// The shard, PostgreSQL, and the ledgers between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    stream: Vec<ModelOrder>,
    link: ReplicaLink,
    tables: Tables,
    ledgers: [Ledger; LEDGERS],
    /// A statement that PostgreSQL has not executed yet, and that its ledger gave up.
    late: Option<Batch>,
    failovers_left: u8,
    second_orders_left: u8,
    events: Events,
}

/// Events that must be reachable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Events {
    order_was_taken_back: bool,
    ledger_was_overtaken: bool,
    late_statement_wrote: bool,
    shard_was_reported: bool,
}

/// Number of ledgers.
pub const LEDGERS: usize = 2;
/// Maximum length of the stream.
pub const ENTRIES_MAX: usize = 3;

/// One step of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A user without an order buys.
    Buy(ModelOrder),
    /// The shard sells to a user who has an order, against its own rules.
    SellTwice(ModelOrder),
    /// The replica stops following.
    FallBehind,
    /// The replica is promoted.
    FailOver,
    /// The demoted primary joins as replica and begins its copy.
    Join,
    /// The replica finishes its copy.
    FinishCopy,
    /// A ledger reads the cursor.
    ReadCursor(usize),
    /// A ledger asks for the last entry, behind a barrier.
    Confirm(usize),
    /// A ledger reads the confirmed entries.
    Read(usize),
    /// PostgreSQL executes the statement of a ledger.
    Write {
        /// The ledger.
        ledger: usize,
        /// False when the answer is lost.
        answered: bool,
    },
    /// A ledger sends the second of two statements.
    WriteRows(usize),
    /// A ledger gives up its statement, which may still be executed.
    GiveUp(usize),
    /// PostgreSQL executes a statement that was given up.
    WriteLate,
    /// A ledger dies, and another one is started.
    Crash(usize),
}

/// Sizes of the model, and the missing protection.
#[derive(Clone, Copy, Debug)]
pub struct DrainModel {
    /// Number of users, with two attempts each.
    pub users: u8,
    /// Number of failovers.
    pub failovers: u8,
    /// Number of orders that a shard sells to users who have one.
    pub second_orders: u8,
    /// The missing protection.
    pub missing: Option<DrainProtection>,
}

impl Model for DrainModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            failovers_left: self.failovers,
            second_orders_left: self.second_orders,
            ..State::default()
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.stream.len() < ENTRIES_MAX {
            self.sales(state, actions);
        }
        match state.link {
            ReplicaLink::InStep if state.failovers_left > 0 => actions.push(Action::FallBehind),
            ReplicaLink::Behind(_) | ReplicaLink::Copying(_) if state.failovers_left > 0 => {
                actions.push(Action::FailOver);
            }
            ReplicaLink::Alone => actions.push(Action::Join),
            ReplicaLink::InStep | ReplicaLink::Behind(_) | ReplicaLink::Copying(_) => {}
        }
        actions.extend(matches!(state.link, ReplicaLink::Copying(_)).then_some(Action::FinishCopy));
        for (ledger, knowledge) in state.ledgers.iter().enumerate() {
            match knowledge {
                Ledger::Connected => actions.push(Action::ReadCursor(ledger)),
                Ledger::AtCursor(_) => actions.push(Action::Confirm(ledger)),
                Ledger::Confirmed { .. } => actions.push(Action::Read(ledger)),
                Ledger::Writing(_) => {
                    actions.extend([true, false].map(|answered| Action::Write { ledger, answered }));
                    actions.extend(state.late.is_none().then_some(Action::GiveUp(ledger)));
                }
                Ledger::WritingRows(_) => actions.push(Action::WriteRows(ledger)),
            }
            actions.push(Action::Crash(ledger));
        }
        actions.extend(state.late.is_some().then_some(Action::WriteLate));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = before.clone();
        match action {
            Action::Buy(order) => state.stream.push(order),
            Action::SellTwice(order) => {
                state.stream.push(order);
                state.second_orders_left -= 1;
            }
            Action::FallBehind => state.link = ReplicaLink::Behind(state.stream.len()),
            Action::FailOver => Self::fail_over(&mut state),
            Action::Join => state.link = ReplicaLink::Copying(state.stream.len()),
            Action::FinishCopy => state.link = ReplicaLink::InStep,
            Action::ReadCursor(ledger) => state.ledgers[ledger] = Ledger::AtCursor(state.tables.cursor),
            Action::Confirm(ledger) => self.confirm(&mut state, ledger),
            Action::Read(ledger) => self.read(&mut state, ledger),
            Action::Write { ledger, answered } => self.write(&mut state, ledger, answered),
            Action::WriteRows(ledger) => self.write_rows(&mut state, ledger),
            Action::GiveUp(ledger) => {
                if let Ledger::Writing(batch) = std::mem::take(&mut state.ledgers[ledger]) {
                    state.late = Some(batch);
                }
            }
            Action::WriteLate => self.write_late(&mut state),
            Action::Crash(ledger) => state.ledgers[ledger] = Ledger::default(),
        }
        if self.missing.is_none() {
            // Ledgers are interchangeable.
            state.ledgers.sort_unstable();
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

impl DrainModel {
    fn sales(&self, state: &State, actions: &mut Vec<Action>) {
        for user in 0..self.users {
            let has_order = state.stream.iter().any(|order| order.user == user);
            let orders = [0, 1].map(|attempt| ModelOrder { user, attempt });
            if !has_order {
                actions.extend(orders.map(Action::Buy));
            } else if state.second_orders_left > 0 {
                let is_new = |order: &ModelOrder| !state.stream.contains(order);
                actions.extend(orders.into_iter().filter(is_new).map(Action::SellTwice));
            }
        }
    }
}
