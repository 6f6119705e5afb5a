//! Slots: the parts of the key space that the primaries share.

/// Number of slots of a Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// A slot of the cluster. It alone decides which primary holds a key.
pub type Slot = u16;

/// Returns the slot of keys with this hash tag.
pub fn slot_of_tag(tag: &str) -> Slot {
    crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes()) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_match_redis() {
        // As `CLUSTER KEYSLOT` answers.
        assert_eq!(slot_of_tag("foo"), 12182);
        assert_eq!(slot_of_tag("123456789"), 12739);
    }
}
