//! Start and stop of nodes: they start before Redis, refuse a standalone Redis, and stop without losing a request.

use std::time::Duration;

use rediscluster::{Cluster, ConnectOptions, slot_of_tag};
use reqwest::{Client, StatusCode};
use stock::functions::LIBRARY;
use stock::layout::SALES_KEY;
use testkit::{
    Buyers, ClusterOptions, Launch, RedisCluster, RedisServer, User, binary, ports::PortBlock, until,
};

use crate::fixture::{OpenSale, assert_all_definite, assert_purchases, buyers, purchase_attempts};

#[tokio::test(flavor = "multi_thread")]
async fn stopped_node_answers_pending_requests_first() {
    // Given buyers who buy through nginx and two nodes.
    let sale = OpenSale::start(20_000).await;
    let attempts = purchase_attempts(&buyers(0..16_000), &sale.stack.url());
    let buying = tokio::spawn(async move { Buyers::new(64).buy(attempts).await });

    // When one node is stopped in between.
    let node = sale.stack.nodes()[0].clone();
    let selling = async || sale.stack.status().await.unwrap().sold() > 0;
    until("the first purchases", Duration::from_secs(10), selling).await.unwrap();
    assert!(!buying.is_finished(), "all buyers were served before the node was stopped");
    node.process().term();

    // Then its readiness fails while it still serves, and it exits with code 0.
    let is_unready = async || {
        let ready = reqwest::get(format!("{}/readyz", node.ops_url())).await;
        ready.is_ok_and(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE)
    };
    until("readiness fails", Duration::from_secs(2), is_unready).await.unwrap();
    let exit = node.process().wait(Duration::from_secs(15)).await.unwrap();
    assert_eq!(exit.code(), Some(0), "{}", node.process().log_tail());

    // And every buyer has a definite answer.
    let answers = buying.await.unwrap();
    assert_all_definite(&answers);
    assert_purchases(&answers, 16_000);
}

/// Right after a restart of everything, a shop would otherwise answer that the sale does not exist.
#[tokio::test(flavor = "multi_thread")]
async fn sale_is_not_unknown_while_redis_is_silent() {
    // Given a node that does not know a sale, and frozen Redis servers.
    let sale = OpenSale::start(1).await;
    let redis = sale.stack.redis();
    let servers: Vec<_> = redis.servers().await.iter().map(|server| server.addr).collect();
    servers.iter().for_each(|&server| redis.freeze(server));
    let node = sale.stack.nodes()[0].clone();
    let status = async || {
        let answer = Client::new().get(format!("{}/api/sales/another/status", node.url())).send().await;
        answer.unwrap().status()
    };

    // Then a request for it is answered with 503, and with 404 once Redis answers.
    assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    servers.iter().for_each(|&server| redis.thaw(server));
    let unknown = async || status().await == StatusCode::NOT_FOUND;
    until("the sale is known not to exist", Duration::from_secs(20), unknown).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn node_waits_for_the_cluster_and_logs_it() {
    // Given a node that was started before Redis.
    let folder = testkit::Folder::temporary().unwrap();
    let block = PortBlock::take().unwrap();
    let (port, ops_port, redis) = (block.first(), block.first() + 1, PortBlock::take().unwrap());
    let ports = testkit::ClusterPorts { clients: redis.first(), bus: redis.first() + 6 };
    let node = Launch::new("node", binary("flashsale-node").unwrap(), folder.path())
        .env("HOST", "127.0.0.1")
        .env("PORT", port)
        .env("OPS_PORT", ops_port)
        .env("AUTH", "none")
        .env("REDIS_URL", format!("redis://127.0.0.1:{}", redis.first()))
        .spawn()
        .unwrap();
    let get = async |path: &str| {
        let answer = Client::new().get(format!("http://127.0.0.1:{ops_port}{path}")).send().await;
        answer.ok().map(|answer| answer.status())
    };

    // Then it is alive and not ready, and its log contains the reason.
    let limit = Duration::from_secs(10);
    until("the node is alive", limit, async || get("/healthz").await == Some(StatusCode::OK)).await.unwrap();
    assert_eq!(get("/readyz").await, Some(StatusCode::SERVICE_UNAVAILABLE));
    let logged = async || node.log_tail().contains("no node of the cluster answers");
    until("the log contains the reason", limit, logged).await.unwrap();

    // And when Redis starts and has a list of sales, the node becomes ready.
    let options = ClusterOptions { ports: Some(ports), ..ClusterOptions::default() };
    let cluster = RedisCluster::start(options).await.unwrap();
    create_sale_list(&cluster).await;
    until("the node is ready", limit, async || get("/readyz").await == Some(StatusCode::OK)).await.unwrap();
    let warnings = std::fs::read_to_string(node.log()).unwrap();
    let repeated = warnings.matches("no node of the cluster answers").count();
    assert!(repeated <= 5, "the log repeats it {repeated} times");
    node.term();
    assert_eq!(node.wait(limit).await.unwrap().code(), Some(0));
}

/// Creates a list without any sale, as the first coordinator does.
async fn create_sale_list(cluster: &RedisCluster) {
    let seeds = cluster.logins(User::Admin).unwrap();
    let cluster = Cluster::connect(ConnectOptions::new(seeds), &LIBRARY).await.unwrap();
    let owner = cluster.topology().primary(slot_of_tag(SALES_KEY)).unwrap().address.to_string();
    let client = redis::Client::open(format!("redis://{owner}")).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("SADD").arg(SALES_KEY).arg("").exec_async(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn standalone_redis_is_refused_with_a_message() {
    let server = RedisServer::start().await.unwrap();
    let folder = testkit::Folder::temporary().unwrap();
    let block = PortBlock::take().unwrap();
    for program in ["flashsale-node", "flashsale-coordinator"] {
        let process = Launch::new(program, binary(program).unwrap(), folder.path())
            .env("HOST", "127.0.0.1")
            .env("PORT", block.first())
            .env("OPS_PORT", block.first() + 1)
            .env("ADMIN_TOKEN", "0123456789abcdef0123456789abcdef")
            .env("AUTH", "none")
            .env("REDIS_URL", server.url())
            .spawn()
            .unwrap();
        let exit = process.wait(Duration::from_secs(10)).await.unwrap();
        assert_eq!(exit.code(), Some(64), "{program}: {}", process.log_tail());
        assert!(process.log_tail().contains("is not a Redis Cluster"), "{program}: {}", process.log_tail());
    }
}
