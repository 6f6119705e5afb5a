//! Ids that come from outside. Each is parsed once at the edge and trusted from then on.
//!
//! A value of these types is safe inside a key, a hash field or a stream entry. This module does not know how HTTP
//! answers an invalid id.

use std::fmt;
use std::str::FromStr;

use icu_properties::CodePointSetData;
use icu_properties::props::{BidiControl, DefaultIgnorableCodePoint};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

use crate::email;

/// Longest user id in bytes, after normalization. It is stored twice per purchase, so this bounds memory.
pub const USER_ID_BYTES_MAX: usize = 128;
/// Longest sale id in bytes. It is part of every key.
pub const SALE_ID_BYTES_MAX: usize = 32;
/// Longest accepted idempotency key in bytes. It is hashed, never stored.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// The reason why an id was rejected. The text is meant for the client that sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// Nothing was left after trimming.
    #[error("must not be empty")]
    Empty,
    /// More bytes than the given limit.
    #[error("must be at most {0} bytes long")]
    TooLong(usize),
    /// Contains a character that this kind of id must not contain.
    #[error("must not contain {0}")]
    Forbidden(&'static str),
    /// Has the wrong form. Contains the expected form.
    #[error("must be {0}")]
    Malformed(&'static str),
    /// The request has no such id.
    #[error("is missing")]
    Missing,
    /// Not an e-mail address that can be accepted.
    #[error("must be an e-mail address: its {part} {reason}")]
    Email {
        /// The part that is refused.
        part: &'static str,
        /// The requirement that it does not meet.
        reason: &'static str,
    },
}

/// Id of a sale: `[a-z0-9-]{1,32}`. Safe inside a key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SaleId(String);

impl SaleId {
    /// Returns the id as used in keys and paths.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SaleId {
    type Err = InvalidId;

    fn from_str(raw: &str) -> Result<Self, InvalidId> {
        match raw.len() {
            0 => Err(InvalidId::Empty),
            len if len > SALE_ID_BYTES_MAX => Err(InvalidId::TooLong(SALE_ID_BYTES_MAX)),
            _ if raw.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-')) => Ok(Self(raw.into())),
            _ => Err(InvalidId::Forbidden("anything but a-z, 0-9 and '-'")),
        }
    }
}

/// Interpretation of the user ids of a sale.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UserIdKind {
    /// Used as they are: two ids that differ in case are two users.
    #[default]
    Opaque,
    /// E-mail addresses: all spellings of an address are one user.
    Email,
    /// E-mail addresses without a tag after `+`, and without the dots of Gmail: one user for each mailbox.
    #[serde(rename = "email-folded")]
    EmailFolded,
}

/// Id of a buyer: trimmed, NFC, at most 128 bytes, no control characters and no invisible ones. For e-mail ids, all
/// spellings of one address give the same id, and addresses that only look like another one are rejected.
///
/// Used only as a hash field or an argument, never inside a key, so braces and quotes are harmless.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserId(Box<str>);

impl UserId {
    /// Parses and normalizes an id as the sale requires.
    ///
    /// # Errors
    /// Returns [`InvalidId`] when the id is empty, is too long, contains control characters or invisible ones, or is
    /// not an acceptable e-mail address where the sale requires one.
    pub fn parse(raw: &str, kind: UserIdKind) -> Result<Self, InvalidId> {
        // Rejected before it is normalized, which bounds the work. NFC never shrinks a text below a third of its
        // bytes.
        if raw.len() > 4 * USER_ID_BYTES_MAX {
            return Err(InvalidId::TooLong(USER_ID_BYTES_MAX));
        }
        let trimmed = raw.trim();
        let id: String = match kind {
            _ if trimmed.is_ascii() && kind == UserIdKind::Opaque => trimmed.to_owned(),
            UserIdKind::Opaque => trimmed.nfc().collect(),
            UserIdKind::Email | UserIdKind::EmailFolded if trimmed.is_empty() => String::new(),
            UserIdKind::Email => email::canonical(trimmed, false)?,
            UserIdKind::EmailFolded => email::canonical(trimmed, true)?,
        };
        match id.len() {
            0 => Err(InvalidId::Empty),
            len if len > USER_ID_BYTES_MAX => Err(InvalidId::TooLong(USER_ID_BYTES_MAX)),
            _ if id.chars().any(char::is_control) => Err(InvalidId::Forbidden("control characters")),
            _ if !id.is_ascii() && id.chars().any(is_invisible) => {
                Err(InvalidId::Forbidden("invisible characters"))
            }
            _ => Ok(Self(id.into())),
        }
    }

    /// Creates an id read from a shard or the ledger, which store only parsed ids.
    pub fn stored(id: String) -> Self {
        Self(id.into())
    }

