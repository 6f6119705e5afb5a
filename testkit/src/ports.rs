//! Ports on the loopback address: free ones for tests, and a check of fixed ones that says who is in the way.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    ops::Range,
    path::Path,
};

use anyhow::{Context, Result, bail};

use crate::procfs;

/// Ports of one block: what one whole stack takes, rounded up.
pub const BLOCK_PORTS: u16 = 100;

/// Below the range that Linux takes outgoing connections' ports from (32768 and up): nobody gets these by chance.
const TEST_PORTS: Range<u16> = 20_000..32_000;

/// The ports are the machine's: all look here, wherever they keep their temporary files.
const LOCKS: &str = "/tmp/flashsale-test-ports";

/// Adjacent ports that no other test process takes while this value lives.
#[derive(Debug)]
pub struct PortBlock {
    first: u16,
    _held: File,
}

impl PortBlock {
    /// Takes a block of which every port is free.
    ///
    /// # Errors
    /// When all blocks are taken.
    pub fn take() -> Result<Self> {
        TEST_PORTS
            .step_by(usize::from(BLOCK_PORTS))
            .find_map(|first| Self::try_take(first).transpose())
            .context("every block of test ports is taken")?
    }

    /// The first of its [`BLOCK_PORTS`] ports.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// The lock goes with the process that holds it, so a killed test leaves nothing to clean up.
    fn try_take(first: u16) -> Result<Option<Self>> {
        fs::create_dir_all(LOCKS)?;
        let lock =
            File::options().create(true).append(true).open(Path::new(LOCKS).join(first.to_string()))?;
        let ours = lock.try_lock().is_ok() && (first..first + BLOCK_PORTS).all(is_free);
        Ok(ours.then_some(Self { first, _held: lock }))
    }
}

/// The loopback address with this port.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Whether nothing listens on this port of the loopback address.
pub fn is_free(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok()
}

/// Checks that a fixed port can be had.
///
/// # Errors
/// When it is taken: names the port, what it was meant for, and who holds it where that can be seen.
pub fn ensure_free(port: u16, purpose: &str) -> Result<()> {
    if is_free(port) {
        return Ok(());
    }
    let holders: Vec<String> =
        procfs::listeners(port).into_iter().map(|pid| format!("{} (pid {pid})", procfs::name(pid))).collect();
    let holders = if holders.is_empty() { "another process".to_owned() } else { holders.join(", ") };
    bail!("port {port} ({purpose}) is taken by {holders}")
}
