//! The journal's audit: holds what buyers and operators were told against the sale in Redis and against itself.
//!
//! A pure function. Each rule stands in a function of its own and has a test that goes red without it. The rules on one
//! user are here, those on the times of a sale in [`sale_rules`], those on operators in [`operator_rules`].

mod operations;
mod operator_rules;
mod sale_rules;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt::Write as _,
};

use operations::Operations;

use crate::{
    Claim, FinalState,
    journal::{Answered, BuyerRequest, Invoked, JournalEntry, Micros, Reported},
};

#[cfg(test)]
mod tests;

/// A promise that was broken, with the lines that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: &'static str,
    /// How, for people.
    pub what: String,
    /// The journal's lines on that user.
    pub lines: Vec<String>,
}

/// A request with its answer.
#[derive(Clone, Copy, Debug)]
struct Exchange<'a> {
    invoked: &'a Invoked,
    answered: Option<&'a Answered>,
}

impl<'a> Exchange<'a> {
    fn told(self) -> Reported<'a> {
        self.answered.map_or(Reported::Unknown, |answered| answered.told(&self.invoked.ask))
    }

    /// The attempt's name, of a purchase, and its order, where it has a key.
    fn attempt(self) -> Option<(&'a str, Option<&'a str>)> {
        match &self.invoked.ask {
            BuyerRequest::Purchase { key, order } => Some((key, Some(order))),
            BuyerRequest::PurchaseWithoutKey { attempt } => Some((attempt, None)),
            BuyerRequest::Lookup => None,
        }
    }

    /// The attempt's key and order, of a purchase with a key.
    fn keyed(self) -> Option<(&'a str, &'a str)> {
        self.attempt().and_then(|(key, order)| Some((key, order?)))
    }

    /// The order that the user was told to have, and when.
    fn proof(self) -> Option<(&'a str, Micros)> {
        match self.told() {
            Reported::Purchased(order) | Reported::Has(order) => Some((order, self.answered?.at)),
            _ => None,
        }
    }

    /// Whether it says that the user has no unit. Long after the end nodes no longer look: `over_at` is when that is.
    fn denies(self, over_at: Micros) -> bool {
        match self.told() {
            Reported::HasNone | Reported::SoldOut | Reported::NoSale | Reported::Refused(_) => true,
            Reported::NotActive => self.answered.is_some_and(|answered| answered.at < over_at),
            Reported::Purchased(_) | Reported::Has(_) | Reported::Unknown => false,
        }
    }
}

/// All that is known of one user.
struct UserHistory<'a> {
    user: &'a str,
    exchanges: Vec<Exchange<'a>>,
    claim: Option<&'a Claim>,
    /// From then on nodes refuse without looking for a claim.
    over_at: Micros,
    /// How wrong a claim's time may be.
    clock_error: Micros,
}

/// Every broken promise in the journal of one sale, given the sale at its end.
pub fn violations(records: &[JournalEntry], end: &FinalState) -> Vec<Violation> {
    let operations = Operations::of(records);
    let claims = &end.claims;
    let cases = cases(records, claims, &operations);
    // First those that are few: only the first violations are spelled out.
    let mut found = operator_rules::violations(records, &operations, end);
    found.extend(cases.iter().flat_map(UserHistory::violations));
    found.extend(sale_rules::violations(&cases, &operations));
    let known: HashSet<&str> = cases.iter().map(|case| case.user).collect();
    let strangers = claims.keys().filter(|user| !known.contains(user.as_str()));
    found.extend(strangers.map(|user| Violation {
        rule: "every claim is somebody's who asked",
        what: format!("{user} has a claim and never asked for one"),
        lines: Vec::new(),
    }));
    found
}

fn cases<'a>(
    records: &'a [JournalEntry],
    claims: &'a HashMap<String, Claim>,
    operations: &Operations,
) -> Vec<UserHistory<'a>> {
    let end = operations.ends(0, Micros::MAX).into_iter().min();
    let clock_error = operations.clock_error;
    let over_at = end.map_or(Micros::MAX, |end| end * 1_000 + LOOKED_FOR_AFTER_END - clock_error);
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
    let case =
        |(user, exchanges)| UserHistory { user, exchanges, claim: claims.get(user), over_at, clock_error };
    by_user.into_iter().map(case).collect()
}

