//! The audit: reads a whole sale and holds it against the promise.
//!
//! Everything is read in an order that makes the checks sound while the sale goes on: claims lie between two
//! readings of the orders, all `in` counters are read before all `out` counters, and the record is read last: what an
//! operator changes is recorded before any shard follows. Reads go page by page, so that a large audit does not hold
//! Redis up.
//!
//! It proves that what Redis holds is consistent: no unit is claimed twice, no token came from nowhere, shards and
//! record agree. It cannot see what Redis no longer holds: a purchase that was acknowledged and lost with its claim
//! and its order leaves books that add up. Only a journal that buyers keep shows that.

use std::collections::HashMap;

use futures::future::try_join_all;
use redis::{Cmd, Value, from_redis_value};
use serde::{Deserialize, Serialize};

use crate::calls::{Call, CallError, Claim, Level, Recall, SaleRecord, TokenSource};
use crate::cluster::Cluster;
use crate::ids::{OrderId, ShardId, UserId};
use crate::layout::{SaleKeys, Shard, Slot};
use crate::sale::Sale;
use crate::snapshot::read_levels;

/// Claims or orders in one read: about a millisecond of Redis.
const PAGE: usize = 1_000;
/// Entries of the order stream in one read: an entry holds up to 64 orders.
const ENTRIES_PER_PAGE: usize = PAGE / 16;
/// Violations that are spelled out; the rest is counted. A broken sale could have one for each of its buyers.
const VIOLATIONS_LISTED_MAX: usize = 100;

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// Whether every invariant holds.
    pub ok: bool,
    /// Each invariant that does not, in words.
    pub violations: Vec<String>,
    /// Units of the sale in all.
    pub total: u64,
    /// Units sold, by the shards' books.
    pub sold: u64,
    /// Tokens lying in shards.
    pub stock: u64,
    /// Tokens in channels.
    pub in_flight: u64,
    /// Claims in all shards.
    pub claims: u64,
    /// Orders in all streams.
    pub orders: u64,
    /// Users with a claim in more than one shard.
    pub buyers_twice: u64,
    /// Claims outside the user's home shard.
    pub stray_claims: u64,
}

/// Why there is no audit.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A shard cannot be read.
    #[error("shard {shard} could not be audited: {error}")]
    Shard {
        /// The shard.
        shard: ShardId,
        /// Why.
        error: CallError,
    },
    /// The record cannot be read.
    #[error("the record could not be audited: {0}")]
    Record(CallError),
    /// The record is gone, or became that of another sale of this name.
    #[error("the record was lost or replaced meanwhile")]
    Replaced,
}

/// All of a shard that the audit looks at.
#[derive(Clone, Debug, Default)]
pub struct ShardContents {
    /// Its level before anything else was read.
    pub before: Level,
    /// All claims.
    pub claims: HashMap<UserId, Claim>,
    /// All orders, with the number of their entry. Read after the claims.
    pub orders: Vec<Order>,
    /// Its level after everything else, and after `before` of every other shard.
    pub after: Level,
}

/// An order as it stands in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// The number of its entry.
    pub seq: u64,
    /// Who bought.
    pub user: UserId,
    /// The claim it goes with.
    pub claim: Claim,
}

/// Reads the whole sale and checks it.
pub async fn audit(cluster: &Cluster, sale: &Sale) -> Result<AuditReport, AuditError> {
    let unreadable = |shard| move |error| AuditError::Shard { shard, error };
    let before = levels(cluster, sale).await?;
    let read = |(shard, before)| async move {
        let claims = read_claims(cluster, shard).await.map_err(unreadable(shard.id))?;
        let orders = read_orders(cluster, shard).await.map_err(unreadable(shard.id))?;
        Ok(ShardContents { before, claims, orders, after: Level::default() })
    };
    let mut books = try_join_all(sale.shards().iter().zip(before).map(read)).await?;
    for (books, after) in books.iter_mut().zip(levels(cluster, sale).await?) {
        books.after = after;
    }
    let record =
        cluster.read(Recall { keys: &SaleKeys::new(sale.id()) }).await.map_err(AuditError::Record)?;
    let SaleRecord { config, mint } = record.ok_or(AuditError::Replaced)?;
    let recorded = sale.at(config).ok().filter(|recorded| recorded.has_layout_of(sale));
    Ok(check(&recorded.ok_or(AuditError::Replaced)?, &mint, &books))
}

