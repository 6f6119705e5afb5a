//! Fixtures for the unit tests of this crate.

use rediscluster::EpochMs;
use service::settings::TimeSetting;
use stock::calls::{Level, TokenSource};
use stock::ids::UserIdKind;
use stock::layout::HashTag;
use stock::sale::{Product, Sale, SaleState};

use crate::desired_state::DesiredState;
use crate::new_sale::NewSale;

/// The current time in these tests.
pub(crate) const NOW: EpochMs = 1_795_291_200_000;

/// A request for a sale of a hundred chairs in two shards.
pub(crate) fn chairs() -> NewSale {
    NewSale {
        id: "chairs".parse().unwrap(),
        total_stock: 100,
        starts_at: TimeSetting::At(NOW),
        ends_at: TimeSetting::At(NOW + 3_600_000),
        product: Product { name: "Chair".into(), price: 49.9, description: String::new() },
        user_ids: UserIdKind::Opaque,
        shards: Some(2),
    }
}

/// The recorded state of the same sale, with this state and number of shards, and all of its stock minted.
pub(crate) fn recorded(state: SaleState, shards: usize) -> DesiredState {
    let tags = (0..shards).map(|shard| HashTag::new(shard.to_string()));
    let mut config = chairs().config(tags.collect(), NOW);
    config.state = state;
    let sale = Sale::new(config).unwrap();
    DesiredState { mint: sale.split(sale.config.total_stock), sale }
}

/// Levels of shards in the recorded state.
pub(crate) fn converged(desired: &DesiredState) -> Vec<Level> {
    let level = |&minted: &u64| Level {
        ring: desired.sale.shards()[0].ring.clone(),
        settings: desired.sale.config.shard_settings(),
        stock: minted,
        accepted: vec![(TokenSource::Mint, minted)],
        ..Level::default()
    };
    desired.mint.iter().map(level).collect()
}
