//! A call to the cluster, and the reasons why it has no answer.

use futures::future::Either;
use redis::{Cmd, Value};

use crate::slot::Slot;

/// A call to the primary of one slot.
pub trait Call {
    /// The typed answer.
    type Answer;

    /// Returns the slot that the call touches.
    fn slot(&self) -> Slot;

    /// Builds the command to send.
    fn command(&self) -> Cmd;

    /// Parses the reply. Error replies are turned into a [`CallError`] before this is called.
    ///
    /// # Errors
    /// Returns [`CallError::Malformed`] when the reply has another form.
    fn answer(&self, reply: Value) -> Result<Self::Answer, CallError>;
}

/// Calls of two kinds, which can travel in one pipeline.
impl<A: Call, B: Call> Call for Either<A, B> {
    type Answer = Either<A::Answer, B::Answer>;

    fn slot(&self) -> Slot {
        match self {
            Self::Left(call) => call.slot(),
            Self::Right(call) => call.slot(),
        }
    }

    fn command(&self) -> Cmd {
        match self {
            Self::Left(call) => call.command(),
            Self::Right(call) => call.command(),
        }
    }

    fn answer(&self, reply: Value) -> Result<Self::Answer, CallError> {
        Ok(match self {
            Self::Left(call) => Either::Left(call.answer(reply)?),
            Self::Right(call) => Either::Right(call.answer(reply)?),
        })
    }
}

/// The reason why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The primary does not serve the slot, or does not serve it now. The call had no effect. Refresh the cluster map
    /// and retry.
    #[error("the slot is not served there now: {0}")]
    Moved(String),
    /// The primary does not have the function. The call had no effect. Load the library and retry.
    #[error("the function library is missing")]
    FunctionMissing,
    /// The shard does not exist.
    #[error("the shard does not exist")]
    NoShard,
    /// The call was executed after the time that it allows, and had no effect.
    #[error("the call came too late: {0}")]
    Late(String),
    /// The shard belongs to another layout than the caller's.
    #[error("the shard belongs to another ring: {0}")]
    WrongRing(String),
    /// Redis has reached its memory limit. The call had no effect.
    #[error("Redis is out of memory")]
    OutOfMemory,
    /// No reply arrived, so the outcome is unknown. A retry is safe, except of a donation, which would
    /// donate again.
    #[error("no reply: {0}")]
    NoReply(String),
    /// The call was executed, but too few replicas confirmed it in time, so a failover may undo it. A retry is safe.
    #[error("{confirmed} of {replicas} replicas confirmed in time")]
    NotDurable {
        /// Number of replicas that confirmed.
        confirmed: usize,
        /// Number of replicas that had to confirm.
        replicas: usize,
    },
    /// Redis refused the call; its error text is given.
    #[error("Redis refused: {0}")]
    Refused(String),
    /// The reply does not have the form of the operation.
    #[error("a reply of the wrong form: {0}")]
    Malformed(String),
}

impl CallError {
    /// Returns true when a retry soon may succeed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Moved(_)
            | Self::FunctionMissing
            | Self::Late(_)
            | Self::NoReply(_)
            | Self::NotDurable { .. } => true,
            Self::NoShard
            | Self::WrongRing(_)
            | Self::OutOfMemory
            | Self::Refused(_)
            | Self::Malformed(_) => false,
        }
    }

    /// Returns true when the Redis user lacks the permission for the call (`NOPERM`).
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Refused(why) if why.starts_with("NOPERM"))
    }

    /// Returns true when the call may have been executed although it has no answer.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::NoReply(_) | Self::NotDurable { .. } | Self::Malformed(_))
    }

    /// Parses an error reply. `details` is the text after the code.
    pub(crate) fn from_reply(code: &str, details: &str) -> Self {
        match code {
            // `NOREPLICAS` is the answer of a primary that has fewer replicas than `min-replicas-to-write`.
            "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "READONLY" | "LOADING"
            | "NOREPLICAS" => Self::Moved(format!("{code} {details}")),
            "ERR" if details.starts_with("Function not found") => Self::FunctionMissing,
            "NOSHARD" => Self::NoShard,
            "LATE" => Self::Late(details.to_owned()),
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
