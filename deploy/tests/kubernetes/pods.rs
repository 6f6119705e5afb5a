//! Security and resources of pods.

use deploy::kubernetes::{Container, Overlay, list, text};
use serde_json::{Value, json};

use crate::Fault;

/// Kinds without a namespace.
const CLUSTER_WIDE: [&str; 1] = ["Namespace"];

/// Reports the faulty fields of every container.
fn of_containers(
    overlay: &Overlay,
    find_faults: impl Fn(&Container<'_>) -> Vec<(&'static str, &'static str)>,
) -> Vec<Fault> {
    let faults = |container: Container<'_>| {
        let found = find_faults(&container).into_iter();
        let fault = |(field, reason)| {
            Fault::of(container.workload.object, format!("{}{field}", container.pointer), reason)
        };
        found.map(fault).collect::<Vec<_>>()
    };
    overlay.containers().into_iter().flat_map(faults).collect()
}

/// Returns the fields that differ from the wanted value.
fn differing<'a>(value: &Value, wanted: &[(&'a str, Value, &'static str)]) -> Vec<(&'a str, &'static str)> {
    let differs = |(field, wanted, _): &&(&str, Value, &str)| value.pointer(field) != Some(wanted);
    wanted.iter().filter(differs).map(|(field, _, reason)| (*field, *reason)).collect()
}

/// Every service has a startup, a liveness and a readiness probe.
pub(crate) fn probes(overlay: &Overlay) -> Vec<Fault> {
    of_containers(overlay, |container| {
        let has = |probe: &str| container.value[probe].is_object();
        let wanted = ["startupProbe", "livenessProbe", "readinessProbe"].into_iter();
        let missing = wanted.filter(|probe| container.workload.serves() && !has(probe));
        missing.map(|probe| (probe, "the probe is missing")).collect()
    })
}

/// Requests for the scheduler, and a memory limit that protects the host.
pub(crate) fn resources(overlay: &Overlay) -> Vec<Fault> {
    of_containers(overlay, |container| {
        let needs = ["/resources/requests/cpu", "/resources/requests/memory", "/resources/limits/memory"];
        let missing = needs.into_iter().filter(|field| container.value.pointer(field).is_none());
        missing.map(|field| (field, "it is missing")).collect()
    })
}

/// All requirements of Pod Security level `restricted` except for the user, and a namespace that enforces the level.
pub(crate) fn restricted(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = of_containers(overlay, |container| {
        let wanted = [
            ("/securityContext/allowPrivilegeEscalation", json!(false), "it could gain privileges"),
            ("/securityContext/capabilities", json!({"drop": ["ALL"]}), "it keeps capabilities"),
        ];
        let mut faults = differing(container.value, &wanted);
        if container.value["securityContext"]["privileged"] == true {
            faults.push(("/securityContext/privileged", "it is privileged"));
        }
        if list(&container.value["ports"]).iter().any(|port| port["hostPort"].is_u64()) {
            faults.push(("/ports", "it uses a port of its host"));
        }
        faults
    });
    for workload in overlay.workloads() {
        let at = |field: &str| format!("{}/spec{field}", workload.template_pointer);
        let wanted = [(
            "/securityContext/seccompProfile/type",
            json!("RuntimeDefault"),
            "its system calls are not restricted",
        )];
        for (field, reason) in differing(workload.spec(), &wanted) {
            faults.push(Fault::of(workload.object, at(field), reason));
        }
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if workload.spec()[field] == true {
                faults.push(Fault::of(
                    workload.object,
                    at(&format!("/{field}")),
                    "it shares a namespace with its host",
                ));
            }
        }
        for volume in list(&workload.spec()["volumes"]).iter().filter(|volume| volume["hostPath"].is_object())
        {
            let field = at(&format!("/volumes/{}", text(&volume["name"])));
            faults.push(Fault::of(workload.object, field, "it mounts files of its host"));
        }
    }
    let enforced = (
        "/metadata/labels/pod-security.kubernetes.io~1enforce",
        json!("restricted"),
        "it does not enforce the level restricted",
    );
    for namespace in overlay.of_kind("Namespace") {
        for (field, reason) in differing(&namespace.0, std::slice::from_ref(&enforced)) {
            faults.push(Fault::of(namespace, field, reason));
        }
    }
    faults
}

