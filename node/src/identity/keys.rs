//! Keys that verify bearer tokens: their files, and the rules that a key must meet.
//!
//! Each key is valid for one algorithm only. So a public key is never used as an HMAC secret, and `none` is never an
//! algorithm.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::AuthSettingsError;
use crate::settings::{AuthSettings, Secret};

/// Size of an RSA modulus, bits. RFC 7518, section 3.3, demands the minimum. The library verifies nothing above the
/// maximum.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=4_096;

/// A key, and the only algorithm that it is used for.
#[derive(Debug)]
pub(super) struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// All keys of a node.
#[derive(Debug)]
pub(super) enum VerificationKeys {
    Single(VerifyingKey),
    /// Keys by key id (`kid`).
    ById(HashMap<String, VerifyingKey>),
}

/// Keys, and the reasons why other keys of the same file are not used.
#[derive(Debug)]
pub(super) struct ParsedKeys {
    pub(super) keys: VerificationKeys,
    pub(super) ignored: Vec<String>,
}

/// A file with keys. Its content may change while the node runs.
#[derive(Clone, Debug)]
pub(super) struct KeyFile {
    setting: &'static str,
    path: PathBuf,
    format: Format,
}

#[derive(Clone, Copy, Debug)]
enum Format {
    Secret,
    Pem,
    Jwks,
}

impl VerificationKeys {
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Single(_) => 1,
            Self::ById(keys) => keys.len(),
        }
    }
}

