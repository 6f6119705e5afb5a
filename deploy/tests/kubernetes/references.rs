//! Every object that another object refers to exists.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::overlay::{Object, Overlay, list, pairs, text};
use crate::secrets::{Secrets, secrets};
use crate::selector::selects;
use crate::workload::{Container, Pod};
use crate::{Faults, PROBES};

/// The label of a pod that an operator starts by hand.
pub(crate) const OPERATOR: [&str; 2] = ["flashsale/admin", "true"];
/// The label of the pods that CloudNativePG starts for a `Cluster`.
pub(crate) const INSTANCE_OF: &str = "cnpg.io/cluster";
/// Fields anywhere in a `spec` that refer to an object of this kind by name.
const BY_NAME: [(&str, &str); 3] = [
    ("serviceAccountName", "ServiceAccount"),
    ("serviceName", "Service"),
    ("claimName", "PersistentVolumeClaim"),
];

/// ConfigMaps, accounts, claims, Services and Gateways are in the overlay. Secrets are in the table of the README.
pub(crate) fn references(overlay: &Overlay, faults: &mut Faults) {
    let secrets = secrets();
    for object in &overlay.objects {
        each_field(&object.0["spec"], "/spec", &mut |at, name, value| {
            if let Some(reason) = missing(overlay, &secrets, name, value) {
                faults.add(object, at, reason);
            }
        });
    }
    for container in &overlay.containers() {
        let claims = list(&container.workload.object.0["spec"]["volumeClaimTemplates"]);
        let is_claimed = |name: &Value| claims.iter().any(|claim| claim["metadata"]["name"] == *name);
        for (mount, volume) in container.volumes() {
            if volume.is_null() && !is_claimed(&mount["name"]) {
                faults.add_in_container(
                    container,
                    "/volumeMounts",
                    format!("it has no volume {}", mount["name"]),
                );
            }
        }
    }
}

/// Calls `visit` with the pointer, name and value of every field below.
fn each_field(value: &Value, at: &str, visit: &mut impl FnMut(&str, &str, &Value)) {
    for (name, value) in pairs(value) {
        let at = format!("{at}/{name}");
        visit(&at, name, value);
        each_field(value, &at, visit);
    }
    for (i, value) in list(value).iter().enumerate() {
        each_field(value, &format!("{at}/{i}"), visit);
    }
}

fn missing(overlay: &Overlay, secrets: &Secrets, field: &str, value: &Value) -> Option<String> {
    let named = |kind: &str, name: &str| {
        overlay.find(kind, name).is_none().then(|| format!("{kind} {name} does not exist"))
    };
    let secret = |name: &str, keys: Vec<&str>| match secrets.get(name) {
        None => Some(format!("the Secret {name} is not in the README")),
        Some(known) => {
            let unknown = keys.into_iter().find(|key| !known.contains(*key));
            unknown.map(|key| format!("the Secret {name} has no {key}"))
        }
    };
    let items = |of: &Value| list(&of["items"]).iter().map(|item| item["key"].clone()).collect::<Vec<_>>();
    if let Some((_, kind)) = BY_NAME.iter().find(|(name, _)| *name == field) {
        return named(kind, text(value));
    }
    match field {
        "configMapRef" => named("ConfigMap", text(&value["name"])),
        "configMap" | "configMapKeyRef" => {
            let name = text(&value["name"]);
            let mut keys = items(value);
            keys.extend(value.get("key").cloned());
            named("ConfigMap", name).or_else(|| {
                let data = &overlay.find("ConfigMap", name)?.0["data"];
                let unknown = keys.into_iter().find(|key| data[text(key)].is_null())?;
                Some(format!("{name} has no {unknown}"))
            })
        }
        "secret" => secret(text(&value["secretName"]), items(value).iter().map(text).collect()),
        "secretKeyRef" => secret(text(&value["name"]), vec![text(&value["key"])]),
        "secretRef" => secret(text(&value["name"]), Vec::new()),
        // The field of an Ingress. The one of a volume was checked above with its keys.
        "secretName" => secret(text(value), Vec::new()),
        "certificateRefs" => {
            list(value).iter().find_map(|reference| secret(text(&reference["name"]), Vec::new()))
        }
        "scaleTargetRef" => named(text(&value["kind"]), text(&value["name"])),
        "parentRefs" => list(value).iter().find_map(|parent| {
            let gateway = overlay.find("Gateway", text(&parent["name"]));
            let mut listeners = gateway.into_iter().flat_map(|gateway| list(&gateway.0["spec"]["listeners"]));
            let has_it = listeners.any(|listener| listener["name"] == parent["sectionName"]);
            (!has_it).then(|| "no Gateway has that listener".to_owned())
        }),
        _ => None,
    }
}

/// Each path in a program's settings or command is mounted. The project's images contain nothing but the program.
pub(crate) fn paths(overlay: &Overlay, faults: &mut Faults) {
    let secrets = secrets();
    let secret_has_key = |secret: &str, key: &str| secrets.get(secret).is_some_and(|keys| keys.contains(key));
    for container in &overlay.containers() {
        let mounts = container.mounts(overlay);
        for path in paths_of(container, overlay) {
            let exists = mounts.iter().any(|(folder, mounted)| match path.strip_prefix(folder) {
                Some("") => true,
                Some(below) => {
                    below.strip_prefix('/').is_some_and(|name| mounted.contains(name, secret_has_key))
                }
                None => false,
            });
            if !exists {
                faults.add_in_container(container, "", format!("{path} does not exist"));
            }
        }
    }
}

