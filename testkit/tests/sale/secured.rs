//! A sale on a cluster with passwords and TLS, from the deployed files. Every program has the permissions that it
//! needs, and no server refuses a command.

use futures::future::try_join_all;
use redis::{Value, cmd};
use stock::ids::ShardId;
use testkit::security::new_password;
use testkit::stack::Node;
use testkit::{BuyerAnswer, Buyers, Failover, Security, StackOptions, User, until};

use crate::fixture::{
    OpenSale, TIMEOUT, assert_all_definite, assert_repeats_recognized, metric, purchase_attempts, purchases,
    sale_options, tally, users_with_home,
};

async fn start_secured(total_stock: u64, coordinators: u16) -> OpenSale {
    let options = StackOptions {
        secured: true,
        coordinators,
        sale: sale_options(total_stock),
        ..StackOptions::default()
    };
    let sale = OpenSale::start_with(options).await;
    let spoken = if security(&sale).is_tls() { "TLS and users" } else { "users without TLS" };
    println!("{}: {spoken}", sale.stack.redis().version());
    sale
}

fn security(sale: &OpenSale) -> &Security {
    sale.stack.redis().security().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn secured_sale_triggers_no_acl_refusal() {
    // Given two coordinators, two nodes, and buyers of one home shard, so that most units are stolen.
    let sale = start_secured(600, 2).await;
    let users = users_with_home(&sale.sale, ShardId::new(5), 700);

    // When all users buy, a replica is promoted in between, and all users try again.
    let buying = sale.buy(&users[..350]);
    let replica = sale.stack.redis().replicas().await[0];
    let (mut answers, promoted) =
        tokio::join!(buying, sale.stack.redis().fail_over_to(replica, Failover::Agreed));
    promoted.unwrap();
    answers.extend(sale.buy(&users[350..]).await);
    answers.extend(sale.buy(&users).await);

    // Then everything is sold, the answers are true, and no server refused a command.
    assert_all_definite(&answers);
    assert_repeats_recognized(&answers);
    sale.assert_sold_out(&answers).await;
    assert_eq!(refusals(&sale).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn secured_cluster_replaces_a_dead_primary() {
    let sale = start_secured(2_000, 1).await;
    let users: Vec<String> = (0..2_400).map(|n| format!("buyer-{n:05}")).collect();
    let victim = sale.stack.redis().primaries().await[0];
    let successor = sale.stack.redis().replicas_of(victim).await[0];

    // When a primary dies during the sale and returns as a replica.
    let failover = async {
        wait_until_sold(&sale, 100).await;
        sale.stack.redis().kill(victim);
        sale.stack.redis().wait_until_promoted(successor).await.unwrap();
        sale.stack.redis().restart(victim).await.unwrap();
        sale.stack.redis().wait_until_whole().await.unwrap();
    };
    let (answers, ()) = tokio::join!(sale.buy(&users), failover);

    // Then every buyer has a definite answer, and the returned server replicates its successor, so its login worked.
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
    assert_eq!(sale.stack.redis().replicas_of(successor).await, [victim]);
    assert_eq!(refusals(&sale).await, Vec::<String>::new());
}

/// At a start, a server runs the commands of its own file as the default user, on Redis 7.0 with that user's
/// permissions. Without permissions it would lose every purchase.
#[tokio::test(flavor = "multi_thread")]
async fn secured_cluster_keeps_purchases_after_power_loss() {
    let sale = start_secured(400, 1).await;
    let users: Vec<String> = (0..300).map(|n| format!("buyer-{n:03}")).collect();
    let mut answers = sale.buy(&users).await;

    // When all servers die at once and restart with their data.
    let redis = sale.stack.redis();
    let servers: Vec<_> = redis.servers().await.iter().map(|server| server.addr).collect();
    servers.iter().for_each(|&server| redis.kill(server));
    try_join_all(servers.iter().map(|&server| redis.restart(server))).await.unwrap();
    redis.wait_until_whole().await.unwrap();

    // Then all purchases are there, and the remaining units are sold.
    let users: Vec<String> = (0..500).map(|n| format!("buyer-{n:03}")).collect();
    answers.extend(sale.buy(&users).await);
    assert_all_definite(&answers);
    assert_repeats_recognized(&answers);
    sale.assert_sold_out(&answers).await;
    assert_eq!(refusals(&sale).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn password_rotation_fails_no_purchase() {
    let sale = start_secured(100_000, 1).await;
    let (old, new) = (security(&sale).password(User::Node).unwrap(), new_password());

    // When, while buyers buy, the servers accept both passwords, the nodes restart one by one with the new one, and
    // the servers drop the old one.
    let rotation = async {
        on_all_servers(&sale, cmd("ACL").arg("SETUSER").arg("node").arg(format!(">{new}"))).await;
        security(&sale).set_password(User::Node, &new).unwrap();
        for node in sale.stack.nodes() {
            replace(&node).await;
        }
        on_all_servers(&sale, cmd("ACL").arg("SETUSER").arg("node").arg(format!("<{old}"))).await;
        on_all_servers(&sale, cmd("ACL").arg("SAVE")).await;
        // Connections that logged in with the old password must log in again.
        on_all_servers(&sale, cmd("CLIENT").arg("KILL").arg("USER").arg("node")).await;
        wait_until_sold(&sale, sale.stack.status().await.unwrap().sold() + 500).await;
    };
    let ((), answers) = Buyers::new(16).buy_during(&sale.stack.url(), rotation).await;

    // Then no purchase failed, and the old password is rejected.
    println!("{} purchases while the password was replaced", answers.len());
    assert!(answers.len() > 500, "too few purchases for a meaningful test");
    assert!(answers.iter().all(BuyerAnswer::is_purchased), "the answers are {:?}", tally(&answers));
    assert!(sale.stack.audit("flash").await.unwrap().ok);
    security(&sale).set_password(User::Node, &old).unwrap();
    let redis = sale.stack.redis();
    let late = redis.connection_as(User::Node, redis.primaries().await[0]).await;
    assert!(format!("{:#}", late.unwrap_err()).contains("AuthenticationFailed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinator_reloads_a_flushed_function_library() {
    let sale = start_secured(1_000, 1).await;
    let coordinator = sale.stack.coordinators()[0].clone();
    let buys = async |user: &str, node: &Node| {
        Buyers::new(1).buy(purchase_attempts([&user.to_owned()], node.url())).await.remove(0)
    };

    // Given functions that were deleted while no coordinator ran, and a node that starts afterwards.
    coordinator.process().kill();
    on_all_servers(&sale, cmd("FUNCTION").arg("FLUSH")).await;
    let program = testkit::binary("flashsale-node").unwrap();
    let late = sale.stack.start_separate_node(&program, &[]).await.unwrap();

    // Then nodes answer 503 and keep running.
    for node in [&late, &*sale.stack.nodes()[0]] {
        let answer = buys("ann", node).await;
        assert_eq!(answer.status, Some(503), "{answer:?}");
        assert!(node.process().is_running());
    }
    let log = std::fs::read_to_string(late.process().log()).unwrap();
    assert_eq!(log.matches("left to a coordinator").count(), 1, "{log}");

    // And they sell as soon as a coordinator runs.
    coordinator.restart().await.unwrap();
    let sells = async || buys("ann", &late).await.is_purchased();
    until("the library is back", TIMEOUT, sells).await.unwrap();
    on_all_servers(&sale, cmd("FUNCTION").arg("FLUSH")).await;
    let users: Vec<String> = (0..200).map(|n| format!("buyer-{n:03}")).collect();
    assert_eq!(purchases(&sale.buy(&users).await).len(), 200);
    let forbidden = refusals(&sale).await;
    assert!(forbidden.iter().all(|refusal| refusal == "node: function|load"), "{forbidden:?}");
}

async fn wait_until_sold(sale: &OpenSale, units: u64) {
    let sold = async || sale.stack.status().await.is_ok_and(|status| status.sold() >= units);
    until("buyers buy", TIMEOUT, sold).await.unwrap();
}

/// Stops a node gracefully, starts it again, and waits until nginx sends it buyers.
async fn replace(node: &Node) {
    node.process().term();
    let exit = node.process().wait(TIMEOUT).await.unwrap();
    assert_eq!(exit.code(), Some(0), "{}", node.process().log_tail());
    node.restart().await.unwrap();
    let purchases = "flashsale_purchases_total{sale=\"flash\",outcome=\"purchased\"}";
    until("nginx uses the node again", TIMEOUT, async || metric(node.ops_url(), purchases).await > 0)
        .await
        .unwrap();
}

/// Sends a command to every server as an operator.
async fn on_all_servers(sale: &OpenSale, command: &redis::Cmd) -> Vec<Value> {
    let redis = sale.stack.redis();
    let mut answers = Vec::new();
    for server in redis.servers().await {
        let mut connection = redis.connection(server.addr).await.unwrap();
        let answer = command.query_async(&mut connection).await;
        // Functions are deleted on primaries. Their replicas refuse the command and follow.
        answers.push(answer.unwrap_or(Value::Nil));
    }
    answers
}

/// The commands that servers have refused so far, with the user: `node: function|load`.
async fn refusals(sale: &OpenSale) -> Vec<String> {
    let logs = on_all_servers(sale, cmd("ACL").arg("LOG")).await;
    let entries = logs.into_iter().flat_map(|log| redis::from_redis_value::<Vec<Value>>(log).unwrap());
    let field = |entry: &[Value], name: &str| {
        let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).unwrap_or_default();
        entry.chunks(2).find(|pair| text(&pair[0]) == name).map(|pair| text(&pair[1])).unwrap()
    };
    let refusal = |entry: Value| {
        let entry: Vec<Value> = redis::from_redis_value(entry).unwrap();
        format!("{}: {}", field(&entry, "username"), field(&entry, "object"))
    };
    entries.map(refusal).collect()
}
