//! `cargo xtask test`: every check there is. What CI runs is this command.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Result, bail};
use clap::Args;
use testkit::{ServerBinary, binary::cargo, workspace_root};

use crate::install::{
    ENVSUBST, FAKETIME, NGINX, OPENSSL, PROMETHEUS, REDIS, REDIS_EXPORTER, deploy_tools, ensure_installed,
    valkey,
};
use crate::scratch::Scratch;

/// `loadtest` is built and tested by itself: with Goose's features among those of all others, everything would be built twice.
const WORKSPACE: [&str; 3] = ["--workspace", "--exclude", "loadtest"];

/// The tests in which a server has a say. Targets are chosen, not packages: another choice of packages would be another
/// choice of their dependencies' features, and most would be built again.
const WITH_A_SERVER: [&str; 7] = ["on_redis", "edge", "redis_cluster", "sale", "attacks", "secured", "redis"];

/// What the chaos of each server is made from.
const CHAOS_SEEDS: [&str; 2] = ["17", "23"];

/// What `test` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Test against this server only; without it against Debian's redis-server, then against Valkey.
    #[arg(long, value_name = "PATH")]
    redis_server: Option<PathBuf>,
}

/// Lints do not stop the tests: one run tells everything that is wrong. What does not compile does.
pub(crate) fn test(options: &Options) -> Result<()> {
    let servers = servers(options)?;
    let mut report = Report { scratch: Scratch::make()?, lines: Vec::new(), failed: 0 };
    report.cargo("format", &["fmt", "--check"]);
    report.cargo("lints", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
    if report.cargo("build", &[&["build"], &WORKSPACE[..], &["--bins"]].concat()) {
        report.tests(&servers);
        report.load_tests(&servers);
        report.cargo("browser", &["xtask", "browser"]);
        report.chaos(&servers);
        report.fuzzing(&servers);
    }
    report.close()
}

fn servers(options: &Options) -> Result<Vec<ServerBinary>> {
    ensure_installed(&[ENVSUBST, FAKETIME, NGINX, OPENSSL, PROMETHEUS, REDIS_EXPORTER])?;
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
    /// The first server sees every test; the others those in which a server has a say.
    fn tests(&mut self, servers: &[ServerBinary]) {
        for (i, server) in servers.iter().enumerate() {
            let targets: &[&str] = if i == 0 { &[] } else { &WITH_A_SERVER };
            let narrower = targets.iter().flat_map(|target| ["--test", target]);
            let command = ["test", "--no-fail-fast"].into_iter().chain(WORKSPACE).chain(narrower);
            let command: Vec<&str> = command.collect();
            self.step(&format!("tests, {}", short_version(server)), &command, Some(server.path()));
        }
    }

    /// The load test against sound and broken sales.
    fn load_tests(&mut self, servers: &[ServerBinary]) {
        let Some(server) = servers.first() else { return };
        self.step("load test", &["test", "--package", "loadtest"], Some(server.path()));
    }

    /// A minute of faults on each server, by seeds that have nearly every kind between them.
    fn chaos(&mut self, servers: &[ServerBinary]) {
        for (seed, server) in CHAOS_SEEDS.iter().zip(servers) {
            let run = ["xtask", "chaos", "--duration", "1m", "--pace", "5s", "--rate", "150", "--seed", seed];
            let server_path = server.path().to_string_lossy();
            let command = [&run[..], &["--redis-server", &server_path]].concat();
            self.cargo(&format!("chaos, {}", short_version(server)), &command);
        }
    }

    /// Thousands of questions that are made from the API's own description. What answers them is no server's affair.
    fn fuzzing(&mut self, servers: &[ServerBinary]) {
        let Some(server) = servers.first() else { return };
        let server_path = server.path().to_string_lossy();
        self.cargo("API fuzzing", &["xtask", "fuzz", "--redis-server", &server_path]);
    }

    fn cargo(&mut self, name: &str, arguments: &[&str]) -> bool {
        self.step(name, arguments, None)
    }

    /// Runs one step with its output in sight; says whether it passed.
    fn step(&mut self, name: &str, arguments: &[&str], redis_server: Option<&Path>) -> bool {
        println!("\n== {name}: cargo {}", arguments.join(" "));
        let began = Instant::now();
        let mut cargo = cargo();
        cargo.args(arguments);
        self.scratch.lend_to(&mut cargo);
        cargo.envs(redis_server.map(|path| ("REDIS_SERVER", path)));
        let passed = cargo.status().is_ok_and(|status| status.success());
        let outcome = if passed { "passed" } else { "FAILED" };
        self.lines.push(format!("{outcome}  {:6.1} s  {name}", began.elapsed().as_secs_f64()));
        self.failed += usize::from(!passed);
        passed
    }

    fn close(self) -> Result<()> {
        println!("\n{}", self.lines.join("\n"));
        if self.failed > 0 {
            self.scratch.keep();
            bail!("{} of {} steps failed", self.failed, self.lines.len());
        }
        Ok(())
    }
}

/// `Redis server v=7.0.15 sha=…` without what follows the version.
fn short_version(server: &ServerBinary) -> String {
    server.version().split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
