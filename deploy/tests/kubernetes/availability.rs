//! Availability while a host or zone is down, or a pod is replaced.

use serde_json::Value;

use crate::Faults;
use crate::overlay::{Overlay, list};
use crate::selector::selects;
use crate::workload::Workload;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// The overlay for one host and no zones.
const ONE_HOST_OVERLAY: &str = "local";
/// The overlay for hosts in several zones.
const ZONED_OVERLAY: &str = "prod";

/// Returns the workloads with more than one pod.
fn replicated(overlay: &Overlay) -> impl Iterator<Item = Workload<'_>> {
    let several = |workload: &Workload<'_>| workload.serves() && overlay.replicas(workload) > 1;
    overlay.workloads().into_iter().filter(several)
}

fn workloads_of_kind<'a>(overlay: &'a Overlay, kind: &str) -> impl Iterator<Item = Workload<'a>> {
    overlay.workloads().into_iter().filter(move |workload| workload.object.kind() == kind)
}

/// Draining a host leaves all pods of a workload but one, and is not blocked forever.
pub(crate) fn budgets(overlay: &Overlay, faults: &mut Faults) {
    for workload in replicated(overlay) {
        let labels = workload.labels();
        let budgets = overlay.of_kind("PodDisruptionBudget").map(|budget| &budget.0["spec"]);
        let budgets: Vec<_> = budgets.filter(|budget| selects(&budget["selector"], &labels)).collect();
        // With two budgets for one pod, nothing is evicted at all.
        if budgets.len() != 1 || budgets[0]["maxUnavailable"] != 1 {
            let reason = "it needs exactly one budget, with maxUnavailable 1";
            faults.add(workload.object, "/spec/replicas", reason);
        }
    }
}

/// A new pod is ready, and has been for a moment, before an old one stops.
pub(crate) fn rolling(overlay: &Overlay, faults: &mut Faults) {
    for workload in workloads_of_kind(overlay, "Deployment") {
        let strategy = &workload.object.0["spec"]["strategy"];
        let update = &strategy["rollingUpdate"];
        let is_safe = strategy["type"] == "RollingUpdate"
            && update["maxUnavailable"] == 0
            && update["maxSurge"].as_u64().is_some_and(|surge| surge > 0);
        if !is_safe {
            faults.add(workload.object, "/spec/strategy", "an old pod stops before a new one is ready");
        }
    }
    for workload in workloads_of_kind(overlay, "StatefulSet") {
        if workload.object.0["spec"]["updateStrategy"]["type"] != "RollingUpdate" {
            faults.add(workload.object, "/spec/updateStrategy", "it is not updated automatically");
        }
    }
}

/// The pods of a workload are on several hosts and in several zones.
pub(crate) fn spread(overlay: &Overlay, faults: &mut Faults) {
    for workload in replicated(overlay) {
        let constraints = list(&workload.spec()["topologySpreadConstraints"]);
        let constraint = |key| constraints.iter().find(|constraint| constraint["topologyKey"] == key);
        let mut fault = |reason| faults.add_in_pod(&workload, "/topologySpreadConstraints", reason);
        for key in [HOST, ZONE].into_iter().filter(|key| constraint(*key).is_none()) {
            fault(format!("all pods may be in one {key}"));
        }
        // In other overlays a preference is enough, because there may be only one zone.
        let is_preference = constraint(ZONE).is_some_and(|it| it["whenUnsatisfiable"] != "DoNotSchedule");
        if overlay.name.starts_with(ZONED_OVERLAY) && is_preference {
            fault("all pods may be in one zone".to_owned());
        }
    }
}

/// The two servers of a pair are never on one host. In the overlay for a laptop a preference is enough.
pub(crate) fn separate_hosts(overlay: &Overlay, faults: &mut Faults) {
    for workload in workloads_of_kind(overlay, "StatefulSet") {
        let affinity = &workload.spec()["affinity"]["podAntiAffinity"];
        let keeps_apart =
            |term: &Value| term["topologyKey"] == HOST && selects(&term["labelSelector"], &workload.labels());
        let is_rule =
            list(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]).iter().any(keeps_apart);
        let mut preferences = list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
        let is_preference = preferences.any(|preference| keeps_apart(&preference["podAffinityTerm"]));
        if !(is_rule || is_preference && overlay.name == ONE_HOST_OVERLAY) {
            faults.add_in_pod(&workload, "/affinity", "the failure of one host may take both copies");
        }
    }
}
