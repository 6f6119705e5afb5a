//! The promises of a record to operators and buyers, as predicates on a state.

use stateright::Property;

use super::{Records, Shard, State};

/// Units that the shards of a sale offer never exceed the total of its record, also after a failover takes a restock back.
pub const NO_MORE_THAN_RECORDED: &str = "no more is offered than the recorded total";
/// Shards that take calls of a creation offer no more than was asked for: its own total, and each restock once.
pub const NO_MORE_THAN_ASKED: &str = "no more is offered than operators asked for";
/// A change that an operator was told is made is in force, and no failover takes it back.
pub const CHANGES_STAY: &str = "an acknowledged change stays";
/// Once faults end, each shard holds what the record says.
pub const NO_STATE_IS_LEFT: &str = "no shard keeps a state that no record has";

const CHANGE_IS_TAKEN_BACK: &str = "a failover takes back a change that no operator was told of";
const BOTH_ARE_TOLD: &str = "both changes are acknowledged after the last failover";
const SHARD_IS_AHEAD: &str = "a shard is ahead of the record";
const CONTENTS_DIFFER: &str = "a shard has other settings of the record's version";
const ANOTHER_IS_MET: &str = "a creation meets a shard of another";
const RESTOCK_IS_AHEAD: &str = "shards have units of a restock that the record lost";

/// Properties that always hold. Reachability is checked for the whole protocol only.
pub(super) fn all(records: &Records) -> Vec<Property<Records>> {
    let mut properties = vec![
        Property::always(NO_MORE_THAN_RECORDED, |records: &Records, state: &State| {
            // Units that are offered stay when a backup is restored from before their restock.
            state.is_lost || offered(records, state, state.record.creation) <= state.record.total()
        }),
        Property::always(NO_MORE_THAN_ASKED, |records: &Records, state: &State| {
            let creation = state.record.creation;
            let asked = |creation: u8| 1 + u8::from(state.restock_asked[usize::from(creation) - 1]);
            creation == 0 || offered(records, state, creation) <= asked(creation)
        }),
        Property::always(CHANGES_STAY, changes_stay),
        Property::always(NO_STATE_IS_LEFT, |records: &Records, state: &State| {
            [state.record, state.durable()].into_iter().all(|record| {
                let state = records.settled(state, record);
                let own = |&place: &usize| records.is_own(&state.shards[place], state.record.creation);
                (0..2).filter(own).all(|place| state.shards[place].follows(state.record, place))
            })
        }),
    ];
    if records.missing.is_none() {
        properties.push(both_are_told());
        properties.extend((records.failovers > 0).then(change_is_taken_back));
        properties.extend((records.losses > 0).then(reachable_by_losses).into_iter().flatten());
    }
    properties
}

fn both_are_told() -> Property<Records> {
    Property::sometimes(BOTH_ARE_TOLD, |_, state: &State| {
        state.told.pause && state.told.restock && state.failovers_left == 0
    })
}

fn change_is_taken_back() -> Property<Records> {
    Property::sometimes(CHANGE_IS_TAKEN_BACK, |_, state: &State| state.is_taken_back)
}

fn reachable_by_losses() -> Vec<Property<Records>> {
    vec![
        Property::sometimes(SHARD_IS_AHEAD, |_, state: &State| {
            own_shards(state).any(|shard| shard.version > state.record.version)
        }),
        Property::sometimes(CONTENTS_DIFFER, |_, state: &State| {
            let record = state.record;
            own_shards(state)
                .any(|shard| shard.version == record.version && shard.is_paused != record.is_paused)
        }),
        Property::sometimes(ANOTHER_IS_MET, |_, state: &State| {
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

/// Units in the shards that take calls of a creation. Without a record, none is sold.
fn offered(records: &Records, state: &State, creation: u8) -> u8 {
    let own = state.shards.iter().filter(|shard| creation != 0 && records.is_own(shard, creation));
    own.map(|shard| shard.minted).sum()
}

/// While no record was lost, at once; after a loss, once coordinators have read what was restored.
fn changes_stay(records: &Records, state: &State) -> bool {
    let now = if state.is_lost { records.settled(state, state.record) } else { *state };
    let pause_stays = now.record.is_paused && now.shards.iter().all(|shard| shard.is_paused);
    let restock_stays = now.record.restocked > 0 && now.shards[1].minted > 0;
    (!state.told.pause || pause_stays) && (!state.told.restock || restock_stays)
}
