//! Who is at the far end of a request: behind the proxies that are ours, and no further.
//!
//! A header is believed only as far as trusted hands wrote it: from the right, up to the first hop that is not ours.
//! That hop is the client, whatever it claims about hops before it.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client that a request came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// Whether it speaks TLS with the outermost of our proxies.
    pub(crate) is_secure: bool,
}

/// The networks of the proxies in front.
pub(super) struct Proxies(pub(super) Vec<IpNet>);

impl Proxies {
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let peer = peer.to_canonical();
        if !self.is_trusted(peer) {
            return Client { address: peer, is_secure: false };
        }
        let is_secure = headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto == "https");
        Client { address: self.rightmost_untrusted(peer, headers), is_secure }
    }

    /// The first hop from the right that is not ours. What cannot be read ends the search: whoever let it through is
    /// the last one known.
    fn rightmost_untrusted(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut nearest = peer;
        let lines = headers.get_all(X_FORWARDED_FOR).iter().map(|line| line.to_str().unwrap_or_default());
        for hop in lines.rev().flat_map(|line| line.rsplit(',')) {
            let Some(hop) = parse_hop(hop.trim()) else { return nearest };
            if !self.is_trusted(hop) {
                return hop;
            }
            nearest = hop;
        }
        nearest
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// Some proxies write the port, too.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let address = hop.parse().or_else(|_| hop.parse().map(|hop: SocketAddr| hop.ip()));
    let bracketed = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    address.ok().or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn seen(peer: &str, forwarded_for: &[&str]) -> String {
        let proxies = Proxies(vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let line = |line: &&str| (X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        let mut headers = HeaderMap::new();
        headers.extend(forwarded_for.iter().map(line));
        proxies.client(peer.parse().unwrap(), &headers).address.to_string()
    }

    #[test]
    fn a_client_that_comes_directly_cannot_choose_its_address() {
        assert_eq!(seen("192.0.2.7", &["203.0.113.9"]), "192.0.2.7");
        assert_eq!(seen("192.0.2.7", &["10.0.0.1"]), "192.0.2.7");
    }

    #[test]
    fn behind_our_proxies_the_rightmost_stranger_is_the_client() {
        assert_eq!(seen("10.0.0.1", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, 10.0.0.2"]), "203.0.113.9");
        assert_eq!(seen("10.0.0.1", &["spoofed, 1.1.1.1, 203.0.113.9,10.0.0.2"]), "203.0.113.9");
        assert_eq!(
            seen("10.0.0.1", &["1.1.1.1", "203.0.113.9"]),
            "203.0.113.9",
            "however many headers it sends"
        );
        assert_eq!(seen("::ffff:10.0.0.1", &["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(seen("fd00::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(seen("fd00::1", &["[2001:db8::1]"]), "2001:db8::1");
    }

    #[test]
    fn where_the_trail_ends_the_last_one_known_is_the_client() {
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(seen("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn only_our_proxies_say_that_a_client_speaks_tls() {
        let proxies = Proxies(vec!["10.0.0.0/8".parse().unwrap()]);
        let headers = HeaderMap::from_iter([(X_FORWARDED_PROTO, HeaderValue::from_static("https"))]);
        assert!(proxies.client("10.0.0.1".parse().unwrap(), &headers).is_secure);
        assert!(!proxies.client("192.0.2.7".parse().unwrap(), &headers).is_secure);
    }
}
