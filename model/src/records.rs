//! The record of a sale as a model of its own: operators write it, coordinators act on its word, and a primary with its
//! replica holds it.
//!
//! The sale has two shards. Its creation mints one unit to shard 0, a restock one to shard 1, and a pause concerns both.
//! Coordinators keep what they last read for as long as they like, so calls that are late or repeated need no state.
//!
//! A barrier behind the record is confirmed when the replica follows, or when there is none: the first model shows what
//! it takes. Failovers of the shards are in the first model, too.
//!
//! A demoted primary has no state: no barrier behind what is recorded there is confirmed, and all of it goes when it
//! joins.
//!
//! Failovers alone take back only what no barrier confirmed. A record that lasted can be lost all the same, when both of its
//! servers lose their data. Then it may be restored from a backup, or the name may be created again: coordinators
//! refuse that while they see a shard, and the model lets it happen, as if each shard were away at that moment.

mod properties;
mod steps;
mod story;

pub use properties::{CHANGES_STAY, NO_MORE_THAN_ASKED, NO_MORE_THAN_RECORDED, NO_STATE_IS_LEFT};
use stateright::{Model, Property};

/// One protection of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordProtection {
    /// A coordinator acts on a record only once a barrier behind it is confirmed.
    RecordIsDurableFirst,
    /// A change is recorded only on top of the version that it is based on.
    BasedOnVersion,
    /// An operator is told that a change is made once every shard holds exactly what is recorded.
    EveryShardConfirms,
    /// A shard keeps its settings when it is given those of an older version.
    OlderIsRefused,
    /// A shard refuses calls of another creation of the sale.
    CreationId,
    /// A shard replaces other settings of its version.
    ContentIsCompared,
    /// A coordinator raises the record's version above that of a shard that is ahead.
    RecordMovesAbove,
    /// A restock that is repeated is known by its key.
    RestockKeysAreKept,
    /// An assumption, which no code enforces: once a backup is restored, no coordinator acts on what it read before.
    RestoreEndsOldReadings,
}

impl RecordProtection {
    /// The property that falls without it. Others may fall too.
    pub const fn keeps(self) -> &'static str {
        match self {
            Self::RecordIsDurableFirst => NO_MORE_THAN_RECORDED,
            Self::BasedOnVersion | Self::EveryShardConfirms | Self::OlderIsRefused => CHANGES_STAY,
            Self::RestoreEndsOldReadings => CHANGES_STAY,
            Self::CreationId | Self::RestockKeysAreKept => NO_MORE_THAN_ASKED,
            Self::ContentIsCompared | Self::RecordMovesAbove => NO_STATE_IS_LEFT,
        }
    }
}

/// The record of a sale. Creation 0 means that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaleRecord {
    /// Which creation of the sale.
    pub creation: u8,
    /// Counts the changes.
    pub version: u8,
    /// Whether it is paused.
    pub is_paused: bool,
    /// Units that restocks added.
    pub restocked: u8,
}

/// A shard of the sale. One that was made by creation 0 is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shard {
    /// The creation that made it.
    pub made_by: u8,
    /// The version of its settings.
    pub version: u8,
    /// Whether it is paused.
    pub is_paused: bool,
    /// Units that it accepted from the mint.
    pub minted: u8,
}

/// How the replica of the record's primary stands; as in [`crate::shard::ReplicaLink`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplicaLink {
    /// It follows.
    #[default]
    InStep,
    /// It stands still with this record, and will be promoted.
    Behind(SaleRecord),
    /// It copies. It may be promoted with the record at the fork.
    Copying(SaleRecord),
    /// There is none: the primary was promoted, and the one before has not joined it yet.
    Alone,
}

/// A change that an operator asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Pauses the sale.
    Pause,
    /// Adds a unit; one restock, under one key.
    Restock,
}

/// The changes that operators were told are made, since the record was last lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reported {
    pause: bool,
    restock: bool,
}

/// The record and its replica, the readings of coordinators, the shards, and the answers to operators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    record: SaleRecord,
    link: ReplicaLink,
    backup: SaleRecord,
    known: [SaleRecord; COORDINATORS],
    shards: [Shard; 2],
    creations: u8,
    /// Whether a restock was asked for, by creation.
    restock_asked: [bool; CREATIONS_MAX],
    told: Reported,
    /// A change was recorded, and a failover took it back.
    is_taken_back: bool,
    is_lost: bool,
    failovers_left: u8,
    losses_left: u8,
}

