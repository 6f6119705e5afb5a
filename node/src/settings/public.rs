//! Settings of the public side: rate limits, trusted browsers and proxies, authentication.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderName;
use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;
use service::settings::{in_file, positive_duration};
use stock::limit::Limit;
use url::Url;

/// Shortest secret, bytes: as long as the output of HMAC-SHA256 and HS256.
const SECRET_BYTES_MIN: usize = 32;

/// Limit of an address whose users are not verified. Ten requests a second for a minute: a household that polls every
/// second from several phones stays far below.
const ADDRESS_MAX_UNVERIFIED: u32 = 600;
/// Limit of an address whose users are verified: a flood guard. 6,000 buyers behind the NAT of one carrier send eight
/// tries each and stay below.
const ADDRESS_MAX_VERIFIED: u32 = 60_000;

/// Rate limits.
#[derive(Args, Clone, Debug)]
pub struct LimitSettings {
    /// Purchases and lookups that one client address has in RATE_LIMIT_WINDOW, over all nodes, and as many other
    /// requests; an IPv6 address counts as its /64; 0 is no limit [default: 600; with verified users 60000]
    #[arg(long, env)]
    rate_limit_max: Option<u32>,

    /// Attempts to buy that one user has in RATE_LIMIT_WINDOW, over all nodes, and as many lookups; 0 is no limit.
    /// Users who are not verified are counted for each client address apart
    #[arg(long, env, default_value = "30")]
    rate_limit_user_max: u32,

    /// Time in which all attempts and requests are regenerated
    #[arg(long, env, value_parser = positive_duration, default_value = "1m")]
    rate_limit_window: Duration,

    /// Units that the buyers of one client network may have in one sale: of an IPv4 address or an IPv6 /64, four times as
    /// many of a /56, 16 times as many of a /48; 0 is no limit. Needs the same value on all nodes
    #[arg(long, env, default_value = "0")]
    units_per_network_max: u32,

    /// Networks of clients whose addresses are not limited, comma-separated: load testers, monitoring
    #[arg(long, env, value_delimiter = ',', value_parser = network)]
    pub rate_limit_exempt: Vec<IpNet>,
}

impl LimitSettings {
    /// Returns the limit of a client address, if any. `is_verified` is true when user ids are verified.
    pub fn for_address(&self, is_verified: bool) -> Option<Limit> {
        let default = if is_verified { ADDRESS_MAX_VERIFIED } else { ADDRESS_MAX_UNVERIFIED };
        self.limit(self.rate_limit_max.unwrap_or(default))
    }

    /// Returns the limit of a user's attempts, if any.
    pub fn for_user(&self) -> Option<Limit> {
        self.limit(self.rate_limit_user_max)
    }

    /// Returns the most units of a client network in one sale, if there is such a limit.
    pub fn units_per_network(&self) -> Option<u32> {
        Some(self.units_per_network_max).filter(|max| *max > 0)
    }

    fn limit(&self, permits: u32) -> Option<Limit> {
        (permits > 0).then_some(Limit { permits, window: self.rate_limit_window })
    }
}

/// Trust in browsers and proxies.
#[derive(Args, Clone)]
pub struct WebSettings {
    /// Networks of the proxies in front, comma-separated. Only their X-Forwarded-For and X-Forwarded-Proto headers are
    /// trusted
    #[arg(long, env, value_delimiter = ',', value_parser = network)]
    pub trusted_proxies: Vec<IpNet>,

    /// Origins of other sites whose pages may buy here, comma-separated: https://shop.example. `*` lets pages of any
    /// origin read, and buy without cookies
    #[arg(long = "cors-origin", env = "CORS_ORIGIN", value_delimiter = ',')]
    pub cors_origins: Vec<Origin>,

    /// Secrets for signing CSRF tokens, the same on all nodes; comma-separated: the first signs, all are accepted. At
    /// least 32 characters each. When none is set, the nodes share one through Redis
    #[arg(long, env, conflicts_with = "csrf_secret_file", hide_env_values = true)]
    csrf_secret: Option<Secrets>,

