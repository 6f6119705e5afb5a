//! The admin API as operators use it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, Request, StatusCode};
use coordinator::admin::{CoordinatorHandle, router};
use serde_json::{Value, json};
use stock::store::RestoreSaleList;
use tower::ServiceExt as _;

use crate::fixture::{client_of, coordinator_on, shared_redis};

const TOKEN: &str = "0123456789abcdef";
const READER: &str = "fedcba9876543210";

/// An operator with a token.
struct Operator(Router, &'static str);

impl Operator {
    async fn new() -> Self {
        // No leader has to run before the list of sales is complete.
        client_of(shared_redis().await).await.write(RestoreSaleList(&[])).await.unwrap();
        let handle = CoordinatorHandle::default();
        handle.set(Arc::new(coordinator_on(shared_redis().await).await));
        let tokens = format!("ann:operate:{TOKEN}\nbob:read:{READER}");
        Self(router(handle, tokens.parse().unwrap(), Router::new()), TOKEN)
    }

    /// The same API for an operator who may only read.
    fn reader(&self) -> Self {
        Self(self.0.clone(), READER)
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, None, Body::empty()).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, None, Body::from(body.to_string())).await
    }

    async fn send(&self, method: Method, path: &str, key: Option<&str>, body: Body) -> (StatusCode, Value) {
        let request =
            Request::builder().method(method).uri(path).header(AUTHORIZATION, format!("Bearer {}", self.1));
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
        let request = request.header("x-correlation-id", "trace-1");
        let request = request.header(CONTENT_TYPE, "application/json").body(body).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (status, bytes) = (response.status(), to_bytes(response.into_body(), usize::MAX).await.unwrap());
        (status, serde_json::from_slice(&bytes).unwrap())
    }
}

fn sofa(id: &str) -> Value {
    json!({
        "id": id, "totalStock": 100, "startsAt": "2026-01-01T00:00:00Z", "endsAt": 4_000_000_000_000_u64,
        "productName": "Sofa", "productPrice": 799.99, "shards": 3,
    })
}

#[tokio::test]
async fn operator_creates_and_inspects_a_sale() {
    let operator = Operator::new().await;
    let (status, created) = operator.post("/admin/sales", sofa("sofas")).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    assert_eq!(created["startsAt"], "2026-01-01T00:00:00.000Z");
    assert_eq!((&created["state"], &created["productPrice"]), (&json!("open"), &json!(799.99)));
    assert_eq!(operator.post("/admin/sales", sofa("sofas")).await, (StatusCode::OK, created.clone()));

    let mut other = sofa("sofas");
    other["totalStock"] = json!(101);
    let (status, problem) = operator.post("/admin/sales", other).await;
    assert_eq!((status, &problem["fields"]), (StatusCode::CONFLICT, &json!(["totalStock"])));

    let (_, list) = operator.get("/admin/sales").await;
    assert!(list["sales"].as_array().unwrap().contains(&created));
    let (status, detail) = operator.get("/admin/sales/sofas").await;
    assert_eq!((status, &detail["problems"]), (StatusCode::OK, &json!([])));
    let shards = detail["shards"].as_array().unwrap();
    assert_eq!(shards.iter().map(|shard| shard["stock"].as_u64().unwrap()).sum::<u64>(), 100);
    assert!(shards.iter().all(|shard| shard["primary"].is_string() && shard["slot"].is_u64()));
}

