//! Addresses of Services in the settings: each exists, and the cluster consists of all servers.

use std::collections::BTreeSet;

use crate::Faults;
use crate::overlay::{Overlay, list};

/// The variable that lists all servers of the cluster, and the pod label with a server's name.
const SERVERS: &str = "PAIRS";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The end of a Service's full name. Other names with a dot are outside the cluster and cannot be checked.
const FULL: &str = "svc.cluster.local";

/// Each address leads to a port of a Service, and the cluster consists of all servers.
pub(crate) fn addresses(overlay: &Overlay, faults: &mut Faults) {
    let servers: BTreeSet<_> =
        overlay.pods().into_iter().filter_map(|mut pod| pod.labels.remove(POD_NAME)).collect();
    for container in &overlay.containers() {
        for (variable, value) in overlay.environment(container) {
            let value = value.unwrap_or_default();
            let field = format!("/env/{variable}");
            for (host, port) in addresses_in(&value).filter(|(host, port)| !exists(overlay, host, *port)) {
                faults.add_in_container(
                    container,
                    &field,
                    format!("no Service has the address {host}:{port}"),
                );
            }
            if variable == SERVERS {
                let named: BTreeSet<_> =
                    addresses_in(&value).map(|(host, _)| service_of(host).0.to_owned()).collect();
                for server in &servers - &named {
                    faults.add_in_container(
                        container,
                        &field,
                        format!("{server} is missing from the cluster"),
                    );
                }
            }
        }
    }
}

/// Splits a value into `host:port`, with or without a scheme, separated by commas or spaces.
fn addresses_in(value: &str) -> impl Iterator<Item = (&str, u64)> {
    let words = value.split([',', ' ', '\n']).map(|word| word.rsplit("//").next().unwrap_or(word));
    words.filter_map(|word| {
        let (host, port) = word.split_once(':')?;
        Some((host, port.parse().ok()?))
    })
}

/// Splits a host into the name of its Service and the domain, which may be empty.
fn service_of(host: &str) -> (&str, &str) {
    host.split_once('.').unwrap_or((host, ""))
}

fn exists(overlay: &Overlay, host: &str, port: u64) -> bool {
    let (service, domain) = service_of(host);
    let Some(service) = overlay.find("Service", service) else {
        return !domain.is_empty() && !domain.ends_with(FULL);
    };
    let namespace = service.0["metadata"]["namespace"].as_str().unwrap_or_default();
    let is_its_name = domain.is_empty() || domain == format!("{namespace}.{FULL}");
    is_its_name && list(&service.0["spec"]["ports"]).iter().any(|it| it["port"] == port)
}
