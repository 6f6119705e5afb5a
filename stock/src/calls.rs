//! Typed calls: the arguments of each Lua operation, and its answer as a Rust type.
//!
//! Each Lua file holds the contract of its operation; this module is its Rust side. Code outside this module never
//! sees a raw reply. A call names the slot that it goes to, not how it gets there.

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, EpochMs, Slot};

use crate::functions::{self, Function};
use crate::history::{HISTORY_ENTRIES_MAX, HistoryEntry};
use crate::ids::{OrderId, ShardId, UserId};
use crate::layout::{Incarnation, SaleKeys, Shard};
use crate::sale::{SaleConfig, SaleState, ShardSettings, Window};

/// Most buyers in one `buy`. A call of this size takes 0.2-0.4 ms of Redis, during which Redis serves no other client.
pub const BUYERS_PER_CALL_MAX: usize = 64;

/// The record that a user has a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The attempt that got the unit.
    pub order: OrderId,
    /// Time of the purchase, by Redis' clock.
    pub purchased_at: EpochMs,
}

impl Claim {
    /// Parses `<order id>:<purchased at, ms>`.
    pub(crate) fn parse(text: &str) -> Result<Self, CallError> {
        let parsed = text.split_once(':').and_then(|(order, at)| {
            Some(Self { order: order.parse().ok()?, purchased_at: at.parse().ok()? })
        });
        parsed.ok_or_else(|| CallError::Malformed(format!("{text:?} is not a claim")))
    }
}

/// One user's attempt to buy.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The buyer.
    pub user: UserId,
    /// Id of the attempt. A repeated attempt is recognized by it.
    pub order: OrderId,
    /// Correlation id of the request, stored with the order. The caller decides its form.
    pub correlation: Box<str>,
}

/// Outcome of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuyOutcome {
    /// This call claimed a unit.
    Bought(Claim),
    /// The same attempt claimed a unit in an earlier call, whose answer was lost.
    Repeat(Claim),
    /// Another attempt of the same user claimed a unit.
    Duplicate(Claim),
    /// The shard has no token left.
    Empty,
    /// The sale is not open.
    NotOpen,
}

impl BuyOutcome {
    /// Returns true when the user has a claim.
    pub fn is_claimed(&self) -> bool {
        matches!(self, Self::Bought(_) | Self::Repeat(_) | Self::Duplicate(_))
    }
}

/// Claims users in their home shard and takes a token for each. See `buy.lua`.
#[derive(Clone, Debug)]
pub struct Buy<'a, A = Attempt> {
    /// The home shard of all users.
    pub shard: &'a Shard,
    /// At most [`BUYERS_PER_CALL_MAX`] attempts.
    pub attempts: &'a [A],
    /// Latest time, by the clock of the shard's primary, at which the call may be executed. After that it does nothing,
    /// so its caller knows when a call without a reply can no longer take effect. [`Buy::AT_ANY_TIME`] for callers who
    /// need not know.
    pub not_after: EpochMs,
}

impl Buy<'_> {
    /// The call may be executed at any time.
    pub const AT_ANY_TIME: EpochMs = EpochMs::MAX;
}

/// The answer of [`Buy`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuyAnswer {
    /// Stock left in the shard.
    pub stock: u64,
    /// Time of the call, by the clock of the shard's primary.
    pub at: EpochMs,
    /// Version of the settings that the shard holds.
    pub version: u64,
    /// One outcome per attempt, in the order of the attempts.
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
        cmd.arg(self.shard.ring.as_str()).arg(self.not_after);
        for attempt in self.attempts {
            let Attempt { user, order, correlation } = attempt.as_ref();
            cmd.arg(user.as_str()).arg(order.as_str()).arg(&**correlation);
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<BuyAnswer, CallError> {
        let (stock, at, version, elements): (u64, EpochMs, u64, Vec<Value>) = from_redis_value(reply)?;
        if elements.len() != self.attempts.len() {
            return Err(CallError::Malformed(format!(
                "{} answers to {} buyers",
                elements.len(),
                self.attempts.len()
            )));
        }
        let outcome =
            |(element, attempt): (Value, &A)| BuyOutcome::parse(element, attempt.as_ref().order, at);
        let outcomes = elements.into_iter().zip(self.attempts).map(outcome).collect::<Result<_, _>>()?;
        Ok(BuyAnswer { stock, at, version, outcomes })
    }
}

