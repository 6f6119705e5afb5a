//! A run, from the first process to the audit.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use buyers::journal::{Change, Journal, Micros, read};
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
    FaultKind, FaultReport, OrderTestbed, PlannedFault, Report, Schedule,
    audit::{audit, status_contradiction},
    faults::{FaultEffect, inject},
    load::{ArrivalRate, BuyerCrowd, Counts},
    operator::{FinishedSale, Operator, OperatorContext, SalePlan, execute, plans},
    orders::{audit_feed, audit_orders},
    testbed::{SALE, Testbed},
    timeline::{Span, Timeline},
};

/// Shards of the sale: four for each primary, as by default.
const SHARDS: u32 = 12;

/// Time that buyers get, after the last fault, to reach a definite answer.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Time limit for the crowd at the end to buy the remaining units.
const SELL_OUT_LIMIT: Duration = Duration::from_mins(3);

/// Time limit for the ledgers to write the last orders, and to deliver them.
const DRAIN_LIMIT: Duration = Duration::from_mins(2);

/// Number of earlier buyers that buy again and look their purchase up at the end.
const RETURN_VISITS: usize = 500;

/// Time limit beyond the schedule: for starting, faults that take longer than planned, the crowd at the end, and the
/// audit.
const RUN_OVERHEAD: Duration = Duration::from_mins(8);

/// Larger than any clock step of a fault.
const CLOCK_STEP_MAX: Duration = Duration::from_hours(2);

/// Options of a run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Seed of the schedule.
    pub seed: u64,
    /// Time during which faults are injected.
    pub duration: Duration,
    /// Shortest time between two faults.
    pub pace: Duration,
    /// Kinds of faults to inject.
    pub kinds: Vec<FaultKind>,
    /// Units to sell. By default, one and a half times the buyers that arrive in `duration`, at least 1,000.
    pub stock: Option<u64>,
    /// Total requests per second.
    pub requests_per_second: f64,
    /// Folder for logs, data and the journal. It is emptied first.
    pub folder: PathBuf,
    /// The Redis program. The installed one if none is given.
    pub redis_server: Option<ServerBinary>,
    /// The programs to attack. They are built if none are given.
    pub programs: Option<Programs>,
    /// A node that can be made to die at a chosen point. Required for [`FaultKind::NodeDiesStealing`].
    pub sabotaged_node: Option<PathBuf>,
}

/// Progress of a run.
#[derive(Clone, Debug)]
pub enum RunEvent {
    /// All processes run and the sale is open.
    Open {
        /// Units to sell.
        units: u64,
    },
    /// A fault is over. Boxed, because it is much larger than the other variants.
    Fault(Box<FaultReport>),
    /// Counts so far, sent once per second.
    Progress(Counts),
    /// The faults are over. Names the step that begins.
    Closing(&'static str),
}

impl RunOptions {
    /// Returns the schedule of faults.
    pub fn schedule(&self) -> Schedule {
        Schedule::of(self.seed, self.duration, self.pace, &self.kinds)
    }

    /// Returns the plans of all sales.
    fn plans(&self) -> Vec<SalePlan> {
        plans(self.seed, self.duration)
    }

    fn clock_error(&self) -> Duration {
        let steps = self.schedule().faults.iter().any(|fault| fault.kind == FaultKind::ClockStepped);
        if steps { CLOCK_STEP_MAX } else { Duration::ZERO }
    }

    fn arrival_rate(&self) -> ArrivalRate {
        ArrivalRate::of_requests(self.requests_per_second)
    }

    /// Enough units for faults that take longer than planned: the reserve must not be reached before the last one.
    fn units(&self) -> u64 {
        self.stock.unwrap_or_else(|| (self.arrival_rate().buyers_in(self.duration) * 3 / 2).max(1_000))
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
            network_namespace: self.kinds.contains(&FaultKind::Partition),
            clocks: self.kinds.contains(&FaultKind::ClockStepped),
            sale,
            // Buyers retry many times during a failover, which is intended here.
            node_environment: vec![("RATE_LIMIT_USER_MAX".into(), "0".into())],
            ..StackOptions::default()
        }
    }
}

/// Starts all processes, injects the scheduled faults while buyers buy, sells the rest, and audits. Stops all processes
/// at the end.
///
/// # Errors
/// Fails when a process could not be started, a fault could not be injected or repaired, or the time limit was
/// exceeded. Then the run has no verdict.
pub async fn run(options: &RunOptions, events: &UnboundedSender<RunEvent>) -> Result<Report> {
    let limit = options.duration * 2 + RUN_OVERHEAD;
    timeout(limit, attack_and_audit(options, events))
        .await
        .with_context(|| format!("the run took longer than {limit:.0?}"))?
}

