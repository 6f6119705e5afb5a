//! Dashboards and rules in front of a running system: a panel that asks for nothing that is there shows nothing, and
//! Prometheus does not say so.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use dashboards::{Query, Variables, queries};
use reqwest::{Client, Url};
use serde_json::Value;
use testkit::{OpenLoop, Stack, StackOptions, stack::SaleOptions};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Enough for a node to be busy, and little enough for two cores that do more than this.
const BUYERS_PER_SECOND: u32 = 60;
/// Longer than Prometheus needs for two scrapes and a few evaluations of each rule, on a machine that builds beside it.
const PATIENCE: Duration = Duration::from_secs(90);
/// From one look at the panels that are empty yet to the next.
const LOOK_PERIOD: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_shows_something_of_a_system_that_sells_and_nothing_alarms() -> Result<()> {
    // Given a system that is watched, with somebody who listens to its events.
    let stack = Stack::start(watched(), |_| ()).await?;
    let prometheus = Prometheus::of(&stack)?;
    let _listener = reqwest::get(format!("{}/api/sale/events", stack.url())).await?;

    // When buyers come.
    let buyers = buyers_for(PATIENCE, &stack)?;

    // Then every query of every panel has an answer.
    let mut empty = queries(&Variables::live())?;
    ensure!(!empty.is_empty(), "there are no panels");
    let deadline = Instant::now() + PATIENCE;
    while !empty.is_empty() && Instant::now() < deadline {
        sleep(LOOK_PERIOD).await;
        empty = prometheus.still_empty(empty).await?;
    }
    let titles: Vec<String> =
        empty.iter().map(|query| format!("{} / {}: {}", query.dashboard, query.panel, query.expr)).collect();
    assert!(titles.is_empty(), "panels that show nothing:\n{}", titles.join("\n"));

    // And every rule can be evaluated, and none wakes anybody.
    assert_eq!(prometheus.broken_rules().await?, Vec::<String>::new());
    assert_eq!(prometheus.firing().await?, Vec::<String>::new(), "alerts of a system that is well");
    buyers.abort();
    let audit = stack.audit("flash").await?;
    assert!(audit.ok && audit.sold > 0, "{audit:?}");
    stack.stop().await
}

fn watched() -> StackOptions {
    let sale = SaleOptions { total_stock: 1_000_000, ..SaleOptions::default() };
    StackOptions { observed: true, sale, ..StackOptions::default() }
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
            panic!("the buyers did not come: {error:#}");
        }
    }))
}

/// Prometheus, to be asked.
struct Prometheus {
    url: Url,
    client: Client,
}

impl Prometheus {
    fn of(stack: &Stack) -> Result<Self> {
        let monitoring = stack.monitoring().context("nothing watches")?;
        Ok(Self { url: monitoring.url().parse()?, client: Client::new() })
    }

    /// Those of the queries that have no answer yet.
    async fn still_empty(&self, queries: Vec<Query>) -> Result<Vec<Query>> {
        let mut empty = Vec::new();
        for query in queries {
            let samples = self.ask(&query.expr).await;
            if samples.with_context(|| format!("{} / {}", query.dashboard, query.panel))?.is_empty() {
                empty.push(query);
            }
        }
        Ok(empty)
    }

    /// The samples that answer a query. What is not a number says as little as nothing.
    async fn ask(&self, expr: &str) -> Result<Vec<Value>> {
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
        let firing = self.ask(r#"ALERTS{alertstate="firing"}"#).await?;
        Ok(firing.iter().map(|alert| alert["metric"].to_string()).collect())
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let mut url = self.url.join(path)?;
        url.query_pairs_mut().extend_pairs(parameters);
        let mut answer: Value = self.client.get(url).send().await?.json().await?;
        ensure!(answer["status"] == "success", "Prometheus says {}", answer["error"]);
        Ok(answer["data"].take())
    }
}
