//! Actions as sentences, for counterexamples.

use std::fmt;

use super::{Action, ModelOrder};

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Buy(order) => write!(f, "{order}"),
            Self::SellTwice(order) => write!(f, "{order}, and gets a second unit"),
            Self::FallBehind => f.write_str("the replica stops following"),
            Self::FailOver => f.write_str("the replica is promoted"),
            Self::Join => f.write_str("the demoted primary joins as replica: its copy begins"),
            Self::FinishCopy => f.write_str("the replica finishes its copy"),
            Self::ReadCursor(ledger) => write!(f, "ledger {ledger} reads the cursor"),
            Self::Confirm(ledger) => write!(f, "ledger {ledger} asks for the last entry"),
            Self::Read(ledger) => write!(f, "ledger {ledger} reads the entries"),
            Self::Write { ledger, answered: true } => write!(f, "ledger {ledger} writes"),
            Self::Write { ledger, answered: false } => {
                write!(f, "ledger {ledger} writes; the answer is lost")
            }
            Self::WriteRows(ledger) => write!(f, "ledger {ledger} writes the rows"),
            Self::GiveUp(ledger) => write!(f, "ledger {ledger} gives up its statement"),
            Self::WriteLate => f.write_str("PostgreSQL executes the statement that was given up"),
            Self::Crash(ledger) => write!(f, "ledger {ledger} dies, and another one is started"),
        }
    }
}

impl fmt::Display for ModelOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempt = if self.attempt == 0 { "first" } else { "second" };
        write!(f, "user {} buys, {attempt} attempt", self.user)
    }
}
