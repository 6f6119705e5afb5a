//! What one buyer does, from the first request to the last.

use std::time::Duration;

use anyhow::Result;
use rand::random_range;

use super::{
    buyers::Buyer,
    client::RequestOutcome,
    crowd::{BuyerCrowd, Endpoint},
};
use crate::journal::BuyerRequest;

/// How somebody buys. Which one follows from the person's number.
#[derive(Clone, Copy, Debug)]
enum BuyerBehaviour {
    /// Comes once, through nginx.
    Plain,
    /// Comes once, directly to a node.
    Direct,
    /// Sends two attempts at once, through different doors.
    Twice,
    /// Comes again later, with another attempt.
    Again,
    /// Looks later whether it is still true.
    Looks,
}

impl BuyerBehaviour {
    fn of(person: &Buyer) -> Self {
        match person.number % 10 {
            0 | 1 => Self::Twice,
            2 => Self::Again,
            3 | 4 => Self::Looks,
            5 => Self::Direct,
            _ => Self::Plain,
        }
    }
}

/// How long a buyer waits before another attempt at a sale that is not selling, in milliseconds.
const NOT_ACTIVE_PAUSE_MS: std::ops::Range<u64> = 300..1_300;

/// Requests of a buyer, on average: what the pace of buyers is reckoned from.
pub(super) const REQUESTS_PER_STORY: f64 = 1.5;

impl BuyerCrowd {
    /// A buyer's whole story. Ends when every attempt has a definite answer.
    pub(super) async fn story(&self, person: &Buyer) -> Result<()> {
        match BuyerBehaviour::of(person) {
            BuyerBehaviour::Plain => self.buys(person, "first", None).await,
            BuyerBehaviour::Direct => self.buys(person, "first", self.node(person.number)).await,
            BuyerBehaviour::Twice => {
                let (one, other) = tokio::join!(
                    self.buys(person, "first", None),
                    self.buys(person, "second", self.node(person.number)),
                );
                one.and(other)
            }
            BuyerBehaviour::Again => {
                self.buys(person, "first", None).await?;
                later().await;
                self.buys(person, "again", None).await
            }
            BuyerBehaviour::Looks => {
                self.buys(person, "first", None).await?;
                later().await;
                self.looks(person).await
            }
        }
    }

    /// Somebody who came before comes once more, with a new attempt, and looks.
    pub(super) async fn comes_back(&self, person: &Buyer) -> Result<()> {
        let name = format!("back-{}", random_range(0..u32::MAX));
        self.buys(person, &name, None).await?;
        self.looks(person).await
    }

    /// Buys, each attempt until its answer is definite; while the sale is not selling, with one attempt after the
    /// other.
    pub(super) async fn buys(&self, person: &Buyer, name: &str, mut first: Option<Endpoint>) -> Result<()> {
        for number in 0_u64.. {
            let name = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
            let ask = person.purchase(self.sale(), &name);
            let heard = self.until_definite(person, &ask, first.take()).await?;
            if heard != RequestOutcome::NotActive || self.is_over() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(random_range(NOT_ACTIVE_PAUSE_MS))).await;
        }
        unreachable!("numbers do not end")
    }

    async fn looks(&self, person: &Buyer) -> Result<()> {
        self.until_definite(person, &BuyerRequest::Lookup, None).await.map(drop)
    }

    /// Asks the same thing until the answer is definite, waiting for as long as answers ask in between. Whoever hears
    /// nothing at the first door goes to nginx.
    pub(super) async fn until_definite(
        &self,
        person: &Buyer,
        ask: &BuyerRequest,
        mut first: Option<Endpoint>,
    ) -> Result<RequestOutcome> {
        let _doubt = self.doubt();
        loop {
            let heard = {
                let _place = self.place_at(person.home).await;
                let door = first.take().unwrap_or_else(|| self.nginx());
                self.teller().ask(person, ask, &door).await?
            };
            match heard {
                RequestOutcome::Bought | RequestOutcome::Denied | RequestOutcome::NotActive => {
                    return Ok(heard);
                }
                RequestOutcome::Nothing(pause) => tokio::time::sleep(pause).await,
            }
        }
    }
}

/// Some time in the next seconds: before, in the middle of, or after what is happening now.
async fn later() {
    tokio::time::sleep(Duration::from_millis(random_range(100..12_000))).await;
}
