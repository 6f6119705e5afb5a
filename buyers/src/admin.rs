//! Requests of operators to coordinators.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use rediscluster::EpochMs;
use reqwest::{Client, RequestBuilder};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{AuditReport, answers::Answer, client::read, journal::Change};

/// Time limit of a request. An audit reads all claims and orders of a sale, and audits run one at a time.
const ANSWER_LIMIT: Duration = Duration::from_secs(120);

/// Time limit of a view that reads no shard.
const VIEW_LIMIT: Duration = Duration::from_secs(5);

/// Time limit of a change. A running coordinator answers within seconds, and a frozen one continues before this.
const CHANGE_LIMIT: Duration = Duration::from_secs(20);

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

    /// Returns true when this coordinator leads.
    ///
    /// # Errors
    /// Fails when the coordinator does not answer.
    pub async fn leads(&self, coordinator: &str) -> Result<bool> {
        let view: Value = read_json(self.get(coordinator, "coordinators").timeout(VIEW_LIMIT)).await?;
        Ok(view["leads"] == true)
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

    /// Tries to change a sale. All tries of one change share the key.
    pub async fn change(&self, coordinator: &str, sale: &str, change: Change, key: &str) -> Answer {
        let action = |action| self.post(coordinator, &format!("sales/{sale}/{action}"));
        let request = match change {
            Change::Create { total_stock, shards, starts_at, ends_at } => {
                self.post(coordinator, "sales").json(&json!({
                    "id": sale, "totalStock": total_stock, "shards": shards, "startsAt": iso8601(starts_at),
                    "endsAt": iso8601(ends_at), "productName": "Lamp", "productPrice": 5.0,
                }))
            }
            Change::Restock { units } => {
                action("restock").json(&json!({ "units": units })).header("idempotency-key", key)
            }
            Change::Pause => action("pause"),
            Change::Resume => action("resume"),
            Change::Extend { ends_at } => action("extend").json(&json!({ "endsAt": iso8601(ends_at) })),
            Change::End => action("end"),
        };
        read(request.timeout(CHANGE_LIMIT), Answer::to_change).await
    }
}

/// Returns the violations that the coordinator's audit found, as text.
pub fn audit_findings(report: &AuditReport) -> Vec<String> {
    let found = report.violations.iter().map(|violation| format!("coordinator's audit: {violation}"));
    let unnamed = !report.ok && report.violations.is_empty();
    found.chain(unnamed.then(|| "coordinator's audit: failed without naming a violation".into())).collect()
}

/// Returns the first `max` findings and the number of the others. A broken sale could have one for each of its buyers.
pub fn first_findings(mut found: Vec<String>, max: usize) -> Vec<String> {
    let more = found.len().saturating_sub(max);
    found.truncate(max);
    found.extend((more > 0).then(|| format!("and {more} more like these")));
    found
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

fn iso8601(at: EpochMs) -> String {
    let at = Timestamp::from_millisecond(at.cast_signed());
    at.expect("a sale's times are in this century").to_string()
}
