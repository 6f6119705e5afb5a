//! Log of the answers to all buyers, in the form of a journal, and the verdict on it.
//!
//! Claims come from lookups at the end. A user who is not looked up is taken to have the order of the first answer: this
//! finds answers that contradict each other. In the same way, an attempt has the order of its first answer that names its own
//! one. The sale's window and other clients are unknown here, so `not active` proves nothing, and a buyer who gave up is an
//! error instead of a broken promise.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use buyers::{
    Answer, AnswerKind, ApiFamily, Claim, FinalState,
    journal::{Answered, BuyerRequest, Invoked, JournalEntry, Micros, exchanges},
    verdict::{UNRESOLVED, violations},
};
use stock::ids::SaleId;

/// Order of an attempt that no answer has named. No answer has such an order.
const UNNAMED_ORDER: &str = "";

/// The requests of all buyers, with their answers.
#[derive(Debug)]
pub(crate) struct AnswerLog {
    sale: SaleId,
    began: Instant,
    entries: Mutex<Vec<JournalEntry>>,
}

/// The orders that lookups found, or none, by user.
pub(crate) type FoundOrders = HashMap<String, Option<String>>;

impl AnswerLog {
    pub(crate) fn new(sale: SaleId) -> Self {
        Self { sale, began: Instant::now(), entries: Mutex::default() }
    }

    /// Logs the answer to a purchase with this key, sent at this time.
    pub(crate) fn purchase(&self, user: &str, api: ApiFamily, key: &str, sent: Instant, answer: &Answer) {
        let order = Some(UNNAMED_ORDER.to_owned());
        self.log(user, api, BuyerRequest::Purchase { attempt: key.to_owned(), order }, sent, answer);
    }

    /// Logs the answer to a lookup, sent at this time.
    pub(crate) fn lookup(&self, user: &str, api: ApiFamily, sent: Instant, answer: &Answer) {
        self.log(user, api, BuyerRequest::Lookup, sent, answer);
    }

    fn log(&self, user: &str, api: ApiFamily, ask: BuyerRequest, sent: Instant, answer: &Answer) {
        let (sale, via, user) = (self.sale.to_string(), String::new(), user.to_owned());
        let mut entries = self.lock();
        let request = entries.len() as u64;
        let invoked = Invoked { request, at: self.micros(sent), sale, api, user, shard: 0, via, ask };
        entries.push(JournalEntry::Invoked(invoked));
        if answer.kind != AnswerKind::NotActive {
            let answered = Answered::of(request, self.micros(Instant::now()), answer);
            entries.push(JournalEntry::Answered(answered));
        }
    }

    /// Returns all users that were answered `purchased`, with the order of the first answer.
    pub(crate) fn buyers(&self) -> Vec<(String, String)> {
        let entries = self.lock();
        let mut claims = reported_claims(&entries);
        let bought = exchanges(&entries).filter(|exchange| exchange.kind() == AnswerKind::Purchased);
        let bought = bought.filter_map(|exchange| claims.remove_entry(&exchange.invoked.user));
        bought.map(|(user, claim)| (user, claim.order)).collect()
    }

    /// Returns the description of every broken promise, at a sale of this many units.
    pub(crate) fn contradictions(&self, found: &FoundOrders, total: u64) -> Vec<String> {
        let mut entries = self.lock();
        name_orders(&mut entries);
        let mut claims = reported_claims(&entries);
        for (user, order) in found {
            match (claims.get_mut(user), order) {
                (Some(claim), Some(order)) => claim.order.clone_from(order),
                _ => drop(claims.remove(user)),
            }
        }
        let broken = violations(&entries, &FinalState { claims, total, shards: Vec::new() });
        broken.iter().filter(|broken| broken.rule != UNRESOLVED).map(ToString::to_string).collect()
    }

    fn micros(&self, at: Instant) -> Micros {
        at.saturating_duration_since(self.began).as_micros() as Micros
    }

