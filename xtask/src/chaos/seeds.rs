//! Which runs to make.

use std::{
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

/// Adjacent seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seeds {
    first: u64,
    last: u64,
}

impl Seeds {
    pub(super) fn only(seed: u64) -> Self {
        Self { first: seed, last: seed }
    }

    pub(super) fn all(self) -> impl Iterator<Item = u64> {
        self.first..=self.last
    }
}

impl FromStr for Seeds {
    type Err = String;

    /// Reads `1..20`, both ends included; one number is a run of its own.
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let seed = |text: &str| text.parse().map_err(|_| format!("`{text}` is no seed"));
        let seeds = Self { first: seed(first)?, last: seed(last)? };
        if seeds.first > seeds.last { Err(format!("`{text}` is empty")) } else { Ok(seeds) }
    }
}

/// A short one, so that a person can type it again.
pub(super) fn by_chance() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read_with_both_ends() {
        assert_eq!("3..5".parse::<Seeds>().unwrap().all().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!("7".parse::<Seeds>().unwrap(), Seeds::only(7));
        assert!("5..3".parse::<Seeds>().is_err() && "a..b".parse::<Seeds>().is_err());
    }
}
