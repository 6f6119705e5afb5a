//! What goes on selling while a part is gone: a host, a zone, a pod that is replaced.

use deploy::kubernetes::{Overlay, Workload, list, selects};
use serde_json::Value;

use crate::Fault;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// There may be only one host, and no zone.
const LAPTOP: &str = "local";
/// Hosts lie in several zones.
const ZONED: &str = "prod";

/// Workloads of which there are several pods.
fn replicated(overlay: &Overlay) -> Vec<Workload<'_>> {
    let several = |workload: &Workload<'_>| workload.serves() && overlay.replicas(workload) > 1;
    overlay.workloads().into_iter().filter(several).collect()
}

/// Whoever empties hosts leaves all of them but one, and is not held up for ever either.
pub(crate) fn budgets(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in replicated(overlay) {
        let labels = workload.labels();
        let mut budgets = overlay
            .of_kind("PodDisruptionBudget")
            .filter(|budget| selects(&budget.0["spec"]["selector"], &labels));
        let is_one = budgets.next().is_some_and(|budget| budget.0["spec"]["maxUnavailable"] == 1);
        // With two of them for one pod nothing is evicted at all.
        if !is_one || budgets.next().is_some() {
            faults.push(Fault::of(
                workload.object,
                "/spec/replicas",
                "it has not one budget with maxUnavailable 1",
            ));
        }
    }
    faults
}

/// A new pod is there before an old one goes, and has been for a moment.
pub(crate) fn rolling(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in overlay.workloads().iter().filter(|workload| workload.object.kind() == "Deployment") {
        let strategy = &workload.object.0["spec"]["strategy"];
        let update = &strategy["rollingUpdate"];
        let is_gentle = strategy["type"] == "RollingUpdate"
            && update["maxUnavailable"] == 0
            && update["maxSurge"].as_u64().is_some_and(|surge| surge > 0);
        if !is_gentle {
            faults.push(Fault::of(
                workload.object,
                "/spec/strategy",
                "an old pod goes before a new one is there",
            ));
        }
    }
    for workload in overlay.workloads().iter().filter(|workload| workload.object.kind() == "StatefulSet") {
        if workload.object.0["spec"]["updateStrategy"]["type"] != "RollingUpdate" {
            faults.push(Fault::of(workload.object, "/spec/updateStrategy", "nobody updates it"));
        }
    }
    faults
}

/// Pods of a kind lie on several hosts and in several zones.
pub(crate) fn spread(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for workload in replicated(overlay) {
        let field = format!("{}/spec/topologySpreadConstraints", workload.template_at);
        let constraints = list(&workload.spec()["topologySpreadConstraints"]);
        let constraint = |key| constraints.iter().find(|constraint| constraint["topologyKey"] == key);
        for key in [HOST, ZONE].into_iter().filter(|key| constraint(*key).is_none()) {
            faults.push(Fault::of(workload.object, &field, format!("it may all be in one {key}")));
        }
        // Elsewhere it is a wish, since there may be one zone only.
        let is_wish = constraint(ZONE).is_some_and(|it| it["whenUnsatisfiable"] != "DoNotSchedule");
        if overlay.name == ZONED && is_wish {
            faults.push(Fault::of(workload.object, &field, "it may all be in one zone after all"));
        }
    }
    faults
}

/// The two of a pair are never on one host; on a laptop, where there are two.
pub(crate) fn apart(overlay: &Overlay) -> Vec<Fault> {
    let pairs = overlay.workloads().into_iter().filter(|workload| workload.object.kind() == "StatefulSet");
    let may_meet = |workload: &Workload<'_>| {
        let affinity = &workload.spec()["affinity"]["podAntiAffinity"];
        let keeps_apart =
            |term: &Value| term["topologyKey"] == HOST && selects(&term["labelSelector"], &workload.labels());
        let is_rule =
            list(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]).iter().any(keeps_apart);
        let mut wishes = list(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]).iter();
        let is_wish = wishes.any(|wish| keeps_apart(&wish["podAffinityTerm"]));
        !(is_rule || (is_wish && overlay.name == LAPTOP))
    };
    let fault = |workload: Workload<'_>| {
        let field = format!("{}/spec/affinity", workload.template_at);
        Fault::of(workload.object, field, "a host that dies may take both copies")
    };
    pairs.filter(may_meet).map(fault).collect()
}
