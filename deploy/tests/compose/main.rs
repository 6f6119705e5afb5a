//! `deploy/compose.yaml`, checked for consistency and against the programs and files that it names, and run as plain
//! processes.

mod configuration;
mod file;
mod fixture;
mod running;
mod shape;

use anyhow::{Context as _, Result};
use deploy::dockerfile::image;

use crate::file::Service;

/// Returns the ports on which a service answers in its container.
fn ports_of(name: &str, service: &Service) -> Result<Vec<u16>> {
    Ok(match (&service.build, name) {
        (Some(build), _) => image(&build.target)?.exposed,
        (None, "nginx") => {
            let (_, port) = service.environment["NGINX_LISTEN"].split_once(':').context("address:port")?;
            vec![port.parse()?]
        }
        (None, "grafana") => vec![3000],
        (None, "postgres") => vec![5432],
        (None, "prometheus") => vec![9090],
        // For clients, for commands, and Erlang's port mapper.
        (None, "rabbitmq") => vec![5672, 25672, 4369],
        (None, "redis-exporter") => vec![9121],
        // The port for clients, and the cluster bus.
        (None, _) if service.environment.contains_key("ANNOUNCE_HOSTNAME") => vec![6379, 16379],
        _ => Vec::new(),
    })
}
