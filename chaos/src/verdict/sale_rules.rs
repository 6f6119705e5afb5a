//! What buyers were told and got, held against the times at which their sale was selling.
//!
//! Two clocks are told apart. A claim's own time is its shard's, and so is the window. Answers are held against
//! operators' answers by the journal alone: an answer that is written down before a request is sent came before it.

use std::collections::{BTreeMap, HashMap};

use stock::sale::SaleState;

use super::{Exchange, UserHistory, Violation, operations::Operations};
use crate::journal::{Micros, Reported};

/// Near an edge of the window the clocks of journal and shards may differ by this: both are this machine's, but a
/// shard's time is the one at which it reads the call.
const EDGE: Micros = 1_000_000;

/// Each rule, and how the first user broke it.
pub(super) fn violations(cases: &[UserHistory<'_>], operations: &Operations) -> Vec<Violation> {
    let times = Times { operations, attempts: first_invocations(cases) };
    cases.iter().flat_map(|case| times.violations(case)).collect()
}

struct Times<'a> {
    operations: &'a Operations,
    /// When each purchase that ended in a claim was first asked for, in order.
    attempts: Vec<Micros>,
}

impl Times<'_> {
    fn violations(&self, case: &UserHistory<'_>) -> Vec<Violation> {
        let rules: [(&'static str, Option<String>); 5] = [
            ("within its window and without a pause a sale is active", self.inactive_while_selling(case)),
            ("no unit is sold outside the window", self.sold_outside_the_window(case)),
            ("no unit is sold during a pause", self.sold_during_a_pause(case)),
            ("sold out is only said when every unit is sold", self.sold_out_too_early(case)),
            ("a sale that was created is found", self.not_found(case)),
        ];
        let broken = rules.into_iter().filter_map(|(rule, what)| Some((rule, what?)));
        broken.map(|(rule, what)| Violation { rule, what, lines: case.lines() }).collect()
    }

    fn inactive_while_selling(&self, case: &UserHistory<'_>) -> Option<String> {
        let refused = case.exchanges.iter().filter(|exchange| exchange.told() == Reported::NotActive);
        let wrong = refused.filter_map(|exchange| Some((exchange, exchange.answered?.at)));
        let (exchange, _) = wrong.into_iter().find(|(exchange, to)| {
            self.operations.created.is_some() && self.surely_sells(exchange.invoked.at, *to)
        })?;
        Some(format!(
            "{} was told in request {} that the sale is not active",
            case.user, exchange.invoked.request
        ))
    }

    /// Whether the sale was open all the time from `from` to `to`.
    fn surely_sells(&self, from: Micros, to: Micros) -> bool {
        let Some((_, window, known)) = self.operations.created else { return false };
        let ends = self.operations.ends(from, to);
        let is_open = self.operations.states(from, to) == [SaleState::Open];
        let edge = EDGE + self.operations.clock_error;
        let is_inside =
            from >= window.starts_at * 1_000 + edge && ends.iter().all(|end| to + edge <= end * 1_000);
        is_open && is_inside && from >= known
    }

    fn sold_outside_the_window(&self, case: &UserHistory<'_>) -> Option<String> {
        let (claim, (_, window, _)) = (case.claim?, self.operations.created?);
        let ends = self.operations.ends(0, Micros::MAX);
        let is_outside = claim.at_ms < window.starts_at || ends.iter().all(|end| claim.at_ms >= *end);
        is_outside.then(|| {
            format!("{} bought at {} ms, outside {window:?} with ends at {ends:?}", case.user, claim.at_ms)
        })
    }

    /// An attempt that began after the pause was told to be done and was told `purchased` before the next change.
    fn sold_during_a_pause(&self, case: &UserHistory<'_>) -> Option<String> {
        let mut began: HashMap<&str, Micros> = HashMap::new();
        for exchange in &case.exchanges {
            if let Some((attempt, _)) = exchange.attempt() {
                began.entry(attempt).or_insert(exchange.invoked.at);
            }
        }
        let bought = |exchange: &&Exchange<'_>| {
            let Some(((attempt, _), answered)) = exchange.attempt().zip(exchange.answered) else {
                return false;
            };
            let states = self.operations.states(began[attempt], answered.at);
            matches!(exchange.told(), Reported::Purchased(_)) && !states.contains(&SaleState::Open)
        };
        let exchange = case.exchanges.iter().find(bought)?;
        Some(format!(
            "{} bought in request {} while the sale was paused",
            case.user, exchange.invoked.request
        ))
    }

    /// Counts all who may have had a unit by then: whoever has one in the end and had asked for it.
    fn sold_out_too_early(&self, case: &UserHistory<'_>) -> Option<String> {
        let refused = case.exchanges.iter().filter(|exchange| exchange.told() == Reported::SoldOut);
        refused.filter_map(|exchange| Some((exchange, exchange.answered?.at))).find_map(|(exchange, to)| {
            let total = self.operations.total_at(exchange.invoked.at)?;
            let sold = self.attempts.partition_point(|at| *at <= to) as u64;
            (sold < total).then(|| {
                let request = exchange.invoked.request;
                format!(
                    "{} was told in request {request}, when at most {sold} of {total} were sold",
                    case.user
                )
            })
        })
    }

    fn not_found(&self, case: &UserHistory<'_>) -> Option<String> {
        let (_, _, known) = self.operations.created?;
        let is_wrong =
            |exchange: &&Exchange<'_>| exchange.told() == Reported::NoSale && exchange.invoked.at > known;
        let exchange = case.exchanges.iter().find(is_wrong)?;
        Some(format!(
            "{} was told in request {} that there is no such sale",
            case.user, exchange.invoked.request
        ))
    }
}

/// When each purchase that ended in a claim was first asked for, in order.
fn first_invocations(cases: &[UserHistory<'_>]) -> Vec<Micros> {
    let mut attempts: Vec<Micros> = cases.iter().filter_map(UserHistory::asked_for_the_claim_at).collect();
    attempts.sort_unstable();
    attempts
}

impl UserHistory<'_> {
    /// When the attempt that got the claim was first sent; any attempt of this user, if it sends no keys.
    fn asked_for_the_claim_at(&self) -> Option<Micros> {
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