async fn levels(cluster: &Cluster, sale: &Sale) -> Result<Vec<Level>, AuditError> {
    let levels = read_levels(cluster, sale).await;
    let named = |(shard, level): (&Shard, Result<_, _>)| {
        level.map_err(|error| AuditError::Shard { shard: shard.id, error })
    };
    sale.shards().iter().zip(levels).map(named).collect()
}

async fn read_claims(cluster: &Cluster, shard: &Shard) -> Result<HashMap<UserId, Claim>, CallError> {
    let mut claims = HashMap::new();
    let mut cursor = 0;
    loop {
        let (next, page) = cluster.read(ScanClaims { shard, cursor }).await?;
        claims.extend(page);
        cursor = next;
        if cursor == 0 {
            return Ok(claims);
        }
    }
}

async fn read_orders(cluster: &Cluster, shard: &Shard) -> Result<Vec<Order>, CallError> {
    let mut orders: Vec<Order> = Vec::new();
    loop {
        let after = orders.last().map_or(0, |order| order.seq);
        let page = cluster.read(ReadOrders { shard, after }).await?;
        if page.is_empty() {
            return Ok(orders);
        }
        orders.extend(page);
    }
}

/// Reads a page of a shard's claims.
struct ScanClaims<'a> {
    shard: &'a Shard,
    cursor: u64,
}

impl Call for ScanClaims<'_> {
    type Answer = (u64, Vec<(UserId, Claim)>);

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = redis::cmd("HSCAN");
        cmd.arg(&self.shard.claims).arg(self.cursor).arg("COUNT").arg(PAGE);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Self::Answer, CallError> {
        let (cursor, fields): (u64, Vec<(String, String)>) = from_redis_value(reply)?;
        // The field without a name is what keeps the hash there while nobody has bought.
        let claims = fields.into_iter().filter(|(user, _)| !user.is_empty());
        let claims = claims.map(|(user, claim)| Ok((UserId::stored(user), Claim::parse(&claim)?)));
        Ok((cursor, claims.collect::<Result<_, CallError>>()?))
    }
}

/// Reads the orders of the entries after one.
struct ReadOrders<'a> {
    shard: &'a Shard,
    after: u64,
}

impl Call for ReadOrders<'_> {
    type Answer = Vec<Order>;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(&self.shard.orders)
            .arg(format!("{}-0", self.after + 1))
            .arg("+")
            .arg("COUNT")
            .arg(ENTRIES_PER_PAGE);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Vec<Order>, CallError> {
        let entries: Vec<(String, Vec<(String, String)>)> = from_redis_value(reply)?;
        let mut orders = Vec::new();
        for (id, fields) in entries {
            let malformed = || CallError::Malformed(format!("order entry {id:?}"));
            let seq = id.strip_suffix("-0").and_then(|seq| seq.parse().ok()).ok_or_else(malformed)?;
            for (user, order) in fields {
                let claim = claim_of(&order)?;
                orders.push(Order { seq, user: UserId::stored(user), claim });
            }
        }
        Ok(orders)
    }
}

/// The claim in `<order id>:<purchased at, ms>:<correlation id>`. A correlation id may hold colons itself.
fn claim_of(order: &str) -> Result<Claim, CallError> {
    let malformed = || CallError::Malformed(format!("{order:?} is no order"));
    let (end, _) = order.match_indices(':').nth(1).ok_or_else(malformed)?;
    Claim::parse(&order[..end])
}

