//! The protocol under every order of events, whole and with each of its protections missing.

mod mutants;
mod prices;
mod records;
mod sound;
