//! The promise, as predicates on a state. They are the invariants that the audit checks on real servers, and
//! properties of the answers that users got, which only a model can see.

use stateright::Property;

use crate::contents::{ShardContents, USERS};
use crate::protocol::Protection;
use crate::recovery::after_recovery;
use crate::sale::SaleModel;
use crate::state::{Channels, State};

/// Each shard: stock = accepted - donated - sold, and none of them is negative.
pub const SHARDS_BALANCE: &str = "the counters of each shard balance";
/// Each channel: donated >= accepted. The same holds for every cumulative value that may still be accepted.
pub const CHANNELS_BALANCE: &str = "no channel gives more than it received";
/// Stock, sold units and tokens in the channels add up to the total.
pub const TOKENS_ARE_CONSERVED: &str = "no token is lost or created";
/// Claims and orders match one to one, with the same order ids.
pub const CLAIMS_ARE_ORDERS: &str = "claims and orders match one to one";
/// No more units are sold than the total.
pub const NO_UNIT_SOLD_TWICE: &str = "no unit is sold twice";
/// No user has two units.
pub const ONE_UNIT_PER_USER: &str = "no user has two units";
/// When a user got the answer that an attempt has a unit, the attempt has it.
pub const PROMISES_HOLD: &str = "a promised unit is a claim";
/// An attempt that has the unit is never answered that another attempt has it.
pub const OWN_UNIT_IS_RECOGNIZED: &str = "an attempt recognizes its own unit";
/// A user who was answered out of stock has no unit, and never has one later.
pub const NO_OWNER_IS_REFUSED: &str = "no user with a unit is refused as out of stock";
/// Out of stock is answered only when all units are sold, and stays true.
pub const OUT_OF_STOCK_IS_TRUE: &str = "out of stock is answered only when all is sold";
/// The audit cannot read everything at one moment, and still reports no violation where none exists.
pub const NO_FALSE_ALARM: &str = "the audit raises no false alarm";
/// The stock is never stuck: after the last fault, users who keep trying buy all of it.
pub const ALL_UNITS_CAN_BE_SOLD: &str = "all units can still be sold";

/// All units are sold after the last failover, and every user with a unit has the answer.
pub const ALL_UNITS_ARE_SOLD: &str = "all is sold and answered after the last failover";
/// A shard sold more than was minted to it.
pub const STOLEN_TOKEN_IS_SOLD: &str = "a stolen token is sold";
/// A failover took a claim back.
pub const CLAIM_IS_LOST: &str = "a claim without an answer is lost";
/// A user was answered out of stock.
pub const OUT_OF_STOCK_IS_ANSWERED: &str = "a user is refused as out of stock";

