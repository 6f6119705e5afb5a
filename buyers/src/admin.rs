//! Requests of operators to coordinators.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::AuditReport;

/// Time limit of a request. An audit reads all claims and orders of a sale, and audits run one at a time.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Client of the admin API. Each request names its coordinator by the base URL. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AdminClient {
    client: Client,
    token: String,
}

impl AdminClient {
    /// Creates a client with this bearer token.
    pub fn new(token: &str) -> Self {
        let client = Client::builder().timeout(ANSWER_LIMIT).build();
        let client = client.expect("a client with a time limit only can be built");
        Self { client, token: token.to_owned() }
    }

    /// Prepares a request for what is at this path, for example `coordinators` or `sales/flash`.
    pub fn get(&self, coordinator: &str, path: &str) -> RequestBuilder {
        self.client.get(format!("{coordinator}/admin/{path}")).bearer_auth(&self.token)
    }

    /// Prepares a change at this path, for example `sales` or `sales/flash/pause`.
    pub fn post(&self, coordinator: &str, path: &str) -> RequestBuilder {
        self.client.post(format!("{coordinator}/admin/{path}")).bearer_auth(&self.token)
    }

    /// Audits a sale, which reads all of it.
    ///
    /// # Errors
    /// Fails when the coordinator does not answer, or could not read the sale.
    pub async fn audit(&self, coordinator: &str, sale: &str) -> Result<AuditReport> {
        let report = read_json(self.get(coordinator, &format!("sales/{sale}/audit"))).await;
        report.with_context(|| format!("sale `{sale}` cannot be audited"))
    }

    /// Creates a sale with these settings.
    ///
    /// # Errors
    /// Fails when the coordinator does not answer, or refuses.
    pub async fn create(&self, coordinator: &str, settings: &Value) -> Result<()> {
        let created = read_json::<Value>(self.post(coordinator, "sales").json(settings)).await;
        created.map(drop).with_context(|| format!("sale {} cannot be created", settings["id"]))
    }
}

/// Sends a request and reads the JSON of its answer.
///
/// # Errors
/// Fails when no answer comes, when it is not a success, or when it has another form.
pub async fn read_json<T: DeserializeOwned>(request: RequestBuilder) -> Result<T> {
    let response = request.send().await.context("no answer")?;
    let (url, status) = (response.url().clone(), response.status());
    let body = response.text().await?;
    ensure!(status.is_success(), "{url} answers {status}: {body}");
    serde_json::from_str(&body).with_context(|| format!("{url} answers {body}"))
}
