//! A sale behind passwords and TLS, by the files that are deployed: whoever takes part may do all that it has to, and
//! nothing that a server would have had to refuse.

use std::time::Duration;

use futures::future::try_join_all;
use redis::{Value, cmd};
use stock::ids::ShardId;
use testkit::security::new_password;
use testkit::stack::Node;
use testkit::{BuyerAnswer, Buyers, Failover, Security, StackOptions, User, until};

use crate::actors::{
    OpenSale, assert_all_definite, assert_repeats_recognised, purchases, sale_of, tally, users_at_home_in,
    wishes,
};

/// Whatever has to happen happens by then, on a busy machine too.
const SOON: Duration = Duration::from_secs(40);

/// How long nginx sends nothing to a node that refused a connection (`fail_timeout`), and some more.
const NODE_IS_LEFT_OUT: Duration = Duration::from_millis(1_500);

async fn secured(total_stock: u64, coordinators: u16) -> OpenSale {
    let options =
        StackOptions { secured: true, coordinators, sale: sale_of(total_stock), ..StackOptions::default() };
    let sale = OpenSale::with(options).await;
    let spoken = if security(&sale).is_tls() { "TLS and users" } else { "users alone: it has no TLS" };
    println!("{}: {spoken}", sale.stack.redis().version());
    sale
}

