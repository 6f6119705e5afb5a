//! Client of the coordinator's admin API: opens sales and reads the audit.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, RequestBuilder};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Time limit of a request. An audit reads all claims and orders of a sale, and audits run one at a time.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);
/// Length of an opened sale, relative to now. Longer than any run.
const OPEN_FOR: &str = "24h";

/// Client of one coordinator.
#[derive(Debug)]
pub(crate) struct Admin {
    client: Client,
    url: String,
    token: String,
}

/// Response of `GET /admin/sales/{sale}/audit`: the result of a full read of the sale.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AuditReport {
    pub(crate) ok: bool,
    /// Descriptions of the violations.
    pub(crate) violations: Vec<Value>,
    pub(crate) total: u64,
    pub(crate) sold: u64,
    /// Units in shards.
    pub(crate) stock: u64,
    /// Units in channels between shards.
    pub(crate) in_flight: u64,
    pub(crate) claims: u64,
    pub(crate) orders: u64,
    pub(crate) buyers_twice: u64,
}

impl Admin {
    pub(crate) fn new(url: String, token: String) -> Self {
        let client = Client::builder().timeout(ANSWER_LIMIT).build();
        Self { client: client.expect("a client with these settings can be built"), url, token }
    }

    /// Creates a sale that starts now.
    pub(crate) async fn open_sale(&self, id: &str, units: u64) -> Result<()> {
        let sale = json!({
            "id": id,
            "totalStock": units,
            "startsAt": "0s",
            "endsAt": OPEN_FOR,
            "productName": "Load test",
            "productPrice": 1.0,
        });
        let request = self.client.post(format!("{}/admin/sales", self.url)).json(&sale);
        self.ask::<Value>(request).await.with_context(|| format!("sale `{id}` cannot be opened"))?;
        Ok(())
    }

    pub(crate) async fn audit(&self, sale: &str) -> Result<AuditReport> {
        let request = self.client.get(format!("{}/admin/sales/{sale}/audit", self.url));
        self.ask(request).await.with_context(|| format!("sale `{sale}` cannot be audited"))
    }

    async fn ask<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let sent = request.bearer_auth(&self.token).send().await;
        let response = sent.with_context(|| format!("no coordinator answers at {}", self.url))?;
        let status = response.status();
        let body = response.text().await?;
        if !status.is_success() {
            bail!("the coordinator at {} answers {status}: {body}", self.url);
        }
        serde_json::from_str(&body).with_context(|| format!("the coordinator answers {body}"))
    }
}
