//! The client's address, determined from the connection and the headers of trusted proxies.
//!
//! `X-Forwarded-For` is trusted only as far as trusted proxies wrote it: from the right, up to the first hop that is
//! not one of them. That hop is the client. Entries to the left of it are ignored, because the client can forge them.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The client that sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    /// True when the client uses TLS to the outermost trusted proxy.
    pub(crate) is_secure: bool,
    /// True when the request comes from a trusted proxy, so that its other headers may count as well.
    pub(crate) is_behind_proxy: bool,
}

/// Networks of the proxies in front.
pub(super) struct Proxies(pub(super) Vec<IpNet>);

impl Proxies {
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Client {
        let peer = peer.to_canonical();
        if !self.is_trusted(peer) {
            return Client { address: peer, is_secure: false, is_behind_proxy: false };
        }
        let is_secure = headers.get(X_FORWARDED_PROTO).is_some_and(|proto| proto == "https");
        Client { address: self.rightmost_untrusted(peer, headers), is_secure, is_behind_proxy: true }
    }

    /// Returns the first hop from the right that is not a trusted proxy. An unreadable entry ends the search; then the
    /// client is the proxy that forwarded it.
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

/// Parses a hop. Some proxies add the port.
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
    fn direct_client_cannot_spoof_its_address() {
        assert_eq!(seen("192.0.2.7", &["203.0.113.9"]), "192.0.2.7");
        assert_eq!(seen("192.0.2.7", &["10.0.0.1"]), "192.0.2.7");
    }

    #[test]
    fn rightmost_untrusted_hop_is_the_client() {
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
    fn last_readable_hop_is_the_client() {
        assert_eq!(seen("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(seen("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn only_trusted_proxies_report_tls() {
        let proxies = Proxies(vec!["10.0.0.0/8".parse().unwrap()]);
        let headers = HeaderMap::from_iter([(X_FORWARDED_PROTO, HeaderValue::from_static("https"))]);
        assert!(proxies.client("10.0.0.1".parse().unwrap(), &headers).is_secure);
        assert!(!proxies.client("192.0.2.7".parse().unwrap(), &headers).is_secure);
    }
}
