//! The audit after a run: compares the answers to buyers with the coordinator's audit and with lookups.
//!
//! [`Evidence::gather`] sends the requests. [`Evidence::violations`] is a pure function of the evidence, with one check
//! for each promise. A sale must be sold out if any buyer was answered sold out.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use futures::{StreamExt, stream};
use rand::{rng, seq::SliceRandom};
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    admin::AuditReport,
    answer_log::Contradictions,
    answers::{Answer, AnswerKind, ApiFamily},
    tally::Counts,
    target::LoadTarget,
};

#[cfg(test)]
mod tests;

/// Number of purchases that are looked up again. If there are more, a random sample of this size: more would take
/// minutes and add little confidence.
const LOOKUPS_MAX: usize = 10_000;
const LOOKUPS_AT_ONCE: usize = 16;
/// Tries of a lookup. They take longer than a failover.
const LOOKUP_TRIES_MAX: u32 = 20;
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);

/// Input of the verdict.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) before: AuditReport,
    pub(crate) after: AuditReport,
    /// Distinct users that were answered `purchased`.
    pub(crate) buyers: usize,
    /// Number of answers `sold out`.
    pub(crate) sold_out: u64,
    pub(crate) lookups: Lookups,
    pub(crate) contradictions: Contradictions,
}

/// Results of looking purchases up again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) asked: usize,
    /// Purchases that were not found, or found with another order.
    pub(crate) lost: Contradictions,
}

impl Evidence {
    /// Gathers the evidence of a finished run.
    ///
    /// # Errors
    /// Fails when a purchase cannot be looked up, or when the coordinator's audit cannot be read. Then there is no
    /// verdict.
    pub(crate) async fn gather(
        target: &Arc<LoadTarget>,
        before: AuditReport,
        counts: &Counts,
    ) -> Result<Self> {
        let (contradictions, buyers) =
            (target.sale_client.answer_log.contradictions(), target.sale_client.answer_log.buyers());
        let count = buyers.len();
        let lookups = look_up(target, buyers).await?;
        let after = target.admin.audit(&target.sale).await?;
        Ok(Self {
            before,
            after,
            buyers: count,
            sold_out: counts.of(AnswerKind::SoldOut),
            lookups,
            contradictions,
        })
    }

    /// Returns the description of every broken promise.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = self.audit_violations();
        violations.extend(self.answer_violations());
        violations.extend(listed_violations(&self.contradictions));
        violations.extend(listed_violations(&self.lookups.lost));
        violations
    }

    fn audit_violations(&self) -> Vec<String> {
        let AuditReport { ok, violations, total, sold, buyers_twice, .. } = &self.after;
        let mut found = Contradictions::default();
        violations
            .iter()
            .for_each(|violation| found.add(format!("coordinator's audit: {}", violation_text(violation))));
        let mut violations = listed_violations(&found);
        if !ok && violations.is_empty() {
            violations.push("coordinator's audit: failed and does not say why".into());
        }
        if sold > total {
            violations.push(format!("{sold} units are sold, but only {total} exist"));
        }
        if *buyers_twice > 0 {
            violations.push(format!("{buyers_twice} users have claims in two shards"));
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

/// Returns a violation in the coordinator's words.
fn violation_text(violation: &Value) -> String {
    violation.as_str().map_or_else(|| violation.to_string(), str::to_owned)
}

fn listed_violations(contradictions: &Contradictions) -> Vec<String> {
    let Contradictions { count, listed } = contradictions;
    let more = (*count > listed.len()).then(|| format!("and {} more like these", count - listed.len()));
    listed.iter().cloned().chain(more).collect()
}

async fn look_up(target: &Arc<LoadTarget>, mut buyers: Vec<(String, String)>) -> Result<Lookups> {
    buyers.shuffle(&mut rng());
    buyers.truncate(LOOKUPS_MAX);
    let asked = buyers.len();
    let asking = buyers.into_iter().map(|(user, order)| async move { verify(target, &user, &order).await });
    let found: Vec<Result<Option<String>>> =
        stream::iter(asking).buffer_unordered(LOOKUPS_AT_ONCE).collect().await;
    let mut lost = Contradictions::default();
    for found in found {
        found?.into_iter().for_each(|what| lost.add(what));
    }
    Ok(Lookups { asked, lost })
}

/// Looks a purchase up. Returns a description if it is not found with this order.
async fn verify(target: &LoadTarget, user: &str, order: &str) -> Result<Option<String>> {
    for _ in 0..LOOKUP_TRIES_MAX {
        match target.sale_client.look_up(ApiFamily::BySale, user).await.answer {
            Answer { kind: AnswerKind::Data, order: held, .. } => {
                return Ok(lost(user, order, held.as_deref()));
            }
            _ => sleep(LOOKUP_PAUSE).await,
        }
    }
    bail!("the purchase of {user} cannot be looked up");
}

fn lost(user: &str, order: &str, held: Option<&str>) -> Option<String> {
    let held = match held {
        Some(held) if held == order => return None,
        Some(held) => format!("order {held}"),
        None => "nothing".into(),
    };
    Some(format!("{user} was answered with order {order}, but a lookup finds {held}"))
}
