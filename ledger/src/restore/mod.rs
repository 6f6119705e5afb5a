//! Builds a sale whose data in Redis is lost anew from PostgreSQL, on an empty cluster or another one.
//!
//! The restored sale has the same creation, so users keep their homes and repeated attempts their order ids. It has new
//! shards with new keys, so shards of the lost sale that come back are never mistaken for them. Its record is written
//! last: until then no program uses the shards. Each step may run twice, so a restore that was interrupted is run again.

mod books;
mod shards;

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::{Command, Parser};
use rediscluster::Cluster;
use service::settings::RedisSettings;
use service::time::iso8601;
use service::{connect, exit, settings};
use stock::functions::LIBRARY;
use stock::ids::SaleId;
use stock::layout::choose_tags_with_prefix;
use stock::sale::{SaleConfig, SaleState};
use tokio::time::timeout;

use crate::database::DatabaseSettings;
use books::{Books, LedgerState, Plan};
use shards::{Found, NewShards, find};

const NAME: &str = "restore";

/// Exit code of a restore that was refused. Nothing was changed.
const REFUSED: u8 = 2;

/// Versions between the latest one in the ledger and the restored one. Operators may have made changes that the ledger
/// has not seen, and a version must never have two contents.
const VERSION_GAP: u64 = 1_000;

const EXIT_CODES: &str = "\
Exit codes:
  0   the sale is restored, and paused; without --yes: it could be
  1   not finished: a server cannot be reached, or did not confirm. Run the command again
  2   refused, nothing was changed: the ledger does not know the sale, Redis still has a part of it, or the books of the
      ledger do not balance
  64  an invalid setting";

/// The subcommand, as shown in the program's help.
pub fn command() -> Command {
    Command::new(NAME).about("Builds a sale anew whose data in Redis is lost, and ends")
}

#[derive(Parser)]
#[command(name = NAME, after_help = EXIT_CODES)]
struct RestoreSettings {
    /// The sale
    #[arg(long)]
    sale: SaleId,

    /// The creation of the sale, by its name in the tables; the latest one that the ledger has seen, if not set
    #[arg(long)]
    creation: Option<String>,

    /// Restores the sale. Without it, the command prints what it would do, and changes nothing
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    redis: RedisSettings,

    #[command(flatten)]
    database: DatabaseSettings,
}

/// Why a restore is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the tables are missing: DATABASE_URL must be the database that the ledger writes to")]
    NoTables,
    #[error("the ledger has no sale `{0}`")]
    UnknownSale(SaleId),
    #[error("the ledger has no creation `{creation}` of this sale; it has {known}")]
    UnknownCreation { creation: String, known: String },
    #[error("another restore of this sale is running")]
    Running,
    #[error(
        "Redis has a sale `{id}`: version {version}, {state}, {creation}. Only a sale without any data in Redis is restored"
    )]
    Exists { id: SaleId, version: u64, state: &'static str, creation: &'static str },
    #[error(
        "Redis has {} shards of this sale, such as {}. A sale is restored only when all of its data is lost: bring the \
         missing servers back, or delete the keys when they never will be", .0.len(), .0.first().map_or("", String::as_str)
    )]
    ShardsExist(Vec<String>),
    #[error(
        "the ledger has {rows} orders, but its cursors say {drained}: rows were added or deleted by hand"
    )]
    Unbalanced { rows: u64, drained: u64 },
    #[error("the ledger has {orders} orders of a sale of {total} units")]
    MoreThanTotal { orders: u64, total: u64 },
}

/// Restores a sale if the command line asks for it, and returns its exit code; otherwise returns `None`.
pub async fn run_if_requested() -> Option<ExitCode> {
    let settings: RestoreSettings = settings::parse_subcommand(&command())?;
    connect::install_crypto_provider();
    let result = run(&settings).await;
    let is_refused = result.as_ref().is_err_and(|error| error.is::<Refusal>());
    let code = exit::code(result);
    Some(if is_refused { ExitCode::from(REFUSED) } else { code })
}

