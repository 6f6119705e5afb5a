//! Authentication of clients with AUTH=jwt.

use std::os::unix::fs::symlink;

use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use service::time::now;

use crate::fixture::{Answer, TestNode, post_json, shared_redis};
use crate::process::{LIMIT, RunningNode};

const SECRET: &str = "a secret of thirty-two characters";
const RSA: &[u8] = include_bytes!("keys/rsa.pem");
const ED25519: &[u8] = include_bytes!("keys/ed25519.pem");

fn in_keys(file: &str) -> String {
    testkit::workspace_root().join("node/tests/edge/keys").join(file).to_string_lossy().into_owned()
}

/// A node that accepts tokens for the audience `shop` from `https://issuer.example`.
async fn node(flags: &[&str]) -> TestNode {
    let audience_and_issuer =
        ["--auth", "jwt", "--jwt-audience", "shop", "--jwt-issuer", "https://issuer.example"];
    TestNode::with_flags(&[&audience_and_issuer[..], flags].concat()).await
}

/// A node with further flags that accepts the tokens of [`bearer`].
pub(crate) async fn node_with_flags(flags: &[&str]) -> TestNode {
    node(&[&["--jwt-secret", SECRET], flags].concat()).await
}

/// The header of a user's token.
pub(crate) fn bearer(user: &str) -> String {
    let mut claims = claims();
    claims["sub"] = user.into();
    format!("Bearer {}", signed(&claims))
}

async fn node_with_secret() -> TestNode {
    node(&["--jwt-secret", SECRET]).await
}

/// Claims of a token that is valid for a minute.
fn claims() -> Value {
    let expires_at = now() / 1_000 + 60;
    json!({ "sub": "ann", "aud": "shop", "iss": "https://issuer.example", "exp": expires_at })
}

