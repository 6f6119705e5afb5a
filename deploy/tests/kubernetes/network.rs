//! Connections that the NetworkPolicies allow, compared with those that are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use crate::Faults;
use crate::overlay::{Overlay, list, text};
use crate::references::{INSTANCE_OF, OPERATOR};
use crate::selector::selects;

/// All connections that must be possible. No other connection may be possible. A row applies when both ends exist.
/// `every pod` stands for all pods in the namespace, including unknown ones.
const NEEDED: [(&str, &str, &str, u64); 29] = [
    ("every pod", "dns", "UDP", 53),
    ("every pod", "dns", "TCP", 53),
    ("every pod", "dns-cache", "UDP", 53),
    ("every pod", "dns-cache", "TCP", 53),
    ("ingress", "flashsale-node", "TCP", 3001),
    ("prometheus", "flashsale-node", "TCP", 9001),
    ("prometheus", "flashsale-coordinator", "TCP", 9001),
    ("prometheus", "flashsale-ledger", "TCP", 9001),
    ("prometheus", "redis-exporter", "TCP", 9121),
    ("operator", "flashsale-coordinator", "TCP", 3100),
    ("operator", "flashsale-ledger", "TCP", 3200),
    ("flashsale-node", "redis", "TCP", 6379),
    ("flashsale-coordinator", "redis", "TCP", 6379),
    ("flashsale-ledger", "redis", "TCP", 6379),
    ("redis-cluster", "redis", "TCP", 6379),
    ("redis-exporter", "redis", "TCP", 6379),
    ("redis", "redis", "TCP", 6379),
    ("redis", "redis", "TCP", 16379),
    ("flashsale-node", "managed-redis", "TCP", 6379),
    ("flashsale-coordinator", "managed-redis", "TCP", 6379),
    ("flashsale-ledger", "managed-redis", "TCP", 6379),
    ("flashsale-ledger", "managed-postgres", "TCP", 5432),
    ("flashsale-ledger", "postgres", "TCP", 5432),
    ("postgres", "postgres", "TCP", 5432),
    ("cloudnative-pg", "postgres", "TCP", 5432),
    ("cloudnative-pg", "postgres", "TCP", 8000),
    ("postgres", "kubernetes-api", "TCP", 6443),
    ("flashsale-ledger", "broker", "TCP", 5671),
    ("flashsale-ledger", "webhook", "TCP", 443),
];

/// All pods in the namespace.
const EVERY_POD: &str = "every pod";
/// Ports that are checked in addition to those of the peers. One of them belongs to no peer.
const CHECKED_PORTS: [u64; 7] = [53, 80, 5432, 5671, 5672, 6379, 16379];

/// One end of a connection.
#[derive(Default)]
struct NetworkPeer {
    name: String,
    /// Labels of the namespace. `None` for hosts.
    namespace: Option<BTreeMap<String, String>>,
    labels: BTreeMap<String, String>,
    address: Option<Ipv4Addr>,
    ports: BTreeMap<String, u64>,
    /// True for pods in the overlay's namespace, where its policies apply.
    is_own: bool,
}

/// Source, destination, protocol and port of a connection.
type Edge<'a> = (&'a str, &'a str, &'static str, u64);

/// Policies allow the needed connections and no others, on each side separately: egress at the source, ingress at the
/// destination. A pod without a policy of its own has no connections.
pub(crate) fn edges(overlay: &Overlay, faults: &mut Faults) {
    let peers = peers(overlay);
    let needed = needed(&peers);
    let namespace = overlay.namespace();
    for side in ["egress", "ingress"] {
        let allowed = allowed(overlay, &peers, side);
        let is_own = |name: &str| peers.iter().any(|peer| peer.name == name && peer.is_own);
        let is_constrained = |edge: &&Edge<'_>| is_own(if side == "egress" { edge.0 } else { edge.1 });
        let needed: BTreeSet<Edge<'_>> = needed.iter().filter(is_constrained).copied().collect();
        let found = [
            (&needed - &allowed, "needed, but not allowed"),
            (&allowed - &needed, "allowed, but not needed"),
        ];
        for (edges, reason) in found {
            for (from, to, protocol, port) in edges {
                faults.add(namespace, format!("{side} {from} -> {to} {protocol} {port}"), reason);
            }
        }
    }
    if !overlay.of_kind("NetworkPolicy").any(|policy| policy.0["spec"] == default_deny()) {
        faults.add(namespace, "NetworkPolicy", "no policy denies all other connections");
    }
    check_peers(overlay, &peers, faults);
}

