//! What a pod may do to others, and what they may do to it.

use deploy::kubernetes::{Container, Overlay, list, text};
use serde_json::{Value, json};

use crate::Fault;

/// What has no namespace.
const CLUSTER_WIDE: [&str; 1] = ["Namespace"];

/// What a container lacks, field by field.
fn of_containers(
    overlay: &Overlay,
    lacks: impl Fn(&Container<'_>) -> Vec<(&'static str, &'static str)>,
) -> Vec<Fault> {
    let faults = |container: Container<'_>| {
        let found = lacks(&container).into_iter();
        let fault =
            |(field, why)| Fault::of(container.workload.object, format!("{}{field}", container.at), why);
        found.map(fault).collect::<Vec<_>>()
    };
    overlay.containers().into_iter().flat_map(faults).collect()
}

/// The entries whose field is not what it has to be.
fn other_than<'a>(value: &Value, wanted: &[(&'a str, Value, &'static str)]) -> Vec<(&'a str, &'static str)> {
    let differs = |(field, wanted, _): &&(&str, Value, &str)| value.pointer(field) != Some(wanted);
    wanted.iter().filter(differs).map(|(field, _, why)| (*field, *why)).collect()
}

/// Whoever serves is asked whether it has started, whether it lives, and whether it can be sent something.
pub(crate) fn probes(overlay: &Overlay) -> Vec<Fault> {
    of_containers(overlay, |container| {
        let has = |probe: &str| container.value[probe].is_object();
        let wanted = ["startupProbe", "livenessProbe", "readinessProbe"].into_iter();
        let missing = wanted.filter(|probe| container.workload.serves() && !has(probe));
        missing.map(|probe| (probe, "nobody asks it")).collect()
    })
}

/// The scheduler knows what it needs, and it takes no host down.
pub(crate) fn resources(overlay: &Overlay) -> Vec<Fault> {
    of_containers(overlay, |container| {
        let needs = ["/resources/requests/cpu", "/resources/requests/memory", "/resources/limits/memory"];
        let missing = needs.into_iter().filter(|field| container.value.pointer(field).is_none());
        missing.map(|field| (field, "there is none")).collect()
    })
}

/// All that the level `restricted` of Pod Security asks, but for the user; and that the namespace asks for that level.
pub(crate) fn restricted(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = of_containers(overlay, |container| {
        let wanted = [
            ("/securityContext/allowPrivilegeEscalation", json!(false), "it could get more rights"),
            ("/securityContext/capabilities", json!({"drop": ["ALL"]}), "it keeps rights of root"),
        ];
        let mut lacks = other_than(container.value, &wanted);
        if container.value["securityContext"]["privileged"] == true {
            lacks.push(("/securityContext/privileged", "it owns its host"));
        }
        if list(&container.value["ports"]).iter().any(|port| port["hostPort"].is_u64()) {
            lacks.push(("/ports", "it takes a port of its host"));
        }
        lacks
    });
    for workload in overlay.workloads() {
        let at = |field: &str| format!("{}/spec{field}", workload.template_at);
        let wanted = [(
            "/securityContext/seccompProfile/type",
            json!("RuntimeDefault"),
            "it may call all of the kernel",
        )];
        for (field, why) in other_than(workload.spec(), &wanted) {
            faults.push(Fault::of(workload.object, at(field), why));
        }
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if workload.spec()[field] == true {
                faults.push(Fault::of(workload.object, at(&format!("/{field}")), "it sees its host"));
            }
        }
        for volume in list(&workload.spec()["volumes"]).iter().filter(|volume| volume["hostPath"].is_object())
        {
            let field = at(&format!("/volumes/{}", text(&volume["name"])));
            faults.push(Fault::of(workload.object, field, "it sees files of its host"));
        }
    }
    let enforced = (
        "/metadata/labels/pod-security.kubernetes.io~1enforce",
        json!("restricted"),
        "anything may run in it",
    );
    for namespace in overlay.of_kind("Namespace") {
        for (field, why) in other_than(&namespace.0, std::slice::from_ref(&enforced)) {
            faults.push(Fault::of(namespace, field, why));
        }
    }
    faults
}

