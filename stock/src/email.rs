//! E-mail addresses: one canonical form for all spellings of an address.
//!
//! The canonical form has a local part in lower case and a domain in the letters of the DNS (`xn--…`). It is a fixed
//! point: canonicalizing it again changes nothing. Local parts are compared without regard to case, although a mail
//! server may distinguish it; none of the large ones does.

use std::borrow::Cow;

use email_address::{EmailAddress, Error, Options};
use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicode_normalization::UnicodeNormalization as _;
use unicode_script::{Script, UnicodeScript as _};
use unicode_security::confusable_detection::skeleton;
use unicode_security::{GeneralSecurityProfile as _, RestrictionLevel, RestrictionLevelDetection as _};

use crate::ids::InvalidId;

const LOOKS_LIKE_ANOTHER: &str = "must not mix scripts, nor look like another one";

/// Returns the canonical form of an address. `is_folded` also removes what reaches the same mailbox: a tag after `+`,
/// and the dots and the second domain of Gmail.
pub(crate) fn canonical(email: &str, is_folded: bool) -> Result<String, InvalidId> {
    let text: Cow<'_, str> = if email.is_ascii() { email.into() } else { email.nfkc().collect() };
    let (local, domain) =
        text.rsplit_once('@').ok_or(InvalidId::Malformed("an e-mail address, such as ann@shop.example"))?;
    let domain = canonical_domain(domain)?;
    let local = canonical_local_part(local, &domain)?;
    if is_folded { folded(&local, &domain) } else { Ok(format!("{local}@{domain}")) }
}

fn canonical_domain(domain: &str) -> Result<String, InvalidId> {
    let invalid = |reason| InvalidId::Email { part: "domain", reason };
    let uts46 = Uts46::new();
    let (deny, hyphens) = (AsciiDenyList::STD3, Hyphens::CheckFirstLast);
    let ascii = uts46
        .to_ascii(domain.as_bytes(), deny, hyphens, DnsLength::VerifyAllowRootDot)
        .map_err(|_| invalid("must be a domain name"))?;
    let ascii = ascii.strip_suffix('.').unwrap_or(&ascii);
    let (_, top) = ascii.rsplit_once('.').ok_or(invalid("must have a dot"))?;
    if top.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid("must be a domain name, not an IP address"));
    }
    let (unicode, _) = uts46.to_unicode(ascii.as_bytes(), deny, hyphens);
    if looks_like_another(&unicode) { Err(invalid(LOOKS_LIKE_ANOTHER)) } else { Ok(ascii.to_owned()) }
}

fn canonical_local_part(local: &str, domain: &str) -> Result<String, InvalidId> {
    let invalid = |reason| InvalidId::Email { part: "local part", reason };
    // `"ann"@shop.example` is another spelling of `ann@shop.example`.
    let unquoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(local);
    if unquoted.contains('"') {
        return Err(invalid("must not contain quotes"));
    }
    let local = lower_case(unquoted);
    let options = Options::default().without_display_text().without_domain_literal();
    match EmailAddress::parse_with_options(&format!("{local}@{domain}"), options) {
        Ok(_) if looks_like_another(&local) => Err(invalid(LOOKS_LIKE_ANOTHER)),
        Ok(_) => Ok(local),
        Err(Error::LocalPartEmpty) => Err(invalid("must not be empty")),
        Err(Error::LocalPartTooLong) => Err(invalid("must be at most 64 bytes long")),
        Err(_) => {
            Err(invalid("must be letters, digits and the signs of an address, without a dot at an end"))
        }
    }
}

/// Returns the text in lower case. Both lower-case forms of the Greek sigma become one.
fn lower_case(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let lower = text.chars().flat_map(char::to_lowercase).map(|char| if char == 'ς' { 'σ' } else { char });
    // Lower case may allow further composition.
    lower.nfkc().collect()
}

fn folded(local: &str, domain: &str) -> Result<String, InvalidId> {
    let base = local.split('+').next().unwrap_or_default().trim_end_matches('.');
    if base.is_empty() {
        return Err(InvalidId::Email { part: "local part", reason: "must not be a tag alone" });
    }
    Ok(match domain {
        "gmail.com" | "googlemail.com" => format!("{}@gmail.com", base.replace('.', "")),
        _ => format!("{base}@{domain}"),
    })
}

/// Returns true when a label of the text may be mistaken for another one (Unicode Technical Standard 39). Labels end at
/// any ASCII sign, so an address may have a part in each script.
fn looks_like_another(text: &str) -> bool {
    !text.is_ascii()
        && text.split(|char: char| char.is_ascii() && !char.is_ascii_alphanumeric()).any(is_confusable)
}

