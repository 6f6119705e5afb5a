//! Changes that operators make to an existing sale: pure functions from the recorded state to the next one.
//!
//! Each change is idempotent. An operator who repeats a change because the response was lost gets the same result.

use rediscluster::EpochMs;
use serde_json::{Map, Value, json};
use service::time::iso8601;
use stock::archive::Archive;
use stock::history::{ChangeOrigin, HistoryEntry};
use stock::sale::{InvalidSale, Restock, SaleConfig, SaleState};

use crate::desired_state::DesiredState;

/// Most restocks of a sale. All of them are kept, because a repeated restock must be recognized however late it
/// arrives. Each takes about 45 bytes of the configuration, which coordinators read at most ten times per second.
const RESTOCKS_MAX: usize = 256;

/// A change to a sale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Stops selling until the sale is resumed.
    Pause,
    /// Continues selling.
    Resume,
    /// Stops selling for good.
    End,
    /// Moves the end, later or earlier, but not before the start.
    Extend {
        /// The new end.
        ends_at: EpochMs,
    },
    /// Adds units.
    Restock(Restock),
}

/// Why a change is refused. The text is meant for the operator.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Not all shards hold their stock yet.
    #[error("the sale is still being created; repeat the request that creates it, or wait")]
    Creating,
    /// The sale has ended, which is final.
    #[error("the sale has ended, and that is final")]
    Ended,
    /// Only a sale that has ended can be archived.
    #[error("only an ended sale can be archived; end it first")]
    NotEnded,
    /// Redis has orders that no ledger has.
    #[error(
        "{missing} shards have orders that no ledger has noted within the last minute; wait for flashsale-ledger, or send \
         ordersExported: true if you have taken the orders out yourself"
    )]
    NotInLedger {
        /// Number of these shards.
        missing: usize,
    },
    /// A restock of 0 units.
    #[error("a restock adds at least 1 unit")]
    NoUnits,
    /// The idempotency key belongs to a restock of another size.
    #[error("this Idempotency-Key was used for a restock of {0} units; use a new key")]
    KeyTaken(u64),
    /// The limit of restocks is reached. One more could not be recorded, and so not be recognized when it is
    /// repeated.
    #[error("a sale is restocked at most {RESTOCKS_MAX} times")]
    TooManyRestocks,
    /// The changed sale would be invalid.
    #[error(transparent)]
    Invalid(#[from] InvalidSale),
}

impl Change {
    /// The change as an entry of the sale's history.
    pub(crate) fn entry(&self, after: &SaleConfig, origin: &ChangeOrigin, at: EpochMs) -> HistoryEntry {
        let (change, values) = match self {
            Self::Pause => ("pause", json!({})),
            Self::Resume => ("resume", json!({})),
            Self::End => ("end", json!({})),
            Self::Extend { ends_at } => ("extend", json!({ "endsAt": iso8601(*ends_at) })),
            Self::Restock(Restock { units, .. }) => ("restock", json!({ "units": units })),
        };
        entry(change, values, after, origin, at)
    }

    /// Returns the sale with this change; `None` if the change was made already.
    ///
    /// # Errors
    /// Fails when the state of the sale does not allow the change, or the changed sale would be invalid.
    pub fn apply(&self, desired: &DesiredState) -> Result<Option<DesiredState>, ChangeError> {
        let before = &*desired.sale.config;
        if self.is_made(before)? {
            return Ok(None);
        }
        let sale = desired.sale.at(self.altered(before)?)?;
        let minted = match self {
            Self::Restock(restock) => sale.split(restock.units),
            _ => vec![0; desired.mint.len()],
        };
        let mint = desired.mint.iter().zip(minted).map(|(before, units)| before + units).collect();
        Ok(Some(DesiredState { sale, mint }))
    }

    fn is_made(&self, config: &SaleConfig) -> Result<bool, ChangeError> {
        match self {
            Self::Pause => Ok(config.state == SaleState::Paused),
            Self::Resume => Ok(config.state == SaleState::Open),
            Self::End => Ok(matches!(config.state, SaleState::Ended | SaleState::Archived)),
            Self::Extend { ends_at } => {
                let is_over = matches!(config.state, SaleState::Ended | SaleState::Archived);
                Ok(config.window.ends_at == *ends_at && !is_over)
            }
            Self::Restock(restock) => {
                match config.changes.restocks.iter().find(|known| known.key == restock.key) {
                    Some(known) if known.units != restock.units => Err(ChangeError::KeyTaken(known.units)),
                    known => Ok(known.is_some()),
                }
            }
        }
    }

    fn altered(&self, before: &SaleConfig) -> Result<SaleConfig, ChangeError> {
        match before.state {
            SaleState::Creating => return Err(ChangeError::Creating),
            SaleState::Ended | SaleState::Archived => return Err(ChangeError::Ended),
            SaleState::Open | SaleState::Paused => {}
        }
        let mut config = SaleConfig { version: before.version + 1, ..before.clone() };
        match self {
            Self::Pause => config.state = SaleState::Paused,
            Self::Resume => config.state = SaleState::Open,
            Self::End => config.state = SaleState::Ended,
            Self::Extend { ends_at } => move_end(&mut config, *ends_at),
            Self::Restock(restock) => add_units(&mut config, restock)?,
        }
        Ok(config)
    }
}

/// Returns an ended sale as archived: with its final number of units sold, and with its shards to be removed.
///
/// # Errors
/// Fails when the sale has not ended.
pub(crate) fn archived(desired: &DesiredState, sold: u64) -> Result<DesiredState, ChangeError> {
    let before = &*desired.sale.config;
    if before.state != SaleState::Ended {
        return Err(ChangeError::NotEnded);
    }
    let archive = Some(Archive { sold, is_removed: false });
    let config =
        SaleConfig { version: before.version + 1, state: SaleState::Archived, archive, ..before.clone() };
    Ok(DesiredState { sale: desired.sale.at(config)?, mint: desired.mint.clone() })
}

