//! What a node counts, for Prometheus. Each metric stands here and nowhere else; its doc is its HELP.
//!
//! Whoever counts holds a handle that was found once: counting is one addition, and no label grows with users.
//! Every series starts at 0, for one that is first seen at 1 has no rate.

use std::time::Duration;

use ::metrics::{Counter, counter, describe_counter};
use anyhow::Context as _;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use stock::ids::SaleId;

use crate::sales::Outcome;

/// Names the counters, and describes each by its doc.
macro_rules! counters {
    ($($(#[doc = $help:literal])+ $counter:ident = $name:literal;)+) => {
        $($(#[doc = $help])+ const $counter: &str = $name;)+

        fn describe() {
            $(describe_counter!($counter, concat!($($help),+).trim_start());)+
        }
    };
}

counters! {
    /// Answers to purchases, by outcome: one for each request.
    PURCHASES = "flashsale_purchases_total";
    /// Purchases that succeeded after their buyer found no token at home and waited until some were brought there.
    PURCHASES_DELAYED_BY_STEAL = "flashsale_purchases_delayed_by_steal_total";
}

/// How often what is no longer needed is cleared away. Much more often than anybody scrapes.
const UPKEEP_PERIOD: Duration = Duration::from_secs(5);
/// The text format that Prometheus reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters of one sale.
pub(crate) struct SaleCounters {
    purchased: Counter,
    already_purchased: Counter,
    out_of_stock: Counter,
    not_active: Counter,
    limited: Counter,
    busy: Counter,
    unknown: Counter,
    delayed_by_steal: Counter,
}

impl SaleCounters {
    /// Those of this sale, all of them there from now on.
    pub(crate) fn of(sale: &SaleId) -> Self {
        let sale = sale.as_str();
        let outcome = |outcome: &'static str| {
            let counter = counter!(PURCHASES, "sale" => sale.to_owned(), "outcome" => outcome);
            counter.increment(0);
            counter
        };
        let delayed_by_steal = counter!(PURCHASES_DELAYED_BY_STEAL, "sale" => sale.to_owned());
        delayed_by_steal.increment(0);
        Self {
            purchased: outcome("purchased"),
            already_purchased: outcome("already_purchased"),
            out_of_stock: outcome("out_of_stock"),
            not_active: outcome("not_active"),
            limited: outcome("limited"),
            busy: outcome("busy"),
            unknown: outcome("unknown"),
            delayed_by_steal,
        }
    }

    /// Counts the answer to a purchase, and whether its buyer waited for tokens.
    pub(crate) fn answered(&self, outcome: &Outcome, waited_for_tokens: bool) {
        self.of_outcome(outcome).increment(1);
        if waited_for_tokens && matches!(outcome, Outcome::Purchased(_)) {
            self.delayed_by_steal.increment(1);
        }
    }

    fn of_outcome(&self, outcome: &Outcome) -> &Counter {
        match outcome {
            Outcome::Purchased(_) => &self.purchased,
            Outcome::AlreadyPurchased(_) => &self.already_purchased,
            Outcome::OutOfStock => &self.out_of_stock,
            Outcome::NotActive(_) => &self.not_active,
            Outcome::Limited(_) => &self.limited,
            Outcome::Busy => &self.busy,
            Outcome::Unknown(_) => &self.unknown,
        }
    }
}

/// Shows everything that this process counts.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// From now on what is counted is kept.
    ///
    /// # Errors
    /// When something else keeps it already.
    pub fn install() -> anyhow::Result<Self> {
        let handle = PrometheusBuilder::new().install_recorder().context("metrics")?;
        describe();
        Ok(Self(handle))
    }

    /// `GET /metrics`.
    pub fn router(&self) -> Router {
        let handle = self.0.clone();
        let show = async move || ([(CONTENT_TYPE, TEXT_FORMAT)], handle.render());
        Router::new().route("/metrics", get(show))
    }

    /// Clears away what is no longer needed for as long as `work` takes.
    pub async fn during<T>(&self, work: impl Future<Output = T>) -> T {
        let mut ticks = tokio::time::interval(UPKEEP_PERIOD);
        let upkeep = async {
            loop {
                ticks.tick().await;
                self.0.run_upkeep();
            }
        };
        tokio::select! {
            done = work => done,
            () = upkeep => unreachable!("nothing ends it"),
        }
    }
}
