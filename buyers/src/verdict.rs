//! The audit of the journal: compares the answers to buyers and operators with the sale in Redis and with each other.
//!
//! A pure function. Each rule has its own function and a test that fails without it. The rules for a single user are
//! here, those for a sale's state and window in [`sale_rules`], those for operators in [`operator_rules`].

mod operations;
mod operator_rules;
mod sale_rules;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use operations::Operations;

use crate::{
    answers::AnswerKind,
    claims::{Claim, FinalState},
    journal::{Answered, BuyerRequest, Invoked, JournalEntry, Micros},
};

#[cfg(test)]
mod tests;

/// Rule that a client breaks itself when it gives up.
pub const UNRESOLVED: &str = "every attempt has a definite answer in the end";

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

/// A request with its answer, if any.
#[derive(Clone, Copy, Debug)]
struct Exchange<'a> {
    invoked: &'a Invoked,
    answered: Option<&'a Answered>,
}

impl<'a> Exchange<'a> {
    fn kind(self) -> AnswerKind {
        self.answered.map_or(AnswerKind::Transport, |answered| answered.kind(&self.invoked.ask))
    }

    /// Returns the attempt's name and, if it has a key, its order. None if the request is not a purchase.
    fn attempt(self) -> Option<(&'a str, Option<&'a str>)> {
        match &self.invoked.ask {
            BuyerRequest::Purchase { key, order } => Some((key, Some(order))),
            BuyerRequest::PurchaseWithoutKey { attempt } => Some((attempt, None)),
            BuyerRequest::Lookup => None,
        }
    }

    /// Returns the attempt's key and order. None if the request is not a purchase with a key.
    fn keyed(self) -> Option<(&'a str, &'a str)> {
        self.attempt().and_then(|(key, order)| Some((key, order?)))
    }

    /// Returns the order that the answer reported, and the time of the answer.
    fn reported_order(self) -> Option<(&'a str, Micros)> {
        let answered = self.answered.filter(|_| self.kind().has_unit())?;
        Some((answered.order.as_deref().unwrap_or_default(), answered.at))
    }

    /// Returns the order of this purchase, if the answer is of this kind.
    fn order_if(self, kind: AnswerKind) -> Option<&'a str> {
        self.reported_order().filter(|_| self.kind() == kind).map(|(order, _)| order)
    }

    /// Returns true when the answer denies that the user has a unit. From `over_at` on, nodes refuse without a lookup,
    /// so their refusals no longer count.
    fn denies(self, over_at: Micros) -> bool {
        match self.kind() {
            AnswerKind::NotActive => self.answered.is_some_and(|answered| answered.at < over_at),
            kind => kind.is_definite() && !kind.has_unit(),
        }
    }
}

/// Requests and claim of one user.
struct UserHistory<'a> {
    user: &'a str,
    exchanges: Vec<Exchange<'a>>,
    claim: Option<&'a Claim>,
    /// Time from which nodes refuse without looking for a claim.
    over_at: Micros,
    /// Largest error of a claim's time.
    clock_error: Micros,
}

/// Returns every broken promise in the journal of one sale, given the sale's final state.
pub fn violations(records: &[JournalEntry], final_state: &FinalState) -> Vec<Violation> {
    let operations = Operations::of(records);
    let claims = &final_state.claims;
    let histories = histories(records, claims, &operations);
    // Operators' violations come first, because they are few and only the first violations are listed.
    let mut found = operator_rules::violations(records, &operations, final_state);
    found.extend(histories.iter().flat_map(UserHistory::violations));
    found.extend(sale_rules::violations(&histories, &operations));
    let known: HashSet<&str> = histories.iter().map(|history| history.user).collect();
    let unknown_claims = claims.keys().filter(|user| !known.contains(user.as_str()));
    found.extend(unknown_claims.map(|user| Violation {
        rule: "every claim belongs to a user who sent a request",
        what: format!("{user} has a claim and sent no request"),
        lines: Vec::new(),
    }));
    found
}

fn histories<'a>(
    records: &'a [JournalEntry],
    claims: &'a HashMap<String, Claim>,
    operations: &Operations,
) -> Vec<UserHistory<'a>> {
    let end = operations.ends(0, Micros::MAX).into_iter().min();
    let clock_error = operations.clock_error;
    let over_at = end.map_or(Micros::MAX, |end| end * 1_000 + CLAIM_LOOKUP_AFTER_END - clock_error);
    let answered = records.iter().filter_map(|record| match record {
        JournalEntry::Answered(answered) => Some((answered.request, answered)),
        JournalEntry::SaleOpened(_) | JournalEntry::Invoked(_) | JournalEntry::Operated(_) => None,
    });
    let answers: HashMap<u64, &Answered> = answered.collect();
    let mut by_user: BTreeMap<&str, Vec<Exchange<'_>>> = BTreeMap::new();
    for record in records {
        if let JournalEntry::Invoked(invoked) = record {
            let answered = answers.get(&invoked.request).copied();
            by_user.entry(&invoked.user).or_default().push(Exchange { invoked, answered });
        }
    }
    let history =
        |(user, exchanges)| UserHistory { user, exchanges, claim: claims.get(user), over_at, clock_error };
    by_user.into_iter().map(history).collect()
}

