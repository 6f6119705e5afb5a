//! Random operations on real shards and on the reference, step by step. All answers and all counters must be equal.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use redis::Cmd;
use rediscluster::{Call, CallError};
use stock::calls::{Accept, Attempt, Buy, BuyOutcome, Configure, Donate, Find, Level, TokenSource};
use stock::ids::{OrderId, ShardId, UserId};
use stock::layout::Shard;
use stock::sale::{LayoutConfig, Sale, SaleConfig, SaleState, ShardSettings, Window};
use stock::snapshot::read_levels;

use crate::fixture::{ALWAYS, IN_THE_FUTURE, IN_THE_PAST, TestSale, user_id};
use crate::reference::{self, Outcome, Refusal};

const SHARDS: u16 = 3;
/// Few users and few order ids, so that repeats, duplicates and order ids of other users are common.
const USERS: u8 = 8;
const ORDERS: u8 = 4;
const CASES: u32 = 300;

#[derive(Clone, Debug)]
enum Step {
    Buy { shard: u16, attempts: Vec<(u8, u8)>, late: bool },
    Donate { shard: u16, to: u16, want: u64 },
    Accept { shard: u16, from: u16, delivered: Delivered },
    Mint { shard: u16, tokens: u64, delivered: Delivered },
    Configure { shard: u16, version: u64, state: SaleState, window: Window },
    Find { shard: u16, users: Vec<u8> },
    Lose { shard: u16 },
    CreateLate { shard: u16 },
}

/// The value of a channel that the receiver gets.
#[derive(Clone, Copy, Debug)]
enum Delivered {
    Latest,
    /// An older value, smaller by this many tokens.
    Stale(u64),
}

