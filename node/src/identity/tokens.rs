//! Verification of bearer tokens.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde::Deserialize;
use serde::de::IgnoredAny;
use service::time::now;

use super::keys::{VerificationKeys, VerifyingKey};

/// Largest clock difference to the token issuer.
const LEEWAY: Duration = Duration::from_secs(5);
/// Longest token that is parsed, bytes.
const TOKEN_BYTES_MAX: usize = 4_096;
/// The media types of access tokens, as the header `typ` abbreviates them: RFC 7519 and RFC 9068. Tokens of other types
/// are signed by the same key: a logout token (`logout+jwt`), a security event (`secevent+jwt`), a proof (`dpop+jwt`).
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// Verifies bearer tokens.
pub struct TokenVerifier {
    pub(super) keys: Arc<ArcSwap<VerificationKeys>>,
    pub(super) audience: String,
    pub(super) issuer: String,
    pub(super) lifetime_max: Duration,
}

/// Reasons for rejecting a bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BearerTokenError {
    /// The token has expired.
    Expired,
    /// The token is valid for longer than JWT_LIFETIME_MAX.
    ExpiresTooLate,
    /// The token is malformed, has a wrong signature, is meant for another audience, issuer or purpose.
    Invalid,
}

/// Claims that are read. Those behind `sub` and `exp` show that a token is no access token.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    /// Seconds.
    exp: f64,
    /// An ID token of OpenID Connect.
    nonce: Option<IgnoredAny>,
    at_hash: Option<IgnoredAny>,
    c_hash: Option<IgnoredAny>,
    /// A logout token, or another security event (RFC 8417).
    events: Option<IgnoredAny>,
    /// The type of a token of Keycloak: `Bearer`, `ID`, `Refresh`, `Logout`, …
    typ: Option<String>,
    /// The type of a token of Cognito: `access` or `id`.
    token_use: Option<String>,
}

impl TokenVerifier {
    /// Returns the user that a token names.
    ///
    /// # Errors
    /// Fails when the token is not signed by one of the keys, is for another audience, is from another issuer, is not
    /// an access token, has expired, or expires too late.
    pub fn subject(&self, token: &str) -> Result<String, BearerTokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BearerTokenError::Invalid);
        }
        let keys = self.keys.load();
        let VerifyingKey { algorithm, key } = key_for(&keys, token).ok_or(BearerTokenError::Invalid)?;
        let mut validation = Validation::new(*algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        let token = decode::<Claims>(token, key, &validation).map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => BearerTokenError::Expired,
            _ => BearerTokenError::Invalid,
        })?;
        if !is_access_token(&token.header, &token.claims) {
            return Err(BearerTokenError::Invalid);
        }
        let expires_in = token.claims.exp - now() as f64 / 1_000.0;
        if expires_in > (self.lifetime_max + LEEWAY).as_secs_f64() {
            return Err(BearerTokenError::ExpiresTooLate);
        }
        Ok(token.claims.sub)
    }
}

fn key_for<'a>(keys: &'a VerificationKeys, token: &str) -> Option<&'a VerifyingKey> {
    match keys {
        VerificationKeys::Single(key) => Some(key),
        VerificationKeys::ById(keys) => keys.get(&decode_header(token).ok()?.kid?),
    }
}

/// Rejects tokens that the issuer signed for another purpose, and tokens with critical extensions (`crit`), none of
/// which are implemented here.
fn is_access_token(header: &Header, claims: &Claims) -> bool {
    let is_type = |typ: &str| {
        let typ = typ.to_ascii_lowercase();
        TYPES.contains(&typ.strip_prefix("application/").unwrap_or(&typ))
    };
    let Claims { nonce, at_hash, c_hash, events, typ, token_use, .. } = claims;
    header.crit.is_none()
        && header.typ.as_deref().is_none_or(is_type)
        && [nonce, at_hash, c_hash, events].iter().all(|claim| claim.is_none())
        && typ.as_deref().is_none_or(|typ| typ.eq_ignore_ascii_case("bearer") || is_type(typ))
        && token_use.as_deref().is_none_or(|it| it == "access")
}
