//! The images: what goes in, what they say of themselves, and how what they run tells whether it is well.

mod context;
mod dockerfile;
mod health;

/// Each target of the Dockerfile with the program that it runs.
const TARGETS: [(&str, &str); 2] = [("node", "flashsale-node"), ("coordinator", "flashsale-coordinator")];
