//! Second model: the record of a sale. Operators write it, coordinators act on it, and a primary with its replica
//! holds it.
//!
//! The sale has two shards. Its creation mints one unit to shard 0, a restock adds one to shard 1, and a pause
//! concerns both. Shards are created while the sale is being created, and sell once it is open. A coordinator keeps its last reading for any length of time, so delayed and repeated calls need no
//! state of their own.
//!
//! A barrier after a write to the record is confirmed when the replica follows, or when no replica exists. The first
//! model shows the rules for that, and the failovers of the shards.
//!
//! A demoted primary has no state: no barrier after a write to it is confirmed, and it loses those writes when it
//! joins.
//!
//! Failovers alone take back only writes that no barrier confirmed. A durable record can still be lost when both of
//! its servers lose their data. Then it may be restored from a backup, or a sale with the same name may be created
//! again. Coordinators refuse that while they see a shard. The model allows it, as if every shard were unreachable at
//! that moment.
//!
//! A shard can be lost in the same way. Its units may have been sold, so none of them may be offered again.

mod display;
mod properties;
mod steps;

pub use properties::{CHANGES_PERSIST, NO_MORE_THAN_RECORDED, NO_MORE_THAN_REQUESTED, NO_STALE_SHARD};
use stateright::{Model, Property};

/// One protection of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordProtection {
    /// A coordinator acts on a record only after a barrier confirmed it.
    RecordIsDurableFirst,
    /// A change is recorded only on top of the version that it is based on.
    BasedOnVersion,
    /// A change is acknowledged to the operator only when every shard holds exactly the recorded settings.
    EveryShardConfirms,
    /// A shard keeps its settings when it receives those of an older version.
    OlderVersionIsRefused,
    /// A shard refuses calls of another creation of the sale.
    CreationId,
    /// The record of an open sale names the incarnations of its shards. A shard that was made again is not used.
    Incarnations,
    /// A shard replaces different settings of the same version.
    ContentIsCompared,
    /// A coordinator raises the record's version above that of a shard that is ahead.
    RecordVersionIsRaised,
    /// A repeated restock is recognized by its key.
    RestockKeysAreKept,
    /// An assumption that no code enforces: after a backup is restored, no coordinator acts on an earlier reading.
    RestoreEndsOldReadings,
}

impl RecordProtection {
    /// Returns the property that breaks without this protection. Others may break too.
    pub const fn keeps(self) -> &'static str {
        match self {
            Self::RecordIsDurableFirst => NO_MORE_THAN_RECORDED,
            Self::BasedOnVersion | Self::EveryShardConfirms | Self::OlderVersionIsRefused => CHANGES_PERSIST,
            Self::RestoreEndsOldReadings => CHANGES_PERSIST,
            Self::CreationId | Self::RestockKeysAreKept | Self::Incarnations => NO_MORE_THAN_REQUESTED,
            Self::ContentIsCompared | Self::RecordVersionIsRaised => NO_STALE_SHARD,
        }
    }
}

/// The record of a sale. Creation 0 means that no record exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SaleRecord {
    /// Number of the creation.
    pub creation: u8,
    /// Counts the changes.
    pub version: u8,
    /// The incarnations of the shards, once the sale is open.
    pub opened: Option<[u8; 2]>,
    /// True while the sale is paused.
    pub is_paused: bool,
    /// Units added by restocks.
    pub restocked: u8,
}

/// A shard of the sale. Creation 0 means that the shard does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Number of the creation that made it.
    pub made_by: u8,
    /// Distinguishes it from the shards that were made before and after it with the same keys.
    pub incarnation: u8,
    /// True while its settings are those of an open sale.
    pub is_open: bool,
    /// Version of its settings.
    pub version: u8,
    /// True while the shard is paused.
    pub is_paused: bool,
    /// Units accepted from the mint.
    pub minted: u8,
}

/// State of the replica of the record's primary, as in [`crate::shard::ReplicaLink`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReplicaLink {
    /// Follows, and has every write.
    #[default]
    InStep,
    /// Stopped at this record, and will be promoted with it.
    Behind(SaleRecord),
    /// Copies from the primary. May be promoted with the record at the fork.
    Copying(SaleRecord),
    /// No replica: the primary was promoted, and its predecessor has not joined yet.
    Alone,
}

/// A change requested by an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Pauses the sale.
    Pause,
    /// Adds a unit. There is one restock, with one key.
    Restock,
}

/// The changes acknowledged to operators since the record was last lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ReportedChanges {
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
    /// How many times each shard was made.
    incarnations: [u8; 2],
    /// Units of the open shards that were lost, by creation.
    lost_units: [u8; CREATIONS_MAX],
    creations: u8,
    /// True when a restock was requested, by creation.
    restock_requested: [bool; CREATIONS_MAX],
    reported: ReportedChanges,
    /// True when a change was recorded and a failover took it back.
    is_taken_back: bool,
    is_lost: bool,
    failovers_left: u8,
    losses_left: u8,
    shard_losses_left: u8,
}

