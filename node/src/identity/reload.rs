//! Reads the key file again when it changes, so that a withdrawn key stops working without a restart.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::Signal;

use super::AuthSettingsError;
use super::keys::{KeyFile, ParsedKeys, VerificationKeys};
use crate::metrics;

/// Time between two readings. The content is compared: Kubernetes replaces a mounted Secret by a symbolic link, and a
/// file system need not report it.
const PERIOD: Duration = Duration::from_secs(10);

/// Keeps the keys of a running node up to date.
pub struct KeyReloader(pub(super) Option<Reloaded>);

/// A key file, and what was read of it.
pub(super) struct Reloaded {
    pub(super) file: KeyFile,
    pub(super) keys: Arc<ArcSwap<VerificationKeys>>,
    pub(super) content: Vec<u8>,
    pub(super) ignored: Vec<String>,
}

impl KeyReloader {
    /// Reads the key file again every ten seconds and at each SIGHUP. A file that cannot be read or parsed changes
    /// nothing: it may be incomplete, and the node goes on with the keys that it has.
    pub async fn run(self, mut hangups: Signal) -> Infallible {
        let Some(mut reloaded) = self.0 else {
            loop {
                hangups.recv().await;
                tracing::info!("SIGHUP: there is no key file to read again");
            }
        };
        reloaded.report("start");
        let mut outdated: Option<String> = None;
        loop {
            let trigger = tokio::select! {
                _ = hangups.recv() => "SIGHUP",
                () = tokio::time::sleep(PERIOD) => "change",
            };
            let error = reloaded.read_again(trigger).await.err().map(|error| error.to_string());
            metrics::set_auth_keys_outdated(error.is_some());
            if let Some(error) =
                error.as_ref().filter(|error| trigger == "SIGHUP" || outdated.as_ref() != Some(*error))
            {
                tracing::error!(
                    error,
                    "the keys of bearer tokens cannot be read again; the previous ones stay in use"
                );
            }
            outdated = error;
        }
    }
}

impl Reloaded {
    async fn read_again(&mut self, trigger: &'static str) -> Result<(), AuthSettingsError> {
        let file = self.file.clone();
        let content =
            tokio::task::spawn_blocking(move || file.read()).await.expect("reading does not panic")?;
        if content == self.content && trigger != "SIGHUP" {
            return Ok(());
        }
        let ParsedKeys { keys, ignored } = self.file.parse(&content)?;
        self.keys.store(Arc::new(keys));
        (self.content, self.ignored) = (content, ignored);
        self.report(trigger);
        Ok(())
    }

    fn report(&self, trigger: &'static str) {
        let (path, keys) = (self.file.path().display(), self.keys.load().count());
        metrics::set_auth_keys(keys);
        for reason in &self.ignored {
            tracing::warn!(file = %path, reason, "a key of the file is not used");
        }
        if keys == 0 {
            tracing::error!(file = %path, trigger, "the file has no usable key: every bearer token is refused");
        } else {
            tracing::info!(file = %path, trigger, keys, "keys of bearer tokens are read");
        }
    }
}
