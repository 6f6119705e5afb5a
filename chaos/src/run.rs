//! A run from the first process to the verdict.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use testkit::{
    ServerBinary, Stack, StackOptions,
    stack::{Programs, SaleOptions},
};
use tokio::{
    sync::{mpsc::UnboundedSender, watch},
    time::{interval, sleep, timeout},
};

use futures::future::try_join_all;

use crate::{
    FaultKind, FaultReport, PlannedFault, Report, Schedule,
    audit::{audit, of_both_statuses},
    faults::{FaultEffect, commit},
    journal::{Change, Journal},
    load::{ArrivalRate, BuyerCrowd, Counts},
    operator::{FinishedSale, Operator, OperatorContext, SalePlan, plans, work},
    testbed::{SALE, Testbed},
    timeline::{Span, Timeline},
};

/// The sale's shards: four a primary, as by default.
const SHARDS: u32 = 12;

/// How long those who came during the faults may wait for a definite answer once all is well again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the crowd at the end may take to buy what is left.
const SELL_OUT_LIMIT: Duration = Duration::from_mins(3);

/// How many of those who came come back at the end to see what they have.
const COME_BACK: usize = 500;

/// Above the schedule itself: starting, faults that take longer than planned, the crowd at the end, and the audit.
const OVERTIME: Duration = Duration::from_mins(8);

/// Further than a fault moves a server's clock.
const CLOCK_STEP_MAX: Duration = Duration::from_hours(2);

/// What can be chosen about a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// What the schedule is made from.
    pub seed: u64,
    /// How long faults come.
    pub duration: Duration,
    /// From one fault to the next, at least.
    pub pace: Duration,
    /// Which.
    pub kinds: Vec<FaultKind>,
    /// Units to sell; as many as there are buyers in this time, and some, if none are given.
    pub stock: Option<u64>,
    /// Requests a second, all in all.
    pub requests_per_second: f64,
    /// A folder to empty and use, for logs, data and the journal.
    pub folder: PathBuf,
    /// The Redis program; what is installed if none is given.
    pub redis_server: Option<ServerBinary>,
    /// The programs to attack; built if none are given.
    pub programs: Option<Programs>,
    /// The node that dies where it is told to; without it nodes do not die in the middle of steals.
    pub sabotaged_node: Option<PathBuf>,
}

/// What happens in a run, for whoever watches.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// Everything runs, and the sale is open.
    Open {
        /// Units to sell.
        units: u64,
    },
    /// A fault is over. Boxed, for it is much larger than the others.
    Fault(Box<FaultReport>),
    /// How far it is.
    Progress(Counts),
    /// The faults are over; this is done now.
    Closing(&'static str),
}

impl RunOptions {
    /// The faults to come.
    pub fn schedule(&self) -> Schedule {
        Schedule::of(self.seed, self.duration, self.pace, &self.kinds)
    }

    /// What operators do, and at which sales.
    fn plans(&self) -> Vec<SalePlan> {
        plans(self.seed, self.duration)
    }

    fn clock_error(&self) -> Duration {
        let steps = self.schedule().faults.iter().any(|fault| fault.kind == FaultKind::ClockStepped);
        if steps { CLOCK_STEP_MAX } else { Duration::ZERO }
    }

    fn crowd(&self) -> ArrivalRate {
        ArrivalRate::of_requests(self.requests_per_second)
    }

    /// Faults may take twice as long as planned before the stock is at its reserve.
    fn units(&self) -> u64 {
        self.stock.unwrap_or_else(|| (self.crowd().buyers_in(self.duration) * 3 / 2).max(1_000))
    }

    fn stack(&self) -> StackOptions {
        let sale = SaleOptions {
            id: SALE.into(),
            total_stock: self.units(),
            shards: Some(SHARDS),
            duration: Duration::from_hours(12),
            ..SaleOptions::default()
        };
        StackOptions {
            coordinators: 2,
            redis_server: self.redis_server.clone(),
            programs: self.programs.clone(),
            folder: Some(self.folder.clone()),
            island: self.kinds.contains(&FaultKind::Partition),
            clocks: self.kinds.contains(&FaultKind::ClockStepped),
            sale,
            // Buyers who wait for a failover try again and again; here that is their virtue.
            node_environment: vec![("RATE_LIMIT_USER_MAX".into(), "0".into())],
            ..StackOptions::default()
        }
    }
}

