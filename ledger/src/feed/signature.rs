//! Signatures of webhooks, as Standard Webhooks defines them.

use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Prefix of a secret, so that it is recognized where it should not be.
const PREFIX: &str = "whsec_";
/// Version of the signatures: HMAC with SHA-256.
const VERSION: &str = "v1";
/// Fewest and most bytes of a secret.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Secrets of a webhook. A delivery is signed with each, so that a receiver can replace the one by the other.
#[derive(Clone)]
pub(crate) struct Secrets(Vec<Vec<u8>>);

/// Why a text holds no valid secrets. It is never repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be whsec_ and 24 to 64 bytes as base64; several are separated by spaces")]
pub(crate) struct InvalidSecrets;

impl FromStr for Secrets {
    type Err = InvalidSecrets;

    fn from_str(text: &str) -> Result<Self, InvalidSecrets> {
        let parse = |word: &str| {
            let secret = STANDARD.decode(word.strip_prefix(PREFIX)?).ok()?;
            SECRET_BYTES.contains(&secret.len()).then_some(secret)
        };
        let secrets: Option<Vec<Vec<u8>>> = text.split_whitespace().map(parse).collect();
        secrets.filter(|secrets| !secrets.is_empty()).map(Self).ok_or(InvalidSecrets)
    }
}

impl Secrets {
    /// Returns the header `webhook-signature`.
    pub(crate) fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let signatures = self.0.iter().map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key may have any length");
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            format!("{VERSION},{}", STANDARD.encode(mac.finalize().into_bytes()))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs/feed.md.
    #[test]
    fn signature_is_that_of_the_published_example() {
        let secrets: Secrets = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signature =
            secrets.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_signs() {
        let (one, other) =
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_NfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let sign = |secrets: &str| secrets.parse::<Secrets>().unwrap().sign("id", 1, b"{}");
        assert_eq!(sign(&format!("{one} {other}\n")), format!("{} {}", sign(one), sign(other)));
    }

    #[test]
    fn weak_secrets_are_refused() {
        for bad in ["", " ", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_?"] {
            assert_eq!(bad.parse::<Secrets>().err(), Some(InvalidSecrets), "{bad}");
        }
    }
}