    /// Returns an id for the buyer of an order whose user was erased. It begins with a control character, so no buyer has
    /// it.
    pub fn erased(order: &OrderId) -> Self {
        Self(format!("\u{1}{order}").into())
    }

    /// Returns the normalized id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns true for a character that is not displayed, or that changes the direction of the text around it.
fn is_invisible(char: char) -> bool {
    CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(char)
        || CodePointSetData::new::<BidiControl>().contains(char)
        || matches!(char, '\u{2028}' | '\u{2029}')
}

/// Number of a shard on its sale's ring, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardId(u16);

impl ShardId {
    /// Creates the id of the shard at this index.
    pub const fn new(index: u16) -> Self {
        Self(index)
    }

    /// Returns the index in the sale's list of shards.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl FromStr for ShardId {
    type Err = InvalidId;

    fn from_str(raw: &str) -> Result<Self, InvalidId> {
        raw.parse().map(Self).map_err(|_| InvalidId::Malformed("a shard number"))
    }
}

/// Characters of an order id: Crockford's base 32, which is easy to read aloud to a help desk.
const ORDER_ID_ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const ORDER_ID_CHARS: usize = 14;

/// Id of one purchase attempt: 70 bits as 14 characters of Crockford's base 32.
///
/// It is stored twice per unit sold. With 14 characters a unit takes 190 bytes of Redis memory, with 16 characters 201
/// (`cargo xtask bench memory`, 16 buyers per entry). Among a million orders, the probability that any two ids are
/// equal is 4 in 10^10. It would matter only for two attempts of the same user. The id of an attempt with an
/// idempotency key is derived with the secret of its sale, so buyers cannot search for keys that give equal ids.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderId([u8; ORDER_ID_CHARS]);

impl OrderId {
    /// Creates the id of a new attempt.
    pub fn random() -> Self {
        Self::from_bits(rand::random())
    }

    /// Derives the id of an attempt with an idempotency key: the same for the same sale, user and key. Without the
    /// secret of the sale, it cannot be computed from them.
    ///
    /// See [`SaleConfig::order_id`](crate::sale::SaleConfig::order_id).
    pub(crate) fn derived(secret: Option<&str>, sale: &SaleId, user: &UserId, idempotency_key: &str) -> Self {
        let mut digest = Sha256::new();
        // The secret comes first, and most of the digest is dropped, so no id helps to compute another one.
        if let Some(secret) = secret {
            digest.update(secret);
            digest.update("\u{1f}");
        }
        // Sale ids and user ids cannot contain a unit separator, so different triples never give the same input.
        let digest = digest
            .chain_update(sale.as_str())
            .chain_update("\u{1f}")
            .chain_update(user.as_str())
            .chain_update("\u{1f}")
            .chain_update(idempotency_key)
            .finalize();
        Self::from_bits(u128::from_be_bytes(*digest.first_chunk().expect("a SHA-256 digest has 32 bytes")))
    }

    fn from_bits(bits: u128) -> Self {
        Self(std::array::from_fn(|place| ORDER_ID_ALPHABET[(bits >> (5 * place)) as usize & 31]))
    }

    /// Returns the id as clients see it.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only characters of the alphabet are ever stored")
    }
}

impl FromStr for OrderId {
    type Err = InvalidId;

    fn from_str(raw: &str) -> Result<Self, InvalidId> {
        match <[u8; ORDER_ID_CHARS]>::try_from(raw.as_bytes()) {
            Ok(chars) if chars.iter().all(|char| ORDER_ID_ALPHABET.contains(char)) => Ok(Self(chars)),
            _ => Err(InvalidId::Malformed("14 characters of Crockford's base 32")),
        }
    }
}

impl Serialize for OrderId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl TryFrom<String> for SaleId {
    type Error = InvalidId;

    fn try_from(raw: String) -> Result<Self, InvalidId> {
        raw.parse()
    }
}

impl From<SaleId> for String {
    fn from(id: SaleId) -> Self {
        id.0
    }
}

