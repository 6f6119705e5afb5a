//! The parts of `deploy/compose.yaml` that tests check.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The whole file, with its anchors resolved.
#[derive(Debug, Deserialize)]
pub struct Compose {
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// Named volumes.
    pub volumes: BTreeMap<String, Option<IgnoredAny>>,
}

/// One container.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Image reference.
    pub image: String,
    /// Build of the image, for the project's own images.
    pub build: Option<Build>,
    /// Replaces the image's entrypoint.
    pub entrypoint: Vec<String>,
    /// Arguments.
    pub command: Vec<String>,
    /// Services that must start or finish first.
    pub depends_on: BTreeMap<String, Dependency>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Published ports, `address:port:port`.
    pub ports: Vec<String>,
    /// Mounts of host paths and volumes.
    pub volumes: Vec<Mount>,
    /// Folders in memory. Options follow after a colon.
    pub tmpfs: Vec<String>,
    /// Health check.
    pub healthcheck: Option<Healthcheck>,
    /// True when the image's files cannot be changed.
    pub read_only: bool,
    /// Dropped capabilities.
    pub cap_drop: Vec<String>,
    /// Further restrictions.
    pub security_opt: Vec<String>,
    /// Restart policy.
    pub restart: String,
    /// Time to stop before it is killed.
    pub stop_grace_period: Option<String>,
    /// Resource limits.
    pub deploy: Option<Deploy>,
    /// Networks in which the service has a static address.
    pub networks: BTreeMap<String, StaticAddress>,
}

/// A health check that replaces the image's.
#[derive(Debug, Deserialize)]
pub struct Healthcheck {
    /// True when there is none.
    #[serde(default)]
    pub disable: bool,
}

/// A static address in a network.
#[derive(Debug, Deserialize)]
pub struct StaticAddress {
    /// IPv4 address.
    pub ipv4_address: String,
}

/// Build of one of the project's own images.
#[derive(Debug, Deserialize)]
pub struct Build {
    /// Build context, relative to `deploy`.
    pub context: String,
    /// Dockerfile, relative to the context.
    pub dockerfile: String,
    /// Build stage.
    pub target: String,
}

/// A condition for starting a container.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// Name of the condition in Compose.
    pub condition: String,
}

/// The `deploy` section of a service.
#[derive(Debug, Deserialize)]
pub struct Deploy {
    /// Resources of a container.
    pub resources: Resources,
}

/// Resources of a container.
#[derive(Debug, Deserialize)]
pub struct Resources {
    /// Upper limits.
    pub limits: BTreeMap<String, String>,
}

/// A mounted folder or file.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "MountSyntax")]
pub struct Mount {
    /// A path relative to `deploy`, or the name of a volume.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// The mounted folder of the volume. Empty for the whole volume.
    pub subpath: String,
    /// True when the container cannot write to it.
    pub read_only: bool,
}

impl Mount {
    /// Returns true for a path of the repository, and false for a volume.
    pub fn is_path(&self) -> bool {
        self.source.starts_with('.')
    }
}

/// The short and the long syntax of a mount.
#[derive(Deserialize)]
#[serde(untagged)]
enum MountSyntax {
    Short(String),
    Long { source: String, target: String, read_only: bool, volume: Subpath },
}

#[derive(Deserialize)]
struct Subpath {
    subpath: String,
}

impl From<MountSyntax> for Mount {
    fn from(form: MountSyntax) -> Self {
        match form {
            MountSyntax::Short(text) => {
                let (path, read_only) = text.strip_suffix(":ro").map_or((&*text, false), |path| (path, true));
                let (source, target) = path.split_once(':').unwrap_or((path, path));
                Self { source: source.into(), target: target.into(), subpath: String::new(), read_only }
            }
            MountSyntax::Long { source, target, read_only, volume } => {
                Self { source, target, subpath: volume.subpath, read_only }
            }
        }
    }
}

/// Reads `deploy/compose.yaml`.
///
/// # Errors
/// Fails when the file cannot be read or is not valid.
pub fn read() -> Result<Compose> {
    let text = fs::read_to_string(crate::folder().join("compose.yaml"))?;
    serde_saphyr::from_str(&text).context("deploy/compose.yaml")
}
