use super::*;

const SOON: Option<Duration> = Some(Duration::from_secs(1));

fn received(status: u16, retry_after: Option<Duration>, body: &str) -> Received {
    Received { status, retry_after, body: body.into() }
}

fn purchase(family: ApiFamily, status: u16, body: &str) -> (AnswerKind, Option<String>) {
    let answer = Answer::to_purchase(family, received(status, None, body));
    (answer.kind, answer.order)
}

fn order(id: &str) -> Option<String> {
    Some(id.to_owned())
}

#[test]
fn purchase_by_sale_is_parsed_exactly() {
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
fn purchase_of_single_sale_is_parsed_exactly() {
    let single = |status, body| purchase(ApiFamily::SingleSale, status, body);
    assert_eq!(single(200, r#"{"status":"purchased","orderId":"A"}"#), (AnswerKind::Purchased, order("A")));
    assert_eq!(
        single(409, r#"{"status":"already_purchased","orderId":"A"}"#),
        (AnswerKind::AlreadyPurchased, order("A"))
    );
    assert_eq!(single(410, r#"{"status":"sold_out"}"#), (AnswerKind::SoldOut, None));
    assert_eq!(single(403, r#"{"status":"not_active"}"#), (AnswerKind::NotActive, None));
}

#[test]
fn answer_outside_the_contract_is_unexpected() {
    for (family, status, body) in [
        (ApiFamily::BySale, 200, r#"{"success":true}"#),
        (ApiFamily::BySale, 200, r#"{"success":false,"orderId":"A"}"#),
        (ApiFamily::BySale, 200, r#"{"status":"purchased","orderId":"A"}"#),
        (ApiFamily::BySale, 409, r#"{"success":false,"reason":"already_purchased"}"#),
        (ApiFamily::BySale, 410, r#"{"status":"sold_out"}"#),
        (ApiFamily::SingleSale, 200, r#"{"success":true,"orderId":"A"}"#),
        (ApiFamily::SingleSale, 409, r#"{"status":"sold_out"}"#),
        (ApiFamily::SingleSale, 500, "oops"),
        (ApiFamily::BySale, 200, ""),
    ] {
        assert_eq!(purchase(family, status, body).0, AnswerKind::Unexpected, "{family:?} {status} {body}");
    }
}

#[test]
fn rejection_without_retry_after_is_unexpected() {
    let rejected = |status, retry_after, body: &str| {
        Answer::to_purchase(ApiFamily::SingleSale, received(status, retry_after, body)).kind
    };
    assert_eq!(rejected(503, SOON, r#"{"status":"busy","retryAfterMs":1000}"#), AnswerKind::Busy);
    assert_eq!(rejected(503, SOON, r#"{"type":"/problems/busy","status":503}"#), AnswerKind::Busy);
    assert_eq!(rejected(503, SOON, r#"{"type":"/problems/unknown-outcome"}"#), AnswerKind::Unknown);
    assert_eq!(rejected(503, SOON, r#"{"type":"about:blank","status":503}"#), AnswerKind::Unknown);
    assert_eq!(rejected(429, SOON, r#"{"type":"/problems/too-many-requests"}"#), AnswerKind::Limited);
    assert_eq!(rejected(404, None, r#"{"type":"/problems/unknown-sale"}"#), AnswerKind::NoSale);
    assert_eq!(rejected(403, None, r#"{"type":"/problems/network-full"}"#), AnswerKind::NetworkFull);
    assert_eq!(rejected(503, None, r#"{"status":"busy"}"#), AnswerKind::Unexpected);
    assert_eq!(rejected(429, None, ""), AnswerKind::Unexpected);
}

#[test]
fn refused_token_brings_a_new_token() {
    let refused = r#"{"error":"csrf","reason":"expired","csrfToken":"new"}"#;
    let answer = Answer::to_purchase(ApiFamily::SingleSale, received(403, None, refused));
    assert_eq!((answer.kind, answer.token.as_deref()), (AnswerKind::CsrfRefused, Some("new")));
    assert_eq!(answer.reason.as_deref(), Some("csrf"));
}

#[test]
fn lookup_has_an_order_only_if_purchased() {
    let lookup = |family, body: &str| {
        let answer = Answer::to_lookup(family, received(200, None, body));
        (answer.kind, answer.order)
    };
    let held = r#"{"hasPurchased":true,"orderId":"A","purchasedAt":"…"}"#;
    assert_eq!(lookup(ApiFamily::BySale, held), (AnswerKind::Found, order("A")));
    assert_eq!(lookup(ApiFamily::BySale, r#"{"hasPurchased":false}"#), (AnswerKind::FoundNone, None));
    assert_eq!(
        lookup(ApiFamily::SingleSale, r#"{"purchased":true,"orderId":"A"}"#),
        (AnswerKind::Found, order("A"))
    );
    assert_eq!(
        lookup(ApiFamily::SingleSale, r#"{"purchased":false,"orderId":null}"#),
        (AnswerKind::FoundNone, None)
    );
    assert_eq!(
        lookup(ApiFamily::SingleSale, r#"{"purchased":true,"orderId":null}"#).0,
        AnswerKind::Unexpected
    );
    assert_eq!(lookup(ApiFamily::BySale, r#"{"hasPurchased":true}"#).0, AnswerKind::Unexpected);
}

#[test]
fn incomplete_status_or_token_is_unexpected() {
    let status = |family, body: &str| Answer::to_status(family, received(200, None, body)).kind;
    assert_eq!(status(ApiFamily::BySale, r#"{"status":"active","remainingStock":3}"#), AnswerKind::Data);
    assert_eq!(status(ApiFamily::SingleSale, r#"{"status":"active","stock":3}"#), AnswerKind::Data);
    assert_eq!(
        status(ApiFamily::SingleSale, r#"{"status":"active","remainingStock":3}"#),
        AnswerKind::Unexpected
    );
    let token = Answer::to_csrf(received(200, None, r#"{"csrfToken":"t"}"#));
    assert_eq!((token.kind, token.token.as_deref()), (AnswerKind::Data, Some("t")));
    assert_eq!(Answer::to_csrf(received(200, None, "{}")).kind, AnswerKind::Unexpected);
}

#[test]
fn reason_is_the_word_of_either_family() {
    let reason =
        |status, body: &str| Answer::to_purchase(ApiFamily::SingleSale, received(status, None, body)).reason;
    assert_eq!(reason(409, r#"{"success":false,"reason":"out_of_stock"}"#).as_deref(), Some("out_of_stock"));
    assert_eq!(reason(410, r#"{"status":"sold_out"}"#).as_deref(), Some("sold_out"));
    assert_eq!(reason(200, r#"{"status":"purchased","orderId":"A"}"#), None);
    assert_eq!(reason(503, r#"{"type":"/problems/busy","status":503}"#), None);
}

#[test]
fn change_without_confirmation_is_unknown() {
    let change = |status| Answer::to_change(received(status, None, "why")).kind;
    assert_eq!([200, 201].map(change), [AnswerKind::Data; 2]);
    assert_eq!([408, 429, 500, 503].map(change), [AnswerKind::Unknown; 4]);
    assert_eq!([400, 404, 409].map(change), [AnswerKind::Refused; 3]);
}

#[test]
fn kind_is_written_in_words() {
    assert_eq!(AnswerKind::AlreadyPurchased.to_string(), "already purchased");
    assert_eq!(format!("{:9}|", AnswerKind::Busy), "busy     |");
}
