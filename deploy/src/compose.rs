//! `deploy/compose.yaml`, as far as tests hold it against something.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The whole file, with its anchors followed.
#[derive(Debug, Deserialize)]
pub struct Compose {
    /// What runs.
    pub services: BTreeMap<String, Service>,
    /// What outlives it.
    pub volumes: BTreeMap<String, Option<IgnoredAny>>,
}

/// A container.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Service {
    /// What it is made of.
    pub image: String,
    /// How that is built, if it is ours.
    pub build: Option<Build>,
    /// What it runs, instead of the image's own.
    pub entrypoint: Vec<String>,
    /// With which arguments.
    pub command: Vec<String>,
    /// Whom it waits for.
    pub depends_on: BTreeMap<String, Dependency>,
    /// Its settings.
    pub environment: BTreeMap<String, String>,
    /// Ports of the host that lead to it, `address:port:port`.
    pub ports: Vec<String>,
    /// What it sees of the host and of volumes.
    pub volumes: Vec<Mount>,
    /// Folders in memory, each with options behind a colon.
    pub tmpfs: Vec<String>,
    /// What tells whether it is healthy.
    pub healthcheck: Option<IgnoredAny>,
    /// Whether it can change nothing of its image.
    pub read_only: bool,
    /// Rights of root that it does without.
    pub cap_drop: Vec<String>,
    /// Further restrictions.
    pub security_opt: Vec<String>,
    /// What becomes of it when it ends.
    pub restart: String,
    /// How long it may take to end.
    pub stop_grace_period: Option<String>,
    /// What it may take.
    pub deploy: Option<Deploy>,
    /// Its place in a network, where it has a fixed one.
    pub networks: BTreeMap<String, StaticAddress>,
}

/// A fixed place in a network.
#[derive(Debug, Deserialize)]
pub struct StaticAddress {
    /// Its address.
    pub ipv4_address: String,
}

/// How an image of ours is built.
#[derive(Debug, Deserialize)]
pub struct Build {
    /// Where its context is, from here.
    pub context: String,
    /// The file, from the context.
    pub dockerfile: String,
    /// The stage.
    pub target: String,
}

/// What has to be so before a container starts.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// In Compose's words.
    pub condition: String,
}

/// Limits, where Compose has them.
#[derive(Debug, Deserialize)]
pub struct Deploy {
    /// As the cluster's scheduler would.
    pub resources: Resources,
}

/// What a container may take.
#[derive(Debug, Deserialize)]
pub struct Resources {
    /// At most.
    pub limits: BTreeMap<String, String>,
}

/// A folder or file that a container sees.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "MountSyntax")]
pub struct Mount {
    /// A path from here, or a volume's name.
    pub source: String,
    /// Where the container sees it.
    pub target: String,
    /// The folder of the volume that is seen, where it is not the whole.
    pub subpath: String,
    /// Whether it can only be read.
    pub read_only: bool,
}

impl Mount {
    /// Whether it is a path of the repository, and no volume.
    pub fn is_path(&self) -> bool {
        self.source.starts_with('.')
    }
}

/// The two ways to write a mount down.
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

/// Reads the file.
///
/// # Errors
/// When it is not what Compose would take.
pub fn read() -> Result<Compose> {
    let text = fs::read_to_string(crate::folder().join("compose.yaml"))?;
    serde_saphyr::from_str(&text).context("deploy/compose.yaml")
}
