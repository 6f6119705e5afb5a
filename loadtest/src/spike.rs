//! The opening second as an open loop: buyers arrive at a fixed rate, once each, however long the answers take.
//!
//! Goose's users wait for an answer before the next request. So a server that stalls gets fewer requests, and the stall
//! hardly shows in the latencies. Here latency counts from a buyer's arrival, including the wait for a free connection.
//! Rejected buyers retry after the spike and are counted separately: the figures are those of first tries.

mod page;
mod plot;

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context, Result};
use buyers::ApiFamily;
use futures::{StreamExt, stream};
use hdrhistogram::Histogram;
use rand::random;
use reqwest::Url;
use testkit::{BuyerResult, OpenLoop};
use tokio::{net::lookup_host, signal::ctrl_c, task::JoinSet};

use crate::{
    client::{Attempt, SaleClient},
    options::Spike,
    tally::{histogram, micros},
    target::LoadTarget,
};

/// Latencies of a spike's buyers.
pub(crate) struct WaitTimes {
    pub(crate) rate: u32,
    /// From a buyer's arrival.
    pub(crate) from_arrival: Histogram<u64>,
    /// From the sending of the request, as a closed loop would measure.
    pub(crate) from_sending: Histogram<u64>,
}

/// Runs the spike, writes its reports, and lets rejected buyers retry.
pub(crate) async fn run(spike: &Spike, target: &Arc<LoadTarget>, reports: &Path) -> Result<()> {
    let (sale_client, interrupted) = (Arc::clone(&target.sale_client), Arc::new(AtomicBool::new(false)));
    let interrupt_handler = handle_interrupts(Arc::clone(&interrupted));
    let generator = open_loop(spike, &sale_client).await?;
    let client = Arc::clone(&sale_client);
    let on_result = move |buyer_result: &BuyerResult| {
        record_answer(&client, buyer_result);
        !interrupted.load(Ordering::Relaxed)
    };
    let results = generator.run_while(on_result).await?;
    let waits = WaitTimes::of(spike.rate, &results);
    write!(io::stdout(), "{}", waits.text()).ok();
    page::write(reports, &waits)?;
    retry_unresolved(&sale_client, results, spike.connections as usize).await;
    drop(interrupt_handler);
    Ok(())
}

async fn open_loop(spike: &Spike, sale_client: &SaleClient) -> Result<OpenLoop> {
    let (addr, host) = address(sale_client.url()).await?;
    Ok(OpenLoop {
        addr,
        host,
        path: sale_client.purchase_path(),
        users: format!("spike-{:08x}", random::<u32>()),
        rate: spike.rate,
        duration: spike.duration,
        connections: spike.connections as usize,
    })
}

/// Returns the load balancer's address and the value of the `Host` header.
async fn address(url: &str) -> Result<(SocketAddr, String)> {
    let parsed: Url = url.parse()?;
    anyhow::ensure!(parsed.scheme() == "http", "a spike is plain HTTP: {url} is not");
    let host = url.trim_start_matches("http://").to_owned();
    let name = parsed.host_str().with_context(|| format!("{url} has no host"))?;
    let port = parsed.port_or_known_default().unwrap_or(80);
    let found =
        lookup_host((name.trim_matches(['[', ']']), port)).await.ok().and_then(|mut found| found.next());
    Ok((found.with_context(|| format!("{name} cannot be resolved"))?, host))
}

/// Counts an answer and logs it.
fn record_answer(sale_client: &SaleClient, buyer_result: &BuyerResult) {
    let BuyerResult { user, sent, latency, answer, .. } = buyer_result;
    sale_client.answer_log.purchase(user, ApiFamily::BySale, user, *sent, answer);
    sale_client.count("purchase", *latency, answer.clone());
}

/// Retries all attempts without a definite answer. An attempt's key is the user's id, as in the first try.
async fn retry_unresolved(sale_client: &SaleClient, results: Vec<BuyerResult>, at_once: usize) {
    let retries = results.into_iter().map(|BuyerResult { user, answer, .. }| async move {
        let attempt =
            Attempt { user: user.as_str().into(), family: ApiFamily::BySale, key: user, token: None };
        sale_client.retry(sale_client.url(), attempt, answer).await
    });
    stream::iter(retries).buffer_unordered(at_once).for_each(async |_| ()).await;
}

impl WaitTimes {
    fn of(rate: u32, results: &[BuyerResult]) -> Self {
        let (mut from_arrival, mut from_sending) = (histogram(), histogram());
        for buyer_result in results {
            from_arrival.saturating_record(micros(buyer_result.latency));
            from_sending.saturating_record(micros(buyer_result.service_time));
        }
        Self { rate, from_arrival, from_sending }
    }
}

/// Handles Ctrl-C until the returned task is dropped: the first one ends the spike, the second one the program.
fn handle_interrupts(interrupted: Arc<AtomicBool>) -> JoinSet<()> {
    JoinSet::from_iter([async move {
        while ctrl_c().await.is_ok() {
            if interrupted.swap(true, Ordering::Relaxed) {
                std::process::exit(1);
            }
        }
    }])
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use buyers::Answer;

    use super::*;

    #[test]
    fn latency_includes_the_wait_for_a_connection() {
        let (latency, service_time) = (Duration::from_millis(900), Duration::from_millis(3));
        let (user, sent, answer) = ("ann".to_owned(), Instant::now(), Answer::default());
        let waits = WaitTimes::of(1, &[BuyerResult { user, sent, answer, latency, service_time }]);
        assert!(waits.from_arrival.max() >= 900_000 && waits.from_sending.max() < 4_000);
    }

    #[tokio::test]
    async fn address_keeps_the_host_name() {
        let (addr, host) = address("http://127.0.0.1:8080").await.unwrap();
        assert_eq!((addr.to_string().as_str(), host.as_str()), ("127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(address("https://127.0.0.1").await.is_err());
    }
}
