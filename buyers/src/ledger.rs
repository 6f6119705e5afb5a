//! Requests to a ledger, which has the orders in PostgreSQL.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, RequestBuilder};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::admin::read_json;

/// Time limit of a request. A ledger begins its answer within 30 seconds, and audits run one at a time.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// Time between two audits of a ledger that is behind.
const AUDIT_PAUSE: Duration = Duration::from_millis(200);

/// Client of the API of one ledger. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LedgerClient {
    client: Client,
    url: String,
    token: String,
}

/// A ledger's audit of a sale: the rows in PostgreSQL against the orders in Redis.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct LedgerAudit {
    /// True when nothing is missing, extra or doubled.
    pub ok: bool,
    /// Description of each violation.
    pub violations: Vec<String>,
    /// Rows in PostgreSQL.
    pub rows: u64,
    /// Orders in Redis without their row, where the ledger has one for later orders.
    pub missing: u64,
    /// Rows without their order in Redis.
    pub extra: u64,
    /// Further rows of an order that has one.
    pub doubled: u64,
    /// Orders in Redis that the ledger has not written yet.
    pub behind: u64,
}

impl LedgerClient {
    /// Creates a client of the ledger at this URL, with this bearer token.
    pub fn new(url: &str, token: &str) -> Self {
        let client = Client::builder().timeout(ANSWER_LIMIT).build();
        let client = client.expect("a client with a time limit only can be built");
        Self { client, url: url.to_owned(), token: token.to_owned() }
    }

    /// Prepares a request for what is at this path, for example `sales/flash/orders`.
    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}/{path}", self.url)).bearer_auth(&self.token)
    }

    /// Audits a sale as it is now. The ledger may be behind.
    ///
    /// # Errors
    /// Fails when the ledger does not answer, or could not audit the sale.
    pub async fn audit(&self, sale: &str) -> Result<LedgerAudit> {
        let audit = read_json(self.get(&format!("sales/{sale}/audit"))).await;
        audit.with_context(|| format!("sale `{sale}` cannot be audited by the ledger"))
    }

    /// Audits a sale once the ledger has all its orders.
    ///
    /// # Errors
    /// Fails when that takes longer than `limit`.
    pub async fn settled_audit(&self, sale: &str, limit: Duration) -> Result<LedgerAudit> {
        let deadline = Instant::now() + limit;
        loop {
            let audit = self.audit(sale).await;
            if audit.as_ref().is_ok_and(|audit| audit.behind == 0) {
                return audit;
            }
            if Instant::now() + AUDIT_PAUSE > deadline {
                let behind = audit?.behind;
                ensure!(behind == 0, "the ledger is still {behind} orders behind");
            }
            sleep(AUDIT_PAUSE).await;
        }
    }
}

impl LedgerAudit {
    /// Returns the violations that the audit found, as text.
    pub fn findings(&self) -> Vec<String> {
        let found = self.violations.iter().map(|violation| format!("ledger's audit: {violation}"));
        let unnamed = !self.ok && self.violations.is_empty();
        found.chain(unnamed.then(|| "ledger's audit: failed without naming a violation".into())).collect()
    }
}
