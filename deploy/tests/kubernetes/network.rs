//! Who may speak to whom, as the NetworkPolicies have it, and who has to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use deploy::kubernetes::{Overlay, list, selects, text};
use serde_json::{Value, json};

use crate::Fault;
use crate::references::OPERATOR;

/// All that has to be possible. Whatever else is, is too much. A row counts where both of it are there; `everybody` is
/// whoever is in the namespace, also who has no business there.
const NEEDED: [(&str, &str, &str, u64); 17] = [
    ("everybody", "dns", "UDP", 53),
    ("everybody", "dns", "TCP", 53),
    ("everybody", "dns-cache", "UDP", 53),
    ("everybody", "dns-cache", "TCP", 53),
    ("ingress", "flashsale-node", "TCP", 3001),
    ("prometheus", "flashsale-node", "TCP", 9001),
    ("prometheus", "flashsale-coordinator", "TCP", 3100),
    ("prometheus", "redis-exporter", "TCP", 9121),
    ("operator", "flashsale-coordinator", "TCP", 3100),
    ("flashsale-node", "redis", "TCP", 6379),
    ("flashsale-coordinator", "redis", "TCP", 6379),
    ("redis-cluster", "redis", "TCP", 6379),
    ("redis-exporter", "redis", "TCP", 6379),
    ("redis", "redis", "TCP", 6379),
    ("redis", "redis", "TCP", 16379),
    ("flashsale-node", "managed-redis", "TCP", 6379),
    ("flashsale-coordinator", "managed-redis", "TCP", 6379),
];

/// All of the namespace.
const EVERYBODY: &str = "everybody";
/// Ports that are tried beside those that somebody has: one of them is nobody's.
const TRIED: [u64; 4] = [53, 80, 6379, 16379];

/// Somebody who speaks or is spoken to.
#[derive(Default)]
struct NetworkPeer {
    name: String,
    /// Of pods only.
    namespace: Option<BTreeMap<String, String>>,
    labels: BTreeMap<String, String>,
    address: Option<Ipv4Addr>,
    ports: BTreeMap<String, u64>,
    /// In the overlay's namespace, so that its policies hold.
    is_ours: bool,
}

/// Who speaks to whom, by which protocol, to which port.
type Edge<'a> = (&'a str, &'a str, &'static str, u64);

/// Who speaks is let out to whom it needs, and who hears lets those in: each side alone, and nothing else. Without a policy
/// of its own, a pod speaks to nobody and hears nobody.
pub(crate) fn edges(overlay: &Overlay) -> Vec<Fault> {
    let parties = parties(overlay);
    let needed = needed(&parties);
    let namespace = overlay.of_kind("Namespace").next().expect("an overlay has a namespace");
    let mut faults = Vec::new();
    for side in ["egress", "ingress"] {
        let allowed = allowed(overlay, &parties, side);
        let is_ours = |name: &str| parties.iter().any(|party| party.name == name && party.is_ours);
        let has_a_say = |edge: &&Edge<'_>| is_ours(if side == "egress" { edge.0 } else { edge.1 });
        let needed: BTreeSet<Edge<'_>> = needed.iter().filter(has_a_say).copied().collect();
        let found = [
            (&needed - &allowed, "needed, and not allowed"),
            (&allowed - &needed, "allowed, and not needed"),
        ];
        for (edges, why) in found {
            faults.extend(edges.into_iter().map(|(from, to, protocol, port)| {
                let field = format!("{side} {from} -> {to} {protocol} {port}");
                Fault::of(namespace, field, why)
            }));
        }
    }
    if !overlay.of_kind("NetworkPolicy").any(|policy| policy.0["spec"] == default_deny()) {
        faults.push(Fault::of(namespace, "NetworkPolicy", "none denies all that no other allows"));
    }
    faults.extend(strangers(overlay, &parties));
    faults
}

/// What holds for a pod that comes tomorrow.
fn default_deny() -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
}

/// What one side alone allows.
fn allowed<'a>(overlay: &Overlay, parties: &'a [NetworkPeer], side: &str) -> BTreeSet<Edge<'a>> {
    let mut edges = BTreeSet::new();
    for (from, to) in parties.iter().flat_map(|from| parties.iter().map(move |to| (from, to))) {
        let (whose, other) = if side == "egress" { (from, to) } else { (to, from) };
        if !whose.is_ours {
            continue;
        }
        let policies = policies_of(overlay, side, whose);
        for port in TRIED.into_iter().chain(to.ports.values().copied()) {
            for protocol in ["TCP", "UDP"] {
                if lets(&policies, side, other, (to, protocol, port)) {
                    edges.insert((&*from.name, &*to.name, protocol, port));
                }
            }
        }
    }
    edges
}

fn needed(parties: &[NetworkPeer]) -> BTreeSet<Edge<'_>> {
    let called = |name: &str| {
        parties
            .iter()
            .filter(move |party| party.name == name || (name == EVERYBODY && party.is_ours))
            .collect::<Vec<_>>()
    };
    let mut edges = BTreeSet::new();
    for (from, to, protocol, port) in NEEDED {
        for from in called(from) {
            edges.extend(called(to).into_iter().map(|to| (&*from.name, &*to.name, protocol, port)));
        }
    }
    edges
}

