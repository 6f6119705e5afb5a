//! Runs containers as plain processes on this machine. Host names and ports of services are mapped to local ports,
//! and mounted paths to local folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use deploy::dockerfile::image;
use testkit::binary::installed;
use testkit::ports::{PortBlock, loopback};
use testkit::{Folder, Launch, binary};

use crate::file::{Compose, Service};
use crate::ports_of;

/// The mapping of all services to this machine.
pub(crate) struct ComposeFixture {
    compose: Compose,
    ports: BTreeMap<(String, u16), u16>,
    folder: Folder,
    _block: PortBlock,
}

impl ComposeFixture {
    pub(crate) fn new() -> Result<Self> {
        Self::with(&BTreeMap::new())
    }

    /// Reads Compose with the variables of an `.env` file.
    pub(crate) fn with(variables: &BTreeMap<&str, String>) -> Result<Self> {
        let (compose, block) = (Compose::read_with(variables), PortBlock::take()?);
        let mut ports = BTreeMap::new();
        for (name, service) in &compose.services {
            for inside in ports_of(name, service)? {
                let next = block.first() + u16::try_from(ports.len())?;
                ports.insert((name.clone(), inside), next);
            }
        }
        Ok(Self { compose, ports, folder: Folder::temporary()?, _block: block })
    }

    /// Returns the services whose names begin with `prefix`, in order. Exporters are left out.
    pub(crate) fn services(&self, prefix: &str) -> Vec<&str> {
        let names = self.compose.services.keys().map(String::as_str);
        names.filter(|name| name.starts_with(prefix) && !name.ends_with("exporter")).collect()
    }

    /// Returns the local port for a port of a service.
    pub(crate) fn port(&self, service: &str, inside: u16) -> u16 {
        self.ports[&(service.to_owned(), inside)]
    }

    pub(crate) fn url(&self, service: &str, inside: u16, path: &str) -> String {
        format!("http://{}{path}", loopback(self.port(service, inside)))
    }

    /// Returns a launch of the service's program with its settings.
    pub(crate) fn launch(&self, service: &str) -> Result<Launch> {
        let definition = self.service(service);
        let entrypoint = match &definition.build {
            Some(build) => image(&build.target)?.entrypoint,
            None => definition.entrypoint.clone(),
        };
        let command: Vec<String> = entrypoint.iter().chain(&definition.command).cloned().collect();
        self.command(service, service, &command)
    }

    /// Returns a launch of the image's health check, in the same container.
    pub(crate) fn healthcheck(&self, service: &str) -> Result<Launch> {
        let build = self.service(service).build.as_ref().context("it has no image of the project")?;
        self.command(service, &format!("{service}-health"), &image(&build.target)?.healthcheck)
    }

    /// Returns a launch of a command in a service's container.
    pub(crate) fn command(&self, service: &str, name: &str, command: &[String]) -> Result<Launch> {
        let (program, arguments) = command.split_first().context("a command names a program")?;
        let program = program.rsplit('/').next().unwrap_or(program);
        let program = if program.starts_with("flashsale-") {
            binary(program)?
        } else {
            installed(program).with_context(|| format!("{program} is not installed"))?
        };
        // A subcommand may have the name of its service, which is no host then.
        let argument = |word: &String| match word == service {
            true => Ok(word.clone()),
            false => self.localize(service, word),
        };
        let arguments: Result<Vec<String>> = arguments.iter().map(argument).collect();
        let launch = Launch::new(name, program, self.folder.path()).args(arguments?);
        let environment = self.environment(service)?;
        Ok(environment.iter().fold(launch, |launch, (variable, value)| launch.env(variable, value)))
    }

    /// Returns a container's settings with all addresses and paths mapped to this machine.
    pub(crate) fn environment(&self, service: &str) -> Result<BTreeMap<String, String>> {
        let settings = &self.service(service).environment;
        settings
            .iter()
            .map(|(variable, value)| Ok((variable.clone(), self.localize(service, value)?)))
            .collect()
    }

    /// Maps one word of a container's settings or command to this machine.
    pub(crate) fn localize(&self, service: &str, text: &str) -> Result<String> {
        // A service that listens on all addresses gets its own local port.
        let mut text = text.replace("0.0.0.0:", &format!("{service}:"));
        for ((name, inside), port) in &self.ports {
            text = text.replace(&format!("{name}:{inside}"), &loopback(*port).to_string());
        }
        let is_a_host = self.compose.services.iter().any(|(name, definition)| {
            let has_address =
                definition.networks.values().any(|place| place.ipv4_address.as_ref() == Some(&text));
            *name == text || has_address
        });
        if is_a_host {
            return Ok("127.0.0.1".to_owned());
        }
        for (inside, local) in self.folders(service)? {
            if let Ok(below) = Path::new(&text).strip_prefix(inside) {
                return Ok(local.join(below).display().to_string().trim_end_matches('/').to_owned());
            }
        }
        Ok(text)
    }

    /// Returns the paths of mounts in a container, and the local paths for them.
    pub(crate) fn folders(&self, service: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut folders = Vec::new();
        for mount in &self.service(service).volumes {
            let local = if mount.is_path() {
                deploy::folder().join(&mount.source)
            } else {
                self.create(&Path::new("volumes").join(&mount.source).join(&mount.subpath))?
            };
            folders.push((PathBuf::from(&mount.target), local));
        }
        for mount in &self.service(service).tmpfs {
            let inside = mount.split(':').next().unwrap_or(mount);
            folders.push((PathBuf::from(inside), self.create(&Path::new("memory").join(service))?));
        }
        Ok(folders)
    }

    fn service(&self, name: &str) -> &Service {
        &self.compose.services[name]
    }

    fn create(&self, folder: &Path) -> Result<PathBuf> {
        let folder = self.folder.path().join(folder);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}
