//! The overlays in `deploy/k8s` as `kubectl kustomize` builds them, and the references between their objects.
//!
//! Objects are untyped: policies access fields by their names in the manifests. A missing field is `null`, as on a
//! server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::workload::{Container, Pod, Workload};

/// All objects that one overlay applies.
#[derive(Clone)]
pub(crate) struct Overlay {
    /// Name of its folder.
    pub(crate) name: String,
    /// Objects in the order of `kubectl`.
    pub(crate) objects: Vec<Object>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Object(pub(crate) Value);

/// Returns the folder of all manifests.
pub(crate) fn folder() -> PathBuf {
    deploy::folder().join("k8s")
}

/// The overlay `prod` with the components for the feed. Shops that need a feed add them to their overlay.
const WITH_FEED: &str = "prod with the feed";

/// Returns all overlays, built once.
pub(crate) fn built() -> &'static [Overlay] {
    static BUILT: OnceLock<Vec<Overlay>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let names = fs::read_dir(folder().join("overlays")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        let overlays = names.into_iter().map(|name| (folder().join("overlays").join(&name), name));
        let with_feed = (deploy::folder().join("tests/kubernetes/feed"), WITH_FEED.to_owned());
        overlays
            .chain([with_feed])
            .map(|(folder, name)| Overlay::build(&folder, name).unwrap_or_else(|error| panic!("{error:#}")))
            .collect()
    })
}

/// Returns the overlay `prod` with the feed, which has every kind of object.
pub(crate) fn prod() -> &'static Overlay {
    built().iter().find(|overlay| overlay.name == WITH_FEED).expect("an overlay of that name")
}

impl Overlay {
    fn build(folder: &Path, name: String) -> Result<Self> {
        let built = Command::new(deploy::tool("kubectl")?).arg("kustomize").arg(folder).output()?;
        // Deprecations are printed as warnings. They are errors here, because they will fail one day.
        let words = String::from_utf8_lossy(&built.stderr);
        ensure!(built.status.success() && words.is_empty(), "{name}: {words}");
        let text = String::from_utf8(built.stdout)?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| name.clone())?;
        Ok(Self { name, objects: objects.into_iter().map(Object).collect() })
    }

    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| object.kind() == kind)
    }

    pub(crate) fn find(&self, kind: &str, name: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.kind() == kind && object.name() == name)
    }

    pub(crate) fn namespace(&self) -> &Object {
        self.of_kind("Namespace").next().expect("an overlay has a namespace")
    }

    /// Returns all objects that create pods.
    pub(crate) fn workloads(&self) -> Vec<Workload<'_>> {
        self.objects.iter().filter_map(Workload::of).collect()
    }

    /// Returns all containers, including init containers.
    pub(crate) fn containers(&self) -> Vec<Container<'_>> {
        self.workloads().iter().flat_map(Workload::containers).collect()
    }

    /// Returns every pod of the minimum number of replicas.
    pub(crate) fn pods(&self) -> Vec<Pod<'_>> {
        self.workloads().into_iter().flat_map(|workload| workload.pods(self.replicas(&workload))).collect()
    }

    /// Returns the minimum number of pods of a workload.
    pub(crate) fn replicas(&self, workload: &Workload<'_>) -> u64 {
        let is_its_scaler = |scaler: &&Object| {
            let target = &scaler.0["spec"]["scaleTargetRef"];
            target["kind"] == workload.object.kind() && target["name"] == workload.object.name()
        };
        let scaler = self.of_kind("HorizontalPodAutoscaler").find(is_its_scaler);
        let count = match scaler {
            Some(scaler) => &scaler.0["spec"]["minReplicas"],
            None => &workload.object.0["spec"]["replicas"],
        };
        count.as_u64().unwrap_or(1)
    }

    /// Returns a container's variables. A variable that is set only at runtime has no value.
    pub(crate) fn environment(&self, container: &Container<'_>) -> BTreeMap<String, Option<String>> {
        let maps =
            list(&container.value["envFrom"]).iter().map(|source| text(&source["configMapRef"]["name"]));
        let data = maps.filter_map(|name| Some(&self.find("ConfigMap", name)?.0["data"])).flat_map(pairs);
        let own = list(&container.value["env"]).iter().map(|entry| (text(&entry["name"]), &entry["value"]));
        let all = data.map(|(name, value)| (name.as_str(), value)).chain(own);
        all.map(|(name, value)| (name.to_owned(), value.as_str().map(str::to_owned))).collect()
    }
}

impl Object {
    pub(crate) fn kind(&self) -> &str {
        text(&self.0["kind"])
    }

    pub(crate) fn name(&self) -> &str {
        text(&self.0["metadata"]["name"])
    }

    /// Kind and name, as `kubectl` prints them.
    pub(crate) fn title(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }
}

/// Returns a field's text. Empty when the field is missing or not a string.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns a field's entries. Empty when the field is missing.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns a field's keys and values. Empty when the field is missing.
pub(crate) fn pairs(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Returns a field's keys and texts.
pub(crate) fn text_map(value: &Value) -> BTreeMap<String, String> {
    pairs(value).map(|(key, value)| (key.clone(), text(value).to_owned())).collect()
}
