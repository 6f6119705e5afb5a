//! What is recorded of a sale, and so what its shards are to be brought to.

use stock::sale::Sale;

/// A sale as it is recorded: its config, and what was minted to each of its shards.
#[derive(Clone)]
pub struct DesiredState {
    /// The sale.
    pub sale: Sale,
    /// Tokens minted to each shard, cumulative. Together they are the sale's total.
    pub mint: Vec<u64>,
}

impl PartialEq for DesiredState {
    fn eq(&self, other: &Self) -> bool {
        self.sale.config == other.sale.config && self.mint == other.mint
    }
}

impl std::fmt::Debug for DesiredState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desired").field("config", &self.sale.config).field("mint", &self.mint).finish()
    }
}
