//! Work that is done once, at the start.

use rediscluster::{ClusterError, backoff};
use service::settings::refuse;
use service::{connect, presence};
use stock::functions::LIBRARY;
use stock::history::ChangeOrigin;
use stock::sale::SaleState;
use tokio::time::sleep;

use crate::context::read_options;
use crate::coordinator::Coordinator;
use crate::new_sale::{Field, NewSale};
use crate::operations::{OperationError, SaleOperations};
use crate::settings::Settings;

/// Waits for the cluster, connects, and loads the function library.
///
/// # Errors
/// Fails when the server at `REDIS_URL` is not a cluster.
pub async fn connect(settings: &Settings) -> anyhow::Result<Coordinator> {
    let options = settings.redis.connect_options();
    let not_a_cluster = |error: ClusterError| anyhow::Error::from(error).context("REDIS_URL");
    let writes = connect::cluster(&options, &LIBRARY).await.map_err(not_a_cluster)?;
    let reads = connect::cluster(&read_options(&options), &LIBRARY).await.map_err(not_a_cluster)?;
    if let Err(error) = writes.load_library().await {
        // Calls load it, too, where it is missing.
        tracing::warn!(%error, "function library not loaded everywhere");
    }
    Ok(Coordinator::new(presence::name(settings.listen.address().port()), reads, writes, settings.timing))
}

/// Creates the default sale, with retries until it succeeds. Exits the process if a sale of the same name has other
/// settings. If the record is lost it keeps trying, because the data may be restored.
pub async fn default_sale(sales: &SaleOperations, wanted: &NewSale) {
    let mut lost = false;
    for tries in 0.. {
        match create(sales, wanted).await {
            Ok(()) => return,
            Err(OperationError::DifferentSettings { id, fields }) => {
                refuse(differing(&id.to_string(), &fields))
            }
            Err(OperationError::RecordLost(_)) if lost => {}
            Err(failure @ OperationError::RecordLost(_)) => {
                lost = true;
                tracing::error!(sale.id = %wanted.id, error = %failure, "default sale not created");
            }
            Err(failure) => {
                tracing::warn!(sale.id = %wanted.id, error = %failure, "default sale not created yet");
            }
        }
        sleep(backoff(tries)).await;
    }
}

/// Records the sale, and completes its creation. A sale that has been open before is not waited for, because it needs
/// no coordinator to sell.
async fn create(sales: &SaleOperations, wanted: &NewSale) -> Result<(), OperationError> {
    let origin =
        ChangeOrigin { reason: Some("default sale of the settings".to_owned()), ..ChangeOrigin::default() };
    let (recorded, _) = sales.record_creation(wanted, &origin).await?;
    if recorded.sale.config.state == SaleState::Creating {
        sales.complete(recorded).await?;
    }
    Ok(())
}

fn differing(sale: &str, fields: &[Field]) -> String {
    let variables: Vec<&str> = fields.iter().map(|field| field.variable()).collect();
    format!("sale {sale:?} exists with other settings than {}", variables.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_message_names_the_differing_variables() {
        let line = differing("flash", &[Field::TotalStock, Field::EndsAt]);
        assert_eq!(line, "sale \"flash\" exists with other settings than TOTAL_STOCK, SALE_END_TIME");
    }
}
