//! Access of workloads to passwords.

use std::collections::BTreeSet;

use deploy::kubernetes::{Container, Overlay, list, pairs, text};
use serde_json::Value;

use crate::Fault;

/// The Redis user of each workload in `redis/users.acl`, and the variable that names it. Servers have all passwords,
/// because they check them.
const USERS: [(&str, &str, &str); 4] = [
    ("flashsale-node", "REDIS_USERNAME", "node"),
    ("flashsale-coordinator", "REDIS_USERNAME", "coordinator"),
    ("redis-exporter", "REDIS_USER", "exporter"),
    ("redis-cluster", "REDIS_USERNAME", "admin"),
];
/// Secrets with passwords.
const LOGINS: [&str; 2] = ["redis-logins", "redis-passwords"];
/// Words in the names of variables whose values are secret.
const SECRET_WORDS: [&str; 4] = ["PASSWORD", "TOKEN", "SECRET", "CREDENTIAL"];
/// Endings of variables that contain only the location of a secret.
const LOCATION_SUFFIXES: [&str; 2] = ["_FILE", "_FOLDER"];

/// Each workload logs in as its own user and mounts no other password.
pub(crate) fn own_user(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        let name = container.workload.labels().remove("app.kubernetes.io/name").unwrap_or_default();
        let mut fault = |reason: String| {
            faults.push(Fault::of(container.workload.object, container.pointer.clone(), reason));
        };
        let seen = passwords(container);
        if name == "redis" {
            if seen.iter().any(|key| *key != "*") {
                fault(format!("it has only the passwords {seen:?}"));
            }
            continue;
        }
        let Some((_, variable, user)) = USERS.iter().find(|(workload, ..)| *workload == name) else {
            fault("its user is unknown".to_owned());
            continue;
        };
        if seen != BTreeSet::from([*user]) {
            fault(format!("it mounts the passwords {seen:?}, but is {user}"));
        }
        let environment = overlay.environment(container);
        if environment.get(*variable).cloned().flatten().as_deref() != Some(user) {
            fault(format!("{variable} is not {user}"));
        }
    }
    faults
}

/// Returns the keys of password Secrets that a container can read. `*` stands for all keys.
fn passwords<'a>(container: &Container<'a>) -> BTreeSet<&'a str> {
    let is_of_logins = |name: &Value| LOGINS.contains(&text(name));
    let mounted = |volume: &&Value| {
        let mut mounts = list(&container.value["volumeMounts"]).iter();
        mounts.any(|mount| mount["name"] == volume["name"])
    };
    let volumes = list(&container.workload.spec()["volumes"]).iter().filter(mounted);
    let secrets =
        volumes.map(|volume| &volume["secret"]).filter(|secret| is_of_logins(&secret["secretName"]));
    let files = secrets.flat_map(|secret| match list(&secret["items"]) {
        [] => vec!["*"],
        items => items.iter().map(|item| text(&item["key"])).collect(),
    });
    let variables = list(&container.value["env"]).iter().map(|entry| &entry["valueFrom"]["secretKeyRef"]);
    let keys = variables.filter(|key| is_of_logins(&key["name"])).map(|key| text(&key["key"]));
    let whole = list(&container.value["envFrom"]).iter().map(|source| &source["secretRef"]["name"]);
    files.chain(keys).chain(whole.filter(|name| is_of_logins(name)).map(|_| "*")).collect()
}

/// No manifest contains a secret.
pub(crate) fn no_plain_secrets(overlay: &Overlay) -> Vec<Fault> {
    let secrets = overlay.of_kind("Secret");
    let mut faults: Vec<Fault> =
        secrets.map(|secret| Fault::of(secret, "/data", "Secrets must not be in manifests")).collect();
    let is_secret_name = |name: &str| {
        SECRET_WORDS.iter().any(|word| name.to_uppercase().contains(word))
            && !LOCATION_SUFFIXES.iter().any(|ending| name.ends_with(ending))
    };
    // A URL with a user name also contains the password.
    let has_login = |value: &str| value.split(',').any(|url| url.contains("://") && url.contains('@'));
    let is_exposed =
        |name: &str, value: &str| (is_secret_name(name) && !value.is_empty()) || has_login(value);
    for container in &overlay.containers() {
        for entry in list(&container.value["env"]) {
            let name = text(&entry["name"]);
            if is_exposed(name, text(&entry["value"])) {
                let field = format!("{}/env/{name}", container.pointer);
                faults.push(Fault::of(container.workload.object, field, "a secret is in plain text"));
            }
        }
    }
    for map in overlay.of_kind("ConfigMap") {
        for (name, value) in pairs(&map.0["data"]).filter(|(_, value)| !text(value).contains('\n')) {
            if is_exposed(name, text(value)) {
                faults.push(Fault::of(map, format!("/data/{name}"), "a secret is in plain text"));
            }
        }
    }
    faults
}

/// The README lists a password for every Redis user, and each workload is one of the users.
#[test]
fn every_user_is_in_the_redis_acl() {
    let rights = std::fs::read_to_string(deploy::folder().join("redis/users.acl")).unwrap();
    let known = rights.lines().filter_map(|line| line.strip_prefix("user ")?.split(' ').next());
    let known: BTreeSet<String> = known.filter(|user| *user != "default").map(str::to_owned).collect();
    assert_eq!(deploy::kubernetes::secrets().unwrap()["redis-passwords"], known);
    for (workload, _, user) in USERS {
        assert!(known.contains(user), "{workload} is {user}, which is not in users.acl");
    }
}
