//! Plans the steps that bring a sale's shards to the recorded state. Pure.
//!
//! Each plan is made from the record and the latest observation alone, and each step may run twice. So a coordinator
//! that dies leaves nothing behind that the next one would have to know.

use rediscluster::CallError;
use stock::calls::{Level, TokenSource};
use stock::channels::Channel;
use stock::ids::ShardId;
use stock::layout::Shard;
use stock::sale::{SaleState, VERSIONS_AHEAD_MAX};

use crate::desired_state::DesiredState;

/// A step of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PlanStep {
    /// Brings a shard to the recorded settings. Creates the shard if the sale is being created.
    Configure(ShardId),
    /// Mints the tokens that a shard lacks.
    Mint(ShardId),
    /// Moves the tokens in a channel to its receiver.
    Redrive(Channel),
    /// Opens the sale: every shard exists and holds its stock.
    Open,
    /// Records the sale unchanged with this version, which is higher than that of every shard. Shards that are ahead of
    /// the record, because a newer one was lost, then follow it again.
    RaiseVersion(u64),
    /// Removes all shards of an archived sale.
    Remove,
}

/// Returns the steps that are left to do. `stalled` are the channels to re-drive.
///
/// A missing shard of a sale that was open is never recreated: minting its tokens again would sell them twice.
pub fn plan(
    desired: &DesiredState,
    levels: &[Result<Level, CallError>],
    stalled: &[Channel],
) -> Vec<PlanStep> {
    if let Some(archive) = desired.sale.config.archive {
        return if archive.is_removed { Vec::new() } else { vec![PlanStep::Remove] };
    }
    let shards = desired.sale.shards().iter().map(|shard| shard.id).zip(levels).zip(&desired.mint);
    let mut steps: Vec<PlanStep> =
        shards.flat_map(|((shard, level), &minted)| plan_shard(desired, shard, level, minted)).collect();
    steps.extend(version_above(desired, levels).map(PlanStep::RaiseVersion));
    steps.extend(stalled.iter().map(|&channel| PlanStep::Redrive(channel)));
    if is_creating(desired) && steps.is_empty() && levels.iter().all(Result::is_ok) {
        steps.push(PlanStep::Open);
    }
    steps
}

fn plan_shard(
    desired: &DesiredState,
    shard: ShardId,
    level: &Result<Level, CallError>,
    minted: u64,
) -> impl Iterator<Item = PlanStep> {
    let recorded = desired.sale.config.shard_settings();
    let (is_behind, is_short) = match level {
        Ok(level) if !desired.sale.shard(shard).accepts(&level.ring) => (false, false),
        Ok(level) => (
            level.settings != recorded
                && (level.settings.version <= recorded.version || is_impossible(level, recorded.version)),
            level.accepted_from(TokenSource::Mint) < minted,
        ),
        Err(CallError::NoShard) => (is_creating(desired), false),
        Err(_) => (false, false),
    };
    let configure = is_behind.then_some(PlanStep::Configure(shard));
    configure.into_iter().chain(is_short.then_some(PlanStep::Mint(shard)))
}

/// Returns a version above that of each shard, if one is ahead of the record. A shard of another ring does not count: it
/// belongs to another sale of the same name, or was made again after it was lost.
fn version_above(desired: &DesiredState, levels: &[Result<Level, CallError>]) -> Option<u64> {
    let shards = desired.sale.shards().iter().zip(levels);
    let recorded = desired.sale.config.version;
    let is_own = |shard: &Shard, level: &Level| shard.accepts(&level.ring) && !is_impossible(level, recorded);
    let own = shards.filter_map(|(shard, level)| level.as_ref().ok().filter(|level| is_own(shard, level)));
    let highest = own.map(|level| level.settings.version).max()?;
    (highest > recorded).then(|| highest.checked_add(1)).flatten()
}

