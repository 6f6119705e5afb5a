//! Properties of a plan for any shards, and the progress of a sale that follows plans.

use proptest::prelude::*;

use super::*;

/// Shards with pairs of stock and rate; the rates are certain.
fn shards(stocks_and_rates: &[(u64, f64)]) -> Vec<Holding> {
    let shard = |(index, &(stock, rate)): (u16, &(u64, f64))| Holding {
        shard: ShardId::new(index),
        stock,
        incoming: 0,
        demand: Demand { likely: rate, at_least: rate, at_most: rate },
    };
    (0..).zip(stocks_and_rates).map(shard).collect()
}

/// Makes the demand uncertain: bounds of one standard deviation to either side.
fn uncertain(mut shards: Vec<Holding>) -> Vec<Holding> {
    for Holding { demand, .. } in &mut shards {
        let deviation = demand.likely.sqrt();
        (demand.at_least, demand.at_most) =
            ((demand.likely - deviation).max(0.0), demand.likely + deviation + 1.0);
    }
    shards
}

fn apply(shards: &mut [Holding], moves: &[PlannedMove]) {
    for PlannedMove { channel, tokens } in moves {
        shards[channel.donor.index()].stock -= tokens;
        shards[channel.receiver.index()].stock += tokens;
    }
}

fn stock(shards: &[Holding]) -> u64 {
    shards.iter().map(|shard| shard.stock).sum()
}

#[test]
fn fast_selling_shard_gets_spare_tokens() {
    let moves = rebalance(&shards(&[(100, 80.0), (100, 10.0), (100, 10.0)]));
    let to_the_first = |donor| Channel { donor: ShardId::new(donor), receiver: ShardId::new(0) };
    let half = |donor| PlannedMove { channel: to_the_first(donor), tokens: 50 };
    assert_eq!(moves, [half(1), half(2)], "it lacks 140, and each gives at most half");
}

#[test]
fn incoming_tokens_are_not_requested_again() {
    let mut sale = shards(&[(100, 80.0), (100, 10.0), (100, 10.0)]);
    sale[0].incoming = 250;
    assert_eq!(rebalance(&sale), []);
}

#[test]
fn long_lasting_stock_is_not_moved() {
    assert_eq!(rebalance(&shards(&[(100_000, 800.0), (100_000, 10.0)])), []);
}

#[test]
fn slow_or_ending_sale_is_not_rebalanced() {
    assert_eq!(rebalance(&shards(&[(1, 8.0), (100, 1.0)])), [], "the demand is too small to compare shards");
    assert_eq!(rebalance(&shards(&[(0, 800.0), (100, 10.0)])), [], "the sale ends before tokens arrive");
    assert_eq!(rebalance(&shards(&[(100, 0.0), (100, 0.0)])), []);
    assert_eq!(rebalance(&[]), []);
}

#[test]
fn receivers_share_scarce_tokens_equally() {
    let moves = rebalance(&shards(&[(0, 100.0), (0, 100.0), (0, 100.0), (300, 1.0)]));
    assert_eq!(moves.iter().map(|one| one.tokens).collect::<Vec<_>>(), [50, 50, 50]);
}

prop_compose! {
    fn any_shards()(
        known in prop::collection::vec((0..5_000_u64, 0.0..500.0_f64), 1..40), certain in any::<bool>(),
    ) -> Vec<Holding> {
        if certain { shards(&known) } else { uncertain(shards(&known)) }
    }
}

proptest! {
    #[test]
    fn donors_keep_half_and_their_own_need(shards in any_shards()) {
        let moves = rebalance(&shards);
        prop_assert!(moves.len() <= MOVES_MAX);
        let lasts_s = stock(&shards) as f64 / shards.iter().map(|shard| shard.demand.likely).sum::<f64>();
        for donor in &shards {
            let given: u64 =
                moves.iter().filter(|one| one.channel.donor == donor.shard).map(|one| one.tokens).sum();
            prop_assert!(given <= donor.stock / 2);
            let needed = donor.demand.at_most * lasts_s.min(AHEAD_MAX_S);
            prop_assert!(given == 0 || (donor.stock - given) as f64 >= needed);
        }
    }

    #[test]
    fn no_shard_is_both_donor_and_receiver(shards in any_shards()) {
        let moves = rebalance(&shards);
        for one in &moves {
            prop_assert!(one.tokens > 0);
            prop_assert!(moves.iter().all(|other| other.channel.receiver != one.channel.donor));
        }
    }

    #[test]
    fn balanced_shards_are_not_rebalanced(
        rates in prop::collection::vec(0.0..500.0_f64, 1..40), lasts_s in 0.0..20.0_f64, certain in any::<bool>(),
    ) {
        let even: Vec<(u64, f64)> = rates.iter().map(|&rate| ((rate * lasts_s).ceil() as u64, rate)).collect();
        let even = if certain { shards(&even) } else { uncertain(shards(&even)) };
        prop_assert_eq!(rebalance(&even), []);
    }

    /// With constant demand plans come to an end, no token is lost, and a receiver never becomes a donor.
    #[test]
    fn plans_converge_and_never_reverse(shards in any_shards()) {
        let (total, mut shards) = (stock(&shards), shards);
        let (mut got, mut rounds) = (std::collections::HashSet::new(), 0);
        loop {
            let moves = rebalance(&shards);
            if moves.is_empty() {
                break;
            }
            prop_assert!(moves.iter().all(|one| !got.contains(&one.channel.donor)));
            got.extend(moves.iter().map(|one| one.channel.receiver));
            apply(&mut shards, &moves);
            prop_assert_eq!(stock(&shards), total);
            rounds += 1;
            prop_assert!(rounds <= 100, "plans do not converge");
        }
    }
}

/// Four of five buyers have their home on two of twelve shards, which hold a sixth of the tokens.
#[test]
fn skewed_demand_is_served_from_home_shards() {
    let rate = |shard| if shard < 2 { 200.0 } else { 10.0 };
    let mut sale = uncertain(shards(&std::array::from_fn::<_, 12, _>(|shard| (333, rate(shard)))));
    let mut missed = 0;
    while stock(&sale) > 0 && missed < 400 {
        for shard in &mut sale {
            let wanted = (shard.demand.likely / 10.0) as u64;
            missed += wanted.saturating_sub(shard.stock);
            shard.stock = shard.stock.saturating_sub(wanted);
        }
        if stock(&sale) as f64 / 500.0 < AHEAD_MIN_S {
            break;
        }
        let moves = rebalance(&sale);
        apply(&mut sale, &moves);
        assert_eq!(missed, 0, "with {} units left", stock(&sale));
    }
}
