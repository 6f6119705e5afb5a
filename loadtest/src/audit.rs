//! The audit after a run: compares the answers to buyers with the coordinator's audit and with lookups.
//!
//! [`Evidence::gather`] sends the requests. [`Evidence::violations`] is a pure function of the evidence, with one check
//! for each promise. A sale must be sold out if any buyer was answered sold out.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use buyers::{AnswerKind, ApiFamily, AuditReport, LedgerAudit, audit_findings, first_findings};
use futures::{StreamExt, stream};
use rand::{rng, seq::IteratorRandom};
use tokio::time::sleep;

use crate::{answer_log::FoundOrders, tally::Counts, target::LoadTarget};

#[cfg(test)]
mod tests;

/// Number of purchases that are looked up again. If there are more, a random sample of this size: more would take
/// minutes and add little confidence.
const LOOKUPS_MAX: usize = 10_000;
const LOOKUPS_AT_ONCE: usize = 16;
/// Tries of a lookup. They take longer than a failover.
const LOOKUP_TRIES_MAX: u32 = 20;
/// Number of contradictions that are listed.
const LISTED_MAX: usize = 10;
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);

/// Input of the verdict.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) before: AuditReport,
    pub(crate) after: AuditReport,
    /// The audit of the ledger, if there is one.
    pub(crate) ledger: Option<LedgerAudit>,
    /// Distinct users that were answered `purchased`.
    pub(crate) buyers: usize,
    /// Number of answers `sold out`.
    pub(crate) sold_out: u64,
    pub(crate) lookups: Lookups,
    /// Broken promises to single users.
    pub(crate) contradictions: Vec<String>,
}

/// Results of looking purchases up again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) asked: usize,
    /// Purchases that were found with their order.
    pub(crate) found: usize,
}

impl Evidence {
    /// Gathers the evidence of a finished run.
    ///
    /// # Errors
    /// Fails when a purchase cannot be looked up, or when the audit of coordinator or ledger cannot be read. Then
    /// there is no verdict.
    pub(crate) async fn gather(
        target: &Arc<LoadTarget>,
        before: AuditReport,
        counts: &Counts,
    ) -> Result<Self> {
        let answer_log = &target.sale_client.answer_log;
        let purchases = answer_log.buyers();
        let found = look_up(target, &purchases).await?;
        let after = target.audit().await?;
        let ledger = target.ledger_audit().await?;
        let has_own = |(user, order): &&(String, String)| found.get(user) == Some(&Some(order.clone()));
        let lookups = Lookups { asked: found.len(), found: purchases.iter().filter(has_own).count() };
        let contradictions = answer_log.contradictions(&found, after.total);
        let (buyers, sold_out) = (purchases.len(), counts.of(AnswerKind::SoldOut));
        Ok(Self { before, after, ledger, buyers, sold_out, lookups, contradictions })
    }

    /// Returns the description of every broken promise.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = self.audit_violations();
        violations.extend(self.answer_violations());
        violations.extend(first_findings(self.contradictions.clone(), LISTED_MAX));
        violations
    }

    fn audit_violations(&self) -> Vec<String> {
        let AuditReport { total, sold, buyers_twice, .. } = &self.after;
        let mut violations = first_findings(audit_findings(&self.after), LISTED_MAX);
        if sold > total {
            violations.push(format!("{sold} units are sold, but only {total} exist"));
        }
        if *buyers_twice > 0 {
            violations.push(format!("{buyers_twice} users have claims in two shards"));
        }
        if let Some(ledger) = &self.ledger {
            violations.extend(first_findings(ledger.findings(), LISTED_MAX));
            if ledger.rows < *sold {
                violations.push(format!("{sold} units are sold, but the ledger has {} orders", ledger.rows));
            }
        }
        violations
    }

    fn answer_violations(&self) -> Vec<String> {
        let AuditReport { total, sold, .. } = &self.after;
        let (sold_in_run, buyers, mut violations) = (self.sold_in_run(), self.buyers, Vec::new());
        if buyers as u64 > sold_in_run {
            violations
                .push(format!("{buyers} users were answered `purchased`, but {sold_in_run} units were sold"));
        }
        if self.sold_out > 0 && sold < total {
            violations.push(format!(
                "{} requests were answered `sold out`, but {sold} of {total} units are sold",
                self.sold_out
            ));
        }
        violations
    }

    /// Returns the units sold during the run, to buyers of this run or others.
    pub(crate) fn sold_in_run(&self) -> u64 {
        self.after.sold.saturating_sub(self.before.sold)
    }
}

/// Looks up these purchases, or a sample of them.
async fn look_up(target: &Arc<LoadTarget>, purchases: &[(String, String)]) -> Result<FoundOrders> {
    let users = purchases.iter().map(|(user, _)| user.clone()).sample(&mut rng(), LOOKUPS_MAX);
    let asking = users.into_iter().map(|user| async move {
        let order = found_order(target, &user).await?;
        Ok((user, order))
    });
    let found: Vec<Result<_>> = stream::iter(asking).buffer_unordered(LOOKUPS_AT_ONCE).collect().await;
    found.into_iter().collect()
}

/// Returns the order that a lookup of the user's purchase finds.
async fn found_order(target: &LoadTarget, user: &str) -> Result<Option<String>> {
    for _ in 0..LOOKUP_TRIES_MAX {
        let answer = target.sale_client.look_up(ApiFamily::BySale, user).await.answer;
        if matches!(answer.kind, AnswerKind::Found | AnswerKind::FoundNone) {
            return Ok(answer.order);
        }
        sleep(LOOKUP_PAUSE).await;
    }
    bail!("the purchase of {user} cannot be looked up");
}
