//! The typed calls: each operation's arguments, and its answer as a type of its own.
//!
//! One file of Lua an operation holds the contract; here it becomes Rust. Nobody else ever sees an operation's
//! raw answer. A call says which slot it goes to, not how it gets there.

use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};

use crate::functions::{self, Function};
use crate::ids::{CorrelationId, OrderId, ShardId, UserId};
use crate::layout::{Shard, Slot};
use crate::limit::Limit;
use crate::sale::{EpochMs, SaleConfig, SaleState, ShardSettings, Window};

/// Most buyers in one `buy`: it then takes 0.2-0.4 ms of Redis, in which nobody else is served.
pub const BUYERS_PER_CALL_MAX: usize = 64;

/// Something to ask the primary of one slot.
pub trait Call {
    /// What it answers.
    type Answer;

    /// The slot it touches.
    fn slot(&self) -> Slot;

    /// The command to send.
    fn command(&self) -> Cmd;

    /// Reads the reply. An error reply has been turned into a [`CallError`] before.
    fn answer(&self, reply: Value) -> Result<Self::Answer, CallError>;
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The primary does not serve the slot (any more, or not yet), or not now. It did nothing; look at the map
    /// again.
    #[error("the slot is not served there now: {0}")]
    Moved(String),
    /// The primary has no such function. It did nothing; load the library and repeat.
    #[error("the function library is missing")]
    FunctionMissing,
    /// The shard does not exist.
    #[error("the shard does not exist")]
    NoShard,
    /// The shard belongs to another layout than the caller's.
    #[error("the shard belongs to another ring: {0}")]
    WrongRing(String),
    /// Redis reached its memory limit and did nothing.
    #[error("Redis is out of memory")]
    OutOfMemory,
    /// No reply: whether it was done is unknown. Repeating is safe, every operation is idempotent.
    #[error("no reply: {0}")]
    NoReply(String),
    /// Done, but too few replicas confirmed in time: whether it lasts is unknown. Repeating is safe.
    #[error("{confirmed} of {replicas} replicas confirmed in time")]
    NotDurable {
        /// Replicas that confirmed.
        confirmed: usize,
        /// Replicas there should be.
        replicas: usize,
    },
    /// Redis refused, in its own words.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// The reply is not of the operation's form.
    #[error("a reply of the wrong form: {0}")]
    Malformed(String),
}

impl CallError {
    /// Whether trying again soon may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Moved(_) | Self::FunctionMissing | Self::NoReply(_) | Self::NotDurable { .. } => true,
            Self::NoShard
            | Self::WrongRing(_)
            | Self::OutOfMemory
            | Self::Refused(_)
            | Self::Malformed(_) => false,
        }
    }

    /// Whether this user may not do it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused(why) if why.starts_with("NOPERM"))
    }

    /// Whether the call may have been done although it has no answer.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::NoReply(_) | Self::NotDurable { .. } | Self::Malformed(_))
    }

    /// Reads an error reply. `details` is what follows the code.
    pub(crate) fn from_reply(code: &str, details: &str) -> Self {
        match code {
            // The last is the answer of a primary with `min-replicas-to-write` and too few of them.
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" | "LOADING"
            | "NOREPLICAS" => Self::Moved(format!("{code} {details}")),
            "ERR" if details.starts_with("Function not found") => Self::FunctionMissing,
            "NOSHARD" => Self::NoShard,
            "WRONGRING" => Self::WrongRing(details.to_owned()),
            "OOM" => Self::OutOfMemory,
            _ => Self::Refused(format!("{code} {details}")),
        }
    }
}

impl From<redis::ParsingError> for CallError {
    fn from(error: redis::ParsingError) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<redis::RedisError> for CallError {
    fn from(error: redis::RedisError) -> Self {
        match error.code() {
            Some(code) => Self::from_reply(code, error.detail().unwrap_or_default()),
            None => Self::NoReply(error.to_string()),
        }
    }
}

/// The record that a user has a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The attempt that got it.
    pub order: OrderId,
    /// When, by Redis' clock.
    pub purchased_at: EpochMs,
}

impl Claim {
    /// Reads `<order id>:<purchased at, ms>`.
    pub(crate) fn parse(text: &str) -> Result<Self, CallError> {
        let parsed = text.split_once(':').and_then(|(order, at)| {
            Some(Self { order: order.parse().ok()?, purchased_at: at.parse().ok()? })
        });
        parsed.ok_or_else(|| CallError::Malformed(format!("{text:?} is no claim")))
    }
}

