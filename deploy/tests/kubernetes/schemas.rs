//! Every field of every object is known to its schema.
//!
//! Kubernetes' own kinds are checked against their published schemas, of the newest and of the oldest supported
//! version. Kinds of other projects are checked against those in `schemas/`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use deploy::{folder, tool};
use serde_json::{Value, json};
use testkit::Folder;

use crate::overlay::{Object, Overlay, built, prod};

/// The oldest supported version.
const OLDEST: &str = "1.32";

/// Returns the newest version that the validator supports, which is the validator's own version.
fn newest() -> Result<String> {
    let pinned = fs::read_to_string(folder().join("tools/requirements.txt"))?;
    let version = pinned.lines().find_map(|line| line.strip_prefix("kubernetes-validate=="));
    Ok(version.context("the validator has a version")?.to_owned())
}

/// Returns the faults of an overlay's objects, in the words of the validators.
fn faults(overlay: &Overlay) -> Result<Vec<String>> {
    let (third_party, own): (Vec<&Object>, Vec<&Object>) =
        overlay.objects.iter().partition(|object| is_third_party(object));
    let mut faults = faults_of_own(&own)?;
    faults.extend(faults_of_third_party(&third_party)?);
    Ok(faults)
}

/// API groups of Kubernetes itself have no dot or end in `.k8s.io`.
fn is_third_party(object: &Object) -> bool {
    let version = object.0["apiVersion"].as_str().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    let is_of_a_sig = group == "gateway.networking.k8s.io";
    group.contains('.') && (is_of_a_sig || !group.ends_with(".k8s.io"))
}

fn schema(kind: &str) -> PathBuf {
    folder().join("tests/kubernetes/schemas").join(kind).with_extension("json")
}

/// Validates all objects in one file, because the validator is slow to start.
fn faults_of_own(objects: &[&Object]) -> Result<Vec<String>> {
    let text: Vec<String> = objects.iter().map(|object| object.0.to_string()).collect();
    let folder = Folder::temporary()?;
    let file = folder.path().join("objects.yaml");
    fs::write(&file, text.join("\n---\n"))?;
    let mut validate = Command::new(tool("kubernetes-validate")?);
    let output = output_of(validate.args(["--strict", "-k", OLDEST, "-k", &newest()?]).arg(&file))?;
    let (passed, faults): (Vec<&str>, Vec<&str>) =
        output.lines().partition(|line| line.starts_with("INFO ") && line.contains(" passed "));
    // An object without a schema causes only a warning in the validator. Here it is a fault.
    let is_whole = passed.len() == 2 * objects.len() || !faults.is_empty();
    ensure!(is_whole, "not all of {} objects were checked: {output}", objects.len());
    Ok(faults.into_iter().map(str::to_owned).collect())
}

/// Reads lines of `title TAB schema TAB object`, and prints the faults. The command `jsonschema` is not used, because
/// it prints a deprecation warning on each run.
const CHECK: &str = r#"
import json, sys, jsonschema
for line in sys.stdin:
    title, path, instance = line.rstrip("\n").split("\t")
    schema = json.load(open(path))
    jsonschema.Draft202012Validator.check_schema(schema)
    for error in jsonschema.Draft202012Validator(schema).iter_errors(json.loads(instance)):
        print(title, error.json_path, error.message)
"#;

fn faults_of_third_party(objects: &[&Object]) -> Result<Vec<String>> {
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
    let output = output_of(python.args(["-c", CHECK]).stdin(fs::File::open(file)?))?;
    let without_schema = unknown.iter().map(|object| format!("{} has no schema in schemas/", object.title()));
    Ok(output.lines().map(str::to_owned).chain(without_schema).collect())
}

fn output_of(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(errors.is_empty(), "{errors}");
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn every_field_is_in_its_schema() {
    for overlay in built() {
        let faults = faults(overlay).unwrap();
        assert!(faults.is_empty(), "{}: {}", overlay.name, faults.join("\n"));
    }
}

/// Returns a copy of an object with one changed field and a distinct name.
fn with_mistake(i: usize, kind: &str, field: &str, value: Value) -> Object {
    let mut object = prod().of_kind(kind).next().expect("an object of that kind").clone();
    let (parent, name) = field.rsplit_once('/').expect("a path");
    object.0.pointer_mut(parent).expect("the parent of the field")[name] = value;
    object.0["metadata"]["name"] = json!(format!("mistake-{i}."));
    object
}

#[test]
fn unknown_fields_are_found_in_every_kind() {
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
        // Unknown kinds, in a group of Kubernetes and in another group.
        ("Service", "/kind", json!("Servant")),
        ("Gateway", "/kind", json!("Gatehouse")),
    ];
    let objects = mistakes.iter().cloned().enumerate();
    let objects = objects.map(|(i, (kind, field, value))| with_mistake(i, kind, field, value)).collect();
    let faults = faults(&Overlay { name: "mistaken".to_owned(), objects }).unwrap();
    for (i, (kind, field, _)) in mistakes.iter().enumerate() {
        // For an unknown kind the validator reports the kind, not the object.
        let names = [format!("/mistake-{i}."), "kind Servant".to_owned()];
        let is_found = |name: &String| faults.iter().any(|fault| fault.contains(name));
        let wanted = &names[usize::from(*kind == "Service")];
        assert!(is_found(wanted), "{field} of a {kind} was not reported: {faults:?}");
    }
}
