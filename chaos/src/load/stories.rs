//! What one buyer does, from the first request to the last.

use std::time::Duration;

use anyhow::Result;
use rand::random_range;

use super::{
    client::Heard,
    people::Person,
    shop::{Door, Shop},
};
use crate::journal::Ask;

/// How somebody buys. Which one follows from the person's number.
#[derive(Clone, Copy, Debug)]
enum Habit {
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

impl Habit {
    fn of(person: &Person) -> Self {
        match person.number % 10 {
            0 | 1 => Self::Twice,
            2 => Self::Again,
            3 | 4 => Self::Looks,
            5 => Self::Direct,
            _ => Self::Plain,
        }
    }
}

/// Requests of a buyer, on average: what the pace of buyers is reckoned from.
pub(super) const REQUESTS_PER_STORY: f64 = 1.5;

impl Shop {
    /// A buyer's whole story. Ends when every attempt has a definite answer.
    pub(super) async fn story(&self, person: &Person) -> Result<()> {
        let first = person.attempt(self.sale(), "first");
        match Habit::of(person) {
            Habit::Plain => self.until_definite(person, &first, None).await,
            Habit::Direct => self.until_definite(person, &first, self.node(person.number)).await,
            Habit::Twice => {
                let second = person.attempt(self.sale(), "second");
                let (one, other) = tokio::join!(
                    self.until_definite(person, &first, None),
                    self.until_definite(person, &second, self.node(person.number)),
                );
                one.and(other)
            }
            Habit::Again => {
                self.until_definite(person, &first, None).await?;
                later().await;
                self.until_definite(person, &person.attempt(self.sale(), "again"), None).await
            }
            Habit::Looks => {
                self.until_definite(person, &first, None).await?;
                later().await;
                self.until_definite(person, &Ask::Lookup, None).await
            }
        }
    }

    /// Somebody who came before comes once more, with a new attempt, and looks.
    pub(super) async fn comes_back(&self, person: &Person) -> Result<()> {
        let name = format!("back-{}", random_range(0..u32::MAX));
        self.until_definite(person, &person.attempt(self.sale(), &name), None).await?;
        self.until_definite(person, &Ask::Lookup, None).await
    }

    /// Asks the same thing until the answer is definite, waiting for as long as answers ask in between. Whoever hears
    /// nothing at the first door goes to nginx.
    pub(super) async fn until_definite(
        &self,
        person: &Person,
        ask: &Ask,
        mut first: Option<Door>,
    ) -> Result<()> {
        let _doubt = self.doubt();
        loop {
            let heard = {
                let _place = self.place_at(person.home).await;
                let (via, url) = first.take().unwrap_or_else(|| self.nginx());
                self.teller().ask(person.user.as_str(), person.home.index() as u16, ask, (&via, &url)).await?
            };
            match heard {
                Heard::Bought | Heard::Denied => return Ok(()),
                Heard::Nothing(pause) => tokio::time::sleep(pause).await,
            }
        }
    }
}

/// Some time in the next seconds: before, in the middle of, or after what is happening now.
async fn later() {
    tokio::time::sleep(Duration::from_millis(random_range(100..12_000))).await;
}
