//! The stages of `deploy/containers/Dockerfile` and the images that they build.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};

/// A build stage, from its `FROM` to the next.
#[derive(Debug)]
pub struct Stage {
    /// The base image or base stage.
    pub from: String,
    /// The name of the stage, used by other stages and by `--target`.
    pub name: String,
    /// Instructions: the keyword in upper case and the rest.
    pub instructions: Vec<(String, String)>,
}

/// The properties of an image that are known without building it. An instruction of a later stage replaces an earlier
/// one.
#[derive(Debug, Default)]
pub struct Image {
    /// User and group.
    pub user: String,
    /// Program and arguments.
    pub entrypoint: Vec<String>,
    /// Command of the health check.
    pub healthcheck: Vec<String>,
    /// Exposed ports.
    pub exposed: Vec<u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// Returns the arguments before the first stage, with their defaults.
///
/// # Errors
/// Fails when the file cannot be read.
pub fn arguments() -> Result<BTreeMap<String, String>> {
    let instructions = instructions()?.into_iter().take_while(|(keyword, _)| keyword != "FROM");
    let arguments = instructions.filter(|(keyword, _)| keyword == "ARG");
    Ok(arguments.filter_map(|(_, argument)| pair(&argument)).collect())
}

/// Returns all stages in order.
///
/// # Errors
/// Fails when the file cannot be read, or a stage has no name.
pub fn stages() -> Result<Vec<Stage>> {
    let mut stages: Vec<Stage> = Vec::new();
    for (keyword, rest) in instructions()? {
        if keyword == "FROM" {
            let (from, name) = rest.split_once(" AS ").with_context(|| format!("{rest} has no name"))?;
            stages.push(Stage { from: from.to_owned(), name: name.to_owned(), instructions: Vec::new() });
        } else if let Some(stage) = stages.last_mut() {
            stage.instructions.push((keyword, rest));
        }
    }
    Ok(stages)
}

/// Returns the image that `--target` builds, including the instructions of its base stages.
///
/// # Errors
/// Fails when no such stage exists, or an instruction cannot be parsed.
pub fn image(target: &str) -> Result<Image> {
    let stages = stages()?;
    let stage = stages.iter().find(|stage| stage.name == target);
    let stage = stage.with_context(|| format!("no stage is named {target}"))?;
    let is_ours = stages.iter().any(|other| other.name == stage.from);
    let base = if is_ours { image(&stage.from)? } else { Image::default() };
    stage.instructions.iter().try_fold(base, Image::with)
}

impl Image {
    fn with(mut self, (keyword, rest): &(String, String)) -> Result<Self> {
        match keyword.as_str() {
            "USER" => self.user.clone_from(rest),
            "ENTRYPOINT" => self.entrypoint = parse_exec_form(rest)?,
            "HEALTHCHECK" => {
                let (_, command) = rest.split_once("CMD ").context("a healthcheck has no CMD")?;
                self.healthcheck = parse_exec_form(command)?;
            }
            "EXPOSE" => {
                let ports: Result<Vec<u16>, _> = rest.split_whitespace().map(str::parse).collect();
                self.exposed.extend(ports?);
            }
            "LABEL" => self.labels.extend(labels(rest)),
            _ => {}
        }
        Ok(self)
    }
}

/// Parses the exec form, which needs no shell: `["program", "argument"]`.
fn parse_exec_form(command: &str) -> Result<Vec<String>> {
    serde_saphyr::from_str(command).with_context(|| format!("{command} would be run by a shell"))
}

fn labels(rest: &str) -> impl Iterator<Item = (String, String)> {
    rest.split("org.").skip(1).filter_map(|label| pair(&format!("org.{label}")))
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    Some((name.to_owned(), value.trim().trim_matches('"').to_owned()))
}

/// Reads the instructions without comments. Continuation lines are joined.
fn instructions() -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(crate::folder().join("containers/Dockerfile"))?;
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let joined = lines.join("\n").replace("\\\n", " ");
    let instructions = joined.lines().filter_map(|line| line.split_once(' '));
    Ok(instructions.map(|(keyword, rest)| (keyword.to_owned(), in_one_line(rest))).collect())
}

fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
