//! The audit: reads a whole sale and checks its invariants.
//!
//! The reading order keeps the checks valid while the sale goes on. Claims are read between two readings of the
//! orders. All `in` counters are read before all `out` counters. The record is read last, because a change is recorded
//! before it reaches any shard. Reads are paged, so that a large audit does not block Redis.
//!
//! The audit proves that the data in Redis is consistent: no unit is claimed twice, every token was minted, shards and
//! record agree. It cannot detect data that Redis has lost: a purchase that was acknowledged and then lost with its
//! claim and order leaves consistent counters. Only a journal kept by clients shows that.

use std::collections::HashMap;

use futures::future::try_join_all;
use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, Cluster, Slot};
use serde::{Deserialize, Serialize};

use crate::calls::{Claim, Level, Recall, SaleRecord, TokenSource};
use crate::ids::{OrderId, ShardId, UserId};
use crate::layout::{SaleKeys, Shard};
use crate::orders::{Order, ReadOrders};
use crate::sale::Sale;
use crate::snapshot::read_levels;

/// Claims or orders per read. This takes about a millisecond of Redis.
const PAGE: usize = 1_000;
/// Entries of the order stream per read. An entry holds up to 64 orders.
const ENTRIES_PER_PAGE: usize = PAGE / 16;
/// Number of violations that are listed; further ones are only counted. A broken sale could have one per buyer.
const VIOLATIONS_LISTED_MAX: usize = 100;

/// The result of an audit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// True when every invariant holds.
    pub ok: bool,
    /// Description of each violated invariant.
    pub violations: Vec<String>,
    /// Total units of the sale.
    pub total: u64,
    /// Units sold, by the shards' counters.
    pub sold: u64,
    /// Tokens in shards.
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

/// The reason why an audit could not be done.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// A shard could not be read.
    #[error("shard {shard} could not be audited: {error}")]
    Shard {
        /// The shard.
        shard: ShardId,
        /// The failed call.
        error: CallError,
    },
    /// The record could not be read.
    #[error("the record could not be audited: {0}")]
    Record(CallError),
    /// The record was deleted, or replaced by that of another sale of this name.
    #[error("the record was lost or replaced meanwhile")]
    Replaced,
}

/// The contents of a shard that the audit reads.
#[derive(Clone, Debug, Default)]
pub struct ShardContents {
    /// Level of the shard, read before everything else.
    pub before: Level,
    /// All claims.
    pub claims: HashMap<UserId, Claim>,
    /// All orders. Read after the claims.
    pub orders: Vec<Order>,
    /// Level of the shard, read after everything else and after `before` of every other shard.
    pub after: Level,
}

/// Reads the whole sale and checks it.
///
/// # Errors
/// Fails when a shard or the record could not be read, or when the record was replaced meanwhile.
pub async fn audit(cluster: &Cluster, sale: &Sale) -> Result<AuditReport, AuditError> {
    let unreadable = |shard| move |error| AuditError::Shard { shard, error };
    let before = levels(cluster, sale).await?;
    let read = |(shard, before)| async move {
        let claims = read_claims(cluster, shard).await.map_err(unreadable(shard.id))?;
        let orders = read_orders(cluster, shard).await.map_err(unreadable(shard.id))?;
        Ok(ShardContents { before, claims, orders, after: Level::default() })
    };
    let mut contents = try_join_all(sale.shards().iter().zip(before).map(read)).await?;
    for (contents, after) in contents.iter_mut().zip(levels(cluster, sale).await?) {
        contents.after = after;
    }
    let record =
        cluster.read(Recall { keys: &SaleKeys::new(sale.id()) }).await.map_err(AuditError::Record)?;
    let SaleRecord { config, mint } = record.ok_or(AuditError::Replaced)?;
    let recorded = sale.at(config).ok().filter(|recorded| recorded.has_same_layout_as(sale));
    Ok(check(&recorded.ok_or(AuditError::Replaced)?, &mint, &contents))
}

