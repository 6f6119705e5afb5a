//! Rules that compare the answers to buyers with the times at which the sale was selling.
//!
//! Two clocks are used. A claim's time and the sale's window are by the shard's clock. The answers to buyers are
//! compared with those to operators by the journal's clock alone: an answer that is written before a request is sent
//! came before that request.

use std::collections::{BTreeMap, HashMap};

use stock::sale::SaleState;

use super::{Exchange, UserHistory, Violation, operations::Operations};
use crate::{answers::AnswerKind, journal::Micros};

/// Tolerance between the clocks of journal and shards near the start and end of the window. Both are this machine's,
/// but a shard uses the time at which it reads the call.
const WINDOW_TOLERANCE: Micros = 1_000_000;

/// Returns the violations of these rules, for each user.
pub(super) fn violations(histories: &[UserHistory<'_>], operations: &Operations) -> Vec<Violation> {
    let rules = SaleRules { operations, attempts: first_invocations(histories) };
    histories.iter().flat_map(|history| rules.violations(history)).collect()
}

struct SaleRules<'a> {
    operations: &'a Operations,
    /// Times at which the purchases with a claim were first requested, in order.
    attempts: Vec<Micros>,
}

impl SaleRules<'_> {
    fn violations(&self, history: &UserHistory<'_>) -> Vec<Violation> {
        let rules: [(&'static str, Option<String>); 5] = [
            ("an open sale is not reported as not active", self.inactive_while_open(history)),
            ("no unit is sold outside the window", self.sold_outside_window(history)),
            ("no unit is sold during a pause", self.sold_during_pause(history)),
            ("sold out is reported only when every unit is sold", self.sold_out_too_early(history)),
            ("a created sale is found", self.not_found(history)),
        ];
        let broken = rules.into_iter().filter_map(|(rule, what)| Some((rule, what?)));
        broken.map(|(rule, what)| Violation { rule, what, lines: history.lines() }).collect()
    }

    fn inactive_while_open(&self, history: &UserHistory<'_>) -> Option<String> {
        let refused = history.exchanges.iter().filter(|exchange| exchange.kind() == AnswerKind::NotActive);
        let wrong = refused.filter_map(|exchange| Some((exchange, exchange.answered?.at)));
        let (exchange, _) = wrong.into_iter().find(|(exchange, to)| {
            self.operations.created.is_some() && self.is_certainly_open(exchange.invoked.at, *to)
        })?;
        Some(format!(
            "{} was answered in request {} that the sale is not active",
            history.user, exchange.invoked.request
        ))
    }

    /// Returns true when the sale was certainly open all the time from `from` to `to`.
    fn is_certainly_open(&self, from: Micros, to: Micros) -> bool {
        let Some((_, window, known)) = self.operations.created else { return false };
        let ends = self.operations.ends(from, to);
        let is_open = self.operations.states(from, to) == [SaleState::Open];
        let tolerance = WINDOW_TOLERANCE + self.operations.clock_error;
        let is_inside = from >= window.starts_at * 1_000 + tolerance
            && ends.iter().all(|end| to + tolerance <= end * 1_000);
        is_open && is_inside && from >= known
    }

    fn sold_outside_window(&self, history: &UserHistory<'_>) -> Option<String> {
        let (claim, (_, window, _)) = (history.claim?, self.operations.created?);
        let ends = self.operations.ends(0, Micros::MAX);
        let is_outside = claim.at_ms < window.starts_at || ends.iter().all(|end| claim.at_ms >= *end);
        is_outside.then(|| {
            format!("{} bought at {} ms, outside {window:?} with ends at {ends:?}", history.user, claim.at_ms)
        })
    }

    /// Finds an attempt that began after a confirmed pause and was answered `purchased` before the next change.
    fn sold_during_pause(&self, history: &UserHistory<'_>) -> Option<String> {
        let mut began: HashMap<&str, Micros> = HashMap::new();
        for exchange in &history.exchanges {
            if let Some((attempt, _)) = exchange.attempt() {
                began.entry(attempt).or_insert(exchange.invoked.at);
            }
        }
        let bought = |exchange: &&Exchange<'_>| {
            let Some(((attempt, _), answered)) = exchange.attempt().zip(exchange.answered) else {
                return false;
            };
            let states = self.operations.states(began[attempt], answered.at);
            exchange.kind() == AnswerKind::Purchased && !states.contains(&SaleState::Open)
        };
        let exchange = history.exchanges.iter().find(bought)?;
        Some(format!(
            "{} bought in request {} while the sale was paused",
            history.user, exchange.invoked.request
        ))
    }

    /// Compares with the number of users who may have had a unit by then: those with a claim in the end whose purchase
    /// had been requested by then.
    fn sold_out_too_early(&self, history: &UserHistory<'_>) -> Option<String> {
        let refused = history.exchanges.iter().filter(|exchange| exchange.kind() == AnswerKind::SoldOut);
        refused.filter_map(|exchange| Some((exchange, exchange.answered?.at))).find_map(|(exchange, to)| {
            let total = self.operations.total_at(exchange.invoked.at)?;
            let sold = self.attempts.partition_point(|at| *at <= to) as u64;
            (sold < total).then(|| {
                let request = exchange.invoked.request;
                format!(
                    "{} was answered `sold out` in request {request}, when at most {sold} of {total} units were sold",
                    history.user
                )
            })
        })
    }

    fn not_found(&self, history: &UserHistory<'_>) -> Option<String> {
        let (_, _, known) = self.operations.created?;
        let is_wrong =
            |exchange: &&Exchange<'_>| exchange.kind() == AnswerKind::NoSale && exchange.invoked.at > known;
        let exchange = history.exchanges.iter().find(is_wrong)?;
        Some(format!(
            "{} was answered in request {} that the sale does not exist",
            history.user, exchange.invoked.request
        ))
    }
}

/// Returns the times at which the purchases with a claim were first requested, in order.
fn first_invocations(histories: &[UserHistory<'_>]) -> Vec<Micros> {
    let mut attempts: Vec<Micros> = histories.iter().filter_map(UserHistory::claim_requested_at).collect();
    attempts.sort_unstable();
    attempts
}

impl UserHistory<'_> {
    /// Returns the time of the first request of the attempt with the claim, or of any attempt if the user sends no
    /// keys.
    fn claim_requested_at(&self) -> Option<Micros> {
        let claim = self.claim?;
        let mut by_order: BTreeMap<&str, Micros> = BTreeMap::new();
        let mut first = None;
        for exchange in &self.exchanges {
            let Some((_, order)) = exchange.attempt() else { continue };
            first = first.or(Some(exchange.invoked.at));
            if let Some(order) = order {
                by_order.entry(order).or_insert(exchange.invoked.at);
            }
        }
        by_order.get(claim.order.as_str()).copied().or(first)
    }
}
