//! `record`: configuration and mint of a sale change together, and only from the version that the change is based on.

use redis::FromRedisValue;
use stock::calls::{Recall, Record, RecordAnswer, SaleRecord};
use stock::history::{HISTORY_ENTRIES_MAX, HistoryEntry, ReadHistory};
use stock::layout::SaleKeys;
use stock::sale::{LayoutConfig, SaleConfig, SaleState};
use stock::search::{has_shards, recorded_sales};
use stock::store::{AddSaleToList, ListSales, PublishSnapshot, ReadSnapshot, RestoreSaleList};

use testkit::{ClusterOptions, RedisCluster};

use crate::fixture::{ALWAYS, TestSale, client_of};

/// A sale without a record.
struct Unrecorded {
    sale: TestSale,
    keys: SaleKeys,
}

impl Unrecorded {
    async fn sale() -> Self {
        let sale = TestSale::planned(3).await;
        Self { keys: SaleKeys::new(sale.sale.id()), sale }
    }

    /// A sale whose first version is recorded.
    async fn first_recorded() -> Self {
        let sale = Self::sale().await;
        assert_eq!(sale.record(0, &sale.at(1), &[50, 30, 20]).await, RecordAnswer::Done);
        sale
    }

    /// Sends a raw command with these keys to the primary of the record.
    async fn query<T: FromRedisValue>(&self, command: &str, keys: &[&str]) -> T {
        self.sale.query_slot(self.keys.slot, redis::cmd(command).arg(keys)).await
    }

    fn at(&self, version: u64) -> SaleConfig {
        SaleConfig { version, ..(*self.sale.sale.config).clone() }
    }

    async fn record(&self, based_on: u64, config: &SaleConfig, mint: &[u64]) -> RecordAnswer {
        let entry =
            HistoryEntry { version: config.version, change: "test".into(), ..HistoryEntry::default() };
        self.record_with(based_on, config, mint, &entry).await
    }

    async fn record_with(
        &self,
        based_on: u64,
        config: &SaleConfig,
        mint: &[u64],
        entry: &HistoryEntry,
    ) -> RecordAnswer {
        let record = Record { keys: &self.keys, based_on, config, mint, entry };
        self.sale.cluster.write(record).await.unwrap()
    }

    /// The versions in the kept history.
    async fn history(&self) -> Vec<u64> {
        let entries = self.sale.cluster.read(ReadHistory(&self.keys)).await.unwrap();
        entries.into_iter().map(|entry| entry.version).collect()
    }

    async fn recorded(&self) -> (Option<SaleConfig>, Vec<u64>) {
        let recorded = self.sale.cluster.read(Recall { keys: &self.keys }).await.unwrap();
        recorded.map_or((None, vec![]), |SaleRecord { config, mint }| (Some(config), mint))
    }
}

#[tokio::test]
async fn new_sale_is_recorded_with_its_mint() {
    let sale = Unrecorded::sale().await;
    assert_eq!(sale.recorded().await, (None, vec![]));

    assert_eq!(sale.record(0, &sale.at(1), &[50, 30, 20]).await, RecordAnswer::Done);

    assert_eq!(sale.recorded().await, (Some(sale.at(1)), vec![50, 30, 20]));
}

#[tokio::test]
async fn repeated_record_succeeds_and_changes_nothing() {
    let sale = Unrecorded::first_recorded().await;

    let repeated = sale.record(0, &sale.at(1), &[50, 30, 20]).await;
    assert_eq!(repeated, RecordAnswer::Done, "a lost answer became a refusal");

    assert_eq!(sale.recorded().await, (Some(sale.at(1)), vec![50, 30, 20]), "tokens were minted twice");
}

#[tokio::test]
async fn concurrent_change_is_overtaken() {
    let sale = Unrecorded::first_recorded().await;
    let paused = SaleConfig { state: SaleState::Paused, ..sale.at(2) };
    assert_eq!(sale.record(1, &paused, &[]).await, RecordAnswer::Done);

    let ended = SaleConfig { state: SaleState::Ended, ..sale.at(2) };
    let answer = sale.record(1, &ended, &[99, 99, 99]).await;

    assert_eq!(answer, RecordAnswer::Overtaken(Some(Box::new(paused.clone()))));
    assert_eq!(sale.recorded().await, (Some(paused), vec![50, 30, 20]), "the loser's mint was recorded");
}

