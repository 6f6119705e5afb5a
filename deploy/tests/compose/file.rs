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
    /// Reads `deploy/compose.yaml`, without an `.env` file.
    pub(crate) fn read() -> Self {
        Self::read_with(&BTreeMap::new())
    }

    /// Reads `deploy/compose.yaml` with the variables of an `.env` file.
    pub(crate) fn read_with(variables: &BTreeMap<&str, String>) -> Self {
        let text = fs::read_to_string(deploy::folder().join("compose.yaml")).expect("the file exists");
        let mut compose: Self = serde_saphyr::from_str(&text).expect("deploy/compose.yaml is valid");
        for service in compose.services.values_mut() {
            service.environment.values_mut().for_each(|value| *value = interpolated(value, variables));
        }
        compose
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

/// Replaces `${NAME:-DEFAULT}`, and `${NAME:+VALUE}`, which is VALUE if NAME is not empty.
fn interpolated(text: &str, variables: &BTreeMap<&str, String>) -> String {
    let mut parts = text.split("${");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (variable, rest) = part.split_once('}').expect("a closing brace");
        let (name, otherwise) = variable.split_once(':').expect("a default or a value");
        let value = variables.get(name).cloned().unwrap_or_default();
        let value = match (otherwise.split_at(1), value.is_empty()) {
            (("-", default), true) => default.to_owned(),
            (("+", alternative), false) => alternative.to_owned(),
            _ if otherwise.starts_with('-') => value,
            _ => String::new(),
        };
        text + &value + rest
    })
}
