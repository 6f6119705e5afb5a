//! The secret that all nodes sign with: a setting, or a value shared through Redis.
//!
//! A failover may lose the shared value. Each node therefore proposes its secret every 5 s. Redis keeps an existing
//! value, and the first proposal restores a lost one.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use rediscluster::{CallError, Cluster};
use sha2::Sha256;
use stock::store::ShareSecret;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::settings::Secret;

/// Length of a signature, bytes.
pub const SIGNATURE_BYTES: usize = 32;
/// How often a node checks that the shared secret is still in Redis.
const SHARE_PERIOD: Duration = Duration::from_secs(5);
/// How often a node tries to share a secret while it signs with a local one.
const SHARE_RETRY_PERIOD: Duration = Duration::from_millis(250);
/// Longest wait of a starting node for the shared secret. A failover takes less time. After that the node signs with a
/// local secret, and other nodes refuse its tokens until the secret is shared.
const SHARE_TIMEOUT_AT_START: Duration = Duration::from_secs(5);

/// Signs data for a named purpose. A signature made for one purpose is invalid for another.
#[derive(Clone)]
pub struct Signer {
    /// The first key signs. All keys verify.
    keys: Arc<ArcSwap<Vec<Key>>>,
    _tasks: Arc<JoinSet<()>>,
}

type Key = Hmac<Sha256>;

impl Signer {
    /// Creates a signer that signs with the first of these secrets and verifies with all. `secrets` must not be empty.
    pub fn with(secrets: &[Secret]) -> Self {
        Self::of(secrets.iter().map(|secret| key(secret.as_bytes())).collect(), JoinSet::new())
    }

    /// Creates a signer with the secret that all nodes of this cluster share.
    pub async fn shared(cluster: Arc<Cluster>) -> Self {
        let local = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        let current = timeout(SHARE_TIMEOUT_AT_START, share_with_retries(&cluster, &local)).await;
        let secret = current.as_ref().unwrap_or_else(|_| {
            tracing::warn!("the nodes' secret cannot be shared yet; other nodes refuse this node's tokens");
            &local
        });
        let signer = Self::of(vec![key(secret.as_bytes())], JoinSet::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(keep_shared(cluster, local, current.ok(), Arc::clone(&signer.keys)));
        Self { _tasks: Arc::new(tasks), ..signer }
    }

    fn of(keys: Vec<Key>, tasks: JoinSet<()>) -> Self {
        Self { keys: Arc::new(ArcSwap::from_pointee(keys)), _tasks: Arc::new(tasks) }
    }

    /// Signs the data with the first key.
    pub fn sign(&self, purpose: &str, data: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let keys = self.keys.load();
        let first = keys.first().expect("the list of keys is never empty");
        mac(first, purpose, data).finalize().into_bytes().into()
    }

    /// Returns true when one of the keys made this signature.
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
            Ok(shared) => return shared,
            Err(error) => tracing::debug!(error = %error, "the nodes' secret could not be shared"),
        }
        sleep(SHARE_RETRY_PERIOD).await;
    }
}

/// Restores the shared secret after a failover lost it. Tokens signed with the previous secret stay valid on this node.
async fn keep_shared(
    cluster: Arc<Cluster>,
    local: String,
    mut current: Option<String>,
    keys: Arc<ArcSwap<Vec<Key>>>,
) {
    loop {
        sleep(if current.is_some() { SHARE_PERIOD } else { SHARE_RETRY_PERIOD }).await;
        let shared = share_with_retries(&cluster, current.as_ref().unwrap_or(&local)).await;
        if current.as_ref() != Some(&shared) {
            let previous = current.as_ref().unwrap_or(&local);
            keys.store(Arc::new(vec![key(shared.as_bytes()), key(previous.as_bytes())]));
            current = Some(shared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::secret_named;

    #[test]
    fn signature_is_bound_to_data_and_purpose() {
        let signer = Signer::with(&[secret_named("a")]);
        let signature = signer.sign("csrf", b"data");
        assert!(signer.verify("csrf", b"data", &signature));
        assert!(!signer.verify("csrf", b"other", &signature));
        assert!(!signer.verify("log", b"data", &signature));
        assert!(!signer.verify("csrf", b"data", &signature[..31]));
        assert!(!Signer::with(&[secret_named("b")]).verify("csrf", b"data", &signature));
    }

    #[test]
    fn old_secret_verifies_after_rotation() {
        let old = Signer::with(&[secret_named("old")]);
        let both = Signer::with(&[secret_named("new"), secret_named("old")]);
        assert!(both.verify("csrf", b"data", &old.sign("csrf", b"data")));
        assert!(!old.verify("csrf", b"data", &both.sign("csrf", b"data")));
    }
}
