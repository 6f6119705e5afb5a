//! Ports on the loopback address: free ports for tests, and checks of fixed ports that name the process in the way.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr},
    ops::Range,
    path::Path,
};

use anyhow::{Context, Result, bail};
use tokio::net::TcpSocket;

use crate::procfs;

/// Ports per block: the ports of one whole stack, rounded up.
pub const BLOCK_PORTS: u16 = 100;

/// Range of the test ports. It lies below the range from which Linux assigns ports to outgoing connections (32768 and
/// up), so no connection takes one of these by chance.
const TEST_PORTS: Range<u16> = 20_000..32_000;

/// Folder of the lock files. It is fixed because ports belong to the machine: all processes must use the same locks,
/// even with different temporary folders.
const LOCKS: &str = "/tmp/flashsale-test-ports";

/// A block of adjacent ports, reserved among test processes while this value lives.
#[derive(Debug)]
pub struct PortBlock {
    first: u16,
    _held: File,
}

impl PortBlock {
    /// Reserves a block in which every port is free.
    ///
    /// # Errors
    /// Fails when no such block is left.
    pub fn take() -> Result<Self> {
        TEST_PORTS
            .step_by(usize::from(BLOCK_PORTS))
            .find_map(|first| Self::try_take(first).transpose())
            .context("every block of test ports is taken")?
    }

    /// The first of the [`BLOCK_PORTS`] ports of the block.
    pub fn first(&self) -> u16 {
        self.first
    }

    /// Tries to reserve one block. The kernel releases the file lock when the process ends, so a killed test leaves
    /// nothing to clean up.
    fn try_take(first: u16) -> Result<Option<Self>> {
        fs::create_dir_all(LOCKS)?;
        let lock =
            File::options().create(true).append(true).open(Path::new(LOCKS).join(first.to_string()))?;
        let ours = lock.try_lock().is_ok() && (first..first + BLOCK_PORTS).all(is_free);
        Ok(ours.then_some(Self { first, _held: lock }))
    }
}

/// The loopback address with `port`.
pub fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Returns true when nothing listens on `port` of the loopback address.
pub fn is_free(port: u16) -> bool {
    probe(port).is_ok()
}

/// Binds a socket to `port` without listening. A child process that is being started holds a copy of every socket until
/// it executes its program. A copy that listens would keep the port from a server, this one does not.
fn probe(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(loopback(port))?;
    Ok(socket)
}

/// Checks that a fixed port is free.
///
/// # Errors
/// Fails when the port is taken. The message names the port, its purpose and, where `/proc` shows it, the process that
/// holds it.
pub fn ensure_free(port: u16, purpose: &str) -> Result<()> {
    if is_free(port) {
        return Ok(());
    }
    let holders: Vec<String> =
        procfs::listeners(port).into_iter().map(|pid| format!("{} (pid {pid})", procfs::name(pid))).collect();
    let holders = if holders.is_empty() { "another process".to_owned() } else { holders.join(", ") };
    bail!("port {port} ({purpose}) is taken by {holders}")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn copy_of_a_probe_keeps_no_port_from_a_server() {
        let block = PortBlock::take().unwrap();
        let _copy = probe(block.first()).unwrap();

        assert!(is_free(block.first()));
        let _server = TcpListener::bind(loopback(block.first())).unwrap();
        assert!(!is_free(block.first()));
    }
}