#[tokio::test]
async fn existing_sale_is_not_created_with_other_settings() {
    let sale = Unrecorded::first_recorded().await;

    let other = SaleConfig { total_stock: 7, ..sale.at(1) };

    assert_eq!(sale.record(0, &other, &[7, 0, 0]).await, RecordAnswer::Overtaken(Some(Box::new(sale.at(1)))));
}

#[tokio::test]
async fn change_of_an_earlier_creation_is_overtaken() {
    // Given a sale that was deleted and created again, with the version that the first one had.
    let sale = Unrecorded::first_recorded().await;
    sale.query::<u64>("DEL", &[&sale.keys.config, &sale.keys.mint]).await;
    let layout = LayoutConfig::new(sale.sale.sale.config.layout.tags.clone());
    let again = SaleConfig { layout, total_stock: 9, ..sale.at(1) };
    assert_eq!(sale.record(0, &again, &[3, 3, 3]).await, RecordAnswer::Done);

    // When a coordinator that has missed this changes the first one.
    let answer = sale.record(1, &sale.at(2), &[50, 30, 20]).await;

    // Then it is refused, and the new record stays.
    assert_eq!(answer, RecordAnswer::Overtaken(Some(Box::new(again.clone()))));
    assert_eq!(sale.recorded().await, (Some(again), vec![3, 3, 3]));
}

#[tokio::test]
async fn new_sale_starts_with_an_empty_mint() {
    let sale = Unrecorded::first_recorded().await;
    sale.query::<u64>("DEL", &[&sale.keys.config]).await;

    let smaller = SaleConfig { total_stock: 9, ..sale.at(1) };
    sale.record(0, &smaller, &[3, 3, 3]).await;

    assert_eq!(sale.recorded().await, (Some(smaller), vec![3, 3, 3]));
}

#[tokio::test]
async fn change_of_a_missing_sale_is_refused() {
    let sale = Unrecorded::sale().await;

    assert_eq!(sale.record(4, &sale.at(5), &[50, 30, 20]).await, RecordAnswer::Overtaken(None));

    assert_eq!(sale.recorded().await, (None, vec![]));
}

#[tokio::test]
async fn mint_only_grows() {
    let sale = Unrecorded::first_recorded().await;

    let restocked = SaleConfig { total_stock: 1_000, ..sale.at(2) };
    sale.record(1, &restocked, &[40, 35, 915]).await;

    assert_eq!(sale.recorded().await.1, [50, 35, 915], "minted tokens were taken back");
}

#[tokio::test]
async fn recall_writes_tick() {
    let sale = Unrecorded::first_recorded().await;
    let tick = async || sale.query::<Option<u64>>("HGET", &[&sale.keys.mint, "tick"]).await;
    assert_eq!(tick().await, None);

    sale.recorded().await;

    assert_eq!(tick().await, Some(1), "the call must write, or its barrier proves nothing");
}

#[tokio::test]
async fn recall_of_a_missing_sale_writes_nothing() {
    let sale = Unrecorded::sale().await;
    assert_eq!(sale.recorded().await, (None, vec![]));
    assert_eq!(sale.query::<u64>("EXISTS", &[&sale.keys.mint]).await, 0);
}

#[tokio::test]
async fn record_without_its_mint_is_lost() {
    let sale = Unrecorded::first_recorded().await;
    sale.query::<u64>("DEL", &[&sale.keys.mint]).await;

    assert_eq!(sale.recorded().await, (None, vec![]));

    assert_eq!(sale.query::<u64>("EXISTS", &[&sale.keys.mint]).await, 0, "a mint of zeros was made");
}

