//! Measures one axis: for each of its values, a system of its own and some rounds of purchases.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use buyers::AnswerKind;
use buyers::journal::Change;
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::json;
use testkit::stack::SaleOptions;
use testkit::{OpenLoop, Stack, StackOptions, procfs, until_ok};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::report::{Axis, Point};
use super::{AxisName, Options};
use crate::bench::comparison::Spread;
use crate::bench::field::{FieldPrograms, SHARDS, Server};
use crate::bench::filling::{sale_of, sell_to};
use crate::bench::meter::{CpuTime, Meter};
use crate::bench::wrk::{Connections, Requests, Wrk};

/// More units than a run can sell.
const UNENDING: u64 = 100_000_000;
/// Units of a sale that is sold step by step, and of one that is created.
const MILLION: u64 = 1_000_000;
const CONNECTIONS: u16 = 256;
/// Time limit for any expected change.
const LIMIT: Duration = Duration::from_mins(2);
/// Purchases per second where their number is fixed, and the most of them in a round.
const STEADY_RATE: u32 = 4_000;
const STEADY_PURCHASES_MAX: u64 = 10_000;
/// Purchases that are measured while most units are sold without nodes. Few, so that all shards keep about the same stock.
const PURCHASES_BETWEEN: u64 = 2_000;
/// Buyers in a call that sells without nodes.
const BATCH: usize = 64;
const PURCHASE: &str = "/api/sale/purchase";
/// Connections that are opened at once.
const CONCURRENT_CONNECTS: usize = 256;

/// Figures of one round of purchases.
struct Round {
    cpu_us: CpuTime,
    calls: f64,
    bare_us: f64,
}

pub(super) async fn measure(name: AxisName, programs: &FieldPrograms, options: &Options) -> Result<Axis> {
    let run = Run { programs, options };
    match name {
        AxisName::Shards => {
            run.at_peak("Shards of the sale", [1, 4, 12, 48, 192], |shards| StackOptions {
                sale: SaleOptions { shards: Some(shards), ..run.sale() },
                ..run.stack()
            })
            .await
        }
        AxisName::Primaries => {
            run.at_peak("Primaries, each with a replica", [3, 6, 9], |primaries| StackOptions {
                primaries: primaries as u16,
                ..run.stack()
            })
            .await
        }
        AxisName::Nodes => {
            run.at_peak("Nodes, with the 256 connections spread over them", [1, 2, 4], |nodes| StackOptions {
                nodes: nodes as u16,
                ..run.stack()
            })
            .await
        }
        AxisName::OpenSales => run.open_sales().await,
        AxisName::EndedSales => run.ended_sales().await,
        AxisName::Stock => run.stock_of_sale().await,
        AxisName::Sold => run.sold().await,
        AxisName::Creation => run.creation().await,
        AxisName::Connections => run.connections().await,
    }
}

/// A measurement of one axis.
#[derive(Clone, Copy)]
struct Run<'a> {
    programs: &'a FieldPrograms,
    options: &'a Options,
}

/// The system at one value of an axis, and the bare handler beside it.
struct System {
    stack: Stack,
    bare: Server,
    wrk: Wrk,
}

