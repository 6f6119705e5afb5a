//! What Compose itself would refuse, or take without a word and be wrong about.

use std::collections::BTreeSet;
use std::process::Command;

use deploy::compose::{Compose, Service, read};
use deploy::{dockerfile, folder, repository, settings, tool};

use crate::ports_of;

/// Whoever ends when its work is done.
const JOBS: [&str; 2] = ["cluster", "secrets"];
/// Its image is one program, and that one cannot ask itself.
const UNASKED: [&str; 1] = ["redis-exporter"];

fn compose() -> Compose {
    read().expect("a file that can be read")
}

#[test]
fn dclint_finds_nothing() {
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
fn every_setting_of_our_programs_is_one() {
    let compose = compose();
    let ours: Vec<_> = compose.services.iter().filter(|(_, service)| service.build.is_some()).collect();
    assert_eq!(ours.len(), 4, "two nodes and two coordinators");
    for (name, service) in ours {
        let program = format!("flashsale-{}", service.build.as_ref().unwrap().target);
        let known = settings::of(&program).unwrap();
        let set: BTreeSet<String> = service.environment.keys().cloned().collect();
        let unknown: Vec<_> = set.difference(&known).collect();
        assert!(unknown.is_empty(), "{name} sets {unknown:?}, which {program} does not read");
    }
}

#[test]
fn an_image_of_ours_is_built_from_the_repository_and_any_other_has_a_version() {
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
        assert!(is_version, "{name}: {tag} is not one version");
    }
}

#[test]
fn nobody_has_more_rights_than_it_needs_nor_takes_the_whole_machine() {
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
fn nobody_outside_this_machine_gets_in() {
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

/// Compose waits for ever for the health of a service that has no healthcheck.
#[test]
fn whoever_is_waited_for_can_be() {
    let compose = compose();
    for (name, service) in &compose.services {
        let is_asked = service.healthcheck.is_some() || service.build.is_some();
        let is_left_out = JOBS.contains(&&**name) || UNASKED.contains(&&**name);
        assert!(is_asked != is_left_out, "{name}");
        for (other, dependency) in &service.depends_on {
            let it = compose
                .services
                .get(other)
                .unwrap_or_else(|| panic!("{name} waits for {other}, which is not there"));
            match dependency.condition.as_str() {
                "service_completed_successfully" => {
                    assert!(JOBS.contains(&&**other), "{name}: {other} never ends");
                }
                "service_healthy" => {
                    assert!(it.healthcheck.is_some() || it.build.is_some(), "{name}: nobody asks {other}");
                }
                condition => panic!("{name}: {condition} waits for nothing"),
            }
        }
    }
}

#[test]
fn a_program_has_longer_to_end_than_it_takes() {
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    let drain = settings::default_of("flashsale-node", "DRAIN_TIMEOUT").unwrap().unwrap();
    for (name, service) in compose().services.iter().filter(|(_, service)| service.build.is_some()) {
        let grace = service.stop_grace_period.as_deref().unwrap_or("10s");
        // The delay before, and the last words after, take a second or two.
        assert!(seconds(grace) >= seconds(&drain) + 3, "{name} is killed after {grace}");
    }
}

#[test]
fn whatever_is_mounted_is_there_and_can_only_be_read() {
    let compose = compose();
    for (name, service) in &compose.services {
        for mount in &service.volumes {
            if mount.is_path() {
                assert!(folder().join(&mount.source).exists(), "{name}: there is no {}", mount.source);
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
        assert!(compose.services.values().any(used), "nobody uses the volume {volume}");
    }
}

#[test]
fn each_redis_server_has_a_volume_and_an_address_of_its_own() {
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

/// Whatever is asked of a service, by whomever, is a service and one of its ports.
#[test]
fn every_address_leads_to_somebody() {
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
        let service = compose.services.get(host).unwrap_or_else(|| panic!("nobody is called {host}"));
        assert!(ports_of(host, service).unwrap().contains(&port), "{host} does not answer on {port}");
    }
}