async fn run(settings: &RestoreSettings) -> anyhow::Result<()> {
    let connecting = timeout(settings.database.timeout(), settings.database.connect());
    let database = connecting.await.context("DATABASE_URL: no answer in time")?.context("DATABASE_URL")?;
    let books = Books::open(database, &settings.sale, settings.creation.as_deref()).await?;
    let cluster = Cluster::connect(settings.redis.connect_options(), &LIBRARY).await.context("REDIS_URL")?;
    cluster.load_library().await.context("REDIS_URL: the user `coordinator` may load the functions")?;

    let (latest, before) = (books.latest_config().await?, books.latest_plan().await?);
    let found = find(&cluster, &latest, before.as_ref()).await?;
    let state = books.state().await?;
    state.check(latest.total_stock)?;
    print_state(&latest, &state);
    if !settings.yes {
        println!("nothing was changed; with --yes the sale is restored");
        return Ok(());
    }
    let plan = match (found, before) {
        (Found::Restored(record), Some(plan)) => {
            println!("an earlier restore recorded the sale; its last steps are repeated");
            shards::settle(&cluster, &record).await?;
            return end(&books, &plan).await;
        }
        (Found::Begun, Some(plan)) => {
            println!("an earlier restore goes on");
            plan
        }
        (_, before) => plan(&cluster, &latest, before.map_or(1, |before| before.number + 1))?,
    };
    restore(&books, &cluster, &plan, &latest).await?;
    end(&books, &plan).await
}

/// Plans the shards of the restored sale. The number is a part of their tags: no two restores share a key.
fn plan(cluster: &Cluster, latest: &SaleConfig, number: i32) -> anyhow::Result<Plan> {
    let (topology, shards) = (cluster.topology(), latest.layout.tags.len());
    let owner = |slot| topology.primary(slot).map(|primary| primary.address.clone());
    let tags = choose_tags_with_prefix(&latest.id, &format!("{number}-"), shards as u16, owner);
    ensure!(tags.len() == shards, "some slots have no primary; {shards} shards cannot be placed");
    let layout = latest.layout.with_new_shards(tags);
    let version = latest.version + VERSION_GAP;
    let config = SaleConfig { version, state: SaleState::Creating, layout, archive: None, ..latest.clone() };
    Ok(Plan { number, config })
}

async fn restore(books: &Books, cluster: &Cluster, plan: &Plan, latest: &SaleConfig) -> anyhow::Result<()> {
    // From here on no ledger adds rows for the lost shards, so the rows that are read next are all there will be.
    books.close_cursors().await?;
    books.begin(plan).await?;
    let state = books.state().await?;
    state.check(latest.total_stock)?;

    let mut shards = NewShards::make(cluster, plan).await?;
    println!("{} shards are made", shards.count());
    let (mut after, mut imported) = (0, 0);
    loop {
        let page = books.orders_after(after).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        imported += page.len() as u64;
        shards.import(cluster, page).await?;
        println!("{imported} of {} orders are imported", state.orders);
    }
    ensure!(imported == state.orders, "{imported} orders were read where {} are counted", state.orders);
    let confirmed = shards.fill(cluster).await?;
    println!("{} free units are minted", latest.total_stock - imported);
    books.open_cursors(&shards.sale, &confirmed).await?;
    let is_over = matches!(latest.state, SaleState::Ended | SaleState::Archived);
    let state = if is_over { SaleState::Ended } else { SaleState::Paused };
    let record = shards.record(cluster, state).await?;
    shards::settle(cluster, &record).await
}

async fn end(books: &Books, plan: &Plan) -> anyhow::Result<()> {
    books.end(plan).await?;
    let id = &plan.config.id;
    println!(
        "sale `{id}` is restored. Audit it: GET /api/admin/sales/{id}/audit of a coordinator, GET /sales/{id}/audit of a ledger"
    );
    println!(
        "a sale that had not ended is paused: resume it when the audits are ok, and extend it first if time was lost"
    );
    Ok(())
}

fn print_state(latest: &SaleConfig, state: &LedgerState) {
    let SaleConfig { id, version, total_stock, .. } = latest;
    println!(
        "sale `{id}`, creation {}, {total_stock} units, version {version}, {}",
        state.creation,
        latest.state.as_str()
    );
    println!("the ledger has {} orders, {} of them of erased users", state.orders, state.erased);
    for shard in &state.shards {
        let at = iso8601(shard.moved_at);
        println!(
            "  shard {}: drained up to entry {}, {} orders, at {at}",
            shard.number, shard.seq, shard.orders
        );
    }
    let left = total_stock.saturating_sub(state.orders);
    if let Some(seen) = state.sighting {
        let known = seen.sold.saturating_sub(state.orders);
        println!("at {}, the latest look at Redis, {known} orders were not in the ledger", iso8601(seen.at));
        println!("these are lost, and the purchases after that time that are not in the ledger");
    }
    println!("at most {left} acknowledged purchases are lost: the units that the ledger has no order of");
}
