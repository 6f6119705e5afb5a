//! What is wrong with a sale and mends itself late, or never: told to people, and acted on by nobody here.

use std::fmt;

use stock::calls::{CallError, Level, Source};
use stock::ids::ShardId;
use stock::layout::Shard;
use stock::sale::State;

use crate::desired::Desired;

/// Something wrong with a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The shard.
    pub shard: ShardId,
    /// What is wrong with it.
    pub kind: Kind,
    /// The particulars, for people.
    pub detail: String,
}

/// What can be wrong with a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It cannot be read now. Its primary may be failing over.
    Unreadable,
    /// It was there and is no more: its claims are lost. Never made again, for that would sell its tokens twice.
    Missing,
    /// It was made for another layout.
    ForeignRing,
    /// It holds more than was minted to it by the records: these were lost, or brought back from a backup.
    Overminted,
}

impl Kind {
    /// Whether only people can mend it.
    pub const fn is_lasting(self) -> bool {
        match self {
            Self::Unreadable => false,
            Self::Missing | Self::ForeignRing | Self::Overminted => true,
        }
    }
}

impl Trouble {
    /// Whether it is the same trouble, whatever its particulars.
    pub fn is_like(&self, other: &Self) -> bool {
        (self.shard, self.kind) == (other.shard, other.kind)
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shard {}: {}", self.shard, self.detail)
    }
}

/// What is wrong with the shards of a sale.
pub fn troubles(desired: &Desired, levels: &[Result<Level, CallError>]) -> Vec<Trouble> {
    let shards = desired.sale.shards().iter().zip(levels).zip(&desired.mint);
    shards.filter_map(|((shard, level), &minted)| trouble_of(desired, shard, level, minted)).collect()
}

fn trouble_of(
    desired: &Desired,
    shard: &Shard,
    level: &Result<Level, CallError>,
    minted: u64,
) -> Option<Trouble> {
    let trouble = |kind, detail| Some(Trouble { shard: shard.id, kind, detail });
    match level {
        Err(CallError::NoShard) if desired.sale.config.state == State::Creating => None,
        Err(CallError::NoShard) => {
            trouble(Kind::Missing, "it is gone, with its claims and stock; it is not made again".into())
        }
        Err(error) => trouble(Kind::Unreadable, error.to_string()),
        Ok(level) if level.ring != shard.ring.as_str() => trouble(
            Kind::ForeignRing,
            format!("it belongs to ring {}, not {}", level.ring, shard.ring.as_str()),
        ),
        Ok(level) => match level.accepted_from(Source::Mint) {
            held if held > minted => trouble(
                Kind::Overminted,
                format!("it holds {held} minted tokens where {minted} are recorded"),
            ),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::recorded;

    fn kinds(desired: &Desired, levels: &[Result<Level, CallError>]) -> Vec<Kind> {
        troubles(desired, levels).iter().map(|trouble| trouble.kind).collect()
    }

    #[test]
    fn a_shard_is_missed_only_once_it_was_there() {
        let gone = [Err(CallError::NoShard)];
        assert_eq!(kinds(&recorded(State::Creating, 1), &gone), []);
        assert_eq!(kinds(&recorded(State::Open, 1), &gone), [Kind::Missing]);
    }

    #[test]
    fn each_trouble_is_told() {
        let sale = recorded(State::Open, 4);
        let ring = sale.sale.shards()[0].ring.as_str().to_owned();
        let level =
            |tokens| Level { ring: ring.clone(), accepted: vec![(Source::Mint, tokens)], ..Level::default() };
        let foreign = Level { ring: "another".into(), ..Level::default() };
        let levels = [Ok(level(0)), Ok(foreign), Ok(level(1_000)), Err(CallError::NoReply("gone".into()))];
        assert_eq!(kinds(&sale, &levels), [Kind::ForeignRing, Kind::Overminted, Kind::Unreadable]);
    }
}
