//! The limit of the units that one client network may buy, on two nodes and with the deployed users of Redis.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use testkit::stack::SaleOptions;
use testkit::{Stack, StackOptions, binary, until};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fixture::STACK_LOCK;

const LIMIT: usize = 5;
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Client addresses count: loopback is a proxy and not exempt.
fn environment() -> Vec<(String, String)> {
    [("UNITS_PER_NETWORK_MAX", LIMIT.to_string()), ("RATE_LIMIT_EXEMPT", "192.0.2.0/24".into())]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
}

#[tokio::test(flavor = "multi_thread")]
async fn network_buys_at_most_its_units() {
    let _stack_lock = STACK_LOCK.lock().await;
    let options = StackOptions {
        secured: true,
        sale: SaleOptions { total_stock: 1_000, ..SaleOptions::default() },
        node_environment: environment(),
        ..StackOptions::default()
    };
    let stack = Stack::start(options, |_| ()).await.unwrap();
    let nodes: Vec<String> = stack.nodes().iter().map(|node| node.url().to_owned()).collect();

    // When one address buys for many users, at both nodes at once, and so do many addresses of one /48.
    let of_address = (0..40).map(|user| ("198.51.100.7".to_owned(), format!("address-{user}")));
    let of_48 = (0..200).map(|user| (format!("2001:db8:1:{:x}::7", 64 * user), format!("network-{user}")));
    let honest = (0..20).map(|user| (format!("203.0.113.{user}"), format!("honest-{user}")));
    let exempt = (0..20).map(|user| ("192.0.2.1".to_owned(), format!("exempt-{user}")));
    let buyers = of_address.chain(of_48).chain(honest).chain(exempt);
    let answers = buy_all(&nodes, "flash", buyers).await;

    // Then each has its units, and the others buy on.
    let units = |kind: &str| {
        answers.iter().filter(|(user, (status, _))| user.starts_with(kind) && *status == 200).count()
    };
    let [address, network, honest, exempt] = ["address", "network", "honest", "exempt"].map(units);
    println!(
        "units: {address} of an address, {network} of a /48, {honest} of 20 honest, {exempt} of 20 exempt buyers"
    );
    assert_eq!((address, network, honest, exempt), (LIMIT, 16 * LIMIT, 20, 20));
    let refused = answers.values().filter(|(status, _)| *status != 200);
    for (status, body) in refused {
        assert_eq!((*status, body["type"].as_str()), (403, Some("/problems/network-full")), "{body}");
    }

    // A buyer who has a unit gets the same answers as before, at both nodes.
    let (buyer, (_, bought)) =
        answers.iter().find(|(user, (status, _))| user.starts_with("address") && *status == 200).unwrap();
    for node in &nodes {
        let (status, body) = buy(node, "flash", "198.51.100.7", buyer, buyer).await;
        assert_eq!((status, &body["orderId"]), (200, &bought["orderId"]), "{body}");
        let (status, body) = buy(node, "flash", "198.51.100.7", buyer, "another-attempt").await;
        assert_eq!((status, &body["orderId"]), (409, &bought["orderId"]), "{body}");
    }

    // So does a buyer of another network who comes from the full one.
    let (_, bought) = &answers["honest-1"];
    let (status, body) = buy(&nodes[0], "flash", "198.51.100.7", "honest-1", "honest-1").await;
    assert_eq!((status, &body["orderId"]), (200, &bought["orderId"]), "{body}");
    let (status, body) = buy(&nodes[1], "flash", "198.51.100.7", "honest-1", "another-attempt").await;
    assert_eq!((status, &body["orderId"]), (409, &bought["orderId"]), "{body}");

    // A node without the limit sells to all of them.
    let off = [("UNITS_PER_NETWORK_MAX".to_owned(), "0".to_owned())];
    let unlimited = stack.start_separate_node(&binary("flashsale-node").unwrap(), &off).await.unwrap();
    let buyers = (0..40).map(|user| ("198.51.100.7".to_owned(), format!("unlimited-{user}")));
    let answers = buy_all(&[unlimited.url().to_owned()], "flash", buyers).await;
    let sold = answers.values().filter(|(status, _)| *status == 200).count();
    println!("without the limit: {sold} units of 40 buyers behind one address");
    assert_eq!(sold, 40);
    let audit = stack.audit("flash").await.unwrap();
    assert!(audit.ok, "{audit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn buyer_without_a_unit_gives_the_place_back() {
    let _stack_lock = STACK_LOCK.lock().await;
    let options = StackOptions { secured: true, node_environment: environment(), ..StackOptions::default() };
    let stack = Stack::start(options, |_| ()).await.unwrap();
    let nodes: Vec<String> = stack.nodes().iter().map(|node| node.url().to_owned()).collect();
    let coordinator = stack.coordinators()[0].url().to_owned();
    let mut sale = json!({ "id": "small", "totalStock": 2, "startsAt": "0s", "endsAt": "1h" });
    sale["productName"] = "Chair".into();
    sale["productPrice"] = 1.0.into();
    stack.admin().create(&coordinator, &sale).await.unwrap();

    // Given a network whose buyers found the sale sold out.
    let attempts = |name: &'static str, count: usize| {
        (0..count).map(move |user| ("198.51.100.7".to_owned(), format!("{name}-{user}")))
    };
    let sold_to = |answers: &BTreeMap<String, (u16, Value)>| {
        answers.values().filter(|(status, _)| *status == 200).count()
    };
    let early = buy_all(&nodes, "small", attempts("early", LIMIT)).await;
    assert_eq!(sold_to(&early), 2, "{early:?}");

    // When the sale has units again.
    let restock = Client::new().post(format!("{coordinator}/admin/sales/small/restock"));
    let restock = restock.bearer_auth(stack.admin_token()).header("idempotency-key", "more");
    assert_eq!(restock.json(&json!({ "units": 20 })).send().await.unwrap().status(), 200);
    let has_stock = async || stack.status_of("small").await.is_ok_and(|status| status.remaining_stock == 20);
    until("the status shows the new units", ANSWER_LIMIT, has_stock).await.unwrap();

    // Then the network buys as many as it still may have.
    let late = buy_all(&nodes, "small", attempts("late", 2 * LIMIT)).await;
    assert_eq!(sold_to(&late), LIMIT - 2, "{late:?}");
}

/// Lets each user buy from an address, all at the same time and spread over the nodes. Returns the definite answers.
async fn buy_all(
    nodes: &[String],
    sale: &str,
    buyers: impl Iterator<Item = (String, String)>,
) -> BTreeMap<String, (u16, Value)> {
    let mut buying = JoinSet::new();
    for (number, (address, user)) in buyers.enumerate() {
        let (node, sale) = (nodes[number % nodes.len()].clone(), sale.to_owned());
        buying.spawn(async move {
            let answer = buy(&node, &sale, &address, &user, &user).await;
            (user, answer)
        });
    }
    buying.join_all().await.into_iter().collect()
}

/// Buys until the answer is definite.
async fn buy(node: &str, sale: &str, address: &str, user: &str, key: &str) -> (u16, Value) {
    let (client, url) = (Client::new(), format!("{node}/api/sales/{sale}/purchase"));
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        let request = client.post(&url).header("x-forwarded-for", address).header("idempotency-key", key);
        let answer = request.json(&json!({ "userId": user })).send().await.unwrap();
        let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
        if ![429, 503].contains(&status) {
            return (status, body);
        }
        assert!(Instant::now() < deadline, "{user} has no definite answer: {status} {body}");
        sleep(RETRY_PAUSE).await;
    }
}
