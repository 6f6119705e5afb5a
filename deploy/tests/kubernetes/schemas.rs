//! Every field of every object is one that there is.
//!
//! Kubernetes' own kinds are checked by their published schemas, of the newest version and of the oldest that we promise;
//! kinds that others add, by the ones in `schemas/`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use deploy::kubernetes::{Object, Overlay};
use deploy::{folder, tool};
use serde_json::{Value, json};
use testkit::Folder;

use crate::{built, overlay};

/// The oldest version that has to take the manifests.
const OLDEST: &str = "1.32";

/// The newest one is the newest that the validator knows: it is called so itself.
fn newest() -> Result<String> {
    let pinned = fs::read_to_string(folder().join("tools/requirements.txt"))?;
    let version = pinned.lines().find_map(|line| line.strip_prefix("kubernetes-validate=="));
    Ok(version.context("the validator has a version")?.to_owned())
}

/// What is wrong with the fields of an overlay's objects, in the validators' words.
fn faults(overlay: &Overlay) -> Result<Vec<String>> {
    let (others, own): (Vec<&Object>, Vec<&Object>) =
        overlay.objects.iter().partition(|object| is_other(object));
    let mut faults = faults_of_own(&own)?;
    faults.extend(faults_of_others(&others)?);
    Ok(faults)
}

/// Groups of Kubernetes itself have no dot, or end like this.
fn is_other(object: &Object) -> bool {
    let version = object.0["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let is_of_a_sig = group == "gateway.networking.k8s.io";
    group.contains('.') && (is_of_a_sig || !group.ends_with(".k8s.io"))
}

fn schema(kind: &str) -> PathBuf {
    folder().join("tests/kubernetes/schemas").join(kind).with_extension("json")
}

/// All objects in one file: the validator takes its time to start.
fn faults_of_own(objects: &[&Object]) -> Result<Vec<String>> {
    let text: Vec<String> = objects.iter().map(|object| object.0.to_string()).collect();
    let folder = Folder::temporary()?;
    let file = folder.path().join("objects.yaml");
    fs::write(&file, text.join("\n---\n"))?;
    let mut validate = Command::new(tool("kubernetes-validate")?);
    let words = said(validate.args(["--strict", "-k", OLDEST, "-k", &newest()?]).arg(&file))?;
    let (passed, faults): (Vec<&str>, Vec<&str>) =
        words.lines().partition(|line| line.starts_with("INFO ") && line.contains(" passed "));
    // One that it has no schema for is only warned of, which is a fault here.
    let is_whole = passed.len() == 2 * objects.len() || !faults.is_empty();
    ensure!(is_whole, "not all of {} objects were looked at: {words}", objects.len());
    Ok(faults.into_iter().map(str::to_owned).collect())
}

/// Reads lines of `title TAB schema TAB object`, and says what is wrong. The command `jsonschema` would do, but for saying
/// each time that it will be gone one day.
const CHECK: &str = r#"
import json, sys, jsonschema
for line in sys.stdin:
    title, path, instance = line.rstrip("\n").split("\t")
    schema = json.load(open(path))
    jsonschema.Draft202012Validator.check_schema(schema)
    for error in jsonschema.Draft202012Validator(schema).iter_errors(json.loads(instance)):
        print(title, error.json_path, error.message)
"#;

fn faults_of_others(objects: &[&Object]) -> Result<Vec<String>> {
    let (known, unknown): (Vec<&Object>, Vec<&Object>) =
        objects.iter().partition(|object| schema(object.kind()).is_file());
    let lines: Vec<String> = known
        .iter()
        .map(|object| format!("{}\t{}\t{}\n", object.title(), schema(object.kind()).display(), object.0))
        .collect();
    let folder = Folder::temporary()?;
    let file = folder.path().join("objects");
    fs::write(&file, lines.concat())?;
    let mut python = Command::new(tool("python3")?);
    let words = said(python.args(["-c", CHECK]).stdin(fs::File::open(file)?))?;
    let without = unknown.iter().map(|object| format!("{} has no schema in schemas/", object.title()));
    Ok(words.lines().map(str::to_owned).chain(without).collect())
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

/// An object of a kind with another field, and a name that tells it from the others.
fn mistaken(i: usize, kind: &str, field: &str, value: Value) -> Object {
    let mut object = overlay("prod").of_kind(kind).next().expect("an object of that kind").clone();
    let (parent, name) = field.rsplit_once('/').expect("a path");
    object.0.pointer_mut(parent).expect("what has the field")[name] = value;
    object.0["metadata"]["name"] = json!(format!("mistake-{i}."));
    object
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
        ("Gateway", "/spec/listeners/1/tls", json!({"mode": "Ended"})),
        ("HTTPRoute", "/spec/rules/0/timeout", json!("1s")),
        // Nobody knows the kind at all, among Kubernetes' own and among others'.
        ("Service", "/kind", json!("Servant")),
        ("Gateway", "/kind", json!("Gatehouse")),
    ];
    let objects = mistakes.iter().cloned().enumerate();
    let objects = objects.map(|(i, (kind, field, value))| mistaken(i, kind, field, value)).collect();
    let faults = faults(&Overlay { name: "mistaken".to_owned(), objects }).unwrap();
    for (i, (kind, field, _)) in mistakes.iter().enumerate() {
        // The validator names no object of a kind that it does not know, but the kind.
        let names = [format!("/mistake-{i}."), "kind Servant".to_owned()];
        let is_found = |name: &String| faults.iter().any(|fault| fault.contains(name));
        let wanted = &names[usize::from(*kind == "Service")];
        assert!(is_found(wanted), "nobody minds {field} of a {kind}: {faults:?}");
    }
}