/// Holds the books of all shards against the invariants. Pure: what it finds depends on what was read alone.
pub fn check(sale: &Sale, mint: &[u64], books: &[ShardContents]) -> AuditReport {
    let mut found = Violations::default();
    for (shard, books) in sale.shards().iter().zip(books) {
        check_balance(shard, &books.before, &mut found);
        check_balance(shard, &books.after, &mut found);
        check_orders(shard, books, &mut found);
        check_settings(sale, shard, &books.after, &mut found);
    }
    check_channels(sale, mint, books, &mut found);
    let stray_claims = check_homes(sale, books, &mut found);
    let buyers_twice = check_one_each(books, &mut found);

    let sum = |part: fn(&ShardContents) -> u64| books.iter().map(part).sum::<u64>();
    let minted: u64 = mint.iter().sum();
    let (total, sold, stock) = (sale.config.total_stock, sum(|b| b.after.sold), sum(|b| b.after.stock));
    found.check(minted == total, || format!("{minted} units were minted for a sale of {total}"));
    found.check(sold + stock <= total, || {
        format!("{sold} sold and {stock} in stock are more than the {total} units there are")
    });
    AuditReport {
        ok: found.count == 0,
        total,
        sold,
        stock,
        in_flight: total.saturating_sub(sold + stock),
        claims: sum(|b| b.claims.len() as u64),
        orders: sum(|b| b.orders.len() as u64),
        buyers_twice,
        stray_claims,
        violations: found.listed(),
    }
}

/// A shard's own books, of one instant: stock = in - out - sold.
fn check_balance(shard: &Shard, level: &Level, found: &mut Violations) {
    let accepted: u64 = level.accepted.iter().map(|(_, tokens)| tokens).sum();
    let donated: u64 = level.donated.iter().map(|(_, tokens)| tokens).sum();
    let Level { stock, sold, .. } = level;
    found.check(accepted == stock + sold + donated, || {
        format!(
            "shard {}: accepted {accepted}, but holds {stock}, sold {sold} and donated {donated}",
            shard.id
        )
    });
    found.check(level.ring == shard.ring.as_str(), || {
        format!("shard {}: belongs to ring {}, not {}", shard.id, level.ring, shard.ring.as_str())
    });
}

/// A shard has the settings that are recorded, or older ones: a change reaches the record first.
fn check_settings(sale: &Sale, shard: &Shard, level: &Level, found: &mut Violations) {
    let recorded = sale.config.shard_settings();
    let differences = level.settings.differences(recorded);
    found.check(level.settings.version < recorded.version || differences.is_empty(), || {
        format!("shard {}: {}", shard.id, differences.join("; "))
    });
}

/// Claims and orders of a shard, one to one. Claims were read before the orders, so each must have its order;
/// an order that stood there before the claims were read must have its claim.
fn check_orders(shard: &Shard, books: &ShardContents, found: &mut Violations) {
    let mut by_user: HashMap<&UserId, &Order> = HashMap::new();
    for order in &books.orders {
        let before = by_user.insert(&order.user, order);
        found.check(before.is_none(), || format!("shard {}: user {:?} has two orders", shard.id, order.user));
        let settled = order.seq <= books.before.seq;
        found.check(!settled || books.claims.get(&order.user) == Some(&order.claim), || {
            format!("shard {}: order {} of {:?} is not the claim", shard.id, order.claim.order, order.user)
        });
    }
    for (user, claim) in &books.claims {
        found.check(by_user.get(user).is_some_and(|order| order.claim == *claim), || {
            format!("shard {}: the claim of {user:?} has no order {}", shard.id, claim.order)
        });
    }
    let (claims, least, most) = (books.claims.len() as u64, books.before.sold, books.after.sold);
    found.check((least..=most).contains(&claims), || {
        format!("shard {}: {claims} claims, but {least} to {most} sold", shard.id)
    });
}

/// No channel gave out more than went in. All `in` were read before all `out`.
fn check_channels(sale: &Sale, mint: &[u64], books: &[ShardContents], found: &mut Violations) {
    for (shard, receiver) in sale.shards().iter().zip(books) {
        for &(source, accepted) in &receiver.before.accepted {
            let entered = match source {
                TokenSource::Mint => mint.get(shard.id.index()).copied().unwrap_or_default(),
                TokenSource::Shard(giver) => {
                    books.get(giver.index()).map_or(0, |giver| donated_to(&giver.after, shard.id))
                }
            };
            found.check(accepted <= entered, || {
                format!("channel {source} -> {}: {accepted} accepted of {entered} that entered", shard.id)
            });
        }
    }
}