/// One user's attempt to buy.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// Who.
    pub user: UserId,
    /// Names the attempt: a repeated one is recognised by it.
    pub order: OrderId,
    /// Kept with the order.
    pub correlation: CorrelationId,
    /// Whether it counts towards the user's limit. The same request, tried once more, does not.
    pub counts: bool,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuyOutcome {
    /// This call claimed a unit.
    Bought(Claim),
    /// This very attempt claimed it before: its answer was lost on the way.
    Repeat(Claim),
    /// Another attempt of the same user claimed one.
    Duplicate(Claim),
    /// No token is left in this shard.
    Empty,
    /// The sale is not selling now.
    NotOpen,
    /// The user made too many attempts: the next one may come after this time.
    Limited(Duration),
}

/// Claims users in their home shard and takes a token for each. See `buy.lua`.
#[derive(Clone, Debug)]
pub struct Buy<'a, A = Attempt> {
    /// The home of all of them.
    pub shard: &'a Shard,
    /// At most [`BUYERS_PER_CALL_MAX`].
    pub attempts: &'a [A],
    /// How many attempts a user has, if that is limited.
    pub limit: Option<Limit>,
}

/// The answer of [`Buy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuyAnswer {
    /// Stock left in the shard.
    pub stock: u64,
    /// An outcome for each attempt, in order.
    pub outcomes: Vec<BuyOutcome>,
}

impl<A: AsRef<Attempt>> Call for Buy<'_, A> {
    type Answer = BuyAnswer;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd =
            functions::fcall(Function::Buy, &[&self.shard.meta, &self.shard.claims, &self.shard.orders]);
        cmd.arg(self.shard.ring.as_str());
        cmd.arg(self.limit.map_or(0.0, Limit::interval_ms)).arg(self.limit.map_or(0, |limit| limit.permits));
        for attempt in self.attempts {
            let Attempt { user, order, correlation, counts } = attempt.as_ref();
            cmd.arg(user.as_str()).arg(order.as_str()).arg(correlation.as_str()).arg(u8::from(*counts));
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<BuyAnswer, CallError> {
        let (stock, now, elements): (u64, EpochMs, Vec<Value>) = from_redis_value(reply)?;
        if elements.len() != self.attempts.len() {
            return Err(CallError::Malformed(format!(
                "{} answers to {} buyers",
                elements.len(),
                self.attempts.len()
            )));
        }
        let outcome =
            |(element, attempt): (Value, &A)| BuyOutcome::parse(element, attempt.as_ref().order, now);
        let outcomes = elements.into_iter().zip(self.attempts).map(outcome).collect::<Result<_, _>>()?;
        Ok(BuyAnswer { stock, outcomes })
    }
}

impl BuyOutcome {
    fn parse(element: Value, order: OrderId, now: EpochMs) -> Result<Self, CallError> {
        match element {
            Value::Int(1) => Ok(Self::Bought(Claim { order, purchased_at: now })),
            Value::Int(0) => Ok(Self::Empty),
            Value::Int(-1) => Ok(Self::NotOpen),
            Value::Int(below) if below < -1 => {
                Ok(Self::Limited(Duration::from_millis(below.unsigned_abs() - 1)))
            }
            held => {
                let claim = Claim::parse(&from_redis_value::<String>(held)?)?;
                Ok(if claim.order == order { Self::Repeat(claim) } else { Self::Duplicate(claim) })
            }
        }
    }
}

impl AsRef<Attempt> for Attempt {
    fn as_ref(&self) -> &Attempt {
        self
    }
}

/// The giving half of a transfer. See `donate.lua`.
#[derive(Clone, Debug)]
pub struct Donate<'a> {
    /// The giving shard.
    pub shard: &'a Shard,
    /// The receiving one.
    pub to: ShardId,
    /// Tokens wanted; 0 only repeats the channel's value.
    pub want: u64,
}

/// The answer of [`Donate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Donation {
    /// All tokens that ever entered the channel.
    pub cumulative: u64,
    /// Stock left in the giving shard.
    pub stock: u64,
}

impl Call for Donate<'_> {
    type Answer = Donation;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Donate, &[&self.shard.meta]);
        cmd.arg(self.shard.ring.as_str()).arg(self.to.to_string()).arg(self.want);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Donation, CallError> {
        let (cumulative, stock) = from_redis_value(reply)?;
        Ok(Donation { cumulative, stock })
    }
}

/// Where the tokens of a channel come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TokenSource {
    /// The coordinator, which mints them.
    Mint,
    /// Another shard, which donates them.
    Shard(ShardId),
}

impl std::fmt::Display for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mint => f.write_str("mint"),
            Self::Shard(shard) => shard.fmt(f),
        }
    }
}

