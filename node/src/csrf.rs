//! CSRF tokens. Any node can issue one, and every node accepts it until it expires.
//!
//! A page of another site can make a browser send the cookie, but cannot read it, and so cannot repeat the token in a
//! header. The signature rejects pairs that an attacker made up, for instance from a sibling domain that may set
//! cookies for this site.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rediscluster::EpochMs;
use serde::Serialize;
use utoipa::ToSchema;

use crate::secret::{SIGNATURE_BYTES, Signer};

const PURPOSE: &str = "csrf";
const EXPIRY_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const TOKEN_BYTES: usize = EXPIRY_BYTES + NONCE_BYTES + SIGNATURE_BYTES;
/// Longest text that is decoded.
const TOKEN_CHARS_MAX: usize = TOKEN_BYTES.div_ceil(3) * 4;

/// Issues and checks tokens.
#[derive(Clone)]
pub struct CsrfTokens {
    signer: Signer,
    lifetime: Duration,
}

/// Reasons for rejecting a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BadToken {
    /// The header or the cookie is missing.
    Missing,
    /// Header and cookie differ.
    Mismatch,
    /// The token was not signed by a node.
    Invalid,
    /// The token has expired.
    Expired,
}

impl CsrfTokens {
    /// Creates an issuer of tokens with this lifetime.
    pub fn new(signer: Signer, lifetime: Duration) -> Self {
        Self { signer, lifetime }
    }

    /// Returns how long a token is valid.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Issues a new token.
    pub fn make(&self, now: EpochMs) -> String {
        let expires_at = now.saturating_add(self.lifetime.as_millis() as EpochMs);
        let mut token = [0; TOKEN_BYTES];
        let (claims, signature) = token.split_at_mut(EXPIRY_BYTES + NONCE_BYTES);
        claims[..EXPIRY_BYTES].copy_from_slice(&expires_at.to_be_bytes());
        claims[EXPIRY_BYTES..].copy_from_slice(&rand::random::<[u8; NONCE_BYTES]>());
        signature.copy_from_slice(&self.signer.sign(PURPOSE, claims));
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    /// Checks the token in a request's header against those in its cookies.
    ///
    /// # Errors
    /// Fails when header and cookies do not prove that a page of this site sent the request.
    pub fn check<'a>(
        &self,
        header: Option<&str>,
        mut cookies: impl Iterator<Item = &'a str>,
        now: EpochMs,
    ) -> Result<(), BadToken> {
        let mut cookies = cookies.by_ref().peekable();
        let (Some(token), true) = (header, cookies.peek().is_some()) else { return Err(BadToken::Missing) };
        if !cookies.any(|cookie| cookie == token) {
            return Err(BadToken::Mismatch);
        }
        self.check_signature(token, now)
    }

    fn check_signature(&self, token: &str, now: EpochMs) -> Result<(), BadToken> {
        if token.len() > TOKEN_CHARS_MAX {
            return Err(BadToken::Invalid);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken::Invalid)?;
        let Some((claims, signature)) = bytes.split_at_checked(EXPIRY_BYTES + NONCE_BYTES) else {
            return Err(BadToken::Invalid);
        };
        if !self.signer.verify(PURPOSE, claims, signature) {
            return Err(BadToken::Invalid);
        }
        let expires_at = claims.first_chunk().map(|bytes| EpochMs::from_be_bytes(*bytes));
        if expires_at > Some(now) { Ok(()) } else { Err(BadToken::Expired) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::secret_named;

    fn tokens(name: &str) -> CsrfTokens {
        CsrfTokens::new(Signer::with(&[secret_named(name)]), Duration::from_secs(60))
    }

    fn check(tokens: &CsrfTokens, header: &str, cookie: &str, now: EpochMs) -> Result<(), BadToken> {
        tokens.check(Some(header), [cookie].into_iter(), now)
    }

    #[test]
    fn token_is_valid_on_every_node_until_expiry() {
        let token = tokens("all").make(1_000);
        assert_eq!(check(&tokens("all"), &token, &token, 60_999), Ok(()));
        assert_eq!(check(&tokens("all"), &token, &token, 61_000), Err(BadToken::Expired));
        assert_ne!(token, tokens("all").make(1_000), "each token is unique");
    }

    #[test]
    fn forged_pair_is_refused() {
        let issuer = tokens("ours");
        let foreign = tokens("foreign").make(1_000);
        let altered = issuer.make(1_000).replacen('A', "B", 1);
        let too_long = issuer.make(1_000) + "AAAA";
        for forged in
            ["", "a", "made-up", &foreign, &altered, &too_long, &"A".repeat(70), &"A".repeat(10_000)]
        {
            assert_eq!(check(&issuer, forged, forged, 1_000), Err(BadToken::Invalid), "{forged}");
        }
    }

    #[test]
    fn header_and_cookie_must_match() {
        let issuer = tokens("ours");
        let (token, other) = (issuer.make(1_000), issuer.make(1_000));
        assert_eq!(issuer.check(None, [&*token].into_iter(), 1_000), Err(BadToken::Missing));
        assert_eq!(issuer.check(Some(&token), [].into_iter(), 1_000), Err(BadToken::Missing));
        assert_eq!(check(&issuer, &token, &other, 1_000), Err(BadToken::Mismatch));
        let cookies = [&*other, &*token];
        assert_eq!(
            issuer.check(Some(&token), cookies.into_iter(), 1_000),
            Ok(()),
            "a cookie of a parent domain is ignored"
        );
    }
}
