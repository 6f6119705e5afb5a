//! One sale, from its creation to the last planned change, with its buyers.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use rand::{RngExt as _, rng};
use stock::sale::{EpochMs, Sale};
use testkit::{Stack, until};
use tokio::{
    sync::watch,
    time::{sleep, sleep_until},
};

use super::{
    Operator, SalePlan,
    plan::{Creation, OperatorTask, PlannedTask},
};
use crate::{
    BuyerCrowd,
    journal::Change,
    load::ArrivalRate,
    testbed::{connect, read_sale},
};

/// The end of a sale that is not to end in the run.
const OPEN_ENDED: Duration = Duration::from_hours(12);

/// A sale that was created is in Redis; the cluster may not be whole just then.
const READ_LIMIT: Duration = Duration::from_secs(90);

/// Buyers come for so long after the end of a sale: each is to be refused.
const BUYERS_AFTER_END: Duration = Duration::from_secs(3);

/// What is known of a sale that was worked on.
#[derive(Clone, Debug)]
pub(crate) struct FinishedSale {
    pub(crate) shop: BuyerCrowd,
    /// The latest end that may be in force, of a sale that ends during the run.
    pub(crate) ends_at: Option<EpochMs>,
    pub(crate) is_ended_by_hand: bool,
}

/// What works on sales need.
#[derive(Clone)]
pub(crate) struct OperatorContext {
    pub(crate) operator: Operator,
    pub(crate) stack: Arc<Stack>,
    /// When the sale that faults meet was opened.
    pub(crate) opened: Instant,
    /// How long buyers who came may wait for a definite answer.
    pub(crate) patience: Duration,
    /// How wrong the clocks of shards may be.
    pub(crate) clock_error: Duration,
    /// Set when the faults are over.
    pub(crate) is_over: watch::Receiver<bool>,
}

/// Creates the sale of this plan, lets buyers come and changes it as planned until the faults are over. None if it was
/// not to be created by then, or nobody knows whether it was.
///
/// # Errors
/// When the journal cannot be written, or a sale that was created cannot be read.
pub(crate) async fn work(
    place: &OperatorContext,
    plan: &SalePlan,
    flash: &BuyerCrowd,
) -> Result<Option<FinishedSale>> {
    let Some(creation) = plan.created else {
        place.change(plan, flash.sale().config.window.ends_at, None).await?;
        let (shop, is_ended_by_hand) = (flash.clone(), plan.is_ended_by_hand);
        return Ok(Some(FinishedSale { shop, ends_at: None, is_ended_by_hand }));
    };
    if !place.wait_for(creation.at).await {
        return Ok(None);
    }
    let Some(sale) = place.create(&plan.id, creation).await? else { return Ok(None) };
    let ends_at = sale.config.window.ends_at;
    let shop = BuyerCrowd::new(sale, place.stack.clone(), flash.journal().clone());
    shop.open(place.clock_error).await?;
    let ends = creation.lasts.is_some();
    if ends {
        shop.is_over_at((ends_at + millis(BUYERS_AFTER_END)) * 1_000);
    }
    let pace = ArrivalRate { between_buyers: creation.between_buyers, keeps_reserve: false };
    let selling = shop.sell(pace, place.clone().until_over(ends.then(|| shop.clone())), place.patience);
    let (_, ends_at) = tokio::try_join!(selling, place.change(plan, ends_at, ends.then_some(&shop)))?;
    let (ends_at, is_ended_by_hand) = (ends.then_some(ends_at), plan.is_ended_by_hand);
    Ok(Some(FinishedSale { shop, ends_at, is_ended_by_hand }))
}

impl OperatorContext {
    /// Waits until this time after the opening; says whether the faults are not over yet.
    async fn wait_for(&self, at: Duration) -> bool {
        let mut is_over = self.is_over.clone();
        let then = tokio::time::Instant::from_std(self.opened + at);
        tokio::select! {
            () = sleep_until(then) => !*self.is_over.borrow(),
            _ = is_over.wait_for(|over| *over) => false,
        }
    }

    /// Waits until the faults are over, and the sale is, where it ends during the run.
    async fn until_over(mut self, ending: Option<BuyerCrowd>) {
        // The sender is gone when the run broke off.
        self.is_over.wait_for(|over| *over).await.ok();
        while ending.as_ref().is_some_and(|shop| !shop.is_over()) {
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn create(&self, id: &str, creation: Creation) -> Result<Option<Sale>> {
        let starts_at = now() + millis(creation.starts_in);
        let ends_at = starts_at + millis(creation.lasts.unwrap_or(OPEN_ENDED));
        let Creation { units: total_stock, shards, .. } = creation;
        let change = Change::Create { total_stock, shards, starts_at, ends_at };
        if !self.operator.make(id, change).await? {
            return Ok(None);
        }
        let read = async || read_sale(&connect(self.stack.redis()).await?, id).await;
        until("the record of a created sale", READ_LIMIT, async || read().await.is_ok()).await?;
        read().await.map(Some).with_context(|| format!("the record of {id}"))
    }

    /// Carries out the plan's changes. `ending` is told of a new end. The latest end that was asked for.
    async fn change(
        &self,
        plan: &SalePlan,
        mut ends_at: EpochMs,
        ending: Option<&BuyerCrowd>,
    ) -> Result<EpochMs> {
        for PlannedTask { at, work } in &plan.works {
            if !self.wait_for(*at).await {
                break;
            }
            match *work {
                OperatorTask::Pause(length) => self.pause(&plan.id, length).await?,
                OperatorTask::Restock(units) => {
                    self.operator.make(&plan.id, Change::Restock { units }).await?;
                }
                OperatorTask::Extend(by) => {
                    ends_at += millis(by);
                    if let Some(shop) = ending {
                        shop.is_over_at((ends_at + millis(BUYERS_AFTER_END)) * 1_000);
                    }
                    self.operator.make(&plan.id, Change::Extend { ends_at }).await?;
                }
            }
            sleep(Duration::from_millis(rng().random_range(0..200))).await;
        }
        Ok(ends_at)
    }

    async fn pause(&self, sale: &str, length: Duration) -> Result<()> {
        self.operator.make(sale, Change::Pause).await?;
        sleep(length).await;
        self.operator.make(sale, Change::Resume).await.map(drop)
    }
}

fn millis(duration: Duration) -> EpochMs {
    duration.as_millis() as EpochMs
}

fn now() -> EpochMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or_default()
}
