//! Tokens that moved between two observations of a sale's shards.

use rediscluster::CallError;
use serde::Serialize;
use stock::calls::{Level, TokenSource};
use stock::ids::ShardId;

/// Tokens that a shard accepted from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct TokenArrival {
    from: ShardId,
    to: ShardId,
    tokens: u64,
}

/// Returns the tokens that shards accepted from each other between two observations. Shards that could not be read in
/// one of them are left out.
pub(super) fn moves(
    before: &[Result<Level, CallError>],
    now: &[Result<Level, CallError>],
) -> Vec<TokenArrival> {
    let mut moves = Vec::new();
    for (to, levels) in (0..).map(ShardId::new).zip(before.iter().zip(now)) {
        let (Ok(before), Ok(now)) = levels else { continue };
        for &(source, accepted) in &now.accepted {
            let tokens = accepted.saturating_sub(before.accepted_from(source));
            if let (TokenSource::Shard(from), 1..) = (source, tokens) {
                moves.push(TokenArrival { from, to, tokens });
            }
        }
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn shard(index: u16) -> ShardId {
        ShardId::new(index)
    }

    fn accepted(channels: &[(TokenSource, u64)]) -> Result<Level, CallError> {
        Ok(Level { accepted: channels.to_vec(), ..Level::default() })
    }

    #[test]
    fn accepted_tokens_are_reported_as_moves() {
        let first = TokenSource::Shard(shard(0));
        let before =
            [accepted(&[(TokenSource::Mint, 5)]), accepted(&[(first, 3), (TokenSource::Shard(shard(2)), 1)])];
        let now =
            [accepted(&[(TokenSource::Mint, 9)]), accepted(&[(first, 7), (TokenSource::Shard(shard(2)), 1)])];
        assert_eq!(moves(&before, &now), [TokenArrival { from: shard(0), to: shard(1), tokens: 4 }]);
        assert_eq!(moves(&now, &now), []);
    }

    #[test]
    fn unreadable_shard_has_no_moves() {
        let lost = || [Err(CallError::NoReply("gone".into()))];
        let held = || [accepted(&[(TokenSource::Shard(shard(3)), 3)])];
        assert_eq!(
            (moves(&lost(), &held()), moves(&held(), &lost()), moves(&[], &held())),
            Default::default()
        );
    }
}
