//! The audit after a run: what clients were told, held against the books and against what the sale says now.
//!
//! Gathering evidence asks; the verdict on it is a pure function, in which each promise is a line of its own.
//! Whether a sale should be sold out needs no guess: it is, if anybody was told so.

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

/// Purchases that are looked up afterwards. Of more, so many by chance: minutes would not make it surer.
const LOOKUPS_MAX: usize = 10_000;
const LOOKUPS_AT_ONCE: usize = 16;
/// A failover is over by then.
const LOOKUP_TRIES_MAX: u32 = 20;
const LOOKUP_PAUSE: Duration = Duration::from_millis(500);

/// All that a verdict rests on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evidence {
    pub(crate) before: AuditReport,
    pub(crate) after: AuditReport,
    /// Distinct users who were told `purchased`.
    pub(crate) buyers: usize,
    /// Answers that said sold out.
    pub(crate) sold_out: u64,
    pub(crate) lookups: Lookups,
    pub(crate) contradictions: Contradictions,
}

/// Looking purchases up again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookups {
    pub(crate) asked: usize,
    /// Those that are not there any more, or under another order.
    pub(crate) lost: Contradictions,
}

impl Evidence {
    /// Gathers what there is to know of a run that is over.
    ///
    /// # Errors
    /// When a purchase cannot be looked up, or the books cannot be read: then there is no verdict.
    pub(crate) async fn gather(
        place: &Arc<LoadTarget>,
        before: AuditReport,
        counts: &Counts,
    ) -> Result<Self> {
        let (contradictions, buyers) = (place.shop.ledger.contradictions(), place.shop.ledger.buyers());
        let count = buyers.len();
        let lookups = look_up(place, buyers).await?;
        let after = place.admin.audit(&place.sale).await?;
        Ok(Self {
            before,
            after,
            buyers: count,
            sold_out: counts.of(AnswerKind::SoldOut),
            lookups,
            contradictions,
        })
    }

    /// Every promise that was broken, in words.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = self.of_the_books();
        broken.extend(self.of_what_was_told());
        broken.extend(spelled_out(&self.contradictions));
        broken.extend(spelled_out(&self.lookups.lost));
        broken
    }

    fn of_the_books(&self) -> Vec<String> {
        let AuditReport { ok, violations, total, sold, buyers_twice, .. } = &self.after;
        let mut found = Contradictions::default();
        violations.iter().for_each(|violation| found.add(format!("the books: {}", words(violation))));
        let mut broken = spelled_out(&found);
        if !ok && broken.is_empty() {
            broken.push("the books are not in order, and the audit does not say why".into());
        }
        if sold > total {
            broken.push(format!("{sold} are sold of {total} units there are"));
        }
        if *buyers_twice > 0 {
            broken.push(format!("{buyers_twice} users have claims in two shards"));
        }
        broken
    }

    fn of_what_was_told(&self) -> Vec<String> {
        let AuditReport { total, sold, .. } = &self.after;
        let (meanwhile, buyers, mut broken) = (self.sold_meanwhile(), self.buyers, Vec::new());
        if buyers as u64 > meanwhile {
            broken.push(format!("{buyers} users were told `purchased`, and {meanwhile} units were sold"));
        }
        if self.sold_out > 0 && sold < total {
            broken.push(format!("{} were told `sold out`, and {sold} of {total} are sold", self.sold_out));
        }
        broken
    }

    /// Units sold during the run, to anybody.
    pub(crate) fn sold_meanwhile(&self) -> u64 {
        self.after.sold.saturating_sub(self.before.sold)
    }
}

/// A violation as the coordinator words it.
fn words(violation: &Value) -> String {
    violation.as_str().map_or_else(|| violation.to_string(), str::to_owned)
}

fn spelled_out(contradictions: &Contradictions) -> Vec<String> {
    let Contradictions { count, listed } = contradictions;
    let more = (*count > listed.len()).then(|| format!("and {} more like these", count - listed.len()));
    listed.iter().cloned().chain(more).collect()
}

async fn look_up(place: &Arc<LoadTarget>, mut buyers: Vec<(String, String)>) -> Result<Lookups> {
    buyers.shuffle(&mut rng());
    buyers.truncate(LOOKUPS_MAX);
    let asked = buyers.len();
    let asking = buyers.into_iter().map(|(user, order)| async move { verify(place, &user, &order).await });
    let found: Vec<Result<Option<String>>> =
        stream::iter(asking).buffer_unordered(LOOKUPS_AT_ONCE).collect().await;
    let mut lost = Contradictions::default();
    for found in found {
        found?.into_iter().for_each(|what| lost.add(what));
    }
    Ok(Lookups { asked, lost })
}

/// What is wrong with this purchase, if anything is.
async fn verify(place: &LoadTarget, user: &str, order: &str) -> Result<Option<String>> {
    for _ in 0..LOOKUP_TRIES_MAX {
        match place.shop.look_up(ApiFamily::BySale, user).await.answer {
            Answer { kind: AnswerKind::Told, order: held, .. } => {
                return Ok(lost(user, order, held.as_deref()));
            }
            _ => sleep(LOOKUP_PAUSE).await,
        }
    }
    bail!("what became of the purchase of {user} cannot be looked up");
}

fn lost(user: &str, order: &str, held: Option<&str>) -> Option<String> {
    let held = match held {
        Some(held) if held == order => return None,
        Some(held) => format!("order {held}"),
        None => "nothing".into(),
    };
    Some(format!("{user} was told of order {order}, and a lookup finds {held}"))
}