impl KeyFile {
    /// Returns the file that the settings name, if any.
    pub(super) fn of(settings: &AuthSettings) -> Option<Self> {
        let files = [
            ("JWT_SECRET_FILE", &settings.jwt_secret_file, Format::Secret),
            ("JWT_PUBLIC_KEY_FILE", &settings.jwt_public_key_file, Format::Pem),
            ("JWT_JWKS_FILE", &settings.jwt_jwks_file, Format::Jwks),
        ];
        files
            .into_iter()
            .find_map(|(setting, path, format)| Some(Self { setting, path: path.clone()?, format }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read(&self) -> Result<Vec<u8>, AuthSettingsError> {
        let Self { setting, path, .. } = self;
        std::fs::read(path).map_err(|error| AuthSettingsError::Unreadable {
            setting,
            path: path.clone(),
            error,
        })
    }

    /// Parses the content of the file. A JWKS without a usable key is valid, because an issuer can withdraw all keys.
    pub(super) fn parse(&self, content: &[u8]) -> Result<ParsedKeys, AuthSettingsError> {
        let parsed = match self.format {
            Format::Secret => key_from_secret(content).map(single),
            Format::Pem => key_from_pem(content).map(single),
            Format::Jwks => keys_from_jwks(content),
        };
        parsed.map_err(|reason| self.invalid(reason))
    }

    /// Parses the content at the start, when a file without a usable key is a mistake.
    pub(super) fn parse_at_start(&self, content: &[u8]) -> Result<ParsedKeys, AuthSettingsError> {
        let parsed = self.parse(content)?;
        match (parsed.keys.count(), &*parsed.ignored) {
            (0, []) => Err(self.invalid(NO_JWKS.to_owned())),
            (0, ignored) => Err(self.invalid(format!("has no usable key: {}", ignored.join("; ")))),
            _ => Ok(parsed),
        }
    }

    fn invalid(&self, reason: String) -> AuthSettingsError {
        AuthSettingsError::InvalidKey { setting: self.setting, path: self.path.clone(), reason }
    }
}

/// The key of a secret, for HS256.
pub(super) fn of_secret(secret: &Secret) -> VerifyingKey {
    VerifyingKey { algorithm: Algorithm::HS256, key: DecodingKey::from_secret(secret.as_bytes()) }
}

fn single(key: VerifyingKey) -> ParsedKeys {
    ParsedKeys { keys: VerificationKeys::Single(key), ignored: Vec::new() }
}

/// One line ending at the end is removed, because editors and `echo` add it.
fn key_from_secret(content: &[u8]) -> Result<VerifyingKey, String> {
    let text = std::str::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    line.parse().map(|secret| of_secret(&secret)).map_err(|invalid| format!("{invalid}"))
}

fn key_from_pem(text: &[u8]) -> Result<VerifyingKey, String> {
    let unsupported = || "is not the PEM of an RSA or Ed25519 public key".to_owned();
    // The parser also accepts private keys, which must not be stored on a node.
    if !text.windows(10).any(|window| window == b"PUBLIC KEY") {
        return Err(unsupported());
    }
    let rsa = DecodingKey::from_rsa_pem(text).map(|key| VerifyingKey { algorithm: Algorithm::RS256, key });
    let key = rsa.or_else(|_| {
        DecodingKey::from_ed_pem(text).map(|key| VerifyingKey { algorithm: Algorithm::EdDSA, key })
    });
    strong(key.map_err(|_| unsupported())?).map_err(|reason| format!("is {reason}"))
}

const NO_JWKS: &str = "is not a JWKS of RSA or Ed25519 public keys, each with a `kid`";

/// The keys of a set, each parsed on its own: the issuer may publish keys of other kinds in the same set.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

/// Ignores keys that are unusable here, as RFC 7517, section 5, advises. Of two different keys with one id, neither is
/// used: the order in the file must not decide.
fn keys_from_jwks(text: &[u8]) -> Result<ParsedKeys, String> {
    let set: KeySet = serde_json::from_slice(text).map_err(|_| NO_JWKS.to_owned())?;
    let (mut keys, mut ignored) = (HashMap::new(), Vec::new());
    for jwk in &set.keys {
        let name = jwk["kid"].as_str().map_or_else(|| "without `kid`".to_owned(), |kid| format!("{kid:?}"));
        match key_from_jwk(jwk) {
            Ok((kid, key)) => match keys.entry(kid) {
                Entry::Vacant(entry) => {
                    entry.insert(Some(key));
                }
                Entry::Occupied(mut entry) => {
                    if entry.get().as_ref().is_none_or(|first| !is_same(first, &key)) {
                        entry.insert(None);
                        ignored.push(format!("key {name}: another key has the same `kid`"));
                    }
                }
            },
            Err(reason) => ignored.push(format!("key {name}: {reason}")),
        }
    }
    let keys = keys.into_iter().filter_map(|(kid, key)| Some((kid, key?))).collect();
    Ok(ParsedKeys { keys: VerificationKeys::ById(keys), ignored })
}

fn is_same(one: &VerifyingKey, other: &VerifyingKey) -> bool {
    let public = |of: &VerifyingKey| Jwk::from_decoding_key(&of.key, Some(of.algorithm)).ok();
    public(one) == public(other)
}

fn key_from_jwk(jwk: &Value) -> Result<(String, VerifyingKey), String> {
    if ["d", "k"].iter().any(|private| !jwk[private].is_null()) {
        return Err("it is secret; a node needs public keys".to_owned());
    }
    let jwk: Jwk = serde_json::from_value(jwk.clone()).map_err(|_| "it is not a JWK".to_owned())?;
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return Err("its kind is neither RSA nor Ed25519".to_owned()),
    };
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|it| *it != PublicKeyUse::Signature) {
        return Err("its `use` is not `sig`".to_owned());
    }
    if common.key_operations.as_ref().is_some_and(|it| !it.contains(&KeyOperations::Verify)) {
        return Err("its `key_ops` do not contain `verify`".to_owned());
    }
    if common.key_algorithm.is_some_and(|it| it != name) {
        return Err(format!("its `alg` is not {algorithm:?}"));
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "it is not a JWK".to_owned())?;
    let key = strong(VerifyingKey { algorithm, key }).map_err(|reason| format!("it is {reason}"))?;
    let kid = common.key_id.clone().filter(|kid| !kid.is_empty()).ok_or("it has no `kid`")?;
    Ok((kid, key))
}

/// Checks the size of a key.
fn strong(key: VerifyingKey) -> Result<VerifyingKey, String> {
    let public = Jwk::from_decoding_key(&key.key, Some(key.algorithm)).map_err(|_| "not a public key")?;
    if let AlgorithmParameters::RSA(rsa) = public.algorithm {
        let modulus = BASE64_URL_SAFE_NO_PAD.decode(rsa.n).map_err(|_| "not a public key")?;
        let bits = bit_length(&modulus);
        if !RSA_BITS.contains(&bits) {
            let (min, max) = RSA_BITS.into_inner();
            return Err(format!("an RSA key of {bits} bits; it must have {min} to {max}"));
        }
    }
    Ok(key)
}

fn bit_length(number: &[u8]) -> usize {
    let digits = &number[number.iter().take_while(|digit| **digit == 0).count()..];
    digits.first().map_or(0, |first| digits.len() * 8 - first.leading_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The public key of RFC 8037, appendix A.
    const ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn ed25519(kid: &str, more: Value) -> Value {
        with(json!({ "kty": "OKP", "crv": "Ed25519", "x": ED25519, "kid": kid }), more)
    }

    /// A key with a modulus of this many bits.
    fn rsa(kid: &str, bits: usize, more: Value) -> Value {
        let mut modulus = vec![0xff; bits.div_ceil(8)];
        modulus[0] >>= modulus.len() * 8 - bits;
        let modulus = BASE64_URL_SAFE_NO_PAD.encode([&[0], &*modulus].concat());
        with(json!({ "kty": "RSA", "n": modulus, "e": "AQAB", "kid": kid }), more)
    }

    fn with(mut jwk: Value, more: Value) -> Value {
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    /// Returns the ids of the keys that are used, and the reasons for ignoring others.
    fn parsed(keys: Value) -> (Vec<String>, Vec<String>) {
        let ParsedKeys { keys, ignored } =
            keys_from_jwks(json!({ "keys": keys }).to_string().as_bytes()).unwrap();
        let VerificationKeys::ById(keys) = keys else { panic!("a set has key ids") };
        let mut ids: Vec<String> = keys.into_keys().collect();
        ids.sort();
        (ids, ignored)
    }

    #[track_caller]
    fn assert_ignored(jwk: Value, reason: &str) {
        let (used, ignored) = parsed(json!([ed25519("good", json!({})), jwk]));
        assert_eq!((used, ignored.len()), (vec!["good".to_owned()], 1), "{ignored:?}");
        assert!(ignored[0].contains(reason), "{ignored:?}");
    }

    #[test]
    fn jwks_keys_for_signatures_are_used() {
        let purpose = json!({ "use": "sig", "key_ops": ["verify"] });
        let keys = json!([
            ed25519("a", json!({ "alg": "EdDSA" })),
            ed25519("b", purpose.clone()),
            rsa("c", 2_048, json!({ "alg": "RS256" })),
            rsa("d", 4_096, purpose),
        ]);
        assert_eq!(parsed(keys), (["a", "b", "c", "d"].map(str::to_owned).to_vec(), Vec::new()));
    }

    #[test]
    fn jwks_keys_for_other_purposes_are_ignored() {
        assert_ignored(ed25519("k", json!({ "use": "enc" })), "`use`");
        assert_ignored(ed25519("k", json!({ "use": "tls" })), "`use`");
        assert_ignored(ed25519("k", json!({ "key_ops": ["sign", "deriveKey"] })), "`key_ops`");
        assert_ignored(ed25519("k", json!({ "key_ops": [] })), "`key_ops`");
        assert_ignored(rsa("k", 2_048, json!({ "alg": "RSA-OAEP" })), "`alg` is not RS256");
        assert_ignored(rsa("k", 2_048, json!({ "alg": "RS512" })), "`alg` is not RS256");
        assert_ignored(rsa("k", 2_048, json!({ "alg": "EdDSA" })), "`alg` is not RS256");
        assert_ignored(ed25519("k", json!({ "alg": "XYZ" })), "`alg` is not EdDSA");
    }

    #[test]
    fn weak_secret_and_unknown_jwks_keys_are_ignored() {
        assert_ignored(rsa("k", 2_047, json!({})), "an RSA key of 2047 bits");
        assert_ignored(rsa("k", 1_024, json!({})), "an RSA key of 1024 bits");
        assert_ignored(rsa("k", 4_097, json!({})), "an RSA key of 4097 bits");
        assert_ignored(ed25519("k", json!({ "d": "c2VjcmV0" })), "it is secret");
        assert_ignored(json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "k" }), "it is secret");
        assert_ignored(ed25519("k", json!({ "x": "AAAA" })), "not a public key");
        assert_ignored(
            json!({ "kty": "EC", "crv": "P-256", "x": "", "y": "", "kid": "k" }),
            "neither RSA nor",
        );
        assert_ignored(ed25519("", json!({})), "no `kid`");
        assert_ignored(json!(7), "not a JWK");
    }

    #[test]
    fn neither_of_two_keys_with_one_id_is_used() {
        let (one, other) = (rsa("k", 2_048, json!({})), rsa("k", 2_056, json!({})));
        let (used, ignored) = parsed(json!([one, other, one]));
        assert!(used.is_empty(), "{used:?}");
        assert!(
            ignored.iter().all(|reason| reason.contains("same `kid`")) && ignored.len() == 2,
            "{ignored:?}"
        );
        assert_eq!(parsed(json!([one, one])), (vec!["k".to_owned()], Vec::new()), "the same key twice");
    }

    #[test]
    fn secret_file_loses_one_line_ending() {
        let secret = "a secret of thirty-two characters";
        for content in [secret.to_owned(), format!("{secret}\n"), format!("{secret}\r\n")] {
            let key = key_from_secret(content.as_bytes()).unwrap();
            assert_eq!(key.key.try_get_as_bytes().unwrap(), secret.as_bytes());
        }
        assert_eq!(key_from_secret(b"short\n").unwrap_err(), "must be at least 32 characters long");
        assert!(key_from_secret(&[0xff; 40]).is_err());
    }
}
