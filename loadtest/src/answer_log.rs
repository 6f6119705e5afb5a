//! Log of the orders that buyers were answered with.
//!
//! It takes every answer as true and reports answers that contradict each other. A denial is compared only with orders
//! that were answered before its request was sent, because answers can overtake each other.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Number of contradictions that are listed. A broken sale could have one for each of its buyers.
const LISTED_MAX: usize = 10;

/// The orders that all buyers were answered with.
#[derive(Debug, Default)]
pub(crate) struct AnswerLog {
    state: Mutex<LogState>,
}

#[derive(Debug, Default)]
struct LogState {
    users: HashMap<String, UserRecord>,
    contradictions: Contradictions,
}

/// The order that one user was answered with.
#[derive(Debug)]
struct UserRecord {
    order: String,
    since: Instant,
    /// The attempt that was answered `purchased`.
    attempt: Option<String>,
}

/// Counts contradictions and lists the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contradictions {
    pub(crate) count: usize,
    /// Descriptions of the first contradictions.
    pub(crate) listed: Vec<String>,
}

impl AnswerLog {
    /// Records the answer `purchased` for the attempt with this key.
    pub(crate) fn purchased(&self, user: &str, attempt: &str, order: &str) {
        let mut state = self.lock();
        state.record_order(user, order);
        let user_record = state.users.get_mut(user);
        let other = user_record.and_then(|user_record| user_record.attempt.replace(attempt.to_owned()));
        if other.is_some_and(|other| other != attempt) {
            state.contradictions.add(format!("{user} was answered `purchased` for two attempts"));
        }
    }

    /// Records the answer `already_purchased`, or a lookup that found an order.
    pub(crate) fn has(&self, user: &str, order: &str) {
        self.lock().record_order(user, order);
    }

    /// Records the answer sold out, or a lookup that found nothing, to a request sent at this time.
    pub(crate) fn has_none(&self, user: &str, sent: Instant) {
        let mut state = self.lock();
        let LogState { users, contradictions } = &mut *state;
        if let Some(user_record) = users.get(user).filter(|user_record| user_record.since < sent) {
            let order = &user_record.order;
            contradictions.add(format!("{user} was answered with order {order}, and later with none"));
        }
    }

    /// Returns all users that were answered `purchased`, with the order.
    pub(crate) fn buyers(&self) -> Vec<(String, String)> {
        let state = self.lock();
        let bought = state.users.iter().filter(|(_, user_record)| user_record.attempt.is_some());
        bought.map(|(user, user_record)| (user.clone(), user_record.order.clone())).collect()
    }

    pub(crate) fn contradictions(&self) -> Contradictions {
        self.lock().contradictions.clone()
    }

    fn lock(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogState {
    fn record_order(&mut self, user: &str, order: &str) {
        match self.users.entry(user.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(UserRecord { order: order.to_owned(), since: Instant::now(), attempt: None });
            }
            Entry::Occupied(entry) if entry.get().order != order => {
                let first = &entry.get().order;
                self.contradictions
                    .add(format!("{user} was answered with order {first} and with order {order}"));
            }
            Entry::Occupied(_) => {}
        }
    }
}

impl Contradictions {
    pub(crate) fn add(&mut self, what: String) {
        self.count += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_order_is_no_contradiction() {
        let log = AnswerLog::default();
        let before = Instant::now();
        log.purchased("ann", "first", "A");
        log.purchased("ann", "first", "A");
        log.has("ann", "A");
        log.has("bob", "B");
        log.has_none("ann", before);
        log.has_none("eve", Instant::now());
        assert_eq!(log.contradictions().count, 0);
        assert_eq!(log.buyers(), [("ann".to_owned(), "A".to_owned())], "bob was not answered `purchased`");
    }

    #[test]
    fn two_orders_of_one_user_are_a_contradiction() {
        let log = AnswerLog::default();
        log.purchased("ann", "first", "A");
        log.has("ann", "B");
        assert_eq!(log.contradictions().listed, ["ann was answered with order A and with order B"]);
    }

    #[test]
    fn two_purchased_attempts_are_a_contradiction() {
        let log = AnswerLog::default();
        log.purchased("ann", "first", "A");
        log.purchased("ann", "second", "A");
        assert_eq!(log.contradictions().listed, ["ann was answered `purchased` for two attempts"]);
    }

    #[test]
    fn denial_after_an_order_is_a_contradiction() {
        let log = AnswerLog::default();
        log.purchased("ann", "first", "A");
        log.has_none("ann", Instant::now());
        assert_eq!(log.contradictions().count, 1);
    }

    #[test]
    fn first_contradictions_are_listed_and_all_counted() {
        let log = AnswerLog::default();
        log.has("ann", "A");
        for order in 0..100 {
            log.has("ann", &format!("B{order}"));
        }
        let Contradictions { count, listed } = log.contradictions();
        assert_eq!((count, listed.len()), (100, LISTED_MAX));
    }
}