async fn attack_and_audit(options: &RunOptions, events: &UnboundedSender<RunEvent>) -> Result<Report> {
    let stack = Arc::new(Stack::start(options.stack(), |_| ()).await?);
    let orders = OrderTestbed::start(stack.clone()).await?;
    let journal = Journal::create(options.folder.join("journal.jsonl"))?;
    let operator = Operator::new(stack.clone(), journal.clone());
    let testbed =
        Testbed::new(stack.clone(), orders, operator.clone(), options.sabotaged_node.clone()).await?;
    let crowd = BuyerCrowd::new(testbed.sale.clone(), stack, journal);
    crowd.open(options.clock_error()).await?;
    let run = Run {
        crowd,
        operator,
        testbed,
        events,
        opened: Instant::now(),
        attacks: Mutex::default(),
        violations: Vec::new(),
        rows: 0,
    };
    run.emit(RunEvent::Open { units: options.units() });
    run.finish(options).await
}

/// A run in progress.
struct Run<'a> {
    testbed: Testbed,
    crowd: BuyerCrowd,
    operator: Operator,
    events: &'a UnboundedSender<RunEvent>,
    opened: Instant,
    attacks: Mutex<Attacks>,
    violations: Vec<String>,
    rows: u64,
}

/// The faults so far. Two series of them run side by side.
#[derive(Default)]
struct Attacks {
    /// Times of the faults of the sale.
    spans: Vec<Span>,
    /// Start of the fault of the sale that is active.
    active_since: Option<Micros>,
    reports: Vec<FaultReport>,
    violations: Vec<String>,
}