impl Run<'_> {
    fn sale(self) -> SaleOptions {
        SaleOptions { total_stock: UNENDING, shards: Some(SHARDS), ..SaleOptions::default() }
    }

    fn stack(self) -> StackOptions {
        let programs = Some(self.programs.programs.clone());
        StackOptions { nodes: 1, programs, sale: self.sale(), ..StackOptions::default() }
    }

    async fn start(self, options: StackOptions) -> Result<System> {
        let stack = Stack::start(options, |_| ()).await?;
        let bare = Server::start(&self.programs.bare, &stack, &[]).await?;
        Ok(System { wrk: Wrk::new(stack.folder().path())?, bare, stack })
    }

    /// Measures as many purchases as the system of each value answers.
    async fn at_peak<const N: usize>(
        self,
        title: &str,
        values: [u32; N],
        stack: impl Fn(u32) -> StackOptions,
    ) -> Result<Axis> {
        let mut points = Vec::new();
        for value in values {
            let system = self.start(stack(value)).await?;
            points.push(self.point(value.to_string(), &system, 0).await?);
            system.stop().await?;
        }
        Ok(self.axis(title, points))
    }

    async fn open_sales(self) -> Result<Axis> {
        let mut points = Vec::new();
        for sales in [1, 10, 100] {
            let system = self.start(self.stack()).await?;
            for number in 0..sales {
                system.create(&format!("open-{number}"), UNENDING, SHARDS, "1h").await?;
            }
            for number in 0..sales {
                let is_served = async || system.stack.status_of(&format!("open-{number}")).await.map(drop);
                until_ok("status of a sale", LIMIT, is_served).await?;
            }
            points.push(self.point(sales.to_string(), &system, sales).await?);
            system.stop().await?;
        }
        Ok(self.axis("Open sales, with the purchases spread over them", points))
    }

    async fn ended_sales(self) -> Result<Axis> {
        let mut points = Vec::new();
        for sales in [0, 100, 400] {
            let system = self.start(self.stack()).await?;
            for number in 0..sales {
                let id = format!("ended-{number}");
                system.create(&id, 1_000, SHARDS, "1h").await?;
                let answer = system.stack.admin().change(&system.coordinator()?, &id, Change::End, &id).await;
                ensure!(answer.status == Some(200), "{id} was not ended: {answer:?}");
            }
            points.push(self.point(sales.to_string(), &system, 0).await?);
            system.stop().await?;
        }
        Ok(self.axis("Ended sales beside the open one", points))
    }

    /// Sells the first half of the stock, of a new system in each round.
    async fn stock_of_sale(self) -> Result<Axis> {
        let mut points = Vec::new();
        for units in [1_000, 100_000, MILLION] {
            let mut rounds = Vec::new();
            for round in 0..self.options.rounds {
                let system =
                    self.start(StackOptions { sale: self.sale_of_units(units), ..self.stack() }).await?;
                let purchases = (units / 2).min(STEADY_PURCHASES_MAX);
                rounds.push(system.steady(&format!("{units}-{round}"), purchases).await?);
                system.stop().await?;
            }
            points.push(point(units.to_string(), &rounds));
        }
        let title = format!(
            "Units of the sale: purchases of the first half, at most {STEADY_PURCHASES_MAX}, {STEADY_RATE}/s"
        );
        Ok(self.axis(&title, points))
    }

    /// Sells a million units, most of them without nodes, and measures purchases in between.
    async fn sold(self) -> Result<Axis> {
        const PARTS: [(&str, u64); 4] =
            [("0 %", 0), ("50 %", 500_000), ("99 %", 990_000), ("99.9 %", 999_000)];
        let mut rounds: [Vec<Round>; PARTS.len()] = Default::default();
        for round in 0..self.options.rounds {
            let system =
                self.start(StackOptions { sale: self.sale_of_units(MILLION), ..self.stack() }).await?;
            let (cluster, sale) = sale_of(&system.stack).await?;
            let (mut sold, mut users) = (0, 0);
            for ((_, before), rounds) in PARTS.into_iter().zip(&mut rounds) {
                sell_to(&cluster, &sale, before - sold, BATCH, users).await?;
                // All units that are left are sold last.
                let purchases = (MILLION - before).min(PURCHASES_BETWEEN);
                rounds.push(system.steady(&format!("{before}-{round}"), purchases).await?);
                sold = before + purchases;
                users += 10 * MILLION;
            }
            system.stop().await?;
        }
        let points = PARTS.iter().zip(&rounds).map(|((part, _), rounds)| point((*part).into(), rounds));
        let title = format!(
            "Part of a million units that is sold: the next {} purchases, or the last 1000, {STEADY_RATE}/s",
            PURCHASES_BETWEEN
        );
        Ok(self.axis(&title, points.collect()))
    }

    async fn creation(self) -> Result<Axis> {
        let system = self.start(self.stack()).await?;
        let mut points = Vec::new();
        for shards in [1, 12, 48, 192] {
            let mut times = Vec::new();
            for round in 0..self.options.rounds {
                let began = Instant::now();
                system.create(&format!("made-{shards}-{round}"), MILLION, shards, "1h").await?;
                times.push(began.elapsed().as_secs_f64() * 1e3);
            }
            points.push(Point { at: shards.to_string(), figures: vec![median(times)] });
        }
        system.stop().await?;
        let title = "Creation of a sale of a million units, by its shards";
        Ok(self.axis_of(title, &["ms until all shards are confirmed"], 1, points))
    }

    async fn connections(self) -> Result<Axis> {
        let open_files = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, rustix::process::Rlimit { current: open_files.maximum, ..open_files })?;
        let mut points = Vec::new();
        for connections in [0, 1_000, 10_000] {
            let system = self.start(self.stack()).await?;
            let node = system.node_pids().first().copied().context("the stack has a node")?;
            let before = procfs::resident_bytes(node).context("the node runs")?;
            let _open = connect(system.node_urls().first().context("a node")?, connections).await?;
            let after = procfs::resident_bytes(node).context("the node runs")?;
            let grown = after.saturating_sub(before) as f64 / 1e3;
            let figures = vec![after as f64 / 1e6, grown / f64::from(u32::try_from(connections.max(1))?)];
            points.push(Point { at: connections.to_string(), figures });
            system.stop().await?;
        }
        let title = "Connections to a node that have read the status once";
        Ok(self.axis_of(title, &["MB of the node", "kB a connection"], 1, points))
    }

    fn axis(self, title: &str, points: Vec<Point>) -> Axis {
        let columns = ["nodes", "primaries", "replicas", "coordinator", "all", "calls a purchase", "bare us"];
        self.axis_of(title, &columns, 4, points)
    }

    fn axis_of(self, title: &str, columns: &[&str], stacked: usize, points: Vec<Point>) -> Axis {
        let columns = columns.iter().map(|&column| column.to_owned()).collect();
        Axis { title: title.into(), profile: self.options.profile.clone(), columns, stacked, points }
    }

    fn sale_of_units(self, total_stock: u64) -> SaleOptions {
        SaleOptions { total_stock, ..self.sale() }
    }

    /// Measures purchases at the highest rate, at one value of an axis.
    async fn point(self, at: String, system: &System, sales: u32) -> Result<Point> {
        let (mut rounds, duration) = (Vec::new(), Duration::from_secs(self.options.seconds));
        for round in 0..self.options.rounds {
            rounds.push(system.peak(round, duration, sales).await?);
        }
        Ok(point(at, &rounds))
    }
}

