//! `cargo xtask test`: every check. CI runs this command.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Result, bail};
use clap::Args;
use testkit::{ServerBinary, binary::cargo, workspace_root};

use crate::install::{
    ENVSUBST, FAKETIME, NGINX, OPENSSL, POSTGRESQL, PROMETHEUS, RABBITMQ, REDIS, REDIS_EXPORTER, WRK,
    cargo_deny, deploy_tools, ensure_installed, valkey,
};
use crate::scratch::Scratch;

/// `loadtest` is built and tested separately: together with Goose's features all other crates would be built a second
/// time.
const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "loadtest"];

/// The test targets whose results depend on the Redis server. Targets are selected instead of packages, because
/// another set of packages would enable other dependency features and rebuild most crates.
const SERVER_TEST_TARGETS: [&str; 6] = ["on_redis", "edge", "redis_cluster", "sale", "secured", "redis"];

/// Stories of these targets that are about nodes, coordinators and their clients, and take long. They run on the first
/// server only.
const SERVER_INDEPENDENT_STORIES: [&str; 7] = [
    "polling_client_buys_when_sale_opens",
    "node_sheds_load_at_four_times_capacity",
    "rebalancing_keeps_steal_delays_rare",
    "replacing_coordinators_in_turn_fails_no_request",
    "replacing_nodes_in_turn_fails_no_request",
    "replacing_nodes_with_a_spare_fails_no_request",
    "requests_after_idling_reach_node_with_longer_idle_timeout",
];

/// One chaos seed per server.
const CHAOS_SEEDS: [&str; 2] = ["17", "23"];

/// Arguments of `cargo xtask test`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Test against this server only. Without it, tests run against Debian's redis-server, then against Valkey.
    #[arg(long, value_name = "PATH")]
    redis_server: Option<PathBuf>,

    /// Only format, lints, unit and property tests, and one sale on a Redis Cluster: under three minutes once built.
    #[arg(long)]
    quick: bool,
}

/// The sale of `--quick`: a crowd buys all units from real nodes behind nginx.
const QUICK_STORY: &str = "crowd::thousand_units_go_to_distinct_buyers";

/// Runs all steps. Failing lints do not stop the tests, so that one run reports every problem. A failing build does.
pub(crate) fn test(options: &Options) -> Result<()> {
    if options.quick {
        return quick_test(options);
    }
    let servers = servers(options)?;
    let mut report = Report::begin()?;
    report.style();
    report.dependencies();
    if report.cargo("build", &[&["build"], &WORKSPACE[..], &["--bins"]].concat()) {
        report.tests(&servers);
        report.load_tests(&servers);
        report.cargo("browser", &["xtask", "browser"]);
        report.benchmark(&servers);
        report.chaos(&servers);
        report.fuzzing(&servers);
    }
    report.close()
}

fn quick_test(options: &Options) -> Result<()> {
    ensure_installed(&[ENVSUBST, NGINX])?;
    let server = match &options.redis_server {
        Some(path) => ServerBinary::at(path)?,
        None => {
            ensure_installed(&[REDIS])?;
            ServerBinary::find()?
        }
    };
    let mut report = Report::begin()?;
    report.style();
    let unit_tests = ["--lib", "--bins", "--test", "prose", "--test", "documentation"];
    report.cargo("unit tests", &[&["test", "--no-fail-fast"], &WORKSPACE[..], &unit_tests].concat());
    let story = [&["test"], &WORKSPACE[..], &["--test", "sale", "--", QUICK_STORY]].concat();
    report.step("a sale", &story, Some(server.path()));
    report.close()
}

fn servers(options: &Options) -> Result<Vec<ServerBinary>> {
    ensure_installed(&[
        ENVSUBST,
        FAKETIME,
        NGINX,
        OPENSSL,
        POSTGRESQL,
        PROMETHEUS,
        RABBITMQ,
        REDIS_EXPORTER,
        WRK,
    ])?;
    deploy_tools()?;
    if let Some(path) = &options.redis_server {
        return Ok(vec![ServerBinary::at(path)?]);
    }
    ensure_installed(&[REDIS])?;
    let valkey = valkey(&workspace_root().join(".local/valkey"))?;
    Ok(vec![ServerBinary::find()?, ServerBinary::at(valkey)?])
}

/// The outcome of each step.
#[derive(Debug)]
struct Report {
    scratch: Scratch,
    lines: Vec<String>,
    failed: usize,
}

