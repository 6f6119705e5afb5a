//! Sources of the user id of a request. With AUTH=jwt it is a bearer token, which this module verifies.
//!
//! A node with an unreadable key does not start, so a mistake never lets a client in. The key file may change while the
//! node runs.

mod keys;
mod reload;
mod tokens;

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::HeaderName;
use ipnet::IpNet;

use crate::settings::{Auth, AuthSettings};

use keys::{KeyFile, ParsedKeys, VerificationKeys};
use reload::Reloaded;

pub use reload::KeyReloader;
pub use tokens::{BearerTokenError, TokenVerifier};

/// Source of a request's user id.
pub enum Identity {
    /// The request names its user, unverified.
    FromRequest,
    /// A bearer token names the user.
    FromToken(TokenVerifier),
    /// A header names the user, in requests from trusted proxies.
    FromHeader(HeaderName),
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
        reason: String,
    },
}

impl Identity {
    /// Returns true when the user of a request is verified.
    pub fn is_verified(&self) -> bool {
        !matches!(self, Self::FromRequest)
    }

    /// Reads the keys. The second value keeps them up to date.
    ///
    /// # Errors
    /// Fails when settings are missing or contradict each other, or when a key file holds no supported key.
    pub fn from_settings(
        settings: &AuthSettings,
        trusted_proxies: &[IpNet],
    ) -> Result<(Self, KeyReloader), AuthSettingsError> {
        match settings.auth {
            Auth::None => {
                refuse_unused(settings)?;
                Ok((Self::FromRequest, KeyReloader(None)))
            }
            Auth::Header => {
                refuse_unused(settings)?;
                let header = settings.auth_header.clone();
                match trusted_proxies {
                    [] => Err(AuthSettingsError::NoProxies(header)),
                    proxies if proxies.iter().any(|network| network.prefix_len() == 0) => {
                        Err(AuthSettingsError::EveryPeer)
                    }
                    _ => Ok((Self::FromHeader(header), KeyReloader(None))),
                }
            }
            Auth::Jwt => {
                let (keys, reloaded) = verification_keys(settings)?;
                let verifier = TokenVerifier {
                    keys,
                    audience: settings
                        .jwt_audience
                        .clone()
                        .ok_or(AuthSettingsError::Missing("JWT_AUDIENCE"))?,
                    issuer: settings.jwt_issuer.clone().ok_or(AuthSettingsError::Missing("JWT_ISSUER"))?,
                    lifetime_max: settings.jwt_lifetime_max,
                };
                Ok((Self::FromToken(verifier), KeyReloader(reloaded)))
            }
        }
    }
}

fn refuse_unused(settings: &AuthSettings) -> Result<(), AuthSettingsError> {
    let unused = [
        ("JWT_SECRET", settings.jwt_secret.is_some()),
        ("JWT_SECRET_FILE", settings.jwt_secret_file.is_some()),
        ("JWT_PUBLIC_KEY_FILE", settings.jwt_public_key_file.is_some()),
        ("JWT_JWKS_FILE", settings.jwt_jwks_file.is_some()),
        ("SIGN_IN_URL", settings.sign_in_url.is_some()),
    ];
    match unused.into_iter().find(|(_, is_set)| *is_set) {
        Some((setting, _)) => Err(AuthSettingsError::Unused(setting)),
        None => Ok(()),
    }
}

type SharedKeys = Arc<ArcSwap<VerificationKeys>>;

fn verification_keys(settings: &AuthSettings) -> Result<(SharedKeys, Option<Reloaded>), AuthSettingsError> {
    let share = |keys| Arc::new(ArcSwap::from_pointee(keys));
    if let Some(secret) = &settings.jwt_secret {
        return Ok((share(VerificationKeys::Single(keys::of_secret(secret))), None));
    }
    let needed = "JWT_SECRET, JWT_SECRET_FILE, JWT_PUBLIC_KEY_FILE or JWT_JWKS_FILE";
    let file = KeyFile::of(settings).ok_or(AuthSettingsError::Missing(needed))?;
    let content = file.read()?;
    let ParsedKeys { keys, ignored } = file.parse_at_start(&content)?;
    let keys = share(keys);
    Ok((Arc::clone(&keys), Some(Reloaded { file, keys, content, ignored })))
}
