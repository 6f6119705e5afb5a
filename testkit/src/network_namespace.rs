//! A network namespace for one process, connected to the host by a link that can be taken down. It simulates a network
//! partition between machines.
//!
//! Processes on the loopback address cannot be separated. A server in a namespace is reached over a veth pair. Taking
//! down the end inside the namespace drops all packets silently: nothing is refused, and connections stay open without
//! traffic. The addresses come from the range for network benchmarks (RFC 2544), which is not routed.
//!
//! Creating a namespace needs root and the program `ip`. A namespace is removed when its value is dropped. Namespaces
//! that a killed process left behind are removed when the next one is created; the pid in the name identifies them.

use std::{
    ffi::OsStr,
    net::Ipv4Addr,
    path::PathBuf,
    process::{self, Command},
};

use anyhow::{Context, Result, ensure};

use crate::{Launch, binary::installed, ports::BLOCK_PORTS, procfs::ProcessIdentity};

/// Prefix of the namespaces' names. The pid of the creator follows it.
const NAME_PREFIX: &str = "flashsale-netns-";

/// A network namespace and its link to the host.
#[derive(Debug)]
pub struct NetworkNamespace {
    name: String,
    host_link: String,
    ip: PathBuf,
    number: u8,
}

impl NetworkNamespace {
    /// Checks that this process can create network namespaces.
    ///
    /// # Errors
    /// Fails when a requirement is missing, and names it.
    pub fn ensure_possible() -> Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "network namespaces need root");
        let ip = installed("ip").context("the program `ip` (package iproute2) is not installed")?;
        run(&ip, ["netns", "list"]).context("network namespaces do not work on this machine")
    }

    /// Creates a namespace. `port`, a port of the block that the caller holds, makes its addresses unique on this
    /// machine.
    ///
    /// # Errors
    /// See [`Self::ensure_possible`].
    pub fn create(port: u16) -> Result<Self> {
        Self::ensure_possible()?;
        let ip = installed("ip").context("the program `ip` is no longer installed")?;
        remove_abandoned(&ip)?;
        let number = u8::try_from(port / BLOCK_PORTS % 256)?;
        let name = format!("{NAME_PREFIX}{}", process::id());
        let namespace =
            Self { name: format!("{name}-{number}"), host_link: format!("fs-host-{number}"), ip, number };
        namespace.build()?;
        Ok(namespace)
    }

    /// The address of the host on the link.
    pub fn host_address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    /// The address of the namespace on the link.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 2)
    }

    /// Takes the link down.
    ///
    /// # Errors
    /// Fails when `ip` reports an error.
    pub fn disconnect(&self) -> Result<()> {
        self.run_inside(["link", "set", "uplink", "down"])
    }

    /// Brings the link up again.
    ///
    /// # Errors
    /// Fails when `ip` reports an error.
    pub fn reconnect(&self) -> Result<()> {
        self.run_inside(["link", "set", "uplink", "up"])
    }

    /// Returns a launch that runs a command in the namespace. The caller appends the program and its arguments.
    pub(crate) fn launch(&self, name: &str, folder: &std::path::Path) -> Launch {
        Launch::new(name, &self.ip, folder).args(["netns", "exec", &self.name])
    }

    fn build(&self) -> Result<()> {
        let Self { name, host_link, ip, .. } = self;
        run(ip, ["netns", "add", name])?;
        // The link of a namespace removed just before can still exist for a moment.
        run(ip, ["link", "delete", host_link]).ok();
        run(ip, ["link", "add", host_link, "type", "veth", "peer", "name", "uplink", "netns", name])?;
        run(ip, ["address", "add", &format!("{}/30", self.host_address()), "dev", host_link])?;
        run(ip, ["link", "set", host_link, "up"])?;
        self.run_inside(["address", "add", &format!("{}/30", self.address()), "dev", "uplink"])?;
        self.run_inside(["link", "set", "lo", "up"])?;
        self.reconnect()
    }

    fn run_inside<const N: usize>(&self, arguments: [&str; N]) -> Result<()> {
        run(&self.ip, [&["-netns", self.name.as_str()], &arguments[..]].concat())
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // If this fails, the next creator removes the namespace.
        run(&self.ip, ["link", "delete", &self.host_link]).ok();
        run(&self.ip, ["netns", "delete", &self.name]).ok();
    }
}

fn remove_abandoned(ip: &PathBuf) -> Result<()> {
    let listed = Command::new(ip).args(["netns", "list"]).output()?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| is_abandoned(name)) {
        run(ip, ["netns", "delete", name])?;
    }
    Ok(())
}

fn is_abandoned(name: &str) -> bool {
    let creator = name.strip_prefix(NAME_PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
    creator.is_some_and(|pid| ProcessIdentity::of(pid).is_none())
}

fn run(ip: &PathBuf, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<()> {
    let output = Command::new(ip)
        .args(arguments)
        .output()
        .with_context(|| format!("{} does not run", ip.display()))?;
    ensure!(output.status.success(), "`ip`: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespace_is_abandoned_when_its_creator_has_ended() {
        assert!(!is_abandoned(&format!("{NAME_PREFIX}{}-7", process::id())));
        assert!(is_abandoned(&format!("{NAME_PREFIX}4194999-7")), "no pid is that high");
        assert!(!is_abandoned("another-namespace"));
    }
}