async fn levels(cluster: &Cluster, sale: &Sale) -> Result<Vec<Level>, AuditError> {
    let levels = read_levels(cluster, sale).await;
    let named = |(shard, level): (&Shard, Result<_, _>)| {
        level.map_err(|error| AuditError::Shard { shard: shard.id, error })
    };
    sale.shards().iter().zip(levels).map(named).collect()
}

/// Reads all claims of a shard.
///
/// # Errors
/// Fails when the shard does not answer.
pub async fn read_claims(cluster: &Cluster, shard: &Shard) -> Result<HashMap<UserId, Claim>, CallError> {
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
        let page = cluster.read(ReadOrders { shard, after, until: None, entries: ENTRIES_PER_PAGE }).await?;
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
        // Skips the empty field, which keeps the hash in existence before the first purchase.
        let claims = fields.into_iter().filter(|(user, _)| !user.is_empty());
        let claims = claims.map(|(user, claim)| Ok((UserId::stored(user), Claim::parse(&claim)?)));
        Ok((cursor, claims.collect::<Result<_, CallError>>()?))
    }
}

/// Checks the contents of all shards against the invariants. A pure function of its arguments.
pub fn check(sale: &Sale, mint: &[u64], contents: &[ShardContents]) -> AuditReport {
    let mut violations = Violations::default();
    for (shard, contents) in sale.shards().iter().zip(contents) {
        check_balance(shard, &contents.before, &mut violations);
        check_balance(shard, &contents.after, &mut violations);
        check_orders(shard, contents, &mut violations);
        check_settings(sale, shard, &contents.after, &mut violations);
    }
    check_channels(sale, mint, contents, &mut violations);
    let stray_claims = check_homes(sale, contents, &mut violations);
    let buyers_twice = check_one_unit_per_user(contents, &mut violations);

    let total_of = |part: fn(&ShardContents) -> u64| contents.iter().map(part).sum::<u64>();
    let minted: u64 = mint.iter().sum();
    let (total, sold, stock) =
        (sale.config.total_stock, total_of(|b| b.after.sold), total_of(|b| b.after.stock));
    violations.check(minted == total, || format!("{minted} units were minted for a sale of {total}"));
    violations.check(sold + stock <= total, || {
        format!("{sold} sold and {stock} in stock are more than the {total} units there are")
    });
    AuditReport {
        ok: violations.count == 0,
        total,
        sold,
        stock,
        in_flight: total.saturating_sub(sold + stock),
        claims: total_of(|b| b.claims.len() as u64),
        orders: total_of(|b| b.orders.len() as u64),
        buyers_twice,
        stray_claims,
        violations: violations.listed(),
    }
}

/// Checks that a shard's counters balance at one instant: stock = in - out - sold.
fn check_balance(shard: &Shard, level: &Level, violations: &mut Violations) {
    let accepted: u64 = level.accepted.iter().map(|(_, tokens)| tokens).sum();
    let donated: u64 = level.donated.iter().map(|(_, tokens)| tokens).sum();
    let Level { stock, sold, .. } = level;
    violations.check(accepted == stock + sold + donated, || {
        format!(
            "shard {}: accepted {accepted}, but holds {stock}, sold {sold} and donated {donated}",
            shard.id
        )
    });
    violations.check(shard.accepts(&level.ring), || {
        format!("shard {}: belongs to ring {}, not {}", shard.id, level.ring, shard.ring)
    });
}

/// Checks that a shard holds the recorded settings, or an older version: a change is recorded before it reaches the
/// shards.
fn check_settings(sale: &Sale, shard: &Shard, level: &Level, violations: &mut Violations) {
    let recorded = sale.config.shard_settings();
    let differences = level.settings.differences(recorded);
    violations.check(level.settings.version < recorded.version || differences.is_empty(), || {
        format!("shard {}: {}", shard.id, differences.join("; "))
    });
}