/// Whoever there is, and some that there should not be.
fn parties(overlay: &Overlay) -> Vec<NetworkPeer> {
    let of = |labels: &[(&str, &str)]| -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let own = || {
        let name = overlay.of_kind("Namespace").next().map_or("", |namespace| namespace.name());
        Some(of(&[("kubernetes.io/metadata.name", name)]))
    };
    let mut parties = BTreeMap::new();
    for container in overlay.containers() {
        let labels = container.workload.labels();
        let name = labels.get("app.kubernetes.io/name").cloned().unwrap_or_default();
        let ports = container.ports().into_iter().map(|(name, port)| (name.to_owned(), port)).collect();
        parties.insert(
            name.clone(),
            NetworkPeer { name, labels, ports, namespace: own(), is_ours: true, address: None },
        );
    }
    let pod = |name: &str, namespace: &[(&str, &str)], labels: &[(&str, &str)]| NetworkPeer {
        name: name.to_owned(),
        namespace: Some(of(namespace)),
        labels: of(labels),
        ..NetworkPeer::default()
    };
    let host = |name: &str, address: [u8; 4]| NetworkPeer {
        name: name.to_owned(),
        address: Some(address.into()),
        ..NetworkPeer::default()
    };
    let guest = |name: &str, labels: &[(&str, &str)]| NetworkPeer {
        namespace: own(),
        is_ours: true,
        ..pod(name, &[], labels)
    };
    let mut others = vec![
        guest("operator", &[OPERATOR.into()]),
        guest("stranger", &[]),
        pod("ingress", &[("flashsale/ingress", "true")], &[]),
        pod("prometheus", &[("flashsale/prometheus", "true")], &[]),
        pod("dns", &[("kubernetes.io/metadata.name", "kube-system")], &[("k8s-app", "kube-dns")]),
        pod("beside-dns", &[("kubernetes.io/metadata.name", "kube-system")], &[]),
        pod("elsewhere", &[("kubernetes.io/metadata.name", "default")], &[]),
        host("dns-cache", [169, 254, 20, 10]),
        host("internet", [203, 0, 113, 9]),
    ];
    if !parties.contains_key("redis") {
        others.push(host("managed-redis", [10, 20, 0, 7]));
    }
    parties.into_values().chain(others).collect()
}

/// The policies that say whom one of ours may speak to (`egress`), or hear (`ingress`).
fn policies_of<'a>(overlay: &'a Overlay, side: &str, whose: &NetworkPeer) -> Vec<&'a Value> {
    let holds = |policy: &&Value| {
        let mut types = list(&policy["policyTypes"]).iter();
        types.any(|it| text(it).eq_ignore_ascii_case(side)) && selects(&policy["podSelector"], &whose.labels)
    };
    overlay.of_kind("NetworkPolicy").map(|policy| &policy.0["spec"]).filter(holds).collect()
}

fn lets(policies: &[&Value], side: &str, other: &NetworkPeer, way: (&NetworkPeer, &str, u64)) -> bool {
    let mut rules = policies.iter().flat_map(|policy| list(&policy[side]));
    policies.is_empty() || rules.any(|rule| covers(rule, side, other, way))
}

fn covers(
    rule: &Value,
    direction: &str,
    other: &NetworkPeer,
    (to, protocol, port): (&NetworkPeer, &str, u64),
) -> bool {
    let peers = list(&rule[if direction == "egress" { "to" } else { "from" }]);
    let is_port = |it: &Value| {
        let number = it["port"].as_u64().or_else(|| to.ports.get(text(&it["port"])).copied());
        let is_within =
            number.is_some_and(|first| (first..=it["endPort"].as_u64().unwrap_or(first)).contains(&port));
        it["protocol"].as_str().unwrap_or("TCP") == protocol && (it["port"].is_null() || is_within)
    };
    let ports = list(&rule["ports"]);
    (peers.is_empty() || peers.iter().any(|peer| is_peer(peer, other)))
        && (ports.is_empty() || ports.iter().any(is_port))
}

fn is_peer(peer: &Value, party: &NetworkPeer) -> bool {
    if let Some(cidr) = peer["ipBlock"]["cidr"].as_str() {
        let mut except = list(&peer["ipBlock"]["except"]).iter();
        let address = party.address.filter(|address| is_within(*address, cidr));
        return address.is_some_and(|address| !except.any(|cidr| is_within(address, text(cidr))));
    }
    let Some(namespace) = &party.namespace else { return false };
    let is_near = match &peer["namespaceSelector"] {
        Value::Null => party.is_ours,
        selector => selects(selector, namespace),
    };
    is_near && (peer["podSelector"].is_null() || selects(&peer["podSelector"], &party.labels))
}

fn is_within(address: Ipv4Addr, cidr: &str) -> bool {
    let (network, length) = cidr.split_once('/').expect("a network has a length");
    let network: Ipv4Addr = network.parse().expect("an address");
    let length: u32 = length.parse().expect("a length");
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    address.to_bits() & mask == network.to_bits() & mask
}

/// Peers that are nobody we know: what they may do was not looked at.
fn strangers(overlay: &Overlay, parties: &[NetworkPeer]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for policy in overlay.of_kind("NetworkPolicy") {
        for (direction, side) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in list(&policy.0["spec"][direction]).iter().enumerate() {
                let mut peers = list(&rule[side]).iter();
                if !peers.all(|peer| parties.iter().any(|party| is_peer(peer, party))) {
                    let field = format!("/spec/{direction}/{i}/{side}");
                    faults.push(Fault::of(policy, field, "nobody is meant"));
                }
            }
        }
    }
    faults
}
