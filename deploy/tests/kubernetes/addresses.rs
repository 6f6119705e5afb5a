//! Who is asked by name is there, and whoever has to be asked is.

use std::collections::BTreeSet;

use deploy::kubernetes::{Overlay, list};

use crate::Fault;

/// What the cluster is made of: the variable that names all servers, and the label of their pods that has their names.
const SERVERS: &str = "PAIRS";
const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// How a Service's full name ends. Of other names with a dot nobody here knows whether they are there.
const FULL: &str = "svc.cluster.local";

/// Each address of a Service leads to one of its ports, and the cluster is made of all servers that there are.
pub(crate) fn addresses(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        for (variable, value) in overlay.environment(container) {
            let value = value.unwrap_or_default();
            let mut fault = |why: String| {
                let field = format!("{}/env/{variable}", container.at);
                faults.push(Fault::of(container.workload.object, field, why));
            };
            let asked: Vec<(&str, u64)> = addresses_in(&value).collect();
            for (host, port) in &asked {
                if !is_there(overlay, host, *port) {
                    fault(format!("nobody answers at {host}:{port}"));
                }
            }
            let asked: BTreeSet<&str> = asked.into_iter().map(|(host, _)| host).collect();
            for server in servers(overlay).iter().filter(|server| !asked.contains(&***server)) {
                if variable == SERVERS {
                    fault(format!("{server} is not of the cluster"));
                }
            }
        }
    }
    faults
}

/// `host:port`, behind a scheme or not, with commas or spaces between.
fn addresses_in(value: &str) -> impl Iterator<Item = (&str, u64)> {
    let words = value.split([',', ' ', '\n']).map(|word| word.rsplit("//").next().unwrap_or(word));
    words.filter_map(|word| {
        let (host, port) = word.split_once(':')?;
        Some((host, port.parse().ok()?))
    })
}

fn is_there(overlay: &Overlay, host: &str, port: u64) -> bool {
    let (service, domain) = host.split_once('.').unwrap_or((host, ""));
    let Some(service) = overlay.find("Service", service) else {
        return !domain.is_empty() && !domain.ends_with(FULL);
    };
    let namespace = service.0["metadata"]["namespace"].as_str().unwrap_or_default();
    let is_its_name = domain.is_empty() || domain == format!("{namespace}.{FULL}");
    is_its_name && list(&service.0["spec"]["ports"]).iter().any(|it| it["port"] == port)
}

fn servers(overlay: &Overlay) -> Vec<String> {
    overlay.pods().into_iter().filter_map(|mut pod| pod.labels.remove(POD_NAME)).collect()
}
