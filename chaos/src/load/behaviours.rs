//! The sequence of requests that one buyer sends.

use std::time::Duration;

use anyhow::Result;
use buyers::{AnswerKind, journal::BuyerRequest, retry_pause};
use rand::random_range;

use super::{
    buyers::Buyer,
    crowd::{BuyerCrowd, Endpoint},
};

/// Pause of a buyer before another attempt at a sale that is not selling, in milliseconds.
const NOT_ACTIVE_PAUSE_MS: std::ops::Range<u64> = 300..1_300;

/// Average number of requests of a buyer, used to derive the arrival rate.
pub(super) const REQUESTS_PER_BUYER: f64 = 1.5;

impl BuyerCrowd {
    /// Runs all requests of a buyer, by the buyer's number. Returns when every attempt has a definite answer.
    pub(super) async fn run_behaviour(&self, buyer: &Buyer) -> Result<()> {
        let node = self.node(buyer.number);
        match buyer.number % 10 {
            // Sends two attempts at once, through nginx and to a node.
            0 | 1 => {
                let (one, other) =
                    tokio::join!(self.buy(buyer, "first", None), self.buy(buyer, "second", node));
                one.and(other)
            }
            // Buys again later, with another attempt.
            2 => {
                self.buy(buyer, "first", None).await?;
                later().await;
                self.buy(buyer, "again", None).await
            }
            // Looks the purchase up later.
            3 | 4 => {
                self.buy(buyer, "first", None).await?;
                later().await;
                self.look_up(buyer).await
            }
            // Buys once, directly at a node.
            5 => self.buy(buyer, "first", node).await,
            // Buys once, through nginx.
            _ => self.buy(buyer, "first", None).await,
        }
    }

    /// Lets an earlier buyer buy once more, with a new attempt, and look the purchase up.
    pub(super) async fn return_visit(&self, buyer: &Buyer) -> Result<()> {
        let name = format!("back-{}", random_range(0..u32::MAX));
        self.buy(buyer, &name, None).await?;
        self.look_up(buyer).await
    }

    /// Buys, and retries each attempt until its answer is definite. While the sale is not selling, starts one attempt
    /// after the other.
    pub(super) async fn buy(&self, buyer: &Buyer, name: &str, mut first: Option<Endpoint>) -> Result<()> {
        for number in 0_u64.. {
            let name = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
            let ask = buyer.purchase(self.sale(), &name);
            let kind = self.ask_until_definite(buyer, &ask, first.take()).await?;
            // A node may not know a new sale yet: it reads the list of sales several times per second.
            if !matches!(kind, AnswerKind::NotActive | AnswerKind::NoSale) || self.is_over() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(random_range(NOT_ACTIVE_PAUSE_MS))).await;
        }
        unreachable!("numbers do not end")
    }

    async fn look_up(&self, buyer: &Buyer) -> Result<()> {
        self.ask_until_definite(buyer, &BuyerRequest::Lookup, None).await.map(drop)
    }

    /// Repeats a request until its answer is definite, and waits in between as the answers ask. Sends the first request
    /// to `first`, if given, and all others to nginx.
    pub(super) async fn ask_until_definite(
        &self,
        buyer: &Buyer,
        ask: &BuyerRequest,
        mut first: Option<Endpoint>,
    ) -> Result<AnswerKind> {
        self.client().counts().unresolved += 1;
        loop {
            let answer = {
                let _permit = self.permit(buyer.home).await;
                let endpoint = first.take().unwrap_or_else(|| self.nginx());
                self.client().ask(buyer, ask, &endpoint).await?
            };
            if answer.kind.is_definite() {
                self.client().counts().unresolved -= 1;
                return Ok(answer.kind);
            }
            tokio::time::sleep(retry_pause(answer.retry_after)).await;
        }
    }
}

/// Waits for a random time: the next request comes before, during or after the current fault.
async fn later() {
    tokio::time::sleep(Duration::from_millis(random_range(100..12_000))).await;
}