/// The policy for pods that no other policy selects.
fn default_deny() -> Value {
    json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
}

/// Returns the connections that one side allows.
fn allowed<'a>(overlay: &Overlay, peers: &'a [NetworkPeer], side: &str) -> BTreeSet<Edge<'a>> {
    let mut edges = BTreeSet::new();
    for (from, to) in peers.iter().flat_map(|from| peers.iter().map(move |to| (from, to))) {
        let (subject, other) = if side == "egress" { (from, to) } else { (to, from) };
        if !subject.is_own {
            continue;
        }
        let policies = policies_of(overlay, side, subject);
        for port in CHECKED_PORTS.into_iter().chain(to.ports.values().copied()) {
            for protocol in ["TCP", "UDP"] {
                if allows(&policies, side, other, (to, protocol, port)) {
                    edges.insert((&*from.name, &*to.name, protocol, port));
                }
            }
        }
    }
    edges
}

fn needed(peers: &[NetworkPeer]) -> BTreeSet<Edge<'_>> {
    let named = |name: &str| {
        peers
            .iter()
            .filter(move |peer| peer.name == name || (name == EVERY_POD && peer.is_own))
            .collect::<Vec<_>>()
    };
    let mut edges = BTreeSet::new();
    for (from, to, protocol, port) in NEEDED {
        for from in named(from) {
            edges.extend(named(to).into_iter().map(|to| (&*from.name, &*to.name, protocol, port)));
        }
    }
    edges
}

/// Returns all peers: the workloads of the overlay, known peers outside it, and some without any rights.
fn peers(overlay: &Overlay) -> Vec<NetworkPeer> {
    let of = |labels: &[(&str, &str)]| -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let own = || Some(of(&[("kubernetes.io/metadata.name", overlay.namespace().name())]));
    let mut peers = BTreeMap::new();
    for container in overlay.containers() {
        let (name, labels) = (container.application(), container.workload.labels());
        let ports = container.ports().into_iter().map(|(name, port)| (name.to_owned(), port)).collect();
        let peer = NetworkPeer { name, labels, ports, namespace: own(), is_own: true, address: None };
        peers.insert(peer.name.clone(), peer);
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
    let own_pod = |name: &str, labels: &[(&str, &str)]| NetworkPeer {
        namespace: own(),
        is_own: true,
        ..pod(name, &[], labels)
    };
    let is_set =
        |setting| overlay.containers().iter().any(|it| overlay.environment(it).contains_key(setting));
    let mut others = vec![
        own_pod("operator", &[OPERATOR.into()]),
        own_pod("stranger", &[]),
        pod("ingress", &[("flashsale/ingress", "true")], &[]),
        pod("prometheus", &[("flashsale/prometheus", "true")], &[]),
        pod("dns", &[("kubernetes.io/metadata.name", "kube-system")], &[("k8s-app", "kube-dns")]),
        pod("beside-dns", &[("kubernetes.io/metadata.name", "kube-system")], &[]),
        pod("elsewhere", &[("kubernetes.io/metadata.name", "default")], &[]),
        host("dns-cache", [169, 254, 20, 10]),
    ];
    if is_set("AMQP_URL") {
        others.push(host("broker", [10, 40, 0, 7]));
    }
    let https = |host| NetworkPeer { ports: BTreeMap::from([("https".to_owned(), 443)]), ..host };
    if is_set("WEBHOOK_URL") {
        // The webhook may have any address on the internet, and none in a private network.
        let private =
            [[10, 0, 0, 7], [100, 64, 0, 7], [169, 254, 169, 254], [172, 16, 0, 7], [192, 168, 0, 7]];
        others.extend(private.map(|address| https(host("private", address))));
        others.push(https(host("webhook", [203, 0, 113, 9])));
    } else {
        others.push(host("internet", [203, 0, 113, 9]));
    }
    match overlay.of_kind("Cluster").next() {
        None if peers.contains_key("flashsale-ledger") => {
            others.push(host("managed-postgres", [10, 30, 0, 7]));
        }
        None => {}
        Some(cluster) => {
            let ports = |ports: &[(&str, u64)]| {
                ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect::<BTreeMap<_, _>>()
            };
            others.extend([
                NetworkPeer {
                    ports: ports(&[("status", 8000)]),
                    ..own_pod("postgres", &[(INSTANCE_OF, cluster.name())])
                },
                pod(
                    "cloudnative-pg",
                    &[("kubernetes.io/metadata.name", "cnpg-system")],
                    &[("app.kubernetes.io/name", "cloudnative-pg")],
                ),
                NetworkPeer { ports: ports(&[("https", 6443)]), ..host("kubernetes-api", [10, 0, 0, 1]) },
            ]);
        }
    }
    if !peers.contains_key("redis") {
        others.push(host("managed-redis", [10, 20, 0, 7]));
    }
    peers.into_values().chain(others).collect()
}

/// Returns the policies for the egress or ingress of a peer.
fn policies_of<'a>(overlay: &'a Overlay, side: &str, subject: &NetworkPeer) -> Vec<&'a Value> {
    let holds = |policy: &&Value| {
        let mut types = list(&policy["policyTypes"]).iter();
        types.any(|it| text(it).eq_ignore_ascii_case(side))
            && selects(&policy["podSelector"], &subject.labels)
    };
    overlay.of_kind("NetworkPolicy").map(|policy| &policy.0["spec"]).filter(holds).collect()
}