fn signed(claims: &Value) -> String {
    encode(&Header::default(), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

async fn buy(node: &TestNode, authorization: &str, body: Value) -> Answer {
    let request = post_json("/api/sale/purchase").header(AUTHORIZATION, authorization);
    node.send(request, body.to_string()).await
}

async fn buy_with(node: &TestNode, token: &str) -> Answer {
    buy(node, &format!("Bearer {token}"), json!({})).await
}

#[tokio::test]
async fn token_names_the_buyer() {
    let node = node_with_secret().await;
    let bearer = format!("Bearer {}", signed(&claims()));
    assert_eq!(buy(&node, &bearer, json!({})).await.status, 200);
    assert_eq!(buy(&node, &bearer, json!({ "userId": " ann" })).await.status, 409, "the same user");

    let found = node.send(Request::get("/api/sale/purchase/ann").header(AUTHORIZATION, &bearer), "").await;
    assert_eq!((found.status, &found.body["hasPurchased"]), (200, &json!(true)));
}

#[tokio::test]
async fn token_gives_no_access_to_other_users() {
    let node = node_with_secret().await;
    let bearer = format!("Bearer {}", signed(&claims()));
    buy(&node, &bearer, json!({ "userId": "bob" })).await.assert_problem(403);
    for path in ["/api/sale/purchase/bob", "/api/purchase/bob"] {
        node.send(Request::get(path).header(AUTHORIZATION, &bearer), "").await.assert_problem(404);
    }
}

#[tokio::test]
async fn purchase_needs_a_token_and_status_does_not() {
    let node = node_with_secret().await;
    for authorization in ["", "Bearer", "Bearer ", "Basic YW5uOnNlY3JldA=="] {
        let refused = buy(&node, authorization, json!({ "userId": "ann" })).await;
        refused.assert_problem(401);
        assert!(refused.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    }
    node.get("/api/sale/purchase/ann").await.assert_problem(401);
    assert_eq!(node.get("/api/sale/status").await.status, 200);
}

#[tokio::test]
async fn invalid_tokens_are_refused() {
    let node = node_with_secret().await;
    let with = |claim: &str, value: Value| {
        let mut claims = claims();
        claims[claim] = value;
        signed(&claims)
    };
    let without = |claim: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(claim);
        signed(&claims)
    };
    let with_header = |change: &dyn Fn(&mut Header)| {
        let mut header = Header::default();
        change(&mut header);
        encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
    };
    let unsigned = |alg: &str| {
        let part =
            |json: Value| base64::Engine::encode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, json.to_string());
        format!("{}.{}.", part(json!({ "alg": alg, "typ": "JWT" })), part(claims()))
    };
    let signed_by = |key: &EncodingKey, algorithm| encode(&Header::new(algorithm), &claims(), key).unwrap();
    for (token, case) in [
        (with("exp", json!(now() / 1_000 - 60)), "expired"),
        (without("exp"), "no expiry"),
        (with("aud", json!("another shop")), "another audience"),
        (without("aud"), "no audience"),
        (with("iss", json!("https://evil.example")), "another issuer"),
        (without("iss"), "no issuer"),
        (without("sub"), "no subject"),
        (with("nbf", json!(now() / 1_000 + 60)), "not valid yet"),
        (unsigned("none"), "alg none"),
        (unsigned("None"), "alg None"),
        (unsigned("HS256"), "no signature"),
        (signed_by(&EncodingKey::from_secret(b"guessed"), Algorithm::HS256), "another secret"),
        (signed_by(&EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS384), "another algorithm"),
        (signed_by(&EncodingKey::from_rsa_pem(RSA).unwrap(), Algorithm::RS256), "another kind of key"),
        (with("exp", json!(now() / 1_000 + 90_000)), "more than a day ahead"),
        (with("exp", json!(4_102_444_800.5)), "a century ahead"),
        (with("nonce", json!("n-0S6_WzA2Mj")), "an ID token"),
        (with("at_hash", json!("MTIzNDU2Nzg5MDEyMzQ1Ng")), "an ID token"),
        (with("c_hash", json!("MTIzNDU2Nzg5MDEyMzQ1Ng")), "an ID token"),
        (with("typ", json!("ID")), "an ID token by its claim"),
        (with("typ", json!("Refresh")), "a refresh token by its claim"),
        (with("token_use", json!("id")), "an ID token by its claim"),
        (
            with("events", json!({ "http://schemas.openid.net/event/backchannel-logout": {} })),
            "a logout token",
        ),
        (with_header(&|header| header.typ = Some("logout+jwt".into())), "a logout token by its type"),
        (with_header(&|header| header.typ = Some("application/dpop+jwt".into())), "a proof"),
        (with_header(&|header| header.crit = Some(vec!["b64".into()])), "a critical extension"),
        (with_header(&|header| header.crit = Some(Vec::new())), "an empty list of extensions"),
        ("a.b.c".to_owned(), "not a token"),
        (with("picture", json!("x".repeat(4_096))), "too long"),
    ] {
        let refused = buy_with(&node, &token).await;
        assert_eq!(refused.status, 401, "{case}");
        refused.assert_problem(401);
    }
    for (n, token) in [
        signed(&claims()),
        with("typ", json!("Bearer")),
        with("token_use", json!("access")),
        with_header(&|header| header.typ = None),
        with_header(&|header| header.typ = Some("at+JWT".into())),
        with_header(&|header| header.typ = Some("application/at+jwt".into())),
    ]
    .iter()
    .enumerate()
    {
        let accepted = if n == 0 { 200 } else { 409 };
        assert_eq!(buy_with(&node, token).await.status, accepted, "valid token {n} is accepted");
    }
}

#[tokio::test]
async fn public_key_is_not_accepted_as_a_secret() {
    let node = node(&["--jwt-public-key-file", &in_keys("rsa.pub.pem")]).await;
    let public = std::fs::read(in_keys("rsa.pub.pem")).unwrap();
    let confused = encode(&Header::default(), &claims(), &EncodingKey::from_secret(&public)).unwrap();
    buy_with(&node, &confused).await.assert_problem(401);

    let good =
        encode(&Header::new(Algorithm::RS256), &claims(), &EncodingKey::from_rsa_pem(RSA).unwrap()).unwrap();
    assert_eq!(buy_with(&node, &good).await.status, 200);
}

#[tokio::test]
async fn ed25519_keys_and_jwks_are_supported() {
    let node = node(&["--jwt-public-key-file", &in_keys("ed25519.pub.pem")]).await;
    let key = EncodingKey::from_ed_pem(ED25519).unwrap();
    let named = |kid: Option<&str>| {
        let header = Header { kid: kid.map(str::to_owned), ..Header::new(Algorithm::EdDSA) };
        encode(&header, &claims(), &key).unwrap()
    };
    assert_eq!(buy_with(&node, &named(None)).await.status, 200);

    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = json!("key-2026");
    let file = testkit::Folder::temporary().unwrap();
    let path = file.path().join("jwks.json");
    let keys = json!({ "keys": [jwk, { "kty": "EC", "crv": "P-256", "x": "", "y": "" }] });
    std::fs::write(&path, keys.to_string()).unwrap();
    let node = self::node(&["--jwt-jwks-file", &path.to_string_lossy()]).await;
    assert_eq!(buy_with(&node, &named(Some("key-2026"))).await.status, 200);
    for unknown in [None, Some("key-2025"), Some("")] {
        buy_with(&node, &named(unknown)).await.assert_problem(401);
    }
}

/// A JWKS with one Ed25519 key of this id.
fn jwks(kid: &str) -> String {
    let key = EncodingKey::from_ed_pem(ED25519).unwrap();
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = json!(kid);
    json!({ "keys": [jwk] }).to_string()
}

/// Runs a node whose keys lie in a folder like a mounted Secret: links, of which one is replaced by each change.
#[tokio::test]
async fn withdrawn_key_stops_working_without_restart() {
    // Given a node that accepts the key `old`.
    let sale = TestNode::selling(10).await.sale;
    let folder = testkit::Folder::temporary().unwrap();
    let (data, file) = (folder.path().join("data"), folder.path().join("jwks.json"));
    let publish = |version: &str, content: &str| {
        std::fs::create_dir(folder.path().join(version)).unwrap();
        std::fs::write(folder.path().join(version).join("jwks.json"), content).unwrap();
        let new = folder.path().join("new");
        symlink(version, &new).unwrap();
        std::fs::rename(new, &data).unwrap();
    };
    publish("1", &jwks("old"));
    symlink("data/jwks.json", &file).unwrap();
    let variables = [
        ("AUTH", "jwt"),
        ("JWT_JWKS_FILE", file.to_str().unwrap()),
        ("RATE_LIMIT_EXEMPT", "127.0.0.1"),
        ("RATE_LIMIT_USER_MAX", "0"),
        ("JWT_AUDIENCE", "shop"),
        ("JWT_ISSUER", "https://issuer.example"),
    ];
    let node = RunningNode::with_env(&shared_redis().await.seeds(), &variables);
    node.wait_for_status("/readyz", 200).await;
    let url = node.url(&format!("/api/sales/{sale}/purchase/ann"));
    let status_with = async |kid: &str| {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::EdDSA) };
        let token = encode(&header, &claims(), &EncodingKey::from_ed_pem(ED25519).unwrap()).unwrap();
        reqwest::Client::new().get(&url).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!((status_with("old").await, status_with("new").await), (200, 401));

    // When the issuer replaces the key, then the node notices it.
    publish("2", &jwks("new"));
    let replaced = async || (status_with("old").await, status_with("new").await) == (401, 200);
    testkit::until("only the new key works", LIMIT, replaced).await.unwrap();

    // And SIGHUP makes it read at once. A file that is no JWKS changes nothing, and is reported.
    publish("3", "half a fi");
    node.process.reload();
    let reported = async || node.log().contains("cannot be read again");
    testkit::until("an error in the log", LIMIT, reported).await.unwrap();
    assert_eq!(status_with("new").await, 200);
    assert!(node.metrics().await.unwrap().contains("flashsale_auth_keys_outdated 1\n"));

    // And when all keys are withdrawn, no token is accepted.
    publish("4", r#"{"keys":[]}"#);
    node.process.reload();
    let refused = async || status_with("new").await == 401;
    testkit::until("no key works", LIMIT, refused).await.unwrap();
    let read_at_sighup = async || node.log().contains(r#""trigger":"SIGHUP""#);
    testkit::until("a reading at SIGHUP in the log", LIMIT, read_at_sighup).await.unwrap();
    assert!(node.metrics().await.unwrap().contains("flashsale_auth_keys 0\n"));
}

#[tokio::test]
async fn sighup_does_not_end_a_node_without_keys() {
    let node = RunningNode::with_env(&shared_redis().await.seeds(), &[]);
    node.wait_for_status("/readyz", 200).await;

    node.process.reload();

    let noticed = async || node.log().contains("SIGHUP: there is no key file");
    testkit::until("SIGHUP in the log", LIMIT, noticed).await.unwrap();
    node.wait_for_status("/readyz", 200).await;
}
