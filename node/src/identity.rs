//! Sources of the user id of a request. With AUTH=jwt it is a bearer token, which this module verifies.
//!
//! Each key is valid for one algorithm only. So a public key is never used as an HMAC secret, and `none` is never an
//! algorithm. A node with an unreadable key does not start, so a mistake never lets a client in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::HeaderName;
use ipnet::IpNet;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use serde::Deserialize;

use crate::settings::{Auth, AuthSettings};

/// Largest clock difference to the token issuer.
const LEEWAY: Duration = Duration::from_secs(5);
/// Longest token that is parsed, bytes.
const TOKEN_BYTES_MAX: usize = 4_096;

/// Source of a request's user id.
pub enum Identity {
    /// The request names its user, unverified.
    FromRequest,
    /// A bearer token names the user.
    FromToken(TokenVerifier),
    /// A header names the user, in requests from trusted proxies.
    FromHeader(HeaderName),
}

/// Verifies bearer tokens.
pub struct TokenVerifier {
    keys: VerificationKeys,
    audience: String,
    issuer: String,
}

enum VerificationKeys {
    Single(VerifyingKey),
    /// Keys by key id (`kid`).
    ById(HashMap<String, VerifyingKey>),
}

struct VerifyingKey {
    algorithm: Algorithm,
    key: DecodingKey,
}

