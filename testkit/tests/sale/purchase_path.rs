//! The commands that a purchase causes in Redis.

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::Buyers;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::fixture::{OpenSale, assert_purchases, buyers, purchase_attempts};

#[tokio::test(flavor = "multi_thread")]
async fn pipeline_batches_purchases_and_ends_in_wait() {
    // Given three primaries, each with a monitor.
    let sale = OpenSale::start(10_000).await;
    let mut monitors = Vec::new();
    for primary in sale.stack.redis().primaries().await {
        monitors.push(CommandMonitor::of(primary).await);
    }

    // When 600 buyers buy, 64 at a time.
    let answers = Buyers::new(64).buy(purchase_attempts(&buyers(0..600), &sale.stack.url())).await;
    assert_purchases(&answers, 600);

    // Then each buyer is in exactly one call. The calls of a pipeline are followed by one WAIT and one INFO, which
    // lists the replicas. TIME comes when the lane connects, before the calls of each pipeline, after them, and at the end.
    let (mut buyer_count, mut calls, mut waits, mut info_calls, mut time_calls, mut connections) =
        (0, 0, 0, 0, 0, 0);
    for monitor in monitors {
        for (connection, commands) in monitor.commands_by_connection().await {
            let mut in_pipeline = 0;
            connections += 1;
            for command in commands {
                match command.name() {
                    "FCALL" if command.operation() == "buy" => {
                        assert!(command.keys_share_a_slot(), "{command:?} touches several slots");
                        (buyer_count, calls, in_pipeline) =
                            (buyer_count + command.buyer_count(), calls + 1, in_pipeline + 1);
                    }
                    "WAIT" => {
                        assert!(in_pipeline > 0, "{connection} sent a WAIT without calls");
                        (waits, in_pipeline) = (waits + 1, 0);
                    }
                    "INFO" => info_calls += 1,
                    "TIME" => time_calls += 1,
                    other => panic!("the lane connection {connection} also sent {other}"),
                }
            }
            assert_eq!(in_pipeline, 0, "{connection} sent no WAIT after its last calls");
        }
    }
    assert_eq!(info_calls, waits, "each WAIT needs one INFO");
    assert_eq!(time_calls, 3 * waits + connections, "each WAIT needs three TIME, and each connection one");
    println!("600 purchases: {calls} calls in {waits} pipelines");
    assert_eq!(buyer_count, 600, "each buyer is sent once");
    assert!(calls < 600 && waits <= calls, "nothing was batched: {calls} calls, {waits} waits");
}

/// Reads every command that a server executes.
struct CommandMonitor {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
}

/// A command as shown by MONITOR.
#[derive(Debug)]
struct ObservedCommand(Vec<String>);

impl CommandMonitor {
    async fn of(server: std::net::SocketAddr) -> Self {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        Self { lines }
    }

    /// The commands of each connection that made a purchase, in order. Commands inside functions are omitted.
    async fn commands_by_connection(mut self) -> BTreeMap<String, Vec<ObservedCommand>> {
        let mut by_connection: BTreeMap<String, Vec<ObservedCommand>> = BTreeMap::new();
        let silence = Duration::from_millis(300);
        let mut is_over = false;
        // Snapshots and the lease never stop, so the end is a period without purchases.
        let mut last_purchase = std::time::Instant::now();
        while !is_over {
            let Ok(Ok(Some(line))) = tokio::time::timeout(silence, self.lines.next_line()).await else {
                break;
            };
            let (head, command) = line.split_once("] ").unwrap();
            let connection = head.rsplit(' ').next().unwrap().to_owned();
            if connection == "lua" {
                continue;
            }
            let words: Vec<String> =
                command.split("\" \"").map(|word| word.trim_matches('"').to_owned()).collect();
            let command = ObservedCommand(words);
            if command.operation() == "buy" {
                last_purchase = std::time::Instant::now();
            }
            by_connection.entry(connection).or_default().push(command);
            is_over = last_purchase.elapsed() > silence;
        }
        by_connection.retain(|_, commands| commands.iter().any(|command| command.operation() == "buy"));
        // Removes the handshake of each connection.
        for commands in by_connection.values_mut() {
            commands.retain(|command| !matches!(command.name(), "CLIENT" | "client" | "HELLO" | "hello"));
        }
        by_connection
    }
}

impl ObservedCommand {
    fn name(&self) -> &str {
        &self.0[0]
    }

    fn operation(&self) -> &str {
        self.0.get(1).and_then(|function| function.split('_').next()).unwrap_or_default()
    }

    fn keys(&self) -> &[String] {
        &self.0[3..3 + self.0[2].parse::<usize>().unwrap()]
    }

    fn keys_share_a_slot(&self) -> bool {
        let tag = |key: &String| key.split(['{', '}']).nth(1).unwrap().to_owned();
        self.keys().iter().all(|key| tag(key) == tag(&self.keys()[0]))
    }

    /// The number of buyers in a `buy` call, from its arguments.
    fn buyer_count(&self) -> usize {
        (self.0.len() - 3 - self.keys().len() - 2) / 3
    }
}