    /// A file with the content of CSRF_SECRET, instead of it
    #[arg(long, env, value_parser = in_file::<Secrets>)]
    csrf_secret_file: Option<Secrets>,

    /// How long a CSRF token is valid
    #[arg(long, env, value_parser = positive_duration, default_value = "2h")]
    pub csrf_lifetime: Duration,

    /// Serves the API documentation under /api/docs and its OpenAPI description
    #[arg(long, env, action = ArgAction::Set, default_value_t = true)]
    pub api_docs: bool,

    /// Largest number of clients that listen to events; further ones are asked to retry
    // A listener takes about 20 kB, so this many take 300 MB.
    #[arg(long, env, default_value = "15000")]
    pub event_listeners_max: usize,
}

impl WebSettings {
    /// Returns the secrets for CSRF tokens. When it is empty, the nodes share one through Redis.
    pub fn csrf_secrets(&self) -> &[Secret] {
        let given = self.csrf_secret.as_ref().or(self.csrf_secret_file.as_ref());
        given.map_or(&[], |Secrets(secrets)| secrets)
    }
}

/// Authentication of clients.
#[derive(Args, Clone)]
pub struct AuthSettings {
    /// Where the user id of a request comes from. It has no default: a node without it does not start
    #[arg(long, env, value_enum)]
    pub auth: Auth,

    /// The header that names the user with AUTH=header. It counts only in requests from TRUSTED_PROXIES, which must
    /// replace it in all requests of clients
    #[arg(long, env, default_value = "X-Authenticated-User")]
    pub auth_header: HeaderName,

    /// The secret of HS256 tokens, at least 32 characters
    #[arg(long, env, value_parser = secret, hide_env_values = true, group = "jwt_key")]
    pub jwt_secret: Option<Secret>,

    /// A file with the content of JWT_SECRET, instead of it. It is read again when it changes, as all key files are
    #[arg(long, env, group = "jwt_key")]
    pub jwt_secret_file: Option<PathBuf>,

    /// A file with the public key of RS256 or EdDSA tokens, as PEM
    #[arg(long, env, group = "jwt_key")]
    pub jwt_public_key_file: Option<PathBuf>,

    /// A file with the public keys of RS256 or EdDSA tokens, as JWKS
    #[arg(long, env, group = "jwt_key")]
    pub jwt_jwks_file: Option<PathBuf>,

    /// The audience that a token must have
    #[arg(long, env)]
    pub jwt_audience: Option<String>,

    /// The issuer that a token must have
    #[arg(long, env)]
    pub jwt_issuer: Option<String>,

    /// Longest time until a token expires
    #[arg(long, env, value_parser = positive_duration, default_value = "1d")]
    pub jwt_lifetime_max: Duration,

    /// The shop's page that signs a buyer of the storefront page in, and sends them back with a token. Without it, the
    /// page takes no token
    #[arg(long, env, value_parser = sign_in_url)]
    pub sign_in_url: Option<Url>,
}

/// Where the user id of a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// A bearer token, signed by the issuer.
    Jwt,
    /// A header that a trusted proxy sets (AUTH_HEADER).
    Header,
    /// The request itself, unverified: each client can be any user. For development.
    None,
}

impl Auth {
    /// Returns its value as a setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Header => "header",
            Self::None => "none",
        }
    }
}

/// A signing secret. It is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Returns its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Several signing secrets: the first signs, all are accepted.
#[derive(Clone)]
struct Secrets(Vec<Secret>);

/// The origin of a page, as browsers send it, or any origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `*`
    Any,
    /// `https://shop.example`
    Exact(String),
}

/// Invalid value of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// Not a network.
    #[error("must be a network like 10.0.0.0/8, or an address")]
    Network,
    /// Not an origin.
    #[error("must be an origin like https://shop.example, without a path, or *")]
    Origin,
    /// Not the address of a page.
    #[error("must be the address of a page, like https://shop.example/sign-in, without a fragment")]
    SignInUrl,
    /// Too easy to guess.
    #[error("must be at least {SECRET_BYTES_MIN} characters long")]
    Secret,
}

