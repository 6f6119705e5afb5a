//! The description of the API, for programs and for people.

use axum::http::Request;
use axum::http::header::{CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, VARY};

use crate::fixture::TestNode;

#[tokio::test]
async fn description_is_openapi_and_includes_itself() {
    let node = TestNode::selling(10).await;
    let description = node.get("/api/openapi.json").await;
    assert_eq!(description.status, 200);
    assert_eq!(description.headers[CONTENT_TYPE], "application/json");
    assert_eq!(description.body["openapi"], "3.1.0");
    assert!(description.body["paths"]["/api/openapi.json"]["get"].is_object());
}

#[tokio::test]
async fn docs_page_serves_only_its_own_files() {
    let node = TestNode::selling(10).await;
    let page = node.get("/api/docs").await;
    assert_eq!((page.status, &page.headers[LOCATION]), (308, &"/api/docs/index.html".parse().unwrap()));
    let parts =
        ["index.html", "index.css", "swagger-ui.css", "swagger-ui-bundle.js", "swagger-initializer.js"];
    for part in parts {
        let answer = node.get(&format!("/api/docs/{part}")).await;
        assert_eq!(answer.status, 200, "{part}");
        let policy = answer.headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
    }
    let plain = node.get("/api/docs/swagger-ui.css").await;
    assert_eq!(
        (plain.headers.get(CONTENT_ENCODING), &plain.headers[VARY]),
        (None, &"accept-encoding".parse().unwrap())
    );
    let accepting = Request::get("/api/docs/swagger-ui.css").header("accept-encoding", "br, gzip");
    assert_eq!(node.send(accepting, "").await.headers[CONTENT_ENCODING], "gzip");
    node.get("/api/docs/none.html").await.assert_problem(404);
    node.send(Request::post("/api/docs/index.html"), "").await.assert_problem(405);
}

#[tokio::test]
async fn documentation_is_absent_when_switched_off() {
    let node = TestNode::with_flags(&["--api-docs", "false"]).await;
    for path in ["/api/docs", "/api/docs/index.html", "/api/openapi.json"] {
        node.get(path).await.assert_problem(404);
    }
    assert_eq!(node.get("/api/sale/status").await.status, 200);
}
