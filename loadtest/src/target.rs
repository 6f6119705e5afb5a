//! Finds the addresses of a sale and checks, before the first user starts, that it can be used.

use std::{fs, io::ErrorKind, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use buyers::{AdminClient, AuditReport, BuyerClient, LedgerAudit, LedgerClient, SaleStatus};
use rand::random;
use serde::Deserialize;
use serde_json::json;
use testkit::until_ok;

use crate::{
    client::SaleClient,
    options::{Common, Scenario},
};

/// Time limit for nodes to know a new sale. They read it within a second.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
/// Length of an opened sale, relative to now. Longer than any run.
const OPEN_FOR: &str = "24h";
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Time limit for the ledger to write the last orders of a run.
const LEDGER_LIMIT: Duration = Duration::from_secs(60);

/// An open sale with all its endpoints.
#[derive(Debug)]
pub(crate) struct LoadTarget {
    pub(crate) sale_client: Arc<SaleClient>,
    pub(crate) sale: String,
    admin: AdminClient,
    admin_url: String,
    ledger: Option<LedgerClient>,
    /// The load balancer, followed by the known nodes.
    pub(crate) endpoints: Vec<String>,
}

/// Addresses of a system.
struct Addresses {
    url: String,
    nodes: Vec<String>,
    admin_url: String,
    admin_token: String,
    ledger: Option<LedgerClient>,
}

/// The fields of `up.json` that are used here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UpFile {
    url: String,
    nodes: Vec<Member>,
    coordinators: Vec<Member>,
    #[serde(default)]
    ledgers: Vec<Member>,
    admin_token: String,
}

#[derive(Deserialize)]
struct Member {
    url: String,
}

impl LoadTarget {
    /// Finds or creates the sale, and checks that it is open.
    pub(crate) async fn find(scenario: &Scenario) -> Result<Self> {
        let common = scenario.common();
        let Addresses { url, nodes, admin_url, admin_token, ledger } = Addresses::of(common)?;
        let admin = AdminClient::new(&admin_token);
        let client = BuyerClient::new(ANSWER_LIMIT);
        let endpoints: Vec<String> = [url.clone()].into_iter().chain(nodes).collect();
        let (sale_client, sale) = match common.stock {
            Some(units) => {
                let sale = format!("{}-{:06x}", scenario.name(), random::<u32>() & 0xff_ffff);
                open_sale(&admin, &admin_url, &sale, units).await?;
                wait_until_open(&client.of_sale(&sale), &endpoints).await?;
                (SaleClient::new(&url, sale.parse()?, false), sale)
            }
            None => {
                let status = status(&client, &url).await?;
                ensure_open(&status, scenario.buys())?;
                (SaleClient::new(&url, status.sale_id.parse()?, true), status.sale_id)
            }
        };
        Ok(Self { sale_client: Arc::new(sale_client), sale, admin, admin_url, ledger, endpoints })
    }

    /// Reads the coordinator's audit.
    pub(crate) async fn audit(&self) -> Result<AuditReport> {
        self.admin.audit(&self.admin_url, &self.sale).await
    }

    /// Reads the ledger's audit, if there is a ledger, once it has all orders.
    pub(crate) async fn ledger_audit(&self) -> Result<Option<LedgerAudit>> {
        match &self.ledger {
            Some(ledger) => ledger.settled_audit(&self.sale, LEDGER_LIMIT).await.map(Some),
            None => Ok(None),
        }
    }
}

impl Addresses {
    fn of(common: &Common) -> Result<Self> {
        let Common { host, node, admin_url, admin_token, ledger_url, ledger_token, .. } = common;
        let ledger = ledger_url.as_ref().zip(ledger_token.as_ref());
        match (host, admin_url, admin_token) {
            (Some(host), Some(admin_url), Some(admin_token)) => Ok(Self {
                url: host.clone(),
                nodes: node.clone(),
                admin_url: admin_url.clone(),
                admin_token: admin_token.clone(),
                ledger: ledger.map(|(url, token)| LedgerClient::new(url, token)),
            }),
            _ => Self::of_up(common),
        }
    }

    fn of_up(common: &Common) -> Result<Self> {
        let file = common.up_json();
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "no sale runs here ({} does not exist): start one with `cargo xtask up`, or give the address of another with --host",
                file.display()
            ),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        let up: UpFile = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what `up` writes", file.display()))?;
        let coordinator = up.coordinators.into_iter().next().context("`up` runs no coordinator")?;
        Ok(Self {
            url: up.url,
            nodes: up.nodes.into_iter().map(|node| node.url).collect(),
            admin_url: coordinator.url,
            ledger: up.ledgers.first().map(|ledger| LedgerClient::new(&ledger.url, &up.admin_token)),
            admin_token: up.admin_token,
        })
    }
}

/// Creates a sale that starts now.
async fn open_sale(admin: &AdminClient, coordinator: &str, id: &str, units: u64) -> Result<()> {
    let settings = json!({
        "id": id,
        "totalStock": units,
        "startsAt": "0s",
        "endsAt": OPEN_FOR,
        "productName": "Load test",
        "productPrice": 1.0,
    });
    admin.create(coordinator, &settings).await
}

/// Fails when users of the scenario could not use the sale.
fn ensure_open(status: &SaleStatus, for_buyers: bool) -> Result<()> {
    let SaleStatus { sale_id, status, remaining_stock, .. } = status;
    match status.as_str() {
        "active" if *remaining_stock > 0 || !for_buyers => Ok(()),
        "active" => bail!("sale `{sale_id}` is sold out: `--stock UNITS` creates a new sale"),
        other => bail!("sale `{sale_id}` is {other}: `--stock UNITS` creates a new sale"),
    }
}

async fn status(client: &BuyerClient, url: &str) -> Result<SaleStatus> {
    let status = client.sale_status(url).await;
    status.with_context(|| format!("no status from {url}: is it running? `cargo xtask up` starts a sale"))
}

/// Waits until every node knows the sale. Before that, nodes answer 404.
async fn wait_until_open(client: &BuyerClient, endpoints: &[String]) -> Result<()> {
    for endpoint in endpoints {
        let open = async || ensure_open(&status(client, endpoint).await?, true);
        until_ok("the opening of the new sale", OPENING_LIMIT, open).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn problem(status: &str, remaining_stock: u64, for_buyers: bool) -> Option<String> {
        let (sale_id, status, now) = ("flash".into(), status.into(), Timestamp::UNIX_EPOCH);
        let (total_stock, sold_out, ends_at, server_time) = (9, false, now, now);
        let status =
            SaleStatus { sale_id, status, remaining_stock, total_stock, sold_out, ends_at, server_time };
        ensure_open(&status, for_buyers).err().map(|error| error.to_string())
    }

    #[test]
    fn closed_sale_is_refused_with_advice() {
        assert_eq!(problem("active", 1, true), None);
        assert!(problem("active", 0, true).unwrap().starts_with("sale `flash` is sold out: `--stock"));
        assert!(problem("upcoming", 9, true).unwrap().starts_with("sale `flash` is upcoming"));
        assert!(problem("ended", 9, false).is_some());
    }

    #[test]
    fn browsing_needs_no_stock() {
        assert_eq!(problem("active", 0, false), None);
    }
}
