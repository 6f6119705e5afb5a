//! The record of a sale on a replicated shard of its own: operators write it, a coordinator reads it and acts on shards.
//!
//! The restock of operator `n` is bit `n` of the content, and goes to shard `n`. A creation writes version 1.

use stateright::{Model, Property};

/// Restocked units never exceed the total that a failover cannot take back.
pub const TOTAL_IS_DURABLE: &str = "no more is minted than the durable total";
/// An acknowledged change is in the durable record.
pub const CHANGES_STAY: &str = "an acknowledged change stays";
/// After faults end, every shard of the sale holds the content of the record.
pub const SHARDS_FOLLOW: &str = "every shard holds what the record says";
/// A shard is used only by the sale that created it.
pub const SHARDS_ARE_OWN: &str = "no shard of another creation is adopted";

/// One protection of the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// A record is adopted only behind a barrier.
    RecordIsDurableFirst,
    /// A shard of another creation is refused.
    CreationId,
    /// Equal versions with different content are put right.
    ContentIsCompared,
    /// The record's version moves above a shard that is ahead.
    RecordMovesAbove,
    /// A repeated restock adds nothing.
    RestockKeysAreKept,
}

/// A record, and what a shard holds of it. Creation 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Record {
    /// Which creation of the sale.
    pub creation: u8,
    /// Config version.
    pub version: u8,
    /// The changes that it holds, one bit each.
    pub content: u8,
}

/// A shard of the sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shard {
    /// Its configuration.
    pub config: Record,
    /// The creation that made it.
    pub made_by: u8,
    /// Restocked units.
    pub minted: u8,
}

/// The record, its replica where that fell behind, the coordinator's view, and the shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    record: Record,
    behind: Option<Record>,
    adopted: Record,
    shards: [Shard; 2],
    acknowledged: u8,
    failovers: u8,
    is_restored: bool,
}

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An operator creates the sale.
    Create(u8),
    /// An operator writes or repeats a change.
    Write(u8),
    /// The replica of the record stops following.
    FallBehind,
    /// It is promoted, and the old primary joins it.
    FailOver,
    /// The record's shard is lost, and an old backup, or nothing, is restored.
    Restore(bool),
    /// The coordinator reads the record.
    Adopt,
    /// The coordinator configures a shard, or raises the record above it.
    Configure(usize),
    /// The coordinator mints the restock of a shard.
    Mint(usize),
}

/// The sizes and the protocol.
#[derive(Clone, Copy, Debug)]
pub struct Records {
    /// Failovers of the record's shard.
    pub failovers: u8,
    /// The protection that is missing.
    pub missing: Option<Protection>,
}

impl Records {
    fn has(self, protection: Protection) -> bool {
        self.missing != Some(protection)
    }

    fn configure(self, state: &mut State, place: usize) {
        let (adopted, shard) = (state.adopted, &mut state.shards[place]);
        if shard.made_by == 0 {
            *shard = Shard { config: adopted, made_by: adopted.creation, minted: 0 };
        }
        if shard.config.creation != adopted.creation {
            if !self.has(Protection::CreationId) {
                shard.config = adopted;
            }
            return;
        }
        let differs = shard.config.content != adopted.content;
        let is_equal = shard.config.version == adopted.version;
        if shard.config.version < adopted.version
            || is_equal && differs && self.has(Protection::ContentIsCompared)
        {
            shard.config = adopted;
        } else if shard.config.version > adopted.version
            && state.record == adopted
            && self.has(Protection::RecordMovesAbove)
        {
            state.record.version = shard.config.version + 1;
        }
    }

    fn mint(self, shard: &mut Shard, adopted: Record, place: usize) {
        let is_due = shard.made_by == adopted.creation && adopted.content & 1 << place != 0;
        if is_due && (shard.minted == 0 || !self.has(Protection::RestockKeysAreKept)) {
            shard.minted = (shard.minted + 1).min(2);
        }
    }

    fn settled(self, before: &State) -> State {
        let mut state = *before;
        state.record = durable(before);
        state.behind = None;
        for _ in 0..3 {
            if state.record.creation != 0 {
                state.adopted = state.record;
                (0..2).for_each(|place| self.configure(&mut state, place));
            }
        }
        state
    }
}

/// The record that the next failover leaves.
fn durable(state: &State) -> Record {
    state.behind.unwrap_or(state.record)
}

impl Model for Records {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![State { failovers: self.failovers, ..State::default() }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let all = [Action::Create(1), Action::Create(2), Action::Write(0), Action::Write(1), Action::Adopt];
        actions.extend(all);
        actions.extend([Action::FallBehind, Action::FailOver]);
        if !state.is_restored {
            actions.extend([Action::Restore(true), Action::Restore(false)]);
        }
        actions.extend((0..2).flat_map(|place| [Action::Configure(place), Action::Mint(place)]));
    }

    fn next_state(&self, before: &State, action: Action) -> Option<State> {
        let mut state = *before;
        match action {
            Action::Create(creation) if state.record.creation == 0 => {
                state.record = Record { creation, version: 1, content: 0 };
            }
            Action::Write(change) if state.record.creation != 0 => {
                if state.record.content & 1 << change == 0 {
                    state.record.content |= 1 << change;
                    state.record.version += 1;
                }
                if state.behind.is_none() {
                    state.acknowledged |= 1 << change;
                }
            }
            Action::FallBehind if state.behind.is_none() && state.failovers > 0 => {
                state.behind = Some(state.record);
            }
            Action::FailOver => {
                state.record = state.behind.take()?;
                state.failovers -= 1;
            }
            Action::Restore(has_backup) if state.record.creation != 0 => {
                let creation = state.record.creation;
                state.record =
                    if has_backup { Record { creation, version: 1, content: 0 } } else { Record::default() };
                (state.behind, state.acknowledged, state.is_restored) = (None, 0, true);
            }
            Action::Adopt if state.record.creation != 0 => {
                if state.behind.is_none() || !self.has(Protection::RecordIsDurableFirst) {
                    state.adopted = state.record;
                }
            }
            Action::Configure(place) if state.adopted.creation != 0 => self.configure(&mut state, place),
            Action::Mint(place) if state.adopted.creation != 0 => {
                self.mint(&mut state.shards[place], state.adopted, place);
            }
            _ => return None,
        }
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(TOTAL_IS_DURABLE, |_, state: &State| {
                let minted: u8 = state.shards.iter().map(|shard| shard.minted).sum();
                state.is_restored || u32::from(minted) <= durable(state).content.count_ones()
            }),
            Property::always(CHANGES_STAY, |_, state: &State| {
                state.acknowledged & !durable(state).content == 0
            }),
            Property::always(SHARDS_FOLLOW, |records: &Self, state: &State| {
                let state = records.settled(state);
                let own =
                    |shard: &&Shard| state.record.creation != 0 && shard.made_by == state.record.creation;
                state.shards.iter().filter(own).all(|shard| shard.config.content == state.record.content)
            }),
            Property::always(SHARDS_ARE_OWN, |_, state: &State| {
                state.shards.iter().all(|shard| shard.config.creation == shard.made_by)
            }),
        ]
    }
}
