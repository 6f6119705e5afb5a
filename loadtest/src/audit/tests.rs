use super::*;

/// Evidence of a sale of 100 units, all sold during the run: 90 to buyers of this run and 10 to others.
fn clean_sale() -> Evidence {
    let before = AuditReport { ok: true, total: 100, stock: 100, ..AuditReport::default() };
    let after =
        AuditReport { ok: true, total: 100, sold: 100, claims: 100, orders: 100, ..AuditReport::default() };
    Evidence { before, after, buyers: 90, sold_out: 500, ..Evidence::default() }
}

fn violations(change: impl Fn(&mut Evidence)) -> String {
    let mut evidence = clean_sale();
    change(&mut evidence);
    evidence.violations().join("; ")
}

#[test]
fn clean_sale_has_no_violations() {
    assert_eq!(clean_sale().violations(), [""; 0]);
}

#[test]
fn unsold_units_contradict_sold_out() {
    assert_eq!(violations(|evidence| (evidence.sold_out, evidence.after.sold) = (0, 95)), "");
    assert_eq!(
        violations(|evidence| evidence.after.sold = 95),
        "500 requests were answered `sold out`, but 95 of 100 units are sold"
    );
}

#[test]
fn sold_above_total_is_a_violation() {
    assert_eq!(violations(|evidence| evidence.after.sold = 101), "101 units are sold, but only 100 exist");
}

#[test]
fn purchases_must_be_sold_in_the_run() {
    assert_eq!(
        violations(|evidence| evidence.before.sold = 11),
        "90 users were answered `purchased`, but 89 units were sold"
    );
}

#[test]
fn violations_of_the_coordinators_audit_are_listed() {
    let with_violation = |evidence: &mut Evidence| {
        evidence.after.ok = false;
        evidence.after.violations = vec!["a channel took in more than it was given".into()];
    };
    assert!(violations(with_violation).contains("a channel took in more"));
    assert!(violations(|evidence| evidence.after.ok = false).contains("failed without naming a violation"));
    assert_eq!(violations(|evidence| evidence.after.buyers_twice = 1), "1 users have claims in two shards");
}

#[test]
fn violations_of_the_ledgers_audit_are_listed() {
    let ledger = |ok, rows| LedgerAudit { ok, rows, ..LedgerAudit::default() };
    assert_eq!(violations(|evidence| evidence.ledger = Some(ledger(true, 100))), "");
    assert_eq!(
        violations(|evidence| evidence.ledger = Some(ledger(true, 99))),
        "100 units are sold, but the ledger has 99 orders"
    );
    let failed = violations(|evidence| evidence.ledger = Some(ledger(false, 100)));
    assert_eq!(failed, "ledger's audit: failed without naming a violation");
}

#[test]
fn first_contradictions_are_listed_and_all_counted() {
    let contradictions: Vec<String> = (0..12).map(|n| format!("contradiction {n}")).collect();
    let listed = violations(|evidence| evidence.contradictions = contradictions.clone());
    assert!(listed.starts_with("contradiction 0; ") && listed.ends_with("and 2 more like these"), "{listed}");
}
