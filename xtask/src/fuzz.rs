//! `cargo xtask fuzz`: tests the API of a real sale against its own OpenAPI document, with schemathesis.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use testkit::{ServerBinary, Stack, StackOptions, stack::SaleOptions, workspace_root};
use tokio::{process::Command, time::timeout};

use crate::{
    install::{NGINX, POSTGRESQL, REDIS, ensure_installed, python_environment},
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
/// tokens, and at last a ledger with the orders of these runs.
async fn run_all(options: &Options) -> Result<()> {
    let redis_server = options.redis_server.as_ref().map(ServerBinary::at).transpose()?;
    ensure_installed(if redis_server.is_some() {
        &[NGINX, POSTGRESQL]
    } else {
        &[REDIS, NGINX, POSTGRESQL]
    })?;
    let schemathesis = Schemathesis::installed()?;
    let sale = SaleOptions { total_stock: STOCK, ..SaleOptions::default() };
    let (programs, steps) = (build("dev", true)?, Steps::begin());
    // Most requests use the user of the examples. With the usual window of a minute, the rate limit would refuse most
    // of them.
    let node_environment = environment(&[("RATE_LIMIT_WINDOW", "1s")]);
    let node_program = programs.node.clone();
    let (programs, folder) = (Some(programs), Some(workspace_root().join(".local/fuzz")));
    let options_of_stack = StackOptions::default();
    let stack_options = StackOptions {
        redis_server,
        programs,
        sale,
        folder,
        node_environment,
        ledgers: 1,
        ..options_of_stack
    };
    let stack = Stack::start(stack_options, |step| steps.done(step)).await?;
    let node = stack.nodes().first().cloned().context("a stack without nodes")?;
    let ledger = stack.ledgers().first().cloned().context("a stack without a ledger")?;
    let jwt_node = stack.start_separate_node(&node_program, &environment(&JWT_ENVIRONMENT)).await?;

    let node_api = |name, url: &str, phases| Target {
        name,
        url: format!("{url}/api/openapi.json"),
        phases,
        token: None,
    };
    schemathesis.run(&node_api("a node", node.url(), ALL_PHASES), options).await?;
    schemathesis.run(&node_api("nginx", &stack.url(), ALL_PHASES), options).await?;
    schemathesis.run(&node_api("a node with AUTH=jwt", jwt_node.url(), "examples,coverage"), options).await?;
    let url = format!("{}/openapi.json", ledger.url());
    let token = Some(stack.admin_token());
    let orders_api = Target { name: "a ledger", url, phases: "examples,coverage,fuzzing", token };
    schemathesis.run(&orders_api, options).await?;

    let audit = stack.audit(&SaleOptions::default().id).await?;
    ensure!(audit.ok && audit.sold > 0, "the audit failed after the run: {audit:?}");
    say!("\n{} units were sold during the run, and the audit is ok", audit.sold);
    stack.stop().await
}

/// An API to test.
struct Target<'a> {
    name: &'static str,
    /// Address of its OpenAPI document.
    url: String,
    phases: &'static str,
    /// The bearer token of all requests.
    token: Option<&'a str>,
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

    /// Tests every operation in an OpenAPI document, and checks each response against the document.
    async fn run(&self, target: &Target<'_>, options: &Options) -> Result<()> {
        let Target { name, url, phases, token } = target;
        say!("\ntesting {name}, {url}");
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.folder)
            .env("SCHEMATHESIS_HOOKS", sources().join("hooks.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .arg("--config-file")
            .arg(sources().join("schemathesis.toml"))
            .args(["run", url, "--checks", "all"])
            .args(["--phases", phases])
            .args(["--seed", &options.seed.to_string()])
            .args(["--max-examples", &options.max_examples.to_string()])
            .args(token.map(|token| format!("--header=Authorization: Bearer {token}")))
            .envs(token.map(|token| ("ORDERS_API_TOKEN", token)))
            .kill_on_drop(true);
        let ended = timeout(RUN_LIMIT, command.status()).await;
        let status = ended.with_context(|| format!("{name} was not finished after {RUN_LIMIT:?}"))??;
        ensure!(status.success(), "schemathesis failed for {name}: {status}");
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
