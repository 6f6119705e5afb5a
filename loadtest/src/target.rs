//! Where a sale is, and that it can be loaded: found out before the first user comes.

use std::{fs, io::ErrorKind, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use rand::random;
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::{
    admin::Admin,
    client::SaleClient,
    options::{Common, Scenario},
};

/// Nodes read a new sale within a second.
const OPENING_LIMIT: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// A sale that is open, and all the ways to it.
#[derive(Debug)]
pub(crate) struct LoadTarget {
    pub(crate) shop: Arc<SaleClient>,
    pub(crate) admin: Admin,
    pub(crate) sale: String,
    /// The load balancer, then each node that is known.
    pub(crate) ways: Vec<String>,
}

/// The addresses of a system.
struct Addresses {
    url: String,
    nodes: Vec<String>,
    admin_url: String,
    admin_token: String,
}

/// The part of `up.json` that matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Up {
    url: String,
    nodes: Vec<Member>,
    coordinators: Vec<Member>,
    admin_token: String,
}

#[derive(Deserialize)]
struct Member {
    url: String,
}

/// The part of a sale's status that matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    sale_id: String,
    status: String,
    remaining_stock: u64,
}

impl LoadTarget {
    /// Finds the sale, or opens one, and makes sure that a crowd may come.
    pub(crate) async fn find(scenario: &Scenario) -> Result<Self> {
        let common = scenario.common();
        let Addresses { url, nodes, admin_url, admin_token } = Addresses::of(common)?;
        let admin = Admin::new(admin_url, admin_token);
        let client = Client::builder().timeout(ANSWER_LIMIT).build()?;
        let ways: Vec<String> = [url.clone()].into_iter().chain(nodes).collect();
        let (shop, sale) = match common.stock {
            Some(units) => {
                let sale = format!("{}-{:06x}", scenario.name(), random::<u32>() & 0xff_ffff);
                admin.open_sale(&sale, units).await?;
                wait_until_open(&client, &ways, &sale).await?;
                (SaleClient::new(&url, Some(&sale)), sale)
            }
            None => {
                let status = status(&client, &format!("{url}/api/sale/status")).await?;
                status.ensure_open(scenario.buys())?;
                (SaleClient::new(&url, None), status.sale_id)
            }
        };
        Ok(Self { shop: Arc::new(shop), admin, sale, ways })
    }
}

impl Addresses {
    fn of(common: &Common) -> Result<Self> {
        let Common { host, node, admin_url, admin_token, .. } = common;
        match (host, admin_url, admin_token) {
            (Some(host), Some(admin_url), Some(admin_token)) => Ok(Self {
                url: host.clone(),
                nodes: node.clone(),
                admin_url: admin_url.clone(),
                admin_token: admin_token.clone(),
            }),
            _ => Self::of_up(common),
        }
    }

    fn of_up(common: &Common) -> Result<Self> {
        let file = common.up_json();
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == ErrorKind::NotFound => bail!(
                "no sale runs here ({} is not there): start one with `cargo xtask up`, or name another with --host",
                file.display()
            ),
            text => text.with_context(|| format!("cannot read {}", file.display()))?,
        };
        let up: Up = serde_json::from_str(&text)
            .with_context(|| format!("{} is not what `up` writes", file.display()))?;
        let coordinator = up.coordinators.into_iter().next().context("`up` runs no coordinator")?;
        Ok(Self {
            url: up.url,
            nodes: up.nodes.into_iter().map(|node| node.url).collect(),
            admin_url: coordinator.url,
            admin_token: up.admin_token,
        })
    }
}

impl Status {
    /// Says what is wrong with a sale that nobody could buy from.
    fn ensure_open(&self, for_buyers: bool) -> Result<()> {
        let Self { sale_id, status, remaining_stock } = self;
        match status.as_str() {
            "active" if *remaining_stock > 0 || !for_buyers => Ok(()),
            "active" => bail!("sale `{sale_id}` is sold out: `--stock UNITS` opens one of its own"),
            other => bail!("sale `{sale_id}` is {other}: `--stock UNITS` opens one of its own"),
        }
    }
}

async fn status(client: &Client, url: &str) -> Result<Status> {
    let sent = client.get(url).send().await;
    let response = sent
        .with_context(|| format!("nobody answers at {url}: is it running? `cargo xtask up` starts a sale"))?;
    match response.status() {
        StatusCode::OK => Ok(response.json().await.with_context(|| format!("{url} is no sale's status"))?),
        other => bail!("{url} answers {other}: {}", response.text().await.unwrap_or_default()),
    }
}

/// Every node has to know the sale: a crowd that comes earlier is told that there is none.
async fn wait_until_open(client: &Client, ways: &[String], sale: &str) -> Result<()> {
    for way in ways {
        let (url, deadline) = (format!("{way}/api/sales/{sale}/status"), Instant::now() + OPENING_LIMIT);
        while let Err(error) = status(client, &url).await.and_then(|status| status.ensure_open(true)) {
            if Instant::now() > deadline {
                return Err(error.context("the new sale does not open"));
            }
            sleep(LOOK_EVERY).await;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trouble(status: &str, remaining_stock: u64, for_buyers: bool) -> Option<String> {
        let status = Status { sale_id: "flash".into(), status: status.into(), remaining_stock };
        status.ensure_open(for_buyers).err().map(|error| error.to_string())
    }

    #[test]
    fn a_sale_that_nobody_could_buy_from_is_told_with_what_to_do() {
        assert_eq!(trouble("active", 1, true), None);
        assert!(trouble("active", 0, true).unwrap().starts_with("sale `flash` is sold out: `--stock"));
        assert!(trouble("upcoming", 9, true).unwrap().starts_with("sale `flash` is upcoming"));
        assert!(trouble("ended", 9, false).is_some());
    }

    #[test]
    fn whoever_only_looks_may_look_at_a_sale_that_is_sold_out() {
        assert_eq!(trouble("active", 0, false), None);
    }
}
