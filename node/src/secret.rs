//! What all nodes sign with: from a setting, or agreed on through Redis.
//!
//! A failover may forget what was agreed on. So each node proposes its own again and again: one that is there stays,
//! and one that was lost is put back by whoever comes first.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use stock::calls::CallError;
use stock::cluster::Cluster;
use stock::store::ShareSecret;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::settings::Secret;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 32;
/// How often a node makes sure that the secret it shares is still in Redis.
const SHARE_PERIOD: Duration = Duration::from_secs(5);
/// How often a node that signs with a secret of its own tries to share one.
const SHARE_RETRY_PERIOD: Duration = Duration::from_millis(250);
/// Longest that a starting node waits for the shared secret: a failover takes less. After that it signs with its own,
/// and other nodes refuse its tokens until the secret is shared.
const SHARE_TIMEOUT_AT_START: Duration = Duration::from_secs(5);

/// Signs for one purpose or another. A signature for one is none for another.
#[derive(Clone)]
pub struct Signer {
    /// The first signs, all of them are good.
    keys: Arc<ArcSwap<Vec<Key>>>,
    _tasks: Arc<JoinSet<()>>,
}

type Key = Hmac<Sha256>;

impl Signer {
    /// Signs with the first of these secrets, of which there is at least one.
    pub fn with(secrets: &[Secret]) -> Self {
        Self::of(secrets.iter().map(|secret| key(secret.as_bytes())).collect(), JoinSet::new())
    }

    /// Signs with the secret that all nodes of this cluster share.
    pub async fn shared(cluster: Arc<Cluster>) -> Self {
        let own = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let agreed = timeout(SHARE_TIMEOUT_AT_START, share_with_retries(&cluster, &own)).await;
        let secret = agreed.as_ref().unwrap_or_else(|_| {
            tracing::warn!("the nodes' secret cannot be shared yet; other nodes refuse this node's tokens");
            &own
        });
        let signer = Self::of(vec![key(secret.as_bytes())], JoinSet::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_shared(cluster, own, agreed.ok(), Arc::clone(&signer.keys)));
        Self { _tasks: Arc::new(tasks), ..signer }
    }

    fn of(keys: Vec<Key>, tasks: JoinSet<()>) -> Self {
        Self { keys: Arc::new(ArcSwap::from_pointee(keys)), _tasks: Arc::new(tasks) }
    }

    /// Signs.
    pub fn sign(&self, purpose: &str, data: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let keys = self.keys.load();
        let first = keys.first().expect("there is always a key");
        mac(first, purpose, data).finalize().into_bytes().into()
    }

    /// Whether one of the secrets made this signature.
    pub fn verify(&self, purpose: &str, data: &[u8], signature: &[u8]) -> bool {
        self.keys.load().iter().any(|key| mac(key, purpose, data).verify_slice(signature).is_ok())
    }
}

fn key(secret: &[u8]) -> Key {
    Key::new_from_slice(secret).expect("HMAC takes keys of any length")
}

fn mac(key: &Key, purpose: &str, data: &[u8]) -> Key {
    key.clone().chain_update(purpose).chain_update([0]).chain_update(data)
}

async fn share(cluster: &Cluster, proposal: &str) -> Result<String, CallError> {
    cluster.write(ShareSecret { proposal }).await
}

async fn share_with_retries(cluster: &Cluster, proposal: &str) -> String {
    loop {
        match share(cluster, proposal).await {
            Ok(agreed) => return agreed,
            Err(error) => tracing::debug!(error = %error, "the nodes' secret could not be shared"),
        }
        sleep(SHARE_RETRY_PERIOD).await;
    }
}

/// Puts the shared secret back where a failover lost it. Tokens signed with this node's own secret stay good here.
async fn keep_shared(
    cluster: Arc<Cluster>,
    own: String,
    mut agreed: Option<String>,
    keys: Arc<ArcSwap<Vec<Key>>>,
) {
    loop {
        sleep(if agreed.is_some() { SHARE_PERIOD } else { SHARE_RETRY_PERIOD }).await;
        let shared = share_with_retries(&cluster, agreed.as_ref().unwrap_or(&own)).await;
        if agreed.as_ref() != Some(&shared) {
            let previous = agreed.as_ref().unwrap_or(&own);
            keys.store(Arc::new(vec![key(shared.as_bytes()), key(previous.as_bytes())]));
            agreed = Some(shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::secret_named;

    #[test]
    fn a_signature_is_good_for_its_data_and_purpose_alone() {
        let signer = Signer::with(&[secret_named("a")]);
        let signature = signer.sign("csrf", b"data");
        assert!(signer.verify("csrf", b"data", &signature));
        assert!(!signer.verify("csrf", b"other", &signature));
        assert!(!signer.verify("log", b"data", &signature));
        assert!(!signer.verify("csrf", b"data", &signature[..31]));
        assert!(!Signer::with(&[secret_named("b")]).verify("csrf", b"data", &signature));
    }

    #[test]
    fn a_secret_can_be_replaced_while_its_signatures_are_still_good() {
        let old = Signer::with(&[secret_named("old")]);
        let both = Signer::with(&[secret_named("new"), secret_named("old")]);
        assert!(both.verify("csrf", b"data", &old.sign("csrf", b"data")));
        assert!(!old.verify("csrf", b"data", &both.sign("csrf", b"data")));
    }
}
