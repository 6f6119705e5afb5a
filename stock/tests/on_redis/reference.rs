//! The rules of a shard in plain Rust: a specification of the functions that needs no knowledge of Redis.
//!
//! It has no clock, no network, and no numbers as texts. Times are left out: an order id identifies the purchase of a
//! claim.

use std::collections::BTreeMap;

use stock::calls::TokenSource;
use stock::ids::{OrderId, ShardId, UserId};
use stock::sale::{SaleState, ShardSettings, Window};

use crate::fixture::ALWAYS;

/// The contents of a shard.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    /// How many shards were made with these keys.
    pub(crate) made: u32,
    pub(crate) is_lost: bool,
    pub(crate) settings: ShardSettings,
    pub(crate) stock: u64,
    pub(crate) sold: u64,
    /// Calls that sold something. Each is an entry of the order stream.
    pub(crate) entries: Vec<Vec<(UserId, OrderId)>>,
    /// Writes whose only purpose is that a barrier after them covers what was read.
    pub(crate) tick: u64,
    pub(crate) claims: BTreeMap<String, OrderId>,
    pub(crate) accepted: BTreeMap<TokenSource, u64>,
    pub(crate) donated: BTreeMap<ShardId, u64>,
}

/// Why a call for the open sale is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    NoShard,
    /// It is not the shard that was opened.
    OtherIncarnation,
}

/// Outcome of an attempt, with the order id of the claim if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Bought(OrderId),
    Repeat(OrderId),
    Duplicate(OrderId),
    Empty,
    NotOpen,
}

impl Shard {
    /// Creates a shard as a coordinator does: created, minted, opened.
    pub(crate) fn selling(tokens: u64) -> Self {
        let mut shard = Self { made: 1, ..Self::default() };
        shard.configure(1, SaleState::Creating, ALWAYS);
        shard.accept(TokenSource::Mint, tokens);
        shard.configure(2, SaleState::Open, ALWAYS);
        shard
    }

    /// Both servers lose their data.
    pub(crate) fn lose(&mut self) {
        *self = Self { made: self.made, is_lost: true, ..Self::default() };
    }

    /// A coordinator that has missed that the sale is open creates and mints it.
    pub(crate) fn create_late(&mut self, tokens: u64) {
        if self.is_lost {
            *self = Self { made: self.made + 1, ..Self::default() };
        }
        self.configure(1, SaleState::Creating, ALWAYS);
        self.accept(TokenSource::Mint, tokens);
    }

    /// Returns why the shard refuses every call for the open sale.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self { is_lost: true, .. } => Some(Refusal::NoShard),
            Self { made: 1, .. } => None,
            _ => Some(Refusal::OtherIncarnation),
        }
    }

    /// Serves buyers one after the other. A user gets one unit at most.
    pub(crate) fn buy(&mut self, attempts: &[(UserId, OrderId)]) -> Vec<Outcome> {
        let mut entry = Vec::new();
        let outcomes: Vec<Outcome> = attempts.iter().map(|attempt| self.serve(attempt, &mut entry)).collect();
        if !entry.is_empty() {
            self.entries.push(entry);
        } else if outcomes
            .iter()
            .any(|outcomes| matches!(outcomes, Outcome::Repeat(_) | Outcome::Duplicate(_)))
        {
            self.tick += 1;
        }
        outcomes
    }

    fn serve(&mut self, attempt: &(UserId, OrderId), entry: &mut Vec<(UserId, OrderId)>) -> Outcome {
        let (user, order) = attempt;
        match self.claims.get(user.as_str()) {
            Some(held) if held == order => return Outcome::Repeat(*held),
            Some(held) => return Outcome::Duplicate(*held),
            None if !self.is_open() => return Outcome::NotOpen,
            None if self.stock == 0 => return Outcome::Empty,
            None => {}
        }
        self.stock -= 1;
        self.sold += 1;
        self.claims.insert(user.to_string(), *order);
        entry.push(attempt.clone());
        Outcome::Bought(*order)
    }

    /// Gives at most half of the stock and at least one token, if there is one. Returns the cumulative value of the
    /// channel.
    pub(crate) fn donate(&mut self, to: ShardId, want: u64) -> u64 {
        let given = want.min(self.stock).min((self.stock / 2).max(1));
        let before = self.donated.get(&to).copied().unwrap_or(0);
        if given > 0 {
            self.stock -= given;
            self.donated.insert(to, before + given);
        } else if before > 0 {
            self.tick += 1;
        }
        before + given
    }

    /// Adds the difference to the stock. Returns the cumulative value that has left the channel.
    pub(crate) fn accept(&mut self, from: TokenSource, cumulative: u64) -> u64 {
        let before = self.accepted.get(&from).copied().unwrap_or(0);
        let after = before.max(cumulative);
        self.stock += after - before;
        if after > before {
            self.accepted.insert(from, after);
        } else {
            self.tick += 1;
        }
        after
    }

    fn is_open(&self) -> bool {
        self.settings.state == SaleState::Open && self.settings.window == ALWAYS
    }

    /// Ignores older settings. Equal settings only write `tick`.
    pub(crate) fn configure(&mut self, version: u64, state: SaleState, window: Window) -> ShardSettings {
        let given = ShardSettings { version, state, window };
        if version < self.settings.version || given == self.settings {
            self.tick += 1;
        } else {
            self.settings = given;
        }
        self.settings
    }

    pub(crate) fn find(&mut self, users: &[UserId]) -> Vec<Option<OrderId>> {
        let found: Vec<_> = users.iter().map(|user| self.claims.get(user.as_str()).copied()).collect();
        self.tick += u64::from(found.iter().any(Option::is_some));
        found
    }
}
