//! Exhaustive checks of the protocol, complete and with each protection removed.

mod complete;
mod mutants;
mod records;
mod weaker_settings;