impl Run<'_> {
    async fn finish(mut self, options: &RunOptions) -> Result<Report> {
        let sales = self.attack_while_selling(options).await?;
        let attacked_until = self.crowd.journal().now();
        self.emit(RunEvent::Closing("a crowd buys what is left"));
        for sale in &sales {
            self.close_sale(sale).await?;
        }
        self.emit(RunEvent::Closing("audit"));
        let records = read(self.crowd.journal().path())?;
        for FinishedSale { crowd, .. } in &sales {
            let found = audit(&self.testbed.stack, crowd.sale(), &records).await?;
            self.violations.extend(found.into_iter().map(|what| format!("{}: {what}", crowd.sale().id())));
        }
        self.violations.extend(status_contradiction(&self.testbed.stack).await);
        self.emit(RunEvent::Closing("comparison of PostgreSQL with the claims"));
        for FinishedSale { crowd, .. } in &sales {
            let (rows, found) = audit_orders(&self.testbed.orders, crowd.sale(), DRAIN_LIMIT).await?;
            self.rows += rows;
            self.violations.extend(found.into_iter().map(|what| format!("{}: {what}", crowd.sale().id())));
        }
        let (parcels, found) = audit_feed(&self.testbed.orders, DRAIN_LIMIT).await?;
        self.violations.extend(found);
        let Attacks { spans, reports, violations, .. } =
            self.attacks.into_inner().unwrap_or_else(PoisonError::into_inner);

        let quiet = Timeline::of(&records).outside(&spans, attacked_until);
        Ok(Report {
            seed: options.seed,
            redis: self.testbed.redis().version().to_owned(),
            sales: sales.len() as u64,
            changes: *self.operator.counts(),
            counts: Counts::of(&records),
            quiet_p99_ms: quiet.p99.as_secs_f64() * 1_000.0,
            quiet_unknown: quiet.unknown as u64,
            seconds: self.opened.elapsed().as_secs_f64(),
            rows: self.rows,
            parcels,
            faults: reports,
            violations: [violations, self.violations].concat(),
        })
    }

    /// Lets a crowd buy the rest and earlier buyers return. If planned, an operator ends the sale in between.
    async fn close_sale(
        &mut self,
        FinishedSale { crowd, ends_in_run, is_ended_by_operator }: &FinishedSale,
    ) -> Result<()> {
        let id = crowd.sale().id().as_str();
        if !ends_in_run {
            // The last change may be a pause whose outcome is unknown.
            self.operator.apply(id, Change::Resume).await?;
            // Every buyer who retries must get a unit or a refusal. The audit reports where the unsold units are.
            let sold_out = crowd.sell_out(SELL_OUT_LIMIT).await;
            self.violations.extend(sold_out.err().map(|error| format!("{id}: crowd: {error:#}")));
        }
        if *is_ended_by_operator {
            self.operator.apply(id, Change::End).await?;
            crowd.stop_at(0);
        }
        crowd.return_visits(RETURN_VISITS, SETTLE_LIMIT).await
    }

    /// Runs buyers and operators until the last fault is over and the planned duration has passed.
    async fn attack_while_selling(&self, options: &RunOptions) -> Result<Vec<FinishedSale>> {
        let (crowd, events) = (self.crowd.clone(), self.events.clone());
        let (over, is_over) = watch::channel(false);
        let context = OperatorContext {
            operator: self.operator.clone(),
            stack: self.testbed.stack.clone(),
            opened: self.opened,
            settle_limit: SETTLE_LIMIT,
            clock_error: options.clock_error(),
            is_over: is_over.clone(),
        };
        let plans = options.plans();
        let running_plans = try_join_all(plans.iter().map(|plan| execute(&context, plan, &crowd)));
        let mut until_over = is_over;
        let stop = async move { until_over.wait_for(|over| *over).await.map(drop).unwrap_or(()) };
        let selling = crowd.run_buyers(options.arrival_rate(), stop, SETTLE_LIMIT);
        let attacking = async {
            let schedule = options.schedule().faults;
            let (of_orders, of_sale) = schedule.into_iter().partition(|fault| fault.kind.attacks_orders());
            tokio::try_join!(
                self.run_faults(of_sale, Duration::MAX),
                // Late ones are left out, so that they do not make a run longer.
                self.run_faults(of_orders, options.duration),
            )?;
            sleep(options.duration.saturating_sub(self.opened.elapsed())).await;
            over.send(true).ok();
            anyhow::Ok(())
        };
        tokio::select! {
            all = async { tokio::try_join!(selling, attacking, running_plans) } => {
                all.map(|((), (), sales)| sales.into_iter().flatten().collect())
            }
            () = show_progress(&crowd, &events) => unreachable!("progress is shown for ever"),
        }
    }

    /// Injects faults one after the other. Leaves out those that cannot begin before `end`.
    async fn run_faults(&self, faults: Vec<PlannedFault>, end: Duration) -> Result<()> {
        for fault in faults {
            if self.opened.elapsed() >= end {
                break;
            }
            self.run_fault(fault).await?;
        }
        Ok(())
    }

    async fn run_fault(&self, fault: PlannedFault) -> Result<()> {
        sleep(fault.at.saturating_sub(self.opened.elapsed())).await;
        let (at, from) = (self.opened.elapsed(), self.crowd.journal().now());
        let attacks_sale = !fault.kind.attacks_orders();
        if attacks_sale {
            self.attacks().active_since = Some(from);
        }
        let effect = inject(&self.testbed, fault).await?;
        let span = Span { from, to: self.crowd.journal().now() };
        let violations: Vec<String> =
            effect.violations.iter().map(|what| format!("{}: {what}", fault.kind)).collect();
        let report = self.report(fault.kind, at, span, effect);
        self.emit(RunEvent::Fault(Box::new(report.clone())));
        let mut attacks = self.attacks();
        if attacks_sale {
            attacks.active_since = None;
            attacks.spans.push(span);
        }
        attacks.reports.push(report);
        attacks.violations.extend(violations);
        Ok(())
    }

    fn attacks(&self) -> MutexGuard<'_, Attacks> {
        self.attacks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The figures of a fault of the orders are those of the time without a fault of the sale.
    fn report(&self, kind: FaultKind, at: Duration, span: Span, effect: FaultEffect) -> FaultReport {
        let entries = self.crowd.journal().since(span.from);
        let mut timeline = Timeline::of(&entries);
        if kind.attacks_orders() {
            let attacks = self.attacks();
            let active = attacks.active_since.map(|from| Span { from, to: Micros::MAX });
            timeline = timeline.without(&[&attacks.spans[..], active.as_slice()].concat());
        }
        let (all, others) = (timeline.within(span), timeline.other_shards(&effect.shards, span));
        FaultReport {
            kind,
            at_seconds: at.as_secs_f64(),
            target: effect.target,
            whole_after_seconds: Duration::from_micros(span.to - span.from).as_secs_f64(),
            outage_seconds: timeline.outage(&effect.shards, span).map(|outage| outage.as_secs_f64()),
            shards: effect.shards,
            purchases: all.purchases as u64,
            unknown: all.unknown as u64,
            others_requests: others.requests as u64,
            others_unknown: others.unknown as u64,
            others_p99_ms: others.p99.as_secs_f64() * 1_000.0,
        }
    }

    /// Sends an event. A closed channel is not an error: the receiver is optional.
    fn emit(&self, event: RunEvent) {
        self.events.send(event).ok();
    }
}

async fn show_progress(crowd: &BuyerCrowd, events: &UnboundedSender<RunEvent>) {
    let mut ticks = interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        events.send(RunEvent::Progress(crowd.counts())).ok();
    }
}
