//! Exit codes, and the last line on standard error.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::process::ExitCode;

use rediscluster::ClusterError;

/// Invalid settings, or a `REDIS_URL` that leads to no cluster: a restart does not help.
pub const SETTINGS: u8 = 64;
/// Any other failure: a restart may help.
pub const FAILURE: u8 = 1;

/// Returns the exit code of a finished service, and prints a failure as one line.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("{error:#}"));
            ExitCode::from(code_of(&error))
        }
    }
}

/// Exits the process because of invalid settings.
pub(crate) fn exit_invalid_settings(line: impl Display) -> ! {
    print_error(line);
    std::process::exit(SETTINGS.into())
}

fn code_of(error: &anyhow::Error) -> u8 {
    match error.downcast_ref() {
        Some(ClusterError::NotACluster(_)) => SETTINGS,
        _ => FAILURE,
    }
}

fn print_error(line: impl Display) {
    // The exit code remains if the reader is gone.
    writeln!(io::stderr(), "error: {line}").ok();
}

#[cfg(test)]
mod tests {
    use rediscluster::Address;

    use super::*;

    #[test]
    fn exit_code_64_only_for_a_non_cluster() {
        let address = Address { host: "redis".into(), port: 6379 };
        let failed = |error: ClusterError| anyhow::Error::new(error).context("connecting");
        assert_eq!(code_of(&failed(ClusterError::NotACluster(address))), 64);
        assert_eq!(code_of(&failed(ClusterError::Unreachable("gone".into()))), 1);
    }
}