/// Starts everything, attacks it by the schedule while buyers buy, sells out, and audits. Ends with nothing running.
///
/// # Errors
/// When something could not be started, hurt or healed, or not all of it in time: then there is no verdict.
pub async fn run(options: &RunOptions, news: &UnboundedSender<RunEvent>) -> Result<Report> {
    let limit = options.duration * 2 + OVERTIME;
    timeout(limit, attack_and_audit(options, news))
        .await
        .with_context(|| format!("not over within {limit:.0?}"))?
}

async fn attack_and_audit(options: &RunOptions, news: &UnboundedSender<RunEvent>) -> Result<Report> {
    let stack = Arc::new(Stack::start(options.stack(), |_| ()).await?);
    let journal = Journal::create(options.folder.join("journal.jsonl"))?;
    let operator = Operator::new(stack.clone(), journal.clone());
    let stage = Testbed::on(stack.clone(), operator.clone(), options.sabotaged_node.clone()).await?;
    let shop = BuyerCrowd::new(stage.sale.clone(), stack, journal);
    shop.open(options.clock_error()).await?;
    let run = Run {
        shop,
        operator,
        stage,
        news,
        opened: Instant::now(),
        spans: Vec::new(),
        faults: Vec::new(),
        violations: Vec::new(),
    };
    run.tell(RunEvent::Open { units: options.units() });
    run.finish(options).await
}

/// A run that is under way.
struct Run<'a> {
    stage: Testbed,
    shop: BuyerCrowd,
    operator: Operator,
    news: &'a UnboundedSender<RunEvent>,
    opened: Instant,
    spans: Vec<Span>,
    faults: Vec<FaultReport>,
    violations: Vec<String>,
}

