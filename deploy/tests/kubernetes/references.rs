//! Every object that another object refers to exists.

use std::collections::{BTreeMap, BTreeSet};

use deploy::kubernetes::{Container, Mounted, Object, Overlay, Pod, list, pairs, secrets, selects, text};
use serde_json::Value;

use crate::Fault;

/// The label of a pod that an operator starts by hand.
pub(crate) const OPERATOR: [&str; 2] = ["flashsale/admin", "true"];
/// Fields anywhere in a `spec` that refer to an object of this kind by name.
const BY_NAME: [(&str, &str); 3] = [
    ("serviceAccountName", "ServiceAccount"),
    ("serviceName", "Service"),
    ("claimName", "PersistentVolumeClaim"),
];

/// ConfigMaps, accounts, claims, Services and Gateways are in the overlay. Secrets are in the table of the README.
pub(crate) fn references(overlay: &Overlay) -> Vec<Fault> {
    let secrets = secrets().expect("a table of Secrets");
    let mut faults = Vec::new();
    for object in &overlay.objects {
        each_field(&object.0["spec"], "/spec", &mut |at, name, value| {
            if let Some(reason) = missing(overlay, &secrets, name, value) {
                faults.push(Fault::of(object, at, reason));
            }
        });
    }
    faults.extend(overlay.containers().iter().filter_map(without_volume));
    faults
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

fn missing(
    overlay: &Overlay,
    secrets: &BTreeMap<String, BTreeSet<String>>,
    field: &str,
    value: &Value,
) -> Option<String> {
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
            let listeners = gateway.map_or(&[][..], |gateway| list(&gateway.0["spec"]["listeners"]));
            let has_it = listeners.iter().any(|listener| listener["name"] == parent["sectionName"]);
            (!has_it).then(|| "no Gateway has that listener".to_owned())
        }),
        _ => None,
    }
}

fn without_volume(container: &Container<'_>) -> Option<Fault> {
    let volumes = list(&container.workload.spec()["volumes"]).iter().map(|volume| &volume["name"]);
    let templates = list(&container.workload.object.0["spec"]["volumeClaimTemplates"]).iter();
    let known: Vec<&Value> = volumes.chain(templates.map(|claim| &claim["metadata"]["name"])).collect();
    let mounts = list(&container.value["volumeMounts"]).iter();
    let unmatched = mounts.map(|mount| &mount["name"]).find(|name| !known.contains(name))?;
    let field = format!("{}/volumeMounts", container.pointer);
    Some(Fault::of(container.workload.object, field, format!("it has no volume {unmatched}")))
}

/// Each path in a program's settings or command is mounted. The project's images contain nothing but the program.
pub(crate) fn paths(overlay: &Overlay) -> Vec<Fault> {
    let secrets = secrets().expect("a table of Secrets");
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        let mounts = container.mounts(overlay);
        for path in paths_of(container, overlay) {
            if !mounts.iter().any(|(folder, mounted)| exists(&path, folder, mounted, &secrets)) {
                let reason = format!("{path} does not exist");
                faults.push(Fault::of(container.workload.object, container.pointer.clone(), reason));
            }
        }
    }
    faults
}

fn paths_of(container: &Container<'_>, overlay: &Overlay) -> BTreeSet<String> {
    let variables = overlay.environment(container).into_values().flatten();
    let hooks = ["startupProbe", "livenessProbe", "readinessProbe"]
        .map(|probe| &container.value[probe]["exec"]["command"]);
    let commands = [&container.value["command"], &container.value["args"]]
        .into_iter()
        .chain(hooks)
        .chain([&container.value["lifecycle"]["preStop"]["exec"]["command"]]);
    let words = commands.flat_map(list).map(|word| text(word).to_owned());
    variables.chain(words).filter(|word| word.starts_with('/')).collect()
}

fn exists(path: &str, folder: &str, mounted: &Mounted, secrets: &BTreeMap<String, BTreeSet<String>>) -> bool {
    if path == folder {
        return true;
    }
    let Some(name) = path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) else { return false };
    match mounted {
        Mounted::Configuration(files) => files.contains(name),
        Mounted::Secret(secret, items) if items.is_empty() => {
            secrets.get(secret).is_some_and(|keys| keys.contains(name))
        }
        Mounted::Secret(_, items) => items.iter().any(|(_, path)| path == name),
        Mounted::Written => true,
    }
}

/// Returns the pods that a selector matches.
fn selected<'a>(pods: &'a [Pod<'a>], selector: &Value) -> Vec<&'a Pod<'a>> {
    pods.iter().filter(|pod| selects(selector, &pod.labels)).collect()
}

/// Converts the selector of a Service, which is a plain map of labels.
fn of_service(service: &Object) -> Value {
    serde_json::json!({"matchLabels": service.0["spec"]["selector"]})
}