#[tokio::test]
async fn list_is_lost_until_restored() {
    let redis = RedisCluster::start(ClusterOptions::default()).await.unwrap();
    let cluster = client_of(&redis).await;
    let [chairs, tables] = ["chairs", "tables"].map(|id| id.parse().unwrap());
    let listed = async || cluster.read(ListSales).await.unwrap();

    cluster.write(AddSaleToList(&chairs)).await.unwrap();
    assert_eq!(listed().await, None, "an incomplete list was accepted as complete");

    cluster.write(RestoreSaleList(&[])).await.unwrap();
    assert_eq!(listed().await, Some(vec![chairs.clone()]));

    for _ in 0..2 {
        cluster.write(AddSaleToList(&tables)).await.unwrap();
    }
    assert_eq!(listed().await, Some(vec![chairs, tables]));
}

#[tokio::test]
async fn search_finds_records_and_shards_by_key() {
    let sale = Unrecorded::sale().await;
    let (cluster, id) = (&sale.sale.cluster, sale.sale.sale.id());
    let is_recorded = async || recorded_sales(cluster).await.unwrap().contains(id);
    assert_eq!((is_recorded().await, has_shards(cluster, id).await), (false, Ok(false)));

    sale.record(0, &sale.at(1), &[50, 30, 20]).await;
    assert_eq!((is_recorded().await, has_shards(cluster, id).await), (true, Ok(false)));

    sale.sale.configure(1, SaleState::Creating, ALWAYS).await;
    assert_eq!(has_shards(cluster, id).await, Ok(true));
    assert_eq!(has_shards(cluster, &"sale".parse().unwrap()).await, Ok(false), "a prefix must not match");
}

#[tokio::test]
async fn published_snapshot_round_trips() {
    let sale = TestSale::over_shards(&[7, 5]).await;
    let keys = SaleKeys::new(sale.sale.id());
    assert_eq!(sale.cluster.read(ReadSnapshot(&keys)).await, Ok(None));

    let levels = stock::snapshot::read_levels(&sale.cluster, &sale.sale).await;
    let snapshot = stock::snapshot::Snapshot::of(&sale.sale, &levels, None);
    sale.cluster.write(PublishSnapshot { keys: &keys, snapshot: &snapshot }).await.unwrap();

    assert_eq!(sale.cluster.read(ReadSnapshot(&keys)).await, Ok(Some(snapshot)));
}

#[tokio::test]
async fn change_is_recorded_with_its_entry_once() {
    let sale = Unrecorded::first_recorded().await;
    assert_eq!(sale.record(1, &sale.at(2), &[50, 30, 20]).await, RecordAnswer::Done);
    assert_eq!(sale.record(1, &sale.at(2), &[50, 30, 20]).await, RecordAnswer::Done, "a repeated call");
    assert_ne!(
        sale.record(1, &sale.at(3), &[50, 30, 20]).await,
        RecordAnswer::Done,
        "another change was first"
    );
    assert_eq!(sale.history().await, [1, 2]);

    // Another operator made the same change at the same time, and then the first call arrives again.
    let other = HistoryEntry { version: 2, change: "other".into(), ..HistoryEntry::default() };
    sale.record_with(1, &sale.at(2), &[50, 30, 20], &other).await;
    sale.record(1, &sale.at(2), &[50, 30, 20]).await;
    assert_eq!(sale.history().await, [1, 2, 2]);
}

#[tokio::test]
async fn history_keeps_the_latest_changes() {
    let sale = Unrecorded::first_recorded().await;
    let last = HISTORY_ENTRIES_MAX as u64 + 3;
    for version in 2..=last {
        assert_eq!(sale.record(version - 1, &sale.at(version), &[50, 30, 20]).await, RecordAnswer::Done);
    }
    assert_eq!(sale.history().await, (4..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn new_sale_starts_with_an_empty_history() {
    let sale = Unrecorded::first_recorded().await;
    sale.query::<u64>("DEL", &[&sale.keys.config]).await;
    assert_eq!(sale.record(0, &sale.at(7), &[50, 30, 20]).await, RecordAnswer::Done);
    assert_eq!(sale.history().await, [7], "it shows no changes of another sale");
}
