#![doc = include_str!("../README.md")]

pub mod admin;
pub mod carry_out;
pub mod change;
pub mod channels;
pub mod coordinator;
pub mod desired;
pub mod new_sale;
mod news;
pub mod plan;
pub mod records;
pub mod rounds;
pub mod settings;
pub mod start;
pub mod trouble;

#[cfg(test)]
mod testing;
