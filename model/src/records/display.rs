//! Actions as sentences, for counterexamples.

use std::fmt;

use super::{Action, Change};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Create(1) => f.write_str("an operator creates the sale"),
            Self::Create(_) => f.write_str("an operator creates another sale of that name"),
            Self::Request(change) => write!(f, "an operator requests {change}: it is recorded"),
            Self::Acknowledge(change) => write!(f, "{change} is acknowledged to the operator"),
            Self::FallBehind => f.write_str("the replica of the record stops following"),
            Self::FailOver => f.write_str("the replica of the record is promoted"),
            Self::Join => f.write_str("the demoted primary of the record joins as replica: its copy begins"),
            Self::FinishCopy => f.write_str("the replica of the record finishes its copy"),
            Self::BackUp => f.write_str("a backup of the record is taken"),
            Self::LoseRecord => f.write_str("both servers of the record lose their data"),
            Self::RestoreBackup => f.write_str("the record is restored from the backup"),
            Self::Read(coordinator) => write!(f, "coordinator {coordinator} reads the record"),
            Self::Configure(coordinator, shard) => {
                write!(f, "coordinator {coordinator} brings shard {shard} to the settings that it read")
            }
            Self::Mint(coordinator, shard) => {
                write!(f, "coordinator {coordinator} mints to shard {shard} what it read")
            }
            Self::Open(coordinator) => write!(f, "coordinator {coordinator} opens the sale"),
            Self::LoseShard(shard) => write!(f, "both servers of shard {shard} lose their data"),
            Self::Raise(coordinator, shard) => {
                write!(f, "coordinator {coordinator} raises the version of the record above shard {shard}")
            }
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pause => "a pause",
            Self::Restock => "a restock",
        })
    }
}
