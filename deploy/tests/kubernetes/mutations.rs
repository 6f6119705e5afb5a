//! Mutation tests of the policies: each breaks one field of a real overlay, and exactly one policy must report it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::overlay::{Object, Overlay, prod};
use crate::{Faults, POLICIES};

const POD: &str = "/spec/template/spec";
const CONTAINER: &str = "/spec/template/spec/containers/0";

/// Object, field and new value.
type Mutation = (String, String, Value);

/// Returns the mutations by the policy that must fail.
fn mutations() -> BTreeMap<String, Vec<Mutation>> {
    serde_saphyr::from_str(include_str!("mutations.yaml")).unwrap()
}

/// Returns the overlay with one mutation.
fn mutated((title, field, value): &Mutation) -> Overlay {
    let mut overlay = prod().clone();
    let matches_title = |it: &str| match title.strip_suffix('*') {
        Some(beginning) => it.starts_with(beginning),
        None => it == title,
    };
    let found = overlay.objects.iter().position(|object| matches_title(&object.title()));
    let i = found.unwrap_or_else(|| panic!("no object {title}"));
    match &**field {
        "" => {
            overlay.objects.remove(i);
        }
        "+" => overlay.objects.push(Object(value.clone())),
        field => change(&mut overlay.objects[i].0, field, value),
    }
    overlay
}

/// Changes a field as a JSON patch would: `-` appends an entry.
fn change(object: &mut Value, field: &str, value: &Value) {
    let field = match field.as_bytes()[0] {
        b'C' => format!("{CONTAINER}{}", &field[1..]),
        b'P' => format!("{POD}{}", &field[1..]),
        _ => field.to_owned(),
    };
    let (parent, name) = field.rsplit_once('/').expect("a path");
    let name = name.replace("~1", "/");
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no field {parent}"));
    match (parent, value) {
        (Value::Object(fields), Value::Null) => {
            assert!(fields.remove(&name).is_some(), "no field {field}");
        }
        (Value::Object(fields), value) => {
            fields.insert(name, value.clone());
        }
        (Value::Array(entries), value) if name == "-" => entries.push(value.clone()),
        (Value::Array(entries), value) => entries[name.parse::<usize>().expect("an index")] = value.clone(),
        (other, _) => panic!("{other} has no fields"),
    }
}

#[test]
fn each_mutation_fails_exactly_one_policy() {
    let mut wrong = Vec::new();
    for (name, mutations) in mutations() {
        for mutation in mutations {
            let overlay = mutated(&mutation);
            let failed = POLICIES.iter().filter(|(_, policy)| !Faults::of(*policy, &overlay).is_empty());
            let failing: Vec<&str> = failed.map(|(name, _)| *name).collect();
            if failing != [&*name] {
                wrong.push(format!("{} {}: {failing:?} failed, and not {name}", mutation.0, mutation.1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_policy_has_a_mutation() {
    let tested: BTreeSet<String> = mutations().into_keys().collect();
    assert_eq!(tested, POLICIES.map(|(name, _)| name.to_owned()).into());
}
