//! The live view: the events that viewers get from leaders and followers.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::http::Request;
use coordinator::admin::CoordinatorHandle;
use coordinator::coordinator::Coordinator;
use coordinator::live::LiveFeed;
use futures::StreamExt as _;
use serde_json::Value;
use stock::calls::{Accept, BuyOutcome, Donate, TokenSource};
use stock::ids::ShardId;
use stock::presence::{Presence, ProcessInfo, ProcessKind};
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::fixture::{
    SOON, buy, by_test, chairs, client_of, coordinator_on, shared_redis, until, while_running,
};

/// A live view of a coordinator, with this default sale.
fn live_of(coordinator: &Arc<Coordinator>, default: &str) -> LiveFeed {
    let handle = CoordinatorHandle::default();
    handle.set(Arc::clone(coordinator));
    LiveFeed::new(handle, default.parse().unwrap())
}

async fn get(router: Router, path: &str) -> (u16, Body) {
    let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    (response.status().as_u16(), response.into_body())
}

/// A viewer, and the received text that it has not parsed yet.
struct Viewer {
    body: BodyDataStream,
    buffer: String,
}

impl Viewer {
    /// Connects as soon as the sale is known.
    async fn of(live: &LiveFeed, path: &str) -> Self {
        until("the sale to be known", async || get(live.router(), path).await.0 == 200).await;
        Self { body: get(live.router(), path).await.1.into_data_stream(), buffer: String::new() }
    }

    /// The next event; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let part = |name| event.lines().find_map(|line| line.strip_prefix(name));
                let parsed = (
                    part("event: ").unwrap().to_owned(),
                    serde_json::from_str(part("data: ").unwrap()).unwrap(),
                );
                self.buffer = rest.to_owned();
                return Some(parsed);
            }
            let bytes = timeout(SOON, self.body.next()).await.expect("an event arrives in time")?.unwrap();
            self.buffer.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }

    /// Waits for a report that satisfies the condition.
    async fn next_where(&mut self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let seen = async {
            loop {
                let (kind, report) = self.next().await.expect("the stream continues");
                if kind == "live" && holds(&report) {
                    return report;
                }
            }
        };
        timeout(SOON, seen).await.unwrap_or_else(|_| panic!("{what} was not reported"))
    }
}

#[tokio::test]
async fn leader_and_follower_both_show_purchases() {
    let redis = shared_redis().await;
    let client = client_of(redis).await;
    let [one, other] = [coordinator_on(redis).await, coordinator_on(redis).await].map(Arc::new);
    let sale = chairs("live-selling");
    one.sales.create(&sale, by_test()).await.unwrap();
    let lives = [live_of(&one, "live-selling"), live_of(&other, "live-selling")];

    while_running(
        &one,
        while_running(&other, async {
            for live in &lives {
                let mut viewer = Viewer::of(live, "/live/sale/events").await;
                assert_eq!(viewer.next().await.unwrap().0, "history");
                let before = viewer.next_where("the sale", |_| true).await;
                assert_eq!((&before["total"], &before["sale"]["state"]), (&100.into(), &"open".into()));
                assert!(before["time"].as_u64().unwrap() > 1_700_000_000_000, "{before}");

                let sold = before["sold"].as_u64().unwrap();
                let bought = buy(&one, &client, &sale.id, &format!("viewer-{sold}")).await;
                assert!(matches!(bought, BuyOutcome::Bought(_)), "{bought:?}");

                let after = viewer.next_where("the purchase", |report| report["sold"] == sold + 1).await;
                assert_eq!(
                    after["violations"],
                    serde_json::json!({ "oversold": 0, "books": 0, "record": 0 })
                );
            }
        }),
    )
    .await;
}

