use super::*;

const SOON: Option<Duration> = Some(Duration::from_secs(1));

fn purchase(family: ApiFamily, status: u16, body: &str) -> (AnswerKind, Option<String>) {
    let answer = Answer::to_purchase(family, status, None, body.as_bytes());
    (answer.kind, answer.order)
}

fn order(id: &str) -> Option<String> {
    Some(id.to_owned())
}

#[test]
fn a_purchase_by_sale_is_read_to_the_letter() {
    let by_sale = |status, body| purchase(ApiFamily::BySale, status, body);
    assert_eq!(by_sale(200, r#"{"success":true,"orderId":"A"}"#), (AnswerKind::Purchased, order("A")));
    let again = r#"{"success":false,"reason":"already_purchased","orderId":"A"}"#;
    assert_eq!(by_sale(409, again), (AnswerKind::AlreadyPurchased, order("A")));
    assert_eq!(by_sale(409, r#"{"success":false,"reason":"out_of_stock"}"#), (AnswerKind::SoldOut, None));
    assert_eq!(
        by_sale(403, r#"{"success":false,"reason":"sale_not_active"}"#),
        (AnswerKind::NotActive, None)
    );
}

#[test]
fn a_purchase_of_the_single_sale_is_read_to_the_letter() {
    let single = |status, body| purchase(ApiFamily::Single, status, body);
    assert_eq!(single(200, r#"{"status":"purchased","orderId":"A"}"#), (AnswerKind::Purchased, order("A")));
    assert_eq!(
        single(409, r#"{"status":"already_purchased","orderId":"A"}"#),
        (AnswerKind::AlreadyPurchased, order("A"))
    );
    assert_eq!(single(410, r#"{"status":"sold_out"}"#), (AnswerKind::SoldOut, None));
    assert_eq!(single(403, r#"{"status":"not_active"}"#), (AnswerKind::NotActive, None));
}

#[test]
fn what_the_contract_does_not_have_is_unexpected() {
    for (family, status, body) in [
        (ApiFamily::BySale, 200, r#"{"success":true}"#),
        (ApiFamily::BySale, 200, r#"{"success":false,"orderId":"A"}"#),
        (ApiFamily::BySale, 200, r#"{"status":"purchased","orderId":"A"}"#),
        (ApiFamily::BySale, 409, r#"{"success":false,"reason":"already_purchased"}"#),
        (ApiFamily::BySale, 410, r#"{"status":"sold_out"}"#),
        (ApiFamily::Single, 200, r#"{"success":true,"orderId":"A"}"#),
        (ApiFamily::Single, 409, r#"{"status":"sold_out"}"#),
        (ApiFamily::Single, 500, "oops"),
        (ApiFamily::BySale, 200, ""),
    ] {
        assert_eq!(purchase(family, status, body).0, AnswerKind::Unexpected, "{family:?} {status} {body}");
    }
}

#[test]
fn whoever_is_sent_away_knows_when_to_come_back_or_it_is_unexpected() {
    let away = |status, retry_after, body: &str| {
        Answer::to_purchase(ApiFamily::Single, status, retry_after, body.as_bytes()).kind
    };
    assert_eq!(away(503, SOON, r#"{"status":"busy","retryAfterMs":1000}"#), AnswerKind::Busy);
    assert_eq!(away(503, SOON, r#"{"type":"/problems/busy","status":503}"#), AnswerKind::Busy);
    assert_eq!(away(503, SOON, r#"{"type":"/problems/unknown-outcome"}"#), AnswerKind::Unknown);
    assert_eq!(away(503, SOON, r#"{"type":"about:blank","status":503}"#), AnswerKind::Unknown);
    assert_eq!(away(429, SOON, r#"{"type":"/problems/too-many-requests"}"#), AnswerKind::Limited);
    assert_eq!(away(503, None, r#"{"status":"busy"}"#), AnswerKind::Unexpected);
    assert_eq!(away(429, None, ""), AnswerKind::Unexpected);
}

#[test]
fn a_refused_token_brings_a_new_one() {
    let refused = br#"{"error":"csrf","reason":"expired","csrfToken":"new"}"#;
    let answer = Answer::to_purchase(ApiFamily::Single, 403, None, refused);
    assert_eq!((answer.kind, answer.token.as_deref()), (AnswerKind::CsrfRefused, Some("new")));
}

#[test]
fn a_lookup_names_an_order_exactly_if_there_is_one() {
    let lookup = |family, body: &str| {
        let answer = Answer::to_lookup(family, 200, None, body.as_bytes());
        (answer.kind, answer.order)
    };
    let held = r#"{"hasPurchased":true,"orderId":"A","purchasedAt":"…"}"#;
    assert_eq!(lookup(ApiFamily::BySale, held), (AnswerKind::Told, order("A")));
    assert_eq!(lookup(ApiFamily::BySale, r#"{"hasPurchased":false}"#), (AnswerKind::Told, None));
    assert_eq!(
        lookup(ApiFamily::Single, r#"{"purchased":true,"orderId":"A"}"#),
        (AnswerKind::Told, order("A"))
    );
    assert_eq!(lookup(ApiFamily::Single, r#"{"purchased":false,"orderId":null}"#), (AnswerKind::Told, None));
    assert_eq!(lookup(ApiFamily::Single, r#"{"purchased":true,"orderId":null}"#).0, AnswerKind::Unexpected);
    assert_eq!(lookup(ApiFamily::BySale, r#"{"hasPurchased":true}"#).0, AnswerKind::Unexpected);
}

#[test]
fn a_status_and_a_token_are_complete_or_unexpected() {
    let status = |family, body: &str| Answer::to_status(family, 200, None, body.as_bytes()).kind;
    assert_eq!(status(ApiFamily::BySale, r#"{"status":"active","remainingStock":3}"#), AnswerKind::Told);
    assert_eq!(status(ApiFamily::Single, r#"{"status":"active","stock":3}"#), AnswerKind::Told);
    assert_eq!(
        status(ApiFamily::Single, r#"{"status":"active","remainingStock":3}"#),
        AnswerKind::Unexpected
    );
    let token = Answer::to_csrf(200, None, br#"{"csrfToken":"t"}"#);
    assert_eq!((token.kind, token.token.as_deref()), (AnswerKind::Told, Some("t")));
    assert_eq!(Answer::to_csrf(200, None, b"{}").kind, AnswerKind::Unexpected);
}
