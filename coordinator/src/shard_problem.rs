//! Problems of a sale's shards. They are reported to operators; this module does not repair them.

use std::fmt;

use rediscluster::CallError;
use stock::calls::{Level, TokenSource};
use stock::ids::ShardId;
use stock::layout::Shard;
use stock::sale::SaleState;

use crate::desired_state::DesiredState;

/// A problem of a shard. A single observation may fall in the middle of a change; a problem is persistent when two in a
/// row have found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardProblem {
    /// The shard.
    pub shard: ShardId,
    /// Kind of the problem.
    pub kind: ProblemKind,
    /// Details, for people.
    pub detail: String,
}

/// Kind of a problem of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The shard cannot be read now. Its primary may be failing over.
    Unreadable,
    /// The shard existed and is gone, with its claims. It is never recreated, because its tokens would be sold twice.
    Missing,
    /// The shard was created for another layout, or again after it was lost.
    ForeignRing,
    /// The shard holds more tokens than the record minted to it: the record was lost, or restored from an older backup.
    Overminted,
    /// The shard holds an older version than the record: a change has not reached it.
    Behind,
    /// The shard holds unrecorded settings, of the recorded version or a newer one.
    Conflicting,
}

impl ProblemKind {
    /// Returns true if this kind violates an invariant. The others come and go with failovers and changes.
    pub const fn is_violation(self) -> bool {
        match self {
            Self::Unreadable | Self::Behind => false,
            Self::Missing | Self::ForeignRing | Self::Overminted | Self::Conflicting => true,
        }
    }
}

impl ShardProblem {
    /// Returns true if it is the same problem, regardless of its details.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.shard, self.kind) == (other.shard, other.kind)
    }
}

impl fmt::Display for ShardProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.detail)
    }
}

/// Returns the problems that the previous observation has found too.
pub fn persistent(now: &[ShardProblem], before: &[ShardProblem]) -> Vec<ShardProblem> {
    now.iter().filter(|problem| before.iter().any(|known| known.is_like(problem))).cloned().collect()
}

/// Returns the problems of a sale's shards.
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
    // The shards of an archived sale are removed.
    if desired.sale.config.archive.is_some() {
        return None;
    }
    let problem = |kind, detail| Some(ShardProblem { shard: shard.id, kind, detail });
    match level {
        Err(CallError::NoShard) if desired.sale.config.state == SaleState::Creating => None,
        Err(CallError::NoShard) => problem(
            ProblemKind::Missing,
            "it is gone, with its claims and stock; it is not made again".into(),
        ),
        Err(error) => problem(ProblemKind::Unreadable, format!("cannot be read: {error}")),
        Ok(level) if !shard.accepts(&level.ring) => problem(
            ProblemKind::ForeignRing,
            format!("it belongs to ring {}, not {}", level.ring, shard.ring),
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
    use crate::testing::{converged, recorded};

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
        let held = converged(&sale).remove(0);
        let level = |tokens, settings| Level {
            settings,
            accepted: vec![(TokenSource::Mint, tokens)],
            ..held.clone()
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
        let text = problems(&sale, &levels).pop().unwrap().to_string();
        assert_eq!(text, "shard 5: not as recorded: state paused, recorded open");
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
