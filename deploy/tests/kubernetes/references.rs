//! Whatever an object names is there.

use std::collections::{BTreeMap, BTreeSet};

use deploy::kubernetes::{Container, Mounted, Object, Overlay, Pod, list, pairs, secrets, selects, text};
use serde_json::Value;

use crate::Fault;

/// The label of a pod that somebody starts by hand.
pub(crate) const OPERATOR: [&str; 2] = ["flashsale/admin", "true"];
/// Kinds that are referred to by these fields, wherever they stand below these kinds' `spec`.
const BY_NAME: [(&str, &str); 3] = [
    ("serviceAccountName", "ServiceAccount"),
    ("serviceName", "Service"),
    ("claimName", "PersistentVolumeClaim"),
];

/// ConfigMaps, accounts, claims, Services and Gateways are of the overlay; Secrets are those that people are told to make.
pub(crate) fn references(overlay: &Overlay) -> Vec<Fault> {
    let secrets = secrets().expect("a table of Secrets");
    let mut faults = Vec::new();
    for object in &overlay.objects {
        each_field(&object.0["spec"], "/spec", &mut |at, name, value| {
            if let Some(why) = missing(overlay, &secrets, name, value) {
                faults.push(Fault::of(object, at, why));
            }
        });
    }
    faults.extend(overlay.containers().iter().filter_map(without_volume));
    faults
}

/// Calls with every field below: where it is, its name, and its value.
fn each_field(value: &Value, at: &str, look: &mut impl FnMut(&str, &str, &Value)) {
    for (name, value) in pairs(value) {
        let at = format!("{at}/{name}");
        look(&at, name, value);
        each_field(value, &at, look);
    }
    for (i, value) in list(value).iter().enumerate() {
        each_field(value, &format!("{at}/{i}"), look);
    }
}

