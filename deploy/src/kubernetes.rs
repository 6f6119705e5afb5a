//! The overlays in `deploy/k8s` as `kubectl kustomize` builds them, and the references between their objects.
//!
//! Objects are untyped: callers access fields by their names in the manifests. A missing field is `null`, as on a
//! server.

mod pods;
mod secrets;
mod selector;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

pub use pods::{Container, Mounted, Pod, Workload};
pub use secrets::secrets;
pub use selector::selects;

/// All objects that one overlay applies.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// Name of its folder.
    pub name: String,
    /// Objects in the order of `kubectl`.
    pub objects: Vec<Object>,
}

/// One Kubernetes object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(pub Value);

/// Returns the folder of all manifests.
pub fn folder() -> PathBuf {
    crate::folder().join("k8s")
}

/// Returns the names of all overlays.
///
/// # Errors
/// Fails when their folder cannot be read.
pub fn overlays() -> Result<Vec<String>> {
    let folder = folder().join("overlays");
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Builds a folder with a `kustomization.yaml` and returns the result as YAML.
///
/// # Errors
/// Fails when `kubectl` refuses it, with the message of `kubectl`.
pub fn kustomize(folder: &Path) -> Result<String> {
    let built = Command::new(crate::tool("kubectl")?).arg("kustomize").arg(folder).output()?;
    // Deprecations are printed as warnings. They are errors here, because they will fail one day.
    let words = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success() && words.is_empty(), "{}: {words}", folder.display());
    Ok(String::from_utf8(built.stdout)?)
}

impl Overlay {
    /// Builds an overlay.
    ///
    /// # Errors
    /// Fails when it cannot be built.
    pub fn build(name: &str) -> Result<Self> {
        let text = kustomize(&folder().join("overlays").join(name))?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| name.to_owned())?;
        Ok(Self { name: name.to_owned(), objects: objects.into_iter().map(Object).collect() })
    }

    /// Returns all objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| object.kind() == kind)
    }

    /// Returns the object with this kind and name.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.kind() == kind && object.name() == name)
    }

    /// Returns all objects that create pods.
    pub fn workloads(&self) -> Vec<Workload<'_>> {
        self.objects.iter().filter_map(Workload::of).collect()
    }

    /// Returns all containers, including init containers.
    pub fn containers(&self) -> Vec<Container<'_>> {
        self.workloads().iter().flat_map(Workload::containers).collect()
    }

    /// Returns every pod of the minimum number of replicas.
    pub fn pods(&self) -> Vec<Pod<'_>> {
        self.workloads().into_iter().flat_map(|workload| workload.pods(self.replicas(&workload))).collect()
    }

    /// Returns the minimum number of pods of a workload.
    pub fn replicas(&self, workload: &Workload<'_>) -> u64 {
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
    pub fn environment(&self, container: &Container<'_>) -> BTreeMap<String, Option<String>> {
        let mut environment = BTreeMap::new();
        for source in list(&container.value["envFrom"]) {
            let name = text(&source["configMapRef"]["name"]);
            let data = self.find("ConfigMap", name).map_or(&Value::Null, |map| &map.0["data"]);
            environment.extend(pairs(data).map(|(key, value)| (key.clone(), Some(text(value).to_owned()))));
        }
        let own = list(&container.value["env"]);
        environment.extend(
            own.iter()
                .map(|entry| (text(&entry["name"]).to_owned(), entry["value"].as_str().map(str::to_owned))),
        );
        environment
    }
}

impl Object {
    /// The kind.
    pub fn kind(&self) -> &str {
        text(&self.0["kind"])
    }

    /// The name.
    pub fn name(&self) -> &str {
        text(&self.0["metadata"]["name"])
    }

    /// Kind and name, as `kubectl` prints them.
    pub fn title(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }
}

/// Returns a field's text. Empty when the field is missing or not a string.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns a field's entries. Empty when the field is missing.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Returns a field's keys and values. Empty when the field is missing.
pub fn pairs(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
