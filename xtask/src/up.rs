//! `cargo xtask up`: a complete sale on this machine, until Ctrl-C.

mod sale_line;
mod watch;

use std::{fs::File, path::PathBuf, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, value_parser};
use jiff::SignedDuration;
use stock::sale::TOTAL_STOCK_MAX;
use testkit::{
    BuildProfile, Lifetime, ServerBinary, Stack, StackOptions,
    stack::{PortPlan, Programs, SaleOptions},
};

use crate::{
    install::{NGINX, POSTGRESQL, PROMETHEUS, RABBITMQ, REDIS, REDIS_EXPORTER, ensure_installed},
    interruption::Interruption,
    running::{LocalFolder, RunningSystem},
    steps::Steps,
};

use watch::watch_until_interrupted;

const PORTS_HINT: &str = "every port follows from `--port`: choose another one, or stop what is in the way";

/// Arguments of `cargo xtask up`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave everything running and return. `cargo xtask down` stops it.
    #[arg(long)]
    detach: bool,
    /// Run Prometheus as well, with the rules and alerts of `dashboards`.
    #[arg(long)]
    observe: bool,
    /// Run no ledger and no PostgreSQL: orders stay in Redis alone.
    #[arg(long)]
    no_ledger: bool,
    /// Run RabbitMQ as well. The ledger delivers each order to it, and a consumer prints what it gets.
    #[arg(long, conflicts_with = "no_ledger")]
    feed: bool,
    /// Units to sell.
    #[arg(long, value_name = "UNITS", default_value_t = 1000, value_parser = value_parser!(u64).range(1..=TOTAL_STOCK_MAX))]
    stock: u64,
    /// Number of shards of the sale. By default as many per primary as the units need.
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    shards: Option<u32>,
    /// Number of nodes behind nginx.
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u16).range(1..=i64::from(PortPlan::NODES_MAX)))]
    nodes: u16,
    /// The public port. All other services listen on the hundred ports after it.
    #[arg(long, default_value_t = 8080, value_parser = value_parser!(u16).range(1..=i64::from(PortPlan::FIRST_MAX)))]
    port: u16,
    /// Time from now until the sale opens, for example `10s` or `1m`.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = time)]
    starts_in: Duration,
    /// How long the sale is open, longer than zero.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = positive_time)]
    duration: Duration,
    /// The Redis or Valkey server to run. Defaults to `redis-server` from the PATH.
    #[arg(long, value_name = "PATH")]
    redis_server: Option<PathBuf>,
    /// The cargo profile that the programs are built with.
    #[arg(long, default_value = "dev", value_parser = ["dev", "release"])]
    profile: String,
    /// The folder for data, logs and `up.json`. Defaults to `.local` in the workspace.
    #[arg(long, value_name = "PATH")]
    folder: Option<PathBuf>,
}

pub(crate) async fn up(options: Options) -> Result<()> {
    let folder = LocalFolder::at(options.folder.as_deref())?;
    let _lock = lock_folder(&folder)?;
    let steps = Steps::begin();
    let stack_options = prepare(&options, &folder)?;
    steps.done("programs are built");
    let mut interruption = Interruption::listen()?;
    let stack = tokio::select! {
        stack = start(stack_options, steps) => stack?,
        () = interruption.received() => bail!("interrupted; nothing is left running"),
    };
    folder.write(&RunningSystem::of(&stack, options.detach).await)?;
    announce(&stack, &folder);
    if options.detach {
        stack.release();
        say!("\n`cargo xtask down` stops it");
        return Ok(());
    }
    watch_until_interrupted(&stack, &mut interruption).await;
    shut_down(stack, &folder, &mut interruption).await
}

fn lock_folder(folder: &LocalFolder) -> Result<File> {
    let lock = folder.try_lock()?;
    match folder.read()? {
        Some(running) if running.is_alive() => {
            bail!("an `up` runs already, at {}; `cargo xtask down` stops it", running.url)
        }
        Some(_) => {
            say!("what an earlier `up` left in {} is removed; nothing of it runs", folder.file().display());
            folder.remove_file()?;
        }
        None => {}
    }
    lock.context("another `up` is just starting")
}

/// Prepares the options. Does everything that can fail or take long before the first process starts.
fn prepare(options: &Options, folder: &LocalFolder) -> Result<StackOptions> {
    let redis_server = options.redis_server.as_ref().map(ServerBinary::at).transpose()?;
    ensure_installed(if redis_server.is_some() { &[NGINX] } else { &[REDIS, NGINX] })?;
    ensure_installed(if options.no_ledger { &[] } else { &[POSTGRESQL] })
        .context("`--no-ledger` goes without PostgreSQL")?;
    ensure_installed(if options.feed { &[RABBITMQ] } else { &[] })?;
    ensure_installed(if options.observe { &[PROMETHEUS, REDIS_EXPORTER] } else { &[] })?;
    let ports = PortPlan::starting_at(options.port);
    let stack = StackOptions { redis_server, ports: Some(ports), ..options.stack(folder) };
    let stack = StackOptions { consumer: options.feed.then(PathBuf::new), ..stack };
    stack.ensure_ports_are_free(ports).context(PORTS_HINT)?;
    let programs = Some(build(&options.profile, !options.no_ledger)?);
    let profile = BuildProfile::of_this_program()?.named(&options.profile);
    let consumer = options.feed.then(|| profile.build_example("consumer")).transpose()?;
    Ok(StackOptions { programs, consumer, ..stack })
}

