//! Requests of buyers, in both families of endpoints.

use std::time::Duration;

use anyhow::Result;
use reqwest::{
    Client, RequestBuilder, Response,
    header::{COOKIE, RETRY_AFTER},
};
use serde_json::json;

use crate::{
    admin::read_json,
    answers::{Answer, ApiFamily, Received},
    status::SaleStatus,
};

/// Time limit of a request. Nodes and nginx answer or give up well before; later the answer counts as lost.
pub const ANSWER_LIMIT: Duration = Duration::from_secs(15);

/// Client of one sale. Cheap to clone. Each request names the server that it goes to by its base URL, `http://…`.
#[derive(Clone, Debug)]
pub struct BuyerClient {
    client: Client,
    /// Path of the by-sale endpoints: `/api/sale`, or `/api/sales/{sale}`.
    path: String,
}

/// One try to buy.
#[derive(Clone, Copy, Debug, Default)]
pub struct PurchaseRequest<'a> {
    /// The user's id.
    pub user: &'a str,
    /// The family of endpoints.
    pub family: ApiFamily,
    /// The `Idempotency-Key`. All tries of one attempt share it.
    pub key: Option<&'a str>,
    /// The CSRF token. Only the single-sale endpoints require one.
    pub token: Option<&'a str>,
}

impl BuyerClient {
    /// Creates a client of the default sale, whose requests take at most `answer_limit`.
    pub fn new(answer_limit: Duration) -> Self {
        let client = Client::builder().timeout(answer_limit).build();
        let client = client.expect("a client with a time limit only can be built");
        Self { client, path: "/api/sale".into() }
    }

    /// Returns the same client for another sale.
    #[must_use]
    pub fn of_sale(&self, sale: &str) -> Self {
        Self { client: self.client.clone(), path: format!("/api/sales/{sale}") }
    }

    /// Returns the path of a call: `status`, `purchase`, or `purchase/{user}`.
    pub fn path(&self, family: ApiFamily, call: &str) -> String {
        match family {
            ApiFamily::BySale => format!("{}/{call}", self.path),
            ApiFamily::SingleSale => format!("/api/{call}"),
        }
    }

    /// Tries to buy once.
    pub async fn buy(&self, base_url: &str, purchase: PurchaseRequest<'_>) -> Answer {
        let PurchaseRequest { user, family, key, token } = purchase;
        let url = format!("{base_url}{}", self.path(family, "purchase"));
        let mut request = self.client.post(url).json(&json!({ "userId": user }));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if let Some(token) = token {
            request = request.header("x-csrf-token", token).header(COOKIE, format!("csrfToken={token}"));
        }
        read(request, |received| Answer::to_purchase(family, received)).await
    }

    /// Looks up the purchase of this user.
    pub async fn look_up(&self, base_url: &str, family: ApiFamily, user: &str) -> Answer {
        let request = self.get(base_url, family, &format!("purchase/{user}"));
        read(request, |received| Answer::to_lookup(family, received)).await
    }

    /// Requests the sale's status.
    pub async fn status(&self, base_url: &str, family: ApiFamily) -> Answer {
        read(self.get(base_url, family, "status"), |received| Answer::to_status(family, received)).await
    }

    /// Reads the sale's status.
    ///
    /// # Errors
    /// Fails when no answer comes, or when it is not a success.
    pub async fn sale_status(&self, base_url: &str) -> Result<SaleStatus> {
        read_json(self.get(base_url, ApiFamily::BySale, "status")).await
    }

    /// Requests a CSRF token.
    pub async fn csrf(&self, base_url: &str) -> Answer {
        read(self.get(base_url, ApiFamily::SingleSale, "csrf"), Answer::to_csrf).await
    }

    /// Prepares a request for any other call, such as `events`.
    pub fn get(&self, base_url: &str, family: ApiFamily, call: &str) -> RequestBuilder {
        self.client.get(format!("{base_url}{}", self.path(family, call)))
    }
}

/// Sends a request and receives the whole answer.
///
/// # Errors
/// Fails when no answer comes.
async fn receive(request: RequestBuilder) -> reqwest::Result<Received> {
    let response = request.send().await?;
    let (status, retry_after) = (response.status().as_u16(), retry_after(&response));
    Ok(Received { status, retry_after, body: response.bytes().await?.into() })
}

/// Returns the time after which an answer asks for the next try.
pub fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

pub(crate) async fn read(request: RequestBuilder, parse: impl FnOnce(Received) -> Answer) -> Answer {
    match receive(request).await {
        Ok(received) => parse(received),
        Err(error) => Answer::lost(&error),
    }
}
