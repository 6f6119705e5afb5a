//! The opening second: buyers who come at a rate, each once, whatever the answers take.
//!
//! Goose's users wait for an answer before they ask again, so a server that stalls is asked less, and the stall hardly
//! shows. Here a buyer's latency counts from the moment when he came, also where there was no connection to ask on. Who
//! is sent away comes back after the spike, and counts apart: the figures are those of first tries.

mod page;
mod plot;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use futures::{StreamExt, stream};
use hdrhistogram::Histogram;
use rand::random;
use reqwest::Url;
use testkit::{BuyerResult, OpenLoop};
use tokio::{net::lookup_host, signal::ctrl_c, task::JoinHandle};

use crate::{
    answers::{Answer, ApiFamily},
    client::{Attempt, SaleClient},
    options::Spike,
    tally::{histogram, micros},
    target::LoadTarget,
};

/// The answers say when to come back, and it is always this.
const COME_BACK: Duration = Duration::from_secs(1);

/// What the buyers of a spike waited.
pub(crate) struct WaitTimes {
    pub(crate) rate: u32,
    /// From when they came.
    pub(crate) from_arrival: Histogram<u64>,
    /// From when they were sent: what a closed loop would have seen.
    pub(crate) from_sending: Histogram<u64>,
}

/// Lets them come, has those come back who were sent away, and draws what they waited.
pub(crate) async fn run(spike: &Spike, place: &Arc<LoadTarget>, reports: &Path) -> Result<()> {
    let (shop, interrupted) = (Arc::clone(&place.shop), Arc::new(AtomicBool::new(false)));
    let interruption = Interruption::listen(Arc::clone(&interrupted));
    let crowd = open_loop(spike, &shop).await?;
    let listening = Arc::clone(&shop);
    let goes_on = move |shot: &BuyerResult| {
        hear(&listening, shot);
        !interrupted.load(Ordering::Relaxed)
    };
    let shots = crowd.run_while(goes_on).await?;
    let waits = WaitTimes::of(spike.rate, &shots);
    print!("{}", waits.text());
    page::write(reports, &waits)?;
    come_back(&shop, shots, spike.connections as usize).await;
    drop(interruption);
    Ok(())
}

async fn open_loop(spike: &Spike, shop: &SaleClient) -> Result<OpenLoop> {
    let (addr, host) = address(shop.url()).await?;
    Ok(OpenLoop {
        addr,
        host,
        path: shop.purchase_path(),
        users: format!("spike-{:08x}", random::<u32>()),
        rate: spike.rate,
        duration: spike.duration,
        connections: spike.connections as usize,
    })
}

/// Where the load balancer is, and what it is called.
async fn address(url: &str) -> Result<(SocketAddr, String)> {
    let parsed: Url = url.parse()?;
    anyhow::ensure!(parsed.scheme() == "http", "a spike is plain HTTP: {url} is not");
    let host = url.trim_start_matches("http://").to_owned();
    let name = parsed.host_str().with_context(|| format!("{url} has no host"))?;
    let port = parsed.port_or_known_default().unwrap_or(80);
    let found =
        lookup_host((name.trim_matches(['[', ']']), port)).await.ok().and_then(|mut found| found.next());
    Ok((found.with_context(|| format!("nobody knows where {name} is"))?, host))
}

/// Counts an answer, and believes it.
fn hear(shop: &SaleClient, shot: &BuyerResult) {
    let answer = answer(shot);
    shop.tally.answered("purchase", answer.kind, shot.latency);
    let said = || format!("{:?} {}", shot.status, String::from_utf8_lossy(&shot.body));
    shop.note_if_error("purchase", answer.kind, said);
    shop.believe(&shot.user, &shot.user, shot.sent, &answer);
}

fn answer(shot: &BuyerResult) -> Answer {
    match shot.status {
        Some(status) => {
            let retry_after = shot.retry_after.then_some(COME_BACK);
            Answer::to_purchase(ApiFamily::BySale, status, retry_after, &shot.body)
        }
        None => Answer::none(),
    }
}

/// Nobody stays in doubt. The attempt's key is the user's name, as it was at the first try.
async fn come_back(shop: &SaleClient, shots: Vec<BuyerResult>, at_once: usize) {
    let in_doubt = shots.into_iter().filter(|shot| !answer(shot).kind.is_definite());
    let coming = in_doubt.map(|BuyerResult { user, .. }| async move {
        let attempt =
            Attempt { user: user.as_str().into(), family: ApiFamily::BySale, key: user.clone(), token: None };
        shop.come_back(shop.url(), attempt, Some(COME_BACK)).await
    });
    stream::iter(coming).buffer_unordered(at_once).for_each(async |_| ()).await;
}

impl WaitTimes {
    fn of(rate: u32, shots: &[BuyerResult]) -> Self {
        let (mut from_arrival, mut from_sending) = (histogram(), histogram());
        for shot in shots {
            from_arrival.saturating_record(micros(shot.latency));
            from_sending.saturating_record(micros(shot.service_time));
        }
        Self { rate, from_arrival, from_sending }
    }
}

/// Ctrl-C: the first one ends the spike, the second one the program.
struct Interruption {
    task: JoinHandle<()>,
}

impl Interruption {
    fn listen(interrupted: Arc<AtomicBool>) -> Self {
        let task = tokio::spawn(async move {
            while ctrl_c().await.is_ok() {
                if interrupted.swap(true, Ordering::Relaxed) {
                    std::process::exit(1);
                }
            }
        });
        Self { task }
    }
}

impl Drop for Interruption {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::answers::AnswerKind;

    fn shot(status: Option<u16>, retry_after: bool, body: &str) -> BuyerResult {
        let (latency, service_time) = (Duration::from_millis(900), Duration::from_millis(3));
        let (user, sent) = ("ann".to_owned(), Instant::now());
        BuyerResult { user, sent, status, retry_after, body: body.into(), latency, service_time }
    }

    #[test]
    fn waiting_for_a_connection_is_waiting() {
        let waits = WaitTimes::of(1, &[shot(Some(200), false, "")]);
        assert!(waits.from_arrival.max() >= 900_000 && waits.from_sending.max() < 4_000);
    }

    #[test]
    fn a_shot_is_read_like_any_other_answer() {
        let sold_out = r#"{"success":false,"reason":"out_of_stock"}"#;
        assert_eq!(answer(&shot(Some(409), false, sold_out)).kind, AnswerKind::SoldOut);
        assert_eq!(answer(&shot(Some(503), true, r#"{"type":"/problems/busy"}"#)).kind, AnswerKind::Busy);
        assert_eq!(answer(&shot(None, false, "")).kind, AnswerKind::Transport);
    }

    #[tokio::test]
    async fn an_address_keeps_the_name_it_is_called_by() {
        let (addr, host) = address("http://127.0.0.1:8080").await.unwrap();
        assert_eq!((addr.to_string().as_str(), host.as_str()), ("127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(address("https://127.0.0.1").await.is_err());
    }
}