#[tokio::test]
async fn moved_tokens_are_reported_once() {
    let redis = shared_redis().await;
    let client = client_of(redis).await;
    let coordinator = Arc::new(coordinator_on(redis).await);
    let wanted = chairs("live-moving");
    let sale = coordinator.sales.create(&wanted, by_test()).await.unwrap().sale;
    let live = live_of(&coordinator, "none");

    while_running(&coordinator, async {
        let mut viewer = Viewer::of(&live, "/live/sales/live-moving/events").await;
        viewer.next_where("the sale", |_| true).await;
        let (donor, to) = (sale.shard(ShardId::new(0)), ShardId::new(1));
        let given = client.write(Donate { shard: donor, to, want: 2 }).await.unwrap().cumulative;
        let (shard, from) = (sale.shard(to), TokenSource::Shard(donor.id));
        client.write(Accept { shard, from, cumulative: given }).await.unwrap();

        let report = viewer.next_where("the move", |report| report["moves"] != serde_json::json!([])).await;
        assert_eq!(report["moves"], serde_json::json!([{ "from": 0, "to": 1, "tokens": given }]));
        viewer.next_where("a report without it", |report| report["moves"] == serde_json::json!([])).await;
    })
    .await;
}

#[tokio::test]
async fn viewer_sees_processes_without_names_of_hosts() {
    let redis = shared_redis().await;
    let client = client_of(redis).await;
    let coordinator = Arc::new(coordinator_on(redis).await);
    coordinator.sales.create(&chairs("live-crew"), by_test()).await.unwrap();
    let live = live_of(&coordinator, "live-crew");
    let node = ProcessInfo {
        name: "shop.internal:1/live-crew".into(),
        kind: ProcessKind::Node,
        version: "9".into(),
    };

    while_running(&coordinator, async {
        client.poll(Presence::report(&node, Some(SOON))).await.unwrap();
        let mut viewer = Viewer::of(&live, "/live/sale/events").await;
        let report = viewer
            .next_where("the node and who answers", |report| {
                let named = |name: &str| {
                    report["processes"]
                        .as_array()
                        .is_some_and(|all| all.iter().any(|one| one["name"] == name))
                };
                named("live-crew") && named(report["answeredBy"].as_str().unwrap())
            })
            .await;
        let process = report["processes"].as_array().unwrap().iter().find(|one| one["name"] == "live-crew");
        assert_eq!((&process.unwrap()["kind"], &process.unwrap()["version"]), (&"node".into(), &"9".into()));
        // Names of processes contain `HOST:PORT/`, and no address of a server may be here either.
        let text = report.to_string();
        for place in ["shop.internal", "127.0.0.1", "localhost", ":1/"] {
            assert!(!text.contains(place), "{place} in {text}");
        }
        let answered_by = report["answeredBy"].as_str().unwrap();
        assert!(!answered_by.is_empty() && !answered_by.contains([':', '/']), "{answered_by}");
    })
    .await;
    client.poll(Presence::report(&node, None)).await.unwrap();
}

#[tokio::test]
async fn closed_view_ends_streams_and_unknown_sale_404s() {
    let redis = shared_redis().await;
    let coordinator = Arc::new(coordinator_on(redis).await);
    coordinator.sales.create(&chairs("live-closing"), by_test()).await.unwrap();
    let live = live_of(&coordinator, "live-closing");

    while_running(&coordinator, async {
        let mut viewer = Viewer::of(&live, "/live/sale/events").await;
        for path in ["/live/sales/no-such-sale/events", "/live/sales/%7Bflash%7D/events"] {
            assert_eq!(get(live.router(), path).await.0, 404, "{path}");
        }
        live.close();
        while viewer.next().await.is_some() {}
        // A new viewer gets the first event, and then the stream ends.
        let mut late = Viewer::of(&live, "/live/sale/events").await;
        while late.next().await.is_some() {}
    })
    .await;
}

#[tokio::test]
async fn page_is_served_without_a_cluster() {
    let live = LiveFeed::new(CoordinatorHandle::default(), "flash".parse().unwrap());
    assert_eq!(get(live.router(), "/").await.0, 200);
    for path in ["/live/sales", "/live/sale/events"] {
        assert_eq!(get(live.router(), path).await.0, 503, "{path}");
    }
}
