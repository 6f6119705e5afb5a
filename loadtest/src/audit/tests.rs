use serde_json::json;

use super::*;

/// A sale of 100, all of which were sold during the run to 90 of ours and 10 others.
fn sound() -> Evidence {
    let before = AuditReport { ok: true, total: 100, stock: 100, ..AuditReport::default() };
    let after =
        AuditReport { ok: true, total: 100, sold: 100, claims: 100, orders: 100, ..AuditReport::default() };
    Evidence { before, after, buyers: 90, sold_out: 500, ..Evidence::default() }
}

fn broken(change: impl Fn(&mut Evidence)) -> String {
    let mut evidence = sound();
    change(&mut evidence);
    evidence.broken().join("; ")
}

#[test]
fn a_sale_that_kept_its_promises_is_clean() {
    assert_eq!(sound().broken(), [""; 0]);
}

#[test]
fn an_unsold_rest_is_fine_unless_somebody_was_told_that_there_is_none() {
    assert_eq!(broken(|evidence| (evidence.sold_out, evidence.after.sold) = (0, 95)), "");
    assert_eq!(
        broken(|evidence| evidence.after.sold = 95),
        "500 were told `sold out`, and 95 of 100 are sold"
    );
}

#[test]
fn more_than_there_is_is_oversold() {
    assert_eq!(broken(|evidence| evidence.after.sold = 101), "101 are sold of 100 units there are");
}

#[test]
fn what_was_told_must_have_been_sold_during_the_run() {
    assert_eq!(
        broken(|evidence| evidence.before.sold = 11),
        "90 users were told `purchased`, and 89 units were sold"
    );
}

#[test]
fn the_audit_has_the_word() {
    let violations = |evidence: &mut Evidence| {
        evidence.after.ok = false;
        evidence.after.violations = vec![json!("a channel took in more than it was given")];
    };
    assert!(broken(violations).contains("a channel took in more"));
    assert!(broken(|evidence| evidence.after.ok = false).contains("does not say why"));
    assert_eq!(broken(|evidence| evidence.after.buyers_twice = 1), "1 users have claims in two shards");
}

#[test]
fn lost_purchases_and_contradictions_are_named_and_counted() {
    let mut contradictions = Contradictions::default();
    (0..12).for_each(|n| contradictions.add(format!("contradiction {n}")));
    let told = broken(|evidence| evidence.contradictions = contradictions.clone());
    assert!(told.starts_with("contradiction 0; ") && told.ends_with("and 2 more like these"), "{told}");
    assert!(!broken(|evidence| evidence.lookups.lost = contradictions.clone()).is_empty());
}

#[test]
fn a_purchase_is_found_under_its_own_order_or_lost() {
    assert_eq!(lost("ann", "A", Some("A")), None);
    assert_eq!(lost("ann", "A", None).unwrap(), "ann was told of order A, and a lookup finds nothing");
    assert!(lost("ann", "A", Some("B")).unwrap().ends_with("finds order B"));
}
