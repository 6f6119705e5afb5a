//! Channels between shards that hold tokens, and since when nobody fetches them.
//!
//! Whoever steals accepts within milliseconds of the donation. A channel that stays open much longer was left by
//! somebody who died in between, or whose donation was done without an answer.

use std::collections::HashMap;
use std::time::Duration;

use stock::calls::{CallError, Level, TokenSource};
use stock::ids::ShardId;
use tokio::time::Instant;

/// The way of tokens from one shard to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    /// The shard that gave them.
    pub giver: ShardId,
    /// The shard that is to have them.
    pub receiver: ShardId,
}

/// The channels seen open, and since when nothing left them.
#[derive(Clone, Debug, Default)]
pub struct OpenChannels(HashMap<Channel, IdleChannel>);

#[derive(Clone, Copy, Debug)]
struct IdleChannel {
    accepted: u64,
    since: Instant,
    /// When it was last seen to, or since when nobody did.
    waits_since: Instant,
}

impl OpenChannels {
    /// Takes in what was seen of a sale's shards. That more enters a channel does not count as movement: what
    /// lies in it has to leave.
    pub fn observe(&mut self, levels: &[Result<Level, CallError>], now: Instant) {
        let unmoved = |OpenChannel { channel, accepted, .. }| {
            let before = self.0.get(&channel).filter(|unmoved| unmoved.accepted == accepted);
            (channel, *before.unwrap_or(&IdleChannel { accepted, since: now, waits_since: now }))
        };
        self.0 = open_channels(levels).map(unmoved).collect();
    }

    /// Since when nothing has left the channel that stands still longest, however often it was seen to.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.0.values().map(|unmoved| unmoved.since).min()
    }

    /// The channels that nothing left, and nobody saw to, for so long.
    pub fn unmoved_for(&self, wait: Duration, now: Instant) -> Vec<Channel> {
        let stalled = self.0.iter().filter(|(_, unmoved)| now.duration_since(unmoved.waits_since) >= wait);
        let mut channels: Vec<Channel> = stalled.map(|(channel, _)| *channel).collect();
        channels.sort_unstable();
        channels
    }

    /// Lets a channel wait anew: it is being seen to.
    pub fn attend_to(&mut self, channel: Channel, now: Instant) {
        self.0.entry(channel).and_modify(|unmoved| unmoved.waits_since = now);
    }
}

/// A channel that holds tokens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OpenChannel {
    pub(crate) channel: Channel,
    /// What was accepted from it, cumulative.
    accepted: u64,
    /// What lies in it.
    pub(crate) tokens: u64,
}

/// The channels that hold tokens, of those of which both ends could be read.
pub(crate) fn open_channels(levels: &[Result<Level, CallError>]) -> impl Iterator<Item = OpenChannel> {
    (0..).map(ShardId::new).zip(levels).flat_map(move |(giver, level)| {
        let donated = level.as_ref().map_or(&[][..], |level| &level.donated);
        donated.iter().filter_map(move |&(receiver, donated)| {
            let accepted =
                levels.get(receiver.index())?.as_ref().ok()?.accepted_from(TokenSource::Shard(giver));
            let channel = Channel { giver, receiver };
            (accepted < donated).then(|| OpenChannel { channel, accepted, tokens: donated - accepted })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAIT: Duration = Duration::from_secs(1);
    const ZERO_TO_ONE: Channel = Channel { giver: ShardId::new(0), receiver: ShardId::new(1) };

    /// Two shards, and a channel from the first to the second.
    fn levels(donated: u64, accepted: u64) -> [Result<Level, CallError>; 2] {
        let giver = Level { donated: vec![(ZERO_TO_ONE.receiver, donated)], ..Level::default() };
        let receiver =
            Level { accepted: vec![(TokenSource::Shard(ZERO_TO_ONE.giver), accepted)], ..Level::default() };
        [Ok(giver), Ok(receiver)]
    }

    fn seen(sightings: &[(u64, [Result<Level, CallError>; 2])]) -> Vec<Channel> {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut channels = OpenChannels::default();
        sightings.iter().for_each(|(ms, levels)| channels.observe(levels, at(*ms)));
        channels.unmoved_for(WAIT, at(sightings.last().unwrap().0))
    }

    #[test]
    fn a_channel_is_given_its_time() {
        assert_eq!(seen(&[(0, levels(3, 0))]), []);
        assert_eq!(seen(&[(0, levels(3, 0)), (999, levels(3, 0))]), []);
        assert_eq!(seen(&[(0, levels(3, 0)), (1_000, levels(3, 0))]), [ZERO_TO_ONE]);
    }

    #[test]
    fn tokens_that_leave_are_movement_and_tokens_that_enter_are_not() {
        assert_eq!(seen(&[(0, levels(3, 0)), (900, levels(5, 2)), (1_000, levels(5, 2))]), []);
        assert_eq!(seen(&[(0, levels(3, 0)), (900, levels(5, 0)), (1_000, levels(5, 0))]), [ZERO_TO_ONE]);
        assert_eq!(seen(&[(0, levels(3, 0)), (500, levels(3, 3)), (1_000, levels(4, 3))]), []);
    }

    #[test]
    fn an_end_that_cannot_be_read_starts_the_wait_anew() {
        let [giver, _] = levels(3, 0);
        let unreadable = [giver, Err(CallError::NoReply("gone".into()))];
        assert_eq!(seen(&[(0, levels(3, 0)), (1_000, unreadable.clone())]), []);
        assert_eq!(seen(&[(0, levels(3, 0)), (900, unreadable), (1_000, levels(3, 0))]), []);
    }

    #[test]
    fn a_channel_that_is_seen_to_waits_anew() {
        let start = Instant::now();
        let mut channels = OpenChannels::default();
        channels.observe(&levels(3, 0), start);
        channels.attend_to(ZERO_TO_ONE, start + WAIT);
        assert_eq!(channels.unmoved_for(WAIT, start + WAIT), []);
        assert_eq!(channels.unmoved_for(WAIT, start + WAIT * 2), [ZERO_TO_ONE]);
        channels.observe(&levels(3, 0), start + WAIT * 2);
        assert_eq!(channels.stalled_since(), Some(start), "and is no less stalled for it");
    }

    #[test]
    fn a_channel_to_a_shard_that_is_not_there_is_nobody_s() {
        let giver = Level { donated: vec![(ShardId::new(9), 1)], ..Level::default() };
        assert_eq!(open_channels(&[Ok(giver)]).count(), 0);
    }
}
