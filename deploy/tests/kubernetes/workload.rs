//! Pods: their containers, mounts and labels.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::overlay::{Object, Overlay, list, pairs, text, text_map};

/// An object that creates pods.
#[derive(Clone, Copy)]
pub(crate) struct Workload<'a> {
    pub(crate) object: &'a Object,
    /// JSON pointer to the pod template.
    template_pointer: &'static str,
    template: &'a Value,
}

#[derive(Clone)]
pub(crate) struct Container<'a> {
    pub(crate) workload: Workload<'a>,
    /// JSON pointer to the container in its object.
    pub(crate) pointer: String,
    /// The container's fields.
    pub(crate) value: &'a Value,
}

pub(crate) struct Pod<'a> {
    /// The workload that creates it.
    pub(crate) workload: Workload<'a>,
    /// Its labels, including those that Kubernetes adds.
    pub(crate) labels: BTreeMap<String, String>,
}

/// Contents of a mounted folder.
pub(crate) enum Mounted<'a> {
    /// A ConfigMap: its data, and pairs of key and file name. Without pairs, all keys.
    Configuration(&'a Value, Vec<(&'a str, &'a str)>),
    /// The name of a Secret, and pairs of key and file name. Without pairs, all keys.
    Secret(&'a str, Vec<(&'a str, &'a str)>),
    /// A folder that the container writes.
    Written,
}

impl<'a> Workload<'a> {
    /// Returns the workload of an object, if it creates pods.
    pub(crate) fn of(object: &'a Object) -> Option<Self> {
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
    pub(crate) fn spec(&self) -> &'a Value {
        &self.template["spec"]
    }

    /// Returns the JSON pointer to a field of the pod spec.
    pub(crate) fn pointer(&self, field: &str) -> String {
        format!("{}/spec{field}", self.template_pointer)
    }

    /// Returns false for jobs, which end when their work is done.
    pub(crate) fn serves(&self) -> bool {
        !matches!(self.object.kind(), "Job" | "CronJob")
    }

    /// Labels of its pods.
    pub(crate) fn labels(&self) -> BTreeMap<String, String> {
        text_map(&self.template["metadata"]["labels"])
    }

    pub(crate) fn containers(&self) -> Vec<Container<'a>> {
        let of = |field: &'static str| {
            let containers = list(&self.spec()[field]).iter().enumerate();
            containers.map(move |(i, value)| Container {
                workload: *self,
                pointer: self.pointer(&format!("/{field}/{i}")),
                value,
            })
        };
        of("initContainers").chain(of("containers")).collect()
    }

    pub(crate) fn pods(self, count: u64) -> impl Iterator<Item = Pod<'a>> {
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
    /// The application that it belongs to.
    pub(crate) fn application(&self) -> String {
        self.workload.labels().remove("app.kubernetes.io/name").unwrap_or_default()
    }

    /// Returns the project's program in the image with its subcommand, if it is one of the project's images.
    pub(crate) fn program(&self) -> Option<&'static str> {
        let image = text(&self.value["image"]);
        let name = image.rsplit('/').next()?.split([':', '@']).next()?;
        match (name, list(&self.value["args"]).first().map(text)) {
            ("flashsale-node", None) => Some("flashsale-node"),
            ("flashsale-coordinator", None) => Some("flashsale-coordinator"),
            ("flashsale-ledger", None) => Some("flashsale-ledger"),
            ("flashsale-coordinator", Some("cluster")) => Some("flashsale-coordinator cluster"),
            _ => None,
        }
    }

    /// Port numbers by name.
    pub(crate) fn ports(&self) -> BTreeMap<&'a str, u64> {
        let ports = list(&self.value["ports"]).iter();
        ports.filter_map(|port| Some((text(&port["name"]), port["containerPort"].as_u64()?))).collect()
    }

    /// Returns the mounts with their volumes. A volume of a claim template is `null`.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = (&'a Value, &'a Value)> {
        let volumes = list(&self.workload.spec()["volumes"]);
        list(&self.value["volumeMounts"]).iter().map(|mount| {
            let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
            (mount, volume.unwrap_or(&Value::Null))
        })
    }

    /// Returns the mounted folders with their contents.
    pub(crate) fn mounts(&self, overlay: &'a Overlay) -> Vec<(&'a str, Mounted<'a>)> {
        let mounts =
            self.volumes().map(|(mount, volume)| (text(&mount["mountPath"]), mounted(volume, overlay)));
        mounts.collect()
    }
}

fn mounted<'a>(volume: &'a Value, overlay: &'a Overlay) -> Mounted<'a> {
    let items = |of: &'a Value| -> Vec<(&str, &str)> {
        list(&of["items"]).iter().map(|item| (text(&item["key"]), text(&item["path"]))).collect()
    };
    let (map, secret) = (&volume["configMap"], &volume["secret"]);
    if map.is_object() {
        let data = overlay.find("ConfigMap", text(&map["name"])).map_or(&Value::Null, |map| &map.0["data"]);
        return Mounted::Configuration(data, items(map));
    }
    match secret.is_object() {
        true => Mounted::Secret(text(&secret["secretName"]), items(secret)),
        false => Mounted::Written,
    }
}

impl Mounted<'_> {
    /// Returns true when the folder has a file of this name. `secret_has_key` knows the keys of Secrets.
    pub(crate) fn contains(&self, name: &str, secret_has_key: impl Fn(&str, &str) -> bool) -> bool {
        match self {
            Self::Configuration(_, items) | Self::Secret(_, items) if !items.is_empty() => {
                items.iter().any(|(_, path)| *path == name)
            }
            Self::Configuration(data, _) => pairs(data).any(|(key, _)| key == name),
            Self::Secret(secret, _) => secret_has_key(secret, name),
            Self::Written => true,
        }
    }
}
