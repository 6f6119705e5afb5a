//! The admin API without a cluster: authentication, and probes.

use axum::body::{Body, to_bytes};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, Request};
use futures::future::join_all;
use serde_json::Value;
use service::ops::{self, Readiness};
use tower::ServiceExt as _;

use super::*;

const TOKEN: &str = "0123456789abcdef";

async fn answer(method: Method, path: &str, authorization: Option<&str>) -> Response {
    let readiness = Readiness::starting("no cluster yet");
    let request = Request::builder().method(method).uri(path);
    let request =
        authorization.into_iter().fold(request, |request, value| request.header(AUTHORIZATION, value));
    let router = router(CoordinatorHandle::default(), TOKEN.parse().unwrap(), ops::router(readiness));
    router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

async fn problem(response: Response) -> Value {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    serde_json::from_slice(&to_bytes(response.into_body(), usize::MAX).await.unwrap()).unwrap()
}

#[tokio::test]
async fn requests_without_the_right_token_are_refused() {
    let wrong =
        [None, Some("Bearer 0123456789abcdeX"), Some("Bearer "), Some(TOKEN), Some("Basic 0123456789abcdef")];
    let requests = wrong.into_iter().flat_map(|authorization| {
        [(Method::GET, "/admin/sales"), (Method::POST, "/admin/sales/flash/end")]
            .map(|(method, path)| answer(method, path, authorization))
    });
    for response in join_all(requests).await {
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
        assert!(problem(response).await["correlationId"].is_string());
    }
}

#[tokio::test]
async fn authorized_request_gets_503_before_the_cluster_connects() {
    let response = answer(Method::GET, "/admin/sales", Some("bearer 0123456789abcdef")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key(RETRY_AFTER));
}

#[tokio::test]
async fn probes_need_no_token() {
    assert_eq!(answer(Method::GET, "/healthz", None).await.status(), StatusCode::OK);
    assert_eq!(answer(Method::GET, "/readyz", None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
}
