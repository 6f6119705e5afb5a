//! The admin API as operators use it.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{Method, Request, StatusCode};
use coordinator::admin::{CoordinatorHandle, router};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::fixture::{coordinator_on, shared_redis};

const TOKEN: &str = "0123456789abcdef";

struct Operator(Router);

impl Operator {
    async fn new() -> Self {
        let handle = CoordinatorHandle::default();
        handle.set(Arc::new(coordinator_on(shared_redis().await).await));
        Self(router(handle, TOKEN.parse().unwrap(), Router::new()))
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Method::GET, path, None, Body::empty()).await
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, path, None, Body::from(body.to_string())).await
    }

    async fn send(&self, method: Method, path: &str, key: Option<&str>, body: Body) -> (StatusCode, Value) {
        let request =
            Request::builder().method(method).uri(path).header(AUTHORIZATION, format!("Bearer {TOKEN}"));
        let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
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
