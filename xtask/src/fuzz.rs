//! `cargo xtask fuzz`: tests the API of a real sale against its own OpenAPI document, with schemathesis.

use std::{fs, path::PathBuf, time::Duration};

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

/// A run takes less than a minute on two idle cores.
const RUN_LIMIT: Duration = Duration::from_mins(5);
/// More units than a run buys: once a sale is sold out, all requests get the same answer.
const STOCK: u64 = 1_000_000;

const ALL_PHASES: &str = "examples,coverage,fuzzing,stateful";
/// Settings of a node that requires tokens. No request of a run has a valid token.
const JWT_ENVIRONMENT: [(&str, &str); 4] = [
    ("AUTH", "jwt"),
    ("JWT_SECRET", "known to nobody who asks anything"),
    ("JWT_AUDIENCE", "flash-sale"),
    ("JWT_ISSUER", "https://shop.example"),
];

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The seed from which the requests are generated.
    #[arg(long, default_value_t = 20_261_121)]
    seed: u32,
    /// The number of generated requests for each kind and operation.
    #[arg(long, value_name = "REQUESTS", default_value_t = 100)]
    max_examples: u32,
    /// The Redis or Valkey server to run. Defaults to `redis-server` from the PATH.
    #[arg(long, value_name = "PATH")]
    redis_server: Option<PathBuf>,
}

pub(crate) async fn fuzz(options: Options) -> Result<()> {
    let mut interruption = Interruption::listen()?;
    tokio::select! {
        result = run_all(&options) => result,
        () = interruption.received() => bail!("interrupted; nothing is left running"),
    }
}

/// Tests a node directly, then the nodes behind nginx, which must answer in the same way, then a node that requires
/// tokens.
async fn run_all(options: &Options) -> Result<()> {
    let redis_server = options.redis_server.as_ref().map(ServerBinary::at).transpose()?;
    ensure_installed(if redis_server.is_some() { &[NGINX] } else { &[REDIS, NGINX] })?;
    let schemathesis = Schemathesis::installed()?;
    let sale = SaleOptions { total_stock: STOCK, ..SaleOptions::default() };
    let (programs, steps) = (build("dev", false)?, Steps::begin());
    // Most requests use the user of the examples. With the usual window of a minute, the rate limit would refuse most
    // of them.
    let node_environment = environment(&[("RATE_LIMIT_WINDOW", "1s")]);
    let node_program = programs.node.clone();
    let (programs, folder) = (Some(programs), Some(workspace_root().join(".local/fuzz")));
    let stack_options =
        StackOptions { redis_server, programs, sale, folder, node_environment, ..StackOptions::default() };
    let stack = Stack::start(stack_options, |step| steps.done(step)).await?;
    let node = stack.nodes().first().cloned().context("a stack without nodes")?;
    let jwt_node = stack.start_separate_node(&node_program, &environment(&JWT_ENVIRONMENT)).await?;

    schemathesis.run("a node", node.url(), ALL_PHASES, options).await?;
    schemathesis.run("nginx", &stack.url(), ALL_PHASES, options).await?;
    schemathesis.run("a node with AUTH=jwt", jwt_node.url(), "examples,coverage", options).await?;

    let audit = stack.audit(&SaleOptions::default().id).await?;
    ensure!(audit.ok && audit.sold > 0, "the audit failed after the run: {audit:?}");
    say!("\n{} units were sold during the run, and the audit is ok", audit.sold);
    stack.stop().await
}

/// An installed schemathesis.
struct Schemathesis {
    program: PathBuf,
    /// The working directory, where schemathesis writes its files.
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

    /// Tests every operation in the OpenAPI document at this address, and checks each response against the document.
    async fn run(&self, target: &str, url: &str, phases: &str, options: &Options) -> Result<()> {
        say!("\ntesting {target}, {url}");
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.folder)
            .env("SCHEMATHESIS_HOOKS", sources().join("hooks.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("--config-file")
            .arg(sources().join("schemathesis.toml"))
            .args(["run", &format!("{url}/api/openapi.json"), "--checks", "all"])
            .args(["--phases", phases])
            .args(["--seed", &options.seed.to_string()])
            .args(["--max-examples", &options.max_examples.to_string()])
            .kill_on_drop(true);
        let ended = timeout(RUN_LIMIT, command.status()).await;
        let status = ended.with_context(|| format!("{target} was not finished after {RUN_LIMIT:?}"))??;
        ensure!(status.success(), "schemathesis failed for {target}: {status}");
        Ok(())
    }
}

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The folder with the configuration, the hooks and the pinned requirements.
fn sources() -> PathBuf {
    workspace_root().join("xtask/src/fuzz")
}
