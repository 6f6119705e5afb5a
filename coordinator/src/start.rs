//! What has to happen once, at the start.

use service::settings::refuse;
use service::{connect, presence};
use stock::cluster::{ClusterError, backoff};
use stock::sale::SaleState;
use tokio::time::sleep;

use crate::coordinator::{Coordinator, CoordinatorError, read_options};
use crate::new_sale::{Field, NewSale};
use crate::settings::Settings;

/// Waits for the cluster and makes it ready to be called.
///
/// # Errors
/// When there is something else at `REDIS_URL`.
pub async fn connect(settings: &Settings) -> anyhow::Result<Coordinator> {
    let options = settings.redis.connect_options();
    let not_a_cluster = |error: ClusterError| anyhow::Error::from(error).context("REDIS_URL");
    let writes = connect::cluster(&options).await.map_err(not_a_cluster)?;
    let reads = connect::cluster(&read_options(&options)).await.map_err(not_a_cluster)?;
    if let Err(error) = writes.load_library().await {
        // A call that misses it loads it, too.
        tracing::warn!(%error, "function library not loaded everywhere");
    }
    Ok(Coordinator::new(presence::name(settings.listen.address().port()), reads, writes, settings.timing()))
}

/// Creates the default sale, however long that takes. Ends the process where there is another of its name. One whose
/// record is lost is waited for: its data may be restored.
pub async fn default_sale(coordinator: &Coordinator, wanted: &NewSale) {
    let mut lost = false;
    for tries in 0.. {
        match create(coordinator, wanted).await {
            Ok(()) => return,
            Err(CoordinatorError::DifferentSettings { id, fields }) => {
                refuse(differing(&id.to_string(), &fields))
            }
            Err(CoordinatorError::RecordLost(_)) if lost => {}
            Err(failure @ CoordinatorError::RecordLost(_)) => {
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

/// A sale that has been open before is not waited for: selling, it needs no coordinator.
async fn create(coordinator: &Coordinator, wanted: &NewSale) -> Result<(), CoordinatorError> {
    let (recorded, _) = coordinator.record_creation(wanted).await?;
    if recorded.sale.config.state == SaleState::Creating {
        coordinator.complete(recorded).await?;
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