    fn lock(&self) -> MutexGuard<'_, Vec<JournalEntry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the order of each attempt into its requests, from its first answer that names its own order.
fn name_orders(entries: &mut [JournalEntry]) {
    let mut orders = HashMap::new();
    for exchange in exchanges(entries) {
        let is_own_order = matches!(exchange.kind(), AnswerKind::Purchased | AnswerKind::Unknown);
        let order = exchange.answered.filter(|_| is_own_order).and_then(|answered| answered.order.as_ref());
        let (Some(key), Some(order)) = (exchange.invoked.ask.key(), order) else { continue };
        let attempt = (exchange.invoked.user.clone(), key.to_owned());
        orders.entry(attempt).or_insert_with(|| order.clone());
    }
    for entry in entries {
        let JournalEntry::Invoked(Invoked { user, ask, .. }) = entry else { continue };
        let BuyerRequest::Purchase { attempt, order: Some(order) } = ask else { continue };
        if let Some(named) = orders.get(&(user.clone(), attempt.clone())) {
            order.clone_from(named);
        }
    }
}

/// Returns the claims that follow from the first answer with an order to each user.
fn reported_claims(entries: &[JournalEntry]) -> HashMap<String, Claim> {
    let mut claims = HashMap::new();
    for exchange in exchanges(entries).filter(|exchange| exchange.kind().has_unit()) {
        let Some(Answered { order: Some(order), at, .. }) = exchange.answered else { continue };
        let claim = || Claim { order: order.clone(), at_ms: at / 1_000 };
        claims.entry(exchange.invoked.user.clone()).or_insert_with(claim);
    }
    claims
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNITS: u64 = 100;

    fn log() -> AnswerLog {
        AnswerLog::new("flash".parse().unwrap())
    }

    fn own_order(user: &str, key: &str) -> String {
        format!("{user}-{key}")
    }

    fn answer(kind: AnswerKind, order: Option<&str>) -> Answer {
        Answer { kind, order: order.map(str::to_owned), ..Answer::default() }
    }

    impl AnswerLog {
        fn purchased(&self, user: &str, key: &str, order: &str) {
            let bought = answer(AnswerKind::Purchased, Some(order));
            self.purchase(user, ApiFamily::BySale, key, Instant::now(), &bought);
        }

        fn unknown(&self, user: &str, key: &str, order: &str) {
            let unknown = answer(AnswerKind::Unknown, Some(order));
            self.purchase(user, ApiFamily::BySale, key, Instant::now(), &unknown);
        }

        fn found(&self, user: &str, sent: Instant, order: Option<&str>) {
            let kind = if order.is_some() { AnswerKind::Found } else { AnswerKind::FoundNone };
            self.lookup(user, ApiFamily::BySale, sent, &answer(kind, order));
        }

        fn sold_out(&self, user: &str, key: &str, sent: Instant) {
            let refused = answer(AnswerKind::SoldOut, None);
            self.purchase(user, ApiFamily::BySale, key, sent, &refused);
        }

        #[track_caller]
        fn assert_found(&self, found: &FoundOrders, text: &str) {
            let found = self.contradictions(found, UNITS);
            assert!(found.iter().any(|what| what.contains(text)), "no `{text}` in {found:?}");
        }
    }

    #[test]
    fn correct_answers_are_no_contradiction() {
        let (log, before, order) = (log(), Instant::now(), own_order("ann", "first"));
        log.purchased("ann", "first", &order);
        log.purchased("ann", "first", &order);
        log.found("ann", Instant::now(), Some(&order));
        log.found("bob", Instant::now(), Some("B"));
        log.found("ann", before, None);
        log.found("eve", Instant::now(), None);
        log.purchase("joe", ApiFamily::BySale, "only", Instant::now(), &Answer::default());
        let not_active = answer(AnswerKind::NotActive, None);
        log.purchase("ann", ApiFamily::BySale, "late", Instant::now(), &not_active);
        let unexpected = answer(AnswerKind::Unexpected, None);
        log.purchase("ann", ApiFamily::BySale, "odd", Instant::now(), &unexpected);

        let found = FoundOrders::from([("ann".into(), Some(order.clone()))]);
        assert_eq!(log.contradictions(&found, UNITS), [""; 0]);
        assert_eq!(log.buyers(), [("ann".to_owned(), order)], "bob was not answered `purchased`");
    }

    #[test]
    fn two_orders_of_one_user_are_found() {
        let log = log();
        log.purchased("ann", "first", &own_order("ann", "first"));
        log.found("ann", Instant::now(), Some("B"));
        log.assert_found(&FoundOrders::new(), "ann, request 2: found with order B, but Redis holds");
    }

    #[test]
    fn two_purchased_attempts_are_found() {
        let log = log();
        log.purchased("ann", "first", &own_order("ann", "first"));
        log.purchased("ann", "second", &own_order("ann", "first"));
        log.assert_found(&FoundOrders::new(), "a user buys at most once: ann");
    }

    #[test]
    fn two_orders_of_one_attempt_are_found() {
        let log = log();
        log.unknown("ann", "first", &own_order("ann", "first"));
        log.purchased("ann", "first", "B");
        log.assert_found(&FoundOrders::new(), "a purchase is reported with its attempt's own order: ann");
    }

    #[test]
    fn denial_after_an_order_is_found() {
        let log = log();
        log.purchased("ann", "first", &own_order("ann", "first"));
        log.sold_out("ann", "second", Instant::now());
        log.assert_found(&FoundOrders::new(), "a reported purchase is not denied later: ann");
    }

    #[test]
    fn refused_attempt_with_order_is_found() {
        let (log, order) = (log(), own_order("ann", "first"));
        log.unknown("ann", "first", &order);
        log.sold_out("ann", "first", Instant::now());
        log.found("ann", Instant::now(), Some(&order));
        log.assert_found(&FoundOrders::new(), "a refused attempt has no claim: ann");
        let again = answer(AnswerKind::AlreadyPurchased, Some(&order));
        log.purchase("ann", ApiFamily::BySale, "first", Instant::now(), &again);
        log.assert_found(&FoundOrders::new(), "an attempt is not refused for its own order: ann");
    }

    #[test]
    fn lost_purchase_is_found_by_lookup() {
        let (log, order) = (log(), own_order("ann", "first"));
        log.purchased("ann", "first", &order);
        let held = |held: Option<&str>| FoundOrders::from([("ann".into(), held.map(str::to_owned))]);
        log.assert_found(&held(None), &format!("purchased with order {order}, but Redis holds no claim"));
        log.assert_found(&held(Some("B")), &format!("purchased with order {order}, but Redis holds B"));
        assert_eq!(log.contradictions(&held(Some(&order)), UNITS), [""; 0]);
    }

    #[test]
    fn more_buyers_than_units_are_found() {
        let log = log();
        log.purchased("ann", "first", &own_order("ann", "first"));
        log.purchased("bob", "first", &own_order("bob", "first"));
        let found = log.contradictions(&FoundOrders::new(), 1);
        assert_eq!(
            found,
            ["claims do not exceed the units: 2 users have a claim, but there are only 1 units"]
        );
    }
}