/// The user is a number, because Kubernetes cannot check whether a name in an image is root.
pub(crate) fn non_root(overlay: &Overlay) -> Vec<Fault> {
    let of_workload = |workload: &deploy::kubernetes::Workload<'_>| {
        let context = &workload.spec()["securityContext"];
        let field = format!("{}/spec/securityContext", workload.template_pointer);
        let has_ids =
            ["runAsUser", "runAsGroup"].iter().all(|id| context[id].as_u64().is_some_and(|id| id > 0));
        let is_non_root = context["runAsNonRoot"] == true && has_ids;
        (!is_non_root).then(|| Fault::of(workload.object, field, "it may run as root"))
    };
    let mut faults: Vec<Fault> = overlay.workloads().iter().filter_map(of_workload).collect();
    faults.extend(of_containers(overlay, |container| {
        let own = ["runAsUser", "runAsGroup", "runAsNonRoot"];
        let differs = own.iter().any(|field| !container.value["securityContext"][field].is_null());
        if differs { vec![("/securityContext", "it overrides the user of its pod")] } else { Vec::new() }
    }));
    faults
}

/// The image's files and the mounted files are read-only.
pub(crate) fn read_only(overlay: &Overlay) -> Vec<Fault> {
    of_containers(overlay, |container| {
        let wanted =
            [("/securityContext/readOnlyRootFilesystem", json!(true), "its root filesystem is writable")];
        let mut faults = differing(container.value, &wanted);
        let volumes = list(&container.workload.spec()["volumes"]);
        let is_mounted_config = |mount: &Value| {
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
            volume.is_some_and(|volume| volume["configMap"].is_object() || volume["secret"].is_object())
        };
        let mounts = list(&container.value["volumeMounts"]).iter();
        if mounts.filter(|mount| is_mounted_config(mount)).any(|mount| mount["readOnly"] != true) {
            faults.push(("/volumeMounts", "a mounted file is writable"));
        }
        faults
    })
}

/// No pod accesses the Kubernetes API, and no pod uses the default service account.
pub(crate) fn tokens(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in overlay.workloads() {
        let at = |field: &str| format!("{}/spec/{field}", workload.template_pointer);
        if workload.spec()["automountServiceAccountToken"] != false {
            faults.push(Fault::of(
                workload.object,
                at("automountServiceAccountToken"),
                "it gets an API token",
            ));
        }
        if matches!(text(&workload.spec()["serviceAccountName"]), "" | "default") {
            faults.push(Fault::of(workload.object, at("serviceAccountName"), "it uses the default account"));
        }
    }
    for account in overlay.of_kind("ServiceAccount") {
        if account.0["automountServiceAccountToken"] != false {
            faults.push(Fault::of(account, "/automountServiceAccountToken", "its pods get an API token"));
        }
    }
    faults
}

/// An image tag is an exact version.
pub(crate) fn images(overlay: &Overlay) -> Vec<Fault> {
    of_containers(overlay, |container| {
        let image = text(&container.value["image"]);
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag.trim_start_matches('v'));
        let is_version =
            tag.split('.').count() == 3 && tag.split('.').all(|part| part.parse::<u16>().is_ok());
        if is_version { Vec::new() } else { vec![("/image", "its tag is not an exact version")] }
    })
}

/// No object is created in the namespace `default`.
pub(crate) fn namespace(overlay: &Overlay) -> Vec<Fault> {
    let names: Vec<&str> = overlay.of_kind("Namespace").map(|namespace| namespace.name()).collect();
    let objects = overlay.objects.iter().filter(|object| !CLUSTER_WIDE.contains(&object.kind()));
    let misplaced = objects.filter(|object| names != [text(&object.0["metadata"]["namespace"])]);
    misplaced
        .map(|object| Fault::of(object, "/metadata/namespace", "it is not the overlay's namespace"))
        .collect()
}
