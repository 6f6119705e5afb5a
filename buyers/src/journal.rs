//! The clients' journal of requests and answers.
//!
//! Invariant: a request is on disk before it is sent, and its answer before a client acts on it. So each entry
//! describes something that happened, and everything that happened has an entry. Entries written at the same time share
//! one sync.

mod file;
mod record;

pub use crate::answers::ApiFamily;
pub use file::{Journal, read};
pub use record::{
    Answered, BuyerRequest, Change, Exchange, Invoked, JournalEntry, Micros, Operated, SaleOpened, answers,
    exchanges, of_sale,
};
