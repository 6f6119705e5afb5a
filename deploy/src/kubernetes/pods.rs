//! Pods: their containers, mounts and labels.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Object, Overlay, list, pairs, text};

/// An object that creates pods.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// The object.
    pub object: &'a Object,
    /// JSON pointer to the pod template.
    pub template_pointer: &'static str,
    /// The pod template.
    pub template: &'a Value,
}

/// A container of a workload.
#[derive(Clone, Debug)]
pub struct Container<'a> {
    /// The workload.
    pub workload: Workload<'a>,
    /// JSON pointer to the container in its object.
    pub pointer: String,
    /// The container's fields.
    pub value: &'a Value,
}

/// One pod.
#[derive(Clone, Debug)]
pub struct Pod<'a> {
    /// The workload that creates it.
    pub workload: Workload<'a>,
    /// Its labels, including those that Kubernetes adds.
    pub labels: BTreeMap<String, String>,
}

/// Contents of a mounted folder.
#[derive(Debug)]
pub enum Mounted {
    /// Names of files from ConfigMaps.
    Configuration(BTreeSet<String>),
    /// A Secret, and pairs of key and file name. Without pairs, all keys of the Secret.
    Secret(String, Vec<(String, String)>),
    /// A folder that the container writes.
    Written,
}

impl<'a> Workload<'a> {
    /// Returns the workload of an object, if it creates pods.
    pub fn of(object: &'a Object) -> Option<Self> {
        let template_pointer = match object.kind() {
            "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet" | "Job" => "/spec/template",
            "CronJob" => "/spec/jobTemplate/spec/template",
            "Pod" => "",
            _ => return None,
        };
        let template = object.0.pointer(template_pointer).unwrap_or(&Value::Null);
        Some(Self { object, template_pointer, template })
    }

    /// The pod spec.
    pub fn spec(&self) -> &'a Value {
        &self.template["spec"]
    }

    /// Returns false for jobs, which end when their work is done.
    pub fn serves(&self) -> bool {
        !matches!(self.object.kind(), "Job" | "CronJob")
    }

    /// Labels of its pods.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = pairs(&self.template["metadata"]["labels"]);
        labels.map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
    }

    pub(super) fn containers(&self) -> Vec<Container<'a>> {
        let of = |field: &'static str| {
            let pointer = format!("{}/spec/{field}", self.template_pointer);
            let containers = list(&self.spec()[field]).iter().enumerate();
            containers.map(move |(i, value)| Container {
                workload: *self,
                pointer: format!("{pointer}/{i}"),
                value,
            })
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
    /// Returns the project's program in the image with its subcommand, if it is one of the project's images.
    pub fn program(&self) -> Option<&'static str> {
        let image = text(&self.value["image"]);
        let name = image.rsplit('/').next()?.split([':', '@']).next()?;
        match (name, list(&self.value["args"]).first().map(text)) {
            ("flashsale-node", None) => Some("flashsale-node"),
            ("flashsale-coordinator", None) => Some("flashsale-coordinator"),
            ("flashsale-coordinator", Some("cluster")) => Some("flashsale-coordinator cluster"),
            _ => None,
        }
    }

    /// Port numbers by name.
    pub fn ports(&self) -> BTreeMap<&'a str, u64> {
        let ports = list(&self.value["ports"]).iter();
        ports.filter_map(|port| Some((text(&port["name"]), port["containerPort"].as_u64()?))).collect()
    }

    /// Returns the mounted folders with their contents.
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
