//! The path of a purchase, as Redis sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use testkit::Buyers;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::actors::{OpenSale, purchases, wishes};

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_part_of_one_call_and_a_pipeline_ends_in_one_wait() {
    // Given three primaries, each watched.
    let sale = OpenSale::of(10_000).await;
    let mut watchers = Vec::new();
    for primary in sale.stack.redis().primaries().await {
        watchers.push(Watcher::of(primary).await);
    }

    // When 600 buyers buy, 64 at a time.
    let users: Vec<String> = (0..600).map(|n| format!("buyer-{n:03}")).collect();
    let answers = Buyers::new(64).buy(wishes(&users, &sale.stack.url())).await;
    assert_eq!(purchases(&answers).len(), 600);

    // Then each buyer stands in one call, and behind the calls of a pipeline there is one WAIT, and one look at who copies.
    // The primary looks at its clock before the calls, behind them, and at the end.
    let (mut buyers, mut calls, mut waits, mut copiers, mut looks) = (0, 0, 0, 0, 0);
    for watcher in watchers {
        for (connection, commands) in watcher.commands_by_connection().await {
            let mut in_pipeline = 0;
            for command in commands {
                match command.name() {
                    "FCALL" if command.operation() == "buy" => {
                        assert!(command.keys_share_a_slot(), "{command:?} touches several slots");
                        (buyers, calls, in_pipeline) =
                            (buyers + command.buyers(), calls + 1, in_pipeline + 1);
                    }
                    "WAIT" => {
                        assert!(in_pipeline > 0, "{connection} waits for nothing");
                        (waits, in_pipeline) = (waits + 1, 0);
                    }
                    "INFO" => copiers += 1,
                    "TIME" => looks += 1,
                    other => panic!("{connection} of a lane also sends {other}"),
                }
            }
            assert_eq!(in_pipeline, 0, "{connection} did not wait behind its last calls");
        }
    }
    assert_eq!(copiers, waits, "a look at who copies that nobody asked for, or that is missing");
    assert_eq!(looks, 3 * waits, "a clock that nobody asked for, or did not");
    println!("600 purchases: {calls} calls in {waits} pipelines");
    assert_eq!(buyers, 600, "a buyer was sent more than once, or not at all");
    assert!(calls < 600 && waits <= calls, "nothing was batched: {calls} calls, {waits} waits");
}

/// Sees every command that a server executes.
struct Watcher {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
}

/// A command as MONITOR shows it.
#[derive(Debug)]
struct Seen(Vec<String>);

impl Watcher {
    async fn of(server: std::net::SocketAddr) -> Self {
        let mut stream = TcpStream::connect(server).await.unwrap();
        stream.write_all(b"MONITOR\r\n").await.unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("+OK"));
        Self { lines }
    }

    /// What each connection that made a purchase sent, in order. What functions do inside is left out.
    async fn commands_by_connection(mut self) -> BTreeMap<String, Vec<Seen>> {
        let mut seen: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
        let silence = Duration::from_millis(300);
        let mut is_over = false;
        // Snapshots and the lease never stop, so it is over when no purchase came for a while.
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
            let command = Seen(words);
            if command.operation() == "buy" {
                last_purchase = std::time::Instant::now();
            }
            seen.entry(connection).or_default().push(command);
            is_over = last_purchase.elapsed() > silence;
        }
        seen.retain(|_, commands| commands.iter().any(|command| command.operation() == "buy"));
        // A connection introduces itself before its first call.
        for commands in seen.values_mut() {
            commands.retain(|command| !matches!(command.name(), "CLIENT" | "client" | "HELLO" | "hello"));
        }
        seen
    }
}

impl Seen {
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

    /// Three arguments a buyer, behind the ring's fingerprint.
    fn buyers(&self) -> usize {
        (self.0.len() - 3 - self.keys().len() - 3) / 4
    }
}
