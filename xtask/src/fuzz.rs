//! `cargo xtask fuzz`: questions the API of a real sale by its own description, with schemathesis.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use testkit::{ServerBinary, Stack, StackOptions, stack::SaleOptions, workspace_root};
use tokio::{process::Command, time::timeout};

use crate::{
    install::{NGINX, REDIS, ensure_installed, python_environment},
    interruption::Interruption,
    steps::Steps,
    up::build,
};

/// A run takes less than a minute on two cores that do nothing else.
const RUN_LIMIT: Duration = Duration::from_mins(5);
/// More than anybody asks for: a sale that ends would answer everything alike.
const STOCK: u64 = 1_000_000;

const ALL_PHASES: &str = "examples,coverage,fuzzing,stateful";
/// Nobody has a token that it would take.
const WITH_TOKENS: [(&str, &str); 4] = [
    ("AUTH", "jwt"),
    ("JWT_SECRET", "known to nobody who asks anything"),
    ("JWT_AUDIENCE", "flash-sale"),
    ("JWT_ISSUER", "https://shop.example"),
];

/// What `fuzz` is told.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// What the questions are made from.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u32,
    /// Questions of each kind and operation.
    #[arg(long, value_name = "QUESTIONS", default_value_t = 100)]
    max_examples: u32,
    /// The Redis or Valkey server to run; `redis-server` from the PATH if not given.
    #[arg(long, value_name = "PATH")]
    redis_server: Option<PathBuf>,
}

pub(crate) async fn fuzz(options: Options) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    tokio::select! {
        fuzzed = question(&options) => fuzzed,
        () = interruption.comes() => bail!("interrupted; nothing is left running"),
    }
}

/// A node by itself, then nodes behind nginx, which may not answer otherwise, then a node that wants to know who asks.
async fn question(options: &Options) -> Result<()> {
    let redis_server = options.redis_server.as_ref().map(ServerBinary::at).transpose()?;
    ensure_installed(if redis_server.is_some() { &[NGINX] } else { &[REDIS, NGINX] })?;
    let schemathesis = Schemathesis::installed()?;
    let sale = SaleOptions { total_stock: STOCK, ..SaleOptions::default() };
    let (programs, steps) = (build("dev")?, Steps::begin());
    // Most questions are about the user of the examples: with the usual minute, most would be refused for that alone.
    let node_environment = environment(&[("RATE_LIMIT_WINDOW", "1s")]);
    let node_program = programs.node.clone();
    let (programs, folder) = (Some(programs), Some(workspace_root().join(".local/fuzz")));
    let stack_options =
        StackOptions { redis_server, programs, sale, folder, node_environment, ..StackOptions::default() };
    let stack = Stack::start(stack_options, |step| steps.done(step)).await?;
    let node = stack.nodes().first().cloned().context("a stack without nodes")?;
    let strict_node = stack.start_node_aside(&node_program, &environment(&WITH_TOKENS)).await?;

    schemathesis.question("a node", node.url(), ALL_PHASES, options).await?;
    schemathesis.question("nginx", &stack.url(), ALL_PHASES, options).await?;
    schemathesis.question("a node with AUTH=jwt", strict_node.url(), "examples,coverage", options).await?;

    let audit = stack.audit(&SaleOptions::default().id).await?;
    ensure!(audit.ok && audit.sold > 0, "afterwards the books are not in order: {audit:?}");
    println!("\n{} units were sold meanwhile, and the books are in order", audit.sold);
    stack.stop().await
}

/// The program, and what it is told.
struct Schemathesis {
    program: PathBuf,
    /// It writes its notes here.
    folder: PathBuf,
}

impl Schemathesis {
    fn installed() -> Result<Self> {
        let (sources, folder) = (sources(), workspace_root().join(".local/schemathesis"));
        let environment = python_environment(&folder.join("python"), &sources.join("requirements.txt"))?;
        let notes = folder.join("run");
        fs::create_dir_all(&notes)?;
        Ok(Self { program: environment.join("bin/schemathesis"), folder: notes })
    }

    /// Asks everything that the document of this address describes, and holds each answer against it.
    async fn question(&self, who: &str, url: &str, phases: &str, options: &Options) -> Result<()> {
        println!("\nquestioning {who}, {url}");
        let mut run = Command::new(&self.program);
        run.current_dir(&self.folder)
            .env("SCHEMATHESIS_HOOKS", sources().join("hooks.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("--config-file")
            .arg(sources().join("schemathesis.toml"))
            .args(["run", &format!("{url}/api/openapi.json"), "--checks", "all"])
            .args(["--phases", phases])
            .args(["--seed", &options.seed.to_string()])
            .args(["--max-examples", &options.max_examples.to_string()])
            .kill_on_drop(true);
        let ended = timeout(RUN_LIMIT, run.status()).await;
        let status = ended.with_context(|| format!("{who} was not done after {RUN_LIMIT:?}"))??;
        ensure!(status.success(), "schemathesis about {who}: {status}");
        Ok(())
    }
}

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Where its configuration, its hooks and the versions of what it stands on are.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuzz")
}
