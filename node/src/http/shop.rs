//! What every handler has at hand.

use std::sync::Arc;

use service::problem::Problem;
use stock::ids::SaleId;

use super::problems::unknown_sale;
use crate::sales::{LiveSale, Sales};

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
    pub(super) async fn sale(&self, named: Option<&SaleId>) -> Result<Arc<LiveSale>, Problem> {
        self.sales.get(named.unwrap_or(&self.default_sale)).await.ok_or_else(unknown_sale)
    }
}
