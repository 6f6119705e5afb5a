//! How many files a process may have open, and so how many connections.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit to what the system allows at most. Shells start programs with 1,024, from times when more broke
/// `select`; a crowd is more than that.
pub fn allow_many() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(error = %error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_highest_allowed() {
        allow_many();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