fn donated_to(level: &Level, receiver: ShardId) -> u64 {
    level.donated.iter().find(|(to, _)| *to == receiver).map_or(0, |(_, tokens)| *tokens)
}

fn check_homes(sale: &Sale, books: &[ShardContents], found: &mut Violations) -> u64 {
    let mut strays = 0;
    for (shard, books) in sale.shards().iter().zip(books) {
        for user in books.claims.keys().filter(|user| sale.ring().home(user) != shard.id) {
            strays += 1;
            found.add(|| format!("shard {}: {user:?} is claimed here, but at home in another", shard.id));
        }
    }
    strays
}

fn check_one_each(books: &[ShardContents], found: &mut Violations) -> u64 {
    let mut orders: HashMap<&UserId, OrderId> = HashMap::new();
    let mut twice = 0;
    for (user, claim) in books.iter().flat_map(|books| &books.claims) {
        if let Some(other) = orders.insert(user, claim.order) {
            twice += 1;
            found.add(|| format!("user {user:?} has two units, orders {other} and {}", claim.order));
        }
    }
    twice
}

#[derive(Default)]
struct Violations {
    texts: Vec<String>,
    count: usize,
}

impl Violations {
    fn check(&mut self, holds: bool, text: impl FnOnce() -> String) {
        if !holds {
            self.add(text);
        }
    }

    fn add(&mut self, text: impl FnOnce() -> String) {
        self.count += 1;
        if self.texts.len() < VIOLATIONS_LISTED_MAX {
            self.texts.push(text());
        }
    }

