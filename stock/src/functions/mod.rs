//! The function library: one Lua file per operation, assembled into one library for Redis Functions.
//!
//! Functions are as fast as scripts, and they are replicated, so a promoted replica has them. The names of the library
//! and its functions contain a digest of the code. Several releases can therefore run in one cluster, each with its
//! own code, and loading one never replaces another.

use std::fmt::Write as _;
use std::sync::LazyLock;

use redis::Cmd;
use rediscluster::Library;
use sha2::{Digest, Sha256};

const SHARED: &str = include_str!("shared.lua");

/// An operation of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is documented in the header of its Lua file")]
pub enum Function {
    Buy,
    Donate,
    Accept,
    Mint,
    Configure,
    Find,
    Level,
    Record,
    Recall,
    Lead,
    Confirm,
    Admit,
    Presence,
    Place,
    Import,
}

impl Function {
    const ALL: [Self; 15] = [
        Self::Buy,
        Self::Donate,
        Self::Accept,
        Self::Mint,
        Self::Configure,
        Self::Find,
        Self::Level,
        Self::Record,
        Self::Recall,
        Self::Lead,
        Self::Confirm,
        Self::Admit,
        Self::Presence,
        Self::Place,
        Self::Import,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Buy => "buy",
            Self::Donate => "donate",
            Self::Accept => "accept",
            Self::Mint => "mint",
            Self::Configure => "configure",
            Self::Find => "find",
            Self::Level => "level",
            Self::Record => "record",
            Self::Recall => "recall",
            Self::Lead => "lead",
            Self::Confirm => "confirm",
            Self::Admit => "admit",
            Self::Presence => "presence",
            Self::Place => "place",
            Self::Import => "import",
        }
    }

    const fn source(self) -> &'static str {
        match self {
            Self::Buy => include_str!("buy.lua"),
            Self::Donate => include_str!("donate.lua"),
            Self::Accept => include_str!("accept.lua"),
            Self::Mint => include_str!("mint.lua"),
            Self::Configure => include_str!("configure.lua"),
            Self::Find => include_str!("find.lua"),
            Self::Level => include_str!("level.lua"),
            Self::Record => include_str!("record.lua"),
            Self::Recall => include_str!("recall.lua"),
            Self::Lead => include_str!("lead.lua"),
            Self::Confirm => include_str!("confirm.lua"),
            Self::Admit => include_str!("admit.lua"),
            Self::Presence => include_str!("presence.lua"),
            Self::Place => include_str!("place.lua"),
            Self::Import => include_str!("import.lua"),
        }
    }

    const fn only_reads(self) -> bool {
        matches!(self, Self::Level | Self::Admit)
    }

    /// Returns the name of the function in Redis: `buy_1f3a9c`.
    pub fn function(self) -> &'static str {
        &FUNCTIONS[self as usize]
    }
}

/// Start of the names of all releases' libraries.
pub const LIBRARY_PREFIX: &str = "flashsale_";

/// The library of this release.
pub static LIBRARY: LazyLock<Library> = LazyLock::new(|| {
    let name = format!("{LIBRARY_PREFIX}{}", *DIGEST);
    let mut code = format!("#!lua name={name}\n{}", *SOURCES);
    for operation in Function::ALL {
        let flags = if operation.only_reads() { "'no-writes'" } else { "" };
        let (function, callback) = (operation.function(), operation.name());
        write!(
            code,
            "\nredis.register_function{{ function_name = '{function}', callback = {callback}, flags = {{ {flags} }} }}"
        )
        .expect("writing to a String cannot fail");
    }
    Library { name, code }
});

static SOURCES: LazyLock<String> =
    LazyLock::new(|| Function::ALL.iter().fold(SHARED.to_owned(), |code, op| code + "\n" + op.source()));
static DIGEST: LazyLock<String> =
    LazyLock::new(|| Sha256::digest(&*SOURCES)[..3].iter().map(|byte| format!("{byte:02x}")).collect());
static FUNCTIONS: LazyLock<[String; Function::ALL.len()]> =
    LazyLock::new(|| Function::ALL.map(|op| format!("{}_{}", op.name(), *DIGEST)));