/// The user is a number: of a name in an image nobody could tell whether it is root.
pub(crate) fn non_root(overlay: &Overlay) -> Vec<Fault> {
    let of_workload = |workload: &deploy::kubernetes::Workload<'_>| {
        let context = &workload.spec()["securityContext"];
        let field = format!("{}/spec/securityContext", workload.template_at);
        let is_somebody =
            ["runAsUser", "runAsGroup"].iter().all(|id| context[id].as_u64().is_some_and(|id| id > 0));
        let is_so = context["runAsNonRoot"] == true && is_somebody;
        (!is_so).then(|| Fault::of(workload.object, field, "it may be root"))
    };
    let mut faults: Vec<Fault> = overlay.workloads().iter().filter_map(of_workload).collect();
    faults.extend(of_containers(overlay, |container| {
        let own = ["runAsUser", "runAsGroup", "runAsNonRoot"];
        let differs = own.iter().any(|field| !container.value["securityContext"][field].is_null());
        if differs { vec![("/securityContext", "it is somebody else than its pod")] } else { Vec::new() }
    }));
    faults
}

/// Nothing of its image changes, nor of what it is given.
pub(crate) fn read_only(overlay: &Overlay) -> Vec<Fault> {
    of_containers(overlay, |container| {
        let wanted = [("/securityContext/readOnlyRootFilesystem", json!(true), "it could change its image")];
        let mut lacks = other_than(container.value, &wanted);
        let volumes = list(&container.workload.spec()["volumes"]);
        let is_given = |mount: &Value| {
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
            volume.is_some_and(|volume| volume["configMap"].is_object() || volume["secret"].is_object())
        };
        let mounts = list(&container.value["volumeMounts"]).iter();
        if mounts.filter(|mount| is_given(mount)).any(|mount| mount["readOnly"] != true) {
            lacks.push(("/volumeMounts", "it could write what it is given"));
        }
        lacks
    })
}

/// Nobody here speaks to Kubernetes, and nobody shares the account of whoever does.
pub(crate) fn tokens(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in overlay.workloads() {
        let at = |field: &str| format!("{}/spec/{field}", workload.template_at);
        if workload.spec()["automountServiceAccountToken"] != false {
            faults.push(Fault::of(workload.object, at("automountServiceAccountToken"), "it gets a token"));
        }
        if matches!(text(&workload.spec()["serviceAccountName"]), "" | "default") {
            faults.push(Fault::of(workload.object, at("serviceAccountName"), "it has everybody's account"));
        }
    }
    for account in overlay.of_kind("ServiceAccount") {
        if account.0["automountServiceAccountToken"] != false {
            faults.push(Fault::of(account, "/automountServiceAccountToken", "its pods get a token"));
        }
    }
    faults
}

/// An image is the same one tomorrow.
pub(crate) fn images(overlay: &Overlay) -> Vec<Fault> {
    of_containers(overlay, |container| {
        let image = text(&container.value["image"]);
        let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag.trim_start_matches('v'));
        let is_version =
            tag.split('.').count() == 3 && tag.split('.').all(|part| part.parse::<u16>().is_ok());
        if is_version { Vec::new() } else { vec![("/image", "its tag is not one version")] }
    })
}

/// Nothing ends up in `default`.
pub(crate) fn namespace(overlay: &Overlay) -> Vec<Fault> {
    let names: Vec<&str> = overlay.of_kind("Namespace").map(|namespace| namespace.name()).collect();
    let objects = overlay.objects.iter().filter(|object| !CLUSTER_WIDE.contains(&object.kind()));
    let lost = objects.filter(|object| names != [text(&object.0["metadata"]["namespace"])]);
    lost.map(|object| Fault::of(object, "/metadata/namespace", "it is not the overlay's own")).collect()
}