#[tokio::test]
async fn operator_lists_sales_by_state_and_page() {
    // Given an upcoming sale, two open ones, a paused one, and one that has ended by its window.
    let operator = Operator::new().await;
    let sales =
        [("a", 3_999_999_999_999_u64, 0), ("b", 1, 0), ("c", 1, 0), ("d", 1, 0), ("e", 1, 1_000_000_000_000)];
    for (id, starts_at, ends_at) in sales {
        let mut sale = sofa(&format!("listed-{id}"));
        sale["startsAt"] = json!(starts_at.max(1_000_000));
        sale["endsAt"] = json!(if ends_at == 0 { 4_000_000_000_000_u64 } else { ends_at });
        let (status, created) = operator.post("/admin/sales", sale).await;
        assert_eq!(status, StatusCode::CREATED, "{created}");
    }
    operator.post("/admin/sales/listed-d/pause", json!({})).await;

    // When they are listed page by page, then each is listed once, in its state.
    let page = async |query: String| {
        let (status, page) = operator.get(&format!("/admin/sales?{query}")).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        let sales = page["sales"].as_array().unwrap().iter();
        let listed = sales.map(|sale| (sale["id"].as_str().unwrap().to_owned(), sale["state"].clone()));
        let next = page["next"].as_str().map(str::to_owned);
        (listed.filter(|(id, _)| id.starts_with("listed-")).collect::<Vec<_>>(), next)
    };
    let (mut states, mut after) = (Vec::new(), Some("listed-".to_owned()));
    while let Some(id) = after {
        let (listed, next) = page(format!("limit=2&after={}", id.trim_end_matches('-'))).await;
        states.extend(listed);
        after = next;
    }
    let state = |id: &str, state: &str| (format!("listed-{id}"), json!(state));
    let all = [
        state("a", "upcoming"),
        state("b", "open"),
        state("c", "open"),
        state("d", "paused"),
        state("e", "ended"),
    ];
    assert_eq!(states, all);

    // And only those in the wanted states, when it is asked for some.
    let of = async |states: &str| page(format!("state={states}&limit=1000")).await.0;
    assert_eq!(of("upcoming").await, all[..1]);
    assert_eq!(of("open,paused").await, all[1..4]);
    assert_eq!(of("ended").await, all[4..]);
    for query in ["state=closed", "limit=0", "limit=1001", "after=A%20B", "page=2"] {
        let (status, problem) = operator.get(&format!("/admin/sales?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {problem}");
    }
}

#[tokio::test]
async fn creation_with_too_large_shards_is_answered_with_a_warning() {
    let operator = Operator::new().await;
    let mut sale = sofa("bulky");
    sale["totalStock"] = json!(600_000);
    let (status, created) = operator.post("/admin/sales", sale).await;
    let warning = created["warnings"][0].as_str().unwrap_or_default();
    assert!(status == StatusCode::CREATED && warning.contains("150000"), "{created}");
    let (_, history) = operator.get("/admin/sales/bulky/history").await;
    let creation = history["changes"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(creation["values"]["warnings"], created["warnings"]);

    let (_, created) = operator.post("/admin/sales", sofa("handy")).await;
    assert_eq!(created["warnings"], json!([]));
}

#[tokio::test]
async fn operator_changes_and_audits_a_sale() {
    let operator = Operator::new().await;
    operator.post("/admin/sales", sofa("beds")).await;
    for (action, state) in [("pause", "paused"), ("resume", "open")] {
        let (status, sale) = operator.post(&format!("/admin/sales/beds/{action}"), json!({})).await;
        assert_eq!((status, &sale["state"]), (StatusCode::OK, &json!(state)));
    }
    let (_, sale) =
        operator.post("/admin/sales/beds/extend", json!({ "endsAt": 4_000_000_000_001_u64 })).await;
    assert_eq!(sale["endsAt"], "2096-10-02T07:06:40.001Z");
    for _ in 0..2 {
        let body = Body::from(json!({ "units": 7 }).to_string());
        let (status, sale) =
            operator.send(Method::POST, "/admin/sales/beds/restock", Some("delivery 1"), body).await;
        assert_eq!((status, &sale["totalStock"]), (StatusCode::OK, &json!(107)));
    }
    let (status, audit) = operator.get("/admin/sales/beds/audit").await;
    assert_eq!((status, &audit["ok"], &audit["total"]), (StatusCode::OK, &json!(true), &json!(107)));

    operator.post("/admin/sales/beds/end", json!({})).await;
    assert_eq!(operator.post("/admin/sales/beds/resume", json!({})).await.0, StatusCode::CONFLICT);
}

#[tokio::test]
async fn invalid_request_is_refused_naming_the_field() {
    let operator = Operator::new().await;
    let refused = async |field: &str, value: Value| {
        let mut body = sofa("refused");
        body[field] = value;
        operator.post("/admin/sales", body).await
    };
    let fields = [
        ("id", json!("Sofa!"), StatusCode::BAD_REQUEST),
        ("startsAt", json!("soon"), StatusCode::BAD_REQUEST),
        ("totalStock", json!(0), StatusCode::UNPROCESSABLE_ENTITY),
        ("endsAt", json!(1_000_000_000_000_u64), StatusCode::UNPROCESSABLE_ENTITY),
        ("productName", json!(" "), StatusCode::UNPROCESSABLE_ENTITY),
        ("productPrice", json!(-1), StatusCode::UNPROCESSABLE_ENTITY),
        ("shards", json!(257), StatusCode::UNPROCESSABLE_ENTITY),
    ];
    for (field, value, status) in fields {
        let (answered, problem) = refused(field, value).await;
        assert_eq!((answered, &problem["field"]), (status, &json!(field)), "{problem}");
    }
    assert_eq!(refused("totalStock", json!("many")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(refused("shrads", json!(3)).await.0, StatusCode::BAD_REQUEST, "a typing error is not ignored");
    assert_eq!(operator.get("/admin/sales/refused").await.0, StatusCode::NOT_FOUND, "nothing was created");
}

#[tokio::test]
async fn unknown_sale_is_not_found() {
    let operator = Operator::new().await;
    for name in ["no-such-sale", "Not%20a%20name", "%ff", "{sale}"] {
        assert_eq!(
            operator.get(&format!("/admin/sales/{}", name.replace(['{', '}'], "%7B"))).await.0,
            StatusCode::NOT_FOUND
        );
    }
    assert_eq!(operator.post("/admin/sales/no-such-sale/pause", json!({})).await.0, StatusCode::NOT_FOUND);
    assert_eq!(operator.get("/admin/sales/no-such-sale/audit").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn history_tells_who_changed_what_and_why() {
    let operator = Operator::new().await;
    operator.post("/admin/sales", sofa("told")).await;
    operator.post("/admin/sales/told/pause", json!({ "reason": "wrong price" })).await;
    operator.post("/admin/sales/told/resume", json!({})).await;
    operator.post("/admin/sales/told/resume", json!({ "reason": "again, which changes nothing" })).await;
    let extension = json!({ "endsAt": 4_000_000_000_001_u64 });
    operator.post("/admin/sales/told/extend", extension).await;
    for _ in 0..2 {
        let body = Body::from(json!({ "units": 7, "reason": "truck 1" }).to_string());
        operator.send(Method::POST, "/admin/sales/told/restock", Some("delivery 1"), body).await;
    }

    let (status, history) = operator.reader().get("/admin/sales/told/history").await;

    assert_eq!(status, StatusCode::OK, "{history}");
    let changes = history["changes"].as_array().unwrap();
    let of = |member: &str| changes.iter().map(|change| change[member].clone()).collect::<Vec<_>>();
    assert_eq!(of("change"), ["restock", "extend", "resume", "pause", "open", "create"]);
    assert_eq!(of("version"), [6, 5, 4, 3, 2, 1]);
    assert_eq!(
        of("operator"),
        [json!("ann"), json!("ann"), json!("ann"), json!("ann"), json!(null), json!("ann")]
    );
    assert_eq!((&changes[0]["values"], &changes[0]["reason"]), (&json!({ "units": 7 }), &json!("truck 1")));
    assert_eq!(
        (&changes[3]["reason"], &changes[3]["correlationId"]),
        (&json!("wrong price"), &json!("trace-1"))
    );
    assert!(changes.iter().all(|change| change["at"].as_str().unwrap().ends_with('Z')));
}

#[tokio::test]
async fn reader_sees_the_sale_and_changes_nothing() {
    let operator = Operator::new().await;
    let reader = operator.reader();
    operator.post("/admin/sales", sofa("seen")).await;
    for path in ["", "/history", "/audit"] {
        assert_eq!(reader.get(&format!("/admin/sales/seen{path}")).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(reader.post("/admin/sales", sofa("unseen")).await.0, StatusCode::FORBIDDEN);
    for action in ["pause", "resume", "end", "extend", "restock"] {
        let (status, problem) = reader.post(&format!("/admin/sales/seen/{action}"), json!({})).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{action}: {problem}");
    }
    assert_eq!(operator.get("/admin/sales/seen").await.1["state"], "open");
}

#[tokio::test]
async fn invalid_reason_changes_nothing() {
    let operator = Operator::new().await;
    operator.post("/admin/sales", sofa("reasons")).await;
    for reason in [json!("a".repeat(501)), json!("two\nlines"), json!(7)] {
        let (status, problem) =
            operator.post("/admin/sales/reasons/pause", json!({ "reason": reason })).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
    }
    assert_eq!(
        operator.post("/admin/sales/reasons/pause", json!({ "why": "x" })).await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(operator.get("/admin/sales/reasons").await.1["state"], "open");
}
