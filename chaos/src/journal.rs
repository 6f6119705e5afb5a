//! The clients' journal: what was asked and what was told, on disk before it counts.
//!
//! A request is written down and synced before it is sent, and its answer before anybody acts on it: whatever the
//! journal holds did happen, and whatever happened is in it. Requests that come together share one sync.

mod file;
mod record;

pub use file::{Journal, read};
pub use record::{
    Answered, ApiFamily, BuyerRequest, Change, Invoked, JournalEntry, Micros, Operated, Reported, SaleOpened,
    TIMED_OUT, of_sale,
};
