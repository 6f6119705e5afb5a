//! The subcommand `replay`, and the settings of sinks.

use std::fs;

use crate::world::{QUEUE, SOON, World};

impl World {
    /// Runs the subcommand, and returns its exit code and output.
    pub(crate) async fn replay(&self, arguments: &[&str]) -> (Option<i32>, String) {
        self.run(self.ledger(91).arg("replay").args(arguments)).await
    }

    async fn run(&self, launch: testkit::Launch) -> (Option<i32>, String) {
        let process = launch.spawn().unwrap();
        let code = process.wait(SOON).await.unwrap().code();
        let output = fs::read_to_string(process.log()).unwrap();
        fs::remove_file(process.log()).unwrap();
        (code, output)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_delivers_orders_again_under_their_ids() {
    let mut world = World::new().await;
    world.add_orders("flash", 20);
    world.start_publisher();
    world.wait_for_cursor("amqp", "flash", 20).await;
    world.consume_all_orders().await;
    assert_eq!(world.consumed().len(), 20);

    let (code, output) = world.replay(&["--sink", "amqp", "--sale", "flash", "--from", "11"]).await;
    assert_eq!((code, &*output), (Some(0), "sale flash: amqp gets 10 orders again, from order 11 on\n"));
    world.wait_for_cursor("amqp", "flash", 20).await;
    world.consume().await;
    let ids: Vec<_> = world.consumed().iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ids.len(), 30);
    assert_eq!(ids[20..], ids[10..20]);

    // A time finds the same orders.
    let (code, output) = world.replay(&["--sink", "amqp", "--sale", "flash", "--from", "-1h"]).await;
    assert_eq!((code, &*output), (Some(0), "sale flash: amqp gets 20 orders again, from order 1 on\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn impossible_replays_are_refused() {
    let world = World::new().await;
    world.add_orders("flash", 20);
    for (arguments, code, reason) in [
        (["amqp", "nowhere", "1"], 1, "the ledger has no sale nowhere"),
        (["amqp", "flash", "22"], 1, "--from can be at most 21"),
        (["amqp", "flash", "5"], 1, "would never get 4 orders"),
        (["amqp", "flash", "0"], 64, "must be a position from 1 on"),
        (["amqp", "flash", "soon"], 64, "must be a position from 1 on"),
        (["kafka", "flash", "1"], 64, "must be one of amqp, webhook"),
    ] {
        let [sink, sale, from] = arguments;
        let (answered, output) = world.replay(&["--sink", sink, "--sale", sale, "--from", from]).await;
        assert_eq!(answered, Some(code), "{output}");
        assert!(output.contains(reason), "{output}");
    }
    assert_eq!(world.cursor("amqp", "flash"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_settings_of_sinks_exit_with_64() {
    let world = World::new().await;
    let amqp = || world.ledger(92).env("AMQP_URL", "amqp://shop:hunter2@mq.example");
    let webhook = || world.ledger(92).env("WEBHOOK_URL", "https://shop.example/");
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (launch, words) in [
        (world.ledger(92).env("AMQP_URL", "http://shop:hunter2@mq.example"), "AMQP_URL"),
        (world.ledger(92).env("AMQP_URL", "amqp://shop:hunter2@[::1]"), "AMQP_URL"),
        (world.ledger(92).env("AMQP_QUEUE", QUEUE), "AMQP_URL"),
        (amqp().env("AMQP_DECLARE", "maybe"), "must be one of declare, check"),
        (amqp().env("AMQP_EXCHANGE", "amq.topic"), "AMQP_EXCHANGE"),
        (amqp().env("AMQP_PASSWORD_FILE", "/nowhere"), "AMQP_PASSWORD_FILE"),
        (webhook(), "WEBHOOK_SECRET or WEBHOOK_SECRET_FILE"),
        (webhook().env("WEBHOOK_SECRET", "hunter2"), "whsec_ and 24 to 64 bytes"),
        (world.ledger(92).env("WEBHOOK_SECRET", secret), "WEBHOOK_URL"),
        (
            webhook().env("WEBHOOK_URL", "http://shop.example/").env("WEBHOOK_SECRET", secret),
            "must be https://",
        ),
        (webhook().env("FEED_TIMEOUT", "0s").env("WEBHOOK_SECRET", secret), "FEED_TIMEOUT"),
    ] {
        let (code, output) = world.run(launch).await;
        assert_eq!(code, Some(64), "{words}: {output}");
        assert!(output.lines().count() == 1 && output.contains(words), "{output}");
        assert!(!output.contains("hunter2"), "a secret is in the output: {output}");
    }
}
