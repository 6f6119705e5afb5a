//! A sale on a cluster that the command created: one coordinator and one node, each with its own Redis user.

use buyers::{AdminClient, AuditReport, BuyerClient};
use testkit::{BuyerAnswer, Buyers, Launch, Process, binary, ports::loopback, security::new_password, tally};

use crate::fixture::{RedisFixture, TIME_LIMIT};

/// Offset of the programs' ports. The ports before it belong to the servers and their bus.
const PORTS_FROM: u16 = 50;

/// An open sale. It ends with its processes.
pub(crate) struct Sale {
    node: Process,
    coordinator: Process,
    node_port: u16,
    coordinator_port: u16,
    admin_token: String,
}

impl Sale {
    /// Opens a sale on a cluster of three pairs, with four shards per pair.
    pub(crate) async fn open(fixture: &RedisFixture, total_stock: u32) -> Self {
        let first = fixture.ports.first() + PORTS_FROM;
        let (node_port, ops_port, coordinator_port) = (first, first + 1, first + 2);
        let admin_token = new_password();
        let coordinator = launch(fixture, "coordinator", coordinator_port)
            .env("ADMIN_TOKEN", &admin_token)
            .env("TOTAL_STOCK", total_stock)
            .env("SHARDS", 12)
            .env("SALE_START_TIME", "0s")
            .env("SALE_END_TIME", "1h")
            .spawn()
            .unwrap();
        until_ready(&coordinator, coordinator_port).await;
        let node = launch(fixture, "node", node_port)
            .env("OPS_PORT", ops_port)
            .env("RATE_LIMIT_EXEMPT", "127.0.0.0/8")
            .spawn()
            .unwrap();
        until_ready(&node, ops_port).await;
        let sale = Self { node, coordinator, node_port, coordinator_port, admin_token };
        sale.until_open().await;
        sale
    }

    /// New users buy, each once, until `event` is over. Every purchase must succeed.
    pub(crate) async fn sells_during<T>(&self, what: &str, event: impl Future<Output = T>) -> T {
        let (outcome, answers) = Buyers::new(16).buy_during(&self.url(), event).await;
        let latency = |answer: &BuyerAnswer| answer.latency;
        let longest = answers.iter().map(latency).max().expect("at least one purchase");
        println!("{what}: {} purchases, the longest took {longest:.0?}", answers.len());
        let all_bought = answers.iter().all(BuyerAnswer::is_purchased);
        assert!(all_bought, "{what}: buyers got {:?}{}", tally(&answers), self.node.log_tail());
        outcome
    }

    /// New users buy until `event` is over. Returns true if every purchase succeeds.
    pub(crate) async fn sells_to_all<T>(&self, event: impl Future<Output = T>) -> bool {
        let (_, answers) = Buyers::new(4).buy_during(&self.url(), event).await;
        answers.iter().all(BuyerAnswer::is_purchased)
    }

    /// Asserts that the audit finds no violation.
    pub(crate) async fn assert_audit_is_clean(&self) -> AuditReport {
        let coordinator = format!("http://{}", loopback(self.coordinator_port));
        let audit = AdminClient::new(&self.admin_token).audit(&coordinator, "flash").await.unwrap();
        assert!(audit.ok, "the audit found {:?}{}", audit.violations, self.coordinator.log_tail());
        audit
    }

    fn url(&self) -> String {
        format!("http://{}", loopback(self.node_port))
    }

    async fn until_open(&self) {
        let client = BuyerClient::new(TIME_LIMIT);
        let status = async || client.sale_status(&self.url()).await;
        let open = async || status().await.is_ok_and(|status| status.status == "active");
        testkit::until("an open sale", TIME_LIMIT, open).await.unwrap();
    }
}

/// Launches a program as it is deployed: with seeds, its own user, and the CA.
fn launch(fixture: &RedisFixture, user: &str, port: u16) -> Launch {
    let scheme = if fixture.is_tls() { "rediss" } else { "redis" };
    let seeds = [0, 2, 4].map(|number| format!("{scheme}://localhost:{}", fixture.port(number)));
    let program = binary(&format!("flashsale-{user}")).unwrap();
    let launch = Launch::new(user, program, fixture.folder.path())
        .env("HOST", "127.0.0.1")
        .env("PORT", port)
        .env("SALE_ID", "flash")
        .env("AUTH", "none")
        .env("REDIS_URL", seeds.join(","))
        .env("REDIS_USERNAME", user)
        .env("REDIS_PASSWORD_FILE", fixture.passwords().join(user).display());
    let ca = fixture.is_tls().then(|| fixture.certificates().join("ca.crt"));
    ca.into_iter().fold(launch, |launch, ca| launch.env("REDIS_CA_FILE", ca.display()))
}

async fn until_ready(process: &Process, port: u16) {
    let url = format!("http://{}/readyz", loopback(port));
    let ready = async || Ok(reqwest::get(&url).await?.error_for_status().map(drop)?);
    process.wait_until_ready(TIME_LIMIT, ready).await.unwrap();
}