impl Report {
    fn begin() -> Result<Self> {
        Ok(Self { scratch: Scratch::make()?, lines: Vec::new(), failed: 0 })
    }

    fn style(&mut self) {
        self.cargo("format", &["fmt", "--check"]);
        self.cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    }

    /// Checks the licences, versions and sources of dependencies, where the program that does so can be installed.
    fn dependencies(&mut self) {
        match cargo_deny(&workspace_root().join(".local/cargo-deny")) {
            Ok(program) => {
                let mut check = Command::new(program);
                check.args(["check", "licenses", "bans", "sources"]).current_dir(workspace_root());
                self.run("dependencies", "cargo deny check licenses bans sources", check);
            }
            Err(error) => {
                say!("{error:#}");
                self.lines
                    .push("skipped            dependencies: cargo-deny cannot be installed here".into());
            }
        }
    }

    /// Runs all tests on the first server. On the others, runs the tests whose results depend on the server.
    fn tests(&mut self, servers: &[ServerBinary]) {
        for (i, server) in servers.iter().enumerate() {
            let mut command = [&["test", "--no-fail-fast"], &WORKSPACE[..]].concat();
            if i > 0 {
                command.extend(SERVER_TEST_TARGETS.iter().flat_map(|target| ["--test", target]));
                command.push("--");
                command.extend(SERVER_INDEPENDENT_STORIES.iter().flat_map(|story| ["--skip", story]));
            }
            self.step(&format!("tests, {}", short_version(server)), &command, Some(server.path()));
        }
    }

    /// Runs the load test against correct and broken sales.
    fn load_tests(&mut self, servers: &[ServerBinary]) {
        let Some(server) = servers.first() else { return };
        self.step("load test", &["test", "--package", "loadtest"], Some(server.path()));
    }

    /// Injects faults for a minute on each server. The seeds together cover nearly every kind of fault.
    fn chaos(&mut self, servers: &[ServerBinary]) {
        for (seed, server) in CHAOS_SEEDS.iter().zip(servers) {
            let run = ["xtask", "chaos", "--duration", "1m", "--pace", "5s", "--rate", "150", "--seed", seed];
            let server_path = server.path().to_string_lossy();
            let command = [&run[..], &["--redis-server", &server_path]].concat();
            self.cargo(&format!("chaos, {}", short_version(server)), &command);
        }
    }

    /// Sends thousands of requests generated from the API's own OpenAPI document. Runs on one server, because the
    /// results do not depend on it.
    fn fuzzing(&mut self, servers: &[ServerBinary]) {
        let Some(server) = servers.first() else { return };
        let server_path = server.path().to_string_lossy();
        self.cargo("API fuzzing", &["xtask", "fuzz", "--redis-server", &server_path]);
    }

    /// Compares the cost of a purchase with bounds. Runs on one server, and with the programs that the tests have built.
    fn benchmark(&mut self, servers: &[ServerBinary]) {
        let Some(server) = servers.first() else { return };
        self.step("cost of a purchase", &["xtask", "bench", "quick"], Some(server.path()));
    }

    fn cargo(&mut self, name: &str, arguments: &[&str]) -> bool {
        self.step(name, arguments, None)
    }

    fn step(&mut self, name: &str, arguments: &[&str], redis_server: Option<&Path>) -> bool {
        let mut cargo = cargo();
        cargo.args(arguments);
        cargo.envs(redis_server.map(|path| ("REDIS_SERVER", path)));
        self.run(name, &format!("cargo {}", arguments.join(" ")), cargo)
    }

    /// Runs one step and shows its output. Returns true when it passed.
    fn run(&mut self, name: &str, shown: &str, mut command: Command) -> bool {
        say!("\n== {name}: {shown}");
        let began = Instant::now();
        self.scratch.set_tmpdir(&mut command);
        let passed = command.status().is_ok_and(|status| status.success());
        let outcome = if passed { "passed" } else { "FAILED" };
        self.lines.push(format!("{outcome}  {:6.1} s  {name}", began.elapsed().as_secs_f64()));
        self.failed += usize::from(!passed);
        passed
    }

    fn close(self) -> Result<()> {
        say!("\n{}", self.lines.join("\n"));
        if self.failed > 0 {
            self.scratch.keep();
            bail!("{} of {} steps failed", self.failed, self.lines.len());
        }
        Ok(())
    }
}

/// Shortens `Redis server v=7.0.15 sha=…` to the part up to the version.
fn short_version(server: &ServerBinary) -> String {
    server.version().split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
