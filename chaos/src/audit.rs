//! The audit of a finished sale, from three sources: the coordinator's audit, the journal, and the public status.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use buyers::{
    AuditReport, FinalState, audit_findings, first_findings,
    journal::{JournalEntry, of_sale},
    verdict::{Violation, violations},
};
use stock::sale::Sale;
use testkit::{Stack, until_ok};

use crate::{claims::read_final_state, testbed::connect};

/// Time for the status to catch up: it comes from a snapshot, which is slightly old.
const STATUS_LIMIT: Duration = Duration::from_secs(10);

/// Number of the journal's violations that are listed.
const VIOLATIONS_LISTED_MAX: usize = 20;

/// Returns every broken promise of a sale as text. Buyers must have tried until the sale was sold out or had ended.
///
/// # Errors
/// Fails when Redis or the coordinator's audit cannot be read.
pub async fn audit(stack: &Stack, sale: &Sale, records: &[JournalEntry]) -> Result<Vec<String>> {
    let report = stack.audit(sale.id().as_str()).await.context("the coordinator's audit")?;
    // A new connection: an older one may lead to processes that no longer run.
    let final_state = read_final_state(&connect(stack.redis()).await?, sale, report.total).await?;
    let mut found = audit_violations(&report, must_be_sold_out(&final_state));
    found.extend(journal_violations(&violations(&of_sale(records, sale.id().as_str()), &final_state)));
    found.extend(status_violation(stack, sale.id().as_str(), &report).await);
    Ok(found)
}

/// Returns false when the window of a shard is over: such a sale may have units left.
fn must_be_sold_out(final_state: &FinalState) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    final_state.shards.iter().all(|held| u128::from(held.window.ends_at) > now)
}

fn audit_violations(report: &AuditReport, must_be_sold_out: bool) -> Vec<String> {
    let mut found = audit_findings(report);
    if must_be_sold_out && report.sold != report.total {
        let AuditReport { sold, total, stock, in_flight, .. } = report;
        found.push(format!(
            "coordinator's audit: {sold} of {total} units are sold although buyers kept trying; {stock} are in shards, {in_flight} in channels"
        ));
    }
    found
}

fn journal_violations(violations: &[Violation]) -> Vec<String> {
    let describe = |violation: &Violation| {
        let lines: String = violation.lines.iter().map(|line| format!("\n    {line}")).collect();
        format!("journal: {violation}{lines}")
    };
    first_findings(violations.iter().map(describe).collect(), VIOLATIONS_LISTED_MAX)
}

/// Returns how the two statuses of the default sale contradict each other, or `None` when they agree within
/// [`STATUS_LIMIT`]. They may differ for a moment, because each may come from another node.
pub(crate) async fn status_contradiction(stack: &Stack) -> Option<String> {
    let agree = async || {
        let (one, other) = (stack.status().await?, stack.stock_status().await?);
        let agree = other.stock + other.sold == one.total_stock && other.sold == one.sold();
        ensure!(agree, "{one:?} contradicts {other:?}");
        Ok(())
    };
    let agreed = until_ok("two equal statuses", STATUS_LIMIT, agree).await;
    agreed.err().map(|error| format!("status: {error:#}"))
}

async fn status_violation(stack: &Stack, sale: &str, report: &AuditReport) -> Option<String> {
    let agrees = async || {
        let status = stack.status_of(sale).await?;
        let (sold, total) = (status.sold(), status.total_stock);
        let agrees = (sold, total) == (report.sold, report.total);
        ensure!(agrees, "{sold} of {total} sold, but the coordinator's audit counts {}", report.sold);
        Ok(())
    };
    let agreed = until_ok("the status of the coordinator's audit", STATUS_LIMIT, agrees).await;
    agreed.err().map(|error| format!("status: {error:#}"))
}
