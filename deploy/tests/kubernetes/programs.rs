//! Our programs with the very settings of their pods.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use deploy::kubernetes::{Container, Overlay, text};
use testkit::ports::{PortBlock, loopback};
use testkit::security::make_certificates;
use testkit::{Folder, Launch, binary, until};

use crate::built;
use crate::settings::health_path;

/// For a process to start, on a machine that builds beside it.
const SOON: Duration = Duration::from_secs(20);
/// As long as any secret of ours has to be.
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A program, and the variables of one of its containers.
type ProgramSettings = (&'static str, Vec<(String, String)>);

/// What each program is told, and one of the containers that tell it.
fn told() -> BTreeMap<ProgramSettings, (&'static Overlay, Container<'static>)> {
    let mut told = BTreeMap::new();
    for overlay in built() {
        for container in overlay.containers() {
            let Some(program) = container.program() else { continue };
            let environment = overlay.environment(&container).into_iter();
            let environment = environment.filter_map(|(name, value)| Some((name, value?))).collect();
            told.insert((program, environment), (overlay, container));
        }
    }
    told
}

/// A pod that nobody has to see: files are here what they are there, and ports are free ones.
fn launch(program: &str, settings: &[(String, String)], folder: &Path, ports: &PortBlock) -> Result<Launch> {
    let mut launch = Launch::new(program, binary(program)?, folder);
    for (name, value) in settings {
        let value = match name.strip_suffix("_FILE") {
            Some("REDIS_CA") => folder.join("ca.crt").display().to_string(),
            Some(_) => folder.join("secret").display().to_string(),
            None => value.clone(),
        };
        launch = launch.env(name, value);
    }
    Ok(launch.env("PORT", ports.first()).env("OPS_PORT", ports.first() + 1))
}

async fn status(port: u16, path: &str) -> Result<u16> {
    let answer = reqwest::get(format!("http://{}{path}", loopback(port))).await?;
    Ok(answer.status().as_u16())
}

/// It takes its settings, and then waits for a Redis that is not there: alive, and not ready, at the paths and ports that
/// its probes ask.
async fn waits_for_redis(
    program: &str,
    settings: &[(String, String)],
    container: &Container<'_>,
) -> Result<()> {
    let (folder, ports) = (Folder::temporary()?, PortBlock::take()?);
    make_certificates(folder.path(), "redis")?;
    fs::write(folder.path().join("secret"), SECRET)?;
    let process = launch(program, settings, folder.path(), &ports)?.spawn()?;
    let asked = |probe: &str| match text(&container.value[probe]["httpGet"]["port"]) {
        "ops" => ports.first() + 1,
        _ => ports.first(),
    };
    for (probe, wanted) in [("startupProbe", 200), ("livenessProbe", 200), ("readinessProbe", 503)] {
        let (port, path) = (asked(probe), health_path(probe));
        let answers = until(probe, SOON, async || {
            process.exit_status().is_some() || status(port, path).await.is_ok_and(|status| status == wanted)
        });
        answers.await.with_context(|| process.log_tail())?;
        ensure!(process.exit_status().is_none(), "{}", process.log_tail());
    }
    Ok(())
}

#[tokio::test]
async fn each_program_takes_its_settings() {
    let told = told();
    assert!(told.len() >= 4, "an overlay says something of its own");
    for ((program, settings), (overlay, container)) in &told {
        let started = waits_for_redis(program, settings, container).await;
        started.unwrap_or_else(|error| panic!("{} {program}: {error:#}", overlay.name));
    }
}

#[tokio::test]
async fn a_program_says_which_setting_it_does_not_take() {
    for ((program, mut settings), (_, container)) in told() {
        settings.push(("REDIS_CONNECT_TIMEOUT".to_owned(), "soon".to_owned()));
        let refused = waits_for_redis(program, &settings, &container).await.unwrap_err();
        assert!(format!("{refused:#}").contains("REDIS_CONNECT_TIMEOUT"), "{refused:#}");
    }
}
