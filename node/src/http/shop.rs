//! What every handler has at hand.

use std::sync::Arc;

use service::problem::Problem;
use stock::ids::SaleId;

use super::problems::{unavailable, unknown_sale};
use crate::sales::{LiveSale, Sales, Unavailable};

/// The sales, and which of them is meant where a path names none.
pub struct Shop {
    sales: Sales,
    default_sale: SaleId,
}

impl Shop {
    /// A shop of these sales.
    pub fn new(sales: Sales, default_sale: SaleId) -> Self {
        Self { sales, default_sale }
    }

    /// The sale that a path names, or the default one.
    pub(super) async fn sale(&self, named: Option<&SaleId>) -> Result<Arc<LiveSale>, NoSale> {
        let sale = self.sales.get(named.unwrap_or(&self.default_sale)).await;
        sale.map_err(|Unavailable| NoSale::Unread)?.ok_or(NoSale::Unknown)
    }
}

/// Why there is no sale to ask.
pub(super) enum NoSale {
    /// There is none of this id.
    Unknown,
    /// There may be one: it could not be read.
    Unread,
}

impl From<NoSale> for Problem {
    fn from(why: NoSale) -> Self {
        match why {
            NoSale::Unknown => unknown_sale(),
            NoSale::Unread => unavailable(),
        }
    }
}