fn network(raw: &str) -> Result<IpNet, InvalidValue> {
    let raw = raw.trim();
    raw.parse().or_else(|_| raw.parse::<IpAddr>().map(IpNet::from)).map_err(|_| InvalidValue::Network)
}

fn secret(raw: &str) -> Result<Secret, InvalidValue> {
    if raw.len() < SECRET_BYTES_MIN { Err(InvalidValue::Secret) } else { Ok(Secret(raw.to_owned())) }
}

/// A page that scripts cannot be smuggled into, as with `javascript:`.
fn sign_in_url(raw: &str) -> Result<Url, InvalidValue> {
    let url = Url::parse(raw).map_err(|_| InvalidValue::SignInUrl)?;
    let is_page = matches!(url.scheme(), "https" | "http") && url.has_host();
    if is_page && url.fragment().is_none() { Ok(url) } else { Err(InvalidValue::SignInUrl) }
}

impl FromStr for Secret {
    type Err = InvalidValue;

    fn from_str(raw: &str) -> Result<Self, InvalidValue> {
        secret(raw)
    }
}

impl FromStr for Secrets {
    type Err = InvalidValue;

    fn from_str(raw: &str) -> Result<Self, InvalidValue> {
        raw.split(',').map(secret).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Origin {
    type Err = InvalidValue;

    fn from_str(raw: &str) -> Result<Self, InvalidValue> {
        let raw = raw.trim().to_ascii_lowercase();
        if raw == "*" {
            return Ok(Self::Any);
        }
        let host = raw.strip_prefix("https://").or_else(|| raw.strip_prefix("http://"));
        let is_host = |host: &str| {
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b))
        };
        if host.is_some_and(is_host) { Ok(Self::Exact(raw)) } else { Err(InvalidValue::Origin) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a secret of sufficient length, for tests.
    pub(crate) fn secret_named(name: &str) -> Secret {
        secret(&name.repeat(SECRET_BYTES_MIN)).unwrap()
    }

    #[test]
    fn network_may_be_a_single_address() {
        for (raw, holds) in
            [("10.0.0.0/8", "10.1.2.3"), (" 192.0.2.7", "192.0.2.7"), ("2001:db8::/32", "2001:db8::1")]
        {
            assert!(network(raw).unwrap().contains(&holds.parse::<IpAddr>().unwrap()), "{raw}");
        }
        for bad in ["", "10.0.0.0/33", "proxy", "10.0.0"] {
            assert_eq!(network(bad), Err(InvalidValue::Network), "{bad}");
        }
    }

    #[test]
    fn origin_has_a_scheme_and_no_path() {
        assert_eq!("*".parse(), Ok(Origin::Any));
        assert_eq!("https://Shop.example".parse(), Ok(Origin::Exact("https://shop.example".into())));
        assert!("http://localhost:5173".parse::<Origin>().is_ok());
        for bad in
            ["", "shop.example", "https://", "https://shop.example/", "https://a b", "ftp://shop.example"]
        {
            assert_eq!(bad.parse::<Origin>(), Err(InvalidValue::Origin), "{bad}");
        }
    }

    #[test]
    fn sign_in_url_is_a_page() {
        for good in ["https://shop.example/sign-in?to=sale", "http://localhost:5173"] {
            assert!(sign_in_url(good).is_ok(), "{good}");
        }
        for bad in ["", "shop.example", "/sign-in", "javascript:alert(1)", "https://a/#b", "data:text/html,a"]
        {
            assert_eq!(sign_in_url(bad), Err(InvalidValue::SignInUrl), "{bad}");
        }
    }

    #[test]
    fn short_secret_is_refused() {
        assert!(secret("changeme").is_err());
        assert!(secret(&"x".repeat(32)).is_ok());
    }
}
