//! Availability while a host or zone is down, or a pod is replaced.

use deploy::kubernetes::{Overlay, Workload, list, selects};
use serde_json::Value;

use crate::Fault;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The overlay for one host and no zones.
const ONE_HOST_OVERLAY: &str = "local";
/// The overlay for hosts in several zones.
const ZONED_OVERLAY: &str = "prod";

/// Returns the workloads with more than one pod.
fn replicated(overlay: &Overlay) -> Vec<Workload<'_>> {
    let several = |workload: &Workload<'_>| workload.serves() && overlay.replicas(workload) > 1;
    overlay.workloads().into_iter().filter(several).collect()
}

/// Draining a host leaves all pods of a workload but one, and is not blocked forever.
pub(crate) fn budgets(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in replicated(overlay) {
        let labels = workload.labels();
        let mut budgets = overlay
            .of_kind("PodDisruptionBudget")
            .filter(|budget| selects(&budget.0["spec"]["selector"], &labels));
        let is_one = budgets.next().is_some_and(|budget| budget.0["spec"]["maxUnavailable"] == 1);
        // With two budgets for one pod, nothing is evicted at all.
        if !is_one || budgets.next().is_some() {
            faults.push(Fault::of(
                workload.object,
                "/spec/replicas",
                "it needs exactly one budget, with maxUnavailable 1",
            ));
        }
    }
    faults
}

/// A new pod is ready, and has been for a moment, before an old one stops.
pub(crate) fn rolling(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in overlay.workloads().iter().filter(|workload| workload.object.kind() == "Deployment") {
        let strategy = &workload.object.0["spec"]["strategy"];
        let update = &strategy["rollingUpdate"];
        let is_safe = strategy["type"] == "RollingUpdate"
            && update["maxUnavailable"] == 0
            && update["maxSurge"].as_u64().is_some_and(|surge| surge > 0);
        if !is_safe {
            faults.push(Fault::of(
                workload.object,
                "/spec/strategy",
                "an old pod stops before a new one is ready",
            ));
        }
    }
    for workload in overlay.workloads().iter().filter(|workload| workload.object.kind() == "StatefulSet") {
        if workload.object.0["spec"]["updateStrategy"]["type"] != "RollingUpdate" {
            faults.push(Fault::of(
                workload.object,
                "/spec/updateStrategy",
                "it is not updated automatically",
            ));
        }
    }
    faults
}

/// The pods of a workload are on several hosts and in several zones.
pub(crate) fn spread(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in replicated(overlay) {
        let field = format!("{}/spec/topologySpreadConstraints", workload.template_pointer);
        let constraints = list(&workload.spec()["topologySpreadConstraints"]);
        let constraint = |key| constraints.iter().find(|constraint| constraint["topologyKey"] == key);
        for key in [HOST, ZONE].into_iter().filter(|key| constraint(*key).is_none()) {
            faults.push(Fault::of(workload.object, &field, format!("all pods may be in one {key}")));
        }
        // In other overlays a preference is enough, because there may be only one zone.
        let is_preference = constraint(ZONE).is_some_and(|it| it["whenUnsatisfiable"] != "DoNotSchedule");
        if overlay.name == ZONED_OVERLAY && is_preference {
            faults.push(Fault::of(workload.object, &field, "all pods may be in one zone"));
        }
    }
    faults
}

/// The two servers of a pair are never on one host. In the overlay for a laptop a preference is enough.
pub(crate) fn separate_hosts(overlay: &Overlay) -> Vec<Fault> {
    let pairs = overlay.workloads().into_iter().filter(|workload| workload.object.kind() == "StatefulSet");
    let may_share_host = |workload: &Workload<'_>| {
        let affinity = &workload.spec()["affinity"]["podAntiAffinity"];
        let keeps_apart =
            |term: &Value| term["topologyKey"] == HOST && selects(&term["labelSelector"], &workload.labels());
        let is_rule =
            list(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]).iter().any(keeps_apart);
        let mut preferences = list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
        let is_preference = preferences.any(|preference| keeps_apart(&preference["podAffinityTerm"]));
        !(is_rule || (is_preference && overlay.name == ONE_HOST_OVERLAY))
    };
    let fault = |workload: Workload<'_>| {
        let field = format!("{}/spec/affinity", workload.template_pointer);
        Fault::of(workload.object, field, "the failure of one host may take both copies")
    };
    pairs.filter(may_share_host).map(fault).collect()
}
