//! A sale on a cluster that the scripts made: one coordinator and one node, each as the user that it is deployed as.

use std::collections::BTreeMap;

use testkit::{
    BuyerAnswer, Buyers, Launch, Process, binary, ports::loopback, security::new_password, stack::AuditReport,
};

use crate::stage::{RedisFixture, SOON};

/// Behind the ports of the servers and of their bus.
const PORTS_FROM: u16 = 50;

/// A sale that is open; it ends with its processes.
pub(crate) struct Sale {
    node: Process,
    coordinator: Process,
    node_port: u16,
    coordinator_port: u16,
    admin_token: String,
}

impl Sale {
    /// Opens it on a cluster of three pairs, with four shards a pair.
    pub(crate) async fn open(place: &RedisFixture, total_stock: u32) -> Self {
        let first = place.ports.first() + PORTS_FROM;
        let (node_port, ops_port, coordinator_port) = (first, first + 1, first + 2);
        let admin_token = new_password();
        let coordinator = launch(place, "coordinator", coordinator_port)
            .env("ADMIN_TOKEN", &admin_token)
            .env("TOTAL_STOCK", total_stock)
            .env("SHARDS", 12)
            .env("SALE_START_TIME", "0s")
            .env("SALE_END_TIME", "1h")
            .spawn()
            .unwrap();
        until_ready(&coordinator, coordinator_port).await;
        let node = launch(place, "node", node_port)
            .env("OPS_PORT", ops_port)
            .env("RATE_LIMIT_EXEMPT", "127.0.0.0/8")
            .spawn()
            .unwrap();
        until_ready(&node, ops_port).await;
        let sale = Self { node, coordinator, node_port, coordinator_port, admin_token };
        sale.until_open().await;
        sale
    }

    /// New users buy, each once, until `event` is over: all of them must get what they came for.
    pub(crate) async fn sells_during<T>(&self, what: &str, event: impl Future<Output = T>) -> T {
        let (outcome, answers) = Buyers::new(16).buy_during(&self.url(), event).await;
        let latency = |answer: &BuyerAnswer| answer.latency;
        let longest = answers.iter().map(latency).max().expect("somebody bought");
        println!("{what}: {} purchases, the longest of {longest:.0?}", answers.len());
        let others: Vec<&BuyerAnswer> = answers.iter().filter(|answer| !answer.is_purchased()).collect();
        assert!(others.is_empty(), "{what}: buyers were told {:?}{}", tally(&others), self.node.log_tail());
        outcome
    }

    /// All books agree.
    pub(crate) async fn assert_audit_is_clean(&self) -> AuditReport {
        let url = format!("http://{}/admin/sales/flash/audit", loopback(self.coordinator_port));
        let audit = reqwest::Client::new().get(url).bearer_auth(&self.admin_token).send().await.unwrap();
        let audit: AuditReport = audit.json().await.unwrap();
        assert!(audit.ok, "the audit found {:?}{}", audit.violations, self.coordinator.log_tail());
        audit
    }

    fn url(&self) -> String {
        format!("http://{}", loopback(self.node_port))
    }

    async fn until_open(&self) {
        let url = format!("{}/api/sale/status", self.url());
        let open = async || match reqwest::get(&url).await {
            Ok(answer) => answer.text().await.is_ok_and(|status| status.contains("\"active\"")),
            Err(_) => false,
        };
        testkit::until("an open sale", SOON, open).await.unwrap();
    }
}

/// A program as it is deployed: with a seed, its own user, and whom to trust.
fn launch(place: &RedisFixture, user: &str, port: u16) -> Launch {
    let scheme = if place.is_tls() { "rediss" } else { "redis" };
    let seeds = [0, 2, 4].map(|number| format!("{scheme}://localhost:{}", place.port(number)));
    let program = binary(&format!("flashsale-{user}")).unwrap();
    let launch = Launch::new(user, program, place.folder.path())
        .env("HOST", "127.0.0.1")
        .env("PORT", port)
        .env("SALE_ID", "flash")
        .env("REDIS_URL", seeds.join(","))
        .env("REDIS_USERNAME", user)
        .env("REDIS_PASSWORD_FILE", place.passwords().join(user).display());
    let ca = place.is_tls().then(|| place.certificates().join("ca.crt"));
    ca.into_iter().fold(launch, |launch, ca| launch.env("REDIS_CA_FILE", ca.display()))
}

async fn until_ready(process: &Process, port: u16) {
    let url = format!("http://{}/readyz", loopback(port));
    let ready = async || Ok(reqwest::get(&url).await?.error_for_status().map(drop)?);
    process.wait_until_ready(SOON, ready).await.unwrap();
}

/// How often each other answer was given, for a person who reads a failure.
fn tally(answers: &[&BuyerAnswer]) -> BTreeMap<String, usize> {
    answers.iter().fold(BTreeMap::new(), |mut tally, answer| {
        *tally.entry(format!("{:?} {:?}", answer.status, answer.reason)).or_default() += 1;
        tally
    })
}
