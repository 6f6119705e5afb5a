//! Pods: what they run, what they see, and what they are called.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Object, Overlay, list, pairs, text};

/// An object that makes pods.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// The object.
    pub object: &'a Object,
    /// Where its pods' template begins.
    pub template_at: &'static str,
    /// That template.
    pub template: &'a Value,
}

/// A container of a workload.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    /// Whose.
    pub workload: Workload<'a>,
    /// Where it stands in its object.
    pub at: String,
    /// Itself.
    pub value: &'a Value,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    /// What makes it.
    pub workload: Workload<'a>,
    /// Its labels, with those that Kubernetes adds.
    pub labels: BTreeMap<String, String>,
}

/// What a container sees in a folder.
#[derive(Debug)]
pub enum Mounted {
    /// These files, of ConfigMaps.
    Configuration(BTreeSet<String>),
    /// Keys of a Secret, each as a file; without any, all of the Secret's.
    Secret(String, Vec<(String, String)>),
    /// Whatever is written there.
    Written,
}

impl<'a> Workload<'a> {
    /// The object as one, if it has pods.
    pub fn of(object: &'a Object) -> Option<Self> {
        let template_at = match object.kind() {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => "/spec/template",
            "CronJob" => "/spec/jobTemplate/spec/template",
            "Pod" => "",
            _ => return None,
        };
        let template = object.0.pointer(template_at).unwrap_or(&Value::Null);
        Some(Self { object, template_at, template })
    }

    /// What its pods are.
    pub fn spec(&self) -> &'a Value {
        &self.template["spec"]
    }

    /// Whether it goes on until it is stopped.
    pub fn serves(&self) -> bool {
        !matches!(self.object.kind(), "Job" | "CronJob")
    }

    /// Its pods' labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = pairs(&self.template["metadata"]["labels"]);
        labels.map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
    }

    pub(super) fn containers(&self) -> Vec<Container<'a>> {
        let of = |field: &'static str| {
            let at = format!("{}/spec/{field}", self.template_at);
            let containers = list(&self.spec()[field]).iter().enumerate();
            containers.map(move |(i, value)| Container { workload: *self, at: format!("{at}/{i}"), value })
        };
        of("initContainers").chain(of("containers")).collect()
    }

    pub(super) fn pods(self, count: u64) -> impl Iterator<Item = Pod<'a>> {
        (0..count).map(move |i| {
            let mut labels = self.labels();
            if self.object.kind() == "StatefulSet" {
                let name = format!("{}-{i}", self.object.name());
                labels.insert("statefulset.kubernetes.io/pod-name".to_owned(), name);
            }
            Pod { workload: self, labels }
        })
    }
}

impl<'a> Container<'a> {
    /// Our program that its image is of.
    pub fn program(&self) -> Option<&'static str> {
        let image = text(&self.value["image"]);
        let name = image.rsplit('/').next()?.split([':', '@']).next()?;
        ["flashsale-node", "flashsale-coordinator"].into_iter().find(|program| *program == name)
    }

    /// The number of each port, by its name.
    pub fn ports(&self) -> BTreeMap<&'a str, u64> {
        let ports = list(&self.value["ports"]).iter();
        ports.filter_map(|port| Some((text(&port["name"]), port["containerPort"].as_u64()?))).collect()
    }

    /// The folders that are not of its image, each with where it is.
    pub fn mounts(&self, overlay: &Overlay) -> Vec<(&'a str, Mounted)> {
        let volumes = list(&self.workload.spec()["volumes"]);
        let volume = |mount: &Value| volumes.iter().find(|volume| volume["name"] == mount["name"]);
        list(&self.value["volumeMounts"])
            .iter()
            .map(|mount| {
                let mounted = volume(mount).map_or(Mounted::Written, |volume| mounted(volume, overlay));
                (text(&mount["mountPath"]), mounted)
            })
            .collect()
    }
}

fn mounted(volume: &Value, overlay: &Overlay) -> Mounted {
    let items = |of: &Value| -> Vec<(String, String)> {
        let items = list(&of["items"]).iter();
        items.map(|item| (text(&item["key"]).to_owned(), text(&item["path"]).to_owned())).collect()
    };
    let (map, secret) = (&volume["configMap"], &volume["secret"]);
    if map.is_object() {
        let chosen = items(map);
        let of_map = overlay.find("ConfigMap", text(&map["name"])).map_or(&Value::Null, |map| &map.0["data"]);
        let all = || pairs(of_map).map(|(key, _)| key.clone()).collect();
        let files =
            if chosen.is_empty() { all() } else { chosen.into_iter().map(|(_, path)| path).collect() };
        return Mounted::Configuration(files);
    }
    if secret.is_object() {
        return Mounted::Secret(text(&secret["secretName"]).to_owned(), items(secret));
    }
    Mounted::Written
}
