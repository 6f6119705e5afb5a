//! The audit of the journal: compares the answers to buyers and operators with the sale in Redis and with each other.
//!
//! A pure function. Each row of [`RULES`] has a test that fails without it. The rules for operators are in
//! [`operator_rules`].
//!
//! Two clocks are used. A claim's time and the sale's window are by the shard's clock. The answers to buyers are
//! compared with those to operators by the journal's clock alone: an answer that is written before a request is sent
//! came before that request.

mod operations;
mod operator_rules;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::Serialize;
use stock::sale::SaleState;

use crate::{
    AnswerKind, Claim, FinalState,
    journal::{Exchange, JournalEntry, Micros, exchanges},
};
use operations::Operations;

#[cfg(test)]
mod tests;

/// Rule that a client breaks itself when it gives up.
pub const UNRESOLVED: &str = "every attempt has a definite answer in the end";

/// Time after the end during which nodes still look for a claim: a minute, minus a second for differences of their
/// clocks.
const CLAIM_LOOKUP_AFTER_END: Micros = 59_000_000;

/// Precision of a claim's time: one millisecond.
const CLAIM_PRECISION: Micros = 1_000;

/// Tolerance between the clocks of journal and shards near the start and end of the window. Both are this machine's,
/// but a shard uses the time at which it reads the call.
const WINDOW_TOLERANCE: Micros = 1_000_000;

/// A broken promise, with the journal lines that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the broken rule.
    pub rule: &'static str,
    /// Description of the violation.
    pub what: String,
    /// The journal's lines of that user or operator.
    pub lines: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Name of a rule, and the condition under which a request and its answer break it.
type Rule = (&'static str, fn(&SaleHistory, &UserHistory<'_>, &Exchange<'_>) -> bool);

const RULES: [Rule; 12] = [
    ("a reported purchase has a claim with the same order", |_, user, exchange| {
        exchange.order().is_some_and(|order| user.claimed_order() != Some(order))
    }),
    // Tries with the same key are one purchase, and each try without a key is its own.
    ("a user buys at most once", |_, user, exchange| {
        exchange.is(AnswerKind::Purchased) && user.first_purchase != Some(exchange.purchase())
    }),
    ("a purchase is reported with its attempt's own order", |_, _, exchange| {
        exchange.is(AnswerKind::Purchased)
            && exchange.own_order().is_some_and(|own| exchange.order() != Some(own))
    }),
    // The time of the claim counts, even if the claim was reported later.
    ("a user with a unit is not refused", |sale, user, exchange| {
        let tolerance = sale.operations.clock_error + CLAIM_PRECISION;
        sale.denies(exchange)
            && user.claim.is_some_and(|claim| exchange.invoked.at > claim.at_ms * 1_000 + tolerance)
    }),
    ("a reported purchase is not denied later", |sale, user, exchange| {
        sale.denies(exchange) && user.reported_at.is_some_and(|since| exchange.invoked.at >= since)
    }),
    ("an attempt is not refused for its own order", |_, _, exchange| {
        exchange.is(AnswerKind::AlreadyPurchased)
            && exchange.own_order().is_some_and(|own| exchange.order() == Some(own))
    }),
    ("a refused attempt has no claim", |sale, user, exchange| {
        sale.denies(exchange) && exchange.own_order().is_some_and(|own| user.claimed_order() == Some(own))
    }),
    (UNRESOLVED, |_, user, exchange| {
        let last = user.attempt_of(exchange).map(|attempt| attempt.last_request);
        !exchange.kind().is_definite() && last == Some(exchange.invoked.request)
    }),
    ("an open sale is not reported as not active", |sale, _, exchange| {
        exchange.is(AnswerKind::NotActive)
            && sale.is_certainly_open(exchange.invoked.at, exchange.answered_at())
    }),
    // An attempt that began after a confirmed pause was answered `purchased` before the next change.
    ("no unit is sold during a pause", |sale, user, exchange| {
        let began = user.attempt_of(exchange).map_or(exchange.invoked.at, |attempt| attempt.began);
        exchange.is(AnswerKind::Purchased)
            && !sale.operations.states(began, exchange.answered_at()).contains(&SaleState::Open)
    }),
    // At most those users have had a unit who have a claim in the end, and had requested the purchase by then.
    ("sold out is reported only when every unit is sold", |sale, _, exchange| {
        let sold = || sale.requested.partition_point(|at| *at <= exchange.answered_at()) as u64;
        exchange.is(AnswerKind::SoldOut)
            && sale.operations.total_at(exchange.invoked.at).is_some_and(|total| sold() < total)
    }),
    ("a created sale is found", |sale, _, exchange| {
        exchange.is(AnswerKind::NoSale)
            && sale.operations.created.is_some_and(|(_, _, known)| exchange.invoked.at > known)
    }),
];

/// Returns every broken promise in the journal of one sale, given the sale's final state.
pub fn violations(records: &[JournalEntry], final_state: &FinalState) -> Vec<Violation> {
    let users = histories(records, &final_state.claims);
    let sale = SaleHistory::of(records, &users);
    // Operators' violations come first, because they are few and only the first violations are listed.
    let mut found = operator_rules::violations(records, &sale.operations, final_state);
    for user in &users {
        found.extend(RULES.iter().filter_map(|(rule, breaks)| {
            let exchange = user.exchanges.iter().find(|exchange| breaks(&sale, user, exchange))?;
            Some(Violation { rule, what: user.describe(exchange), lines: user.lines() })
        }));
        found.extend(sale.sale_outside_window(user));
    }
    let known = |user: &str| users.binary_search_by_key(&user, |history| history.user).is_ok();
    found.extend(final_state.claims.keys().filter(|user| !known(user)).map(|user| Violation {
        rule: "every claim belongs to a user who sent a request",
        what: format!("{user} has a claim and sent no request"),
        lines: Vec::new(),
    }));
    found
}

/// Requests and claim of one user.
struct UserHistory<'a> {
    user: &'a str,
    exchanges: Vec<Exchange<'a>>,
    claim: Option<&'a Claim>,
    /// Time of the first answer with an order.
    reported_at: Option<Micros>,
    /// The first purchase that was reported.
    first_purchase: Option<Purchase<'a>>,
    attempts: HashMap<&'a str, Attempt>,
}

