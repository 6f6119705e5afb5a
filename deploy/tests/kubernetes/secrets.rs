//! Access of workloads to passwords.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::Value;

use crate::Faults;
use crate::overlay::{Overlay, folder, list, pairs, text};
use crate::workload::Container;

/// The keys of each Secret.
pub(crate) type Secrets = BTreeMap<String, BTreeSet<String>>;

/// The Redis user of each workload in `redis/users.acl`, and the variable that names it. The scripts of the servers
/// name theirs.
const USERS: [(&str, Option<&str>, &str); 6] = [
    ("flashsale-node", Some("REDIS_USERNAME"), "node"),
    ("flashsale-coordinator", Some("REDIS_USERNAME"), "coordinator"),
    ("flashsale-ledger", Some("REDIS_USERNAME"), "ledger"),
    ("redis", None, "replica"),
    ("redis-exporter", Some("REDIS_USER"), "exporter"),
    ("redis-cluster", Some("REDIS_USERNAME"), "admin"),
];
/// Secrets with passwords of Redis' users.
const PASSWORDS: [&str; 2] = ["redis-logins", "redis-servers"];
/// Ending of the keys with hashes. A hash verifies a password and cannot be used to log in.
const HASHES_SUFFIX: &str = ".sha256";
/// Words in the names of variables whose values are secret.
const SECRET_WORDS: [&str; 4] = ["PASSWORD", "TOKEN", "SECRET", "CREDENTIAL"];
/// Endings of variables that contain only the location of a secret.
const LOCATION_SUFFIXES: [&str; 2] = ["_FILE", "_FOLDER"];

/// Each workload logs in as its own user and can read no other password. Servers have hashes of the others.
pub(crate) fn own_user(overlay: &Overlay, faults: &mut Faults) {
    let secrets = secrets();
    for container in &overlay.containers() {
        let mut fault = |reason: String| faults.add_in_container(container, "", reason);
        let Some((_, variable, user)) =
            USERS.iter().find(|(workload, ..)| *workload == container.application())
        else {
            fault("its user is unknown".to_owned());
            continue;
        };
        let seen = passwords(container, &secrets);
        if seen != BTreeSet::from([(*user).to_owned()]) {
            fault(format!("it can read the passwords of {seen:?}, but is {user}"));
        }
        let Some(variable) = variable else { continue };
        if overlay.environment(container).get(*variable).cloned().flatten().as_deref() != Some(user) {
            fault(format!("{variable} is not {user}"));
        }
    }
}

/// Returns the users whose passwords a container can read.
fn passwords(container: &Container<'_>, secrets: &Secrets) -> BTreeSet<String> {
    let keys = |name: &Value, chosen: Vec<&str>| {
        let name = text(name);
        let all = || secrets.get(name).into_iter().flatten().cloned().collect();
        match PASSWORDS.contains(&name) {
            false => Vec::new(),
            true if chosen.is_empty() => all(),
            true => chosen.into_iter().map(str::to_owned).collect(),
        }
    };
    let mounted = container.volumes().map(|(_, volume)| &volume["secret"]);
    let files = mounted.flat_map(|secret| {
        keys(&secret["secretName"], list(&secret["items"]).iter().map(|item| text(&item["key"])).collect())
    });
    let variables = list(&container.value["env"]).iter().map(|entry| &entry["valueFrom"]["secretKeyRef"]);
    let single = variables.flat_map(|key| keys(&key["name"], vec![text(&key["key"])]));
    let sources = list(&container.value["envFrom"]).iter().map(|source| &source["secretRef"]["name"]);
    let whole = sources.flat_map(|name| keys(name, Vec::new()));
    files.chain(single).chain(whole).filter(|key| !key.ends_with(HASHES_SUFFIX)).collect()
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
    let has_login = |value: &str| {
        let urls = value.split(',').filter_map(|url| url.split_once("://"));
        urls.filter_map(|(_, rest)| rest.split_once('@')).any(|(login, _)| login.contains(':'))
    };
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

/// The README lists a password or its hashes for every Redis user, and each workload is one of the users.
#[test]
fn every_user_is_in_the_redis_acl() {
    let rights = fs::read_to_string(deploy::folder().join("redis/users.acl")).unwrap();
    let known = rights.lines().filter_map(|line| line.strip_prefix("user ")?.split(' ').next());
    let known: BTreeSet<String> = known.filter(|user| *user != "default").map(str::to_owned).collect();
    let user = |key: &String| key.strip_suffix(HASHES_SUFFIX).unwrap_or(key).to_owned();
    assert_eq!(secrets()["redis-servers"].iter().map(user).collect::<BTreeSet<_>>(), known);
    for (workload, _, user) in USERS {
        assert!(known.contains(user), "{workload} is {user}, which is not in users.acl");
    }
}

/// Runs `secrets.sh` with a program in the place of `kubectl` that prints its arguments.
#[test]
fn servers_get_hashes_and_only_their_own_password() {
    let folder = testkit::Folder::temporary().unwrap();
    let bin = folder.subfolder("bin").unwrap();
    fs::write(bin.join("kubectl"), "#!/bin/sh\necho \"$@\"\n").unwrap();
    fs::set_permissions(bin.join("kubectl"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let run = || {
        let script = self::folder().join("secrets.sh");
        let run = Command::new("sh").arg(script).arg(folder.path()).env("PATH", &path).output().unwrap();
        assert!(run.status.success(), "{run:?}");
        String::from_utf8(run.stdout).unwrap()
    };
    let file = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();

    // Given two passwords of a node, and one of each other user.
    run();
    let first = file("redis-passwords/node");
    fs::write(folder.path().join("redis-passwords/node"), format!("{first}\nsecond \\one")).unwrap();
    let printed = run();

    // Then each Secret has the keys of the README.
    let listed = secrets();
    for line in printed.lines().filter(|line| line.starts_with("create secret")) {
        let name = line.split(' ').nth(3).unwrap();
        let keys =
            line.split("--from-file=").skip(1).map(|it| it.trim().rsplit('/').next().unwrap().to_owned());
        assert_eq!(keys.collect::<BTreeSet<_>>(), listed[name], "{name}");
    }
    // And the servers have the hashes of both passwords, and no password of a client.
    for (user, passwords) in
        [("node", vec![&*first, "second \\one"]), ("admin", vec![&*file("redis-logins/admin")])]
    {
        let hashes = passwords.iter().map(|it| format!("{}\n", testkit::security::digest(it)));
        assert_eq!(file(&format!("redis-servers/{user}.sha256")), hashes.collect::<String>(), "{user}");
    }
    for key in &listed["redis-servers"] {
        let seen = file(&format!("redis-servers/{key}"));
        for user in ["node", "coordinator", "ledger", "exporter", "admin"] {
            let password = file(&format!("redis-logins/{user}"));
            assert!(!password.is_empty() && !seen.contains(&password), "{key} has the password of {user}");
        }
    }
}
