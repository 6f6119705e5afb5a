//! Who is there: nodes and coordinators, which talk only through Redis, say so again and again.
//!
//! It is for people to look at. Nothing rests on it: who is not on the list may well be selling.

use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};

use crate::calls::{Call, CallError};
use crate::functions::{self, Function};
use crate::layout::{PRESENCE_KEY, SALES_KEY, Slot, slot_of_tag};
use crate::sale::EpochMs;

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// It leads, or would.
    Coordinator,
    /// It sells.
    Node,
}

impl ProcessKind {
    const ALL: [Self; 2] = [Self::Coordinator, Self::Node];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Node => "node",
        }
    }
}

/// What a process says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// No two processes have the same.
    pub name: String,
    /// What it is.
    pub kind: ProcessKind,
    /// Of its program.
    pub version: String,
}

/// What is said of a process.
#[derive(Clone, Copy, Debug)]
pub enum PresenceUpdate<'a> {
    /// It is there, and has been for so long.
    Here(&'a ProcessInfo, Duration),
    /// It goes.
    Goodbye(&'a ProcessInfo),
}

/// Asks who is there, and says something first, or not. See `presence.lua`.
#[derive(Clone, Copy, Debug)]
pub struct Presence<'a> {
    /// What is said.
    pub word: Option<PresenceUpdate<'a>>,
}

/// Who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessList {
    /// When, by the clock of the primary that keeps the list.
    pub at: EpochMs,
    /// Everybody who was heard of within ten seconds: coordinators first, by name.
    pub processes: Vec<PresentProcess>,
}

/// A process that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentProcess {
    /// What it says of itself.
    pub introduction: ProcessInfo,
    /// When it started, by the clock of the primary that keeps the list.
    pub started_at: EpochMs,
    /// When it was last heard of, by the same clock.
    pub seen_at: EpochMs,
}

impl Call for Presence<'_> {
    type Answer = ProcessList;

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Presence, &[PRESENCE_KEY]);
        let (introduction, running_ms) = match self.word {
            Some(PresenceUpdate::Here(introduction, running)) => {
                (Some(introduction), running.as_millis() as i64)
            }
            Some(PresenceUpdate::Goodbye(introduction)) => (Some(introduction), -1),
            None => (None, -1),
        };
        let text = |part: fn(&ProcessInfo) -> &str| introduction.map_or("", part);
        cmd.arg(text(|of| &of.name)).arg(text(|of| of.kind.as_str())).arg(text(|of| &of.version));
        cmd.arg(running_ms);
        cmd
    }

    fn answer(&self, reply: Value) -> Result<ProcessList, CallError> {
        let (at, told): (EpochMs, Vec<(String, String)>) = from_redis_value(reply)?;
        // What another release says in other words is none of this one's business.
        let mut processes: Vec<PresentProcess> =
            told.into_iter().filter_map(|(name, entry)| PresentProcess::parse(name, &entry)).collect();
        processes.sort_unstable_by(|a, b| a.introduction.order().cmp(&b.introduction.order()));
        Ok(ProcessList { at, processes })
    }
}

impl ProcessInfo {
    fn order(&self) -> (ProcessKind, &str) {
        (self.kind, &self.name)
    }
}

impl PresentProcess {
    fn parse(name: String, entry: &str) -> Option<Self> {
        let mut parts = entry.splitn(4, ':');
        let mut next = || parts.next();
        let (started_at, seen_at) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let said = next()?;
        let kind = ProcessKind::ALL.into_iter().find(|kind| kind.as_str() == said)?;
        let introduction = ProcessInfo { name, kind, version: next()?.to_owned() };
        Some(Self { introduction, started_at, seen_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_other_words_is_left_out() {
        let read = |entry| PresentProcess::parse("a".into(), entry);
        let node = read("5:7:node:0.1.0:rc").unwrap();
        assert_eq!((node.introduction.kind, node.started_at, node.seen_at), (ProcessKind::Node, 5, 7));
        assert_eq!(node.introduction.version, "0.1.0:rc");
        assert_eq!(["5:7:auditor:1", "5:7:node", "x:7:node:1", ""].map(read), [None, None, None, None]);
    }
}
