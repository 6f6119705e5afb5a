//! Every field of every object is one that there is.
//!
//! Kubernetes' own kinds are checked by their published schemas, of the newest version and of the oldest that we promise;
//! kinds that others add, by the ones in `schemas/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use deploy::kubernetes::{Object, Overlay};
use deploy::{folder, tool};
use serde_json::json;
use testkit::Folder;

use crate::{built, overlay};

/// Arguments that choose a version: the oldest, and the newest that the validator knows.
const VERSIONS: [&[&str]; 2] = [&["-k", "1.32"], &[]];

/// What is wrong with an overlay's fields, in the validators' words.
fn faults(overlay: &Overlay) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for object in others(overlay) {
        faults.extend(faults_of_other(object)?);
    }
    let own: Vec<&Object> = overlay.objects.iter().filter(|object| !is_other(object)).collect();
    for version in VERSIONS {
        faults.extend(faults_of_own(&own, version)?);
    }
    Ok(faults)
}

/// Groups of Kubernetes itself have no dot, or end like this.
fn is_other(object: &Object) -> bool {
    let version = object.0["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let is_of_a_sig = group == "gateway.networking.k8s.io";
    group.contains('.') && (is_of_a_sig || !group.ends_with(".k8s.io"))
}

fn others(overlay: &Overlay) -> impl Iterator<Item = &Object> {
    overlay.objects.iter().filter(|object| is_other(object))
}

fn schema(kind: &str) -> PathBuf {
    folder().join("tests/kubernetes/schemas").join(kind).with_extension("json")
}

/// All objects in one file: the validator takes its time to start.
fn faults_of_own(objects: &[&Object], version: &[&str]) -> Result<Vec<String>> {
    let text: Vec<String> = objects.iter().map(|object| object.0.to_string()).collect();
    let folder = Folder::temporary()?;
    let file = folder.path().join("objects.yaml");
    fs::write(&file, text.join("\n---\n"))?;
    let words = said(Command::new(tool("kubernetes-validate")?).arg("--strict").args(version).arg(&file))?;
    // One that it has no schema for is only warned of.
    let passed = words.lines().filter(|line| line.starts_with("INFO ") && line.contains(" passed ")).count();
    let mut faults: Vec<String> =
        words.lines().filter(|line| !line.starts_with("INFO ")).map(str::to_owned).collect();
    if passed != objects.len() && faults.is_empty() {
        faults.push(format!("only {passed} of {} objects were looked at", objects.len()));
    }
    Ok(faults)
}

fn faults_of_other(object: &Object) -> Result<Option<String>> {
    let schema = schema(object.kind());
    if !schema.is_file() {
        return Ok(Some(format!("{}: there is no {}", object.title(), schema.display())));
    }
    let folder = Folder::temporary()?;
    let file = folder.path().join("object.json");
    fs::write(&file, object.0.to_string())?;
    checked(&schema, &file).map(|words| words.map(|words| format!("{}: {words}", object.title())))
}

/// What `jsonschema` finds: nothing, or its words.
fn checked(schema: &Path, instance: &Path) -> Result<Option<String>> {
    // Through Python, since the command of that name says above all that it will be gone one day.
    let program = "import json, sys, jsonschema\n\
                   schema, instance = (json.load(open(path)) for path in sys.argv[1:])\n\
                   jsonschema.Draft202012Validator.check_schema(schema)\n\
                   for error in jsonschema.Draft202012Validator(schema).iter_errors(instance):\n    \
                   print(error.json_path, error.message)";
    let words = said(Command::new(tool("python3")?).args(["-c", program]).arg(schema).arg(instance))?;
    Ok((!words.is_empty()).then_some(words))
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(words.is_empty(), "{words}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn every_field_is_one_that_there_is() {
    for overlay in built() {
        let faults = faults(overlay).unwrap();
        assert!(faults.is_empty(), "{}: {}", overlay.name, faults.join("\n"));
    }
}

/// What is in the overlay instead of one object of it.
fn with(kind: &str, field: &str, value: serde_json::Value) -> Overlay {
    let mut changed = overlay("prod").clone();
    changed.objects.retain(|object| object.kind() == kind);
    changed.objects.truncate(1);
    let (parent, name) = field.rsplit_once('/').unwrap();
    changed.objects[0].0.pointer_mut(parent).unwrap()[name] = value;
    changed
}

#[test]
fn a_field_that_there_is_not_is_found_in_every_kind() {
    let mistakes = [
        ("Deployment", "/spec/template/spec/containers/0/readynessProbe", json!({})),
        ("Deployment", "/spec/replicas", json!("two")),
        ("PodDisruptionBudget", "/spec/minUnavailable", json!(1)),
        ("PodMonitor", "/spec/podMetricsEndpoints/0/scrapeInterval", json!("5s")),
        ("PodMonitor", "/spec/podMetricsEndpoints/0/interval", json!("soon")),
        ("PrometheusRule", "/spec/groups/0/rules/0/expression", json!("up")),
        ("PrometheusRule", "/spec/groups/0/rules/0/alert", json!("RecordsToo")),
        ("Gateway", "/spec/listeners/0/tls", json!({"mode": "Terminate"})),
        ("HTTPRoute", "/spec/rules/0/timeout", json!("1s")),
        // Nobody knows the kind at all, among Kubernetes' own and among others'.
        ("Service", "/kind", json!("Servant")),
        ("Gateway", "/kind", json!("Gatehouse")),
    ];
    for (kind, field, value) in mistakes {
        let faults = faults(&with(kind, field, value)).unwrap();
        assert!(!faults.is_empty(), "nobody minds {field} of a {kind}");
    }
}