/// Most coordinators of a modelled sale.
pub const COORDINATORS: usize = 3;
/// Each creation has a number of its own, as each has a random id in the protocol.
const CREATIONS_MAX: usize = 2;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An operator creates the sale.
    Create(u8),
    /// An operator asks for a change, for the first time or again.
    Ask(Change),
    /// The operator is told that the change is made.
    Tell(Change),
    /// The replica of the record stops following.
    FallBehind,
    /// It is promoted.
    FailOver,
    /// The demoted primary joins as replica: its copy begins.
    Join,
    /// The replica has its copy.
    FinishCopy,
    /// A backup of the record is taken.
    BackUp,
    /// Primary and replica of the record lose their data.
    LoseRecord,
    /// The backup is restored after that.
    RestoreBackup,
    /// A coordinator reads the record.
    Read(usize),
    /// A coordinator brings a shard to the settings that it knows.
    Configure(usize, usize),
    /// A coordinator mints to a shard what it knows.
    Mint(usize, usize),
    /// A coordinator raises the record's version above that of a shard.
    Raise(usize, usize),
}

/// The sizes and the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    /// Coordinators; at most [`COORDINATORS`].
    pub coordinators: usize,
    /// Failovers of the record's primary.
    pub failovers: u8,
    /// How often both servers of the record lose their data.
    pub losses: u8,
    /// The protection that is missing.
    pub missing: Option<RecordProtection>,
}

impl Model for Records {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { failovers_left: self.failovers, losses_left: self.losses, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.record.creation == 0 {
            let may_create = usize::from(state.creations) < CREATIONS_MAX;
            actions.extend(may_create.then_some(Action::Create(state.creations + 1)));
            actions.extend((state.is_lost && state.backup.creation != 0).then_some(Action::RestoreBackup));
        } else {
            for change in [Change::Pause, Change::Restock] {
                actions.extend([Action::Ask(change), Action::Tell(change)]);
            }
            actions.extend((0..self.coordinators).map(Action::Read));
            if state.losses_left > 0 {
                actions.push(Action::LoseRecord);
                actions.extend((state.backup.creation == 0).then_some(Action::BackUp));
            }
        }
        match state.link {
            ReplicaLink::InStep if state.failovers_left > 0 => actions.push(Action::FallBehind),
            ReplicaLink::Behind(_) | ReplicaLink::Copying(_) if state.failovers_left > 0 => {
                actions.push(Action::FailOver)
            }
            ReplicaLink::Alone => actions.push(Action::Join),
            ReplicaLink::InStep | ReplicaLink::Behind(_) | ReplicaLink::Copying(_) => {}
        }
        actions.extend(matches!(state.link, ReplicaLink::Copying(_)).then_some(Action::FinishCopy));
        for coordinator in
            (0..self.coordinators).filter(|&coordinator| state.known[coordinator].creation != 0)
        {
            for place in 0..2 {
                actions.push(Action::Configure(coordinator, place));
                actions.push(Action::Mint(coordinator, place));
                actions.push(Action::Raise(coordinator, place));
            }
        }
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = *before;
        match action {
            Action::Create(creation) => {
                state.record = SaleRecord { creation, version: 1, ..SaleRecord::default() };
                state.creations = creation;
            }
            Action::Ask(change) => self.ask(&mut state, change),
            Action::Tell(change) => self.tell(&mut state, change),
            Action::FallBehind => state.link = ReplicaLink::Behind(state.record),
            Action::FailOver => Self::fail_over(&mut state),
            Action::Join => state.link = ReplicaLink::Copying(state.record),
            Action::FinishCopy => state.link = ReplicaLink::InStep,
            Action::BackUp => state.backup = state.record,
            Action::LoseRecord => Self::lose(&mut state),
            Action::RestoreBackup => self.restore(&mut state),
            Action::Read(coordinator) => self.read(&mut state, coordinator),
            Action::Configure(coordinator, place) => {
                self.configure(&mut state.shards[place], before.known[coordinator]);
            }
            Action::Mint(coordinator, place) => {
                self.mint(&mut state.shards[place], before.known[coordinator], place);
            }
            Action::Raise(coordinator, place) => self.raise(&mut state, coordinator, place),
        }
        if self.missing.is_none() {
            // Coordinators are alike.
            state.known[..self.coordinators].sort_unstable();
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