/// Checks that claims and orders of a shard match one to one. Claims were read before the orders, so each claim must
/// have its order. An order that existed before the claims were read must have its claim.
fn check_orders(shard: &Shard, contents: &ShardContents, violations: &mut Violations) {
    let mut by_user: HashMap<&UserId, &Order> = HashMap::new();
    for order in &contents.orders {
        let before = by_user.insert(&order.user, order);
        violations.check(before.is_none(), || {
            format!("shard {}: the user of order {} has two orders", shard.id, order.claim.order)
        });
        let settled = order.seq <= contents.before.seq;
        violations.check(!settled || contents.claims.get(&order.user) == Some(&order.claim), || {
            format!("shard {}: order {} is not the claim of its user", shard.id, order.claim.order)
        });
    }
    for (user, claim) in &contents.claims {
        violations.check(by_user.get(user).is_some_and(|order| order.claim == *claim), || {
            format!("shard {}: the claim of order {} has no order", shard.id, claim.order)
        });
    }
    let (claims, least, most) = (contents.claims.len() as u64, contents.before.sold, contents.after.sold);
    violations.check((least..=most).contains(&claims), || {
        format!("shard {}: {claims} claims, but {least} to {most} sold", shard.id)
    });
}

/// Checks that no channel gave out more than went in. All `in` were read before all `out`.
fn check_channels(sale: &Sale, mint: &[u64], contents: &[ShardContents], violations: &mut Violations) {
    for (shard, receiver) in sale.shards().iter().zip(contents) {
        for &(source, accepted) in &receiver.before.accepted {
            let entered = match source {
                TokenSource::Mint => mint.get(shard.id.index()).copied().unwrap_or_default(),
                TokenSource::Shard(donor) => {
                    contents.get(donor.index()).map_or(0, |donor| donated_to(&donor.after, shard.id))
                }
            };
            violations.check(accepted <= entered, || {
                format!("channel {source} -> {}: {accepted} accepted of {entered} that entered", shard.id)
            });
        }
    }
}

fn donated_to(level: &Level, receiver: ShardId) -> u64 {
    level.donated.iter().find(|(to, _)| *to == receiver).map_or(0, |(_, tokens)| *tokens)
}

fn check_homes(sale: &Sale, contents: &[ShardContents], violations: &mut Violations) -> u64 {
    let mut strays = 0;
    for (shard, contents) in sale.shards().iter().zip(contents) {
        for (_, claim) in contents.claims.iter().filter(|(user, _)| sale.ring().home(user) != shard.id) {
            strays += 1;
            violations.add(|| {
                format!(
                    "shard {}: the user of order {} is claimed here, but at home in another",
                    shard.id, claim.order
                )
            });
        }
    }
    strays
}