fn security(sale: &OpenSale) -> &Security {
    sale.stack.redis().security().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_sale_meets_nothing_that_is_forbidden() {
    // Given two coordinators and two nodes, and a crowd that is at home in one shard, so that most units are stolen.
    let sale = secured(600, 2).await;
    let users = users_at_home_in(&sale.sale, ShardId::new(5), 700);

    // When everybody buys, a replica is promoted on the way, and everybody asks again.
    let buying = buy(&sale, &users[..350]);
    let replica = sale.stack.redis().replicas().await[0];
    let (mut answers, promoted) =
        tokio::join!(buying, sale.stack.redis().fail_over_to(replica, Failover::Agreed));
    promoted.unwrap();
    answers.extend(buy(&sale, &users[350..]).await);
    answers.extend(buy(&sale, &users).await);

    // Then all is sold, what buyers were told is true, and no server had to refuse anything.
    assert_all_definite(&answers);
    assert_repeats_recognised(&answers);
    sale.assert_sold_out(&answers).await;
    assert_eq!(refusals(&sale).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_primary_is_replaced_behind_the_same_doors() {
    let sale = secured(2_000, 1).await;
    let users: Vec<String> = (0..2_400).map(|n| format!("buyer-{n:05}")).collect();
    let victim = sale.stack.redis().primaries().await[0];
    let successor = sale.stack.redis().replicas_of(victim).await[0];

    // When a primary dies in the middle of it, and comes back as a replica.
    let killing = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        sale.stack.redis().kill(victim);
        sale.stack.redis().wait_until_promoted(successor).await.unwrap();
        sale.stack.redis().restart(victim).await.unwrap();
        sale.stack.redis().wait_until_whole().await.unwrap();
    };
    let (answers, ()) = tokio::join!(buy(&sale, &users), killing);

    // Then everybody has an answer, and the returned one copies its successor: it logged in.
    assert_all_definite(&answers);
    sale.assert_sold_out(&answers).await;
    assert_eq!(sale.stack.redis().replicas_of(successor).await, [victim]);
    assert_eq!(refusals(&sale).await, Vec::<String>::new());
}

/// What a server reads from its own file at a start it runs as the default user, on Redis 7.0 by that user's permissions:
/// one that may do nothing would forget every purchase.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_lost_power_remembers_every_purchase() {
    let sale = secured(400, 1).await;
    let users: Vec<String> = (0..300).map(|n| format!("buyer-{n:03}")).collect();
    let mut answers = buy(&sale, &users).await;

    // When all servers die at once, and come back over what they wrote.
    let redis = sale.stack.redis();
    let servers: Vec<_> = redis.servers().await.iter().map(|server| server.addr).collect();
    servers.iter().for_each(|&server| redis.kill(server));
    try_join_all(servers.iter().map(|&server| redis.restart(server))).await.unwrap();
    redis.wait_until_whole().await.unwrap();

    // Then the books are as they were, and the rest is sold.
    let users: Vec<String> = (0..500).map(|n| format!("buyer-{n:03}")).collect();
    answers.extend(buy(&sale, &users).await);
    assert_all_definite(&answers);
    assert_repeats_recognised(&answers);
    sale.assert_sold_out(&answers).await;
    assert_eq!(refusals(&sale).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_replaced_without_a_failed_purchase() {
    let sale = secured(100_000, 1).await;
    let (old, new) = (security(&sale).password(User::Node).unwrap(), new_password());

    // When, while a crowd buys, servers take either password, nodes start with the new one, one by one, and servers
    // forget the old one.
    let replacing = async {
        everywhere(&sale, cmd("ACL").arg("SETUSER").arg("node").arg(format!(">{new}"))).await;
        security(&sale).set_password(User::Node, &new).unwrap();
        for node in sale.stack.nodes() {
            replace(&node).await;
        }
        everywhere(&sale, cmd("ACL").arg("SETUSER").arg("node").arg(format!("<{old}"))).await;
        everywhere(&sale, cmd("ACL").arg("SAVE")).await;
        // Whoever still held a connection by the old one has to log in again.
        everywhere(&sale, cmd("CLIENT").arg("KILL").arg("USER").arg("node")).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let ((), answers) = Buyers::new(16).buy_during(&sale.stack.url(), replacing).await;

    // Then nobody noticed, and the old password opens nothing.
    println!("{} purchases while the password was replaced", answers.len());
    assert!(answers.len() > 500, "the crowd was hardly there");
    assert!(answers.iter().all(BuyerAnswer::is_purchased), "buyers were told {:?}", tally(&answers));
    assert!(sale.stack.audit("flash").await.unwrap().ok);
    security(&sale).set_password(User::Node, &old).unwrap();
    let redis = sale.stack.redis();
    let late = redis.connection_as(User::Node, redis.primaries().await[0]).await;
    assert!(format!("{:#}", late.unwrap_err()).contains("AuthenticationFailed"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_library_that_nodes_may_not_load_comes_back_by_a_coordinator() {
    let sale = secured(1_000, 1).await;
    let coordinator = sale.stack.coordinators()[0].clone();
    let buys = async |user: &str, node: &Node| {
        Buyers::new(1).buy(wishes([&user.to_owned()], node.url())).await.remove(0)
    };

    // Given functions that somebody threw away while no coordinator was there, and a node that starts only now.
    coordinator.process().kill();
    everywhere(&sale, cmd("FUNCTION").arg("FLUSH")).await;
    let program = testkit::binary("flashsale-node").unwrap();
    let late = sale.stack.start_separate_node(&program, &[]).await.unwrap();

    // Then nodes say that nothing was bought, and when to come again; they live on.
    for node in [&late, &*sale.stack.nodes()[0]] {
        let answer = buys("ann", node).await;
        assert_eq!(answer.status, Some(503), "{answer:?}");
        assert!(node.process().is_running());
    }
    let log = std::fs::read_to_string(late.process().log()).unwrap();
    assert_eq!(log.matches("left to a coordinator").count(), 1, "{log}");

    // And they sell as soon as there is a coordinator.
    coordinator.restart().await.unwrap();
    let sells = async || buys("ann", &late).await.is_purchased();
    until("the library is back", SOON, sells).await.unwrap();
    everywhere(&sale, cmd("FUNCTION").arg("FLUSH")).await;
    let users: Vec<String> = (0..200).map(|n| format!("buyer-{n:03}")).collect();
    assert_eq!(purchases(&buy(&sale, &users).await).len(), 200);
    let forbidden = refusals(&sale).await;
    assert!(forbidden.iter().all(|refusal| refusal == "node: function|load"), "{forbidden:?}");
}

async fn buy(sale: &OpenSale, users: &[String]) -> Vec<BuyerAnswer> {
    Buyers::new(64).buy_persistently(wishes(users, &sale.stack.url()), SOON).await
}

/// One node in good order, then the same again.
async fn replace(node: &Node) {
    node.process().term();
    let exit = node.process().wait(SOON).await.unwrap();
    assert_eq!(exit.code(), Some(0), "{}", node.process().log_tail());
    node.restart().await.unwrap();
    tokio::time::sleep(NODE_IS_LEFT_OUT).await;
}

/// Asks every server, as the one who may do all.
async fn everywhere(sale: &OpenSale, command: &redis::Cmd) -> Vec<Value> {
    let redis = sale.stack.redis();
    let mut answers = Vec::new();
    for server in redis.servers().await {
        let mut connection = redis.connection(server.addr).await.unwrap();
        let answer = command.query_async(&mut connection).await;
        // Functions are thrown away on primaries, and are gone on their replicas.
        answers.push(answer.unwrap_or(Value::Nil));
    }
    answers
}

/// What servers refused so far, and to whom: `node: function|load`.
async fn refusals(sale: &OpenSale) -> Vec<String> {
    let logs = everywhere(sale, cmd("ACL").arg("LOG")).await;
    let entries = logs.into_iter().flat_map(|log| redis::from_redis_value::<Vec<Value>>(log).unwrap());
    let field = |entry: &[Value], name: &str| {
        let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).unwrap_or_default();
        entry.chunks(2).find(|pair| text(&pair[0]) == name).map(|pair| text(&pair[1])).unwrap()
    };
    let told = |entry: Value| {
        let entry: Vec<Value> = redis::from_redis_value(entry).unwrap();
        format!("{}: {}", field(&entry, "username"), field(&entry, "object"))
    };
    entries.map(told).collect()
}