impl Delivered {
    fn of(self, cumulative: u64) -> u64 {
        match self {
            Self::Latest => cumulative,
            Self::Stale(less) => cumulative.saturating_sub(less),
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let shard = || 0..SHARDS;
    let delivered = || prop_oneof![3 => Just(Delivered::Latest), 1 => (1..6_u64).prop_map(Delivered::Stale)];
    let state = prop_oneof![6 => Just(SaleState::Open), 2 => Just(SaleState::Paused), 1 => Just(SaleState::Ended), 1 => Just(SaleState::Creating)];
    let window = prop_oneof![6 => Just(ALWAYS), 1 => Just(IN_THE_PAST), 1 => Just(IN_THE_FUTURE)];
    let step = prop_oneof![
        8 => (shard(), prop::collection::vec((0..USERS, 0..ORDERS), 1..7), prop::bool::weighted(0.1))
            .prop_map(|(shard, attempts, late)| Step::Buy { shard, attempts, late }),
        4 => (shard(), shard(), 0..6_u64).prop_map(|(shard, to, want)| Step::Donate { shard, to, want }),
        4 => (shard(), shard(), delivered()).prop_map(|(shard, from, delivered)| Step::Accept { shard, from, delivered }),
        2 => (shard(), 0..5_u64, delivered()).prop_map(|(shard, tokens, delivered)| Step::Mint { shard, tokens, delivered }),
        1 => (shard(), 0..12_u64, state, window)
            .prop_map(|(shard, version, state, window)| Step::Configure { shard, version, state, window }),
        2 => (shard(), prop::collection::vec(0..USERS, 1..5)).prop_map(|(shard, users)| Step::Find { shard, users }),
    ];
    // Few, because a lost shard stays lost.
    let step = prop_oneof![
        60 => step,
        1 => shard().prop_map(|shard| Step::Lose { shard }),
        2 => shard().prop_map(|shard| Step::CreateLate { shard }),
    ];
    prop::collection::vec(step, 30..70)
}

/// A real sale and its reference.
struct Comparison {
    real: TestSale,
    /// The sale as coordinators know it before it is open.
    creating: Sale,
    reference: Vec<reference::Shard>,
    created_with: Vec<u64>,
    mint: Vec<u64>,
}

impl Comparison {
    async fn with_stock(tokens: [u64; SHARDS as usize]) -> Self {
        let real = TestSale::over_shards(&tokens).await;
        let reference = tokens.map(reference::Shard::selling).to_vec();
        let config = &*real.sale.config;
        let layout = LayoutConfig { incarnations: vec![], ..config.layout.clone() };
        let creating = real.sale.at(SaleConfig { layout, ..config.clone() }).unwrap();
        Self { real, creating, reference, created_with: tokens.to_vec(), mint: tokens.to_vec() }
    }

    /// Makes a call to a shard of the open sale. Returns `None` when both refuse it for the same reason.
    async fn call<C: Call>(&self, shard: u16, call: C) -> Result<Option<C::Answer>, TestCaseError> {
        let answer = self.real.cluster.read(call).await;
        let Some(expected) = self.reference[usize::from(shard)].refusal() else {
            return Ok(Some(answer.unwrap()));
        };
        let refusal = match answer.err() {
            Some(CallError::NoShard) => Some(Refusal::NoShard),
            Some(CallError::WrongRing(_)) => Some(Refusal::OtherIncarnation),
            _ => None,
        };
        prop_assert_eq!(refusal, Some(expected));
        Ok(None)
    }

    /// Runs a step on both and compares the answers.
    async fn apply(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Buy { shard, attempts, late } => self.buy(*shard, attempts, *late).await,
            Step::Donate { shard, to, want } => self.donate(*shard, *to, *want).await,
            Step::Accept { shard, from, delivered } => {
                let entered = self.reference[usize::from(*from)].donated.get(&ShardId::new(*shard));
                let cumulative = delivered.of(entered.copied().unwrap_or(0));
                self.accept(*shard, TokenSource::Shard(ShardId::new(*from)), cumulative).await
            }
            Step::Mint { shard, tokens, delivered } => {
                self.mint[usize::from(*shard)] += tokens;
                self.accept(*shard, TokenSource::Mint, delivered.of(self.mint[usize::from(*shard)])).await
            }
            Step::Configure { shard, version, state, window } => {
                self.configure(*shard, *version, *state, *window).await
            }
            Step::Find { shard, users } => self.find(*shard, users).await,
            Step::Lose { shard } => self.lose(*shard).await,
            Step::CreateLate { shard } => self.create_late(*shard).await,
        }
    }

    async fn buy(&mut self, shard: u16, attempts: &[(u8, u8)], late: bool) -> Result<(), TestCaseError> {
        let attempts: Vec<_> =
            attempts.iter().map(|&(user, order)| (user_number(user), order_number(order))).collect();
        let attempt = |(user, order): &(UserId, OrderId)| Attempt {
            user: user.clone(),
            order: *order,
            correlation: "trace".into(),
        };
        let sent: Vec<_> = attempts.iter().map(attempt).collect();
        let not_after = if late { 1 } else { Buy::AT_ANY_TIME };
        let buy = Buy { shard: self.real.shard_at(shard), attempts: &sent, not_after };
        if late && self.reference[usize::from(shard)].refusal().is_none() {
            let answer = self.real.cluster.poll(buy).await;
            prop_assert!(matches!(answer, Err(CallError::Late(_))), "got {answer:?}");
            return Ok(());
        }
        let Some(answer) = self.call(shard, buy).await? else { return Ok(()) };

        let reference = &mut self.reference[usize::from(shard)];
        prop_assert_eq!(
            answer.outcomes.into_iter().map(outcome).collect::<Vec<_>>(),
            reference.buy(&attempts)
        );
        prop_assert_eq!(answer.stock, reference.stock);
        prop_assert_eq!(answer.version, reference.settings.version);
        Ok(())
    }

    async fn donate(&mut self, shard: u16, to: u16, want: u64) -> Result<(), TestCaseError> {
        let to = ShardId::new(to);
        let donate = Donate { shard: self.real.shard_at(shard), to, want };
        let Some(answer) = self.call(shard, donate).await? else { return Ok(()) };

        let reference = &mut self.reference[usize::from(shard)];
        prop_assert_eq!(answer.cumulative, reference.donate(to, want));
        prop_assert_eq!(answer.stock, reference.stock);
        Ok(())
    }

    async fn accept(&mut self, shard: u16, from: TokenSource, cumulative: u64) -> Result<(), TestCaseError> {
        let accept = Accept { shard: self.real.shard_at(shard), from, cumulative };
        let Some(answer) = self.call(shard, accept).await? else { return Ok(()) };

        let reference = &mut self.reference[usize::from(shard)];
        prop_assert_eq!(answer.cumulative, reference.accept(from, cumulative));
        prop_assert_eq!(answer.stock, reference.stock);
        Ok(())
    }

    async fn configure(
        &mut self,
        shard: u16,
        version: u64,
        state: SaleState,
        window: Window,
    ) -> Result<(), TestCaseError> {
        let configure = Configure { shard: self.real.shard_at(shard), version, state, window };
        let Some(answer) = self.call(shard, configure).await? else { return Ok(()) };

        let reference = &mut self.reference[usize::from(shard)];
        prop_assert_eq!(answer.settings, reference.configure(version, state, window));
        Ok(())
    }

    async fn find(&mut self, shard: u16, users: &[u8]) -> Result<(), TestCaseError> {
        let users: Vec<_> = users.iter().map(|&user| user_number(user)).collect();
        let find = Find { shard: self.real.shard_at(shard), users: &users };
        let Some(answer) = self.call(shard, find).await? else { return Ok(()) };

        let orders: Vec<_> = answer.into_iter().map(|claim| claim.map(|claim| claim.order)).collect();
        prop_assert_eq!(orders, self.reference[usize::from(shard)].find(&users));
        Ok(())
    }

    async fn lose(&mut self, shard: u16) -> Result<(), TestCaseError> {
        let Shard { meta, claims, orders, .. } = self.real.shard_at(shard);
        let del = redis::cmd("DEL").arg(&[meta, claims, orders]).clone();
        self.real.query_at::<u64>(self.real.shard_at(shard), &del).await;
        self.reference[usize::from(shard)].lose();
        Ok(())
    }

    async fn create_late(&mut self, shard: u16) -> Result<(), TestCaseError> {
        let (creating, tokens) =
            (self.creating.shard(ShardId::new(shard)), self.created_with[usize::from(shard)]);
        let configure = Configure { shard: creating, version: 1, state: SaleState::Creating, window: ALWAYS };
        self.real.cluster.read(configure).await.unwrap();
        let mint = Accept { shard: creating, from: TokenSource::Mint, cumulative: tokens };
        self.real.cluster.read(mint).await.unwrap();
        self.reference[usize::from(shard)].create_late(tokens);
        Ok(())
    }

    /// Compares the levels of all shards.
    async fn compare_levels(&self) -> Result<(), TestCaseError> {
        let levels = read_levels(&self.real.cluster, &self.real.sale).await;
        for (level, reference) in levels.into_iter().zip(&self.reference) {
            if reference.is_lost {
                prop_assert_eq!(level.err(), Some(CallError::NoShard));
                continue;
            }
            let mut level = level.unwrap();
            level.accepted.sort_unstable();
            level.donated.sort_unstable();
            prop_assert_eq!(counters(&level), reference_counters(reference));
        }
        Ok(())
    }

    /// Compares the ticks and the order streams, which no answer contains.
    async fn compare_orders(&self) -> Result<(), TestCaseError> {
        let shards = self.real.sale.shards().iter().zip(&self.reference);
        for (shard, reference) in shards.filter(|(_, reference)| !reference.is_lost) {
            let tick: u64 = self.real.query_at(shard, &Cmd::hget(&shard.meta, "tick")).await;
            prop_assert_eq!(tick, reference.tick);

            let entries: Vec<crate::fixture::Entry> =
                self.real.query_at(shard, redis::cmd("XRANGE").arg(&shard.orders).arg("-").arg("+")).await;
            let id = |order: &str| order.split(':').next().unwrap().parse().unwrap();
            let order = |(user, order): (String, String)| (user_id(&user), id(&order));
            let entries: Vec<Vec<_>> =
                entries.into_iter().map(|(_, fields)| fields.into_iter().map(order).collect()).collect();
            prop_assert_eq!(&entries, &reference.entries);
        }
        Ok(())
    }

    /// Checks on the reference's own counters that no token is lost or duplicated, which is the purpose of the
    /// functions.
    fn check_token_sum(&self) -> Result<(), TestCaseError> {
        let sum = |part: fn(&reference::Shard) -> u64| self.reference.iter().map(part).sum::<u64>();
        let accepted = sum(|shard| shard.accepted.values().sum());
        let donated = sum(|shard| shard.donated.values().sum());
        prop_assert_eq!(accepted, sum(|shard| shard.stock) + sum(|shard| shard.sold) + donated);
        Ok(())
    }
}

fn user_number(user: u8) -> UserId {
    user_id(&format!("user-{user}"))
}

fn order_number(order: u8) -> OrderId {
    format!("{order:014}").parse().unwrap()
}

fn outcome(bought: BuyOutcome) -> Outcome {
    match bought {
        BuyOutcome::Bought(claim) => Outcome::Bought(claim.order),
        BuyOutcome::Repeat(claim) => Outcome::Repeat(claim.order),
        BuyOutcome::Duplicate(claim) => Outcome::Duplicate(claim.order),
        BuyOutcome::Empty => Outcome::Empty,
        BuyOutcome::NotOpen => Outcome::NotOpen,
    }
}

/// The part of a level that the reference also knows.
type Counters = (ShardSettings, u64, u64, u64, Vec<(TokenSource, u64)>, Vec<(ShardId, u64)>);

fn counters(level: &Level) -> Counters {
    let Level { settings, stock, sold, seq, accepted, donated, .. } = level;
    (*settings, *stock, *sold, *seq, accepted.clone(), donated.clone())
}

fn reference_counters(shard: &reference::Shard) -> Counters {
    let (accepted, donated) = (shard.accepted.clone().into_iter(), shard.donated.clone().into_iter());
    (
        shard.settings,
        shard.stock,
        shard.sold,
        shard.entries.len() as u64,
        accepted.collect(),
        donated.collect(),
    )
}

#[test]
fn functions_match_the_reference() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let run = |(tokens, steps): ([u64; SHARDS as usize], Vec<Step>)| {
        runtime.block_on(async {
            let mut comparison = Comparison::with_stock(tokens).await;
            for step in &steps {
                comparison.apply(step).await?;
                comparison.compare_levels().await?;
            }
            comparison.compare_orders().await?;
            comparison.check_token_sum()
        })
    };
    let seed = match Config::default().rng_seed {
        RngSeed::Fixed(seed) => seed,
        RngSeed::Random => rand::random(),
    };
    println!("PROPTEST_RNG_SEED={seed} repeats this run");
    let config = Config {
        cases: CASES,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&(prop::array::uniform3(0..8_u64), steps()), run);

    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
