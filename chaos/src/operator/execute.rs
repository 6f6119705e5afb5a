//! Executes the plan of one sale: creates it, runs its buyers, and applies the planned changes.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use buyers::journal::Change;
use rand::{RngExt as _, rng};
use rediscluster::EpochMs;
use stock::sale::Sale;
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
    load::ArrivalRate,
    testbed::{connect, read_sale},
};

/// Length of the window of a sale that does not end during the run.
const OPEN_ENDED: Duration = Duration::from_hours(12);

/// Time limit for reading a created sale from Redis. A fault may be active just then.
const READ_LIMIT: Duration = Duration::from_secs(90);

/// Time for which buyers still arrive after the end of a sale: each must be refused.
const BUYERS_AFTER_END: Duration = Duration::from_secs(3);

/// A sale whose plan has been executed.
#[derive(Clone)]
pub(crate) struct FinishedSale {
    pub(crate) crowd: BuyerCrowd,
    /// The window of the sale ends during the run.
    pub(crate) ends_in_run: bool,
    pub(crate) is_ended_by_operator: bool,
}

/// Shared inputs of all plans.
#[derive(Clone)]
pub(crate) struct OperatorContext {
    pub(crate) operator: Operator,
    pub(crate) stack: Arc<Stack>,
    /// Time of the opening of the main sale.
    pub(crate) opened: Instant,
    /// Time that buyers get at the end to reach a definite answer.
    pub(crate) settle_limit: Duration,
    /// Largest error of a shard's clock.
    pub(crate) clock_error: Duration,
    /// Becomes true when the last fault is over.
    pub(crate) is_over: watch::Receiver<bool>,
}

/// Creates the sale of this plan, lets buyers arrive and applies the planned changes until the faults are over. Returns
/// `None` when the sale was not due before the end of the faults, or when its creation was not confirmed.
///
/// # Errors
/// Fails when the journal cannot be written, or when a created sale cannot be read.
pub(crate) async fn execute(
    context: &OperatorContext,
    plan: &SalePlan,
    main_crowd: &BuyerCrowd,
) -> Result<Option<FinishedSale>> {
    let Some(creation) = plan.created else {
        context.apply_tasks(plan, main_crowd.sale().config.window.ends_at, None).await?;
        let (crowd, is_ended_by_operator) = (main_crowd.clone(), plan.is_ended_by_operator);
        return Ok(Some(FinishedSale { crowd, ends_in_run: false, is_ended_by_operator }));
    };
    if !context.wait_for(creation.at).await {
        return Ok(None);
    }
    let Some(sale) = context.create(&plan.id, creation).await? else { return Ok(None) };
    let ends_at = sale.config.window.ends_at;
    let crowd = BuyerCrowd::new(sale, context.stack.clone(), main_crowd.journal().clone());
    crowd.open(context.clock_error).await?;
    let ends_in_run = creation.lasts.is_some();
    if ends_in_run {
        crowd.stop_at((ends_at + millis(BUYERS_AFTER_END)) * 1_000);
    }
    let rate = ArrivalRate { between_buyers: creation.between_buyers, keeps_reserve: false };
    let ending_crowd = ends_in_run.then_some(&crowd);
    let stop = context.clone().wait_until_over(ending_crowd.cloned());
    let selling = crowd.run_buyers(rate, stop, context.settle_limit);
    tokio::try_join!(selling, context.apply_tasks(plan, ends_at, ending_crowd))?;
    Ok(Some(FinishedSale { crowd, ends_in_run, is_ended_by_operator: plan.is_ended_by_operator }))
}

impl OperatorContext {
    /// Waits until this time after the opening. Returns false when the faults are over before.
    async fn wait_for(&self, at: Duration) -> bool {
        let mut is_over = self.is_over.clone();
        let then = tokio::time::Instant::from_std(self.opened + at);
        tokio::select! {
            () = sleep_until(then) => !*self.is_over.borrow(),
            _ = is_over.wait_for(|over| *over) => false,
        }
    }

    /// Waits until the faults are over and, where the sale ends during the run, until the sale is over, too.
    async fn wait_until_over(mut self, ending_crowd: Option<BuyerCrowd>) {
        // The sender is dropped when the run fails.
        self.is_over.wait_for(|over| *over).await.ok();
        while ending_crowd.as_ref().is_some_and(|crowd| !crowd.is_over()) {
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn create(&self, id: &str, creation: Creation) -> Result<Option<Sale>> {
        let starts_at = now() + millis(creation.starts_in);
        let ends_at = starts_at + millis(creation.lasts.unwrap_or(OPEN_ENDED));
        let Creation { units: total_stock, shards, .. } = creation;
        let change = Change::Create { total_stock, shards, starts_at, ends_at };
        if !self.operator.apply(id, change).await? {
            return Ok(None);
        }
        let read = async || read_sale(&connect(self.stack.redis()).await?, id).await;
        until("the record of a created sale", READ_LIMIT, async || read().await.is_ok()).await?;
        read().await.map(Some).with_context(|| format!("the record of {id}"))
    }

    /// Applies the plan's changes and moves the end of `ending_crowd` accordingly.
    async fn apply_tasks(
        &self,
        plan: &SalePlan,
        mut ends_at: EpochMs,
        ending_crowd: Option<&BuyerCrowd>,
    ) -> Result<()> {
        for PlannedTask { at, task } in &plan.tasks {
            if !self.wait_for(*at).await {
                break;
            }
            match *task {
                OperatorTask::Pause(length) => self.pause(&plan.id, length).await?,
                OperatorTask::Restock(units) => {
                    self.operator.apply(&plan.id, Change::Restock { units }).await?;
                }
                OperatorTask::Extend(by) => {
                    ends_at += millis(by);
                    if let Some(crowd) = ending_crowd {
                        crowd.stop_at((ends_at + millis(BUYERS_AFTER_END)) * 1_000);
                    }
                    self.operator.apply(&plan.id, Change::Extend { ends_at }).await?;
                }
            }
            sleep(Duration::from_millis(rng().random_range(0..200))).await;
        }
        Ok(())
    }

    async fn pause(&self, sale: &str, length: Duration) -> Result<()> {
        self.operator.apply(sale, Change::Pause).await?;
        sleep(length).await;
        self.operator.apply(sale, Change::Resume).await.map(drop)
    }
}

fn millis(duration: Duration) -> EpochMs {
    duration.as_millis() as EpochMs
}

fn now() -> EpochMs {
    SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or_default()
}