impl System {
    fn node_urls(&self) -> Vec<String> {
        self.stack.nodes().iter().map(|node| node.url().to_owned()).collect()
    }

    fn node_pids(&self) -> Vec<u32> {
        self.stack.nodes().iter().map(|node| node.process().pid()).collect()
    }

    fn coordinator(&self) -> Result<String> {
        Ok(self.stack.coordinators().first().context("the stack has a coordinator")?.url().to_owned())
    }

    async fn create(&self, id: &str, units: u64, shards: u32, ends_at: &str) -> Result<()> {
        let sale = json!({
            "id": id, "totalStock": units, "shards": shards, "startsAt": "0s", "endsAt": ends_at,
            "productName": "Lamp", "productPrice": 5.0,
        });
        let coordinator = self.coordinator()?;
        // A busy machine may not confirm a creation in time. It may be repeated.
        until_ok("creation of a sale", LIMIT, || self.stack.admin().create(&coordinator, &sale)).await
    }

    /// Measures as many purchases as the nodes answer, and as many requests as the bare handler does.
    async fn peak(&self, round: u32, duration: Duration, sales: u32) -> Result<Round> {
        let nodes = self.node_urls();
        let part = Connections::open(CONNECTIONS / u16::try_from(nodes.len())?);
        let purchases = async |meter: &Meter| {
            let mut running = JoinSet::new();
            for (number, url) in nodes.iter().cloned().enumerate() {
                let requests = Requests::purchases(PURCHASE, format!("{round}-{number}")).over_sales(sales);
                let wrk = self.wrk.clone();
                running.spawn(async move { wrk.run(&url, &requests, part, duration).await });
            }
            let mut sent = 0.0;
            while let Some(report) = running.join_next().await {
                let report = report??;
                ensure!(
                    report.refused == 0.0,
                    "{} of {} purchases were refused",
                    report.refused,
                    report.requests
                );
                sent += report.requests;
            }
            Ok((sent, meter.read()))
        };
        let bare = async |meter: &Meter| {
            let requests = Requests::purchases(PURCHASE, "bare");
            let report =
                self.wrk.run(&self.bare.url, &requests, Connections::open(CONNECTIONS), duration).await?;
            Ok((report.requests, meter.read()))
        };
        self.round(purchases, bare).await
    }

