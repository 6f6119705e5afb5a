//! The rules of a shard as plain Rust: what the functions must do, readable without knowing Redis.
//!
//! No clock, no network, no numbers as texts. Times are left out: an order id says which purchase a claim is of.

use std::collections::BTreeMap;

use stock::calls::TokenSource;
use stock::ids::{OrderId, ShardId, UserId};
use stock::sale::{SaleState, ShardSettings, Window};

use crate::stage::ALL_THE_TIME;

/// A shard's books.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shard {
    pub(crate) settings: ShardSettings,
    pub(crate) stock: u64,
    pub(crate) sold: u64,
    /// Calls that sold something, each an entry of the order stream.
    pub(crate) entries: Vec<Vec<(UserId, OrderId)>>,
    /// Writes whose only sense is that a barrier behind them proves what was read.
    pub(crate) tick: u64,
    pub(crate) claims: BTreeMap<String, OrderId>,
    pub(crate) accepted: BTreeMap<TokenSource, u64>,
    pub(crate) donated: BTreeMap<ShardId, u64>,
}

/// What a buyer is told; the claim's order where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Bought(OrderId),
    Repeat(OrderId),
    Duplicate(OrderId),
    Empty,
    NotOpen,
}

impl Shard {
    /// A shard as a coordinator makes it: created, minted, opened.
    pub(crate) fn selling(tokens: u64) -> Self {
        let mut shard = Self::default();
        shard.configure(1, SaleState::Creating, ALL_THE_TIME);
        shard.accept(TokenSource::Mint, tokens);
        shard.configure(2, SaleState::Open, ALL_THE_TIME);
        shard
    }

    /// Buyers are served one after the other; a user has one unit at most.
    pub(crate) fn buy(&mut self, attempts: &[(UserId, OrderId)]) -> Vec<Told> {
        let mut entry = Vec::new();
        let told: Vec<Told> = attempts.iter().map(|attempt| self.serve(attempt, &mut entry)).collect();
        if !entry.is_empty() {
            self.entries.push(entry);
        } else if told.iter().any(|told| matches!(told, Told::Repeat(_) | Told::Duplicate(_))) {
            self.tick += 1;
        }
        told
    }

    fn serve(&mut self, attempt: &(UserId, OrderId), entry: &mut Vec<(UserId, OrderId)>) -> Told {
        let (user, order) = attempt;
        match self.claims.get(user.as_str()) {
            Some(held) if held == order => return Told::Repeat(*held),
            Some(held) => return Told::Duplicate(*held),
            None if !self.is_open() => return Told::NotOpen,
            None if self.stock == 0 => return Told::Empty,
            None => {}
        }
        self.stock -= 1;
        self.sold += 1;
        self.claims.insert(user.to_string(), *order);
        entry.push(attempt.clone());
        Told::Bought(*order)
    }

    /// At most half, at least one, and only what is there. Answers all that ever entered the channel.
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

    /// The stock grows by what is new. Answers all that ever left the channel.
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
        self.settings.state == SaleState::Open && self.settings.window == ALL_THE_TIME
    }

    /// Older settings do not apply, and those that are held already only tick.
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