/// Maximum number of coordinators of a modelled sale.
pub const COORDINATORS: usize = 3;
/// Maximum number of creations. Each has its own number, as each has a random id in the protocol.
const CREATIONS_MAX: usize = 2;

/// One step of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An operator creates the sale.
    Create(u8),
    /// An operator requests a change, for the first time or again.
    Request(Change),
    /// The change is acknowledged to the operator.
    Acknowledge(Change),
    /// The replica of the record stops following.
    FallBehind,
    /// The replica of the record is promoted.
    FailOver,
    /// The demoted primary joins as replica and begins its copy.
    Join,
    /// The replica finishes its copy.
    FinishCopy,
    /// A backup of the record is taken.
    BackUp,
    /// Primary and replica of the record lose their data.
    LoseRecord,
    /// The backup is restored after that.
    RestoreBackup,
    /// A coordinator reads the record.
    Read(usize),
    /// A coordinator brings a shard to the settings that it read.
    Configure(usize, usize),
    /// A coordinator mints to a shard according to its reading.
    Mint(usize, usize),
    /// A coordinator opens the sale that it read, because every shard holds its units.
    Open(usize),
    /// Primary and replica of a shard lose their data.
    LoseShard(usize),
    /// A coordinator raises the record's version above that of a shard.
    Raise(usize, usize),
}

/// Sizes of the model, and the missing protection.
#[derive(Clone, Copy, Debug)]
pub struct RecordsModel {
    /// Number of coordinators, at most [`COORDINATORS`].
    pub coordinators: usize,
    /// Number of failovers of the record's primary.
    pub failovers: u8,
    /// Number of times that both servers of the record lose their data.
    pub losses: u8,
    /// Number of times that both servers of a shard lose their data.
    pub shard_losses: u8,
    /// The missing protection.
    pub missing: Option<RecordProtection>,
}

impl Model for RecordsModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            failovers_left: self.failovers,
            losses_left: self.losses,
            shard_losses_left: self.shard_losses,
            ..State::default()
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.record.creation == 0 {
            let may_create = usize::from(state.creations) < CREATIONS_MAX;
            actions.extend(may_create.then_some(Action::Create(state.creations + 1)));
            actions.extend((state.is_lost && state.backup.creation != 0).then_some(Action::RestoreBackup));
        } else {
            for change in [Change::Pause, Change::Restock] {
                actions.extend([Action::Request(change), Action::Acknowledge(change)]);
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
                actions.push(Action::FailOver);
            }
            ReplicaLink::Alone => actions.push(Action::Join),
            ReplicaLink::InStep | ReplicaLink::Behind(_) | ReplicaLink::Copying(_) => {}
        }
        actions.extend(matches!(state.link, ReplicaLink::Copying(_)).then_some(Action::FinishCopy));
        if state.shard_losses_left > 0 {
            actions.extend((0..2).filter(|&index| state.shards[index].made_by != 0).map(Action::LoseShard));
        }
        for coordinator in
            (0..self.coordinators).filter(|&coordinator| state.known[coordinator].creation != 0)
        {
            actions.push(Action::Open(coordinator));
            for index in 0..2 {
                actions.push(Action::Configure(coordinator, index));
                actions.push(Action::Mint(coordinator, index));
                actions.push(Action::Raise(coordinator, index));
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
            Action::Request(change) => self.request(&mut state, change),
            Action::Acknowledge(change) => self.report(&mut state, change),
            Action::FallBehind => state.link = ReplicaLink::Behind(state.record),
            Action::FailOver => Self::fail_over(&mut state),
            Action::Join => state.link = ReplicaLink::Copying(state.record),
            Action::FinishCopy => state.link = ReplicaLink::InStep,
            Action::BackUp => state.backup = state.record,
            Action::LoseRecord => Self::lose(&mut state),
            Action::RestoreBackup => self.restore(&mut state),
            Action::Read(coordinator) => self.read(&mut state, coordinator),
            Action::Configure(coordinator, index) => {
                self.configure(&mut state, before.known[coordinator], index);
            }
            Action::Mint(coordinator, index) => {
                self.mint(&mut state.shards[index], before.known[coordinator], index);
            }
            Action::Open(coordinator) => self.open(&mut state, coordinator),
            Action::LoseShard(index) => Self::lose_shard(&mut state, index),
            Action::Raise(coordinator, index) => self.raise(&mut state, coordinator, index),
        }
        if self.missing.is_none() {
            // Coordinators are interchangeable.
            state.known[..self.coordinators].sort_unstable();
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}
