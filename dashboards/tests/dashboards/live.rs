//! Dashboards and rules against a running system. A panel whose query matches nothing stays empty, and Prometheus
//! reports no error.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, Url};
use serde_json::Value;
use testkit::{OpenLoop, Stack, StackOptions, stack::SaleOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::queries::{Query, Variables, queries};

/// Enough to keep a node busy, but few enough for two cores that run everything else as well.
const BUYERS_PER_SECOND: u32 = 60;
/// Longer than Prometheus needs for two scrapes and a few evaluations of each rule, on a machine that builds at the
/// same time.
const TIME_LIMIT: Duration = Duration::from_secs(90);
/// Interval between two checks of the panels that are still empty.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn panels_have_data_and_no_alert_fires() -> Result<()> {
    // Given a monitored system with a listener of its events, and a receiver of its orders.
    let stack = Stack::start(monitored(receiver_of_orders().await?), |_| ()).await?;
    let prometheus = Prometheus::of(&stack)?;
    let _listener = reqwest::get(format!("{}/api/sale/events", stack.url())).await?;

    // When buyers arrive.
    let buyers = buyers_for(TIME_LIMIT, &stack)?;

    // Then every query of every panel has a result.
    let mut empty = queries(&Variables::live());
    ensure!(!empty.is_empty(), "no panels");
    let deadline = Instant::now() + TIME_LIMIT;
    while !empty.is_empty() && Instant::now() < deadline {
        sleep(CHECK_INTERVAL).await;
        empty = prometheus.still_empty(empty).await?;
    }
    let titles: Vec<String> = empty.iter().map(|query| format!("{}: {}", query.panel, query.expr)).collect();
    assert!(titles.is_empty(), "panels without data:\n{}", titles.join("\n"));

    // And every rule can be evaluated, and no alert fires.
    assert_eq!(prometheus.broken_rules().await?, Vec::<String>::new());
    assert_eq!(prometheus.firing().await?, Vec::<String>::new(), "alerts of a healthy system");
    buyers.abort();
    let audit = stack.audit("flash").await?;
    assert!(audit.ok && audit.sold > 0, "{audit:?}");
    stack.stop().await
}

fn monitored(receiver: SocketAddr) -> StackOptions {
    let sale = SaleOptions { total_stock: 1_000_000, ..SaleOptions::default() };
    let webhook = [
        ("WEBHOOK_URL", format!("http://{receiver}/")),
        ("WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()),
    ];
    let ledger_environment = webhook.map(|(name, value)| (name.to_owned(), value)).into();
    StackOptions { observed: true, ledgers: 1, sale, ledger_environment, ..StackOptions::default() }
}

/// Starts an endpoint that accepts each order.
async fn receiver_of_orders() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                // A delivery is far smaller than the buffer, and arrives in one piece on this machine.
                let mut request = [0; 16 * 1024];
                if connection.read(&mut request).await.is_ok_and(|bytes| bytes > 0) {
                    let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                    connection.write_all(answer).await.ok();
                }
            });
        }
    });
    Ok(address)
}

fn buyers_for(duration: Duration, stack: &Stack) -> Result<JoinHandle<()>> {
    let host = stack.url().trim_start_matches("http://").to_owned();
    let crowd = OpenLoop {
        addr: host.parse()?,
        host,
        path: "/api/sale/purchase".into(),
        users: "live".into(),
        rate: BUYERS_PER_SECOND,
        duration,
        connections: 16,
    };
    Ok(tokio::spawn(async move {
        if let Err(error) = crowd.run().await {
            panic!("the buyers failed: {error:#}");
        }
    }))
}

/// A client for Prometheus.
struct Prometheus {
    url: Url,
    client: Client,
}

impl Prometheus {
    fn of(stack: &Stack) -> Result<Self> {
        let monitoring = stack.monitoring().context("the stack has no monitoring")?;
        Ok(Self { url: monitoring.url().parse()?, client: Client::new() })
    }

    /// Returns the queries without a result.
    async fn still_empty(&self, queries: Vec<Query>) -> Result<Vec<Query>> {
        let mut empty = Vec::new();
        for query in queries {
            if self.query(&query.expr).await.with_context(|| query.panel.clone())?.is_empty() {
                empty.push(query);
            }
        }
        Ok(empty)
    }

    /// Returns the samples of a query. NaN counts as no result.
    async fn query(&self, expr: &str) -> Result<Vec<Value>> {
        let data = self.get("api/v1/query", &[("query", expr)]).await.with_context(|| expr.to_owned())?;
        let samples = data["result"].as_array().cloned().context("an answer without a result")?;
        Ok(samples.into_iter().filter(|sample| sample["value"][1] != "NaN").collect())
    }

    async fn broken_rules(&self) -> Result<Vec<String>> {
        let data = self.get("api/v1/rules", &[]).await?;
        let under = |value: &Value, key| value[key].as_array().cloned().unwrap_or_default();
        let rules = under(&data, "groups").into_iter().flat_map(|group| under(&group, "rules"));
        let broken = rules.filter(|rule| rule["health"] != "ok");
        Ok(broken.map(|rule| format!("{}: {}", rule["name"], rule["lastError"])).collect())
    }

    async fn firing(&self) -> Result<Vec<String>> {
        let firing = self.query(r#"ALERTS{alertstate="firing"}"#).await?;
        Ok(firing.iter().map(|alert| alert["metric"].to_string()).collect())
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut url = self.url.join(path)?;
        url.query_pairs_mut().extend_pairs(parameters);
        let mut answer: Value = self.client.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "Prometheus answered {}", answer["error"]);
        Ok(answer["data"].take())
    }
}
