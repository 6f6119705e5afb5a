//! Effects of actions: operators and coordinators follow the rules of the protocol, and faults happen.

use super::{Change, RecordProtection, RecordsModel, ReplicaLink, ReportedChanges, SaleRecord, Shard, State};

impl RecordsModel {
    pub(super) fn has(self, protection: RecordProtection) -> bool {
        self.missing != Some(protection)
    }

    /// Returns true when a shard accepts calls that are made from this record.
    pub(super) fn is_own(self, shard: &Shard, record: SaleRecord, index: usize) -> bool {
        let is_opened = record.opened.is_none_or(|opened| opened[index] == shard.incarnation);
        shard.made_by != 0
            && (shard.made_by == record.creation || !self.has(RecordProtection::CreationId))
            && (is_opened || !self.has(RecordProtection::Incarnations))
    }

    pub(super) fn request(self, state: &mut State, change: Change) {
        let record = &mut state.record;
        if record.opened.is_none() {
            return;
        }
        let is_known = record.holds(change);
        match change {
            Change::Pause if !is_known => record.is_paused = true,
            Change::Restock if !is_known || !self.has(RecordProtection::RestockKeysAreKept) => {
                record.restocked = (record.restocked + 1).min(2);
                state.restock_requested[usize::from(record.creation) - 1] = true;
            }
            _ => return,
        }
        record.version += 1;
    }

    pub(super) fn report(self, state: &mut State, change: Change) {
        let record = state.record;
        let all_hold = (0..2).all(|index| {
            let shard = &state.shards[index];
            self.is_own(shard, record, index) && shard.follows(record, index)
        });
        if record.holds(change)
            && state.confirms()
            && (all_hold || !self.has(RecordProtection::EveryShardConfirms))
        {
            match change {
                Change::Pause => state.reported.pause = true,
                Change::Restock => state.reported.restock = true,
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

    /// Only a sale that is being created makes shards. The call may come late.
    pub(super) fn configure(self, state: &mut State, known: SaleRecord, index: usize) {
        let shard = &mut state.shards[index];
        if shard.made_by == 0 && known.opened.is_none() {
            state.incarnations[index] += 1;
            let incarnation = state.incarnations[index];
            *shard = Shard { made_by: known.creation, incarnation, ..Shard::default() };
        }
        let replaces_equal = shard.version == known.version && self.has(RecordProtection::ContentIsCompared);
        let is_newer = shard.version < known.version || replaces_equal;
        if self.is_own(shard, known, index)
            && (is_newer || !self.has(RecordProtection::OlderVersionIsRefused))
        {
            (shard.version, shard.is_paused) = (known.version, known.is_paused);
            shard.is_open = known.opened.is_some();
        }
    }

    pub(super) fn mint(self, shard: &mut Shard, known: SaleRecord, index: usize) {
        if self.is_own(shard, known, index) {
            shard.minted = shard.minted.max(known.minted_to(index));
        }
    }

    /// Records that the sale is open, with the shards that hold its units.
    pub(super) fn open(self, state: &mut State, coordinator: usize) {
        let (known, shards) = (state.known[coordinator], &state.shards);
        let holds =
            |index: usize| self.is_own(&shards[index], known, index) && shards[index].follows(known, index);
        if known.opened.is_none() && holds(0) && holds(1) && self.is_based_on(state, known) {
            let opened = Some(state.shards.map(|shard| shard.incarnation));
            state.record = SaleRecord { version: known.version + 1, opened, ..known };
            self.read(state, coordinator);
        }
    }

    /// Returns true when a change that is based on this reading is recorded.
    fn is_based_on(self, state: &State, known: SaleRecord) -> bool {
        (state.record.creation, state.record.version) == (known.creation, known.version)
            || !self.has(RecordProtection::BasedOnVersion)
    }

    /// Records the coordinator's reading at a version above that of the shard.
    pub(super) fn raise(self, state: &mut State, coordinator: usize, index: usize) {
        let (known, shard) = (state.known[coordinator], &state.shards[index]);
        let is_due = self.is_own(shard, known, index) && shard.version > known.version;
        if is_due && self.is_based_on(state, known) && self.has(RecordProtection::RecordVersionIsRaised) {
            state.record = SaleRecord { version: shard.version + 1, ..known };
            self.read(state, coordinator);
        }
    }

    /// Returns the state after the last fault, with this record: coordinators read it and do their work.
    pub(super) fn settled(self, before: &State, record: SaleRecord) -> State {
        let mut state = State { record, link: ReplicaLink::InStep, ..*before };
        for coordinator in (0..self.coordinators).chain(0..self.coordinators) {
            self.read(&mut state, coordinator);
            for index in (0..2).filter(|_| record.creation != 0) {
                self.raise(&mut state, coordinator, index);
                let known = state.known[coordinator];
                self.configure(&mut state, known, index);
                self.mint(&mut state.shards[index], known, index);
            }
        }
        state
    }

    pub(super) fn lose(state: &mut State) {
        (state.record, state.link) = (SaleRecord::default(), ReplicaLink::InStep);
        (state.reported, state.is_lost) = (ReportedChanges::default(), true);
        state.losses_left -= 1;
    }

    pub(super) fn lose_shard(state: &mut State, index: usize) {
        let shard = std::mem::take(&mut state.shards[index]);
        if shard.is_open {
            state.lost_units[usize::from(shard.made_by) - 1] += shard.minted;
        }
        state.shard_losses_left -= 1;
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
    /// Total units.
    pub(super) fn total(self) -> u8 {
        1 + self.restocked
    }

    pub(super) fn minted_to(self, index: usize) -> u8 {
        if index == 0 { 1 } else { self.restocked }
    }

    pub(super) fn holds(self, change: Change) -> bool {
        match change {
            Change::Pause => self.is_paused,
            Change::Restock => self.restocked > 0,
        }
    }
}

impl Shard {
    pub(super) fn follows(&self, record: SaleRecord, index: usize) -> bool {
        (self.version, self.is_paused, self.is_open)
            == (record.version, record.is_paused, record.opened.is_some())
            && self.minted >= record.minted_to(index)
    }
}

impl State {
    /// Returns true when a barrier after a write to the record is confirmed now.
    pub(super) fn confirms(&self) -> bool {
        matches!(self.link, ReplicaLink::InStep | ReplicaLink::Alone)
    }

    /// The record that remains after the next failover.
    pub(super) fn durable(&self) -> SaleRecord {
        match self.link {
            ReplicaLink::Behind(record) | ReplicaLink::Copying(record) => record,
            ReplicaLink::InStep | ReplicaLink::Alone => self.record,
        }
    }
}
