//! A call that reaches Redis after its node has given it up: a buyer who was refused gets no unit by it.

use std::net::SocketAddr;
use std::time::Duration;

use buyers::{AnswerKind, ApiFamily, BuyerClient, PurchaseRequest, read_json};
use serde_json::{Value, json};
use stock::ids::ShardId;
use testkit::stack::SaleOptions;
use testkit::{Buyers, StackOptions, until};

use crate::fixture::{
    OpenSale, TIMEOUT, assert_all_definite, purchase_attempts, purchases, sale_options, users_with_home,
};
use crate::slow_network::{SlowNetwork, Symptom};

/// The shard behind the slow network.
const HOME: ShardId = ShardId::new(0);

/// A sale with one node, and a slow network between that node and the primary of one shard.
struct Shop {
    sale: OpenSale,
    node: String,
    network: SlowNetwork,
    /// Users of the shard behind the slow network.
    users: Vec<String>,
}

impl Shop {
    async fn open(total_stock: u64) -> Self {
        Self::open_with(total_stock, &[]).await
    }

    /// Opens a sale whose node has these settings, and time to repeat a call that it has given up.
    async fn open_with(total_stock: u64, settings: &[(&str, &str)]) -> Self {
        let sale = SaleOptions { shards: Some(3), ..sale_options(total_stock) };
        let settings = [("PURCHASE_TIMEOUT", "12s")].iter().chain(settings);
        let node_environment =
            settings.map(|(setting, value)| ((*setting).to_owned(), (*value).to_owned())).collect();
        let options = StackOptions { nodes: 1, sale, node_environment, ..StackOptions::default() };
        let sale = OpenSale::start_with(options).await;
        let primary =
            sale.cluster.topology().primary(sale.sale.shard(HOME).slot).unwrap().address.to_string();
        let primary: SocketAddr = primary.parse().unwrap();
        let network = SlowNetwork::before(&sale, primary).await;
        let node = sale.stack.nodes()[0].url().to_owned();
        let users = users_with_home(&sale.sale, HOME, 40);
        let shop = Self { sale, node, network, users };
        shop.wait_until_node_uses_network().await;
        shop
    }

    /// Repeats the purchase of one user until the network has held it back, and delivers it.
    async fn wait_until_node_uses_network(&self) {
        let first = purchase_attempts(&self.users[..1], &self.node);
        self.network.hold_connection_with(&self.users[0], Symptom::Disconnect);
        let buying = async {
            loop {
                assert_all_definite(&Buyers::new(1).buy_persistently(first.clone(), TIMEOUT).await);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = self.network.wait_until_held() => {}
            () = buying => {}
        }
        self.network.release().await;
        assert_all_definite(&Buyers::new(1).buy_persistently(first, TIMEOUT).await);
    }

    /// Sends one purchase of this user, always with the same key.
    async fn buy(&self, user: &str) -> AnswerKind {
        let purchase = PurchaseRequest { user, key: Some("the-only-attempt"), ..PurchaseRequest::default() };
        BuyerClient::new(TIMEOUT).buy(&self.node, purchase).await.kind
    }

    async fn change(&self, action: &str, body: Value) {
        let (stack, path) = (&self.sale.stack, format!("sales/flash/{action}"));
        let request = stack.admin().post(stack.coordinators()[0].url(), &path).json(&body);
        read_json::<Value>(request).await.unwrap();
    }

    async fn sell_out(&self) {
        let crowd: Vec<String> = (0..40).map(|n| format!("buyer-{n:03}")).collect();
        assert_all_definite(
            &Buyers::new(8).buy_persistently(purchase_attempts(&crowd, &self.node), TIMEOUT).await,
        );
        let shown = async || self.sale.stack.status().await.is_ok_and(|status| status.remaining_stock == 0);
        until("the sale is shown as sold out", TIMEOUT, shown).await.unwrap();
    }

    async fn assert_has_no_unit(&self, user: &str) {
        let found = BuyerClient::new(TIMEOUT).look_up(&self.node, ApiFamily::BySale, user).await;
        assert_eq!(found.kind, AnswerKind::FoundNone, "a refused attempt got a unit: {found}");
    }
}

/// Refuses a buyer of a sale that is sold out while the buyer's first call is held back, and delivers it after a
/// restock.
async fn deliver_call_after_restock(symptom: Symptom) {
    // Given a sale that is sold out, and a buyer whose call is held back by the network.
    let shop = Shop::open(3).await;
    shop.sell_out().await;
    let buyer = &shop.users[1];
    shop.network.hold_connection_with(buyer, symptom);

    // When the node repeats the call on another connection and refuses the buyer, units are added, and the first call
    // arrives.
    assert_eq!(shop.buy(buyer).await, AnswerKind::SoldOut);
    shop.network.wait_until_held().await;
    shop.change("restock", json!({ "units": 3 })).await;
    shop.network.release().await;

    // Then the buyer has no unit, and others can buy what was added.
    shop.assert_has_no_unit(buyer).await;
    let others = purchase_attempts(&shop.users[2..5], &shop.node);
    assert_eq!(purchases(&Buyers::new(3).buy_persistently(others, TIMEOUT).await).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_call_sells_nothing_after_out_of_stock() {
    deliver_call_after_restock(Symptom::Silence).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_call_sells_nothing_after_broken_connection() {
    deliver_call_after_restock(Symptom::Disconnect).await;
}

/// Refuses a buyer of a paused sale while the buyer's first call is held back, and delivers it after the sale was
/// resumed. `disturb` acts between the pause and the refusal.
async fn deliver_call_after_pause(shop: &Shop, disturb: impl AsyncFnOnce()) {
    // Given a sale with units, and a buyer whose call is held back by the network.
    let buyer = &shop.users[1];
    shop.network.hold_connection_with(buyer, Symptom::Silence);

    // When the sale is paused, the node repeats the call and refuses the buyer, the sale is resumed, and the first call
    // arrives.
    let ((), answer) = tokio::join!(
        async {
            shop.network.wait_until_held().await;
            shop.change("pause", json!({})).await;
            disturb().await;
        },
        shop.buy(buyer),
    );
    assert_eq!(answer, AnswerKind::NotActive);
    shop.change("resume", json!({})).await;
    shop.network.release().await;

    // Then the buyer has no unit, and can still buy one with the same key.
    shop.assert_has_no_unit(buyer).await;
    assert_eq!(shop.buy(buyer).await, AnswerKind::Purchased);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_call_sells_nothing_after_pause() {
    let shop = Shop::open(30).await;
    deliver_call_after_pause(&shop, async || ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_call_sells_nothing_after_address_change() {
    // Given a node that waits long for replies, so its call may be executed long after it was sent.
    let shop = Shop::open_with(30, &[("REDIS_RESPONSE_TIMEOUT", "8s")]).await;

    // When the primary gets another address, the node gives the call up and repeats it there at once.
    deliver_call_after_pause(&shop, async || shop.network.remove().await).await;
}
