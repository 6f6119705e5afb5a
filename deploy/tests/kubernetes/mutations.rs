//! Mutation tests of the policies: each breaks one field of a real overlay, and exactly one policy must report it.

use std::collections::BTreeSet;

use deploy::kubernetes::Overlay;
use serde_json::{Value, json};

use crate::{POLICIES, overlay};

/// Policy that must fail, object, field and new value. A `*` stands for the rest of an object's name. `null` removes
/// the field. An empty field name removes the object.
type Mutation = (&'static str, &'static str, &'static str, Value);

const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

fn mutations() -> Vec<Mutation> {
    let node = "Deployment/flashsale-node";
    let coordinator = "Deployment/flashsale-coordinator";
    let exporter = "Deployment/redis-exporter";
    let pair = "StatefulSet/redis-a";
    let job = "Job/redis-cluster";
    vec![
        ("probes", node, "C/startupProbe", Value::Null),
        ("probes", pair, "C/livenessProbe", Value::Null),
        ("probes", exporter, "C/readinessProbe", Value::Null),
        ("resources", node, "C/resources/limits/memory", Value::Null),
        ("resources", job, "C/resources/requests/cpu", Value::Null),
        ("resources", pair, "C/resources/requests/memory", Value::Null),
        ("restricted", node, "C/securityContext/allowPrivilegeEscalation", json!(true)),
        (
            "restricted",
            pair,
            "C/securityContext/capabilities",
            json!({"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
        ),
        ("restricted", job, "C/securityContext/capabilities/drop", json!(["NET_RAW"])),
        ("restricted", exporter, "C/securityContext/privileged", json!(true)),
        ("restricted", exporter, "C/ports/0/hostPort", json!(9121)),
        ("restricted", coordinator, "P/securityContext/seccompProfile", Value::Null),
        ("restricted", coordinator, "P/hostNetwork", json!(true)),
        ("restricted", node, "P/volumes/-", json!({"name": "host", "hostPath": {"path": "/"}})),
        (
            "restricted",
            "Namespace/flashsale",
            "/metadata/labels/pod-security.kubernetes.io~1enforce",
            Value::Null,
        ),
        ("non-root", node, "P/securityContext/runAsUser", json!(0)),
        ("non-root", job, "P/securityContext/runAsNonRoot", Value::Null),
        ("non-root", pair, "P/securityContext/runAsGroup", Value::Null),
        ("non-root", coordinator, "C/securityContext/runAsUser", json!(0)),
        ("read-only", node, "C/securityContext/readOnlyRootFilesystem", json!(false)),
        ("read-only", pair, "C/volumeMounts/1/readOnly", Value::Null),
        ("tokens", node, "P/automountServiceAccountToken", Value::Null),
        ("tokens", job, "P/serviceAccountName", Value::Null),
        ("tokens", "ServiceAccount/redis", "/automountServiceAccountToken", json!(true)),
        ("images", node, "C/image", json!("ghcr.io/example/flashsale-node:latest")),
        ("images", coordinator, "C/image", json!("ghcr.io/example/flashsale-coordinator")),
        ("images", pair, "C/image", json!("valkey/valkey:9")),
        ("namespace", "Service/flashsale-node", "/metadata/namespace", Value::Null),
        ("namespace", pair, "/metadata/namespace", json!("default")),
        ("budgets", "PodDisruptionBudget/redis-b", "", Value::Null),
        ("budgets", "PodDisruptionBudget/flashsale-node", "/spec/maxUnavailable", json!(2)),
        ("budgets", "PodDisruptionBudget/redis-b", "/spec/selector/matchLabels/flashsale~1pair", Value::Null),
        ("rolling", node, "/spec/strategy/rollingUpdate/maxUnavailable", json!(1)),
        ("rolling", coordinator, "/spec/strategy/type", json!("Recreate")),
        ("rolling", pair, "/spec/updateStrategy/type", json!("OnDelete")),
        ("spread", node, "P/topologySpreadConstraints", Value::Null),
        ("spread", pair, "P/topologySpreadConstraints/0/whenUnsatisfiable", json!("ScheduleAnyway")),
        ("separate hosts", pair, "P/affinity", Value::Null),
        (
            "separate hosts",
            pair,
            "P/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/topologyKey",
            json!("topology.kubernetes.io/zone"),
        ),
        (
            "separate hosts",
            pair,
            "P/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution/0/labelSelector/matchLabels/flashsale~1pair",
            json!("b"),
        ),
        ("grace", node, "P/terminationGracePeriodSeconds", json!(16)),
        ("grace", "ConfigMap/flashsale-node-*", "/data/DRAIN_TIMEOUT", json!("1m")),
        ("grace", coordinator, "C/lifecycle/preStop/sleep/seconds", json!(30)),
        ("grace", pair, "P/terminationGracePeriodSeconds", json!(20)),
        ("grace", pair, "C/lifecycle/preStop/exec/command", json!(["sh", "/conf/ready.sh"])),
        ("settings", "ConfigMap/flashsale-node-*", "/data/DRAIN_DELAI", json!("5s")),
        ("settings", coordinator, "C/env/-", json!({"name": "OPS_PORT", "value": "9001"})),
        ("program ports", "ConfigMap/flashsale-node-*", "/data/OPS_PORT", json!("9002")),
        ("program ports", "ConfigMap/flashsale-coordinator-*", "/data/HOST", Value::Null),
        ("program ports", pair, "C/env/3/value", json!("6380")),
        ("probe paths", node, "C/readinessProbe/httpGet/path", json!("/ready")),
        ("probe paths", node, "C/livenessProbe/httpGet/path", json!("/readyz")),
        ("probe paths", node, "C/startupProbe/httpGet/port", json!("http")),
        ("references", "ServiceAccount/redis", "", Value::Null),
        ("references", node, "C/envFrom/0/configMapRef/name", json!("redis-url")),
        ("references", node, "P/volumes/2/secret/secretName", json!("flashsale-csfr")),
        ("references", coordinator, "P/volumes/2/secret/items/0/key", json!("tokens")),
        ("references", pair, "/spec/serviceName", json!("redis")),
        ("references", exporter, "C/volumeMounts/-", json!({"name": "tmp", "mountPath": "/tmp"})),
        (
            "references",
            "HorizontalPodAutoscaler/flashsale-node",
            "/spec/scaleTargetRef/kind",
            json!("StatefulSet"),
        ),
        ("references", "HTTPRoute/flashsale", "/spec/parentRefs/0/sectionName", json!("tls")),
        ("references", "Gateway/flashsale", "/spec/listeners/1/tls/certificateRefs/0/name", json!("tls")),
        ("paths", node, "C/env/0/value", json!("/secrets/redis/passwort")),
        ("paths", pair, "C/readinessProbe/exec/command/1", json!("/conf/steady.sh")),
        ("paths", coordinator, "C/volumeMounts/1/mountPath", json!("/secrets/ca")),
        ("named ports", "Service/flashsale-node", "/spec/ports/0/targetPort", json!("https")),
        ("named ports", "PodMonitor/flashsale-node", "/spec/podMetricsEndpoints/0/port", json!("metrics")),
        ("named ports", "HTTPRoute/flashsale", "/spec/rules/1/backendRefs/0/port", json!(80)),
        ("named ports", pair, "C/livenessProbe/tcpSocket/port", json!("valkey")),
        (
            "selectors",
            "Service/flashsale-coordinator",
            "/spec/selector/app.kubernetes.io~1name",
            json!("coordinator"),
        ),
        (
            "selectors",
            "Service/redis-a-1",
            "/spec/selector/statefulset.kubernetes.io~1pod-name",
            json!("redis-a-2"),
        ),
        (
            "selectors",
            node,
            "P/topologySpreadConstraints/0/labelSelector/matchLabels/app.kubernetes.io~1name",
            json!("node"),
        ),
        ("addresses", "Service/redis-c-1", "", Value::Null),
        ("addresses", job, "C/env/0/value", json!("redis-a-0:6379,redis-a-1:6379")),
        (
            "addresses",
            "ConfigMap/redis-url-*",
            "/data/REDIS_URL",
            json!("rediss://redis-a-0.shop.svc.cluster.local:6379"),
        ),
        (
            "addresses",
            "ConfigMap/redis-url-*",
            "/data/REDIS_URL",
            json!("rediss://redis-a-0.flashsale.svc.cluster.local:6380"),
        ),
        ("network", "NetworkPolicy/default-deny", "", Value::Null),
        ("network", "NetworkPolicy/default-deny", "/spec/policyTypes", json!(["Ingress"])),
        ("network", "NetworkPolicy/default-deny", "/spec/ingress", json!([{}])),
        ("network", "NetworkPolicy/dns", "", Value::Null),
        ("network", "NetworkPolicy/flashsale-admin", "", Value::Null),
        ("network", "NetworkPolicy/dns", "/spec/egress/0/to/0/podSelector", Value::Null),
        ("network", "NetworkPolicy/redis-clients", "", Value::Null),
        ("network", "NetworkPolicy/redis-clients", "/spec/egress/0/ports", Value::Null),
        (
            "network",
            "NetworkPolicy/redis-clients",
            "/spec/egress/0/to/-",
            json!({"ipBlock": {"cidr": "0.0.0.0/0"}}),
        ),
        ("network", "NetworkPolicy/redis", "/spec/ingress/0/from/-", json!({"podSelector": {}})),
        (
            "network",
            "NetworkPolicy/redis",
            "/spec/ingress/1/ports/-",
            json!({"protocol": "TCP", "port": 16379}),
        ),
        ("network", "NetworkPolicy/redis", "/spec/egress", Value::Null),
        (
            "network",
            "NetworkPolicy/redis",
            "/spec/ingress/1/from/-",
            json!({"namespaceSelector": {"matchLabels": {"team": "x"}}}),
        ),
        (
            "network",
            "NetworkPolicy/flashsale-node",
            "/spec/ingress/0/from/-",
            json!({"namespaceSelector": {}}),
        ),
        ("network", "NetworkPolicy/flashsale-node", "/spec/ingress/0/ports/-", json!({"port": "ops"})),
        ("network", "NetworkPolicy/flashsale-coordinator", "/spec/ingress/0/from", Value::Null),
        (
            "network",
            "NetworkPolicy/flashsale-coordinator",
            "/spec/ingress/0/from/0/podSelector/matchLabels/flashsale~1admin",
            json!("yes"),
        ),
        ("network", node, "/spec/template/metadata/labels/flashsale~1redis-client", Value::Null),
        ("own user", node, "P/volumes/0/secret/items/0/key", json!("coordinator")),
        ("own user", "ConfigMap/flashsale-node-*", "/data/REDIS_USERNAME", json!("admin")),
        ("own user", job, "P/volumes/0/secret/items", Value::Null),
        ("own user", job, "C/env/1/value", json!("coordinator")),
        ("own user", exporter, "C/env/1/value", json!("default")),
        (
            "plain secrets",
            "ConfigMap/redis-url-*",
            "/data/REDIS_URL",
            json!("rediss://node:k3y@redis-a-0:6379"),
        ),
        ("plain secrets", exporter, "C/env/-", json!({"name": "BASIC_AUTH_PASSWORD", "value": "swordfish"})),
        ("plain secrets", "ConfigMap/flashsale-coordinator-*", "/data/ADMIN_TOKEN", json!("swordfish")),
        (
            "plain secrets",
            "ConfigMap/redis-url-*",
            "+",
            json!({"kind": "Secret", "metadata": {"name": "a", "namespace": "flashsale"}}),
        ),
        ("rules", "PrometheusRule/flashsale", "/spec/groups/1/rules/0/for", json!("1h")),
        ("rules", "PrometheusRule/flashsale", "", Value::Null),
        ("jobs", "PodMonitor/flashsale-node", "/spec/podMetricsEndpoints/0/relabelings", Value::Null),
        ("jobs", "PodMonitor/redis", "", Value::Null),
        ("jobs", "PodMonitor/redis", "/spec/podMetricsEndpoints/0/interval", json!("30s")),
        ("jobs", "PodMonitor/redis", "/spec/podMetricsEndpoints/0/path", json!("/metrics")),
        ("dashboards", "ConfigMap/dashboard-flashsale-sale", "", Value::Null),
        ("dashboards", "ConfigMap/dashboard-flashsale-sale", "/data/flashsale-sale.json", json!("{}")),
        (
            "dashboards",
            "ConfigMap/dashboard-flashsale-sale",
            "/metadata/labels/grafana_dashboard",
            Value::Null,
        ),
    ]
}

/// Returns the overlay with one mutation.
fn mutated((_, title, field, value): &Mutation) -> Overlay {
    let mut overlay = overlay("prod").clone();
    let matches_title = |it: &str| match title.strip_suffix('*') {
        Some(beginning) => it.starts_with(beginning),
        None => it == *title,
    };
    let found = overlay.objects.iter().position(|object| matches_title(&object.title()));
    let i = found.unwrap_or_else(|| panic!("no object {title}"));
    match *field {
        "" => {
            overlay.objects.remove(i);
        }
        "+" => overlay.objects.push(deploy::kubernetes::Object(value.clone())),
        field => change(&mut overlay.objects[i].0, field, value),
    }
    overlay
}

/// Changes a field as a JSON patch would: `-` appends an entry.
fn change(object: &mut Value, field: &str, value: &Value) {
    let field = match field.as_bytes()[0] {
        b'C' => format!("{CONTAINER}{}", &field[1..]),
        b'P' => format!("{POD}{}", &field[1..]),
        _ => field.to_owned(),
    };
    let (parent, name) = field.rsplit_once('/').expect("a path");
    let name = name.replace("~1", "/");
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no field {parent}"));
    match (parent, value) {
        (Value::Object(fields), Value::Null) => {
            assert!(fields.remove(&name).is_some(), "no field {field}");
        }
        (Value::Object(fields), value) => {
            fields.insert(name, value.clone());
        }
        (Value::Array(entries), value) if name == "-" => entries.push(value.clone()),
        (Value::Array(entries), value) => entries[name.parse::<usize>().expect("an index")] = value.clone(),
        (other, _) => panic!("{other} has no fields"),
    }
}

#[test]
fn each_mutation_fails_exactly_one_policy() {
    let mut wrong = Vec::new();
    for mutation in mutations() {
        let overlay = mutated(&mutation);
        let failed = POLICIES.iter().filter(|(_, policy)| !policy(&overlay).is_empty());
        let failing: Vec<&str> = failed.map(|(name, _)| *name).collect();
        if failing != [mutation.0] {
            wrong.push(format!("{} {}: {failing:?} failed, and not {}", mutation.1, mutation.2, mutation.0));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_policy_has_a_mutation() {
    let tested: BTreeSet<&str> = mutations().iter().map(|(policy, ..)| *policy).collect();
    let all: BTreeSet<&str> = POLICIES.iter().map(|(name, _)| *name).collect();
    assert_eq!(tested, all);
}
