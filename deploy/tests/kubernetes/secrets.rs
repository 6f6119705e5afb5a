//! Access of workloads to passwords.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use crate::Faults;
use crate::overlay::{Overlay, folder, list, pairs, text};
use crate::workload::Container;

/// The keys of each Secret.
pub(crate) type Secrets = BTreeMap<String, BTreeSet<String>>;

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
pub(crate) fn own_user(overlay: &Overlay, faults: &mut Faults) {
    for container in &overlay.containers() {
        let name = container.application();
        let mut fault = |reason: String| faults.add_in_container(container, "", reason);
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
}

/// Returns the keys of password Secrets that a container can read. `*` stands for all keys.
fn passwords<'a>(container: &Container<'a>) -> BTreeSet<&'a str> {
    let is_of_logins = |name: &Value| LOGINS.contains(&text(name));
    let mounted = container.volumes().map(|(_, volume)| &volume["secret"]);
    let secrets = mounted.filter(|secret| is_of_logins(&secret["secretName"]));
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
pub(crate) fn no_plain_secrets(overlay: &Overlay, faults: &mut Faults) {
    for secret in overlay.of_kind("Secret") {
        faults.add(secret, "/data", "Secrets must not be in manifests");
    }
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
                faults.add_in_container(container, name, "a secret is in plain text");
            }
        }
    }
    for map in overlay.of_kind("ConfigMap") {
        for (name, value) in pairs(&map.0["data"]).filter(|(_, value)| !text(value).contains('\n')) {
            if is_exposed(name, text(value)) {
                faults.add(map, name, "a secret is in plain text");
            }
        }
    }
}

/// Returns the Secrets that operators create, from the table in `deploy/k8s/README.md`. No manifest contains one. The
/// first column names a Secret, the second its keys.
pub(crate) fn secrets() -> Secrets {
    in_table(&fs::read_to_string(folder().join("README.md")).unwrap())
}

fn in_table(text: &str) -> Secrets {
    let table = text
        .lines()
        .skip_while(|line| !line.starts_with("| Secret"))
        .take_while(|line| line.starts_with('|'));
    let rows = table.filter_map(|line| {
        let mut cells = line.split('|').skip(1).map(quoted);
        Some((cells.next()?.next()?, cells.next()?.collect()))
    });
    rows.collect()
}

/// Returns the texts between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[test]
fn table_rows_list_secrets_and_keys() {
    let text = "`other`\n\n| Secret | Keys | |\n|---|---|---|\n| `a-b` | `x.crt`, `y` | of `z` |\n\n| `no` | `x` |\n";
    let keys = BTreeSet::from(["x.crt".to_owned(), "y".to_owned()]);
    assert_eq!(in_table(text), BTreeMap::from([("a-b".to_owned(), keys)]));
}

/// The README lists a password for every Redis user, and each workload is one of the users.
#[test]
fn every_user_is_in_the_redis_acl() {
    let rights = fs::read_to_string(deploy::folder().join("redis/users.acl")).unwrap();
    let known = rights.lines().filter_map(|line| line.strip_prefix("user ")?.split(' ').next());
    let known: BTreeSet<String> = known.filter(|user| *user != "default").map(str::to_owned).collect();
    assert_eq!(secrets()["redis-passwords"], known);
    for (workload, _, user) in USERS {
        assert!(known.contains(user), "{workload} is {user}, which is not in users.acl");
    }
}