/// Builds the command that calls an operation on these keys. The caller appends the arguments.
pub(crate) fn fcall(operation: Function, keys: &[&str]) -> Cmd {
    let mut cmd = redis::cmd(if operation.only_reads() { "FCALL_RO" } else { "FCALL" });
    cmd.arg(operation.function()).arg(keys.len()).arg(keys);
    cmd
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::calls::{
        Accept, Attempt, Buy, Configure, Donate, Find, ReadLevel, Recall, Record, TokenSource,
    };
    use crate::history::HistoryEntry;
    use crate::ids::ShardId;
    use crate::import::Import;
    use crate::layout::{LimitBucket, SaleKeys};
    use crate::lease::Lead;
    use crate::limit::{Admit, Limit};
    use crate::places::{NetworkPlaces, Place, PlaceChange};
    use crate::presence::Presence;
    use crate::sale::{Sale, SaleState, Window};
    use crate::snapshot::Confirm;
    use rediscluster::Call;

    /// Returns the number of keys in the header of a Lua file: the highest number after `KEYS`.
    fn keys_in_header(operation: Function) -> usize {
        let line = operation.source().lines().find_map(|line| line.strip_prefix("-- KEYS  ")).unwrap();
        line.split(", ").map(|key| key.split(' ').next().unwrap().parse::<usize>().unwrap()).max().unwrap()
    }

    fn keys_in_call(call: &impl Call) -> usize {
        let packed = String::from_utf8(call.command().get_packed_command()).unwrap();
        packed.split("\r\n").nth(6).unwrap().parse().unwrap()
    }

    #[test]
    fn header_lists_the_keys_that_callers_send() {
        let sale = Sale::new(crate::sale::tests::config()).unwrap();
        let shard = sale.shard(ShardId::new(0));
        let window = Window { starts_at: 0, ends_at: 1 };
        let keys = SaleKeys::new(sale.id());
        let limit = Limit { permits: 1, window: Duration::from_secs(1) };
        let places = NetworkPlaces::of(&sale.config, "2001:db8::1".parse().unwrap(), 1);
        let user = crate::ids::UserId::parse("ann", crate::ids::UserIdKind::Opaque).unwrap();
        let place = Place { places: &places, user: &user, change: PlaceChange::Take };
        let sent = [
            (
                Function::Buy,
                keys_in_call(&Buy::<Attempt> { shard, attempts: &[], not_after: Buy::AT_ANY_TIME }),
            ),
            (Function::Donate, keys_in_call(&Donate { shard, to: ShardId::new(1), want: 1 })),
            (
                Function::Accept,
                keys_in_call(&Accept { shard, from: TokenSource::Shard(ShardId::new(1)), cumulative: 1 }),
            ),
            (Function::Mint, keys_in_call(&Accept { shard, from: TokenSource::Mint, cumulative: 1 })),
            (
                Function::Configure,
                keys_in_call(&Configure { shard, version: 1, state: SaleState::Open, window }),
            ),
            (Function::Find, keys_in_call(&Find::<crate::ids::UserId> { shard, users: &[] })),
            (Function::Level, keys_in_call(&ReadLevel { shard })),
            (
                Function::Record,
                keys_in_call(&Record {
                    keys: &keys,
                    based_on: 0,
                    config: &sale.config,
                    mint: &[],
                    entry: &HistoryEntry::default(),
                }),
            ),
            (Function::Recall, keys_in_call(&Recall { keys: &keys })),
            (Function::Lead, keys_in_call(&Lead { coordinator: "a", hold: Duration::ZERO })),
            (Function::Confirm, keys_in_call(&Confirm { shard })),
            (Function::Admit, keys_in_call(&Admit { bucket: &LimitBucket::all()[0], limit, requests: &[] })),
            (Function::Presence, keys_in_call(&Presence { update: None })),
            (Function::Place, keys_in_call(&place)),
            (Function::Import, keys_in_call(&Import { shard, orders: &[] })),
        ];
        assert_eq!(sent.map(|(operation, _)| operation), Function::ALL);
        for (operation, keys) in sent {
            assert_eq!(keys, keys_in_header(operation), "{operation:?}");
        }
    }

    #[test]
    fn header_has_all_parts() {
        for operation in Function::ALL {
            for part in ["-- KEYS  ", "-- ARGV  ", "-- Answer  ", "-- Atomic because"] {
                assert!(operation.source().contains(part), "{operation:?} lacks {part:?}");
            }
        }
    }
}
