//! CSRF tokens: made by any node, good on every node, for a while.
//!
//! A page of another site can make a browser send the cookie with a token, but cannot read it, and so cannot repeat it
//! in a header. The signature keeps a pair out that somebody made up, for instance on a sibling domain that may set
//! cookies for ours.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use stock::sale::EpochMs;

use crate::secret::{SIGNATURE_BYTES, Signer};

const PURPOSE: &str = "csrf";
const EXPIRY_BYTES: usize = 8;
const NONCE_BYTES: usize = 12;
const TOKEN_BYTES: usize = EXPIRY_BYTES + NONCE_BYTES + SIGNATURE_BYTES;
/// Longest text that is looked at.
const TOKEN_CHARS_MAX: usize = TOKEN_BYTES.div_ceil(3) * 4;

/// Makes tokens and checks them.
#[derive(Clone)]
pub struct CsrfTokens {
    signer: Signer,
    lifetime: Duration,
}

/// Why a token is not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadToken {
    /// There is none in the header, or none in the cookie.
    Missing,
    /// Header and cookie differ.
    Mismatch,
    /// Not one of ours.
    Invalid,
    /// It was good once.
    Expired,
}

impl BadToken {
    /// The reason in one word, for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
        }
    }
}

impl CsrfTokens {
    /// Tokens that are good for this long.
    pub fn new(signer: Signer, lifetime: Duration) -> Self {
        Self { signer, lifetime }
    }

    /// How long a token is good.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new token.
    pub fn make(&self, now: EpochMs) -> String {
        let expires_at = now.saturating_add(self.lifetime.as_millis() as EpochMs);
        let mut token = [0; TOKEN_BYTES];
        let (claims, signature) = token.split_at_mut(EXPIRY_BYTES + NONCE_BYTES);
        claims[..EXPIRY_BYTES].copy_from_slice(&expires_at.to_be_bytes());
        claims[EXPIRY_BYTES..].copy_from_slice(&rand::random::<[u8; NONCE_BYTES]>());
        signature.copy_from_slice(&self.signer.sign(PURPOSE, claims));
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    /// Checks the pair that a request brought: what its header says, and what its cookies say.
    ///
    /// # Errors
    /// When the two do not show that a page of ours meant the request.
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
    fn a_token_is_good_on_every_node_until_it_expires() {
        let token = tokens("all").make(1_000);
        assert_eq!(check(&tokens("all"), &token, &token, 60_999), Ok(()));
        assert_eq!(check(&tokens("all"), &token, &token, 61_000), Err(BadToken::Expired));
        assert_ne!(token, tokens("all").make(1_000), "no two are alike");
    }

    #[test]
    fn a_pair_that_somebody_made_up_is_refused() {
        let ours = tokens("ours");
        let foreign = tokens("foreign").make(1_000);
        let altered = ours.make(1_000).replacen('A', "B", 1);
        let too_long = ours.make(1_000) + "AAAA";
        for made_up in
            ["", "a", "made-up", &foreign, &altered, &too_long, &"A".repeat(70), &"A".repeat(10_000)]
        {
            assert_eq!(check(&ours, made_up, made_up, 1_000), Err(BadToken::Invalid), "{made_up}");
        }
    }

    #[test]
    fn header_and_cookie_must_both_be_there_and_the_same() {
        let ours = tokens("ours");
        let (token, other) = (ours.make(1_000), ours.make(1_000));
        assert_eq!(ours.check(None, [&*token].into_iter(), 1_000), Err(BadToken::Missing));
        assert_eq!(ours.check(Some(&token), [].into_iter(), 1_000), Err(BadToken::Missing));
        assert_eq!(check(&ours, &token, &other, 1_000), Err(BadToken::Mismatch));
        let tossed = [&*other, &*token];
        assert_eq!(
            ours.check(Some(&token), tossed.into_iter(), 1_000),
            Ok(()),
            "a cookie of a parent domain is no harm"
        );
    }
}
