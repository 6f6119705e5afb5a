//! `healthcheck`: a second process of the same program asks the first whether it lives. A container without a shell has
//! nothing else that could.
//!
//! It reads the address to ask from the variables that the first one listens by, and no other setting. A process that is
//! frozen still accepts connections - the kernel does that - so only an answer counts, within [`DEADLINE`].

use std::ffi::OsString;
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

/// What is typed to have it.
const NAME: &str = "healthcheck";

/// Longest wait for the answer. It is made without asking anybody, in well under a millisecond; whoever runs the check
/// gives it 3 s at least, and so reads our line instead of its own.
const DEADLINE: Duration = Duration::from_secs(2);

/// How an answer begins that says that all is well.
const OK_STATUS: &[u8] = b"HTTP/1.1 200 ";

/// The subcommand, as the help of a program shows it.
pub fn command() -> Command {
    Command::new(NAME)
        .about("Asks the one that runs here whether it lives (/healthz): exit code 0, or 1 and why not")
}

/// The exit code of a process that was started to ask another one; none where that was not asked for. `address` is where
/// the other one answers operators.
pub async fn run_if_requested<Listen: Args>(address: impl FnOnce(Listen) -> SocketAddr) -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.peek() != Some(&OsString::from(NAME)) {
        return None;
    }
    let settings: Settings<Listen> = settings::parse_from(arguments);
    Some(exit::code(probe(connect_address(address(settings.listen))).await))
}

/// Only what says where the other one listens.
#[derive(Parser)]
#[command(name = NAME)]
struct Settings<Listen: Args> {
    #[command(flatten)]
    listen: Listen,
}

/// An address to connect to, for one to listen on: whoever listens everywhere does so on loopback.
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
            () = answering => unreachable!("it never ends"),
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
