//! Who may speak to whom, as the NetworkPolicies have it, and who has to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use deploy::kubernetes::{Overlay, list, pairs, selects, text};
use serde_json::Value;

use crate::Fault;

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

/// Ports that are tried beside those that somebody has: one of them is nobody's.
const TRIED: [u64; 4] = [53, 80, 6379, 16379];

/// Somebody who speaks or is spoken to.
#[derive(Default)]
struct Party {
    name: String,
    /// Of pods only.
    namespace: Option<BTreeMap<String, String>>,
    labels: BTreeMap<String, String>,
    address: Option<Ipv4Addr>,
    ports: BTreeMap<String, u64>,
    /// In the overlay's namespace, so that its policies hold.
    is_ours: bool,
}

/// The possible edges are the needed ones; and without a policy of its own, a pod speaks to nobody and hears nobody.
pub(crate) fn edges(overlay: &Overlay) -> Vec<Fault> {
    let parties = parties(overlay);
    let (allowed, needed) = (allowed(overlay, &parties), needed(&parties));
    let namespace = overlay.of_kind("Namespace").next().expect("an overlay has a namespace");
    let mut faults: Vec<Fault> = Vec::new();
    faults.extend(needed.difference(&allowed).map(|edge| Fault::of(namespace, edge, "it is needed, and not allowed")));
    faults.extend(allowed.difference(&needed).map(|edge| Fault::of(namespace, edge, "it is allowed, and not needed")));
    faults.extend(strangers(overlay, &parties));
    faults
}

fn allowed(overlay: &Overlay, parties: &[Party]) -> BTreeSet<String> {
    let mut edges = BTreeSet::new();
    for (from, to) in parties.iter().flat_map(|from| parties.iter().map(move |to| (from, to))) {
        if !from.is_ours && !to.is_ours {
            continue;
        }
        for port in TRIED.into_iter().chain(to.ports.values().copied()) {
            for protocol in ["TCP", "UDP"] {
                let way = (to, protocol, port);
                if lets(overlay, "egress", from, to, way) && lets(overlay, "ingress", to, from, way) {
                    edges.insert(edge(&from.name, &to.name, protocol, port));
                }
            }
        }
    }
    edges
}

fn needed(parties: &[Party]) -> BTreeSet<String> {
    let is_there = |name: &str| parties.iter().any(|party| party.name == name);
    let ours: Vec<&str> = parties.iter().filter(|party| party.is_ours).map(|party| &*party.name).collect();
    let rows = NEEDED.into_iter().filter(|(_, to, ..)| is_there(to));
    rows.flat_map(|(from, to, protocol, port)| {
        let everybody = if from == "everybody" { ours.clone() } else { vec![from] };
        everybody.into_iter().filter(|from| is_there(from)).map(move |from| edge(from, to, protocol, port)).collect::<Vec<_>>()
    })
    .collect()
}

fn edge(from: &str, to: &str, protocol: &str, port: u64) -> String {
    format!("{from} -> {to} {protocol} {port}")
}

/// Whoever there is, and some that there should not be.
fn parties(overlay: &Overlay) -> Vec<Party> {
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
        parties.insert(name.clone(), Party { name, labels, ports, namespace: own(), is_ours: true, address: None });
    }
    let pod = |name: &str, namespace: &[(&str, &str)], labels: &[(&str, &str)]| Party {
        name: name.to_owned(),
        namespace: Some(of(namespace)),
        labels: of(labels),
        ..Party::default()
    };
    let host = |name: &str, address: [u8; 4]| Party {
        name: name.to_owned(),
        address: Some(address.into()),
        ..Party::default()
    };
    let guest = |name: &str, labels: &[(&str, &str)]| Party { namespace: own(), is_ours: true, ..pod(name, &[], labels) };
    let mut others = vec![
        guest("operator", &[("flashsale/admin", "true")]),
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

/// Whether the policies of one of the two let it speak to (`egress`), or hear (`ingress`), the other.
fn lets(overlay: &Overlay, direction: &str, whose: &Party, other: &Party, way: (&Party, &str, u64)) -> bool {
    if !whose.is_ours {
        return true;
    }
    let holds = |policy: &&Value| {
        let types = list(&policy["policyTypes"]);
        selects(&policy["podSelector"], &whose.labels)
            && types.iter().any(|it| text(it).eq_ignore_ascii_case(direction))
    };
    let policies: Vec<&Value> =
        overlay.of_kind("NetworkPolicy").map(|policy| &policy.0["spec"]).filter(holds).collect();
    let rules = policies.iter().flat_map(|policy| list(&policy[direction]));
    policies.is_empty() || rules.into_iter().any(|rule| covers(rule, direction, other, way))
}

fn covers(rule: &Value, direction: &str, other: &Party, (to, protocol, port): (&Party, &str, u64)) -> bool {
    let peers = list(&rule[if direction == "egress" { "to" } else { "from" }]);
    let is_port = |it: &Value| {
        let number = it["port"].as_u64().or_else(|| to.ports.get(text(&it["port"])).copied());
        let is_within = number.is_some_and(|first| (first..=it["endPort"].as_u64().unwrap_or(first)).contains(&port));
        it["protocol"].as_str().unwrap_or("TCP") == protocol && (it["port"].is_null() || is_within)
    };
    let ports = list(&rule["ports"]);
    (peers.is_empty() || peers.iter().any(|peer| is_peer(peer, other)))
        && (ports.is_empty() || ports.iter().any(is_port))
}

fn is_peer(peer: &Value, party: &Party) -> bool {
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
fn strangers(overlay: &Overlay, parties: &[Party]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for policy in overlay.of_kind("NetworkPolicy") {
        for (direction, side) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in pairs(&policy.0["spec"]).filter(|(key, _)| *key == direction).flat_map(|(_, rules)| list(rules)).enumerate() {
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