    fn listed(mut self) -> Vec<String> {
        if self.count > self.texts.len() {
            self.texts.push(format!("and {} more", self.count - self.texts.len()));
        }
        self.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::UserIdKind;
    use crate::sale::{SaleConfig, SaleState, ShardSettings};

    /// A sale of 100 units over three shards, some of them sold, one token on its way from shard 0 to shard 1.
    struct Story {
        sale: Sale,
        mint: Vec<u64>,
        books: Vec<ShardContents>,
    }

    impl Story {
        fn of_a_sound_sale() -> Self {
            let sale = Sale::new(crate::sale::tests::config()).unwrap();
            let mint = sale.split(100);
            let books =
                sale.shards().iter().zip(&mint).map(|(shard, &minted)| fresh(&sale, shard, minted)).collect();
            let mut story = Self { sale, mint, books };
            (0..30).for_each(|n| story.sell(&format!("user-{n}")));
            story.transfer(4, 3);
            story
        }

        fn sell(&mut self, id: &str) {
            let user = user(id);
            let books = &mut self.books[self.sale.ring().home(&user).index()];
            for level in [&mut books.before, &mut books.after] {
                (level.stock, level.sold, level.seq) = (level.stock - 1, level.sold + 1, level.seq + 1);
            }
            let claim = Claim { order: OrderId::random(), purchased_at: 1_500 };
            books.orders.push(Order { seq: books.after.seq, user: user.clone(), claim });
            books.claims.insert(user, claim);
        }

        fn transfer(&mut self, donated: u64, accepted: u64) {
            let [giver, receiver, _] = &mut self.books[..] else {
                unreachable!("the story has three shards")
            };
            for level in [&mut giver.before, &mut giver.after] {
                level.stock -= donated;
                level.donated.push((ShardId::new(1), donated));
            }
            for level in [&mut receiver.before, &mut receiver.after] {
                level.stock += accepted;
                level.accepted.push((TokenSource::Shard(ShardId::new(0)), accepted));
            }
        }

        /// Changes a shard's level as it was before everything else was read, and after.
        fn at_all_times(&mut self, shard: usize, change: fn(&mut Level)) {
            change(&mut self.books[shard].before);
            change(&mut self.books[shard].after);
        }

        /// A shard with somebody's claim, and that somebody.
        fn somebody(&self) -> (usize, UserId) {
            let user = user("user-0");
            (self.sale.ring().home(&user).index(), user)
        }

        fn audit(&self) -> AuditReport {
            check(&self.sale, &self.mint, &self.books)
        }

        #[track_caller]
        fn is_red_and_says(&self, words: &str) -> AuditReport {
            let audit = self.audit();
            assert!(!audit.ok, "the audit calls a broken sale sound");
            let said = audit.violations.iter().any(|violation| violation.contains(words));
            assert!(said, "no violation says {words:?}: {:#?}", audit.violations);
            audit
        }
    }

    fn fresh(sale: &Sale, shard: &Shard, minted: u64) -> ShardContents {
        let level = Level {
            settings: sale.config.shard_settings(),
            ring: shard.ring.as_str().into(),
            stock: minted,
            accepted: vec![(TokenSource::Mint, minted)],
            ..Level::default()
        };
        ShardContents { before: level.clone(), after: level, ..ShardContents::default() }
    }

    fn user(id: &str) -> UserId {
        UserId::parse(id, UserIdKind::Opaque).unwrap()
    }

    #[test]
    fn a_sound_sale_is_ok_and_counted() {
        let audit = Story::of_a_sound_sale().audit();
        assert_eq!(audit.violations, Vec::<String>::new());
        assert!(audit.ok);
        assert_eq!((audit.total, audit.sold, audit.stock, audit.in_flight), (100, 30, 69, 1));
        assert_eq!((audit.claims, audit.orders, audit.buyers_twice, audit.stray_claims), (30, 30, 0, 0));
    }

    #[test]
    fn a_sale_that_sells_while_it_is_read_is_ok() {
        let mut story = Story::of_a_sound_sale();
        let earlier: Vec<Level> = story.books.iter().map(|books| books.before.clone()).collect();
        let (home, early) = (story.sale.ring().home(&user("early")).index(), user("early"));
        // The claim of `early` was still to come when the claims were read, its order was there afterwards.
        story.sell("early");
        story.books[home].claims.remove(&early);
        // `late` bought after the first levels, before the claims were read.
        story.sell("late");
        story.books.iter_mut().zip(earlier).for_each(|(books, level)| books.before = level);
        assert_eq!(story.audit().violations, Vec::<String>::new());
    }

    #[test]
    fn a_token_from_nowhere_is_found() {
        let mut story = Story::of_a_sound_sale();
        story.books[2].after.stock += 1;
        story.is_red_and_says("shard 2: accepted");
    }

    #[test]
    fn a_shard_of_another_layout_is_found() {
        let mut story = Story::of_a_sound_sale();
        story.books[2].after.ring = "another".into();
        story.is_red_and_says("shard 2: belongs to ring another");
    }

    #[test]
    fn a_shard_with_other_settings_than_recorded_is_found() {
        let mut story = Story::of_a_sound_sale();
        story.books[1].after.settings =
            ShardSettings { state: SaleState::Paused, ..story.sale.config.shard_settings() };
        story.is_red_and_says("shard 1: state paused, recorded open");
    }

    #[test]
    fn a_shard_ahead_of_the_record_is_found() {
        let mut story = Story::of_a_sound_sale();
        story.books[1].after.settings.version = 9;
        story.is_red_and_says("shard 1: version 9, recorded 1");
    }

    #[test]
    fn a_shard_that_a_change_has_not_reached_yet_is_sound() {
        let mut story = Story::of_a_sound_sale();
        let paused = SaleConfig { version: 2, state: SaleState::Paused, ..(*story.sale.config).clone() };
        story.sale = story.sale.at(paused).unwrap();
        assert_eq!(story.audit().violations, Vec::<String>::new());
    }

    #[test]
    fn an_order_without_its_claim_is_found() {
        let mut story = Story::of_a_sound_sale();
        let (shard, user) = story.somebody();
        story.books[shard].claims.remove(&user);
        let audit = story.is_red_and_says("is not the claim");
        assert_eq!((audit.claims, audit.orders), (29, 30));
    }

    #[test]
    fn a_claim_without_its_order_is_found() {
        let mut story = Story::of_a_sound_sale();
        let (shard, user) = story.somebody();
        story.books[shard].orders.retain(|order| order.user != user);
        let audit = story.is_red_and_says("has no order");
        assert_eq!((audit.claims, audit.orders), (30, 29));
    }

    #[test]
    fn a_claim_with_another_order_id_than_its_order_is_found() {
        let mut story = Story::of_a_sound_sale();
        let (shard, user) = story.somebody();
        story.books[shard].claims.get_mut(&user).unwrap().order = OrderId::random();
        story.is_red_and_says("has no order");
        story.is_red_and_says("is not the claim");
    }

    #[test]
    fn a_second_order_of_one_user_is_found() {
        let mut story = Story::of_a_sound_sale();
        let (shard, user) = story.somebody();
        let again = story.books[shard].orders.iter().find(|order| order.user == user).unwrap().clone();
        story.books[shard].orders.push(again);
        story.is_red_and_says("has two orders");
    }

    #[test]
    fn a_unit_sold_to_nobody_is_found() {
        let mut story = Story::of_a_sound_sale();
        story.at_all_times(2, |level| (level.stock, level.sold) = (level.stock - 1, level.sold + 1));
        story.is_red_and_says("claims, but");
    }

    #[test]
    fn a_channel_that_gave_more_than_it_got_is_found() {
        let mut story = Story::of_a_sound_sale();
        story.at_all_times(0, |level| (level.stock, level.donated[0].1) = (level.stock + 2, 2));
        story.is_red_and_says("channel 0 -> 1: 3 accepted of 2");
    }

    #[test]
    fn a_mint_that_gave_more_than_it_recorded_is_found() {
        let mut story = Story::of_a_sound_sale();
        story.mint[1] -= 1;
        story.is_red_and_says("channel mint -> 1");
        story.is_red_and_says("99 units were minted for a sale of 100");
    }

    #[test]
    fn more_sold_than_there_is_is_found() {
        let mut story = Story::of_a_sound_sale();
        story.at_all_times(0, |level| {
            (level.stock, level.accepted[0].1) = (level.stock + 50, level.accepted[0].1 + 50);
        });
        story.is_red_and_says("are more than the 100 units there are");
    }

    #[test]
    fn a_user_with_a_unit_from_two_shards_is_found() {
        let mut story = Story::of_a_sound_sale();
        let (home, user) = story.somebody();
        let claim = Claim { order: OrderId::random(), purchased_at: 1_600 };
        story.books[(home + 1) % 3].claims.insert(user, claim);
        story.is_red_and_says("is claimed here, but at home in another");
        let audit = story.is_red_and_says("has two units");
        assert_eq!((audit.stray_claims, audit.buyers_twice), (1, 1));
    }

    #[test]
    fn a_thoroughly_broken_sale_is_told_in_a_hundred_lines_and_a_number() {
        let mut story = Story::of_a_sound_sale();
        for n in 0..250 {
            let claim = Claim { order: OrderId::random(), purchased_at: 1_600 };
            let ghost = user(&format!("ghost-{n}"));
            story.books[story.sale.ring().home(&ghost).index()].claims.insert(ghost, claim);
        }
        // A claim without its order each, and three shards whose claims are more than their sales.
        let audit = story.is_red_and_says("and 153 more");
        assert_eq!(audit.violations.len(), VIOLATIONS_LISTED_MAX + 1);
    }

    #[test]
    fn a_correlation_id_with_colons_does_not_hide_the_order() {
        let order = OrderId::random();
        let claim = claim_of(&format!("{order}:1500:trace:7:span"));
        assert_eq!(claim, Ok(Claim { order, purchased_at: 1_500 }));
        assert!(claim_of(&format!("{order}:1500")).is_err(), "an order without its correlation id was taken");
    }
}
