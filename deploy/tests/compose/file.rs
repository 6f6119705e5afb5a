//! The parts of `deploy/compose.yaml` that tests check.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// The whole file, with its anchors resolved.
#[derive(Deserialize)]
pub(crate) struct Compose {
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) volumes: BTreeMap<String, Option<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) image: String,
    /// Build of the image, for the project's own images.
    pub(crate) build: Option<Build>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) command: Vec<String>,
    pub(crate) depends_on: BTreeMap<String, Dependency>,
    pub(crate) environment: BTreeMap<String, String>,
    /// Published ports, `address:port:port`.
    pub(crate) ports: Vec<String>,
    pub(crate) volumes: Vec<Mount>,
    /// Folders in memory. Options follow after a colon.
    pub(crate) tmpfs: Vec<String>,
    pub(crate) healthcheck: Option<Healthcheck>,
    pub(crate) read_only: bool,
    pub(crate) cap_drop: Vec<String>,
    pub(crate) security_opt: Vec<String>,
    pub(crate) restart: String,
    pub(crate) stop_grace_period: Option<String>,
    pub(crate) deploy: Deploy,
    /// Networks other than the default one, and its address there.
    pub(crate) networks: BTreeMap<String, Place>,
}

/// A health check instead of the image's.
#[derive(Deserialize)]
pub(crate) struct Healthcheck {
    /// True when there is none.
    #[serde(default)]
    pub(crate) disable: bool,
}

#[derive(Deserialize)]
pub(crate) struct Place {
    /// A static address.
    pub(crate) ipv4_address: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Build {
    /// Build context, relative to `deploy`.
    pub(crate) context: String,
    /// Path relative to the context.
    pub(crate) dockerfile: String,
    /// Build stage.
    pub(crate) target: String,
}

#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) condition: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Deploy {
    pub(crate) resources: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Resources {
    pub(crate) limits: BTreeMap<String, String>,
}

/// A mounted folder or file.
#[derive(Deserialize)]
#[serde(from = "MountSyntax")]
pub(crate) struct Mount {
    /// A path relative to `deploy`, or the name of a volume.
    pub(crate) source: String,
    /// Path in the container.
    pub(crate) target: String,
    /// The mounted folder of the volume. Empty for the whole volume.
    pub(crate) subpath: String,
    /// True when the container cannot write to it.
    pub(crate) read_only: bool,
}

impl Mount {
    /// Returns true for a path of the repository, and false for a volume.
    pub(crate) fn is_path(&self) -> bool {
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

impl Compose {
    /// Reads `deploy/compose.yaml`.
    pub(crate) fn read() -> Self {
        let text = fs::read_to_string(deploy::folder().join("compose.yaml")).expect("the file exists");
        serde_saphyr::from_str(&text).expect("deploy/compose.yaml is valid")
    }

    /// Returns the services of the project's own programs.
    pub(crate) fn own_services(&self) -> impl Iterator<Item = (&str, &Service, &Build)> {
        self.services.iter().filter_map(|(name, service)| Some((&**name, service, service.build.as_ref()?)))
    }

    /// Returns the texts of all files with scrape targets.
    pub(crate) fn scrape_targets() -> String {
        let files = fs::read_dir(deploy::folder().join("compose/targets")).expect("a folder of targets");
        files.map(|file| fs::read_to_string(file.expect("a file").path()).expect("a text")).collect()
    }
}
