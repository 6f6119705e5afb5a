//! The seeds of a series of runs.

use std::{
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

/// A range of seeds, both ends included.
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

    /// Parses `1..20`, both ends included. A single number is a range of one seed.
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let seed = |text: &str| text.parse().map_err(|_| format!("`{text}` is no seed"));
        let seeds = Self { first: seed(first)?, last: seed(last)? };
        if seeds.first > seeds.last { Err(format!("`{text}` is empty")) } else { Ok(seeds) }
    }
}

/// Returns a random seed that is short enough for a person to type again.
pub(super) fn random() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_include_both_ends() {
        assert_eq!("3..5".parse::<Seeds>().unwrap().all().collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!("7".parse::<Seeds>().unwrap(), Seeds::only(7));
        assert!("5..3".parse::<Seeds>().is_err() && "a..b".parse::<Seeds>().is_err());
    }
}
