//! `record`: a sale's config and its mint change together, and only from the version that the change is based on.

use stock::calls::{Record, Recorded};
use stock::layout::SaleKeys;
use stock::sale::{SaleConfig, State};
use stock::store::{EnlistSale, ListSales, PublishSnapshot, ReadConfig, ReadMint, ReadSnapshot};

use crate::stage::TestSale;

/// A sale of which nothing is recorded yet.
struct Unrecorded {
    sale: TestSale,
    keys: SaleKeys,
}

impl Unrecorded {
    async fn sale() -> Self {
        let sale = TestSale::planned(3).await;
        Self { keys: SaleKeys::new(sale.sale.id()), sale }
    }

    fn at(&self, version: u64) -> SaleConfig {
        SaleConfig { version, ..(*self.sale.sale.config).clone() }
    }

    async fn record(&self, based_on: u64, config: &SaleConfig, mint: &[u64]) -> Recorded {
        self.sale.cluster.write(Record { keys: &self.keys, based_on, config, mint }).await.unwrap()
    }

    async fn held(&self) -> (Option<SaleConfig>, Vec<u64>) {
        let config = self.sale.cluster.read(ReadConfig(&self.keys)).await.unwrap();
        (config, self.sale.cluster.read(ReadMint { keys: &self.keys, shards: 3 }).await.unwrap())
    }
}

#[tokio::test]
async fn a_new_sale_is_recorded_with_its_mint() {
    let sale = Unrecorded::sale().await;
    assert_eq!(sale.held().await, (None, vec![0, 0, 0]));

    assert_eq!(sale.record(0, &sale.at(1), &[50, 30, 20]).await, Recorded::Done);

    assert_eq!(sale.held().await, (Some(sale.at(1)), vec![50, 30, 20]));
}

#[tokio::test]
async fn a_call_that_is_repeated_finds_its_own_work() {
    let sale = Unrecorded::sale().await;
    sale.record(0, &sale.at(1), &[50, 30, 20]).await;

    assert_eq!(
        sale.record(0, &sale.at(1), &[50, 30, 20]).await,
        Recorded::Done,
        "a lost answer became a refusal"
    );

    assert_eq!(
        sale.held().await,
        (Some(sale.at(1)), vec![50, 30, 20]),
        "what was minted once was minted twice"
    );
}

#[tokio::test]
async fn of_two_who_change_a_sale_at_once_one_is_told_what_the_other_did() {
    let sale = Unrecorded::sale().await;
    sale.record(0, &sale.at(1), &[50, 30, 20]).await;
    let paused = SaleConfig { state: State::Paused, ..sale.at(2) };
    assert_eq!(sale.record(1, &paused, &[]).await, Recorded::Done);

    let ended = SaleConfig { state: State::Ended, ..sale.at(2) };
    let told = sale.record(1, &ended, &[99, 99, 99]).await;

    assert_eq!(told, Recorded::Overtaken(Some(Box::new(paused.clone()))));
    assert_eq!(sale.held().await, (Some(paused), vec![50, 30, 20]), "the loser's mint was recorded");
}

#[tokio::test]
async fn a_sale_that_exists_is_not_created_again_with_other_settings() {
    let sale = Unrecorded::sale().await;
    sale.record(0, &sale.at(1), &[50, 30, 20]).await;

    let other = SaleConfig { total_stock: 7, ..sale.at(1) };

    assert_eq!(sale.record(0, &other, &[7, 0, 0]).await, Recorded::Overtaken(Some(Box::new(sale.at(1)))));
}

#[tokio::test]
async fn a_change_to_a_sale_that_is_not_there_is_refused() {
    let sale = Unrecorded::sale().await;

    assert_eq!(sale.record(4, &sale.at(5), &[50, 30, 20]).await, Recorded::Overtaken(None));

    assert_eq!(sale.held().await, (None, vec![0, 0, 0]));
}

#[tokio::test]
async fn the_mint_only_grows() {
    let sale = Unrecorded::sale().await;
    sale.record(0, &sale.at(1), &[50, 30, 20]).await;

    sale.record(1, &sale.at(2), &[40, 35, 1_000_000_000]).await;

    assert_eq!(sale.held().await.1, [50, 35, 1_000_000_000], "tokens that were minted were taken back");
}

#[tokio::test]
async fn a_sale_that_was_enlisted_is_listed_once() {
    let sale = Unrecorded::sale().await;
    let id = sale.sale.sale.id();
    for _ in 0..2 {
        sale.sale.cluster.write(EnlistSale(id)).await.unwrap();
    }

    let listed = sale.sale.cluster.read(ListSales).await.unwrap().unwrap();

    assert_eq!(listed.iter().filter(|listed| *listed == id).count(), 1);
}

#[tokio::test]
async fn a_snapshot_that_was_published_reads_back_as_itself() {
    let sale = TestSale::over_shards(&[7, 5]).await;
    let keys = SaleKeys::new(sale.sale.id());
    assert_eq!(sale.cluster.read(ReadSnapshot(&keys)).await, Ok(None));

    let levels = stock::snapshot::read_levels(&sale.cluster, &sale.sale).await;
    let snapshot = stock::snapshot::Snapshot::of(&sale.sale, &levels, None);
    sale.cluster.write(PublishSnapshot { keys: &keys, snapshot: &snapshot }).await.unwrap();

    assert_eq!(sale.cluster.read(ReadSnapshot(&keys)).await, Ok(Some(snapshot)));
}
