//! Mistakes that Compose refuses, and mistakes that it accepts silently.

use std::collections::BTreeSet;
use std::process::Command;

use deploy::{dockerfile, folder, has_exact_version, repository, settings, tool};

use crate::file::{Compose, Service};
use crate::ports_of;

/// Services that end when their work is done.
const JOBS: [&str; 2] = ["cluster", "secrets"];
/// Services without a health check: the image contains a single program that cannot check itself.
const WITHOUT_HEALTHCHECK: [&str; 1] = ["redis-exporter"];

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
    let compose = Compose::read();
    assert_eq!(compose.own_services().count(), 6, "two nodes, two coordinators, a ledger and a job");
    for (name, service, build) in compose.own_services() {
        let program = format!("flashsale-{}", build.target);
        let words = [program].into_iter().chain(service.command.first().cloned());
        let program = words.collect::<Vec<_>>().join(" ");
        let known = settings::of(&program).unwrap();
        let set: BTreeSet<String> = service.environment.keys().cloned().collect();
        let unknown: Vec<_> = set.difference(&known).collect();
        assert!(unknown.is_empty(), "{name} sets {unknown:?}, which {program} does not read");
    }
}

/// One file, `.env`, switches a sink on.
#[test]
fn every_setting_of_the_feed_comes_from_the_env_file() {
    let compose = Compose::read();
    let ledger = &compose.services["ledger-1"].environment;
    let known = settings::of("flashsale-ledger").unwrap().into_iter();
    let of_feed = known.filter(|it| ["AMQP_", "WEBHOOK_", "FEED_"].iter().any(|of| it.starts_with(of)));
    // The secret is in a file.
    let of_feed: Vec<_> = of_feed.filter(|setting| setting != "WEBHOOK_SECRET").collect();
    assert_eq!(of_feed.len(), 10);
    for setting in of_feed {
        assert_eq!(ledger[&setting], "", "{setting} is set without an .env file");
    }
    let urls = [("AMQP_URL", "amqp://a".to_owned()), ("WEBHOOK_URL", "https://b".to_owned())].into();
    let ledger = &Compose::read_with(&urls).services["ledger-1"].environment;
    assert_eq!(ledger["AMQP_URL"], "amqp://a");
    assert_eq!(
        [&ledger["AMQP_PASSWORD_FILE"], &ledger["WEBHOOK_SECRET_FILE"]],
        ["/secrets/amqp", "/secrets/webhook"]
    );
}

/// Nodes believe nginx, so it must not forward the header of a client. A block that sets one header inherits none.
#[test]
fn nginx_removes_the_header_of_auth_header() {
    let header = settings::default_of("flashsale-node", "AUTH_HEADER").unwrap().unwrap();
    let removal = format!("proxy_set_header {header} \"\";");
    let configuration = std::fs::read_to_string(folder().join("nginx/nginx.conf")).unwrap();
    let blocks = configuration.matches("proxy_set_header Host ").count();
    assert_eq!(configuration.matches(&removal).count(), blocks, "nginx.conf lacks {removal}");
}

#[test]
fn images_are_built_here_or_have_a_version() {
    let compose = Compose::read();
    for (_, _, build) in compose.own_services() {
        let context = folder().join(&build.context);
        assert_eq!(context.canonicalize().unwrap(), repository().canonicalize().unwrap());
        assert!(context.join(&build.dockerfile).is_file());
        assert!(dockerfile::image(&build.target).is_ok());
    }
    for (name, service) in compose.services {
        assert!(has_exact_version(&service.image), "{name}: {} has no exact version", service.image);
    }
}

#[test]
fn services_have_minimal_rights_and_resource_limits() {
    for (name, service) in Compose::read().services {
        assert!(service.read_only, "{name} could change its image");
        assert_eq!(service.cap_drop, ["ALL"], "{name}");
        assert_eq!(service.security_opt, ["no-new-privileges:true"], "{name}");
        let limits = &service.deploy.resources.limits;
        assert!(limits.contains_key("cpus") && limits.contains_key("memory"), "{name}");
        let restart = if JOBS.contains(&&*name) { "on-failure:3" } else { "unless-stopped" };
        assert_eq!(service.restart, restart, "{name}");
    }
}