impl Options {
    fn stack(&self, folder: &LocalFolder) -> StackOptions {
        StackOptions {
            nodes: self.nodes,
            ledgers: u16::from(!self.no_ledger),
            folder: Some(folder.data()),
            lifetime: if self.detach { Lifetime::Detached } else { Lifetime::Attached },
            observed: self.observe,
            sale: self.sale(),
            ..StackOptions::default()
        }
    }

    fn sale(&self) -> SaleOptions {
        SaleOptions {
            total_stock: self.stock,
            shards: self.shards,
            starts_in: self.starts_in,
            duration: self.duration,
            ..SaleOptions::default()
        }
    }
}

pub(crate) fn build(profile: &str, with_ledger: bool) -> Result<Programs> {
    let profile = BuildProfile::of_this_program()?.named(profile);
    Ok(Programs {
        node: profile.build("flashsale-node")?,
        coordinator: profile.build("flashsale-coordinator")?,
        ledger: with_ledger.then(|| profile.build("flashsale-ledger")).transpose()?,
    })
}

async fn start(options: StackOptions, steps: Steps) -> Result<Stack> {
    Stack::start(options, |step| steps.done(step)).await
}

fn announce(stack: &Stack, folder: &LocalFolder) {
    say!("\nThe sale is at {} - open it in a browser", stack.url());
    if let Some(coordinator) = stack.coordinators().first() {
        say!("The live view is at {}", coordinator.url());
    }
    for node in stack.nodes() {
        say!("  {:13} {}  health {}/readyz", node.process().name(), node.url(), node.ops_url());
    }
    for coordinator in stack.coordinators() {
        say!("  {:13} {}  live view, admin API", coordinator.process().name(), coordinator.url());
    }
    for ledger in stack.ledgers() {
        say!("  {:13} {}  orders API", ledger.process().name(), ledger.url());
    }
    if let Some(postgres) = stack.postgres() {
        say!("  {:13} {}", "PostgreSQL", postgres.url());
    }
    if let Some(rabbitmq) = stack.rabbitmq() {
        say!("  {:13} {}", "RabbitMQ", rabbitmq.url());
    }
    if let Some(consumer) = stack.consumer() {
        say!("  {:13} {} (a line for each order)", consumer.name(), consumer.log().display());
    }
    if let Some(monitoring) = stack.monitoring() {
        say!("  {:13} {}  alerts {}/alerts", "Prometheus", monitoring.url(), monitoring.url());
    }
    say!("  {:13} {}", "Redis", stack.redis().seeds().replace("redis://", ""));
    say!("  {:13} {} (`adminToken`)", "admin token", folder.file().display());
    say!("  {:13} {}", "logs, data", folder.data().display());
    say!("\nBuy one:\n");
    say!(
        "  curl -i {}/api/sale/purchase -H 'content-type: application/json' -d '{{\"userId\":\"ada\"}}'\n",
        stack.url()
    );
    if let Some(ledger) = stack.ledgers().first() {
        say!("All orders, as CSV:\n");
        say!("  curl {}/sales/flash/orders -H 'accept: text/csv' \\", ledger.url());
        say!("    -H \"authorization: Bearer $(jq -r .adminToken {})\"\n", folder.file().display());
    }
}

/// Stops everything in order. A second Ctrl-C kills it without waiting for requests in flight.
async fn shut_down(stack: Stack, folder: &LocalFolder, interruption: &mut Interruption) -> Result<()> {
    say!("stopping: nginx, then the nodes, which drain, then everything else");
    let stopped = tokio::select! {
        stopped = stack.stop() => stopped,
        () = interruption.received() => Err(anyhow!("interrupted again: everything was killed")),
    };
    folder.remove_file()?;
    stopped?;
    say!("all is down");
    Ok(())
}

fn positive_time(text: &str) -> Result<Duration> {
    let time = time(text)?;
    ensure!(!time.is_zero(), "the sale must be open for some time");
    Ok(time)
}

pub(crate) fn time(text: &str) -> Result<Duration> {
    let time: SignedDuration =
        text.parse().with_context(|| format!("`{text}` is not a time such as `90s` or `1h`"))?;
    Duration::try_from(time).context("a time is not negative")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Up {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn impossible_sale_is_refused_before_anything_starts() {
        for (argument, value, word) in [
            ("--stock", "0", "0 is not in 1..="),
            ("--profile", "fast", "[possible values: dev, release]"),
            ("--duration", "0s", "the sale must be open for some time"),
        ] {
            let error = Up::try_parse_from(["up", argument, value]).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(Up::try_parse_from(["up", "--stock", "1", "--duration", "1s"]).is_ok());
    }
}