impl Run<'_> {
    async fn finish(mut self, options: &RunOptions) -> Result<Report> {
        let sales = self.attack_while_selling(options).await?;
        let attacked_until = self.shop.journal().now();
        self.tell(RunEvent::Closing("a crowd buys what is left"));
        for sale in &sales {
            self.close(sale).await?;
        }
        self.tell(RunEvent::Closing("audit"));
        let records = crate::journal::read(self.shop.journal().path())?;
        for FinishedSale { shop, .. } in &sales {
            let found = audit(&self.stage.stack, shop.sale(), &records).await?;
            self.violations.extend(found.into_iter().map(|what| format!("{}: {what}", shop.sale().id())));
        }
        self.violations.extend(of_both_statuses(&self.stage.stack).await?);

        let quiet = Timeline::of(&records).outside(&self.spans, attacked_until);
        let counts = sales.iter().fold(Counts::default(), |sum, sale| sum + sale.shop.counts());
        let changes = self.operator.changes();
        Ok(Report {
            seed: options.seed,
            redis: self.stage.redis().version().to_owned(),
            sales: sales.len() as u64,
            changes: changes.asked,
            changes_done: changes.done,
            change_tries: changes.tries,
            not_active: counts.not_active,
            single_sale: counts.single_sale,
            without_key: counts.without_key,
            requests: counts.requests,
            purchases: counts.purchases,
            unknown: counts.unknown,
            quiet_p99_ms: quiet.p99.as_secs_f64() * 1_000.0,
            quiet_unknown: quiet.unknown as u64,
            seconds: self.opened.elapsed().as_secs_f64(),
            faults: self.faults,
            violations: self.violations,
        })
    }

    /// A crowd buys what is left, and some come back and look; where it is planned, an operator ends the sale.
    async fn close(&mut self, FinishedSale { shop, ends_at, is_ended_by_hand }: &FinishedSale) -> Result<()> {
        let id = shop.sale().id().as_str();
        if ends_at.is_none() {
            // A change that nobody knows of was perhaps a pause.
            self.operator.make(id, Change::Resume).await?;
            // Whoever keeps trying and gets neither a unit nor a refusal was let down; the audit says where the units are.
            let sold_out = shop.sell_out(SELL_OUT_LIMIT).await;
            self.violations.extend(sold_out.err().map(|error| format!("{id}: crowd: {error:#}")));
        }
        if *is_ended_by_hand {
            self.operator.make(id, Change::End).await?;
            shop.is_over_at(0);
        }
        shop.come_back(COME_BACK, PATIENCE).await
    }

    /// Buyers come and operators work until the last fault is over and the sales have been quiet for a moment.
    async fn attack_while_selling(&mut self, options: &RunOptions) -> Result<Vec<FinishedSale>> {
        let (shop, news) = (self.shop.clone(), self.news.clone());
        let (over, is_over) = watch::channel(false);
        let place = OperatorContext {
            operator: self.operator.clone(),
            stack: self.stage.stack.clone(),
            opened: self.opened,
            patience: PATIENCE,
            clock_error: options.clock_error(),
            is_over: is_over.clone(),
        };
        let plans = options.plans();
        let working = try_join_all(plans.iter().map(|plan| work(&place, plan, &shop)));
        let mut until_over = is_over;
        let stop = async move { until_over.wait_for(|over| *over).await.map(drop).unwrap_or(()) };
        let selling = shop.sell(options.crowd(), stop, PATIENCE);
        let attacking = async {
            for fault in options.schedule().faults {
                self.suffer(fault).await?;
            }
            sleep(options.duration.saturating_sub(self.opened.elapsed())).await;
            over.send(true).ok();
            anyhow::Ok(())
        };
        tokio::select! {
            all = async { tokio::try_join!(selling, attacking, working) } => {
                all.map(|((), (), sales)| sales.into_iter().flatten().collect())
            }
            () = show_progress(&shop, &news) => unreachable!("progress is shown for ever"),
        }
    }

    async fn suffer(&mut self, fault: PlannedFault) -> Result<()> {
        sleep(fault.at.saturating_sub(self.opened.elapsed())).await;
        let (at, from) = (self.opened.elapsed(), self.shop.journal().now());
        let harm = commit(&self.stage, fault).await?;
        let span = Span { from, to: self.shop.journal().now() };
        self.violations.extend(harm.violations.iter().map(|what| format!("{}: {what}", fault.kind)));
        let report = self.report(fault.kind, at, span, harm);
        self.tell(RunEvent::Fault(Box::new(report.clone())));
        self.spans.push(span);
        self.faults.push(report);
        Ok(())
    }

    fn report(&self, kind: FaultKind, at: Duration, span: Span, harm: FaultEffect) -> FaultReport {
        let timeline = Timeline::of(&self.shop.journal().since(span.from));
        let (all, others) = (timeline.within(span), timeline.of_others(&harm.shards, span));
        FaultReport {
            kind,
            at_seconds: at.as_secs_f64(),
            target: harm.target,
            whole_after_seconds: Duration::from_micros(span.to - span.from).as_secs_f64(),
            outage_seconds: timeline.outage(&harm.shards, span).map(|outage| outage.as_secs_f64()),
            shards: harm.shards,
            purchases: all.purchases as u64,
            unknown: all.unknown as u64,
            others_requests: others.requests as u64,
            others_unknown: others.unknown as u64,
            others_p99_ms: others.p99.as_secs_f64() * 1_000.0,
        }
    }

    /// Nobody may be watching any more; that changes nothing.
    fn tell(&self, news: RunEvent) {
        self.news.send(news).ok();
    }
}

async fn show_progress(shop: &BuyerCrowd, news: &UnboundedSender<RunEvent>) {
    let mut looks = interval(Duration::from_secs(1));
    loop {
        looks.tick().await;
        news.send(RunEvent::Progress(shop.counts())).ok();
    }
}
