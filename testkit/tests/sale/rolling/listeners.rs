//! Listeners of a sale's events, which reconnect when a stream ends.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::{Client, Response, StatusCode};
use tokio::time::sleep;

use super::Traffic;

/// Time after which a browser reconnects when the stream does not set one.
const RECONNECT_DELAY_DEFAULT: Duration = Duration::from_secs(3);

/// The streams of one listener.
#[derive(Debug, Default)]
pub(super) struct ListenerResult {
    /// Number of streams.
    pub(super) streams: usize,
    /// Refused requests, and streams that broke instead of ending.
    pub(super) failures: Vec<String>,
    /// Longest time without an event.
    pub(super) longest_silence: Duration,
}

/// Listens until the test closes the traffic.
pub(super) async fn listen(url: String, traffic: Arc<Traffic>) -> ListenerResult {
    let mut closed = traffic.closed.subscribe();
    let (client, mut receiver) = (Client::new(), EventReceiver::new());
    let listening = async {
        loop {
            let stream = client.get(format!("{url}/api/sale/events")).send().await;
            if let Err(error) = receiver.follow(stream, &traffic).await {
                receiver.result.failures.push(format!("{error:?}"));
            }
            sleep(receiver.reconnect_delay).await;
        }
    };
    tokio::select! {
        () = listening => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
    receiver.record_event();
    receiver.result
}

struct EventReceiver {
    result: ListenerResult,
    last: Instant,
    reconnect_delay: Duration,
}

impl EventReceiver {
    fn new() -> Self {
        Self {
            result: ListenerResult::default(),
            last: Instant::now(),
            reconnect_delay: RECONNECT_DELAY_DEFAULT,
        }
    }

    /// Reads one stream until it ends regularly.
    async fn follow(&mut self, stream: reqwest::Result<Response>, traffic: &Traffic) -> Result<()> {
        let stream = stream?;
        ensure!(stream.status() == StatusCode::OK, "{}: {}", stream.status(), stream.text().await?);
        self.result.streams += 1;
        traffic.streams.fetch_add(1, Relaxed);
        let read = self.read(stream).await;
        traffic.streams.fetch_sub(1, Relaxed);
        read
    }

    async fn read(&mut self, mut stream: Response) -> Result<()> {
        while let Some(bytes) = stream.chunk().await? {
            self.record_event();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let retry = text.lines().find_map(|line| line.strip_prefix("retry: ")?.parse().ok());
            self.reconnect_delay = retry.map_or(self.reconnect_delay, Duration::from_millis);
        }
        Ok(())
    }

    fn record_event(&mut self) {
        self.result.longest_silence = self.result.longest_silence.max(self.last.elapsed());
        self.last = Instant::now();
    }
}
