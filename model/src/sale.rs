//! A sale small enough for an exhaustive search: its sizes, and the model for the checker.

use stateright::{Model, Property};

use crate::actions::{self, Action};
use crate::contents::{SHARDS, ShardContents, USERS};
use crate::properties;
use crate::protocol::Protocol;
use crate::shard::Shard;
use crate::state::{LevelReadings, ReportedToUser, State};
use crate::steps;
use crate::symmetry::representative;

/// Sizes of the modelled sale, and its protocol.
#[derive(Clone, Debug)]
pub struct SaleModel {
    /// The home shard of each user; at most [`USERS`].
    pub homes: Vec<usize>,
    /// Tokens minted to each shard.
    pub minted: [i8; SHARDS],
    /// Number of failovers, of any shards.
    pub failovers: u8,
    /// Maximum number of tokens that each channel carries. Without a bound two shards could pass a token back and
    /// forth forever.
    pub moves_max: i8,
    /// Number of servers outside the cluster that may copy a primary, at most one per primary.
    pub external_copiers: u8,
    /// True when an answer may be read later than it is given.
    pub answers_wait: bool,
    /// True when an audit runs.
    pub is_audited: bool,
    /// True when crashes, lost answers, readings of levels and replicas that catch up are separate steps. These steps
    /// only remove what the others allow, so the checker finds nothing new with them. This setting checks that claim.
    pub is_spelled_out: bool,
    /// The protocol.
    pub protocol: Protocol,
    /// True when states that differ only in names count as one. The search is faster, but its counterexamples are
    /// hard to follow, because names change along the path.
    pub by_symmetry: bool,
}

impl SaleModel {
    /// Two shards with two users each, three tokens, two failovers.
    pub fn complete() -> Self {
        Self {
            homes: vec![0, 0, 1, 1],
            minted: [2, 1],
            failovers: 2,
            moves_max: 2,
            external_copiers: 0,
            answers_wait: false,
            is_audited: false,
            is_spelled_out: false,
            protocol: Protocol::complete(),
            by_symmetry: true,
        }
    }

    /// One unit and three failovers, with answers that wait. Without symmetry, because an answer names its user.
    pub fn with_answers_that_wait() -> Self {
        Self {
            homes: vec![0, 1],
            minted: [1, 0],
            failovers: 3,
            moves_max: 1,
            answers_wait: true,
            by_symmetry: false,
            ..Self::complete()
        }
    }

    /// Total units of the sale.
    pub fn total(&self) -> i8 {
        self.minted.iter().sum()
    }

    /// The initial state: every shard and its replica hold the minted tokens.
    pub fn opening(&self) -> State {
        assert!(self.homes.len() <= USERS, "the model has room for {USERS} users");
        assert!(self.moves_max < 8, "hands hold values up to 7");
        let mut state = State {
            shards: std::array::from_fn(|shard| Shard::new(ShardContents::minted(shard, self.minted[shard]))),
            held_values: Default::default(),
            readings: LevelReadings::default(),
            reported: [ReportedToUser::default(); USERS],
            failovers_left: self.failovers,
            audit: None,
            found_token: Default::default(),
            unread: None,
            found_empty: Default::default(),
        };
        state.read_levels(self.protocol);
        state
    }
}

impl Model for SaleModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        vec![self.opening()]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions::possible(self, state, actions);
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let next = steps::after(self, state, action);
        let next = if self.by_symmetry { representative(&self.homes, next) } else { next };
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}
