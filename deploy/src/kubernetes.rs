//! What `kubectl kustomize` makes of the overlays in `deploy/k8s`, and how its objects refer to each other.
//!
//! Objects stay as they are written: whoever looks at one names its fields as the manifests do. What is not there is
//! `null`, as a server would see it.

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

/// All that one overlay applies.
#[derive(Clone, Debug)]
pub struct Overlay {
    /// Its folder's name.
    pub name: String,
    /// In the order of `kubectl`.
    pub objects: Vec<Object>,
}

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct Object(pub Value);

/// The folder of all manifests.
pub fn folder() -> PathBuf {
    crate::folder().join("k8s")
}

/// Names of the overlays that there are.
///
/// # Errors
/// When their folder cannot be read.
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

/// What a folder with a `kustomization.yaml` makes, as YAML.
///
/// # Errors
/// When `kubectl` refuses it: with its words.
pub fn kustomize(folder: &Path) -> Result<String> {
    let built = Command::new(crate::tool("kubectl")?).arg("kustomize").arg(folder).output()?;
    // What is deprecated is a warning, and would be an error one day.
    let words = String::from_utf8_lossy(&built.stderr);
    ensure!(built.status.success() && words.is_empty(), "{}: {words}", folder.display());
    Ok(String::from_utf8(built.stdout)?)
}

impl Overlay {
    /// Builds one.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn build(name: &str) -> Result<Self> {
        let text = kustomize(&folder().join("overlays").join(name))?;
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).with_context(|| name.to_owned())?;
        Ok(Self { name: name.to_owned(), objects: objects.into_iter().map(Object).collect() })
    }

    /// All objects of a kind.
    pub fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Object> {
        self.objects.iter().filter(move |object| object.kind() == kind)
    }

    /// The object that others refer to so.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.kind() == kind && object.name() == name)
    }

    /// Whatever has pods.
    pub fn workloads(&self) -> Vec<Workload<'_>> {
        self.objects.iter().filter_map(Workload::of).collect()
    }

    /// Every container, those that run before the others too.
    pub fn containers(&self) -> Vec<Container<'_>> {
        self.workloads().iter().flat_map(Workload::containers).collect()
    }

    /// Every pod that there is at least.
    pub fn pods(&self) -> Vec<Pod<'_>> {
        self.workloads().into_iter().flat_map(|workload| workload.pods(self.replicas(&workload))).collect()
    }

    /// How many pods a workload has at least.
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

    /// A container's variables; those without a value get theirs where nobody sees it before.
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
    /// Its kind.
    pub fn kind(&self) -> &str {
        text(&self.0["kind"])
    }

    /// Its name.
    pub fn name(&self) -> &str {
        text(&self.0["metadata"]["name"])
    }

    /// What people call it.
    pub fn title(&self) -> String {
        format!("{}/{}", self.kind(), self.name())
    }
}

/// A field's text; of one that is not there, or is none, nothing.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A field's entries; of one that is not there, none.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A field's keys with their values; of one that is not there, none.
pub fn pairs(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
