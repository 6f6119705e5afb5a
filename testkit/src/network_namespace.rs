//! A network of its own for one process, joined to ours by a bridge that can be cut: a partition as machines see it.
//!
//! Processes on the loopback address cannot be parted. An island is a network namespace with one end of a veth pair;
//! cutting the bridge takes that end down, so that nothing is refused and nothing arrives: connections stay, silent.
//! Its addresses are from the range for benchmarks between networks (RFC 2544), which nobody routes.
//!
//! Making one takes root and the program `ip`. Islands go with their value; those that a killed process left are
//! removed when the next one is made, told by the pid in their name.

use std::{
    ffi::OsStr,
    net::Ipv4Addr,
    path::PathBuf,
    process::{self, Command},
};

use anyhow::{Context, Result, ensure};

use crate::{Launch, binary::installed, ports::BLOCK_PORTS, procfs::ProcessIdentity};

/// Namespaces of ours are called so, with the pid of their maker behind it.
const NAME_PREFIX: &str = "flashsale-island-";

/// An island and its bridge.
#[derive(Debug)]
pub struct NetworkNamespace {
    name: String,
    shore: String,
    ip: PathBuf,
    number: u8,
}

impl NetworkNamespace {
    /// Whether islands can be made here; else why not.
    ///
    /// # Errors
    /// Says what is missing.
    pub fn ensure_possible() -> Result<()> {
        ensure!(rustix::process::geteuid().is_root(), "network namespaces take root");
        let ip = installed("ip").context("the program `ip` (package iproute2) is not installed")?;
        run(&ip, ["netns", "list"]).context("there are no network namespaces here")
    }

    /// Makes one. A port of the block that its maker holds tells it from the islands of others.
    ///
    /// # Errors
    /// See [`Self::ensure_possible`].
    pub fn make(port: u16) -> Result<Self> {
        Self::ensure_possible()?;
        let ip = installed("ip").context("`ip` was there just now")?;
        remove_abandoned(&ip)?;
        let number = u8::try_from(port / BLOCK_PORTS % 256)?;
        let name = format!("{NAME_PREFIX}{}", process::id());
        let island =
            Self { name: format!("{name}-{number}"), shore: format!("fs-shore-{number}"), ip, number };
        island.build()?;
        Ok(island)
    }

    /// Our address, as the island sees it.
    pub fn mainland(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    /// The island's address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 2)
    }

    /// Cuts the bridge.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn cut_off(&self) -> Result<()> {
        self.inside(["link", "set", "bridge", "down"])
    }

    /// Mends the bridge.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn reconnect(&self) -> Result<()> {
        self.inside(["link", "set", "bridge", "up"])
    }

    /// The start of a command that runs there.
    pub(crate) fn launch(&self, name: &str, folder: &std::path::Path) -> Launch {
        Launch::new(name, &self.ip, folder).args(["netns", "exec", &self.name])
    }

    fn build(&self) -> Result<()> {
        let Self { name, shore, ip, .. } = self;
        run(ip, ["netns", "add", name])?;
        // A namespace that is removed lets go of its bridge a moment later.
        run(ip, ["link", "delete", shore]).ok();
        run(ip, ["link", "add", shore, "type", "veth", "peer", "name", "bridge", "netns", name])?;
        run(ip, ["address", "add", &format!("{}/30", self.mainland()), "dev", shore])?;
        run(ip, ["link", "set", shore, "up"])?;
        self.inside(["address", "add", &format!("{}/30", self.address()), "dev", "bridge"])?;
        self.inside(["link", "set", "lo", "up"])?;
        self.reconnect()
    }

    fn inside<const N: usize>(&self, arguments: [&str; N]) -> Result<()> {
        run(&self.ip, [&["-netns", self.name.as_str()], &arguments[..]].concat())
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next maker.
        run(&self.ip, ["link", "delete", &self.shore]).ok();
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
    let maker = name.strip_prefix(NAME_PREFIX).and_then(|rest| rest.split('-').next()?.parse().ok());
    maker.is_some_and(|pid| ProcessIdentity::of(pid).is_none())
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
    fn only_islands_whose_maker_is_gone_are_abandoned() {
        assert!(!is_abandoned(&format!("{NAME_PREFIX}{}-7", process::id())));
        assert!(is_abandoned(&format!("{NAME_PREFIX}4194999-7")), "no pid is that high");
        assert!(!is_abandoned("somebody-elses"));
    }
}
