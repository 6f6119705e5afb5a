//! The metrics of the feed.

use std::collections::BTreeMap;
use std::time::Duration;

use ::metrics::{counter, gauge, histogram};
use rediscluster::EpochMs;

use crate::feed::reasons;

service::name_metrics! {
    /// Orders that a sink confirmed. An order that is delivered again counts again.
    Counter DELIVERED = "flashsale_feed_delivered_total";
    /// Deliveries that failed, and are tried again. The reason `gone` is not tried again until a person acts.
    Counter FAILURES = "flashsale_feed_failures_total";
    /// Orders in PostgreSQL that a sink has not confirmed.
    Gauge BEHIND = "flashsale_feed_behind_orders";
    /// Time since the purchase of the oldest order that a sink has not confirmed.
    Gauge BEHIND_SECONDS = "flashsale_feed_behind_seconds";
    /// 1 while the sink takes deliveries: the broker is connected and takes messages, or the endpoint answered.
    Gauge CONNECTED = "flashsale_feed_connected";
    /// Time from a purchase to its confirmation by a sink.
    Histogram LATENCY = "flashsale_feed_latency_seconds";
}

/// Registers the HELP of these metrics.
pub(super) fn describe_all() {
    describe();
}

/// Registers the counters of a sink with 0. A series that first appears at 1 has no rate.
pub(crate) fn register(sink: &'static str) {
    for reason in reasons() {
        counter!(FAILURES, "sink" => sink, "reason" => reason).increment(0);
    }
    let _registered = histogram!(LATENCY, "sink" => sink);
}

/// Counts a delivery that failed.
pub(crate) fn failed(sink: &'static str, reason: &'static str) {
    counter!(FAILURES, "sink" => sink, "reason" => reason).increment(1);
}

/// Counts orders that a sink confirmed, given the times of their purchases.
pub(crate) fn delivered(sink: &'static str, sale: &str, purchases: impl ExactSizeIterator<Item = EpochMs>) {
    let now = service::time::now();
    counter!(DELIVERED, "sink" => sink, "sale" => sale.to_owned()).increment(purchases.len() as u64);
    let latency = histogram!(LATENCY, "sink" => sink);
    for purchased_at in purchases {
        latency.record(Duration::from_millis(now.saturating_sub(purchased_at)));
    }
}

/// Shows a sink, and by sale the number of orders behind and the age of the oldest.
pub(crate) fn show(sink: &'static str, is_ready: bool, sales: &BTreeMap<String, (i64, Duration)>) {
    gauge!(CONNECTED, "sink" => sink).set(f64::from(u8::from(is_ready)));
    for (sale, (behind, age)) in sales {
        gauge!(BEHIND, "sink" => sink, "sale" => sale.clone()).set(*behind as f64);
        gauge!(BEHIND_SECONDS, "sink" => sink, "sale" => sale.clone()).set(age.as_secs_f64());
    }
}