impl BuyOutcome {
    fn parse(element: Value, order: OrderId, now: EpochMs) -> Result<Self, CallError> {
        match element {
            Value::Int(1) => Ok(Self::Bought(Claim { order, purchased_at: now })),
            Value::Int(0) => Ok(Self::Empty),
            Value::Int(-1) => Ok(Self::NotOpen),
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
    /// The receiving shard.
    pub to: ShardId,
    /// Tokens wanted; 0 only reads the channel's value.
    pub want: u64,
}

/// The answer of [`Donate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Donation {
    /// Cumulative number of tokens that entered the channel.
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

/// The source of a channel's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TokenSource {
    /// The coordinator, which mints tokens.
    Mint,
    /// Another shard, which donates tokens.
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

/// The receiving half of a transfer, or of a minting. See `accept.lua` and `mint.lua`.
#[derive(Clone, Debug)]
pub struct Accept<'a> {
    /// The receiving shard.
    pub shard: &'a Shard,
    /// The source of the channel.
    pub from: TokenSource,
    /// Cumulative number of tokens that entered the channel, as its source reported it.
    pub cumulative: u64,
}

/// The answer of [`Accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Cumulative number of tokens that left the channel.
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
        let Shard { meta, control, ring, .. } = self.shard;
        let mut cmd = match self.from {
            TokenSource::Mint => functions::fcall(Function::Mint, &[meta, control]),
            TokenSource::Shard(_) => functions::fcall(Function::Accept, &[meta]),
        };
        cmd.arg(ring.as_str());
        if let TokenSource::Shard(shard) = self.from {
            cmd.arg(shard.to_string());
        }
        cmd.arg(self.cumulative);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Accepted, CallError> {
        let (cumulative, stock) = from_redis_value(reply)?;
        Ok(Accepted { cumulative, stock })
    }
}

/// Brings a shard to a version of the sale's settings. See `configure.lua`.
#[derive(Clone, Debug)]
pub struct Configure<'a> {
    /// The shard.
    pub shard: &'a Shard,
    /// Version of the settings.
    pub version: u64,
    /// State of the sale. `creating` also creates the shard when it does not exist.
    pub state: SaleState,
    /// Window in which the sale sells.
    pub window: Window,
}

/// The answer of [`Configure`]: what the shard holds after the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configured {
    /// The settings.
    pub settings: ShardSettings,
    /// The incarnation of the shard.
    pub incarnation: Incarnation,
}

impl Call for Configure<'_> {
    type Answer = Configured;

    fn slot(&self) -> Slot {
        self.shard.slot
    }

    fn command(&self) -> Cmd {
        let Shard { meta, claims, orders, control, ring, .. } = self.shard;
        let mut cmd = functions::fcall(Function::Configure, &[meta, claims, orders, control]);
        cmd.arg(ring.as_str()).arg(self.version).arg(self.state.as_str());
        // A repeated call has another incarnation: an earlier try may still arrive when the shard is lost.
        cmd.arg(self.window.starts_at).arg(self.window.ends_at).arg(Incarnation::random().as_str());
        cmd
    }

    fn answer(&self, reply: Value) -> Result<Configured, CallError> {
        let (version, state, starts_at, ends_at, ring): (u64, String, EpochMs, EpochMs, String) =
            from_redis_value(reply)?;
        let (state, window) = (state_of(&state)?, Window { starts_at, ends_at });
        let incarnation = Incarnation::of_ring(&ring);
        let incarnation = incarnation.ok_or_else(|| CallError::Malformed(format!("a ring {ring:?}")))?;
        Ok(Configured { settings: ShardSettings { version, state, window }, incarnation })
    }
}

fn state_of(word: &str) -> Result<SaleState, CallError> {
    SaleState::parse(word).ok_or_else(|| CallError::Malformed(format!("{word:?} is not a state")))
}