/// The receiving half of a transfer. See `accept.lua`.
#[derive(Clone, Debug)]
pub struct Accept<'a> {
    /// The receiving shard.
    pub shard: &'a Shard,
    /// Whose channel.
    pub from: TokenSource,
    /// All tokens that ever entered it, as its giver said.
    pub cumulative: u64,
}

/// The answer of [`Accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// All tokens that ever left the channel.
    pub cumulative: u64,
    /// Stock of the receiving shard.
    pub stock: u64,
}

impl Call for Accept<'_> {
    type Answer = Accepted;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Accept, &[&self.shard.meta]);
        cmd.arg(self.shard.ring.as_str()).arg(self.from.to_string()).arg(self.cumulative);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Accepted, CallError> {
        let (cumulative, stock) = from_redis_value(reply)?;
        Ok(Accepted { cumulative, stock })
    }
}

/// Brings a shard to a version of the sale's settings; answers those it then holds. See `configure.lua`.
#[derive(Clone, Debug)]
pub struct Configure<'a> {
    /// The shard.
    pub shard: &'a Shard,
    /// The version that the rest belongs to.
    pub version: u64,
    /// The sale's state. `creating` also creates the shard where it does not exist.
    pub state: SaleState,
    /// When it sells.
    pub window: Window,
}

impl Call for Configure<'_> {
    type Answer = ShardSettings;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let Shard { meta, claims, orders, ring, .. } = self.shard;
        let mut cmd = functions::fcall(Function::Configure, &[meta, claims, orders]);
        cmd.arg(ring.as_str()).arg(self.version).arg(self.state.as_str());
        cmd.arg(self.window.starts_at).arg(self.window.ends_at);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<ShardSettings, CallError> {
        let (version, state, starts_at, ends_at): (u64, String, EpochMs, EpochMs) = from_redis_value(reply)?;
        Ok(ShardSettings { version, state: state_of(&state)?, window: Window { starts_at, ends_at } })
    }
}

fn state_of(word: &str) -> Result<SaleState, CallError> {
    SaleState::parse(word).ok_or_else(|| CallError::Malformed(format!("{word:?} is no state")))
}

/// Looks up the claims of users at home in a shard. See `find.lua`.
#[derive(Clone, Debug)]
pub struct Find<'a, U = UserId> {
    /// The home of all of them.
    pub shard: &'a Shard,
    /// Whose claims, at most [`BUYERS_PER_CALL_MAX`].
    pub users: &'a [U],
}

impl<U: AsRef<UserId>> Call for Find<'_, U> {
    type Answer = Vec<Option<Claim>>;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Find, &[&self.shard.meta, &self.shard.claims]);
        cmd.arg(self.shard.ring.as_str());
        for user in self.users {
            cmd.arg(user.as_ref().as_str());
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Vec<Option<Claim>>, CallError> {
        let found: Vec<Option<String>> = from_redis_value(reply)?;
        if found.len() != self.users.len() {
            return Err(CallError::Malformed(format!(
                "{} answers to {} users",
                found.len(),
                self.users.len()
            )));
        }
        found.into_iter().map(|claim| claim.as_deref().map(Claim::parse).transpose()).collect()
    }
}

impl AsRef<UserId> for UserId {
    fn as_ref(&self) -> &UserId {
        self
    }
}

/// Reads all of a shard's meta at one instant. See `level.lua`.
#[derive(Clone, Debug)]
pub struct ReadLevel<'a> {
    /// The shard.
    pub shard: &'a Shard,
}

/// A shard's meta at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// The instant, by the clock of the shard's primary.
    pub at: EpochMs,
    /// The layout it belongs to.
    pub ring: String,
    /// The settings it holds.
    pub settings: ShardSettings,
    /// Tokens here.
    pub stock: u64,
    /// Tokens sold here.
    pub sold: u64,
    /// Entries ever appended to its order stream.
    pub seq: u64,
    /// What it accepted from each channel, cumulative.
    pub accepted: Vec<(TokenSource, u64)>,
    /// What it donated to each channel, cumulative.
    pub donated: Vec<(ShardId, u64)>,
}

impl Level {
    /// What the shard accepted from one channel.
    pub fn accepted_from(&self, source: TokenSource) -> u64 {
        self.accepted.iter().find(|(from, _)| *from == source).map_or(0, |(_, tokens)| *tokens)
    }