fn check_one_unit_per_user(contents: &[ShardContents], violations: &mut Violations) -> u64 {
    let mut orders: HashMap<&UserId, OrderId> = HashMap::new();
    let mut duplicates = 0;
    for (user, claim) in contents.iter().flat_map(|contents| &contents.claims) {
        if let Some(other) = orders.insert(user, claim.order) {
            duplicates += 1;
            violations.add(|| format!("a user has two units, orders {other} and {}", claim.order));
        }
    }
    duplicates
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

    /// A sale of 100 units over three shards: 30 sold, and one token in the channel from shard 0 to shard 1.
    struct Fixture {
        sale: Sale,
        mint: Vec<u64>,
        contents: Vec<ShardContents>,
    }

    impl Fixture {
        fn consistent() -> Self {
            let sale = Sale::new(crate::sale::tests::config()).unwrap();
            let mint = sale.split(100);
            let contents = sale
                .shards()
                .iter()
                .zip(&mint)
                .map(|(shard, &minted)| unsold(&sale, shard, minted))
                .collect();
            let mut fixture = Self { sale, mint, contents };
            (0..30).for_each(|n| fixture.sell(&format!("user-{n}")));
            fixture.transfer(4, 3);
            fixture
        }

        fn sell(&mut self, id: &str) {
            let user = user(id);
            let contents = &mut self.contents[self.sale.ring().home(&user).index()];
            for level in [&mut contents.before, &mut contents.after] {
                (level.stock, level.sold, level.seq) = (level.stock - 1, level.sold + 1, level.seq + 1);
            }
            let claim = Claim { order: OrderId::random(), purchased_at: 1_500 };
            let order = Order {
                seq: contents.after.seq,
                place: 0,
                user: user.clone(),
                claim,
                correlation: "c".into(),
            };
            contents.orders.push(order);
            contents.claims.insert(user, claim);
        }

        fn transfer(&mut self, donated: u64, accepted: u64) {
            let [donor, receiver, _] = &mut self.contents[..] else {
                unreachable!("the fixture has three shards")
            };
            for level in [&mut donor.before, &mut donor.after] {
                level.stock -= donated;
                level.donated.push((ShardId::new(1), donated));
            }
            for level in [&mut receiver.before, &mut receiver.after] {
                level.stock += accepted;
                level.accepted.push((TokenSource::Shard(ShardId::new(0)), accepted));
            }
        }

        /// Changes the level of a shard in both readings.
        fn change_level(&mut self, shard: usize, change: fn(&mut Level)) {
            change(&mut self.contents[shard].before);
            change(&mut self.contents[shard].after);
        }

        /// Returns a user with a claim, and the user's home shard.
        fn user_with_claim(&self) -> (usize, UserId) {
            let user = user("user-0");
            (self.sale.ring().home(&user).index(), user)
        }

        fn audit(&self) -> AuditReport {
            check(&self.sale, &self.mint, &self.contents)
        }

        #[track_caller]
        fn assert_violation(&self, text: &str) -> AuditReport {
            let audit = self.audit();
            assert!(!audit.ok, "the audit passes a broken sale");
            let names_a_user =
                |text: &String| text.contains("buyer") || text.contains('"') || text.contains('@');
            assert!(!audit.violations.iter().any(names_a_user), "personal data in {:#?}", audit.violations);
            let is_listed = audit.violations.iter().any(|violation| violation.contains(text));
            assert!(is_listed, "no violation contains {text:?}: {:#?}", audit.violations);
            audit
        }
    }

    fn unsold(sale: &Sale, shard: &Shard, minted: u64) -> ShardContents {
        let level = Level {
            settings: sale.config.shard_settings(),
            ring: shard.ring.clone(),
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
    fn consistent_sale_passes_with_correct_counts() {
        let audit = Fixture::consistent().audit();
        assert_eq!(audit.violations, Vec::<String>::new());
        assert!(audit.ok);
        assert_eq!((audit.total, audit.sold, audit.stock, audit.in_flight), (100, 30, 69, 1));
        assert_eq!((audit.claims, audit.orders, audit.buyers_twice, audit.stray_claims), (30, 30, 0, 0));
    }

    #[test]
    fn purchases_during_the_audit_are_no_violation() {
        let mut fixture = Fixture::consistent();
        let earlier: Vec<Level> = fixture.contents.iter().map(|contents| contents.before.clone()).collect();
        let (home, early) = (fixture.sale.ring().home(&user("early")).index(), user("early"));
        // `early` bought after the claims were read and before the orders were read.
        fixture.sell("early");
        fixture.contents[home].claims.remove(&early);
        // `late` bought after the first levels and before the claims were read.
        fixture.sell("late");
        fixture.contents.iter_mut().zip(earlier).for_each(|(contents, level)| contents.before = level);
        assert_eq!(fixture.audit().violations, Vec::<String>::new());
    }

    #[test]
    fn token_that_was_never_minted_is_a_violation() {
        let mut fixture = Fixture::consistent();
        fixture.contents[2].after.stock += 1;
        fixture.assert_violation("shard 2: accepted");
    }

    #[test]
    fn shard_of_another_layout_is_a_violation() {
        let mut fixture = Fixture::consistent();
        fixture.contents[2].after.ring = "another".into();
        fixture.assert_violation("shard 2: belongs to ring another");
    }

    #[test]
    fn settings_other_than_recorded_are_a_violation() {
        let mut fixture = Fixture::consistent();
        fixture.contents[1].after.settings =
            ShardSettings { state: SaleState::Paused, ..fixture.sale.config.shard_settings() };
        fixture.assert_violation("shard 1: state paused, recorded open");
    }

    #[test]
    fn shard_ahead_of_the_record_is_a_violation() {
        let mut fixture = Fixture::consistent();
        fixture.contents[1].after.settings.version = 9;
        fixture.assert_violation("shard 1: version 9, recorded 1");
    }

    #[test]
    fn shard_behind_the_record_is_no_violation() {
        let mut fixture = Fixture::consistent();
        let paused = SaleConfig { version: 2, state: SaleState::Paused, ..(*fixture.sale.config).clone() };
        fixture.sale = fixture.sale.at(paused).unwrap();
        assert_eq!(fixture.audit().violations, Vec::<String>::new());
    }

    #[test]
    fn order_without_claim_is_a_violation() {
        let mut fixture = Fixture::consistent();
        let (shard, user) = fixture.user_with_claim();
        fixture.contents[shard].claims.remove(&user);
        let audit = fixture.assert_violation("is not the claim");
        assert_eq!((audit.claims, audit.orders), (29, 30));
    }

    #[test]
    fn claim_without_order_is_a_violation() {
        let mut fixture = Fixture::consistent();
        let (shard, user) = fixture.user_with_claim();
        fixture.contents[shard].orders.retain(|order| order.user != user);
        let audit = fixture.assert_violation("has no order");
        assert_eq!((audit.claims, audit.orders), (30, 29));
    }

    #[test]
    fn claim_with_another_order_id_is_a_violation() {
        let mut fixture = Fixture::consistent();
        let (shard, user) = fixture.user_with_claim();
        fixture.contents[shard].claims.get_mut(&user).unwrap().order = OrderId::random();
        fixture.assert_violation("has no order");
        fixture.assert_violation("is not the claim");
    }

    #[test]
    fn second_order_of_a_user_is_a_violation() {
        let mut fixture = Fixture::consistent();
        let (shard, user) = fixture.user_with_claim();
        let again = fixture.contents[shard].orders.iter().find(|order| order.user == user).unwrap().clone();
        fixture.contents[shard].orders.push(again);
        fixture.assert_violation("has two orders");
    }

    #[test]
    fn sold_unit_without_claim_is_a_violation() {
        let mut fixture = Fixture::consistent();
        fixture.change_level(2, |level| (level.stock, level.sold) = (level.stock - 1, level.sold + 1));
        fixture.assert_violation("claims, but");
    }

    #[test]
    fn accepting_more_than_donated_is_a_violation() {
        let mut fixture = Fixture::consistent();
        fixture.change_level(0, |level| (level.stock, level.donated[0].1) = (level.stock + 2, 2));
        fixture.assert_violation("channel 0 -> 1: 3 accepted of 2");
    }

    #[test]
    fn accepting_more_than_minted_is_a_violation() {
        let mut fixture = Fixture::consistent();
        fixture.mint[1] -= 1;
        fixture.assert_violation("channel mint -> 1");
        fixture.assert_violation("99 units were minted for a sale of 100");
    }

    #[test]
    fn more_units_than_the_total_are_a_violation() {
        let mut fixture = Fixture::consistent();
        fixture.change_level(0, |level| {
            (level.stock, level.accepted[0].1) = (level.stock + 50, level.accepted[0].1 + 50);
        });
        fixture.assert_violation("are more than the 100 units there are");
    }

    #[test]
    fn user_with_two_units_is_a_violation() {
        let mut fixture = Fixture::consistent();
        let (home, user) = fixture.user_with_claim();
        let claim = Claim { order: OrderId::random(), purchased_at: 1_600 };
        fixture.contents[(home + 1) % 3].claims.insert(user, claim);
        fixture.assert_violation("is claimed here, but at home in another");
        let audit = fixture.assert_violation("has two units");
        assert_eq!((audit.stray_claims, audit.buyers_twice), (1, 1));
    }

    #[test]
    fn report_lists_at_most_a_hundred_violations() {
        let mut fixture = Fixture::consistent();
        for n in 0..250 {
            let claim = Claim { order: OrderId::random(), purchased_at: 1_600 };
            let ghost = user(&format!("ghost-{n}"));
            fixture.contents[fixture.sale.ring().home(&ghost).index()].claims.insert(ghost, claim);
        }
        // A claim without its order each, and three shards with more claims than sales.
        let audit = fixture.assert_violation("and 153 more");
        assert_eq!(audit.violations.len(), VIOLATIONS_LISTED_MAX + 1);
    }
}
