//! How a service ends: its exit code, and its last words on standard error.

use std::fmt::Display;
use std::process::ExitCode;

use stock::cluster::ClusterError;

/// Settings that cannot work, or a `REDIS_URL` that leads to no cluster: starting again will not help.
pub const SETTINGS: u8 = 64;
/// Anything else: starting again may help.
pub const FAILURE: u8 = 1;

/// The exit code of a finished service. A failure is told in one line.
pub fn code(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("{error:#}"));
            ExitCode::from(code_of(&error))
        }
    }
}

/// Ends the process over settings that cannot work.
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
    eprintln!("error: {line}");
}

#[cfg(test)]
mod tests {
    use stock::topology::Address;

    use super::*;

    #[test]
    fn exit_code_64_only_for_a_non_cluster() {
        let address = Address { host: "redis".into(), port: 6379 };
        let failed = |error: ClusterError| anyhow::Error::new(error).context("connecting");
        assert_eq!(code_of(&failed(ClusterError::NotACluster(address))), 64);
        assert_eq!(code_of(&failed(ClusterError::Unreachable("gone".into()))), 1);
    }
}
