//! What other programs are configured with, by those programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use deploy::compose::{Compose, read};
use serde_json::Value;
use testkit::Folder;
use testkit::binary::installed;

use crate::fixture::ComposeFixture;

/// Fills in the template as nginx' image does: with GNU's `envsubst`, and only what is set in the environment. Tells where
/// the result is.
pub(crate) fn fill_in_nginx(here: &ComposeFixture) -> Result<PathBuf> {
    let environment = here.environment("nginx")?;
    let variables: Vec<String> = environment.keys().map(|name| format!("${{{name}}}")).collect();
    let (template, configuration) = template_and_result(here)?;
    let filled = Command::new("envsubst")
        .arg(variables.join(" "))
        .stdin(fs::File::open(template)?)
        .envs(&environment)
        .output()
        .context("envsubst of gettext-base")?;
    ensure!(filled.status.success(), "{}", String::from_utf8_lossy(&filled.stderr));
    fs::write(&configuration, filled.stdout)?;
    Ok(configuration)
}

/// The image takes `<name>.template` of one folder, and writes `<name>` into another.
fn template_and_result(here: &ComposeFixture) -> Result<(PathBuf, PathBuf)> {
    let templates = Path::new("/etc/nginx/templates");
    let folders = here.folders("nginx")?;
    let template =
        folders.iter().find_map(|(inside, here)| Some((inside.strip_prefix(templates).ok()?, here)));
    let (name, template) = template.context("no template is where the image looks for it")?;
    let result = here.environment("nginx")?["NGINX_ENVSUBST_OUTPUT_DIR"].clone();
    let name =
        name.to_str().and_then(|name| name.strip_suffix(".template")).context("the image passes over it")?;
    Ok((template.clone(), Path::new(&result).join(name)))
}

#[test]
fn nginx_loads_its_template_and_nothing_is_left_to_fill_in() {
    let here = ComposeFixture::new().unwrap();
    let configuration = fill_in_nginx(&here).unwrap();
    let text = fs::read_to_string(&configuration).unwrap();
    assert!(!text.contains("${NGINX_"), "{text}");
    assert!(text.contains("$http_idempotency_key"), "what is nginx' own is gone");
    for once in [" max_fails=3 fail_timeout=1s;", " max_fails=0 backup;"] {
        assert_eq!(text.matches(once).count(), here.services("node-").len(), "{once}");
    }

    let checked = Command::new(installed("nginx").unwrap())
        .args(["-t", "-e", "stderr", "-c"])
        .arg(&configuration)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && !words.contains("[warn]"), "{words}");
}

/// The folder that a container sees at a path, made of what is mounted below it.
fn mounted(compose: &Compose, service: &str, path: &str) -> Folder {
    let folder = Folder::temporary().expect("a folder");
    for mount in compose.services[service].volumes.iter().filter(|mount| mount.is_path()) {
        if let Ok(below) = Path::new(&mount.target).strip_prefix(path) {
            symlink(deploy::folder().join(&mount.source), folder.path().join(below)).expect("a link");
        }
    }
    folder
}

#[test]
fn prometheus_loads_its_configuration_and_finds_targets_for_each_job() {
    let folder = mounted(&read().unwrap(), "prometheus", "/etc/prometheus");
    let configuration = folder.path().join("prometheus.yml");
    let checked = Command::new("promtool").args(["check", "config"]).arg(&configuration).output().unwrap();
    let words = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{words}");
    // It is content with a pattern that no file matches.
    let jobs = fs::read_to_string(&configuration).unwrap();
    let patterns: Vec<&str> = jobs
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- files: [\"")?.strip_suffix("*.json\"]"))
        .collect();
    assert_eq!(patterns.len(), 4);
    for pattern in patterns {
        let file = folder.path().join(format!("{pattern}.json"));
        let groups: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert!(!groups[0]["targets"].as_array().unwrap().is_empty(), "{pattern}");
    }
}

/// Everything of ours runs twice or more, and nobody is left unwatched.
#[test]
fn prometheus_watches_everybody() {
    let compose = read().unwrap();
    let targets = deploy::folder().join("compose/targets");
    let targets: String = fs::read_dir(targets)
        .unwrap()
        .map(|file| fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    let watched = ["node-", "coordinator-", "redis-"];
    for name in compose.services.keys().filter(|name| watched.iter().any(|prefix| name.starts_with(prefix))) {
        assert!(targets.contains(&format!("{name}:")), "nobody watches {name}");
    }
}

#[test]
fn grafana_finds_what_it_is_provisioned_with() {
    let compose = read().unwrap();
    let grafana = &compose.services["grafana"];
    let provisioning = mounted(&compose, "grafana", "/etc/grafana");
    for kind in ["datasources/prometheus.yaml", "dashboards/flashsale.yaml"] {
        let text = fs::read_to_string(provisioning.path().join("provisioning").join(kind)).unwrap();
        let wanted = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
        for (variable, _) in wanted {
            assert!(grafana.environment.contains_key(variable), "{kind} wants {variable}");
        }
    }
    let dashboards = &grafana.environment["FLASHSALE_DASHBOARDS"];
    let mount =
        grafana.volumes.iter().find(|mount| mount.target == *dashboards).expect("dashboards are mounted");
    let files = fs::read_dir(deploy::folder().join(&mount.source)).unwrap();
    assert!(files.count() >= 4);
    let (_, source) = grafana.environment["PROMETHEUS_URL"].split_once("://").unwrap();
    assert!(compose.services.contains_key(source.split(':').next().unwrap()), "{source}");
}