fn missing(
    overlay: &Overlay,
    secrets: &BTreeMap<String, BTreeSet<String>>,
    field: &str,
    value: &Value,
) -> Option<String> {
    let named = |kind: &str, name: &str| {
        overlay.find(kind, name).is_none().then(|| format!("there is no {kind} {name}"))
    };
    let secret = |name: &str, keys: Vec<&str>| match secrets.get(name) {
        None => Some(format!("nobody is told to make the Secret {name}")),
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
        // Of an Ingress; a volume's was looked at with its keys.
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
    let lost = mounts.map(|mount| &mount["name"]).find(|name| !known.contains(name))?;
    let field = format!("{}/volumeMounts", container.at);
    Some(Fault::of(container.workload.object, field, format!("there is no volume {lost}")))
}

/// Each path that a program is given leads to something it is given too: images of ours have nothing but a program.
pub(crate) fn paths(overlay: &Overlay) -> Vec<Fault> {
    let secrets = secrets().expect("a table of Secrets");
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        let mounts = container.mounts(overlay);
        for path in paths_of(container, overlay) {
            if !mounts.iter().any(|(folder, mounted)| is_there(&path, folder, mounted, &secrets)) {
                let why = format!("{path} leads to nothing");
                faults.push(Fault::of(container.workload.object, container.at.clone(), why));
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

fn is_there(
    path: &str,
    folder: &str,
    mounted: &Mounted,
    secrets: &BTreeMap<String, BTreeSet<String>>,
) -> bool {
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

/// Pods that a selector of this object means.
fn selected<'a>(pods: &'a [Pod<'a>], selector: &Value) -> Vec<&'a Pod<'a>> {
    pods.iter().filter(|pod| selects(selector, &pod.labels)).collect()
}

/// A Service's selector is the older kind: labels, and nothing else.
fn of_service(service: &Object) -> Value {
    serde_json::json!({"matchLabels": service.0["spec"]["selector"]})
}

/// A port that is called by its name, or by a Service's, is there.
pub(crate) fn named_ports(overlay: &Overlay) -> Vec<Fault> {
    let pods = overlay.pods();
    let mut faults = Vec::new();
    let mut ask = |object: &Object, field: String, pods: &[&Pod<'_>], port: &Value| {
        if let Some(pod) = pods.iter().find(|pod| !pod_has(overlay, pod, port)) {
            let why = format!("{} has no port {port}", pod.workload.object.title());
            faults.push(Fault::of(object, field, why));
        }
    };
    for service in overlay.of_kind("Service") {
        for (i, port) in list(&service.0["spec"]["ports"]).iter().enumerate() {
            let target = if port["targetPort"].is_null() { &port["port"] } else { &port["targetPort"] };
            ask(service, format!("/spec/ports/{i}"), &selected(&pods, &of_service(service)), target);
        }
    }
    for policy in overlay.of_kind("NetworkPolicy") {
        for (i, rule) in list(&policy.0["spec"]["ingress"]).iter().enumerate() {
            for port in list(&rule["ports"]) {
                let pods = selected(&pods, &policy.0["spec"]["podSelector"]);
                ask(policy, format!("/spec/ingress/{i}/ports"), &pods, &port["port"]);
            }
        }
    }
    for monitor in overlay.of_kind("PodMonitor") {
        for endpoint in list(&monitor.0["spec"]["podMetricsEndpoints"]) {
            let pods = selected(&pods, &monitor.0["spec"]["selector"]);
            ask(monitor, "/spec/podMetricsEndpoints".to_owned(), &pods, &endpoint["port"]);
        }
    }
    for container in overlay.containers() {
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            for way in ["httpGet", "tcpSocket"] {
                let port = &container.value[probe][way]["port"];
                if !port.is_null() && !has(&container, port) {
                    let field = format!("{}/{probe}/{way}/port", container.at);
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
    own.any(|container| has(container, port))
}

fn has(container: &Container<'_>, port: &Value) -> bool {
    let ports = container.ports();
    ports.contains_key(text(port)) || ports.values().any(|number| port.as_u64() == Some(*number))
}

/// Where ways in lead to.
fn backends(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for object in overlay.of_kind("Ingress").chain(overlay.of_kind("HTTPRoute")) {
        each_field(&object.0["spec"], "/spec", &mut |at, name, value| {
            let is_there = match name {
                "service" => {
                    let port = &value["port"];
                    leads_somewhere(
                        overlay,
                        &value["name"],
                        if port["name"].is_null() { &port["number"] } else { &port["name"] },
                    )
                }
                "backendRefs" => list(value)
                    .iter()
                    .all(|backend| leads_somewhere(overlay, &backend["name"], &backend["port"])),
                _ => true,
            };
            if !is_there {
                faults.push(Fault::of(object, at, "it leads to no port of a Service"));
            }
        });
    }
    faults
}

fn leads_somewhere(overlay: &Overlay, service: &Value, port: &Value) -> bool {
    let service = overlay.find("Service", text(service));
    let ports = service.map_or(&[][..], |service| list(&service.0["spec"]["ports"]));
    ports.iter().any(|it| it["name"] == *port || it["port"] == *port)
}

/// Every selector means some pods; an operator's is no workload's.
pub(crate) fn selectors(overlay: &Overlay) -> Vec<Fault> {
    let pods = overlay.pods();
    let operator = BTreeMap::from([OPERATOR.map(str::to_owned).into()]);
    let mut faults = Vec::new();
    let mut ask = |object: &Object, field: String, selector: &Value| {
        if selected(&pods, selector).is_empty() && !selects(selector, &operator) {
            faults.push(Fault::of(object, field, "it means no pod"));
        }
    };
    for service in overlay.of_kind("Service") {
        ask(service, "/spec/selector".to_owned(), &of_service(service));
    }
    for (kind, field) in
        [("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector"), ("PodMonitor", "selector")]
    {
        for object in overlay.of_kind(kind) {
            ask(object, format!("/spec/{field}"), &object.0["spec"][field]);
        }
    }
    for workload in overlay.workloads() {
        let mut own = vec![(workload.object.0["spec"]["selector"].clone(), "/spec/selector".to_owned())];
        let at = format!("{}/spec/topologySpreadConstraints", workload.template_at);
        let constraints = list(&workload.spec()["topologySpreadConstraints"]).iter();
        own.extend(constraints.map(|it| (it["labelSelector"].clone(), at.clone())));
        let is_lost =
            |(selector, _): &&(Value, String)| workload.serves() && !selects(selector, &workload.labels());
        let lost = own.iter().filter(is_lost);
        faults.extend(lost.map(|(_, at)| Fault::of(workload.object, at, "it does not mean its own pods")));
    }
    faults
}
