//! Commands that change a server's part in the cluster. Each may be sent twice.

use std::fmt;

use rediscluster::Slot;

use crate::facts::Endpoint;
use crate::slots::Slots;

/// A command to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Sets the configuration epoch. A server accepts it only before it knows another one.
    SetEpoch(usize),
    /// Introduces the server to another one.
    Meet(Endpoint),
    /// Assigns slots that no server serves.
    AddSlots(Slots),
    /// Lets replicas log in.
    AllowReplicas,
    /// Makes the server a replica of this id.
    Replicate(String),
    /// Forgets this id.
    Forget(String),
    /// Prepares the server to receive a slot from this id.
    Import(Slot, String),
    /// Stops the creation of keys in a slot that moves to this id.
    Migrate(Slot, String),
    /// Assigns a slot to this id, in the server's view.
    Assign(Slot, String),
    /// Ends the move of a slot where it is.
    Close(Slot),
}

impl Command {
    /// The words of the command.
    pub(crate) fn words(&self) -> Vec<String> {
        let cluster = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let set_slot = |slot: &Slot, words: &[&str]| {
            let slot = slot.to_string();
            cluster(&[&["CLUSTER", "SETSLOT", &slot], words].concat())
        };
        match self {
            Self::SetEpoch(epoch) => cluster(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]),
            Self::Meet(Endpoint { ip, port, bus_port }) => {
                cluster(&["CLUSTER", "MEET", ip, &port.to_string(), &bus_port.to_string()])
            }
            Self::AddSlots(slots) => {
                let bounds = slots.ranges().iter().flat_map(|range| [range.start(), range.end()]);
                let bounds = bounds.map(Slot::to_string);
                cluster(&["CLUSTER", "ADDSLOTSRANGE"]).into_iter().chain(bounds).collect()
            }
            Self::AllowReplicas => cluster(&["ACL", "SETUSER", "replica", "on"]),
            Self::Replicate(id) => cluster(&["CLUSTER", "REPLICATE", id]),
            Self::Forget(id) => cluster(&["CLUSTER", "FORGET", id]),
            Self::Import(slot, id) => set_slot(slot, &["IMPORTING", id]),
            Self::Migrate(slot, id) => set_slot(slot, &["MIGRATING", id]),
            Self::Assign(slot, id) => set_slot(slot, &["NODE", id]),
            Self::Close(slot) => set_slot(slot, &["STABLE"]),
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words().join(" "))
    }
}
