//! Presence of processes: nodes, coordinators and ledgers, which talk only through Redis, report periodically that they
//! are running.
//!
//! The list is for people, nodes share the rate limits by it, and function libraries of releases that are long gone are
//! removed by it. Nothing else depends on it: a node that is missing from the list may still be selling.

use std::collections::BTreeSet;
use std::time::Duration;

use redis::{Cmd, Value, from_redis_value};
use rediscluster::{Call, CallError, EpochMs, Slot, slot_of_tag};

use crate::functions::{self, Function, LIBRARY, LIBRARY_PREFIX};
use crate::layout::{PRESENCE_KEY, SALES_KEY};

/// Largest number of processes on the list, as in `presence.lua`.
const PROCESSES_MAX: usize = 256;

/// Kind of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessKind {
    /// A coordinator: leads, or stands by to lead.
    Coordinator,
    /// A node: sells.
    Node,
    /// A ledger: writes orders into PostgreSQL.
    Ledger,
}

impl ProcessKind {
    const ALL: [Self; 3] = [Self::Coordinator, Self::Node, Self::Ledger];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Node => "node",
            Self::Ledger => "ledger",
        }
    }
}

/// A process' description of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Name, unique among all processes.
    pub name: String,
    /// Kind of the process.
    pub kind: ProcessKind,
    /// Version of its program, and the digest of its function library: `0.1.0+1f3a9c`.
    pub version: String,
}

/// A process' report about itself.
#[derive(Clone, Debug)]
pub struct PresenceUpdate {
    /// The process.
    pub process: ProcessInfo,
    /// Time that it has been running; `None` when it is stopping.
    pub uptime: Option<Duration>,
}

/// Lists the running processes, after an optional update. See `presence.lua`.
#[derive(Clone, Debug)]
pub struct Presence {
    /// The update; `None` to list only.
    pub update: Option<PresenceUpdate>,
}

/// The running processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessList {
    /// Time of the answer, by the clock of the primary that keeps the list.
    pub at: EpochMs,
    /// All processes that reported within the last ten seconds. Coordinators come first, then by name.
    pub processes: Vec<PresentProcess>,
    /// Number of entries in a form that this release does not know.
    pub unknown: usize,
}

/// A process on the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresentProcess {
    /// The process' description of itself.
    pub info: ProcessInfo,
    /// Start time, by the clock of the primary that keeps the list.
    pub started_at: EpochMs,
    /// Time of the last report, by the same clock.
    pub seen_at: EpochMs,
}

impl Presence {
    /// Reports a process that has been running for this long; `None` when it is stopping.
    pub fn report(process: &ProcessInfo, uptime: Option<Duration>) -> Self {
        Self { update: Some(PresenceUpdate { process: process.clone(), uptime }) }
    }
}

impl Call for Presence {
    type Answer = ProcessList;

    fn slot(&self) -> Slot {
        slot_of_tag(SALES_KEY)
    }

    fn command(&self) -> Cmd {
        let mut cmd = functions::fcall(Function::Presence, &[PRESENCE_KEY]);
        match &self.update {
            Some(PresenceUpdate { process: ProcessInfo { name, kind, version }, uptime }) => {
                cmd.arg(name).arg(kind.as_str()).arg(version);
                cmd.arg(uptime.map_or(-1, |uptime| uptime.as_millis() as i64));
            }
            None => _ = cmd.arg("").arg("").arg("").arg(-1),
        }
        cmd
    }

    fn answer(&self, reply: Value) -> Result<ProcessList, CallError> {
        let (at, entries): (EpochMs, Vec<(String, String)>) = from_redis_value(reply)?;
        let count = entries.len();
        // Entries in an unknown form are only counted: they come from another release.
        let mut processes: Vec<PresentProcess> =
            entries.into_iter().filter_map(|(name, entry)| PresentProcess::parse(name, &entry)).collect();
        processes.sort_unstable_by(|a, b| a.info.order().cmp(&b.info.order()));
        let unknown = count - processes.len();
        Ok(ProcessList { at, processes, unknown })
    }
}

impl ProcessList {
    /// Returns the names of the function libraries in use, or `None` if the list does not show them all: it is full, or a
    /// process of another release does not report its library.
    pub fn libraries(&self) -> Option<BTreeSet<String>> {
        let is_complete = self.unknown == 0 && self.processes.len() < PROCESSES_MAX;
        let libraries = self.processes.iter().map(|process| process.info.library());
        is_complete.then(|| libraries.collect()).flatten()
    }
}

impl ProcessInfo {
    /// Describes a process of this release.
    pub fn of_this_release(name: String, kind: ProcessKind) -> Self {
        let digest = &LIBRARY.name[LIBRARY_PREFIX.len()..];
        Self { name, kind, version: format!("{}+{digest}", env!("CARGO_PKG_VERSION")) }
    }

    fn library(&self) -> Option<String> {
        let (_, digest) = self.version.split_once('+')?;
        Some(format!("{LIBRARY_PREFIX}{digest}"))
    }

    fn order(&self) -> (ProcessKind, &str) {
        (self.kind, &self.name)
    }
}

impl PresentProcess {
    fn parse(name: String, entry: &str) -> Option<Self> {
        let mut parts = entry.splitn(4, ':');
        let mut next = || parts.next();
        let (started_at, seen_at) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let kind_text = next()?;
        let kind = ProcessKind::ALL.into_iter().find(|kind| kind.as_str() == kind_text)?;
        let info = ProcessInfo { name, kind, version: next()?.to_owned() };
        Some(Self { info, started_at, seen_at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn present(versions: &[&str]) -> ProcessList {
        let node =
            |version: &&str| PresentProcess::parse("a".into(), &format!("5:7:node:{version}")).unwrap();
        ProcessList { at: 7, processes: versions.iter().map(node).collect(), unknown: 0 }
    }

    #[test]
    fn libraries_in_use_are_those_of_all_processes() {
        let libraries = present(&["0.1.0+aaaaaa", "0.2.0+bbbbbb", "0.2.1+bbbbbb"]).libraries().unwrap();
        assert_eq!(Vec::from_iter(libraries), ["flashsale_aaaaaa", "flashsale_bbbbbb"]);
        let this = ProcessInfo::of_this_release("a".into(), ProcessKind::Node);
        assert_eq!(this.library().as_ref(), Some(&LIBRARY.name));
    }

    #[test]
    fn libraries_in_use_are_unknown_when_the_list_is_not_complete() {
        assert_eq!(
            present(&["0.1.0+aaaaaa", "0.0.9"]).libraries(),
            None,
            "a process does not report its library"
        );
        let entry_in_unknown_form = ProcessList { unknown: 1, ..present(&["0.1.0+aaaaaa"]) };
        assert_eq!(entry_in_unknown_form.libraries(), None);
        assert_eq!(present(&["0.1.0+aaaaaa"; PROCESSES_MAX]).libraries(), None, "the list is full");
        let lua = include_str!("functions/presence.lua");
        assert!(lua.contains(&format!("FORGET_MS, PROCESSES_MAX = 10000, {PROCESSES_MAX}")));
    }

    #[test]
    fn entries_in_unknown_form_are_ignored() {
        let read = |entry| PresentProcess::parse("a".into(), entry);
        let node = read("5:7:node:0.1.0:rc").unwrap();
        assert_eq!((node.info.kind, node.started_at, node.seen_at), (ProcessKind::Node, 5, 7));
        assert_eq!(node.info.version, "0.1.0:rc");
        assert_eq!(["5:7:auditor:1", "5:7:node", "x:7:node:1", ""].map(read), [None, None, None, None]);
    }
}
