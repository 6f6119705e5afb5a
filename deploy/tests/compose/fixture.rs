//! Containers as plain processes of this machine: what they call each other leads to ports, and what they see to folders.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use deploy::compose::{Compose, Service, read};
use deploy::dockerfile::image;
use testkit::binary::installed;
use testkit::ports::{PortBlock, loopback};
use testkit::{Folder, Launch, binary};

use crate::ports_of;

/// Where everything is on this machine.
pub(crate) struct ComposeFixture {
    compose: Compose,
    ports: BTreeMap<(String, u16), u16>,
    folder: Folder,
    _held: PortBlock,
}

impl ComposeFixture {
    pub(crate) fn new() -> Result<Self> {
        let (compose, held) = (read()?, PortBlock::take()?);
        let mut ports = BTreeMap::new();
        for (name, service) in &compose.services {
            for inside in ports_of(name, service)? {
                let next = held.first() + u16::try_from(ports.len())?;
                ports.insert((name.clone(), inside), next);
            }
        }
        Ok(Self { compose, ports, folder: Folder::temporary()?, _held: held })
    }

    /// The services with such a name, in order.
    pub(crate) fn services(&self, prefix: &str) -> Vec<&str> {
        let names = self.compose.services.keys().map(String::as_str);
        names.filter(|name| name.starts_with(prefix) && !name.ends_with("exporter")).collect()
    }

    /// Where a port of a service is here.
    pub(crate) fn port(&self, service: &str, inside: u16) -> u16 {
        self.ports[&(service.to_owned(), inside)]
    }

    pub(crate) fn url(&self, service: &str, inside: u16, path: &str) -> String {
        format!("http://{}{path}", loopback(self.port(service, inside)))
    }

    /// What a service runs, with its settings.
    pub(crate) fn launch(&self, service: &str) -> Result<Launch> {
        let described = self.service(service);
        let entrypoint = match &described.build {
            Some(build) => image(&build.target)?.entrypoint,
            None => described.entrypoint.clone(),
        };
        let command: Vec<String> = entrypoint.iter().chain(&described.command).cloned().collect();
        self.command(service, service, &command)
    }

    /// The healthcheck of our image, in the same container.
    pub(crate) fn healthcheck(&self, service: &str) -> Result<Launch> {
        let build = self.service(service).build.as_ref().context("it is no image of ours")?;
        self.command(service, &format!("{service}-health"), &image(&build.target)?.healthcheck)
    }

    /// A command in a service's container.
    pub(crate) fn command(&self, service: &str, name: &str, command: &[String]) -> Result<Launch> {
        let (program, arguments) = command.split_first().context("a command names a program")?;
        let program = program.rsplit('/').next().unwrap_or(program);
        let program = if program.starts_with("flashsale-") {
            binary(program)?
        } else {
            installed(program).with_context(|| format!("{program} is not installed"))?
        };
        let arguments: Result<Vec<String>> = arguments.iter().map(|word| self.here(service, word)).collect();
        let launch = Launch::new(name, program, self.folder.path()).args(arguments?);
        let environment = self.environment(service)?;
        Ok(environment.iter().fold(launch, |launch, (variable, value)| launch.env(variable, value)))
    }

    /// A container's settings, as they have to be here.
    pub(crate) fn environment(&self, service: &str) -> Result<BTreeMap<String, String>> {
        let settings = &self.service(service).environment;
        settings.iter().map(|(variable, value)| Ok((variable.clone(), self.here(service, value)?))).collect()
    }

    /// A word of a container's settings or command, as it has to be here.
    pub(crate) fn here(&self, service: &str, text: &str) -> Result<String> {
        // Whoever listens everywhere does so on a port of its own here.
        let mut text = text.replace("0.0.0.0:", &format!("{service}:"));
        for ((name, inside), port) in &self.ports {
            text = text.replace(&format!("{name}:{inside}"), &loopback(*port).to_string());
        }
        let is_a_host = self.compose.services.iter().any(|(name, described)| {
            let has_address = described.networks.values().any(|place| place.ipv4_address == text);
            *name == text || has_address
        });
        if is_a_host {
            return Ok("127.0.0.1".to_owned());
        }
        for (inside, here) in self.folders(service)? {
            if let Ok(below) = Path::new(&text).strip_prefix(inside) {
                return Ok(here.join(below).display().to_string().trim_end_matches('/').to_owned());
            }
        }
        Ok(text)
    }

    /// What a container sees of folders and files, and where that is here.
    pub(crate) fn folders(&self, service: &str) -> Result<Vec<(PathBuf, PathBuf)>> {
        let mut folders = Vec::new();
        for mount in &self.service(service).volumes {
            let here = if mount.is_path() {
                deploy::folder().join(&mount.source)
            } else {
                self.made(&Path::new("volumes").join(&mount.source).join(&mount.subpath))?
            };
            folders.push((PathBuf::from(&mount.target), here));
        }
        for mount in &self.service(service).tmpfs {
            let inside = mount.split(':').next().unwrap_or(mount);
            folders.push((PathBuf::from(inside), self.made(&Path::new("memory").join(service))?));
        }
        Ok(folders)
    }

    fn service(&self, name: &str) -> &Service {
        &self.compose.services[name]
    }

    fn made(&self, folder: &Path) -> Result<PathBuf> {
        let folder = self.folder.path().join(folder);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}