/// The properties that must always hold, and the situations that the search must reach to be meaningful.
pub(crate) fn all() -> Vec<Property<SaleModel>> {
    vec![
        Property::always(SHARDS_BALANCE, |_, state: &State| state.primaries().all(balances)),
        Property::always(CHANNELS_BALANCE, |_, state: &State| {
            covers(&state.donated(), &state.accepted())
                && covers(&state.donated(), &highest_held_values(state))
        }),
        Property::always(TOKENS_ARE_CONSERVED, |sale: &SaleModel, state: &State| {
            state.stock() + state.sold() + in_flight(state) == sale.total()
        }),
        Property::always(CLAIMS_ARE_ORDERS, |_, state: &State| state.primaries().all(claims_are_orders)),
        Property::always(NO_UNIT_SOLD_TWICE, |sale: &SaleModel, state: &State| state.sold() <= sale.total()),
        Property::always(ONE_UNIT_PER_USER, |_, state: &State| {
            (0..USERS).all(|user| units(state, user) <= 1)
        }),
        Property::always(PROMISES_HOLD, |_, state: &State| {
            (0..USERS).all(|user| promise_is_kept(state, user))
        }),
        Property::always(OWN_UNIT_IS_RECOGNIZED, |_, state: &State| {
            state.reported.iter().all(|reported| !reported.refused_own)
        }),
        Property::always(NO_OWNER_IS_REFUSED, |_, state: &State| {
            (0..USERS).all(|user| !state.reported[user].out_of_stock || state.claim(user).is_none())
        }),
        Property::always(OUT_OF_STOCK_IS_TRUE, |sale: &SaleModel, state: &State| {
            state.sold() == sale.total() || !state.reported.iter().any(|reported| reported.out_of_stock)
        }),
        Property::always(NO_FALSE_ALARM, audit_raises_no_false_alarm),
        Property::always(ALL_UNITS_CAN_BE_SOLD, |sale: &SaleModel, state: &State| {
            after_recovery(sale, state).sold() == sale.total()
        }),
        Property::sometimes(ALL_UNITS_ARE_SOLD, |sale: &SaleModel, state: &State| {
            let all_know = (0..USERS).all(|user| state.reported[user].promised == state.claim(user));
            state.failovers_left == 0 && state.sold() == sale.total() && all_know
        }),
        Property::sometimes(STOLEN_TOKEN_IS_SOLD, |sale: &SaleModel, state: &State| {
            state.primaries().zip(sale.minted).any(|(contents, minted)| contents.sold > minted)
        }),
        Property::sometimes(CLAIM_IS_LOST, |_, state: &State| {
            let stale_primaries =
                state.shards.iter().filter_map(|shard| Some((shard.primary, shard.stale_primary?)));
            stale_primaries
                .into_iter()
                .any(|(primary, stale_primary)| stale_primary.contents.sold > primary.sold)
        }),
        Property::sometimes(OUT_OF_STOCK_IS_ANSWERED, |_, state: &State| {
            state.reported.iter().any(|reported| reported.out_of_stock)
        }),
    ]
}

impl State {
    fn primaries(&self) -> impl Iterator<Item = &ShardContents> {
        self.shards.iter().map(|shard| &shard.primary)
    }
}

fn balances(contents: &ShardContents) -> bool {
    let accepted: i8 = contents.accepted.iter().sum();
    let donated: i8 = contents.donated.iter().sum();
    contents.stock >= 0 && contents.stock == accepted - donated - contents.sold
}

fn claims_are_orders(contents: &ShardContents) -> bool {
    let claimed = contents.claims.iter().flatten().count();
    let match_up = contents.claims.iter().zip(&contents.orders).all(|(claim, orders)| {
        let mut expected = [0; 2];
        claim.iter().for_each(|&attempt| expected[attempt as usize] = 1);
        *orders == expected
    });
    match_up && i8::try_from(claimed) == Ok(contents.sold)
}

fn units(state: &State, user: usize) -> u8 {
    state.primaries().flat_map(|contents| contents.orders[user]).sum()
}

fn promise_is_kept(state: &State, user: usize) -> bool {
    state.reported[user].promised.is_none_or(|promised| state.claim(user) == Some(promised))
}

fn in_flight(state: &State) -> i8 {
    let sum = |channels: Channels| channels.iter().flatten().sum::<i8>();
    let minted: i8 = state.primaries().enumerate().map(|(shard, contents)| contents.accepted[shard]).sum();
    sum(state.donated()) - (sum(state.accepted()) - minted)
}

/// Returns true when each channel received at least as much as it gave. The diagonal is skipped: it holds the mint's
/// tokens, which have no donor.
fn covers(donated: &Channels, accepted: &Channels) -> bool {
    let channel = |(from, to): (usize, usize)| from == to || accepted[from][to] <= donated[from][to];
    (0..donated.len()).flat_map(|from| (0..donated.len()).map(move |to| (from, to))).all(channel)
}

fn highest_held_values(state: &State) -> Channels {
    state.held_values.map(|to| to.map(|values| values.checked_ilog2().unwrap_or(0) as i8))
}

fn audit_raises_no_false_alarm(sale: &SaleModel, state: &State) -> bool {
    let Some(first) = state.audit else { return true };
    match sale.protocol.has(Protection::AuditReadsInFirst) {
        true => covers(&state.donated(), &first),
        false => covers(&first, &state.accepted()),
    }
}