/// An entry of the history of the sale that has this configuration after the change. `values` is an object.
pub(crate) fn entry(
    change: &str,
    values: Value,
    after: &SaleConfig,
    origin: &ChangeOrigin,
    at: EpochMs,
) -> HistoryEntry {
    let values = match values {
        Value::Object(values) => values,
        _ => Map::new(),
    };
    HistoryEntry { version: after.version, at, change: change.to_owned(), values, origin: origin.clone() }
}

fn move_end(config: &mut SaleConfig, ends_at: EpochMs) {
    config.changes.created_ends_at.get_or_insert(config.window.ends_at);
    config.window.ends_at = ends_at;
}

fn add_units(config: &mut SaleConfig, restock: &Restock) -> Result<(), ChangeError> {
    if restock.units == 0 {
        return Err(ChangeError::NoUnits);
    }
    if config.changes.restocks.len() >= RESTOCKS_MAX {
        return Err(ChangeError::TooManyRestocks);
    }
    config.total_stock = config.total_stock.saturating_add(restock.units);
    config.changes.restocked = config.changes.restocked.saturating_add(restock.units);
    config.changes.restocks.push(restock.clone());
    Ok(())
}

#[cfg(test)]
mod tests {
    use stock::sale::TOTAL_STOCK_MAX;

    use super::*;
    use crate::testing::{NOW, recorded};

    fn restock(key: &str, units: u64) -> Change {
        Change::Restock(Restock { key: key.into(), units })
    }

    fn after(change: &Change, desired: &DesiredState) -> DesiredState {
        change.apply(desired).unwrap().expect("the change is not made yet")
    }

    #[test]
    fn change_raises_the_version_once() {
        let open = recorded(SaleState::Open, 2);
        for change in [Change::Pause, Change::End, Change::Extend { ends_at: NOW + 1 }, restock("a", 5)] {
            let changed = after(&change, &open);
            assert_eq!(changed.sale.config.version, open.sale.config.version + 1, "{change:?}");
            assert_eq!(change.apply(&changed), Ok(None), "{change:?}");
        }
        let paused = after(&Change::Pause, &open);
        assert_eq!(after(&Change::Resume, &paused).sale.config.state, SaleState::Open);
    }

    #[test]
    fn ended_sale_accepts_no_changes() {
        let ended = recorded(SaleState::Ended, 2);
        for change in [Change::Pause, Change::Resume, Change::Extend { ends_at: NOW + 1 }, restock("a", 5)] {
            assert_eq!(change.apply(&ended), Err(ChangeError::Ended), "{change:?}");
        }
        assert_eq!(Change::End.apply(&ended), Ok(None));
    }

    #[test]
    fn creating_sale_accepts_no_changes() {
        for change in [Change::Pause, Change::Resume, Change::End, restock("a", 5)] {
            assert_eq!(
                change.apply(&recorded(SaleState::Creating, 2)),
                Err(ChangeError::Creating),
                "{change:?}"
            );
        }
    }

    #[test]
    fn end_can_move_but_not_before_start() {
        let open = recorded(SaleState::Open, 2);
        let created_ends_at = open.sale.config.window.ends_at;
        let later = after(&Change::Extend { ends_at: created_ends_at + 1 }, &open);
        let earlier = after(&Change::Extend { ends_at: NOW + 1 }, &later);
        assert_eq!(earlier.sale.config.window.ends_at, NOW + 1);
        assert_eq!(earlier.sale.config.changes.created_ends_at, Some(created_ends_at));
        assert_eq!(
            Change::Extend { ends_at: NOW }.apply(&open),
            Err(ChangeError::Invalid(InvalidSale::Window))
        );
    }

    #[test]
    fn restock_mints_exactly_its_units() {
        let restocked = after(&restock("a", 7), &recorded(SaleState::Open, 3));
        assert_eq!(restocked.sale.config.total_stock, 107);
        assert_eq!(restocked.mint.iter().sum::<u64>(), 107);
    }

    #[test]
    fn repeated_restock_is_recognized_after_other_changes() {
        let twice = after(&restock("b", 5), &after(&restock("a", 5), &recorded(SaleState::Open, 2)));
        assert_eq!(restock("a", 5).apply(&twice), Ok(None));
        assert_eq!(restock("a", 6).apply(&twice), Err(ChangeError::KeyTaken(5)));
        assert_eq!(restock("a", 5).apply(&after(&Change::End, &twice)), Ok(None));
    }

    #[test]
    fn restocks_beyond_the_limit_are_refused() {
        let all = (0..RESTOCKS_MAX)
            .fold(recorded(SaleState::Open, 2), |sale, n| after(&restock(&n.to_string(), 1), &sale));
        assert_eq!(all.sale.config.changes.restocked, RESTOCKS_MAX as u64);
        assert_eq!(restock("0", 1).apply(&all), Ok(None), "the first restock was forgotten");
        assert_eq!(restock("one more", 1).apply(&all), Err(ChangeError::TooManyRestocks));
    }

    #[test]
    fn restock_respects_the_stock_limits() {
        let open = recorded(SaleState::Open, 2);
        assert_eq!(restock("a", 0).apply(&open), Err(ChangeError::NoUnits));
        for units in [TOTAL_STOCK_MAX, u64::MAX] {
            assert_eq!(restock("a", units).apply(&open), Err(ChangeError::Invalid(InvalidSale::TotalStock)));
        }
    }
}
