//! What each action does: operators and coordinators by the rules of the protocol, and faults.

use super::{Change, RecordProtection, Records, ReplicaLink, Reported, SaleRecord, Shard, State};

impl Records {
    pub(super) fn has(self, protection: RecordProtection) -> bool {
        self.missing != Some(protection)
    }

    /// Whether a shard takes calls of this creation.
    pub(super) fn is_own(self, shard: &Shard, creation: u8) -> bool {
        shard.made_by != 0 && (shard.made_by == creation || !self.has(RecordProtection::CreationId))
    }

    pub(super) fn ask(self, state: &mut State, change: Change) {
        let record = &mut state.record;
        let is_known = record.holds(change);
        match change {
            Change::Pause if !is_known => record.is_paused = true,
            Change::Restock if !is_known || !self.has(RecordProtection::RestockKeysAreKept) => {
                record.restocked = (record.restocked + 1).min(2);
                state.restock_asked[usize::from(record.creation) - 1] = true;
            }
            _ => return,
        }
        record.version += 1;
    }

    pub(super) fn tell(self, state: &mut State, change: Change) {
        let record = state.record;
        let all_hold = (0..2).all(|place| {
            let shard = &state.shards[place];
            self.is_own(shard, record.creation) && shard.follows(record, place)
        });
        if record.holds(change)
            && state.confirms()
            && (all_hold || !self.has(RecordProtection::EveryShardConfirms))
        {
            match change {
                Change::Pause => state.told.pause = true,
                Change::Restock => state.told.restock = true,
            }
        }
    }

    pub(super) fn read(self, state: &mut State, coordinator: usize) {
        if state.record.creation != 0
            && (state.confirms() || !self.has(RecordProtection::RecordIsDurableFirst))
        {
            state.known[coordinator] = state.record;
        }
    }

    pub(super) fn configure(self, shard: &mut Shard, known: SaleRecord) {
        if shard.made_by == 0 {
            *shard = Shard { made_by: known.creation, ..Shard::default() };
        }
        let replaces_equal = shard.version == known.version && self.has(RecordProtection::ContentIsCompared);
        let is_newer = shard.version < known.version || replaces_equal;
        if self.is_own(shard, known.creation) && (is_newer || !self.has(RecordProtection::OlderIsRefused)) {
            (shard.version, shard.is_paused) = (known.version, known.is_paused);
        }
    }

    pub(super) fn mint(self, shard: &mut Shard, known: SaleRecord, place: usize) {
        if self.is_own(shard, known.creation) {
            shard.minted = shard.minted.max(known.minted_to(place));
        }
    }

    /// Records what the coordinator knows at a version above that of the shard.
    pub(super) fn raise(self, state: &mut State, coordinator: usize, place: usize) {
        let (known, shard) = (state.known[coordinator], &state.shards[place]);
        let is_due = self.is_own(shard, known.creation) && shard.version > known.version;
        let is_based = state.record.version == known.version || !self.has(RecordProtection::BasedOnVersion);
        if is_due && is_based && self.has(RecordProtection::RecordMovesAbove) {
            state.record = SaleRecord { version: shard.version + 1, ..known };
            self.read(state, coordinator);
        }
    }

    /// The state once faults have ended with this record: coordinators read it, and do their work.
    pub(super) fn settled(self, before: &State, record: SaleRecord) -> State {
        let mut state = State { record, link: ReplicaLink::InStep, ..*before };
        for coordinator in (0..self.coordinators).chain(0..self.coordinators) {
            self.read(&mut state, coordinator);
            for place in (0..2).filter(|_| record.creation != 0) {
                self.raise(&mut state, coordinator, place);
                let known = state.known[coordinator];
                self.configure(&mut state.shards[place], known);
                self.mint(&mut state.shards[place], known, place);
            }
        }
        state
    }

    pub(super) fn lose(state: &mut State) {
        (state.record, state.link) = (SaleRecord::default(), ReplicaLink::InStep);
        (state.told, state.is_lost) = (Reported::default(), true);
        state.losses_left -= 1;
    }

    pub(super) fn restore(self, state: &mut State) {
        state.record = state.backup;
        if self.has(RecordProtection::RestoreEndsOldReadings) {
            state.known = Default::default();
        }
    }

    pub(super) fn fail_over(state: &mut State) {
        state.is_taken_back |= state.durable() != state.record;
        (state.record, state.link) = (state.durable(), ReplicaLink::Alone);
        state.failovers_left -= 1;
    }
}

impl SaleRecord {
    /// Units in all.
    pub(super) fn total(self) -> u8 {
        1 + self.restocked
    }

    pub(super) fn minted_to(self, place: usize) -> u8 {
        if place == 0 { 1 } else { self.restocked }
    }

    pub(super) fn holds(self, change: Change) -> bool {
        match change {
            Change::Pause => self.is_paused,
            Change::Restock => self.restocked > 0,
        }
    }
}

impl Shard {
    pub(super) fn follows(&self, record: SaleRecord, place: usize) -> bool {
        (self.version, self.is_paused) == (record.version, record.is_paused)
            && self.minted >= record.minted_to(place)
    }
}

impl State {
    /// Whether a barrier behind the record is confirmed now.
    pub(super) fn confirms(&self) -> bool {
        matches!(self.link, ReplicaLink::InStep | ReplicaLink::Alone)
    }

    /// The record that the next failover leaves.
    pub(super) fn durable(&self) -> SaleRecord {
        match self.link {
            ReplicaLink::Behind(record) | ReplicaLink::Copying(record) => record,
            ReplicaLink::InStep | ReplicaLink::Alone => self.record,
        }
    }
}