    fn read(&mut self, field: &str, value: &str) -> Result<(), CallError> {
        let number = || value.parse().map_err(|_| CallError::Malformed(format!("{field} is {value:?}")));
        let peer = |text: &str| text.parse().map_err(|_| CallError::Malformed(format!("a field {field:?}")));
        match field {
            "ring" => value.clone_into(&mut self.ring),
            "version" => self.settings.version = number()?,
            "state" => self.settings.state = state_of(value)?,
            "starts_at" => self.settings.window.starts_at = number()?,
            "ends_at" => self.settings.window.ends_at = number()?,
            "stock" => self.stock = number()?,
            "sold" => self.sold = number()?,
            "seq" => self.seq = number()?,
            "in:mint" => self.accepted.push((TokenSource::Mint, number()?)),
            // What a newer release may have added is none of this one's business.
            _ => match field.split_once(':') {
                Some(("in", shard)) => self.accepted.push((TokenSource::Shard(peer(shard)?), number()?)),
                Some(("out", shard)) => self.donated.push((peer(shard)?, number()?)),
                _ => {}
            },
        }
        Ok(())
    }
}

impl Call for ReadLevel<'_> {
    type Answer = Level;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        functions::fcall(Function::Level, &[&self.shard.meta])
    }

    fn answer(&self, reply: Value) -> Result<Level, CallError> {
        let (at, fields): (EpochMs, Vec<(String, String)>) = from_redis_value(reply)?;
        let mut level = Level { at, ..Level::default() };
        fields.iter().try_for_each(|(field, value)| level.read(field, value))?;
        Ok(level)
    }
}

/// Records a sale's config and mint, if it still is at the version the change is based on. See `record.lua`.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The sale's keys.
    pub keys: &'a crate::layout::SaleKeys,
    /// The version the change is based on; 0 for a new sale.
    pub based_on: u64,
    /// The changed config, with a newer version.
    pub config: &'a SaleConfig,
    /// Tokens minted to each shard, cumulative.
    pub mint: &'a [u64],
}

/// Reads a sale's record; behind a barrier, one that lasts. `None` where there is no such sale. See `recall.lua`.
#[derive(Clone, Copy, Debug)]
pub struct Recall<'a> {
    /// The sale's keys.
    pub keys: &'a crate::layout::SaleKeys,
}

/// A sale as it is recorded.
#[derive(Clone, Debug, PartialEq)]
pub struct SaleRecord {
    /// Its config.
    pub config: SaleConfig,
    /// Tokens minted to each shard, cumulative. Together they are the total.
    pub mint: Vec<u64>,
}

impl Call for Recall<'_> {
    type Answer = Option<SaleRecord>;

    fn slot(&self) -> Slot {
        self.keys.slot
    }

    fn command(&self) -> Cmd {
        functions::fcall(Function::Recall, &[&self.keys.config, &self.keys.mint])
    }

    fn answer(&self, reply: Value) -> Result<Option<SaleRecord>, CallError> {
        let held: Option<(String, Vec<(String, u64)>)> = from_redis_value(reply)?;
        held.map(|(config, minted)| SaleRecord::parse(&config, &minted)).transpose()
    }
}

impl SaleRecord {
    fn parse(config: &str, minted: &[(String, u64)]) -> Result<Self, CallError> {
        let config = crate::store::parse_config(config)?;
        let mut mint = vec![0; config.layout.tags.len()];
        for (shard, tokens) in minted.iter().filter(|(field, _)| field != "tick") {
            let place = shard.parse::<ShardId>().ok().and_then(|shard| mint.get_mut(shard.index()));
            *place.ok_or_else(|| CallError::Malformed(format!("a mint of shard {shard:?}")))? = *tokens;
        }
        let torn = || CallError::Malformed(format!("config and mint of sale {} do not add up", config.id));
        let adds_up = mint.iter().sum::<u64>() == config.total_stock;
        if adds_up { Ok(Self { config, mint }) } else { Err(torn()) }
    }
}

/// The answer of [`Record`].
#[derive(Clone, Debug, PartialEq)]
pub enum RecordAnswer {
    /// The change is recorded; by an earlier try of this very call, it may be.
    Done,
    /// Somebody else changed the sale first, to this; `None` if there is no such sale (any more).
    Overtaken(Option<Box<SaleConfig>>),
}

impl Call for Record<'_> {
    type Answer = RecordAnswer;

    fn slot(&self) -> Slot {
        self.keys.slot
    }

    fn command(&self) -> Cmd {
        let json = serde_json::to_string(self.config).expect("a config has only plain fields");
        let mut cmd = functions::fcall(Function::Record, &[&self.keys.config, &self.keys.mint]);
        cmd.arg(self.based_on).arg(json);
        for (shard, tokens) in self.mint.iter().enumerate() {
            cmd.arg(shard).arg(tokens);
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<RecordAnswer, CallError> {
        let (recorded, held): (u8, Option<String>) = from_redis_value(reply)?;
        let held = held.as_deref().map(crate::store::parse_config).transpose()?;
        Ok(if recorded == 1 { RecordAnswer::Done } else { RecordAnswer::Overtaken(held.map(Box::new)) })
    }
}