/// Every port that is referred to exists, in pods and in Services.
pub(crate) fn named_ports(overlay: &Overlay) -> Vec<Fault> {
    let pods = overlay.pods();
    let mut faults = Vec::new();
    let mut check = |object: &Object, field: String, pods: &[&Pod<'_>], port: &Value| {
        if let Some(pod) = pods.iter().find(|pod| !pod_has(overlay, pod, port)) {
            let reason = format!("{} has no port {port}", pod.workload.object.title());
            faults.push(Fault::of(object, field, reason));
        }
    };
    for service in overlay.of_kind("Service") {
        for (i, port) in list(&service.0["spec"]["ports"]).iter().enumerate() {
            let target = if port["targetPort"].is_null() { &port["port"] } else { &port["targetPort"] };
            check(service, format!("/spec/ports/{i}"), &selected(&pods, &of_service(service)), target);
        }
    }
    for policy in overlay.of_kind("NetworkPolicy") {
        for (i, rule) in list(&policy.0["spec"]["ingress"]).iter().enumerate() {
            for port in list(&rule["ports"]) {
                let pods = selected(&pods, &policy.0["spec"]["podSelector"]);
                check(policy, format!("/spec/ingress/{i}/ports"), &pods, &port["port"]);
            }
        }
    }
    for monitor in overlay.of_kind("PodMonitor") {
        for endpoint in list(&monitor.0["spec"]["podMetricsEndpoints"]) {
            let pods = selected(&pods, &monitor.0["spec"]["selector"]);
            check(monitor, "/spec/podMetricsEndpoints".to_owned(), &pods, &endpoint["port"]);
        }
    }
    for container in overlay.containers() {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            for handler in ["httpGet", "tcpSocket"] {
                let port = &container.value[probe][handler]["port"];
                if !port.is_null() && !has_port(&container, port) {
                    let field = format!("{}/{probe}/{handler}/port", container.pointer);
                    faults.push(Fault::of(container.workload.object, field, "it has no such port"));
                }
            }
        }
    }
    faults.extend(backends(overlay));
    faults
}

fn pod_has(overlay: &Overlay, pod: &Pod<'_>, port: &Value) -> bool {
    let containers = overlay.containers();
    let mut own = containers.iter().filter(|container| container.workload.object == pod.workload.object);
    own.any(|container| has_port(container, port))
}

fn has_port(container: &Container<'_>, port: &Value) -> bool {
    let ports = container.ports();
    ports.contains_key(text(port)) || ports.values().any(|number| port.as_u64() == Some(*number))
}

/// Checks the backends of Ingress and HTTPRoute.
fn backends(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for object in overlay.of_kind("Ingress").chain(overlay.of_kind("HTTPRoute")) {
        each_field(&object.0["spec"], "/spec", &mut |at, name, value| {
            let exists = match name {
                "service" => {
                    let port = &value["port"];
                    backend_exists(
                        overlay,
                        &value["name"],
                        if port["name"].is_null() { &port["number"] } else { &port["name"] },
                    )
                }
                "backendRefs" => list(value)
                    .iter()
                    .all(|backend| backend_exists(overlay, &backend["name"], &backend["port"])),
                _ => true,
            };
            if !exists {
                faults.push(Fault::of(object, at, "it refers to no port of a Service"));
            }
        });
    }
    faults
}

fn backend_exists(overlay: &Overlay, service: &Value, port: &Value) -> bool {
    let service = overlay.find("Service", text(service));
    let ports = service.map_or(&[][..], |service| list(&service.0["spec"]["ports"]));
    ports.iter().any(|it| it["name"] == *port || it["port"] == *port)
}

/// Every selector matches a pod. Only the operator's label belongs to no workload.
pub(crate) fn selectors(overlay: &Overlay) -> Vec<Fault> {
    let pods = overlay.pods();
    let operator = BTreeMap::from([OPERATOR.map(str::to_owned).into()]);
    let mut faults = Vec::new();
    let mut check = |object: &Object, field: String, selector: &Value| {
        if selected(&pods, selector).is_empty() && !selects(selector, &operator) {
            faults.push(Fault::of(object, field, "it matches no pod"));
        }
    };
    for service in overlay.of_kind("Service") {
        check(service, "/spec/selector".to_owned(), &of_service(service));
    }
    for (kind, field) in
        [("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"), ("PodMonitor", "selector")]
    {
        for object in overlay.of_kind(kind) {
            check(object, format!("/spec/{field}"), &object.0["spec"][field]);
        }
    }
    for workload in overlay.workloads() {
        let mut own = vec![(workload.object.0["spec"]["selector"].clone(), "/spec/selector".to_owned())];
        let at = format!("{}/spec/topologySpreadConstraints", workload.template_pointer);
        let constraints = list(&workload.spec()["topologySpreadConstraints"]).iter();
        own.extend(constraints.map(|it| (it["labelSelector"].clone(), at.clone())));
        let is_unmatched =
            |(selector, _): &&(Value, String)| workload.serves() && !selects(selector, &workload.labels());
        let unmatched = own.iter().filter(is_unmatched);
        faults.extend(
            unmatched.map(|(_, at)| Fault::of(workload.object, at, "it does not match its own pods")),
        );
    }
    faults
}
