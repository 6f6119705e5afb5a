//! The subcommand `cluster`: forms, grows and checks the Redis Cluster, without running a coordinator.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Command, Parser, ValueEnum};
use cluster_admin::{AdminError, ClusterAdmin, Goal, GroupStatus, Request};
use rediscluster::Address;
use service::settings::{RedisSettings, parse_subcommand, positive_duration, refuse};
use service::{connect, exit};

/// Name of the subcommand.
const NAME: &str = "cluster";

/// The subcommand, as shown in the program's help.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Forms, grows or checks the Redis Cluster; `cluster --help` has its own settings")
}

/// Runs the subcommand if the command line asks for it, and returns its exit code; otherwise returns `None`.
pub async fn run_if_requested() -> Option<ExitCode> {
    let settings: ClusterSettings = parse_subcommand(&command())?;
    connect::install_crypto_provider();
    let options = settings.redis.connect_options();
    let report = |line: &str| print_progress(line);
    let admin = ClusterAdmin::new(&options, &settings.pairs.0, settings.wait_limit, &report);
    Some(exit::code(settings.run(&admin).await))
}

/// Forms, grows or checks a Redis Cluster of pairs.
///
/// It can be run at any time, repeatedly, and killed at any point: each step reads the servers' state and does only what
/// is missing. Only one may run at a time. It never changes which server of a pair is the primary, moves a slot only to
/// a primary that is replicated, and does not touch servers that hold data of another cluster. It does not shrink a
/// cluster.
///
/// Exit codes: 0 when the cluster is healthy; 64 when a setting is invalid or the login is refused; 1 with one line when
/// it refuses to act or a condition is not met in time.
#[derive(Parser)]
#[command(name = NAME)]
pub struct ClusterSettings {
    /// The action
    #[arg(value_enum)]
    action: Action,

    /// The servers: host:port,host:port host:port,host:port … A pair is a primary and its replica, by the names in
    /// their certificates. Either may be the primary; in a new pair it is the first
    #[arg(long, env)]
    pairs: Pairs,

    /// How to log in. REDIS_URL selects TLS by rediss://
    #[command(flatten)]
    redis: RedisSettings,

    /// Longest time to wait for each condition
    #[arg(long, env, value_parser = positive_duration, default_value = "5m")]
    wait_limit: Duration,

    /// When the data of a pair is lost for good, together with its nodes.conf: assign its slots again, empty
    #[arg(long)]
    accept_data_loss: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    /// Makes all servers members and repairs the cluster. A new pair gets slots only while the cluster is created
    Form,
    /// The same, and gives each pair its share of the slots
    Grow,
    /// Shows each pair: primary, replica, slots, link and keys. Changes nothing
    Check,
}

/// The servers, pair by pair.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pairs(Vec<Vec<Address>>);

impl ClusterSettings {
    async fn run(&self, admin: &ClusterAdmin<'_>) -> anyhow::Result<()> {
        let goal = match self.action {
            Action::Form => Goal::Form,
            Action::Grow => Goal::Grow,
            Action::Check => return check(admin).await,
        };
        match admin.run(Request { goal, accept_data_loss: self.accept_data_loss }).await {
            Ok(true) => print_progress("the cluster is healthy"),
            Ok(false) => print_progress("nothing to do"),
            Err(forbidden @ AdminError::Forbidden(_)) => refuse(forbidden),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

async fn check(admin: &ClusterAdmin<'_>) -> anyhow::Result<()> {
    let status = admin.status().await;
    write!(io::stdout(), "{}", table(&status.groups)).ok();
    status.problem.map_or(Ok(()), |problem| Err(anyhow!(problem)))
}

/// Prints a line on standard error. A reader that is gone does not stop the work.
fn print_progress(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

fn table(groups: &[GroupStatus]) -> String {
    let mut table = row(["pair", "primary", "replica", "slots", "link", "keys"]);
    for (i, group) in groups.iter().enumerate() {
        let text = |address: Option<&Address>| address.map_or("-".to_owned(), Address::to_string);
        let replica = group.replicas.first();
        let link = replica.map_or("-", |(_, is_up)| if *is_up { "up" } else { "down" });
        let (primary, replica) = (text(group.primary.as_ref()), text(replica.map(|(address, _)| address)));
        let (slots, keys) = (group.slots.to_string(), group.keys.to_string());
        table += &row([&(i + 1).to_string(), &primary, &replica, &slots, link, &keys]);
    }
    table
}

fn row([pair, primary, replica, slots, link, keys]: [&str; 6]) -> String {
    let mut row = String::new();
    writeln!(row, "{pair:<4}  {primary:<28}  {replica:<28}  {slots:>6}  {link:<4}  {keys:>9}")
        .expect("a String grows");
    row
}

impl FromStr for Pairs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs = text.split_whitespace().map(pair).collect::<Result<Vec<_>, _>>()?;
        let mut servers: Vec<&Address> = pairs.iter().flatten().collect();
        servers.sort();
        match servers.windows(2).find(|both| both[0] == both[1]) {
            Some(both) => Err(format!("{} is listed twice", both[0])),
            None if pairs.is_empty() => Err("must name a pair".to_owned()),
            None => Ok(Self(pairs)),
        }
    }
}

fn pair(text: &str) -> Result<Vec<Address>, String> {
    let servers: Option<Vec<Address>> = text.split(',').map(server).collect();
    let pair = servers.filter(|servers| servers.len() == 2);
    pair.ok_or_else(|| format!("{text} is not host:port,host:port"))
}

fn server(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    (!host.is_empty()).then(|| Address { host: host.into(), port })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_well_formed() {
        ClusterSettings::command().debug_assert();
    }

    #[test]
    fn pairs_are_host_and_port_twice() {
        let Pairs(pairs) = "a:1,b:2\n c.d:3,[::1]:4".parse().unwrap();
        let pairs: Vec<String> = pairs.iter().map(|pair| format!("{} {}", pair[0], pair[1])).collect();
        assert_eq!(pairs, ["a:1 b:2", "c.d:3 [::1]:4"]);
        for invalid in ["", "a:1", "a:1,b", "a:1,b:2,c:3", ":1,b:2", "a:1,b:2 b:2,c:3", "a:1,b:70000"] {
            assert!(invalid.parse::<Pairs>().is_err(), "{invalid:?} was taken");
        }
    }
}
