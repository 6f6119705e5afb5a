//! Who was told of which order: what buyers could prove.
//!
//! It believes every answer, and finds those that contradict each other. A denial only counts where it answers a
//! request that was sent after the order was told: answers overtake each other.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Contradictions that are spelled out. A broken sale could have one for each of its buyers.
const LISTED_MAX: usize = 10;

/// What all buyers were told of their orders.
#[derive(Debug, Default)]
pub(crate) struct AnswerLog {
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    accounts: HashMap<String, Account>,
    contradictions: Contradictions,
}

/// What one user was told.
#[derive(Debug)]
struct Account {
    order: String,
    since: Instant,
    /// The attempt that was told `purchased`.
    attempt: Option<String>,
}

/// Answers that cannot all be true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contradictions {
    pub(crate) count: usize,
    /// The first of them, in words.
    pub(crate) listed: Vec<String>,
}

impl AnswerLog {
    /// `purchased`, for the attempt of this key.
    pub(crate) fn purchased(&self, user: &str, attempt: &str, order: &str) {
        let mut pages = self.lock();
        pages.told(user, order);
        let account = pages.accounts.get_mut(user);
        let other = account.and_then(|account| account.attempt.replace(attempt.to_owned()));
        if other.is_some_and(|other| other != attempt) {
            pages.contradictions.add(format!("{user} was told `purchased` for two attempts"));
        }
    }

    /// `already_purchased`, or a lookup that found something.
    pub(crate) fn has(&self, user: &str, order: &str) {
        self.lock().told(user, order);
    }

    /// Sold out, or a lookup that found nothing: the answer to a request that was sent at that time.
    pub(crate) fn has_none(&self, user: &str, sent: Instant) {
        let mut pages = self.lock();
        let Pages { accounts, contradictions } = &mut *pages;
        if let Some(account) = accounts.get(user).filter(|account| account.since < sent) {
            let order = &account.order;
            contradictions.add(format!("{user} was told of order {order}, and later that there is none"));
        }
    }

    /// Everybody who was told `purchased`, with the order.
    pub(crate) fn buyers(&self) -> Vec<(String, String)> {
        let pages = self.lock();
        let bought = pages.accounts.iter().filter(|(_, account)| account.attempt.is_some());
        bought.map(|(user, account)| (user.clone(), account.order.clone())).collect()
    }

    pub(crate) fn contradictions(&self) -> Contradictions {
        self.lock().contradictions.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    fn told(&mut self, user: &str, order: &str) {
        match self.accounts.entry(user.to_owned()) {
            Entry::Vacant(entry) => {
                entry.insert(Account { order: order.to_owned(), since: Instant::now(), attempt: None });
            }
            Entry::Occupied(entry) if entry.get().order != order => {
                let first = &entry.get().order;
                self.contradictions.add(format!("{user} was told of order {first} and of order {order}"));
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
    fn the_same_order_told_again_is_no_contradiction() {
        let ledger = AnswerLog::default();
        let before = Instant::now();
        ledger.purchased("ann", "first", "A");
        ledger.purchased("ann", "first", "A");
        ledger.has("ann", "A");
        ledger.has("bob", "B");
        ledger.has_none("ann", before);
        ledger.has_none("eve", Instant::now());
        assert_eq!(ledger.contradictions().count, 0);
        assert_eq!(ledger.buyers(), [("ann".to_owned(), "A".to_owned())], "bob was not told `purchased`");
    }

    #[test]
    fn two_orders_of_one_user_contradict_each_other() {
        let ledger = AnswerLog::default();
        ledger.purchased("ann", "first", "A");
        ledger.has("ann", "B");
        assert_eq!(ledger.contradictions().listed, ["ann was told of order A and of order B"]);
    }

    #[test]
    fn two_attempts_cannot_both_be_the_one_that_bought() {
        let ledger = AnswerLog::default();
        ledger.purchased("ann", "first", "A");
        ledger.purchased("ann", "second", "A");
        assert_eq!(ledger.contradictions().listed, ["ann was told `purchased` for two attempts"]);
    }

    #[test]
    fn an_order_that_was_told_cannot_be_gone() {
        let ledger = AnswerLog::default();
        ledger.purchased("ann", "first", "A");
        ledger.has_none("ann", Instant::now());
        assert_eq!(ledger.contradictions().count, 1);
    }

    #[test]
    fn contradictions_are_counted_and_the_first_of_them_listed() {
        let ledger = AnswerLog::default();
        ledger.has("ann", "A");
        for order in 0..100 {
            ledger.has("ann", &format!("B{order}"));
        }
        let Contradictions { count, listed } = ledger.contradictions();
        assert_eq!((count, listed.len()), (100, LISTED_MAX));
    }
}
