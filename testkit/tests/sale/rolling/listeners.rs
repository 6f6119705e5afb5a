//! Who listens to a sale, and comes back when the stream ends.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use reqwest::{Client, Response, StatusCode};
use tokio::sync::watch;
use tokio::time::sleep;

/// What a browser waits before it comes back to who does not say.
const COMES_BACK_AFTER: Duration = Duration::from_secs(3);

/// What a listener met.
#[derive(Debug, Default)]
pub(super) struct HeardEvents {
    /// How often it began to listen.
    pub(super) streams: usize,
    /// Refusals, and streams that broke instead of ending.
    pub(super) failures: Vec<String>,
    /// Longest time without an event.
    pub(super) longest_silence: Duration,
}

/// Listens until the shop closes.
pub(super) async fn listen(url: String, mut closed: watch::Receiver<bool>) -> HeardEvents {
    let (client, mut ear) = (Client::new(), EventReceiver::new());
    let listening = async {
        loop {
            let stream = client.get(format!("{url}/api/sale/events")).send().await;
            if let Err(error) = ear.follow(stream).await {
                ear.heard.failures.push(format!("{error:?}"));
            }
            sleep(ear.comes_back_after).await;
        }
    };
    tokio::select! {
        () = listening => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
    ear.hear();
    ear.heard
}

struct EventReceiver {
    heard: HeardEvents,
    last: Instant,
    comes_back_after: Duration,
}

impl EventReceiver {
    fn new() -> Self {
        Self { heard: HeardEvents::default(), last: Instant::now(), comes_back_after: COMES_BACK_AFTER }
    }

    /// Listens until the stream ends as streams do.
    async fn follow(&mut self, stream: reqwest::Result<Response>) -> Result<()> {
        let mut stream = stream?;
        ensure!(stream.status() == StatusCode::OK, "{}: {}", stream.status(), stream.text().await?);
        self.heard.streams += 1;
        while let Some(bytes) = stream.chunk().await? {
            self.hear();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let retry = text.lines().find_map(|line| line.strip_prefix("retry: ")?.parse().ok());
            self.comes_back_after = retry.map_or(self.comes_back_after, Duration::from_millis);
        }
        Ok(())
    }

    fn hear(&mut self) {
        self.heard.longest_silence = self.heard.longest_silence.max(self.last.elapsed());
        self.last = Instant::now();
    }
}
