//! Open channels between shards, and how long they have been idle.
//!
//! A node that steals accepts the tokens within milliseconds of the donation. A channel that stays open much longer
//! belongs to a node that died in between, or that never got the reply to its donation.

use std::collections::HashMap;
use std::time::Duration;

use rediscluster::CallError;

use tokio::time::Instant;

use crate::calls::{Level, TokenSource};
use crate::ids::ShardId;

/// A directed channel between two shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// The shard that donates the tokens.
    pub donor: ShardId,
    /// The shard that accepts the tokens.
    pub receiver: ShardId,
}

/// The open channels of a sale, and since when no tokens left them.
#[derive(Clone, Debug, Default)]
pub struct OpenChannels(HashMap<Channel, IdleChannel>);

#[derive(Clone, Copy, Debug)]
struct IdleChannel {
    accepted: u64,
    idle_since: Instant,
    /// Since when the channel is idle, or when it was last re-driven.
    waiting_since: Instant,
}

impl OpenChannels {
    /// Updates the channels from the levels of all shards. Only tokens that leave a channel count as progress; tokens
    /// that enter do not.
    pub fn observe(&mut self, levels: &[Result<Level, CallError>], now: Instant) {
        let idle = |OpenChannel { channel, accepted, .. }| {
            let before = self.0.get(&channel).filter(|idle| idle.accepted == accepted);
            (channel, *before.unwrap_or(&IdleChannel { accepted, idle_since: now, waiting_since: now }))
        };
        self.0 = open_channels(levels).map(idle).collect();
    }

    /// Returns since when the channel that has stalled longest is idle. Attempts to re-drive it do not count.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.0.values().map(|idle| idle.idle_since).min()
    }

    /// Returns the channels that were idle, and not re-driven, for at least this long.
    pub fn stalled_for(&self, wait: Duration, now: Instant) -> Vec<Channel> {
        let stalled = self.0.iter().filter(|(_, idle)| now.duration_since(idle.waiting_since) >= wait);
        let mut channels: Vec<Channel> = stalled.map(|(channel, _)| *channel).collect();
        channels.sort_unstable();
        channels
    }

    /// Restarts the wait for a channel, because it is being re-driven.
    pub fn restart_wait(&mut self, channel: Channel, now: Instant) {
        self.0.entry(channel).and_modify(|idle| idle.waiting_since = now);
    }
}

/// A channel that holds tokens.
#[derive(Clone, Copy, Debug)]
pub struct OpenChannel {
    /// The channel.
    pub channel: Channel,
    /// Tokens accepted from it, cumulative.
    accepted: u64,
    /// Tokens in the channel.
    pub tokens: u64,
}

/// Returns the channels that hold tokens. Channels with an unreadable end are left out.
pub fn open_channels(levels: &[Result<Level, CallError>]) -> impl Iterator<Item = OpenChannel> {
    (0..).map(ShardId::new).zip(levels).flat_map(move |(donor, level)| {
        let donated = level.as_ref().map_or(&[][..], |level| &level.donated);
        donated.iter().filter_map(move |&(receiver, donated)| {
            let accepted =
                levels.get(receiver.index())?.as_ref().ok()?.accepted_from(TokenSource::Shard(donor));
            let channel = Channel { donor, receiver };
            (accepted < donated).then(|| OpenChannel { channel, accepted, tokens: donated - accepted })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(1);
    const ZERO_TO_ONE: Channel = Channel { donor: ShardId::new(0), receiver: ShardId::new(1) };

    /// Two shards, and a channel from the first to the second.
    fn levels(donated: u64, accepted: u64) -> [Result<Level, CallError>; 2] {
        let donor = Level { donated: vec![(ZERO_TO_ONE.receiver, donated)], ..Level::default() };
        let receiver =
            Level { accepted: vec![(TokenSource::Shard(ZERO_TO_ONE.donor), accepted)], ..Level::default() };
        [Ok(donor), Ok(receiver)]
    }

    fn stalled_after(observations: &[(u64, [Result<Level, CallError>; 2])]) -> Vec<Channel> {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut channels = OpenChannels::default();
        observations.iter().for_each(|(ms, levels)| channels.observe(levels, at(*ms)));
        channels.stalled_for(WAIT, at(observations.last().unwrap().0))
    }

    #[test]
    fn channel_is_stalled_after_the_wait() {
        assert_eq!(stalled_after(&[(0, levels(3, 0))]), []);
        assert_eq!(stalled_after(&[(0, levels(3, 0)), (999, levels(3, 0))]), []);
        assert_eq!(stalled_after(&[(0, levels(3, 0)), (1_000, levels(3, 0))]), [ZERO_TO_ONE]);
    }

    #[test]
    fn only_leaving_tokens_restart_the_wait() {
        assert_eq!(stalled_after(&[(0, levels(3, 0)), (900, levels(5, 2)), (1_000, levels(5, 2))]), []);
        assert_eq!(
            stalled_after(&[(0, levels(3, 0)), (900, levels(5, 0)), (1_000, levels(5, 0))]),
            [ZERO_TO_ONE]
        );
        assert_eq!(stalled_after(&[(0, levels(3, 0)), (500, levels(3, 3)), (1_000, levels(4, 3))]), []);
    }

    #[test]
    fn unreadable_shard_restarts_the_wait() {
        let [donor, _] = levels(3, 0);
        let unreadable = [donor, Err(CallError::NoReply("gone".into()))];
        assert_eq!(stalled_after(&[(0, levels(3, 0)), (1_000, unreadable.clone())]), []);
        assert_eq!(stalled_after(&[(0, levels(3, 0)), (900, unreadable), (1_000, levels(3, 0))]), []);
    }

    #[test]
    fn redriven_channel_waits_again() {
        let start = Instant::now();
        let mut channels = OpenChannels::default();
        channels.observe(&levels(3, 0), start);
        channels.restart_wait(ZERO_TO_ONE, start + WAIT);
        assert_eq!(channels.stalled_for(WAIT, start + WAIT), []);
        assert_eq!(channels.stalled_for(WAIT, start + WAIT * 2), [ZERO_TO_ONE]);
        channels.observe(&levels(3, 0), start + WAIT * 2);
        assert_eq!(channels.stalled_since(), Some(start), "a re-driven channel is still stalled");
    }

    #[test]
    fn channel_to_an_unknown_shard_is_ignored() {
        let donor = Level { donated: vec![(ShardId::new(9), 1)], ..Level::default() };
        assert_eq!(open_channels(&[Ok(donor)]).count(), 0);
    }
}
