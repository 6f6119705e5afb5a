use super::*;

const SOON: Option<Duration> = Some(Duration::from_secs(1));

fn purchase(family: Family, status: u16, body: &str) -> (Kind, Option<String>) {
    let answer = Answer::to_purchase(family, status, None, body.as_bytes());
    (answer.kind, answer.order)
}

fn order(id: &str) -> Option<String> {
    Some(id.to_owned())
}

#[test]
fn a_purchase_by_sale_is_read_to_the_letter() {
    let by_sale = |status, body| purchase(Family::BySale, status, body);
    assert_eq!(by_sale(200, r#"{"success":true,"orderId":"A"}"#), (Kind::Purchased, order("A")));
    let again = r#"{"success":false,"reason":"already_purchased","orderId":"A"}"#;
    assert_eq!(by_sale(409, again), (Kind::AlreadyPurchased, order("A")));
    assert_eq!(by_sale(409, r#"{"success":false,"reason":"out_of_stock"}"#), (Kind::SoldOut, None));
    assert_eq!(by_sale(403, r#"{"success":false,"reason":"sale_not_active"}"#), (Kind::NotActive, None));
}

#[test]
fn a_purchase_of_the_single_sale_is_read_to_the_letter() {
    let single = |status, body| purchase(Family::Single, status, body);
    assert_eq!(single(200, r#"{"status":"purchased","orderId":"A"}"#), (Kind::Purchased, order("A")));
    assert_eq!(
        single(409, r#"{"status":"already_purchased","orderId":"A"}"#),
        (Kind::AlreadyPurchased, order("A"))
    );
    assert_eq!(single(410, r#"{"status":"sold_out"}"#), (Kind::SoldOut, None));
    assert_eq!(single(403, r#"{"status":"not_active"}"#), (Kind::NotActive, None));
}

#[test]
fn what_the_contract_does_not_have_is_unexpected() {
    for (family, status, body) in [
        (Family::BySale, 200, r#"{"success":true}"#),
        (Family::BySale, 200, r#"{"success":false,"orderId":"A"}"#),
        (Family::BySale, 200, r#"{"status":"purchased","orderId":"A"}"#),
        (Family::BySale, 409, r#"{"success":false,"reason":"already_purchased"}"#),
        (Family::BySale, 410, r#"{"status":"sold_out"}"#),
        (Family::Single, 200, r#"{"success":true,"orderId":"A"}"#),
        (Family::Single, 409, r#"{"status":"sold_out"}"#),
        (Family::Single, 500, "oops"),
        (Family::BySale, 200, ""),
    ] {
        assert_eq!(purchase(family, status, body).0, Kind::Unexpected, "{family:?} {status} {body}");
    }
}

#[test]
fn whoever_is_sent_away_knows_when_to_come_back_or_it_is_unexpected() {
    let away = |status, retry_after, body: &str| {
        Answer::to_purchase(Family::Single, status, retry_after, body.as_bytes()).kind
    };
    assert_eq!(away(503, SOON, r#"{"status":"busy","retryAfterMs":1000}"#), Kind::Busy);
    assert_eq!(away(503, SOON, r#"{"type":"/problems/busy","status":503}"#), Kind::Busy);
    assert_eq!(away(503, SOON, r#"{"type":"/problems/unknown-outcome"}"#), Kind::Unknown);
    assert_eq!(away(503, SOON, r#"{"type":"about:blank","status":503}"#), Kind::Unknown);
    assert_eq!(away(429, SOON, r#"{"type":"/problems/too-many-requests"}"#), Kind::Limited);
    assert_eq!(away(503, None, r#"{"status":"busy"}"#), Kind::Unexpected);
    assert_eq!(away(429, None, ""), Kind::Unexpected);
}

#[test]
fn a_refused_token_brings_a_new_one() {
    let refused = br#"{"error":"csrf","reason":"expired","csrfToken":"new"}"#;
    let answer = Answer::to_purchase(Family::Single, 403, None, refused);
    assert_eq!((answer.kind, answer.token.as_deref()), (Kind::CsrfRefused, Some("new")));
}

#[test]
fn a_lookup_names_an_order_exactly_if_there_is_one() {
    let lookup = |family, body: &str| {
        let answer = Answer::to_lookup(family, 200, None, body.as_bytes());
        (answer.kind, answer.order)
    };
    let held = r#"{"hasPurchased":true,"orderId":"A","purchasedAt":"…"}"#;
    assert_eq!(lookup(Family::BySale, held), (Kind::Told, order("A")));
    assert_eq!(lookup(Family::BySale, r#"{"hasPurchased":false}"#), (Kind::Told, None));
    assert_eq!(lookup(Family::Single, r#"{"purchased":true,"orderId":"A"}"#), (Kind::Told, order("A")));
    assert_eq!(lookup(Family::Single, r#"{"purchased":false,"orderId":null}"#), (Kind::Told, None));
    assert_eq!(lookup(Family::Single, r#"{"purchased":true,"orderId":null}"#).0, Kind::Unexpected);
    assert_eq!(lookup(Family::BySale, r#"{"hasPurchased":true}"#).0, Kind::Unexpected);
}

#[test]
fn a_status_and_a_token_are_complete_or_unexpected() {
    let status = |family, body: &str| Answer::to_status(family, 200, None, body.as_bytes()).kind;
    assert_eq!(status(Family::BySale, r#"{"status":"active","remainingStock":3}"#), Kind::Told);
    assert_eq!(status(Family::Single, r#"{"status":"active","stock":3}"#), Kind::Told);
    assert_eq!(status(Family::Single, r#"{"status":"active","remainingStock":3}"#), Kind::Unexpected);
    let token = Answer::to_csrf(200, None, br#"{"csrfToken":"t"}"#);
    assert_eq!((token.kind, token.token.as_deref()), (Kind::Told, Some("t")));
    assert_eq!(Answer::to_csrf(200, None, b"{}").kind, Kind::Unexpected);
}
