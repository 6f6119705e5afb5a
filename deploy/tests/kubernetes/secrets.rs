//! Who knows which password.

use std::collections::BTreeSet;

use deploy::kubernetes::{Container, Overlay, list, pairs, text};
use serde_json::Value;

use crate::Fault;

/// The user of each workload, as it is called in `redis/users.acl`, and the variable that names it. A server knows them
/// all: it is who checks them.
const USERS: [(&str, &str, &str); 4] = [
    ("flashsale-node", "REDIS_USERNAME", "node"),
    ("flashsale-coordinator", "REDIS_USERNAME", "coordinator"),
    ("redis-exporter", "REDIS_USER", "exporter"),
    ("redis-cluster", "", "admin"),
];
/// Where passwords are.
const LOGINS: [&str; 2] = ["redis-logins", "redis-passwords"];
/// What a variable is called whose value nobody may read in a manifest.
const SECRET_WORDS: [&str; 4] = ["PASSWORD", "TOKEN", "SECRET", "CREDENTIAL"];
/// Endings of variables that only say where something secret is.
const SAYS_WHERE: [&str; 2] = ["_FILE", "_FOLDER"];

/// Each logs in as its own user, and sees no other's password; its Secret's other keys neither.
pub(crate) fn users(overlay: &Overlay) -> Vec<Fault> {
    let mut faults = Vec::new();
    for container in &overlay.containers() {
        let name = container.workload.labels().remove("app.kubernetes.io/name").unwrap_or_default();
        let mut fault =
            |why: String| faults.push(Fault::of(container.workload.object, container.at.clone(), why));
        let seen = passwords(container);
        if name == "redis" {
            if seen.iter().any(|key| *key != "*") {
                fault(format!("it knows only {seen:?}"));
            }
            continue;
        }
        let Some((_, variable, user)) = USERS.iter().find(|(workload, ..)| *workload == name) else {
            fault("nobody knows which user it is".to_owned());
            continue;
        };
        if seen != BTreeSet::from([*user]) {
            fault(format!("it sees the passwords {seen:?}, and is {user}"));
        }
        let environment = overlay.environment(container);
        if !variable.is_empty() && environment.get(*variable).cloned().flatten().as_deref() != Some(user) {
            fault(format!("{variable} is not {user}"));
        }
    }
    faults
}

/// Keys of the Secrets with passwords that a container sees; `*` are all.
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

/// Nothing secret stands in a manifest.
pub(crate) fn in_the_open(overlay: &Overlay) -> Vec<Fault> {
    let secrets = overlay.of_kind("Secret");
    let mut faults: Vec<Fault> =
        secrets.map(|secret| Fault::of(secret, "/data", "people make it, no manifest does")).collect();
    let looks_secret = |name: &str| {
        SECRET_WORDS.iter().any(|word| name.to_uppercase().contains(word))
            && !SAYS_WHERE.iter().any(|ending| name.ends_with(ending))
    };
    // A URL with somebody's name in it has the password beside it.
    let has_login = |value: &str| value.split(',').any(|url| url.contains("://") && url.contains('@'));
    let is_open = |name: &str, value: &str| (looks_secret(name) && !value.is_empty()) || has_login(value);
    for container in &overlay.containers() {
        for entry in list(&container.value["env"]) {
            let name = text(&entry["name"]);
            if is_open(name, text(&entry["value"])) {
                let field = format!("{}/env/{name}", container.at);
                faults.push(Fault::of(container.workload.object, field, "anybody could read it"));
            }
        }
    }
    for map in overlay.of_kind("ConfigMap") {
        for (name, value) in pairs(&map.0["data"]).filter(|(_, value)| !text(value).contains('\n')) {
            if is_open(name, text(value)) {
                faults.push(Fault::of(map, format!("/data/{name}"), "anybody could read it"));
            }
        }
    }
    faults
}

/// The users that Redis knows are those that there are passwords for, and each workload is one of them.
#[test]
fn every_user_is_one_of_redis() {
    let rights = std::fs::read_to_string(deploy::folder().join("redis/users.acl")).unwrap();
    let known = rights.lines().filter_map(|line| line.strip_prefix("user ")?.split(' ').next());
    let known: BTreeSet<String> = known.filter(|user| *user != "default").map(str::to_owned).collect();
    assert_eq!(deploy::kubernetes::secrets().unwrap()["redis-passwords"], known);
    for (workload, _, user) in USERS {
        assert!(known.contains(user), "{workload} is {user}, whom Redis does not know");
    }
}