impl UserHistory<'_> {
    fn violations(&self) -> Vec<Violation> {
        let rules: [(&'static str, Option<String>); 8] = [
            ("what was told to be bought is a claim, by that very order", self.told_without_claim()),
            ("nobody buys twice", self.bought_twice()),
            ("a purchase is told with the order of its own attempt", self.told_of_a_strange_order()),
            ("nobody who has a unit is told that they cannot have one", self.denied_although_bought()),
            ("a purchase once told stays true", self.denied_after_proof()),
            ("an attempt is not refused for its own order", self.refused_for_itself()),
            ("who was refused has no unit by that attempt", self.refused_and_claimed()),
            ("every attempt has a definite answer in the end", self.left_in_doubt()),
        ];
        let broken = rules.into_iter().filter_map(|(rule, what)| Some((rule, what?)));
        broken.map(|(rule, what)| Violation { rule, what, lines: self.lines() }).collect()
    }

    fn is_denied(&self, exchange: &Exchange<'_>) -> bool {
        exchange.denies(self.over_at)
    }

    fn told_without_claim(&self) -> Option<String> {
        let held = self.claim.map(|claim| claim.order.as_str());
        let (order, _) =
            self.exchanges.iter().filter_map(|e| e.proof()).find(|(order, _)| Some(*order) != held)?;
        Some(format!(
            "{} was told of order {order}, and Redis holds {}",
            self.user,
            held.unwrap_or("no claim")
        ))
    }

    /// Tries of one key are one purchase. Tries without a key are one each.
    fn bought_twice(&self) -> Option<String> {
        let bought =
            self.exchanges.iter().filter(|exchange| matches!(exchange.told(), Reported::Purchased(_)));
        let purchase = |exchange: &Exchange<'_>| match exchange.keyed() {
            Some((key, _)) => key.to_owned(),
            None => format!("request {}", exchange.invoked.request),
        };
        let bought: HashSet<String> = bought.map(purchase).collect();
        (bought.len() > 1)
            .then(|| format!("{} was told `purchased` for {} attempts", self.user, bought.len()))
    }

    fn told_of_a_strange_order(&self) -> Option<String> {
        self.exchanges.iter().find_map(|exchange| match (exchange.told(), exchange.keyed()?) {
            (Reported::Purchased(order), (key, own)) if order != own => {
                Some(format!("attempt {key} of {} leads to order {own} and was told {order}", self.user))
            }
            _ => None,
        })
    }

    /// The claim's own time counts: also where nobody had been told of it yet.
    fn denied_although_bought(&self) -> Option<String> {
        let since = self.claim?.at_ms * 1_000 + self.clock_error;
        let denied =
            self.exchanges.iter().find(|e| self.is_denied(e) && e.invoked.at > since + CLAIM_PRECISION)?;
        Some(format!(
            "{} had a claim when request {} was sent and refused",
            self.user, denied.invoked.request
        ))
    }

    fn denied_after_proof(&self) -> Option<String> {
        let (order, since) = self.exchanges.iter().filter_map(|e| e.proof()).min_by_key(|(_, at)| *at)?;
        let denied = self.exchanges.iter().find(|e| self.is_denied(e) && e.invoked.at >= since)?;
        Some(format!(
            "{} was told of order {order}, and later no in request {}",
            self.user, denied.invoked.request
        ))
    }

    fn refused_for_itself(&self) -> Option<String> {
        self.exchanges.iter().find_map(|exchange| match (exchange.told(), exchange.keyed()?) {
            (Reported::Has(order), (key, own)) if order == own => {
                Some(format!("attempt {key} of {} was refused for its own order {own}", self.user))
            }
            _ => None,
        })
    }

    fn refused_and_claimed(&self) -> Option<String> {
        let claim = self.claim?;
        let refused = self.exchanges.iter().find(|exchange| {
            self.is_denied(exchange) && exchange.keyed().is_some_and(|(_, own)| own == claim.order)
        })?;
        Some(format!(
            "{} was refused in request {}, and has a claim by it",
            self.user, refused.invoked.request
        ))
    }

    fn left_in_doubt(&self) -> Option<String> {
        let mut last: BTreeMap<&str, Exchange<'_>> = BTreeMap::new();
        for exchange in &self.exchanges {
            last.extend(exchange.attempt().map(|(key, _)| (key, *exchange)));
        }
        let (key, _) = last.into_iter().find(|(_, exchange)| exchange.told() == Reported::Unknown)?;
        Some(format!("attempt {key} of {} never got a definite answer", self.user))
    }

    fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.exchanges.iter().map(|exchange| line(*exchange)).collect();
        let claim = self.claim.map(|claim| format!("claim {} at {} ms", claim.order, claim.at_ms));
        lines.extend(claim);
        lines
    }
}

/// Nodes look for a claim for a minute after the end; a second less, for their clocks.
const LOOKED_FOR_AFTER_END: Micros = 59_000_000;

/// A claim's time has milliseconds.
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
        None => write!(line, " -> nothing"),
    }
    .expect("writing to a String cannot fail");
    line
}
