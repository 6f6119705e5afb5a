//! The subcommand `healthcheck`: a second process of the same program checks whether the first one is alive. Containers
//! without a shell have no other tool for it.
//!
//! It reads the address from the same variables that the first process listens by, and no other setting. The kernel
//! accepts connections even for a frozen process, so only a response within [`DEADLINE`] counts.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Command, Parser};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::{exit, settings};

/// Name of the subcommand.
const NAME: &str = "healthcheck";

/// Longest wait for the response. The server needs well under a millisecond for it. Container runtimes allow a check at
/// least 3 s, so this error message appears instead of theirs.
const DEADLINE: Duration = Duration::from_secs(2);

/// The beginning of a healthy response.
const OK_STATUS: &[u8] = b"HTTP/1.1 200 ";

/// The subcommand, as shown in a program's help.
pub fn command() -> Command {
    Command::new(NAME).about(
        "Checks whether the process that runs here is alive (/healthz): exit code 0, or 1 and the reason",
    )
}

/// Runs the health check if the command line asks for it, and returns its exit code; otherwise returns `None`.
/// `address` gives the operations address of the process to check.
pub async fn run_if_requested<Listen: Args>(address: impl FnOnce(Listen) -> SocketAddr) -> Option<ExitCode> {
    let settings: Settings<Listen> = settings::parse_subcommand(&command())?;
    Some(exit::code(probe(connect_address(address(settings.listen))).await))
}

/// Only the settings with the address of the other process.
#[derive(Parser)]
#[command(name = NAME)]
struct Settings<Listen: Args> {
    #[command(flatten)]
    listen: Listen,
}

/// Returns the address to connect to for an address to listen on. A process that listens on all interfaces is checked
/// on loopback.
fn connect_address(listening: SocketAddr) -> SocketAddr {
    let host = match listening.ip() {
        IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    SocketAddr::new(host, listening.port())
}

async fn probe(address: SocketAddr) -> anyhow::Result<()> {
    let Ok(answer) = timeout(DEADLINE, read_status(address)).await else {
        bail!("{address} does not answer within {DEADLINE:?}");
    };
    let status = answer.with_context(|| format!("{address} does not answer"))?;
    ensure!(status == OK_STATUS, "{address} answers {:?}", String::from_utf8_lossy(&status));
    Ok(())
}

async fn read_status(address: SocketAddr) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut status = vec![0; OK_STATUS.len()];
    stream.read_exact(&mut status).await?;
    Ok(status)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn probe_server_answering(answer: &'static [u8]) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_u8().await.unwrap();
            stream.write_all(answer).await.unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            outcome = probe(address) => outcome.map_err(|error| format!("{error:#}")),
            () = answering => unreachable!("the server waits for ever"),
        }
    }

    #[tokio::test]
    async fn healthcheck_accepts_only_status_200() {
        assert_eq!(probe_server_answering(b"HTTP/1.1 200 OK\r\n\r\nok\n").await, Ok(()));
        let busy = probe_server_answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
        assert!(busy.unwrap_err().contains("answers \"HTTP/1.1 503 \""));
        let silent = probe_server_answering(b"HTTP/1.1").await;
        assert!(silent.unwrap_err().ends_with("does not answer within 2s"));
    }

    #[test]
    fn unspecified_address_is_probed_on_loopback() {
        let probed = |listening: &str| connect_address(listening.parse().unwrap()).to_string();
        assert_eq!(probed("0.0.0.0:9001"), "127.0.0.1:9001");
        assert_eq!(probed("[::]:9001"), "[::1]:9001");
        assert_eq!(probed("127.0.0.9:3100"), "127.0.0.9:3100");
    }
}