    /// Measures this number of purchases at a steady rate, and as many requests of the bare handler.
    async fn steady(&self, users: &str, purchases: u64) -> Result<Round> {
        let node = self.node_urls().first().context("the stack has a node")?.clone();
        let send = async |meter: &Meter, url: &str| {
            let load = OpenLoop {
                addr: url.trim_start_matches("http://").parse()?,
                host: "sale".into(),
                path: PURCHASE.into(),
                users: users.to_owned(),
                rate: STEADY_RATE,
                duration: Duration::from_secs_f64(purchases as f64 / f64::from(STEADY_RATE)),
                connections: CONNECTIONS.into(),
            };
            let results = load.run().await?;
            let sold = results.iter().filter(|result| result.answer.kind == AnswerKind::Purchased).count();
            ensure!(sold == results.len(), "{sold} of {} requests bought a unit", results.len());
            Ok((sold as f64, meter.read()))
        };
        self.round(
            async |meter: &Meter| send(meter, &node).await,
            async |meter: &Meter| send(meter, &self.bare.url).await,
        )
        .await
    }

    /// Measures purchases, then the bare handler. Both return the number of their requests and the meter at the end.
    async fn round(
        &self,
        purchases: impl AsyncFnOnce(&Meter) -> Result<(f64, CpuTime)>,
        bare: impl AsyncFnOnce(&Meter) -> Result<(f64, CpuTime)>,
    ) -> Result<Round> {
        let meter = Meter::of_stack(&self.stack, self.node_pids()).await;
        let calls = async || anyhow::Ok(self.stack.redis().command_stats("fcall").await?.calls);
        let (calls_before, before) = (calls().await?, meter.read());
        let (sold, after) = purchases(&meter).await?;
        let calls = calls().await? - calls_before;
        let bare_meter = Meter { servers: vec![self.bare.pid()], ..Meter::default() };
        let bare_before = bare_meter.read();
        let (requests, bare_after) = bare(&bare_meter).await?;
        Ok(Round {
            cpu_us: after.since(before, sold),
            calls: calls as f64 / sold,
            bare_us: bare_after.since(bare_before, requests).server,
        })
    }

    async fn stop(self) -> Result<()> {
        let audit = self.stack.audit("flash").await?;
        ensure!(audit.ok, "the audit found {:?}", audit.violations);
        self.stack.stop().await
    }
}

/// The medians of some rounds, in bare handlers.
fn point(at: String, rounds: &[Round]) -> Point {
    let in_bare = |part: fn(CpuTime) -> f64| {
        median(rounds.iter().map(|round| part(round.cpu_us) / round.bare_us).collect())
    };
    let figures = vec![
        in_bare(|cpu| cpu.server),
        in_bare(|cpu| cpu.primaries),
        in_bare(|cpu| cpu.replicas),
        in_bare(|cpu| cpu.others),
        in_bare(CpuTime::all),
        median(rounds.iter().map(|round| round.calls).collect()),
        median(rounds.iter().map(|round| round.bare_us).collect()),
    ];
    Point { at, figures }
}

fn median(values: Vec<f64>) -> f64 {
    Spread::of(values).map_or(0.0, |spread| spread.median)
}

/// Opens connections, and reads the sale's status on each.
async fn connect(url: &str, connections: usize) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(connections);
    while streams.len() < connections {
        let mut connecting = JoinSet::new();
        for _ in 0..CONCURRENT_CONNECTS.min(connections - streams.len()) {
            let address = url.trim_start_matches("http://").to_owned();
            connecting.spawn(async move {
                let mut stream = TcpStream::connect(&address).await?;
                stream.write_all(b"GET /api/sale/status HTTP/1.1\r\nhost: sale\r\n\r\n").await?;
                ensure!(stream.read(&mut [0; 1024]).await? > 0, "the node closed a connection");
                Ok(stream)
            });
        }
        while let Some(stream) = connecting.join_next().await {
            streams.push(stream??);
        }
    }
    Ok(streams)
}
