//! The recorded state of a sale, which its shards are brought to.

use stock::sale::Sale;

/// The recorded state of a sale: its configuration, and the tokens minted to each shard.
#[derive(Clone)]
pub struct DesiredState {
    /// The sale.
    pub sale: Sale,
    /// Tokens minted to each shard, cumulative. Their sum is the sale's total.
    pub mint: Vec<u64>,
}

impl PartialEq for DesiredState {
    fn eq(&self, other: &Self) -> bool {
        self.sale.config == other.sale.config && self.mint == other.mint
    }
}

impl std::fmt::Debug for DesiredState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DesiredState").field("config", &self.sale.config).field("mint", &self.mint).finish()
    }
}
