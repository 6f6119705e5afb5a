//! The promises of the record to operators and buyers, as predicates on a state.

use stateright::Property;

use super::{RecordsModel, SaleRecord, Shard, State};

/// The units offered by the shards of a sale never exceed the total of its record, also after a failover took a
/// restock back.
pub const NO_MORE_THAN_RECORDED: &str = "no more is offered than the recorded total";
/// The shards that accept calls of a creation offer no more than was requested: its own total, and each restock once.
pub const NO_MORE_THAN_REQUESTED: &str = "no more is offered than operators requested";
/// An acknowledged change is in force, and no failover takes it back.
pub const CHANGES_PERSIST: &str = "an acknowledged change persists";
/// After the last fault, each shard holds the recorded settings.
pub const NO_STALE_SHARD: &str = "no shard keeps a state that no record has";

const CHANGE_IS_TAKEN_BACK: &str = "a failover takes back an unacknowledged change";
const BOTH_ARE_ACKNOWLEDGED: &str = "both changes are acknowledged after the last failover";
const SHARD_IS_AHEAD: &str = "a shard is ahead of the record";
const CONTENTS_DIFFER: &str = "a shard has other settings of the record's version";
const OTHER_CREATION_IS_MET: &str = "a creation meets a shard of another creation";
const SHARD_IS_MADE_AGAIN: &str = "a shard that was lost after the opening is made and filled again";
const RESTOCK_IS_AHEAD: &str = "shards have units of a restock that the record lost";

/// Returns the properties that always hold. For the complete protocol, also the situations that must be reachable.
pub(super) fn all(records: &RecordsModel) -> Vec<Property<RecordsModel>> {
    let mut properties = vec![
        Property::always(NO_MORE_THAN_RECORDED, |records: &RecordsModel, state: &State| {
            // Offered units stay when a backup from before their restock is restored.
            state.is_lost || offered(records, state) <= state.record.total()
        }),
        Property::always(NO_MORE_THAN_REQUESTED, |records: &RecordsModel, state: &State| {
            let creation = state.record.creation;
            let requested = |creation: u8| 1 + u8::from(state.restock_requested[usize::from(creation) - 1]);
            creation == 0 || offered(records, state) <= requested(creation)
        }),
        Property::always(CHANGES_PERSIST, changes_persist),
        Property::always(NO_STALE_SHARD, |records: &RecordsModel, state: &State| {
            [state.record, state.durable()].into_iter().all(|record| {
                let state = records.settled(state, record);
                let own = |&index: &usize| records.is_own(&state.shards[index], state.record, index);
                (0..2).filter(own).all(|index| state.shards[index].follows(state.record, index))
            })
        }),
    ];
    if records.missing.is_none() {
        properties.push(both_are_acknowledged());
        properties.extend((records.failovers > 0).then(change_is_taken_back));
        properties.extend((records.losses > 0).then(reachable_by_losses).into_iter().flatten());
        properties.extend((records.shard_losses > 0).then(shard_is_made_again));
    }
    properties
}

fn both_are_acknowledged() -> Property<RecordsModel> {
    Property::sometimes(BOTH_ARE_ACKNOWLEDGED, |_, state: &State| {
        state.reported.pause && state.reported.restock && state.failovers_left == 0
    })
}

fn change_is_taken_back() -> Property<RecordsModel> {
    Property::sometimes(CHANGE_IS_TAKEN_BACK, |_, state: &State| state.is_taken_back)
}

fn shard_is_made_again() -> Property<RecordsModel> {
    Property::sometimes(SHARD_IS_MADE_AGAIN, |_, state: &State| {
        state.lost_units[0] > 0 && state.shards[0].incarnation == 2 && state.shards[0].minted > 0
    })
}

fn reachable_by_losses() -> Vec<Property<RecordsModel>> {
    vec![
        Property::sometimes(SHARD_IS_AHEAD, |_, state: &State| {
            own_shards(state).any(|shard| shard.version > state.record.version)
        }),
        Property::sometimes(CONTENTS_DIFFER, |_, state: &State| {
            let record = state.record;
            own_shards(state)
                .any(|shard| shard.version == record.version && shard.is_paused != record.is_paused)
        }),
        Property::sometimes(OTHER_CREATION_IS_MET, |_, state: &State| {
            let creation = state.record.creation;
            creation != 0 && state.shards.iter().any(|shard| ![0, creation].contains(&shard.made_by))
        }),
        Property::sometimes(RESTOCK_IS_AHEAD, |_, state: &State| {
            own_shards(state).map(|shard| shard.minted).sum::<u8>() > state.record.total()
        }),
    ]
}

fn own_shards(state: &State) -> impl Iterator<Item = &Shard> {
    state.shards.iter().filter(|shard| shard.made_by != 0 && shard.made_by == state.record.creation)
}

/// Counts the units in the shards that accept calls for the recorded sale, and those that were lost: all of them may
/// have been sold. Without a record no units are sold.
fn offered(records: &RecordsModel, state: &State) -> u8 {
    let SaleRecord { creation, .. } = state.record;
    if creation == 0 {
        return 0;
    }
    let own = (0..2).filter(|&index| records.is_own(&state.shards[index], state.record, index));
    own.map(|index| state.shards[index].minted).sum::<u8>() + state.lost_units[usize::from(creation) - 1]
}

/// Checked in every state while no record was lost. After a loss, checked once coordinators have read the restored
/// record. A shard that is lost sells nothing.
fn changes_persist(records: &RecordsModel, state: &State) -> bool {
    let now = if state.is_lost { records.settled(state, state.record) } else { *state };
    let is_gone =
        |index: usize| records.shard_losses > 0 && !records.is_own(&now.shards[index], now.record, index);
    let pause_stays =
        now.record.is_paused && (0..2).all(|index| is_gone(index) || now.shards[index].is_paused);
    let restock_stays = now.record.restocked > 0 && (is_gone(1) || now.shards[1].minted > 0);
    (!state.reported.pause || pause_stays) && (!state.reported.restock || restock_stays)
}