/// Displays an id as plain text, for logs and messages.
macro_rules! display_as_str {
    ($($id:ty),+) => {$(
        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}
display_as_str!(SaleId, UserId, OrderId);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OrderId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opaque(raw: &str) -> Result<UserId, InvalidId> {
        UserId::parse(raw, UserIdKind::Opaque)
    }

    #[test]
    fn user_id_is_trimmed_and_composed_keeping_case() {
        assert_eq!(opaque("  Ann ").unwrap().as_str(), "Ann");
        assert_eq!(opaque("e\u{301}va"), opaque("\u{e9}va"), "one name, typed on two keyboards, is one user");
        assert_ne!(opaque("ann"), opaque("Ann"));
    }

    #[test]
    fn email_variants_are_one_user() {
        let parse = |raw| UserId::parse(raw, UserIdKind::Email);
        assert_eq!(parse("Ann@Shop.example"), parse(" ann@shop.EXAMPLE "));
        assert_eq!(parse("É@x.example"), parse("e\u{301}@x.example"));
    }

    #[test]
    fn confusable_email_is_normalized_or_rejected() {
        let parse = |raw| UserId::parse(raw, UserIdKind::Email);
        let ann = parse("ann.k@shop.example").unwrap();
        for same in [
            "\u{ff41}nn.k@shop.example",
            "ann.\u{212a}@shop.example",
            "ann\u{ff0e}k@shop.example",
            "ann.k\u{ff20}shop.example",
        ] {
            assert_eq!(parse(same), Ok(ann.clone()), "{same}");
        }
        for odd in [
            "\u{430}nn.k@shop.example",
            "a\u{200b}nn.k@shop.example",
            "ann.k@shop.exampl\u{435}",
            "ann\u{ad}.k@shop.example",
            "\u{202e}ann.k@shop.example",
            "ann.\u{3164}k@shop.example",
        ] {
            assert!(matches!(parse(odd), Err(InvalidId::Email { .. })), "{odd}");
        }
        for good in [
            "j\u{f6}rg@b\u{fc}cher.example",
            "\u{438}\u{432}\u{430}\u{43d}@\u{43f}\u{43e}\u{447}\u{442}\u{430}.\u{440}\u{444}",
            "\u{592a}\u{90ce}@\u{4f8b}.\u{65e5}\u{672c}",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn unusual_user_ids_are_accepted() {
        for id in ["{sale}", "a{b}c", "\"quoted\"", "it's", "🦀🦀", "fs:{flash.0}:meta", "a b", "%00"] {
            assert_eq!(opaque(id).unwrap().as_str(), id);
        }
    }

    #[test]
    fn harmful_user_ids_are_rejected_with_a_reason() {
        assert_eq!(opaque(""), Err(InvalidId::Empty));
        assert_eq!(opaque(" \t\u{a0} "), Err(InvalidId::Empty));
        assert_eq!(opaque(&"a".repeat(129)), Err(InvalidId::TooLong(128)));
        assert_eq!(opaque(&"🦀".repeat(33)), Err(InvalidId::TooLong(128)), "bytes count, not characters");
        assert_eq!(opaque(&" ".repeat(1_000_000)), Err(InvalidId::TooLong(128)));
        assert_eq!(opaque("a\u{0}b"), Err(InvalidId::Forbidden("control characters")));
        assert_eq!(opaque("a\r\nb"), Err(InvalidId::Forbidden("control characters")));
        assert!(opaque(&"a".repeat(128)).is_ok());
        for hidden in
            ["a\u{200b}b", "a\u{200d}b", "\u{202e}ab", "a\u{2066}b", "a\u{ad}b", "a\u{2028}b", "a\u{3164}"]
        {
            assert_eq!(opaque(hidden), Err(InvalidId::Forbidden("invisible characters")), "{hidden:?}");
        }
    }

    #[test]
    fn sale_id_is_safe_inside_a_key() {
        assert!("flash-2026".parse::<SaleId>().is_ok());
        for bad in ["", "Flash", "a b", "a}b", "a:b", "ä", &"a".repeat(33)] {
            assert!(bad.parse::<SaleId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn order_id_round_trips() {
        let order = OrderId::random();
        assert_eq!(order.as_str().parse(), Ok(order));
        assert_ne!(order, OrderId::random());
        for bad in ["", "0123456789ABC", "0123456789ABCI", "0123456789abcd", "0123456789ABCDE"] {
            assert!(bad.parse::<OrderId>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn order_id_depends_on_secret_sale_user_and_key() {
        let (sale, ann, bob) = ("flash".parse().unwrap(), opaque("ann").unwrap(), opaque("bob").unwrap());
        let secret = Some("0123456789abcdef0123456789abcdef");
        let order = OrderId::derived(secret, &sale, &ann, "key");
        assert_eq!(order.as_str(), "TYRRBV31BGWARE");
        assert_ne!(order, OrderId::derived(Some("another"), &sale, &ann, "key"));
        assert_ne!(order, OrderId::derived(secret, &sale, &bob, "key"));
        assert_ne!(order, OrderId::derived(secret, &sale, &ann, "another"));
        assert_ne!(order, OrderId::derived(secret, &"sale".parse().unwrap(), &ann, "key"));
    }

    #[test]
    fn order_id_of_an_earlier_sale_stays_the_same() {
        let order = OrderId::derived(None, &"flash".parse().unwrap(), &opaque("ann").unwrap(), "key");
        assert_eq!(order.as_str(), "ZFX6YCV1QPHJGS");
    }
}
