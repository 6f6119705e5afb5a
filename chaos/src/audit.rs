//! The verdict over a sale that is over, from three sides.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use stock::sale::Sale;
use testkit::{
    Stack,
    stack::{AuditReport, SaleStatus},
    until,
};

use crate::{
    claims::{FinalState, read_final_state},
    journal::{JournalEntry, of_sale},
    testbed::connect,
    verdict::{Violation, violations},
};

/// The status comes from a snapshot, which is a moment old.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// Violations of the journal that are spelled out. A broken sale could have one for each of its buyers.
const VIOLATIONS_LISTED_MAX: usize = 20;

/// Every promise that was broken at a sale, in words. Buyers tried until it was sold out, or until its end.
///
/// # Errors
/// When it cannot be read.
pub async fn audit(stack: &Stack, sale: &Sale, records: &[JournalEntry]) -> Result<Vec<String>> {
    let books = stack.audit(sale.id().as_str()).await.context("the audit of the books")?;
    // A connection of its own: an older one may lead to processes that are gone.
    let end = read_final_state(&connect(stack.redis()).await?, sale, books.total).await?;
    let mut found = of_the_books(&books, is_to_be_sold_out(&end));
    found.extend(of_the_journal(&violations(&of_sale(records, sale.id().as_str()), &end)));
    found.extend(of_the_status(stack, sale.id().as_str(), &books).await?);
    Ok(found)
}

/// A sale that has come to the end of its window may have units left.
fn is_to_be_sold_out(end: &FinalState) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    end.shards.iter().all(|held| u128::from(held.window.ends_at) > now)
}

fn of_the_books(books: &AuditReport, is_to_be_sold_out: bool) -> Vec<String> {
    let mut found: Vec<String> =
        books.violations.iter().map(|violation| format!("books: {violation}")).collect();
    if !books.ok && found.is_empty() {
        found.push("books: the audit is not content and does not say why".into());
    }
    if is_to_be_sold_out && books.sold != books.total {
        let AuditReport { sold, total, stock, in_flight, .. } = books;
        found.push(format!(
            "books: {sold} of {total} are sold to buyers who kept trying; {stock} lie in shards, {in_flight} are on their way"
        ));
    }
    found
}

fn of_the_journal(violations: &[Violation]) -> Vec<String> {
    let told = |Violation { rule, what, lines }: &Violation| {
        let lines: String = lines.iter().map(|line| format!("\n    {line}")).collect();
        format!("journal: {rule}: {what}{lines}")
    };
    let mut found: Vec<String> = violations.iter().take(VIOLATIONS_LISTED_MAX).map(told).collect();
    if violations.len() > VIOLATIONS_LISTED_MAX {
        found.push(format!("journal: and {} more", violations.len() - VIOLATIONS_LISTED_MAX));
    }
    found
}

/// How the default sale's two statuses contradict each other, where they still do after a moment: each may come from
/// another node.
pub(crate) async fn of_both_statuses(stack: &Stack) -> Result<Option<String>> {
    let contradiction = async || {
        let (one, other) = (stack.status().await?, stack.stock_status().await?);
        let agree = other.stock + other.sold == one.total_stock && other.sold == one.sold();
        anyhow::Ok((!agree).then(|| format!("status: {one:?} is not {other:?}")))
    };
    let agreed =
        until("two statuses that agree", STATUS_LIMIT, async || matches!(contradiction().await, Ok(None)));
    match agreed.await {
        Ok(()) => Ok(None),
        Err(_) => contradiction().await,
    }
}

async fn of_the_status(stack: &Stack, sale: &str, books: &AuditReport) -> Result<Option<String>> {
    let agrees = |status: &SaleStatus| status.total_stock == books.total && status.sold() == books.sold;
    let looked = until("a status that says what the books say", STATUS_LIMIT, async || {
        stack.status_of(sale).await.is_ok_and(|status| agrees(&status))
    });
    if looked.await.is_ok() {
        return Ok(None);
    }
    let status = stack.status_of(sale).await.context("the sale's status")?;
    Ok(Some(format!(
        "status: {} of {} sold, but the books say {}",
        status.sold(),
        status.total_stock,
        books.sold
    )))
}