/// Looks up the claims of users in their home shard. See `find.lua`.
#[derive(Clone, Debug)]
pub struct Find<'a, U = UserId> {
    /// The home shard of all users.
    pub shard: &'a Shard,
    /// The users, at most [`BUYERS_PER_CALL_MAX`].
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
    /// Fingerprint of the layout that the shard belongs to, and its incarnation.
    pub ring: String,
    /// The settings that the shard holds.
    pub settings: ShardSettings,
    /// Tokens in the shard.
    pub stock: u64,
    /// Tokens sold by the shard.
    pub sold: u64,
    /// Number of entries ever appended to the order stream.
    pub seq: u64,
    /// Tokens accepted from each source, cumulative.
    pub accepted: Vec<(TokenSource, u64)>,
    /// Tokens donated to each shard, cumulative.
    pub donated: Vec<(ShardId, u64)>,
}

impl Level {
    /// Returns the cumulative number of tokens accepted from one source.
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
            // Other fields are ignored: a newer release may have added them.
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

/// Records a sale's config and mint if the recorded version is still the one that the change is based on. See
/// `record.lua`.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The sale's keys.
    pub keys: &'a SaleKeys,
    /// The version that the change is based on; 0 for a new sale.
    pub based_on: u64,
    /// The changed config, with a newer version.
    pub config: &'a SaleConfig,
    /// Tokens minted to each shard, cumulative.
    pub mint: &'a [u64],
    /// The change, for the sale's history.
    pub entry: &'a HistoryEntry,
}

/// Reads a sale's record, or `None` when there is no such sale, or a part of its record is lost. Behind a barrier, the
/// record is durable. See `recall.lua`.
#[derive(Clone, Copy, Debug)]
pub struct Recall<'a> {
    /// The sale's keys.
    pub keys: &'a SaleKeys,
}

/// The recorded state of a sale.
#[derive(Clone, Debug, PartialEq)]
pub struct SaleRecord {
    /// The config.
    pub config: SaleConfig,
    /// Tokens minted to each shard, cumulative. Their sum is the total stock.
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
        let config = parse_config(config)?;
        let mut mint = vec![0; config.layout.tags.len()];
        for (shard, tokens) in minted.iter().filter(|(field, _)| field != "tick") {
            let place = shard.parse::<ShardId>().ok().and_then(|shard| mint.get_mut(shard.index()));
            *place.ok_or_else(|| CallError::Malformed(format!("a mint of shard {shard:?}")))? = *tokens;
        }
        let inconsistent =
            || CallError::Malformed(format!("config and mint of sale {} do not add up", config.id));
        let adds_up = mint.iter().sum::<u64>() == config.total_stock;
        if adds_up { Ok(Self { config, mint }) } else { Err(inconsistent()) }
    }
}

/// Parses the text of a config.
///
/// # Errors
/// Returns [`CallError::Malformed`] when this release does not know its form.
pub fn parse_config(json: &str) -> Result<SaleConfig, CallError> {
    serde_json::from_str(json).map_err(|error| CallError::Malformed(format!("a sale's config: {error}")))
}

/// The answer of [`Record`].
#[derive(Clone, Debug, PartialEq)]
pub enum RecordAnswer {
    /// The change is recorded, by this call or by an earlier try of the same call.
    Done,
    /// Another caller changed the sale first. Contains the recorded config, or `None` when there is no such sale (any
    /// more).
    Overtaken(Option<Box<SaleConfig>>),
}

impl Call for Record<'_> {
    type Answer = RecordAnswer;

    fn slot(&self) -> Slot {
        self.keys.slot
    }

    fn command(&self) -> Cmd {
        let json = serde_json::to_string(self.config).expect("a config has only plain fields");
        let SaleKeys { config, mint, history, .. } = self.keys;
        let mut cmd = functions::fcall(Function::Record, &[config, mint, history]);
        cmd.arg(self.based_on).arg(json).arg(self.entry.to_json()).arg(HISTORY_ENTRIES_MAX);
        for (shard, tokens) in self.mint.iter().enumerate() {
            cmd.arg(shard).arg(tokens);
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<RecordAnswer, CallError> {
        let (recorded, held): (u8, Option<String>) = from_redis_value(reply)?;
        let held = held.as_deref().map(parse_config).transpose()?;
        Ok(if recorded == 1 { RecordAnswer::Done } else { RecordAnswer::Overtaken(held.map(Box::new)) })
    }
}
