//! What the program says of a sound sale, and of one that lost a protection: by its exit code, as a script would ask.

#![expect(clippy::unwrap_used, reason = "what a story cannot go on without fails it")]

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use redis::cmd;
use stock::functions::LIBRARY;
use tempfile::TempDir;
use testkit::{Stack, StackOptions, stack::SaleOptions, until};
use tokio::{process::Command, sync::Mutex, time::timeout};

/// One sale at a time: two would share the machine's cores and time each other out.
static STAGE: Mutex<()> = Mutex::const_new(());

/// Whatever has to happen happens by then, on a busy machine too.
const SOON: Duration = Duration::from_secs(60);

/// Short, of a sale of its own each time, and as slow as this machine likes to be while it builds something else.
const DUPLICATES: &[&str] =
    &["duplicates", "--users", "4", "--copies", "8", "--run-time", "2s", "--stock", "2000", "--p95", "30s"];

struct Sale {
    stack: Stack,
    reports: TempDir,
}

/// What the program ended with, and what it said.
struct Said {
    code: i32,
    words: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_sale_is_clean_unless_more_is_asked_of_it_than_can_be() {
    let _stage = STAGE.lock().await;
    let sale = Sale::open(50).await;

    let rush = ["rush", "--users", "20", "--step", "1s", "--pause", "50ms", "--p95", "30s"];
    let said = sale.load(&rush).await;
    assert_eq!(said.code, 0, "{}", said.words);
    said.assert_says("sold                          50  of 50, 50 of them in this run");
    said.assert_says("verdict: clean");
    for report in ["goose.html", "goose.json", "goose.md", "verdict.txt"] {
        assert!(sale.reports.path().join(report).metadata().unwrap().len() > 0, "{report} is empty");
    }

    let said = sale.load(&["spike", "--rate", "100", "--stock", "30", "--p95", "0s"]).await;
    assert_eq!(said.code, 3, "{}", said.words);
    said.assert_says("verdict: missed");

    let said = sale.load(&rush).await;
    assert_eq!(said.code, 1, "there is nothing left to buy");
    said.assert_says("error: sale `flash` is sold out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_that_forgets_to_look_for_a_claim_is_broken() {
    let _stage = STAGE.lock().await;
    let sale = Sale::open(1).await;
    sale.change("local claim = held[buyer] or taken[user]", "local claim = taken[user]").await;

    let said = sale.load(DUPLICATES).await;
    assert_eq!(said.code, 2, "{}", said.words);
    said.assert_says("has two orders");
    said.assert_says("and of order");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_contradict_each_other_are_broken_although_the_books_are_in_order() {
    let _stage = STAGE.lock().await;
    let sale = Sale::open(1).await;

    let said = sale.load(DUPLICATES).await;
    assert_eq!(said.code, 0, "{}", said.words);

    sale.change("answers[buyer] = claim\n", "answers[buyer] = 1\n").await;
    let said = sale.load(DUPLICATES).await;
    assert_eq!(said.code, 2, "{}", said.words);
    said.assert_says("was told `purchased` for two attempts");
    assert!(!said.words.contains("the books"), "{}", said.words);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_interrupts_a_run_still_learns_what_it_found() {
    let _stage = STAGE.lock().await;
    let sale = Sale::open(5).await;
    let soak = ["soak", "--users", "20", "--pause", "100ms", "--p95", "30s"];
    let program = sale.program(&soak).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let sold_out = async || sale.stack.status().await.is_ok_and(|status| status.remaining_stock == 0);
    until("the sale is sold out", SOON, sold_out).await.unwrap();

    let pid = program.id().unwrap().to_string();
    Command::new("kill").args(["-INT", &pid]).status().await.unwrap();

    let said = Said::of(timeout(SOON, program.wait_with_output()).await.unwrap().unwrap());
    assert_eq!(said.code, 0, "{}", said.words);
    said.assert_says("sold                           5  of 5, 5 of them in this run");
}

#[tokio::test]
async fn an_option_that_cannot_be_and_a_sale_that_does_not_run_are_told_apart() {
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

    async fn load(&self, arguments: &[&str]) -> Said {
        Said::of(self.program(arguments).output().await.unwrap())
    }

    /// The program, against this sale as against any other system.
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

    /// Another line in the functions, loaded under the very same name on every primary.
    async fn change(&self, line: &str, instead: &str) {
        assert_eq!(LIBRARY.code.matches(line).count(), 1, "the functions have no such line any more: {line}");
        let code = LIBRARY.code.replace(line, instead);
        for primary in self.stack.redis().primaries().await {
            let mut connection = self.stack.redis().connection(primary).await.unwrap();
            let mut load = cmd("FUNCTION");
            let name: String =
                load.arg("LOAD").arg("REPLACE").arg(&code).query_async(&mut connection).await.unwrap();
            assert_eq!(name, LIBRARY.name);
        }
    }
}

impl Said {
    fn of(output: Output) -> Self {
        let words = [output.stdout, output.stderr].concat();
        Self { code: output.status.code().unwrap(), words: String::from_utf8(words).unwrap() }
    }

    #[track_caller]
    fn assert_says(&self, words: &str) {
        assert!(self.words.contains(words), "nothing says `{words}` in\n{}", self.words);
    }
}
