//! An HTTP endpoint as a sink.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use testkit::{Launch, until};

use crate::endpoint::{Answer, Endpoint, OK, Received, SECRET};
use crate::world::{QUEUE, SOON, World, assert_order};

fn sender(world: &World, endpoint: &Endpoint) -> Launch {
    world.ledger(1).env("WEBHOOK_URL", endpoint.url()).env("WEBHOOK_SECRET", SECRET)
}

fn failures(reason: &str) -> String {
    format!("flashsale_feed_failures_total{{sink=\"webhook\",reason=\"{reason}\"}}")
}

/// Verifies a delivery as a receiver does.
fn verify(request: &Received) {
    let (id, timestamp) = (request.header("webhook-id"), request.header("webhook-timestamp"));
    let key = STANDARD.decode(SECRET.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{timestamp}.{}", request.body).as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(request.header("webhook-signature"), expected);
    assert_eq!(request.event()["id"], id);
    assert_eq!(request.header("content-type"), "application/json");
    assert!(request.head.starts_with("POST /orders?shop=1 HTTP/1.1\r\n"), "{}", request.head);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_order_comes_to_an_endpoint_that_fails() {
    let mut world = World::new().await;
    let endpoint = Endpoint::start(world.endpoint_port(), |number, _| match number {
        0 => Answer::Status("500 Internal Server Error"),
        2 => Answer::Hang,
        4 => Answer::Close,
        6 => Answer::Status("429 Too Many Requests\r\nretry-after: 1"),
        8..12 => Answer::TwiceOk,
        30 => Answer::Close,
        _ => OK,
    })
    .await;
    world.add_orders("flash", 60);
    let sender = sender(&world, &endpoint);
    world.start(sender);

    world.wait_for_cursor("webhook", "flash", 60).await;
    assert_eq!(endpoint.accepted(), world.ids());
    let received = endpoint.received();
    received.iter().for_each(verify);
    let events: Vec<_> = received.iter().map(Received::event).collect();
    assert_order(&events);
    for reason in ["unavailable", "timeout", "unreachable"] {
        assert!(world.metric(1, &failures(reason)).await >= Some(1.0), "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_order_stops_its_sale_only_until_a_person_skips_it() {
    let mut world = World::new().await;
    world.add_orders("flash", 20);
    world.add_orders("other", 20);
    let endpoint = Endpoint::start(world.endpoint_port(), |_, event| {
        let is_bad = event["source"] == "/sales/flash" && event["position"] == 11;
        if is_bad { Answer::Status("302 Found\r\nlocation: http://127.0.0.1:1/") } else { OK }
    })
    .await;
    let sender = sender(&world, &endpoint);
    world.start(sender);

    world.wait_for_cursor("webhook", "other", 20).await;
    world.wait_for_cursor("webhook", "flash", 10).await;
    world.wait_for_metric(1, &failures("refused"), |count| count >= 1.0).await;
    assert!(world.log(1).contains("the endpoint answers 302"), "{}", world.log(1));

    let (code, output) = world.replay(&["--sink", "webhook", "--sale", "flash", "--from", "12"]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("would never get 1 orders"), "{output}");
    let (code, output) =
        world.replay(&["--sink", "webhook", "--sale", "flash", "--from", "12", "--skip"]).await;
    assert_eq!(code, Some(0), "{output}");
    world.wait_for_cursor("webhook", "flash", 20).await;
    assert_eq!(endpoint.accepted().len(), 39);
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_that_is_gone_gets_nothing_until_a_person_acts() {
    let mut world = World::new().await;
    world.add_orders("flash", 5);
    let endpoint = Endpoint::start(world.endpoint_port(), |_, _| Answer::Status("410 Gone")).await;
    let sender = sender(&world, &endpoint);
    world.start(sender);
    world.wait_for_metric(1, &failures("gone"), |count| count == 1.0).await;

    // Given an endpoint that works again, nothing is sent on its own.
    endpoint.behave(|_, _| OK);
    world.add_orders("flash", 5);
    world
        .wait_for_metric(1, "flashsale_feed_behind_orders{sink=\"webhook\",sale=\"flash\"}", |behind| {
            behind == 10.0
        })
        .await;
    assert_eq!(endpoint.received().len(), 1);

    let (code, output) = world.replay(&["--sink", "webhook", "--sale", "flash", "--from", "1"]).await;
    assert_eq!(code, Some(0), "{output}");
    world.wait_for_cursor("webhook", "flash", 10).await;
    assert_eq!(endpoint.accepted(), world.ids());
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoint_that_hangs_does_not_delay_the_broker() {
    let mut world = World::new().await;
    world.add_orders("flash", 100);
    let endpoint = Endpoint::start(world.endpoint_port(), |_, _| Answer::Hang).await;
    let both = sender(&world, &endpoint).env("AMQP_URL", world.broker().url()).env("AMQP_QUEUE", QUEUE);
    world.start(both);
    world.consume_all_orders().await;
    world
        .wait_for_metric(1, "flashsale_feed_connected{sink=\"webhook\"}", |connected| connected == 0.0)
        .await;
    assert_eq!(world.cursor("webhook", "flash"), 0);
    let asked = async || endpoint.received().len() >= 2;
    until("the endpoint is tried again", SOON, asked).await.unwrap();
}