fn allows(
    policies: &[&Value],
    side: &str,
    other: &NetworkPeer,
    connection: (&NetworkPeer, &str, u64),
) -> bool {
    let mut rules = policies.iter().flat_map(|policy| list(&policy[side]));
    policies.is_empty() || rules.any(|rule| covers(rule, side, other, connection))
}

fn covers(
    rule: &Value,
    direction: &str,
    other: &NetworkPeer,
    (to, protocol, port): (&NetworkPeer, &str, u64),
) -> bool {
    let selectors = list(&rule[if direction == "egress" { "to" } else { "from" }]);
    let is_port = |it: &Value| {
        let number = it["port"].as_u64().or_else(|| to.ports.get(text(&it["port"])).copied());
        let is_within =
            number.is_some_and(|first| (first..=it["endPort"].as_u64().unwrap_or(first)).contains(&port));
        it["protocol"].as_str().unwrap_or("TCP") == protocol && (it["port"].is_null() || is_within)
    };
    let ports = list(&rule["ports"]);
    (selectors.is_empty() || selectors.iter().any(|selector| matches_peer(selector, other)))
        && (ports.is_empty() || ports.iter().any(is_port))
}

fn matches_peer(selector: &Value, peer: &NetworkPeer) -> bool {
    let block = &selector["ipBlock"];
    if !block.is_null() {
        let contains =
            |cidr: &Value, address| text(cidr).parse::<Ipv4Net>().expect("a network").contains(&address);
        return peer.address.is_some_and(|address| {
            contains(&block["cidr"], address)
                && !list(&block["except"]).iter().any(|cidr| contains(cidr, address))
        });
    }
    let Some(namespace) = &peer.namespace else { return false };
    let is_near = match &selector["namespaceSelector"] {
        Value::Null => peer.is_own,
        labels => selects(labels, namespace),
    };
    is_near && (selector["podSelector"].is_null() || selects(&selector["podSelector"], &peer.labels))
}

/// Reports policy peers that match no known peer. The connections that they allow were not checked.
fn check_peers(overlay: &Overlay, peers: &[NetworkPeer], faults: &mut Faults) {
    for policy in overlay.of_kind("NetworkPolicy") {
        for (direction, side) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in list(&policy.0["spec"][direction]).iter().enumerate() {
                let mut selectors = list(&rule[side]).iter();
                if !selectors.all(|selector| peers.iter().any(|peer| matches_peer(selector, peer))) {
                    faults.add(policy, format!("/spec/{direction}/{i}/{side}"), "it matches no known peer");
                }
            }
        }
    }
}
