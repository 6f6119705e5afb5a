//! The project's programs, started with the settings of their pods.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use testkit::ports::{PortBlock, loopback};
use testkit::security::make_certificates;
use testkit::{Folder, Launch, binary, until};

use crate::overlay::{Overlay, built, text};
use crate::settings::health_path;
use crate::workload::Container;

/// Time for a process to start, on a machine that builds at the same time.
const START_LIMIT: Duration = Duration::from_secs(20);
/// A secret of the minimum length.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// A secret that signs deliveries.
const WEBHOOK_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The public key of RFC 8037, appendix A.
const JWKS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"one","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A program, and the variables of one of its containers.
type ProgramSettings = (&'static str, Vec<(String, String)>);

/// Returns each distinct set of settings, with one of the containers that have it.
fn all_settings() -> BTreeMap<ProgramSettings, (&'static Overlay, Container<'static>)> {
    let mut all_settings = BTreeMap::new();
    for overlay in built() {
        for container in overlay.containers().into_iter().filter(|it| it.workload.serves()) {
            let Some(program) = container.program() else { continue };
            let environment = overlay.environment(&container).into_iter();
            let environment = environment.filter_map(|(name, value)| Some((name, value?))).collect();
            all_settings.insert((program, environment), (overlay, container));
        }
    }
    all_settings
}

/// Launches a program like its pod: secret files are replaced by local ones, and ports by free ones.
fn launch(program: &str, settings: &[(String, String)], folder: &Path, ports: &PortBlock) -> Result<Launch> {
    let mut launch = Launch::new(program, binary(program)?, folder);
    for (name, value) in settings {
        let value = match name.strip_suffix("_FILE") {
            Some("REDIS_CA" | "DATABASE_CA" | "AMQP_CA") => folder.join("ca.crt").display().to_string(),
            Some("JWT_JWKS") => folder.join("jwks.json").display().to_string(),
            Some("WEBHOOK_SECRET") => folder.join("webhook").display().to_string(),
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

/// Starts a program without Redis and checks that it accepts its settings: it is alive but not ready, at the paths
/// and ports of its probes.
async fn waits_for_redis(
    program: &str,
    settings: &[(String, String)],
    container: &Container<'_>,
) -> Result<()> {
    let (folder, ports) = (Folder::temporary()?, PortBlock::take()?);
    make_certificates(folder.path(), "redis")?;
    fs::write(folder.path().join("secret"), SECRET)?;
    fs::write(folder.path().join("webhook"), WEBHOOK_SECRET)?;
    fs::write(folder.path().join("jwks.json"), JWKS)?;
    let process = launch(program, settings, folder.path(), &ports)?.spawn()?;
    let probe_port = |probe: &str| match text(&container.value[probe]["httpGet"]["port"]) {
        "ops" => ports.first() + 1,
        _ => ports.first(),
    };
    for (probe, wanted) in [("startupProbe", 200), ("livenessProbe", 200), ("readinessProbe", 503)] {
        let (port, path) = (probe_port(probe), health_path(probe));
        let answers = until(probe, START_LIMIT, async || {
            process.exit_status().is_some() || status(port, path).await.is_ok_and(|status| status == wanted)
        });
        answers.await.with_context(|| process.log_tail())?;
        ensure!(process.exit_status().is_none(), "{}", process.log_tail());
    }
    Ok(())
}

#[tokio::test]
async fn programs_accept_their_settings() {
    let all_settings = all_settings();
    assert!(all_settings.len() >= 4, "some overlays have their own settings");
    for ((program, settings), (overlay, container)) in &all_settings {
        let started = waits_for_redis(program, settings, container).await;
        started.unwrap_or_else(|error| panic!("{} {program}: {error:#}", overlay.name));
    }
}

#[tokio::test]
async fn programs_name_an_invalid_setting() {
    for ((program, mut settings), (_, container)) in all_settings() {
        settings.push(("REDIS_CONNECT_TIMEOUT".to_owned(), "soon".to_owned()));
        let refused = waits_for_redis(program, &settings, &container).await.unwrap_err();
        assert!(format!("{refused:#}").contains("REDIS_CONNECT_TIMEOUT"), "{refused:#}");
    }
}