/// An attempt to buy, with all its tries.
struct Attempt {
    /// Time of the first request.
    began: Micros,
    /// Number of the last request.
    last_request: u64,
}

/// Name of a purchase: its key, or else the number of its request.
#[derive(PartialEq)]
enum Purchase<'a> {
    Key(&'a str),
    Request(u64),
}

/// Changes and purchases of the whole sale.
struct SaleHistory {
    operations: Operations,
    /// Time from which nodes refuse without looking for a claim.
    over_at: Micros,
    /// Times at which the purchases with a claim were first requested, in order.
    requested: Vec<Micros>,
}

/// Returns the history of each user who sent a request, in the order of their ids.
fn histories<'a>(records: &'a [JournalEntry], claims: &'a HashMap<String, Claim>) -> Vec<UserHistory<'a>> {
    let mut by_user: BTreeMap<&str, Vec<Exchange<'_>>> = BTreeMap::new();
    for exchange in exchanges(records) {
        by_user.entry(&exchange.invoked.user).or_default().push(exchange);
    }
    by_user.into_iter().map(|(user, exchanges)| UserHistory::of(user, exchanges, claims.get(user))).collect()
}

impl<'a> UserHistory<'a> {
    fn of(user: &'a str, exchanges: Vec<Exchange<'a>>, claim: Option<&'a Claim>) -> Self {
        let reported_at = exchanges.iter().filter(|e| e.order().is_some()).map(Exchange::answered_at).min();
        let first_purchase = exchanges.iter().find(|e| e.is(AnswerKind::Purchased)).map(Exchange::purchase);
        let mut attempts: HashMap<&str, Attempt> = HashMap::new();
        for Exchange { invoked, .. } in &exchanges {
            let Some((name, _)) = invoked.ask.attempt() else { continue };
            let attempt = attempts.entry(name).or_insert(Attempt { began: invoked.at, last_request: 0 });
            attempt.last_request = invoked.request;
        }
        Self { user, exchanges, claim, reported_at, first_purchase, attempts }
    }

    fn claimed_order(&self) -> Option<&str> {
        self.claim.map(|claim| claim.order.as_str())
    }