/// Invalid authentication settings.
#[derive(Debug, thiserror::Error)]
pub enum AuthSettingsError {
    /// A setting that AUTH=jwt requires is missing.
    #[error("AUTH=jwt needs {0}")]
    Missing(&'static str),
    /// No peer may name the user.
    #[error("AUTH=header needs TRUSTED_PROXIES, the networks of the proxies that set {0}")]
    NoProxies(HeaderName),
    /// Every peer may name the user.
    #[error("AUTH=header: TRUSTED_PROXIES must not be every address, because each of them may name any user")]
    EveryPeer,
    /// A setting is set that has no effect without AUTH=jwt. The operator probably expected tokens to be checked.
    #[error("{0} is set, but AUTH is not jwt: tokens would not be checked")]
    Unused(&'static str),
    /// A key file cannot be read.
    #[error("{setting} cannot be read: {path}: {error}")]
    Unreadable {
        /// The environment variable.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// A key file contains no supported key.
    #[error("{setting}: {path} {reason}")]
    InvalidKey {
        /// The environment variable.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why the content was rejected.
        reason: &'static str,
    },
}

/// Reasons for rejecting a bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BearerTokenError {
    /// The token has expired.
    Expired,
    /// The token is malformed, has a wrong signature, or is meant for another audience or issuer.
    Invalid,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl Identity {
    /// Returns true when the user of a request is verified.
    pub fn is_verified(&self) -> bool {
        !matches!(self, Self::FromRequest)
    }

    /// Reads the keys.
    ///
    /// # Errors
    /// Fails when settings are missing or contradict each other, or when a key file holds no supported key.
    pub fn from_settings(
        settings: &AuthSettings,
        trusted_proxies: &[IpNet],
    ) -> Result<Self, AuthSettingsError> {
        match settings.auth {
            Auth::None => refuse_unused(settings).map(|()| Self::FromRequest),
            Auth::Header => {
                refuse_unused(settings)?;
                let header = settings.auth_header.clone();
                match trusted_proxies {
                    [] => Err(AuthSettingsError::NoProxies(header)),
                    proxies if proxies.iter().any(|network| network.prefix_len() == 0) => {
                        Err(AuthSettingsError::EveryPeer)
                    }
                    _ => Ok(Self::FromHeader(header)),
                }
            }
            Auth::Jwt => Ok(Self::FromToken(TokenVerifier {
                keys: verification_keys(settings)?,
                audience: settings.jwt_audience.clone().ok_or(AuthSettingsError::Missing("JWT_AUDIENCE"))?,
                issuer: settings.jwt_issuer.clone().ok_or(AuthSettingsError::Missing("JWT_ISSUER"))?,
            })),
        }
    }
}

impl TokenVerifier {
    /// Returns the user that a token names.
    ///
    /// # Errors
    /// Fails when the token is not signed by one of the keys, is for another audience, is from another issuer, or has
    /// expired.
    pub fn subject(&self, token: &str) -> Result<String, BearerTokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(BearerTokenError::Invalid);
        }
        let VerifyingKey { algorithm, key } = self.key_for(token).ok_or(BearerTokenError::Invalid)?;
        let mut validation = Validation::new(*algorithm);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.set_audience(&[&self.audience]);
        validation.set_issuer(&[&self.issuer]);
        match decode::<Claims>(token, key, &validation) {
            Ok(token) => Ok(token.claims.sub),
            Err(error) if *error.kind() == ErrorKind::ExpiredSignature => Err(BearerTokenError::Expired),
            Err(_) => Err(BearerTokenError::Invalid),
        }
    }

    fn key_for(&self, token: &str) -> Option<&VerifyingKey> {
        match &self.keys {
            VerificationKeys::Single(key) => Some(key),
            VerificationKeys::ById(keys) => keys.get(&decode_header(token).ok()?.kid?),
        }
    }
}

fn refuse_unused(settings: &AuthSettings) -> Result<(), AuthSettingsError> {
    let unused = [
        ("JWT_SECRET", settings.jwt_secret.is_some()),
        ("JWT_PUBLIC_KEY_FILE", settings.jwt_public_key_file.is_some()),
        ("JWT_JWKS_FILE", settings.jwt_jwks_file.is_some()),
    ];
    match unused.into_iter().find(|(_, is_set)| *is_set) {
        Some((setting, _)) => Err(AuthSettingsError::Unused(setting)),
        None => Ok(()),
    }
}

fn verification_keys(settings: &AuthSettings) -> Result<VerificationKeys, AuthSettingsError> {
    let AuthSettings { jwt_secret, jwt_public_key_file, jwt_jwks_file, .. } = settings;
    match (jwt_secret, jwt_public_key_file, jwt_jwks_file) {
        (Some(secret), _, _) => {
            let key = DecodingKey::from_secret(secret.as_bytes());
            Ok(VerificationKeys::Single(VerifyingKey { algorithm: Algorithm::HS256, key }))
        }
        (_, Some(path), _) => read_keys(
            "JWT_PUBLIC_KEY_FILE",
            path,
            "is not the PEM of an RSA or Ed25519 public key",
            key_from_pem,
        ),
        (_, _, Some(path)) => read_keys(
            "JWT_JWKS_FILE",
            path,
            "is not a JWKS of RSA or Ed25519 public keys, each with a `kid`",
            keys_from_jwks,
        ),
        (None, None, None) => {
            Err(AuthSettingsError::Missing("JWT_SECRET, JWT_PUBLIC_KEY_FILE or JWT_JWKS_FILE"))
        }
    }
}

fn read_keys(
    setting: &'static str,
    path: &Path,
    reason: &'static str,
    parse: impl Fn(&[u8]) -> Option<VerificationKeys>,
) -> Result<VerificationKeys, AuthSettingsError> {
    let path = path.to_owned();
    match std::fs::read(&path) {
        Ok(text) => parse(&text).ok_or(AuthSettingsError::InvalidKey { setting, path, reason }),
        Err(error) => Err(AuthSettingsError::Unreadable { setting, path, error }),
    }
}

fn key_from_pem(text: &[u8]) -> Option<VerificationKeys> {
    // The parser also accepts private keys, which must not be stored on a node.
    if !text.windows(10).any(|window| window == b"PUBLIC KEY") {
        return None;
    }
    let rsa = DecodingKey::from_rsa_pem(text).map(|key| VerifyingKey { algorithm: Algorithm::RS256, key });
    let key = rsa.or_else(|_| {
        DecodingKey::from_ed_pem(text).map(|key| VerifyingKey { algorithm: Algorithm::EdDSA, key })
    });
    key.ok().map(VerificationKeys::Single)
}

fn keys_from_jwks(text: &[u8]) -> Option<VerificationKeys> {
    let set: JwkSet = serde_json::from_slice(text).ok()?;
    let keys: HashMap<_, _> = set.keys.iter().filter_map(key_from_jwk).collect();
    (!keys.is_empty()).then_some(VerificationKeys::ById(keys))
}

/// Returns `None` for unsupported kinds of keys: the issuer may publish keys for other uses in the same set.
fn key_from_jwk(jwk: &Jwk) -> Option<(String, VerifyingKey)> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some((jwk.common.key_id.clone()?, VerifyingKey { algorithm, key }))
}
