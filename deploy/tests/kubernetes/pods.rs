//! Security and resources of pods.

use serde_json::{Value, json};

use crate::overlay::{Overlay, list, text};
use crate::{Faults, PROBES};

/// Kinds without a namespace.
const CLUSTER_WIDE: [&str; 1] = ["Namespace"];

/// Every service has a startup, a liveness and a readiness probe.
pub(crate) fn probes(overlay: &Overlay, faults: &mut Faults) {
    for container in overlay.containers().iter().filter(|container| container.workload.serves()) {
        for probe in PROBES.into_iter().filter(|probe| !container.value[probe].is_object()) {
            faults.add_in_container(container, probe, "the probe is missing");
        }
    }
}

/// Requests for the scheduler, and a memory limit that protects the host.
pub(crate) fn resources(overlay: &Overlay, faults: &mut Faults) {
    for container in &overlay.containers() {
        for field in ["/resources/requests/cpu", "/resources/requests/memory", "/resources/limits/memory"] {
            if container.value.pointer(field).is_none() {
                faults.add_in_container(container, field, "it is missing");
            }
        }
    }
}

/// All requirements of Pod Security level `restricted` except for the user, and a namespace that enforces the level.
pub(crate) fn restricted(overlay: &Overlay, faults: &mut Faults) {
    for container in &overlay.containers() {
        let context = &container.value["securityContext"];
        let mut check = |is_met: bool, field, reason| {
            if !is_met {
                faults.add_in_container(container, field, reason);
            }
        };
        check(context["allowPrivilegeEscalation"] == false, "/securityContext", "it could gain privileges");
        check(
            context["capabilities"] == json!({"drop": ["ALL"]}),
            "/securityContext",
            "it keeps capabilities",
        );
        check(context["privileged"] != true, "/securityContext", "it is privileged");
        let uses_host_port = list(&container.value["ports"]).iter().any(|port| port["hostPort"].is_u64());
        check(!uses_host_port, "/ports", "it uses a port of its host");
    }
    for workload in &overlay.workloads() {
        let spec = workload.spec();
        if spec["securityContext"]["seccompProfile"]["type"] != "RuntimeDefault" {
            faults.add_in_pod(workload, "/securityContext", "its system calls are not restricted");
        }
        for field in ["/hostNetwork", "/hostPID", "/hostIPC"] {
            if spec.pointer(field) == Some(&json!(true)) {
                faults.add_in_pod(workload, field, "it shares a namespace with its host");
            }
        }
        if list(&spec["volumes"]).iter().any(|volume| volume["hostPath"].is_object()) {
            faults.add_in_pod(workload, "/volumes", "it mounts files of its host");
        }
    }
    for namespace in overlay.of_kind("Namespace") {
        if namespace.0["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] != "restricted" {
            faults.add(namespace, "/metadata/labels", "it does not enforce the level restricted");
        }
    }
}

/// The user is a number, because Kubernetes cannot check whether a name in an image is root.
pub(crate) fn non_root(overlay: &Overlay, faults: &mut Faults) {
    for workload in &overlay.workloads() {
        let context = &workload.spec()["securityContext"];
        let is_id = |id: &str| context[id].as_u64().is_some_and(|id| id > 0);
        if context["runAsNonRoot"] != true || !is_id("runAsUser") || !is_id("runAsGroup") {
            faults.add_in_pod(workload, "/securityContext", "it may run as root");
        }
    }
    for container in &overlay.containers() {
        let context = &container.value["securityContext"];
        if ["runAsUser", "runAsGroup", "runAsNonRoot"].iter().any(|field| !context[field].is_null()) {
            faults.add_in_container(container, "securityContext", "it overrides the user of its pod");
        }
    }
}

/// The image's files and the mounted files are read-only.
pub(crate) fn read_only(overlay: &Overlay, faults: &mut Faults) {
    for container in &overlay.containers() {
        if container.value["securityContext"]["readOnlyRootFilesystem"] != true {
            faults.add_in_container(container, "securityContext", "its root filesystem is writable");
        }
        let is_writable = |(mount, volume): (&Value, &Value)| {
            (volume["configMap"].is_object() || volume["secret"].is_object()) && mount["readOnly"] != true
        };
        if container.volumes().any(is_writable) {
            faults.add_in_container(container, "volumeMounts", "a mounted file is writable");
        }
    }
}

/// No pod accesses the Kubernetes API, and no pod uses the default service account.
pub(crate) fn tokens(overlay: &Overlay, faults: &mut Faults) {
    let field = "/automountServiceAccountToken";
    for workload in &overlay.workloads() {
        if workload.spec().pointer(field) != Some(&json!(false)) {
            faults.add_in_pod(workload, field, "it gets an API token");
        }
        if matches!(text(&workload.spec()["serviceAccountName"]), "" | "default") {
            faults.add_in_pod(workload, "/serviceAccountName", "it uses the default account");
        }
    }
    for account in overlay.of_kind("ServiceAccount") {
        if account.0.pointer(field) != Some(&json!(false)) {
            faults.add(account, field, "its pods get an API token");
        }
    }
}

/// An image tag is an exact version.
pub(crate) fn images(overlay: &Overlay, faults: &mut Faults) {
    for container in &overlay.containers() {
        if !deploy::has_exact_version(text(&container.value["image"])) {
            faults.add_in_container(container, "image", "its tag is not an exact version");
        }
    }
}

/// No object is created in the namespace `default`.
pub(crate) fn namespace(overlay: &Overlay, faults: &mut Faults) {
    let names: Vec<&str> = overlay.of_kind("Namespace").map(|namespace| namespace.name()).collect();
    for object in overlay.objects.iter().filter(|object| !CLUSTER_WIDE.contains(&object.kind())) {
        if names != [text(&object.0["metadata"]["namespace"])] {
            faults.add(object, "/metadata/namespace", "it is not the overlay's namespace");
        }
    }
}