    fn attempt_of(&self, exchange: &Exchange<'_>) -> Option<&Attempt> {
        exchange.invoked.ask.attempt().and_then(|(name, _)| self.attempts.get(name))
    }

    /// Returns the time of the first request of the attempt with the claim, or of any attempt if the user sends no
    /// keys.
    fn claim_requested_at(&self) -> Option<Micros> {
        let order = self.claimed_order()?;
        let own = self.exchanges.iter().find(|exchange| exchange.own_order() == Some(order));
        let first = || self.exchanges.iter().find(|exchange| exchange.invoked.ask.attempt().is_some());
        own.or_else(first).map(|exchange| exchange.invoked.at)
    }

    fn describe(&self, exchange: &Exchange<'_>) -> String {
        let (claim, kind) = (self.claimed_order().unwrap_or("no claim"), exchange.kind());
        let order = exchange.order().map(|order| format!(" with order {order}")).unwrap_or_default();
        format!("{}, request {}: {kind}{order}, but Redis holds {claim}", self.user, exchange.invoked.request)
    }

    fn lines(&self) -> Vec<String> {
        let entries = self.exchanges.iter().flat_map(|e| [Some(json(e.invoked)), e.answered.map(json)]);
        entries.flatten().chain(self.claim.map(|claim| format!("{claim:?}"))).collect()
    }
}

impl<'a> Exchange<'a> {
    fn is(&self, kind: AnswerKind) -> bool {
        self.kind() == kind
    }

    fn answered_at(&self) -> Micros {
        self.answered.map_or(Micros::MAX, |answered| answered.at)
    }

    /// Returns the order that the answer reported.
    fn order(&self) -> Option<&'a str> {
        self.answered.filter(|answered| answered.kind.has_unit())?.order.as_deref()
    }

    /// Returns the order of the attempt, if it has a key.
    fn own_order(&self) -> Option<&'a str> {
        self.invoked.ask.attempt()?.1
    }

    fn purchase(&self) -> Purchase<'a> {
        self.invoked.ask.key().map_or(Purchase::Request(self.invoked.request), Purchase::Key)
    }
}

impl SaleHistory {
    fn of(records: &[JournalEntry], users: &[UserHistory<'_>]) -> Self {
        let operations = Operations::of(records);
        let end = operations.ends(0, Micros::MAX).into_iter().min();
        let over_at =
            end.map_or(Micros::MAX, |end| end * 1_000 + CLAIM_LOOKUP_AFTER_END - operations.clock_error);
        let mut requested: Vec<_> = users.iter().filter_map(UserHistory::claim_requested_at).collect();
        requested.sort_unstable();
        Self { operations, over_at, requested }
    }

    /// Returns true when the answer denies that the user has a unit.
    fn denies(&self, exchange: &Exchange<'_>) -> bool {
        match exchange.kind() {
            AnswerKind::NotActive => exchange.answered_at() < self.over_at,
            kind => kind.is_definite() && !kind.has_unit(),
        }
    }

    /// Returns true when the sale was certainly open all the time from `from` to `to`.
    fn is_certainly_open(&self, from: Micros, to: Micros) -> bool {
        let Some((_, window, known)) = self.operations.created else { return false };
        let tolerance = WINDOW_TOLERANCE + self.operations.clock_error;
        self.operations.states(from, to) == [SaleState::Open]
            && from >= known
            && from >= window.starts_at * 1_000 + tolerance
            && self.operations.ends(from, to).iter().all(|end| to + tolerance <= end * 1_000)
    }

    fn sale_outside_window(&self, user: &UserHistory<'_>) -> Option<Violation> {
        let (claim, (_, window, _)) = (user.claim?, self.operations.created?);
        let ends = self.operations.ends(0, Micros::MAX);
        let is_outside = claim.at_ms < window.starts_at || ends.iter().all(|end| claim.at_ms >= *end);
        let what =
            format!("{} bought at {} ms, outside {window:?} with ends at {ends:?}", user.user, claim.at_ms);
        is_outside.then(|| Violation {
            rule: "no unit is sold outside the window",
            what,
            lines: user.lines(),
        })
    }
}

/// Returns a line of the journal.
fn json(entry: &impl Serialize) -> String {
    serde_json::to_string(entry).expect("entries have text as keys")
}