#[test]
fn ports_are_published_on_loopback_only() {
    for (name, service) in Compose::read().services {
        for published in &service.ports {
            let parts: Vec<&str> = published.split(':').collect();
            let [address, _, inside] = parts[..] else { panic!("{name}: {published} names no address") };
            assert_eq!(address, "127.0.0.1", "{name}");
            let ports = ports_of(&name, &service).unwrap();
            assert!(ports.contains(&inside.parse().unwrap()), "{name} answers on {ports:?}, not on {inside}");
        }
    }
}

/// Compose waits forever for the health of a service that has no health check.
#[test]
fn every_dependency_can_be_met() {
    let compose = Compose::read();
    let has_healthcheck = |service: &Service| {
        let own = service.healthcheck.as_ref().map(|check| !check.disable);
        own.unwrap_or(service.build.is_some())
    };
    for (name, service) in &compose.services {
        let is_exempt = JOBS.contains(&&**name) || WITHOUT_HEALTHCHECK.contains(&&**name);
        assert!(has_healthcheck(service) != is_exempt, "{name}");
        for (other, dependency) in &service.depends_on {
            let can_be_met = match dependency.condition.as_str() {
                "service_completed_successfully" => JOBS.contains(&&**other),
                "service_healthy" => compose.services.get(other).is_some_and(has_healthcheck),
                condition => panic!("{name}: unknown condition {condition}"),
            };
            assert!(can_be_met, "{name} waits for {other} until it is {}", dependency.condition);
        }
    }
}

#[test]
fn stop_grace_period_exceeds_the_drain_time() {
    let seconds = |text: &str| text.trim_end_matches('s').parse::<u64>().unwrap();
    let drain = settings::default_of("flashsale-node", "DRAIN_TIMEOUT").unwrap().unwrap();
    let compose = Compose::read();
    for (name, service, _) in compose.own_services().filter(|(name, ..)| !JOBS.contains(name)) {
        let grace = service.stop_grace_period.as_deref().unwrap_or("10s");
        // The time before and after draining is a second or two.
        assert!(seconds(grace) >= seconds(&drain) + 3, "{name} is killed after {grace}");
    }
}

#[test]
fn mounts_exist_and_are_read_only() {
    let compose = Compose::read();
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
    let compose = Compose::read();
    let is_server = |service: &Service| service.environment.contains_key("ANNOUNCE_HOSTNAME");
    let servers: Vec<_> = compose.services.iter().filter(|(_, service)| is_server(service)).collect();
    assert_eq!(servers.len(), 6);
    let mut addresses = BTreeSet::new();
    for (name, server) in servers {
        assert_eq!(server.environment["ANNOUNCE_HOSTNAME"], *name);
        let has_volume = server.volumes.iter().any(|mount| mount.source == *name && mount.target == "/data");
        assert!(has_volume, "{name}");
        let address = server.networks["default"].ipv4_address.as_ref().expect("a static address");
        assert_eq!(server.environment["ANNOUNCE_IP"], *address, "{name}");
        assert!(addresses.insert(address.clone()), "{name} has the address of another");
        for (job, variable) in [("cluster", "PAIRS"), ("secrets", "SERVERS")] {
            let servers = &compose.services[job].environment[variable];
            assert!(servers.contains(&format!("{name}:6379")), "{name} is not in {variable}");
        }
    }
}

/// Orders are personal data. All other services go without a way to them.
#[test]
fn only_the_ledger_reaches_postgres() {
    let compose = Compose::read();
    let near: BTreeSet<&str> = compose
        .services
        .iter()
        .filter(|(_, service)| service.networks.contains_key("orders"))
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(near, BTreeSet::from(["ledger-1", "postgres"]));
    let postgres = &compose.services["postgres"];
    assert!(!postgres.networks.contains_key("default") && postgres.ports.is_empty());
}

/// Every address in a setting or scrape target is a service and one of its ports.
#[test]
fn every_address_is_a_service_port() {
    let compose = Compose::read();
    let settings = compose.services.values().flat_map(|service| service.environment.values().cloned());
    let text = settings.chain([Compose::scrape_targets()]).collect::<Vec<_>>().join("\n");
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