impl UserHistory<'_> {
    fn violations(&self) -> Vec<Violation> {
        let rules: [(&'static str, Option<String>); 8] = [
            ("a reported purchase has a claim with the same order", self.reported_without_claim()),
            ("a user buys at most once", self.bought_twice()),
            ("a purchase is reported with its attempt's own order", self.purchased_with_other_order()),
            ("a user with a unit is not refused", self.refused_with_claim()),
            ("a reported purchase is not denied later", self.denied_after_purchase()),
            ("an attempt is not refused for its own order", self.refused_for_own_order()),
            ("a refused attempt has no claim", self.refused_and_claimed()),
            (UNRESOLVED, self.left_unresolved()),
        ];
        let broken = rules.into_iter().filter_map(|(rule, what)| Some((rule, what?)));
        broken.map(|(rule, what)| Violation { rule, what, lines: self.lines() }).collect()
    }

    fn is_denied(&self, exchange: &Exchange<'_>) -> bool {
        exchange.denies(self.over_at)
    }

    fn reported_without_claim(&self) -> Option<String> {
        let held = self.claim.map(|claim| claim.order.as_str());
        let (order, _) = self
            .exchanges
            .iter()
            .filter_map(|e| e.reported_order())
            .find(|(order, _)| Some(*order) != held)?;
        Some(format!(
            "{} was answered with order {order}, but Redis holds {}",
            self.user,
            held.unwrap_or("no claim")
        ))
    }

    /// Counts tries with the same key as one purchase, and each try without a key as its own.
    fn bought_twice(&self) -> Option<String> {
        let bought = self.exchanges.iter().filter(|exchange| exchange.kind() == AnswerKind::Purchased);
        let purchase = |exchange: &Exchange<'_>| match exchange.keyed() {
            Some((key, _)) => key.to_owned(),
            None => format!("request {}", exchange.invoked.request),
        };
        let bought: HashSet<String> = bought.map(purchase).collect();
        (bought.len() > 1)
            .then(|| format!("{} was answered `purchased` for {} attempts", self.user, bought.len()))
    }

    fn purchased_with_other_order(&self) -> Option<String> {
        self.exchanges.iter().find_map(|exchange| {
            let ((key, own), order) = exchange.keyed().zip(exchange.order_if(AnswerKind::Purchased))?;
            (order != own).then(|| {
                format!("attempt {key} of {} has order {own} and was answered with order {order}", self.user)
            })
        })
    }

    /// Compares with the time of the claim, so a claim counts even before it was reported.
    fn refused_with_claim(&self) -> Option<String> {
        let since = self.claim?.at_ms * 1_000 + self.clock_error;
        let denied =
            self.exchanges.iter().find(|e| self.is_denied(e) && e.invoked.at > since + CLAIM_PRECISION)?;
        Some(format!(
            "{} had a claim before request {} was sent, and was refused",
            self.user, denied.invoked.request
        ))
    }

    fn denied_after_purchase(&self) -> Option<String> {
        let (order, since) =
            self.exchanges.iter().filter_map(|e| e.reported_order()).min_by_key(|(_, at)| *at)?;
        let denied = self.exchanges.iter().find(|e| self.is_denied(e) && e.invoked.at >= since)?;
        Some(format!(
            "{} was answered with order {order}, and denied a unit in the later request {}",
            self.user, denied.invoked.request
        ))
    }

    fn refused_for_own_order(&self) -> Option<String> {
        self.exchanges.iter().find_map(|exchange| {
            let ((key, own), order) =
                exchange.keyed().zip(exchange.order_if(AnswerKind::AlreadyPurchased))?;
            (order == own)
                .then(|| format!("attempt {key} of {} was refused for its own order {own}", self.user))
        })
    }

    fn refused_and_claimed(&self) -> Option<String> {
        let claim = self.claim?;
        let refused = self.exchanges.iter().find(|exchange| {
            self.is_denied(exchange) && exchange.keyed().is_some_and(|(_, own)| own == claim.order)
        })?;
        Some(format!(
            "{} was refused in request {}, but has a claim with its order",
            self.user, refused.invoked.request
        ))
    }

    fn left_unresolved(&self) -> Option<String> {
        let mut last: BTreeMap<&str, Exchange<'_>> = BTreeMap::new();
        for exchange in &self.exchanges {
            last.extend(exchange.attempt().map(|(key, _)| (key, *exchange)));
        }
        let (key, _) = last.into_iter().find(|(_, exchange)| !exchange.kind().is_definite())?;
        Some(format!("attempt {key} of {} never got a definite answer", self.user))
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.exchanges.iter().map(|exchange| line(*exchange)).collect();
        let claim = self.claim.map(|claim| format!("claim {} at {} ms", claim.order, claim.at_ms));
        lines.extend(claim);
        lines
    }
}

/// Time after the end during which nodes still look for a claim: a minute, minus a second for differences of their
/// clocks.
const CLAIM_LOOKUP_AFTER_END: Micros = 59_000_000;

/// Precision of a claim's time: one millisecond.
const CLAIM_PRECISION: Micros = 1_000;

fn line(exchange: Exchange<'_>) -> String {
    let Invoked { request, at, via, .. } = exchange.invoked;
    let mut line = format!("request {request} at {at} via {via}: ");
    match exchange.attempt() {
        Some((key, Some(order))) => write!(line, "purchase by attempt {key} (order {order})"),
        Some((attempt, None)) => write!(line, "purchase without a key, attempt {attempt}"),
        None => write!(line, "lookup"),
    }
    .expect("writing to a String cannot fail");
    match exchange.answered {
        Some(answered) => write!(
            line,
            " -> at {} {} {} {}",
            answered.at,
            answered.status.map_or("no answer".into(), |status| status.to_string()),
            answered.reason.as_deref().unwrap_or_default(),
            answered.order.as_deref().unwrap_or_default()
        ),
        None => write!(line, " -> no answer"),
    }
    .expect("writing to a String cannot fail");
    line
}
