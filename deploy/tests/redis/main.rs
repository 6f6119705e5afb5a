//! The scripts of `deploy/redis`, run for real: servers that start themselves from password files, and a cluster that is
//! made, grown and mended of them. Over TLS where the server program has it.

#![expect(clippy::unwrap_used, reason = "a story whose stage cannot be set has failed")]

mod growing;
mod halfway;
mod handing_over;
mod making;
mod refusing;
mod rotating;
mod sale;
mod stage;
mod starting;
mod torn_files;
