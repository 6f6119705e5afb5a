//! The promise, as predicates on a state: the invariants that the audit checks on real servers, and what only a
//! model sees, which is everything that anybody was told.

use stateright::Property;

use crate::calm::after_calm;
use crate::contents::{ShardContents, USERS};
use crate::protocol::Protection;
use crate::sale::Sale;
use crate::state::{Channels, State};

/// Per shard stock = in - out - sold, and none of it is negative.
pub const BOOKS_BALANCE: &str = "the books of each shard balance";
/// Per channel out >= in; and so is every value that somebody may still present.
pub const CHANNELS_HOLD: &str = "no channel gives more than went in";
/// Stock, sold and what is in the channels are the total.
pub const TOKENS_ARE_CONSERVED: &str = "no token is lost or made";
/// Claims and orders match one to one, with the same order ids.
pub const CLAIMS_ARE_ORDERS: &str = "claims are orders, one to one";
/// No more is sold than there is.
pub const NO_UNIT_TWICE: &str = "no unit is sold twice";
/// Nobody has two units.
pub const ONE_EACH: &str = "nobody has two units";
/// Whoever was told that an attempt has a unit: it has.
pub const PROMISES_ARE_KEPT: &str = "a promised unit is a claim";
/// An attempt that has the unit is never told that another one has.
pub const OWN_IS_RECOGNISED: &str = "an attempt knows its own unit";
/// Who was told out of stock has no unit, and gets none later that nobody tells of.
pub const NO_BUYER_IS_SENT_AWAY: &str = "nobody with a unit is told out of stock";
/// Out of stock is told only when every unit is sold, and that stays so.
pub const SOLD_OUT_IS_TRUE: &str = "sold out means that all is sold";
/// The audit, which cannot read everything at one moment, finds no fault where there is none.
pub const AUDIT_IS_RIGHT: &str = "the audit raises no false alarm";
/// Whatever happened, the stock is not stuck: once faults end, all of it is sold to those who keep trying.
pub const ALL_CAN_BE_SOLD: &str = "everything can still be sold";

/// All units are sold after the last failover, and everybody who has one knows.
pub const ALL_IS_SOLD: &str = "all is sold and told after the last failover";
/// A shard sold more than was minted to it.
pub const STOLEN_IS_SOLD: &str = "a stolen token is sold";
/// A failover took a claim back.
pub const SALE_IS_LOST: &str = "a sale that nobody was told of is lost";
/// Somebody was told out of stock.
pub const SENT_AWAY: &str = "somebody is told out of stock";

/// Everything that must always hold, and what must be reachable so that it means something.
pub(crate) fn all() -> Vec<Property<Sale>> {
    vec![
        Property::always(BOOKS_BALANCE, |_, state: &State| state.primaries().all(balances)),
        Property::always(CHANNELS_HOLD, |_, state: &State| {
            covers(&state.donated(), &state.accepted()) && covers(&state.donated(), &highest_in_hands(state))
        }),
        Property::always(TOKENS_ARE_CONSERVED, |sale: &Sale, state: &State| {
            state.stock() + state.sold() + in_flight(state) == sale.total()
        }),
        Property::always(CLAIMS_ARE_ORDERS, |_, state: &State| state.primaries().all(claims_are_orders)),
        Property::always(NO_UNIT_TWICE, |sale: &Sale, state: &State| state.sold() <= sale.total()),
        Property::always(ONE_EACH, |_, state: &State| (0..USERS).all(|user| units(state, user) <= 1)),
        Property::always(PROMISES_ARE_KEPT, |_, state: &State| {
            (0..USERS).all(|user| promise_is_kept(state, user))
        }),
        Property::always(OWN_IS_RECOGNISED, |_, state: &State| {
            state.told.iter().all(|told| !told.refused_own)
        }),
        Property::always(NO_BUYER_IS_SENT_AWAY, |_, state: &State| {
            (0..USERS).all(|user| !state.told[user].out_of_stock || state.claim(user).is_none())
        }),
        Property::always(SOLD_OUT_IS_TRUE, |sale: &Sale, state: &State| {
            state.sold() == sale.total() || !state.told.iter().any(|told| told.out_of_stock)
        }),
        Property::always(AUDIT_IS_RIGHT, audit_is_right),
        Property::always(ALL_CAN_BE_SOLD, |sale: &Sale, state: &State| {
            after_calm(sale, state).sold() == sale.total()
        }),
        Property::sometimes(ALL_IS_SOLD, |sale: &Sale, state: &State| {
            let everybody_knows = (0..USERS).all(|user| state.told[user].promised == state.claim(user));
            state.failovers_left == 0 && state.sold() == sale.total() && everybody_knows
        }),
        Property::sometimes(STOLEN_IS_SOLD, |sale: &Sale, state: &State| {
            state.primaries().zip(sale.minted).any(|(books, minted)| books.sold > minted)
        }),
        Property::sometimes(SALE_IS_LOST, |_, state: &State| {
            let zombies = state.shards.iter().filter_map(|shard| Some((shard.primary, shard.zombie?)));
            zombies.into_iter().any(|(primary, zombie)| zombie.books.sold > primary.sold)
        }),
        Property::sometimes(SENT_AWAY, |_, state: &State| state.told.iter().any(|told| told.out_of_stock)),
    ]
}

impl State {
    fn primaries(&self) -> impl Iterator<Item = &ShardContents> {
        self.shards.iter().map(|shard| &shard.primary)
    }
}

fn balances(books: &ShardContents) -> bool {
    let accepted: i8 = books.accepted.iter().sum();
    let donated: i8 = books.donated.iter().sum();
    books.stock >= 0 && books.stock == accepted - donated - books.sold
}

fn claims_are_orders(books: &ShardContents) -> bool {
    let claimed = books.claims.iter().flatten().count();
    let match_up = books.claims.iter().zip(&books.orders).all(|(claim, orders)| {
        let mut expected = [0; 2];
        claim.iter().for_each(|&attempt| expected[attempt as usize] = 1);
        *orders == expected
    });
    match_up && i8::try_from(claimed) == Ok(books.sold)
}

fn units(state: &State, user: usize) -> u8 {
    state.primaries().flat_map(|books| books.orders[user]).sum()
}

fn promise_is_kept(state: &State, user: usize) -> bool {
    state.told[user].promised.is_none_or(|promised| state.claim(user) == Some(promised))
}

fn in_flight(state: &State) -> i8 {
    let sum = |channels: Channels| channels.iter().flatten().sum::<i8>();
    let minted: i8 = state.primaries().enumerate().map(|(shard, books)| books.accepted[shard]).sum();
    sum(state.donated()) - (sum(state.accepted()) - minted)
}

/// Whether each channel got at least as much as it gave. The diagonal is the mint's, which has no giver here.
fn covers(donated: &Channels, accepted: &Channels) -> bool {
    let channel = |(from, to): (usize, usize)| from == to || accepted[from][to] <= donated[from][to];
    (0..donated.len()).flat_map(|from| (0..donated.len()).map(move |to| (from, to))).all(channel)
}

fn highest_in_hands(state: &State) -> Channels {
    state.hands.map(|to| to.map(|values| values.checked_ilog2().unwrap_or(0) as i8))
}

fn audit_is_right(sale: &Sale, state: &State) -> bool {
    let Some(first) = state.audit else { return true };
    match sale.protocol.has(Protection::AuditReadsInFirst) {
        true => covers(&state.donated(), &first),
        false => covers(&first, &state.accepted()),
    }
}
