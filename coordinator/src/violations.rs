//! Violations of the invariants, as far as one observation of the shards shows them. All of them must always be 0.
//!
//! This is less than an audit: it reads neither claims nor orders, and so it can run many times per second.

use rediscluster::CallError;
use serde::Serialize;
use stock::calls::{Level, TokenSource};

use crate::desired_state::DesiredState;
use crate::shard_problem::ShardProblem;

/// Violations in an observation of a sale's shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// Units sold beyond the total.
    pub oversold: u64,
    /// Shards whose own counters do not add up.
    pub books: u64,
    /// Shards that are not as recorded: missing, of another ring, with more tokens than were minted to them, or with
    /// unrecorded settings of the recorded version or a newer one.
    pub record: u64,
}

impl Violations {
    /// Returns true if there are none.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the violations that two consecutive observations have found. A restock may reach the shards between the
    /// read of its record and the observation; a real violation is still found the next time.
    #[must_use]
    pub fn persistent(self, before: Self) -> Self {
        Self {
            oversold: self.oversold.min(before.oversold),
            books: self.books.min(before.books),
            record: self.record.min(before.record),
        }
    }
}

/// Returns the violations in these levels, which have these problems. Shards that cannot be read are assumed to be in order.
pub fn violations(
    desired: &DesiredState,
    levels: &[Result<Level, CallError>],
    problems: &[ShardProblem],
) -> Violations {
    let read = || levels.iter().flatten();
    let sold: u64 = read().map(|level| level.sold).sum();
    // Tokens minted beyond the record are counted as a violation of the record, so selling them does not count again.
    let minted = read().map(|level| level.accepted_from(TokenSource::Mint)).sum();
    let total = desired.sale.config.total_stock.max(minted);
    let record = problems.iter().filter(|problem| problem.kind.is_violation());
    Violations {
        oversold: sold.saturating_sub(total),
        books: read().filter(|level| !balances(level)).count() as u64,
        record: record.count() as u64,
    }
}

/// Returns true if the tokens that the shard accepted equal its stock, its sales and its donations. A level is read at
/// one instant.
fn balances(level: &Level) -> bool {
    let accepted: u64 = level.accepted.iter().map(|(_, tokens)| tokens).sum();
    let donated: u64 = level.donated.iter().map(|(_, tokens)| tokens).sum();
    accepted == level.stock + level.sold + donated
}

#[cfg(test)]
mod tests {
    use stock::ids::ShardId;
    use stock::sale::SaleState;

    use super::*;
    use crate::shard_problem::problems;
    use crate::testing::{converged, recorded};

    /// A sale of 100 in two shards that hold what was minted to them.
    fn sale() -> (DesiredState, Vec<Level>) {
        let desired = recorded(SaleState::Open, 2);
        let levels = converged(&desired);
        (desired, levels)
    }

    fn violations_with(desired: &DesiredState, levels: &[Result<Level, CallError>]) -> Violations {
        violations(desired, levels, &problems(desired, levels))
    }

    fn violations_of(desired: &DesiredState, levels: Vec<Level>) -> Violations {
        violations_with(desired, &levels.into_iter().map(Ok).collect::<Vec<_>>())
    }

    #[test]
    fn sales_and_steals_are_no_violation() {
        let (desired, mut levels) = sale();
        let [donor, receiver] = &mut levels[..] else { unreachable!("two shards") };
        (donor.stock, donor.sold, donor.donated) = (donor.stock - 12, 7, vec![(ShardId::new(1), 5)]);
        (receiver.stock, receiver.sold) = (0, receiver.stock + 3);
        receiver.accepted.push((TokenSource::Shard(ShardId::new(0)), 3));

        assert!(violations_of(&desired, levels).is_none());
    }

    #[test]
    fn missing_shard_is_a_violation_unreadable_is_not() {
        let (desired, levels) = sale();
        let without_first = |error| violations_with(&desired, &[Err(error), Ok(levels[1].clone())]);
        assert!(without_first(CallError::NoReply("failing over".into())).is_none());
        assert_eq!(without_first(CallError::NoShard), Violations { record: 1, ..Violations::default() });
    }

    #[test]
    fn unrecorded_settings_are_a_violation_older_ones_not() {
        let (desired, mut levels) = sale();
        levels[0].settings.version -= 1;
        assert!(violations_of(&desired, levels.clone()).is_none());
        levels[0].settings.version += 2;
        assert_eq!(violations_of(&desired, levels), Violations { record: 1, ..Violations::default() });
    }

    #[test]
    fn unit_sold_without_a_token_is_detected() {
        let (desired, mut levels) = sale();
        levels[0].sold += 1;
        assert_eq!(violations_of(&desired, levels), Violations { books: 1, ..Violations::default() });
    }

    #[test]
    fn oversale_is_detected_once_all_is_sold() {
        let (desired, mut levels) = sale();
        levels.iter_mut().for_each(|level| (level.sold, level.stock) = (level.stock, 0));
        assert!(violations_of(&desired, levels.clone()).is_none(), "sold out");
        // A failover brought a donated token back, and both were sold.
        levels[1].accepted.push((TokenSource::Shard(ShardId::new(0)), 1));
        levels[1].sold += 1;
        assert_eq!(violations_of(&desired, levels), Violations { oversold: 1, ..Violations::default() });
    }

    #[test]
    fn unrecorded_tokens_count_as_one_violation() {
        let (desired, mut levels) = sale();
        levels[0].accepted[0].1 += 50;
        levels[0].sold = levels[0].stock + 50;
        levels[0].stock = 0;
        assert_eq!(violations_of(&desired, levels), Violations { record: 1, ..Violations::default() });
    }

    #[test]
    fn violation_must_be_observed_twice() {
        let earlier = Violations { oversold: 2, books: 0, record: 1 };
        let later = Violations { oversold: 3, books: 1, record: 0 };
        assert!(earlier.persistent(Violations::default()).is_none());
        assert_eq!(later.persistent(earlier), Violations { oversold: 2, ..Violations::default() });
    }
}
