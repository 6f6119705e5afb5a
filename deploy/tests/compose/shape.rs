//! Mistakes that Compose refuses, and mistakes that it accepts silently.

use std::collections::BTreeSet;
use std::process::Command;

use deploy::compose::{Compose, Service, read};
use deploy::{dockerfile, folder, repository, settings, tool};

use crate::ports_of;

/// Services that end when their work is done.
const JOBS: [&str; 2] = ["cluster", "secrets"];
/// Services without a health check: the image contains a single program that cannot check itself.
const WITHOUT_HEALTHCHECK: [&str; 1] = ["redis-exporter"];

/// Returns true for programs of the project that run until they are stopped.
fn is_server(service: &Service) -> bool {
    service.build.is_some() && service.command.is_empty()
}

fn compose() -> Compose {
    read().expect("a file that can be read")
}

#[test]
fn dclint_reports_nothing() {
    let linted = Command::new(tool("dclint").unwrap())
        .arg("--config")
        .arg(folder().join("compose/dclint.yaml"))
        .args(["--max-warnings", "0"])
        .arg(folder().join("compose.yaml"))
        .output()
        .unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
}

#[test]
fn programs_know_all_their_settings() {
    let compose = compose();
    let ours: Vec<_> = compose.services.iter().filter(|(_, service)| service.build.is_some()).collect();
    assert_eq!(ours.len(), 5, "two nodes, two coordinators, and the job that forms the cluster");
    for (name, service) in ours {
        let program = format!("flashsale-{}", service.build.as_ref().unwrap().target);
        let program = [&*program].into_iter().chain(service.command.first().map(String::as_str));
        let program = program.collect::<Vec<_>>().join(" ");
        let known = settings::of(&program).unwrap();
        let set: BTreeSet<String> = service.environment.keys().cloned().collect();
        let unknown: Vec<_> = set.difference(&known).collect();
        assert!(unknown.is_empty(), "{name} sets {unknown:?}, which {program} does not read");
    }
}

#[test]
fn images_are_built_here_or_have_a_version() {
    for (name, service) in compose().services {
        if let Some(build) = &service.build {
            let context = folder().join(&build.context);
            assert_eq!(context.canonicalize().unwrap(), repository().canonicalize().unwrap());
            assert!(context.join(&build.dockerfile).is_file());
            assert!(dockerfile::image(&build.target).is_ok());
        }
        let (_, tag) = service.image.rsplit_once(':').unwrap_or_else(|| panic!("{name} has no tag"));
        let numbers = tag.trim_start_matches('v').split('.');
        let is_version =
            numbers.clone().count() == 3 && numbers.into_iter().all(|part| part.parse::<u16>().is_ok());
        assert!(is_version, "{name}: {tag} is not an exact version");
    }
}

#[test]
fn services_have_minimal_rights_and_resource_limits() {
    for (name, service) in compose().services {
        assert!(service.read_only, "{name} could change its image");
        assert_eq!(service.cap_drop, ["ALL"], "{name}");
        assert_eq!(service.security_opt, ["no-new-privileges:true"], "{name}");
        let limits = service.deploy.as_ref().map(|deploy| &deploy.resources.limits);
        assert!(
            limits.is_some_and(|limits| limits.contains_key("cpus") && limits.contains_key("memory")),
            "{name}"
        );
        let restart = if JOBS.contains(&&*name) { "on-failure:3" } else { "unless-stopped" };
        assert_eq!(service.restart, restart, "{name}");
    }
}

#[test]
fn ports_are_published_on_loopback_only() {
    for (name, service) in compose().services {
        for published in &service.ports {
            let parts: Vec<&str> = published.split(':').collect();
            let [address, _, inside] = parts[..] else { panic!("{name}: {published} names no address") };
            assert_eq!(address, "127.0.0.1", "{name}");
            let ports = ports_of(&name, &service).unwrap();
            assert!(
                ports.contains(&inside.parse().unwrap()),
                "{name} does not answer on {inside}, but on {ports:?}"
            );
        }
    }
}

