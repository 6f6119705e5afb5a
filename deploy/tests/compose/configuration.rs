//! Configuration of third-party services, checked with their own programs.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::Folder;
use testkit::binary::installed;

use crate::file::Compose;
use crate::fixture::ComposeFixture;

/// Fills in the nginx template in the same way as the nginx image: with GNU's `envsubst`, and only for variables that
/// are set. Returns the path of the result.
pub(crate) fn fill_in_nginx(fixture: &ComposeFixture) -> Result<PathBuf> {
    let environment = fixture.environment("nginx")?;
    let variables: Vec<String> = environment.keys().map(|name| format!("${{{name}}}")).collect();
    let (template, configuration) = template_and_result(fixture)?;
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

/// Returns the paths of template and result. The image reads `<name>.template` from one folder and writes `<name>` to
/// another.
fn template_and_result(fixture: &ComposeFixture) -> Result<(PathBuf, PathBuf)> {
    let templates = Path::new("/etc/nginx/templates");
    let folders = fixture.folders("nginx")?;
    let template =
        folders.iter().find_map(|(inside, local)| Some((inside.strip_prefix(templates).ok()?, local)));
    let (name, template) = template.context("no template in the folder that the image reads")?;
    let result = fixture.environment("nginx")?["NGINX_ENVSUBST_OUTPUT_DIR"].clone();
    let name = name
        .to_str()
        .and_then(|name| name.strip_suffix(".template"))
        .context("the image ignores other names")?;
    Ok((template.clone(), Path::new(&result).join(name)))
}

#[test]
fn nginx_loads_its_filled_in_template() {
    let fixture = ComposeFixture::new().unwrap();
    let configuration = fill_in_nginx(&fixture).unwrap();
    let text = fs::read_to_string(&configuration).unwrap();
    assert!(!text.contains("${NGINX_"), "{text}");
    assert!(text.contains("$http_idempotency_key"), "a variable of nginx was replaced");
    for server_line in [" max_fails=3 fail_timeout=1s;", " max_fails=0 backup;"] {
        assert_eq!(text.matches(server_line).count(), fixture.services("node-").len(), "{server_line}");
    }

    let checked = Command::new(installed("nginx").unwrap())
        .args(["-t", "-e", "stderr", "-c"])
        .arg(&configuration)
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && !output.contains("[warn]"), "{output}");
}

/// Creates the folder that a container has at a path, from everything mounted below it.
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
fn prometheus_finds_targets_for_each_job() {
    let folder = mounted(&Compose::read(), "prometheus", "/etc/prometheus");
    let configuration = folder.path().join("prometheus.yml");
    let checked = Command::new("promtool").args(["check", "config"]).arg(&configuration).output().unwrap();
    let output = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{output}");
    // promtool accepts a pattern that matches no file.
    let jobs = fs::read_to_string(&configuration).unwrap();
    let patterns: Vec<&str> = jobs
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- files: [\"")?.strip_suffix("*.json\"]"))
        .collect();
    assert_eq!(patterns.len(), 5);
    for pattern in patterns {
        let file = folder.path().join(format!("{pattern}.json"));
        let groups: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        assert!(!groups[0]["targets"].as_array().unwrap().is_empty(), "{pattern}");
    }
}

/// Every instance of the project's programs is scraped.
#[test]
fn prometheus_scrapes_every_instance() {
    let (compose, targets) = (Compose::read(), Compose::scrape_targets());
    let watched = ["node-", "coordinator-", "ledger-", "redis-"];
    for name in compose.services.keys().filter(|name| watched.iter().any(|prefix| name.starts_with(prefix))) {
        assert!(targets.contains(&format!("{name}:")), "{name} is not scraped");
    }
}

#[test]
fn grafana_finds_its_provisioned_files() {
    let compose = Compose::read();
    let grafana = &compose.services["grafana"];
    let provisioning = mounted(&compose, "grafana", "/etc/grafana");
    for kind in ["datasources/prometheus.yaml", "dashboards/flashsale.yaml"] {
        let text = fs::read_to_string(provisioning.path().join("provisioning").join(kind)).unwrap();
        let wanted = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
        for (variable, _) in wanted {
            assert!(grafana.environment.contains_key(variable), "{kind} needs {variable}");
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