/// Returns true when a label mixes scripts (a Cyrillic letter among Latin ones), contains invisible or unusual
/// characters, or consists of letters of another script that all look like Latin ones.
fn is_confusable(label: &str) -> bool {
    let is_disallowed = |char: char| !char.is_ascii() && !char.identifier_allowed();
    let looks_latin = || {
        label.chars().all(|char| char.script() != Script::Latin)
            && skeleton(label).all(|char| char.is_ascii_alphanumeric())
    };
    !label.is_ascii()
        && (label.chars().any(is_disallowed)
            || !label.check_restriction_level(RestrictionLevel::HighlyRestrictive)
            || looks_latin())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plain(email: &str) -> Result<String, InvalidId> {
        canonical(email, false)
    }

    fn refused_part(email: &str) -> &'static str {
        match plain(email) {
            Err(InvalidId::Email { part, .. }) => part,
            other => panic!("{email}: {other:?}"),
        }
    }

    #[test]
    fn spellings_of_one_address_have_one_form() {
        let jorg = "j\u{f6}rg@xn--bcher-kva.example";
        for same in [
            "j\u{f6}rg@b\u{fc}cher.example",
            "J\u{d6}RG@B\u{dc}CHER.example",
            "jo\u{308}rg@bu\u{308}cher.example",
            "j\u{f6}rg@XN--BCHER-KVA.example",
            "j\u{f6}rg@b\u{fc}cher.example.",
            "j\u{f6}rg@b\u{fc}cher\u{3002}example",
            "\"j\u{f6}rg\"@b\u{fc}cher.example",
        ] {
            assert_eq!(plain(same).as_deref(), Ok(jorg), "{same}");
        }
    }

    #[test]
    fn addresses_in_other_scripts_are_accepted() {
        for email in [
            "\u{7528}\u{6237}@\u{4f8b}\u{5b50}.example",
            "\u{438}\u{432}\u{430}\u{43d}@shop.example",
            "\u{438}\u{432}\u{430}\u{43d}.ann+2@\u{43f}\u{43e}\u{447}\u{442}\u{430}.\u{440}\u{444}",
            "taro\u{592a}\u{90ce}@shop.example",
        ] {
            assert!(plain(email).is_ok(), "{email}: {:?}", plain(email));
        }
    }

    #[test]
    fn refusal_names_the_part() {
        for local in [
            "mailto:ann@shop.example",
            "ann k@shop.example",
            "ann\u{a0}k@shop.example",
            "@shop.example",
            ".ann@shop.example",
            "a@b@shop.example",
            "\"an\"n\"@shop.example",
            "\"\"ann\"\"@shop.example",
            "(x)ann@shop.example",
            "\u{430}nn@shop.example",
            // Cyrillic letters alone that look like `coca`.
            "\u{441}\u{43e}\u{441}\u{430}@shop.example",
            "a\u{200b}nn@shop.example",
        ] {
            assert_eq!(refused_part(local), "local part", "{local}");
        }
        for domain in [
            "<ann@shop.example>",
            "Ann <ann@shop.example>",
            "ann@shop",
            "ann@",
            "ann@shop..example",
            "ann@shop.example..",
            "ann@-shop.example",
            "ann@sh op.example",
            "ann@sh_op.example",
            "ann@10.0.0.1",
            "ann@[10.0.0.1]",
            "ann@xn--a.example",
            "ann@shop.exampl\u{435}",
            // Punycode hides the Cyrillic letters of `аррӏе`.
            "ann@xn--80ak6aa92e.example",
        ] {
            assert_eq!(refused_part(domain), "domain", "{domain}");
        }
        assert!(matches!(plain("KARL"), Err(InvalidId::Malformed(_))));
    }

    #[test]
    fn folding_gives_one_form_to_one_mailbox() {
        for same in ["a.nn.k+x@gmail.com", "annk@googlemail.com", "ANNK+a+b@Gmail.com", "ann.k.+x@gmail.com"]
        {
            assert_eq!(canonical(same, true).as_deref(), Ok("annk@gmail.com"), "{same}");
        }
        assert_eq!(canonical("a.nn+x@shop.example", true).as_deref(), Ok("a.nn@shop.example"));
        assert!(canonical("+x@shop.example", true).is_err());
        assert_ne!(plain("ann+x@shop.example"), plain("ann@shop.example"), "folding is a choice of the sale");
    }

    proptest! {
        #[test]
        fn canonical_form_is_a_fixed_point(
            local in r#"["<]?([a-zA-Z.+\-ßςΣİıK\u{ff21}é\u{301}иа用\u{200b}\u{a0}]|\PC){1,8}[">]?"#,
            domain in r"([a-zA-Z\-.ßςΣİ\u{fc}и用。\u{ad}]|\PC|xn--[a-z0-9\-]{1,8}){1,8}(\.example|\.com|gmail\.com)?\.?",
            is_folded: bool,
        ) {
            if let Ok(form) = canonical(&format!("{local}@{domain}"), is_folded) {
                prop_assert_eq!(canonical(&form, is_folded), Ok(form.clone()));
            }
        }

        #[test]
        fn any_text_gets_an_answer(text in any::<String>(), is_folded: bool) {
            let _ = canonical(&text, is_folded);
        }
    }
}
