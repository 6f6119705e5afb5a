//! A sale small enough to try everything: its sizes, and the model that the checker walks.

use stateright::{Model, Property};

use crate::actions::{self, Action};
use crate::contents::{SHARDS, ShardContents, USERS};
use crate::properties;
use crate::protocol::Protocol;
use crate::shard::Shard;
use crate::state::{LevelReadings, Reported, State};
use crate::steps;
use crate::symmetry::representative;

/// What is tried: how many of everything, and by which protocol.
#[derive(Clone, Debug)]
pub struct Sale {
    /// The home shard of each user; at most [`USERS`].
    pub homes: Vec<usize>,
    /// Tokens minted to each shard.
    pub minted: [i8; SHARDS],
    /// Failovers, of whatever shards.
    pub failovers: u8,
    /// Tokens that each channel may carry. Without a bound two shards could pass a token to and fro for ever.
    pub moves_max: i8,
    /// Servers outside the cluster that may copy a primary, one a primary.
    pub outsiders: u8,
    /// Whether an answer may be read later than it is given.
    pub answers_wait: bool,
    /// Whether an audit is held.
    pub is_audited: bool,
    /// Whether crashes, lost answers, readings and replicas that catch up are steps of their own. They only take
    /// away what the other steps allow, so a checker that knows them finds nothing more; this is how that is tried.
    pub is_spelled_out: bool,
    /// The protocol.
    pub protocol: Protocol,
    /// Whether states that differ in names only are taken for one. Makes the checker faster and its stories hard to
    /// follow: names change on the way.
    pub by_symmetry: bool,
}

impl Sale {
    /// Two shards at which two users each are at home, three tokens, two failovers.
    pub fn sound() -> Self {
        Self {
            homes: vec![0, 0, 1, 1],
            minted: [2, 1],
            failovers: 2,
            moves_max: 2,
            outsiders: 0,
            answers_wait: false,
            is_audited: false,
            is_spelled_out: false,
            protocol: Protocol::sound(),
            by_symmetry: true,
        }
    }

    /// A sale of one unit and three failovers, in which answers wait. Without symmetry, because an answer names its user.
    pub fn with_answers_that_wait() -> Self {
        Self {
            homes: vec![0, 1],
            minted: [1, 0],
            failovers: 3,
            moves_max: 1,
            answers_wait: true,
            by_symmetry: false,
            ..Self::sound()
        }
    }

    /// Units of the sale in all.
    pub fn total(&self) -> i8 {
        self.minted.iter().sum()
    }

    /// The sale as it opens: every shard holds what was minted to it, and its replica knows.
    pub fn opening(&self) -> State {
        assert!(self.homes.len() <= USERS, "the model has room for {USERS} users");
        assert!(self.moves_max < 8, "hands hold values up to 7");
        let mut state = State {
            shards: std::array::from_fn(|shard| Shard::new(ShardContents::minted(shard, self.minted[shard]))),
            hands: Default::default(),
            seen: LevelReadings::default(),
            told: [Reported::default(); USERS],
            failovers_left: self.failovers,
            audit: None,
            looked: Default::default(),
            unread: None,
            found_empty: Default::default(),
        };
        state.read_levels(self.protocol);
        state
    }
}

impl Model for Sale {
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
