//! Response bodies of the orders API.

use serde::Serialize;
use serde_json::Value;
use service::time::iso8601;
use stock::history::{ChangeOrigin, HistoryEntry};
use utoipa::ToSchema;

use crate::orders::{KnownSale, PersonsOrder, SaleOrders, SaleVersion, StoredOrder};

/// An order.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    /// Number of the order in its sale, from 1.
    #[schema(minimum = 1)]
    position: i64,
    /// Name of the sale.
    sale: Value,
    /// Id of the order, as the buyer got it.
    order_id: Value,
    /// The buyer. Missing once the person is erased.
    #[serde(skip_serializing_if = "Value::is_null")]
    user_id: Value,
    /// Time of the purchase, by the clock of Redis.
    purchased_at: Value,
    /// Correlation id of the purchase. Missing once the person is erased.
    #[serde(skip_serializing_if = "Value::is_null")]
    correlation_id: Value,
}

/// Orders, and the place after them.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    orders: Vec<Order>,
    /// The creation of the sale, which distinguishes it from others of the same name.
    creation: String,
    /// The path of the next orders. It stays valid when there are none yet.
    #[schema(example = "/sales/flash/orders?creation=1d3f5b7a9c0e&after=1000")]
    next: String,
    /// True if there were more orders already.
    more: bool,
}

/// The orders of a person in all sales.
#[derive(Serialize, ToSchema)]
pub(super) struct PersonsOrders {
    orders: Vec<OrderOfSale>,
}

/// An order, and the creation of its sale.
#[derive(Serialize, ToSchema)]
struct OrderOfSale {
    #[serde(flatten)]
    order: Order,
    /// The creation of the sale.
    creation: String,
}

/// The numbers of orders.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Totals {
    /// All orders.
    orders: i64,
    /// The minutes that have any.
    by_minute: Vec<Minute>,
}

/// The number of orders in a minute.
#[derive(Serialize, ToSchema)]
struct Minute {
    /// The start of the minute.
    #[schema(format = DateTime)]
    minute: String,
    orders: i64,
}

/// The sales that the ledger knows.
#[derive(Serialize, ToSchema)]
pub(super) struct SaleList {
    sales: Vec<ListedSale>,
}

/// A sale, with its latest settings.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ListedSale {
    /// Name of the sale.
    sale: String,
    /// Distinguishes the sale from others of the same name.
    creation: String,
    /// Number of orders in the ledger.
    orders: i64,
    /// Time when the ledger saw the sale first.
    #[schema(format = DateTime)]
    first_seen_at: String,
    #[serde(flatten)]
    settings: Settings,
}

/// The history of a sale.
#[derive(Serialize, ToSchema)]
pub(super) struct History {
    versions: Vec<Version>,
    changes: Vec<Change>,
}

/// A version of a sale's settings.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Version {
    /// Time when the ledger saw it first.
    #[schema(format = DateTime)]
    seen_at: String,
    #[serde(flatten)]
    settings: Settings,
}

/// Settings of a sale.
// The recorded configuration has secrets, too.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Settings {
    version: i64,
    state: Value,
    total_stock: Value,
    starts_at: Option<String>,
    ends_at: Option<String>,
    product_name: Value,
    product_price: Value,
    product_description: Value,
    user_ids: Value,
}

/// A change of a sale. Its `operator` is `null` if a coordinator made it on its own.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Change {
    version: u64,
    #[schema(format = DateTime)]
    at: String,
    change: String,
    values: Value,
    operator: Option<String>,
    address: Option<String>,
    correlation_id: Option<String>,
    reason: Option<String>,
}

impl Order {
    pub(super) fn of(StoredOrder { position, mut payload }: StoredOrder) -> Self {
        let mut take = |member: &str| payload.get_mut(member).map(Value::take).unwrap_or_default();
        Self {
            position,
            sale: take("sale"),
            order_id: take("orderId"),
            user_id: take("userId"),
            purchased_at: take("purchasedAt"),
            correlation_id: take("correlationId"),
        }
    }
}

pub(super) fn page(found: Vec<StoredOrder>, of: SaleOrders, until: i64, next: String) -> Page {
    let orders = found.into_iter().map(Order::of).collect();
    Page { orders, creation: of.creation, next, more: until < of.last }
}

pub(super) fn of_person(found: Vec<PersonsOrder>) -> PersonsOrders {
    let order = |PersonsOrder { order, creation }| OrderOfSale { order: Order::of(order), creation };
    PersonsOrders { orders: found.into_iter().map(order).collect() }
}

pub(super) fn totals(minutes: Vec<(u64, i64)>) -> Totals {
    let orders = minutes.iter().map(|(_, count)| count).sum();
    let minute = |(start, orders)| Minute { minute: iso8601(start), orders };
    Totals { orders, by_minute: minutes.into_iter().map(minute).collect() }
}

pub(super) fn sales(known: Vec<KnownSale>) -> SaleList {
    let listed = |KnownSale { sale, creation, latest, orders }: KnownSale| ListedSale {
        sale,
        creation,
        orders,
        first_seen_at: iso8601(latest.seen_at),
        settings: Settings::of(&latest),
    };
    SaleList { sales: known.into_iter().map(listed).collect() }
}

pub(super) fn history(versions: Vec<SaleVersion>, changes: Vec<Value>) -> History {
    let version = |version: &SaleVersion| Version {
        seen_at: iso8601(version.seen_at),
        settings: Settings::of(version),
    };
    // A change in the form of a later release is left out.
    let entries = changes.into_iter().filter_map(|change| serde_json::from_value(change).ok());
    History { versions: versions.iter().map(version).collect(), changes: entries.map(Change::of).collect() }
}

impl Settings {
    fn of(SaleVersion { version, config, .. }: &SaleVersion) -> Self {
        let (window, product) = (&config["window"], &config["product"]);
        Self {
            version: *version,
            state: config["state"].clone(),
            total_stock: config["totalStock"].clone(),
            starts_at: window["startsAt"].as_u64().map(iso8601),
            ends_at: window["endsAt"].as_u64().map(iso8601),
            product_name: product["name"].clone(),
            product_price: product["price"].clone(),
            product_description: product["description"].clone(),
            user_ids: config["userIds"].clone(),
        }
    }
}

impl Change {
    fn of(HistoryEntry { version, at, change, values, origin }: HistoryEntry) -> Self {
        let ChangeOrigin { operator, address, correlation_id, reason } = origin;
        let (at, values) = (iso8601(at), Value::Object(values));
        Self { version, at, change, values, operator, address, correlation_id, reason }
    }
}
