//! Actions as sentences, for counterexamples.

use std::fmt;

use crate::actions::{Action, Purchase};
use crate::contents::Attempt;
use crate::shard::Server;

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Buy(Purchase { user, attempt, shard, server, answered }) => {
                write!(
                    f,
                    "user {user} buys, {attempt} attempt, at {server} of shard {shard}{}",
                    lost_note(answered)
                )
            }
            Self::BuyAndWait(Purchase { user, attempt, shard, server, .. }) => write!(
                f,
                "user {user} buys, {attempt} attempt, at {server} of shard {shard}; no node reads the answer yet"
            ),
            Self::ReadAnswer => f.write_str("a node reads the answer"),
            Self::Donate(call, want) => {
                let (server, note) = (call.server, lost_note(call.answered));
                write!(f, "{server} of shard {} donates {want} to shard {}{note}", call.from, call.to)
            }
            Self::Redrive(call) => {
                let (server, note) = (call.server, lost_note(call.answered));
                write!(f, "{server} of shard {} returns its channel to shard {}{note}", call.from, call.to)
            }
            Self::Accept(call, cumulative) => {
                let server = call.server;
                write!(f, "{server} of shard {} accepts from shard {} up to {cumulative}", call.to, call.from)
            }
            Self::FallBehind(shard) => write!(f, "the replica of shard {shard} stops following"),
            Self::FailOver(shard) => write!(f, "the replica of shard {shard} is promoted"),
            Self::Join(shard) => {
                write!(f, "the demoted primary of shard {shard} joins as replica: its copy begins")
            }
            Self::FinishCopy(shard) => write!(f, "the replica of shard {shard} finishes its copy"),
            Self::ReadMap(shard) => write!(f, "all nodes read the map of shard {shard}"),
            Self::CopyFromOutside(shard) => {
                write!(f, "a server outside the cluster begins to copy the primary of shard {shard}")
            }
            Self::Audit => write!(f, "an audit reads one end of all channels"),
            Self::Crash => write!(f, "nodes and coordinators crash"),
            Self::CatchUp(shard) => write!(f, "the replica of shard {shard} catches up"),
            Self::CopyAgain(shard) => write!(f, "the replica of shard {shard} begins a new copy"),
            Self::ReadLevel(shard, server) => write!(f, "a snapshot reads {server} of shard {shard}"),
            Self::Take(Purchase { user, attempt, shard, .. }) => {
                write!(f, "user {user}, {attempt} attempt, takes the token it found in shard {shard}")
            }
            Self::GiveUp(user) => write!(f, "user {user} is answered out of stock without another check"),
        }
    }
}

fn lost_note(answered: bool) -> &'static str {
    if answered { "" } else { "; the answer is lost" }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::First => "first",
            Self::Second => "second",
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "the primary",
            Self::StalePrimary => "the demoted primary",
        })
    }
}