fn paths_of(container: &Container<'_>, overlay: &Overlay) -> BTreeSet<String> {
    let own = &container.value;
    let hooks = PROBES.map(|probe| &own[probe]["exec"]["command"]);
    let commands = [&own["command"], &own["args"], &own["lifecycle"]["preStop"]["exec"]["command"]];
    let words = commands.into_iter().chain(hooks).flat_map(list).map(|word| text(word).to_owned());
    let variables = overlay.environment(container).into_values().flatten();
    variables.chain(words).filter(|word| word.starts_with('/')).collect()
}

/// Returns the pods that a selector matches.
fn selected<'a>(pods: &'a [Pod<'a>], selector: &Value) -> impl Iterator<Item = &'a Pod<'a>> {
    pods.iter().filter(|pod| selects(selector, &pod.labels))
}

/// Converts the selector of a Service, which is a plain map of labels.
fn of_service(service: &Object) -> Value {
    json!({"matchLabels": service.0["spec"]["selector"]})
}

/// Every port that is referred to exists, in pods and in Services.
pub(crate) fn named_ports(overlay: &Overlay, faults: &mut Faults) {
    let pods = overlay.pods();
    let mut check = |object: &Object, field: &str, selector: &Value, port: &Value| {
        if let Some(pod) = selected(&pods, selector).find(|pod| !pod_has(pod, port)) {
            faults.add(object, field, format!("{} has no port {port}", pod.workload.object.title()));
        }
    };
    for service in overlay.of_kind("Service") {
        for port in list(&service.0["spec"]["ports"]) {
            let target = if port["targetPort"].is_null() { &port["port"] } else { &port["targetPort"] };
            check(service, "/spec/ports", &of_service(service), target);
        }
    }
    for policy in overlay.of_kind("NetworkPolicy") {
        for port in list(&policy.0["spec"]["ingress"]).iter().flat_map(|rule| list(&rule["ports"])) {
            check(policy, "/spec/ingress", &policy.0["spec"]["podSelector"], &port["port"]);
        }
    }
    for monitor in overlay.of_kind("PodMonitor") {
        for endpoint in list(&monitor.0["spec"]["podMetricsEndpoints"]) {
            check(monitor, "/spec/podMetricsEndpoints", &monitor.0["spec"]["selector"], &endpoint["port"]);
        }
    }
    for container in &overlay.containers() {
        for probe in PROBES {
            for handler in ["httpGet", "tcpSocket"] {
                let port = &container.value[probe][handler]["port"];
                if !port.is_null() && !has_port(container, port) {
                    faults.add_in_container(container, probe, "it has no such port");
                }
            }
        }
    }
    check_backends(overlay, faults);
}

fn pod_has(pod: &Pod<'_>, port: &Value) -> bool {
    pod.workload.containers().iter().any(|container| has_port(container, port))
}

fn has_port(container: &Container<'_>, port: &Value) -> bool {
    let ports = container.ports();
    ports.contains_key(text(port)) || ports.values().any(|number| port.as_u64() == Some(*number))
}

/// Checks the backends of Ingress and HTTPRoute.
fn check_backends(overlay: &Overlay, faults: &mut Faults) {
    let exists = |backend: &Value, port: &Value| {
        let service = overlay.find("Service", text(&backend["name"]));
        let mut ports = service.into_iter().flat_map(|service| list(&service.0["spec"]["ports"]));
        ports.any(|it| it["name"] == *port || it["port"] == *port)
    };
    for object in overlay.of_kind("Ingress").chain(overlay.of_kind("HTTPRoute")) {
        each_field(&object.0["spec"], "/spec", &mut |at, name, value| {
            let port = &value["port"];
            let is_met = match name {
                "service" if port["name"].is_null() => exists(value, &port["number"]),
                "service" => exists(value, &port["name"]),
                "backendRefs" => list(value).iter().all(|backend| exists(backend, &backend["port"])),
                _ => true,
            };
            if !is_met {
                faults.add(object, at, "it refers to no port of a Service");
            }
        });
    }
}

/// Every selector matches a pod. Only the operator's label, and the pods of CloudNativePG, belong to no workload.
pub(crate) fn selectors(overlay: &Overlay, faults: &mut Faults) {
    let pods = overlay.pods();
    let operator = BTreeMap::from([OPERATOR.map(str::to_owned).into()]);
    let instances = overlay
        .of_kind("Cluster")
        .map(|cluster| BTreeMap::from([(INSTANCE_OF.to_owned(), cluster.name().to_owned())]));
    let others_by_hand: Vec<_> = instances.chain([operator]).collect();
    let services = overlay.of_kind("Service").map(|service| (service, of_service(service)));
    let others =
        [("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"), ("PodMonitor", "selector")];
    let others = others.into_iter().flat_map(|(kind, field)| {
        overlay.of_kind(kind).map(move |object| (object, object.0["spec"][field].clone()))
    });
    for (object, selector) in services.chain(others) {
        let is_known = others_by_hand.iter().any(|labels| selects(&selector, labels));
        if selected(&pods, &selector).next().is_none() && !is_known {
            faults.add(object, "/spec", "its selector matches no pod");
        }
    }
    for workload in overlay.workloads().iter().filter(|workload| workload.serves()) {
        let constraints = list(&workload.spec()["topologySpreadConstraints"]).iter();
        let of_constraints = constraints.map(|constraint| &constraint["labelSelector"]);
        for selector in of_constraints.chain([&workload.object.0["spec"]["selector"]]) {
            if !selects(selector, &workload.labels()) {
                faults.add(workload.object, selector, "it does not match its own pods");
            }
        }
    }
}