/// Returns true if no coordinator gave the shard this version. The shard is configured again.
fn is_impossible(level: &Level, recorded: u64) -> bool {
    level.settings.version > recorded.saturating_add(VERSIONS_AHEAD_MAX)
}

fn is_creating(desired: &DesiredState) -> bool {
    desired.sale.config.state == SaleState::Creating
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stock::archive::Archive;
    use stock::channels::open_channels;
    use stock::sale::{SaleConfig, ShardSettings};

    use super::*;
    use crate::testing::recorded;

    const fn shard(index: u16) -> ShardId {
        ShardId::new(index)
    }

    fn converged(desired: &DesiredState) -> Vec<Result<Level, CallError>> {
        crate::testing::converged(desired).into_iter().map(Ok).collect()
    }

    #[test]
    fn converged_sale_needs_no_steps() {
        for state in [SaleState::Open, SaleState::Paused, SaleState::Ended] {
            let sale = recorded(state, 3);
            assert_eq!(plan(&sale, &converged(&sale), &[]), []);
        }
    }

    #[test]
    fn new_sale_is_configured_then_minted_then_opened() {
        let sale = recorded(SaleState::Creating, 2);
        let nothing = vec![Err(CallError::NoShard), Err(CallError::NoShard)];
        assert_eq!(
            plan(&sale, &nothing, &[]),
            [PlanStep::Configure(shard(0)), PlanStep::Configure(shard(1))]
        );

        let mut made = converged(&sale);
        let last = made[1].as_mut().unwrap();
        (last.stock, last.accepted) = (0, Vec::new());
        assert_eq!(plan(&sale, &made, &[]), [PlanStep::Mint(shard(1))]);
        assert_eq!(plan(&sale, &converged(&sale), &[]), [PlanStep::Open]);
    }

    #[test]
    fn sale_does_not_open_while_shard_unreadable() {
        let sale = recorded(SaleState::Creating, 2);
        let mut levels = converged(&sale);
        levels[0] = Err(CallError::NoReply("gone".into()));
        assert_eq!(plan(&sale, &levels, &[]), []);
    }

    #[test]
    fn missing_shard_is_never_recreated() {
        for state in [SaleState::Open, SaleState::Paused, SaleState::Ended] {
            let sale = recorded(state, 2);
            let mut levels = converged(&sale);
            levels[1] = Err(CallError::NoShard);
            assert_eq!(plan(&sale, &levels, &[]), [], "{state:?}");
        }
    }

    #[test]
    fn archived_sale_is_removed_and_then_left_alone() {
        let archived = |is_removed| {
            let ended = recorded(SaleState::Ended, 2);
            let archive = Some(Archive { sold: 1, is_removed });
            let config = SaleConfig { state: SaleState::Archived, archive, ..(*ended.sale.config).clone() };
            DesiredState { sale: ended.sale.at(config).unwrap(), ..ended }
        };
        let gone = [Err(CallError::NoShard), Err(CallError::NoShard)];
        for levels in [&converged(&recorded(SaleState::Ended, 2))[..], &gone] {
            assert_eq!(plan(&archived(false), levels, &[]), [PlanStep::Remove]);
            assert_eq!(plan(&archived(true), levels, &[]), []);
        }
    }

    #[test]
    fn shard_gets_newer_version_and_larger_mint() {
        let mut sale = recorded(SaleState::Open, 2);
        let levels = converged(&sale);
        sale.mint[0] += 1;
        assert_eq!(plan(&sale, &levels, &[]), [PlanStep::Mint(shard(0))]);
        let mut config = (*sale.sale.config).clone();
        config.version += 1;
        sale.sale = sale.sale.at(config).unwrap();
        let expected =
            [PlanStep::Configure(shard(0)), PlanStep::Mint(shard(0)), PlanStep::Configure(shard(1))];
        assert_eq!(plan(&sale, &levels, &[]), expected);
    }

    #[test]
    fn shard_with_other_settings_is_reconfigured() {
        let sale = recorded(SaleState::Open, 2);
        let mut levels = converged(&sale);
        levels[1].as_mut().unwrap().settings.state = SaleState::Paused;
        assert_eq!(plan(&sale, &levels, &[]), [PlanStep::Configure(shard(1))]);
        levels[1].as_mut().unwrap().settings = sale.sale.config.shard_settings();
        levels[0].as_mut().unwrap().settings.window.ends_at += 1;
        assert_eq!(plan(&sale, &levels, &[]), [PlanStep::Configure(shard(0))]);
    }

    #[test]
    fn record_behind_its_shards_is_raised() {
        let sale = recorded(SaleState::Open, 2);
        let mut levels = converged(&sale);
        levels[1].as_mut().unwrap().settings.version = 9;
        assert_eq!(plan(&sale, &levels, &[]), [PlanStep::RaiseVersion(10)]);
    }

    #[test]
    fn overminted_shard_keeps_its_tokens() {
        let sale = recorded(SaleState::Open, 1);
        let mut levels = converged(&sale);
        levels[0].as_mut().unwrap().accepted = vec![(TokenSource::Mint, 1_000)];
        assert_eq!(plan(&sale, &levels, &[]), []);
    }

    #[test]
    fn shard_of_another_ring_is_ignored() {
        let sale = recorded(SaleState::Open, 1);
        let foreign = Level { ring: "another".into(), ..converged(&sale).remove(0).unwrap() };
        for version in [0, 1, 9] {
            let settings = ShardSettings { version, ..foreign.settings };
            assert_eq!(plan(&sale, &[Ok(Level { settings, ..foreign.clone() })], &[]), []);
        }
    }

    #[test]
    fn stalled_channel_is_redriven() {
        let sale = recorded(SaleState::Open, 2);
        let channel = Channel { donor: shard(0), receiver: shard(1) };
        assert_eq!(plan(&sale, &converged(&sale), &[channel]), [PlanStep::Redrive(channel)]);
    }

    /// A minimal model of shards: the rules of `configure`, `accept` and `donate`, and nothing else.
    #[derive(Clone, Debug)]
    struct Model {
        shards: Vec<Option<Level>>,
    }

    impl Model {
        fn levels(&self) -> Vec<Result<Level, CallError>> {
            self.shards.iter().map(|level| level.clone().ok_or(CallError::NoShard)).collect()
        }

        fn donate(&mut self, channel: Channel, want: u64) {
            let Some(donor) = &mut self.shards[channel.donor.index()] else { return };
            let given = want.min(donor.stock);
            donor.stock -= given;
            let out = donated_to(donor, channel.receiver);
            donor.donated.retain(|(to, _)| *to != channel.receiver);
            donor.donated.push((channel.receiver, out + given));
        }

        fn accept(&mut self, receiver: ShardId, source: TokenSource, cumulative: u64) {
            let Some(level) = &mut self.shards[receiver.index()] else { return };
            let before = level.accepted_from(source);
            level.stock += cumulative.saturating_sub(before);
            level.accepted.retain(|(from, _)| *from != source);
            level.accepted.push((source, before.max(cumulative)));
        }

        /// Applies a step that was planned on top of `based_on`, which may be outdated.
        fn apply(&mut self, step: PlanStep, based_on: &DesiredState, record: &mut DesiredState) {
            match step {
                PlanStep::Configure(shard) => {
                    let new = || Level { ring: based_on.sale.shards()[0].ring.clone(), ..Level::default() };
                    let level = self.shards[shard.index()].get_or_insert_with(new);
                    let settings = based_on.sale.config.shard_settings();
                    if settings.version >= level.settings.version {
                        level.settings = settings;
                    }
                }
                PlanStep::Mint(shard) => self.accept(shard, TokenSource::Mint, based_on.mint[shard.index()]),
                PlanStep::Redrive(Channel { donor, receiver }) => {
                    let out =
                        self.shards[donor.index()].as_ref().map_or(0, |level| donated_to(level, receiver));
                    self.accept(receiver, TokenSource::Shard(donor), out);
                }
                PlanStep::Open => {
                    advance(based_on, record, based_on.sale.config.version + 1, SaleState::Open);
                }
                PlanStep::RaiseVersion(version) => {
                    advance(based_on, record, version, based_on.sale.config.state);
                }
                PlanStep::Remove => unreachable!("no sale of this test is archived"),
            }
        }

        /// Gives an existing shard settings that no record has.
        fn jolt(&mut self, shard: usize, versions_ahead: u64) {
            if let Some(Some(level)) = self.shards.get_mut(shard) {
                level.settings.version += versions_ahead;
                level.settings.state = SaleState::Paused;
            }
        }

        fn stalled(&self) -> Vec<Channel> {
            open_channels(&self.levels()).map(|open| open.channel).collect()
        }

        fn stock(&self) -> u64 {
            self.shards.iter().flatten().map(|level| level.stock).sum()
        }
    }

    /// The rule of `record`: it changes nothing if the current version is not the one it is based on.
    fn advance(based_on: &DesiredState, record: &mut DesiredState, version: u64, state: SaleState) {
        if record.sale.config.version == based_on.sale.config.version {
            let config = SaleConfig { version, state, ..(*based_on.sale.config).clone() };
            record.sale = record.sale.at(config).unwrap();
        }
    }

    fn donated_to(level: &Level, receiver: ShardId) -> u64 {
        level.donated.iter().find(|(to, _)| *to == receiver).map_or(0, |(_, tokens)| *tokens)
    }

    proptest! {
        /// Several coordinators apply plans of which any step may be lost, repeated or late. Nodes die in the middle of
        /// steals, and shards get unrecorded settings. Still the sale opens, with every unit in a shard.
        #[test]
        fn sale_converges_when_plans_are_lost_or_repeated(
            shards in 1..=5_usize,
            done in prop::collection::vec(any::<bool>(), 0..40),
            thefts in prop::collection::vec((0..5_u16, 0..5_u16, 0..30_u64), 0..10),
            jolts in prop::collection::vec((0..5_usize, 0..4_u64), 0..6),
        ) {
            let mut desired = recorded(SaleState::Creating, shards);
            let mut model = Model { shards: vec![None; shards] };
            let mut late = (Vec::new(), desired.clone());
            let mut done = done.into_iter();
            let (mut thefts, mut jolts) = (thefts.into_iter(), jolts.into_iter());
            loop {
                let (steps, known) = (plan(&desired, &model.levels(), &model.stalled()), desired.clone());
                if steps.is_empty() && thefts.len() + jolts.len() == 0 {
                    break;
                }
                for &step in &steps {
                    if done.next().unwrap_or(true) {
                        model.apply(step, &known, &mut desired);
                    }
                }
                // Another coordinator applies its plan of the previous round, based on the record of that time.
                let (steps, known) = std::mem::replace(&mut late, (steps, known));
                steps.into_iter().for_each(|step| model.apply(step, &known, &mut desired));
                if let Some((shard, versions_ahead)) = jolts.next() {
                    model.jolt(shard, versions_ahead);
                }
                if desired.sale.config.state == SaleState::Open
                    && let Some((donor, receiver, want)) = thefts.next()
                    && donor != receiver && usize::from(donor.max(receiver)) < shards
                {
                    model.donate(Channel { donor: shard(donor), receiver: shard(receiver) }, want);
                }
            }
            prop_assert_eq!(desired.sale.config.state, SaleState::Open);
            prop_assert_eq!(model.stock(), 100);
            let settings = desired.sale.config.shard_settings();
            prop_assert!(model.shards.iter().flatten().all(|level| level.settings == settings));
        }
    }
}
