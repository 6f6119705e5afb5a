//! Tests of the program's verdict and exit code, for an intact sale and for one that lost a protection.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use stock::functions::LIBRARY;
use tempfile::TempDir;
use testkit::{Stack, StackOptions, stack::SaleOptions, until};
use tokio::{process::Command, sync::Mutex, time::timeout};

/// Runs one test at a time: parallel ones would compete for the machine's cores and time out.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Time limit of each step, long enough for a busy machine.
const STEP_LIMIT: Duration = Duration::from_secs(60);

/// A short run at a new sale. Its latency limit is high, because the machine may be building something else.
const DUPLICATES: &[&str] =
    &["duplicates", "--users", "4", "--copies", "8", "--run-time", "2s", "--stock", "2000", "--p95", "30s"];

struct Sale {
    stack: Stack,
    reports: TempDir,
}

/// Exit code and output of the program.
struct ProgramOutput {
    code: i32,
    text: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn intact_sale_is_clean_or_misses_threshold() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let sale = Sale::open(50).await;

    let rush = ["rush", "--users", "20", "--step", "1s", "--pause", "50ms", "--p95", "30s"];
    let output = sale.run(&rush).await;
    assert_eq!(output.code, 0, "{}", output.text);
    output.assert_contains("sold                          50  of 50, 50 of them in this run");
    output.assert_contains("verdict: clean");
    for report in ["goose.html", "goose.json", "goose.md", "verdict.txt"] {
        assert!(sale.reports.path().join(report).metadata().unwrap().len() > 0, "{report} is empty");
    }

    let output = sale.run(&["spike", "--rate", "100", "--stock", "30", "--p95", "0s"]).await;
    assert_eq!(output.code, 3, "{}", output.text);
    output.assert_contains("verdict: missed");

    let output = sale.run(&rush).await;
    assert_eq!(output.code, 1, "there is nothing left to buy");
    output.assert_contains("error: sale `flash` is sold out");
}

#[tokio::test(flavor = "multi_thread")]
async fn sale_without_claim_check_is_broken() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let sale = Sale::open(1).await;
    sale.replace_line("local claim = held[buyer] or taken[user]", "local claim = taken[user]").await;

    let output = sale.run(DUPLICATES).await;
    assert_eq!(output.code, 2, "{}", output.text);
    output.assert_contains("has two orders");
    output.assert_contains("but Redis holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn contradicting_answers_are_broken() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let sale = Sale::open(1).await;

    let output = sale.run(DUPLICATES).await;
    assert_eq!(output.code, 0, "{}", output.text);

    sale.replace_line("answers[buyer] = claim\n", "answers[buyer] = 1\n").await;
    let output = sale.run(DUPLICATES).await;
    assert_eq!(output.code, 2, "{}", output.text);
    output.assert_contains("a user buys at most once");
    assert!(!output.text.contains("coordinator's audit"), "{}", output.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn interrupted_run_still_has_a_verdict() {
    let _guard = ONE_AT_A_TIME.lock().await;
    let sale = Sale::open(5).await;
    let soak = ["soak", "--users", "20", "--pause", "100ms", "--p95", "30s"];
    let program = sale.program(&soak).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let sold_out = async || sale.stack.status().await.is_ok_and(|status| status.remaining_stock == 0);
    until("the sale is sold out", STEP_LIMIT, sold_out).await.unwrap();

    let pid = program.id().unwrap().to_string();
    Command::new("kill").args(["-INT", &pid]).status().await.unwrap();

    let output = ProgramOutput::of(timeout(STEP_LIMIT, program.wait_with_output()).await.unwrap().unwrap());
    assert_eq!(output.code, 0, "{}", output.text);
    output.assert_contains("sold                           5  of 5, 5 of them in this run");
}

#[tokio::test]
async fn exit_code_distinguishes_bad_option_and_missing_sale() {
    let program = env!("CARGO_BIN_EXE_flashsale-loadtest");
    let code = async |arguments: &[&str]| {
        Command::new(program).args(arguments).output().await.unwrap().status.code()
    };
    assert_eq!(code(&["rush", "--users", "none"]).await, Some(64));
    assert_eq!(code(&["rush", "--folder", "/nowhere"]).await, Some(1));
    assert_eq!(code(&["--help"]).await, Some(0));
}

impl Sale {
    async fn open(units: u64) -> Self {
        let sale = SaleOptions { total_stock: units, ..SaleOptions::default() };
        let stack = Stack::start(StackOptions { sale, ..StackOptions::default() }, |_| ()).await.unwrap();
        Self { stack, reports: TempDir::new().unwrap() }
    }

    async fn run(&self, arguments: &[&str]) -> ProgramOutput {
        ProgramOutput::of(self.program(arguments).output().await.unwrap())
    }

    /// Returns the program's command line with the addresses of this sale.
    fn program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_flashsale-loadtest"));
        program.args(arguments).args(["--host", &self.stack.url()]).arg("--report").arg(self.reports.path());
        for node in self.stack.nodes() {
            program.args(["--node", node.url()]);
        }
        program.args(["--admin-url", self.stack.coordinators()[0].url()]);
        program.env("ADMIN_TOKEN", self.stack.admin_token()).kill_on_drop(true);
        program
    }

    /// Replaces one line of the functions and loads them under the same name on every primary.
    async fn replace_line(&self, line: &str, instead: &str) {
        self.stack.redis().load_functions_with(&LIBRARY.code, line, instead).await.unwrap();
    }
}

impl ProgramOutput {
    fn of(output: Output) -> Self {
        let text = [output.stdout, output.stderr].concat();
        Self { code: output.status.code().unwrap(), text: String::from_utf8(text).unwrap() }
    }

    #[track_caller]
    fn assert_contains(&self, text: &str) {
        assert!(self.text.contains(text), "no output has `{text}` in\n{}", self.text);
    }
}