/// Compose waits forever for the health of a service that has no health check.
#[test]
fn every_dependency_can_be_met() {
    let compose = compose();
    for (name, service) in &compose.services {
        let own_check = service.healthcheck.as_ref().map(|check| !check.disable);
        let has_healthcheck = own_check.unwrap_or(service.build.is_some());
        let is_exempt = JOBS.contains(&&**name) || WITHOUT_HEALTHCHECK.contains(&&**name);
        assert!(has_healthcheck != is_exempt, "{name}");
        for (other, dependency) in &service.depends_on {
            let it = compose
                .services
                .get(other)
                .unwrap_or_else(|| panic!("{name} waits for {other}, which does not exist"));
            match dependency.condition.as_str() {
                "service_completed_successfully" => {
                    assert!(JOBS.contains(&&**other), "{name}: {other} never ends");
                }
                "service_healthy" => {
                    assert!(
                        it.healthcheck.is_some() || it.build.is_some(),
                        "{name}: {other} has no health check"
                    );
                }
                condition => panic!("{name}: unknown condition {condition}"),
            }
        }
    }
}

#[test]
fn stop_grace_period_exceeds_the_drain_time() {
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    let drain = settings::default_of("flashsale-node", "DRAIN_TIMEOUT").unwrap().unwrap();
    for (name, service) in compose().services.iter().filter(|(_, service)| is_server(service)) {
        let grace = service.stop_grace_period.as_deref().unwrap_or("10s");
        // The time before and after draining is a second or two.
        assert!(seconds(grace) >= seconds(&drain) + 3, "{name} is killed after {grace}");
    }
}

#[test]
fn mounts_exist_and_are_read_only() {
    let compose = compose();
    for (name, service) in &compose.services {
        for mount in &service.volumes {
            if mount.is_path() {
                assert!(folder().join(&mount.source).exists(), "{name}: {} does not exist", mount.source);
                assert!(mount.read_only, "{name} could write into the repository");
            } else {
                assert!(compose.volumes.contains_key(&mount.source), "{name}: no volume {}", mount.source);
            }
            let writes_secrets = mount.source == "secrets" && !mount.read_only;
            assert!(!writes_secrets || name == "secrets", "{name} could write secrets");
        }
    }
    for volume in compose.volumes.keys() {
        let used = |service: &Service| service.volumes.iter().any(|mount| mount.source == *volume);
        assert!(compose.services.values().any(used), "no service uses the volume {volume}");
    }
}

#[test]
fn redis_servers_have_own_volume_and_address() {
    let compose = compose();
    let servers: Vec<_> = compose
        .services
        .iter()
        .filter(|(_, service)| service.environment.contains_key("ANNOUNCE_HOSTNAME"))
        .collect();
    assert_eq!(servers.len(), 6);
    let mut addresses = BTreeSet::new();
    for (name, server) in servers {
        assert_eq!(server.environment["ANNOUNCE_HOSTNAME"], *name);
        assert!(
            server.volumes.iter().any(|mount| mount.source == *name && mount.target == "/data"),
            "{name}"
        );
        let network = &server.networks["default"];
        assert_eq!(server.environment["ANNOUNCE_IP"], network.ipv4_address, "{name}");
        assert!(addresses.insert(network.ipv4_address.clone()), "{name} has the address of another");
        assert!(compose.services["cluster"].environment["PAIRS"].contains(&format!("{name}:6379")), "{name}");
        assert!(
            compose.services["secrets"].environment["SERVERS"].contains(&format!("{name}:6379")),
            "{name}"
        );
    }
}

/// Every address in a setting or scrape target is a service and one of its ports.
#[test]
fn every_address_is_a_service_port() {
    let compose = compose();
    let targets = std::fs::read_dir(folder().join("compose/targets")).unwrap();
    let targets = targets.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
    let settings = compose.services.values().flat_map(|service| service.environment.values().cloned());
    let text: Vec<String> = targets.chain(settings).collect();
    let text = text.join("\n");
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "-.:".contains(c)));
    let addresses: BTreeSet<(&str, u16)> = words
        .filter_map(|word| word.split_once(':'))
        .filter_map(|(host, port)| Some((host, port.parse().ok()?)))
        .filter(|(host, _)| *host != "0.0.0.0")
        .collect();
    assert!(addresses.len() >= 14, "{addresses:?}");
    for (host, port) in addresses {
        let service = compose.services.get(host).unwrap_or_else(|| panic!("no service is named {host}"));
        assert!(ports_of(host, service).unwrap().contains(&port), "{host} does not answer on {port}");
    }
}
