//! What is wrong with a sale's shards: told to people, and acted on by nobody here.

use std::fmt;

use stock::calls::{CallError, Level, TokenSource};
use stock::ids::ShardId;
use stock::layout::Shard;
use stock::sale::SaleState;

use crate::desired_state::DesiredState;

/// Something wrong with a shard. One look may find a shard in the middle of a change; what two find lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardProblem {
    /// The shard.
    pub shard: ShardId,
    /// What is wrong with it.
    pub kind: ProblemKind,
    /// The particulars, for people.
    pub detail: String,
}

/// What can be wrong with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// It cannot be read now. Its primary may be failing over.
    Unreadable,
    /// It was there and is no more: its claims are lost. Never made again, for that would sell its tokens twice.
    Missing,
    /// It was made for another layout.
    ForeignRing,
    /// It holds more than was minted to it by the records: these were lost, or brought back from a backup.
    Overminted,
    /// It holds an older version than is recorded: a change has not reached it.
    Behind,
    /// It holds settings that are not recorded, of the recorded version or a newer one.
    Conflicting,
}

impl ProblemKind {
    /// Whether it must never be. The others come and go with failovers and changes.
    pub const fn is_violation(self) -> bool {
        match self {
            Self::Unreadable | Self::Behind => false,
            Self::Missing | Self::ForeignRing | Self::Overminted | Self::Conflicting => true,
        }
    }
}

impl ShardProblem {
    /// Whether it is the same trouble, whatever its particulars.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.shard, self.kind) == (other.shard, other.kind)
    }
}

impl fmt::Display for ShardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.detail)
    }
}

/// The troubles that the look before has found, too.
pub fn persistent(now: &[ShardProblem], before: &[ShardProblem]) -> Vec<ShardProblem> {
    now.iter().filter(|problem| before.iter().any(|known| known.is_like(problem))).cloned().collect()
}

/// What is wrong with the shards of a sale.
pub fn problems(desired: &DesiredState, levels: &[Result<Level, CallError>]) -> Vec<ShardProblem> {
    let shards = desired.sale.shards().iter().zip(levels).zip(&desired.mint);
    shards.filter_map(|((shard, level), &minted)| problem_of(desired, shard, level, minted)).collect()
}

fn problem_of(
    desired: &DesiredState,
    shard: &Shard,
    level: &Result<Level, CallError>,
    minted: u64,
) -> Option<ShardProblem> {
    let problem = |kind, detail| Some(ShardProblem { shard: shard.id, kind, detail });
    match level {
        Err(CallError::NoShard) if desired.sale.config.state == SaleState::Creating => None,
        Err(CallError::NoShard) => problem(
            ProblemKind::Missing,
            "it is gone, with its claims and stock; it is not made again".into(),
        ),
        Err(error) => problem(ProblemKind::Unreadable, format!("cannot be read: {error}")),
        Ok(level) if level.ring != shard.ring.as_str() => problem(
            ProblemKind::ForeignRing,
            format!("it belongs to ring {}, not {}", level.ring, shard.ring.as_str()),
        ),
        Ok(level) => match level.accepted_from(TokenSource::Mint) {
            held if held > minted => problem(
                ProblemKind::Overminted,
                format!("it holds {held} minted tokens where {minted} are recorded"),
            ),
            _ => other_settings(desired, level)
                .and_then(|(kind, differences)| problem(kind, format!("not as recorded: {differences}"))),
        },
    }
}

fn other_settings(desired: &DesiredState, level: &Level) -> Option<(ProblemKind, String)> {
    let recorded = desired.sale.config.shard_settings();
    let kind = if level.settings.version < recorded.version {
        ProblemKind::Behind
    } else {
        ProblemKind::Conflicting
    };
    let differences = level.settings.differences(recorded);
    (!differences.is_empty()).then(|| (kind, differences.join("; ")))
}

#[cfg(test)]
mod tests {
    use stock::sale::ShardSettings;

    use super::*;
    use crate::testing::recorded;

    fn kinds(desired: &DesiredState, levels: &[Result<Level, CallError>]) -> Vec<ProblemKind> {
        problems(desired, levels).iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn shard_is_missing_only_after_creation() {
        let gone = [Err(CallError::NoShard)];
        assert_eq!(kinds(&recorded(SaleState::Creating, 1), &gone), []);
        assert_eq!(kinds(&recorded(SaleState::Open, 1), &gone), [ProblemKind::Missing]);
    }

    #[test]
    fn every_problem_kind_is_reported() {
        let sale = recorded(SaleState::Open, 6);
        let settings = sale.sale.config.shard_settings();
        let ring = sale.sale.shards()[0].ring.as_str().to_owned();
        let level = |tokens, settings| Level {
            ring: ring.clone(),
            settings,
            accepted: vec![(TokenSource::Mint, tokens)],
            ..Level::default()
        };
        let levels = [
            Ok(level(0, settings)),
            Ok(Level { ring: "another".into(), ..Level::default() }),
            Ok(level(1_000, settings)),
            Err(CallError::NoReply("gone".into())),
            Ok(level(0, ShardSettings { version: 0, ..settings })),
            Ok(level(0, ShardSettings { state: SaleState::Paused, ..settings })),
        ];
        let expected = [
            ProblemKind::ForeignRing,
            ProblemKind::Overminted,
            ProblemKind::Unreadable,
            ProblemKind::Behind,
            ProblemKind::Conflicting,
        ];
        assert_eq!(kinds(&sale, &levels), expected);
        let told = problems(&sale, &levels).pop().unwrap().to_string();
        assert_eq!(told, "shard 5: not as recorded: state paused, recorded open");
    }

    #[test]
    fn problem_is_persistent_after_two_observations() {
        let problem = |kind| ShardProblem { shard: ShardId::new(0), kind, detail: String::new() };
        let (behind, missing) = ([problem(ProblemKind::Behind)], [problem(ProblemKind::Missing)]);
        assert_eq!(persistent(&behind, &behind), behind);
        assert_eq!(persistent(&behind, &missing), []);
        assert_eq!(persistent(&behind, &[]), []);
    }
}
