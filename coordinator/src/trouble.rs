//! What is wrong with a sale's shards: told to people, and acted on by nobody here.

use std::fmt;

use stock::calls::{CallError, Level, Source};
use stock::ids::ShardId;
use stock::layout::Shard;
use stock::sale::State;

use crate::desired::Desired;

/// Something wrong with a shard. One look may find a shard in the middle of a change; what two find lasts.
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
    /// It holds an older version than is recorded: a change has not reached it.
    Behind,
    /// It holds settings that are not recorded, of the recorded version or a newer one.
    Contrary,
}

impl Kind {
    /// Whether it must never be. The others come and go with failovers and changes.
    pub const fn is_violation(self) -> bool {
        match self {
            Self::Unreadable | Self::Behind => false,
            Self::Missing | Self::ForeignRing | Self::Overminted | Self::Contrary => true,
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

/// The troubles that the look before has found, too.
pub fn lasting(now: &[Trouble], before: &[Trouble]) -> Vec<Trouble> {
    now.iter().filter(|trouble| before.iter().any(|known| known.is_like(trouble))).cloned().collect()
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
        Err(error) => trouble(Kind::Unreadable, format!("cannot be read: {error}")),
        Ok(level) if level.ring != shard.ring.as_str() => trouble(
            Kind::ForeignRing,
            format!("it belongs to ring {}, not {}", level.ring, shard.ring.as_str()),
        ),
        Ok(level) => match level.accepted_from(Source::Mint) {
            held if held > minted => trouble(
                Kind::Overminted,
                format!("it holds {held} minted tokens where {minted} are recorded"),
            ),
            _ => other_settings(desired, level)
                .and_then(|(kind, differences)| trouble(kind, format!("not as recorded: {differences}"))),
        },
    }
}

fn other_settings(desired: &Desired, level: &Level) -> Option<(Kind, String)> {
    let recorded = desired.sale.config.shard_settings();
    let kind = if level.settings.version < recorded.version { Kind::Behind } else { Kind::Contrary };
    let differences = level.settings.differences(recorded);
    (!differences.is_empty()).then(|| (kind, differences.join("; ")))
}

#[cfg(test)]
mod tests {
    use stock::sale::ShardSettings;

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
        let sale = recorded(State::Open, 6);
        let settings = sale.sale.config.shard_settings();
        let ring = sale.sale.shards()[0].ring.as_str().to_owned();
        let level = |tokens, settings| Level {
            ring: ring.clone(),
            settings,
            accepted: vec![(Source::Mint, tokens)],
            ..Level::default()
        };
        let levels = [
            Ok(level(0, settings)),
            Ok(Level { ring: "another".into(), ..Level::default() }),
            Ok(level(1_000, settings)),
            Err(CallError::NoReply("gone".into())),
            Ok(level(0, ShardSettings { version: 0, ..settings })),
            Ok(level(0, ShardSettings { state: State::Paused, ..settings })),
        ];
        let expected = [Kind::ForeignRing, Kind::Overminted, Kind::Unreadable, Kind::Behind, Kind::Contrary];
        assert_eq!(kinds(&sale, &levels), expected);
        let told = troubles(&sale, &levels).pop().unwrap().to_string();
        assert_eq!(told, "shard 5: not as recorded: state paused, recorded open");
    }

    #[test]
    fn a_trouble_lasts_once_two_looks_have_found_it() {
        let trouble = |kind| Trouble { shard: ShardId::new(0), kind, detail: String::new() };
        let (behind, missing) = ([trouble(Kind::Behind)], [trouble(Kind::Missing)]);
        assert_eq!(lasting(&behind, &behind), behind);
        assert_eq!(lasting(&behind, &missing), []);
        assert_eq!(lasting(&behind, &[]), []);
    }
}
