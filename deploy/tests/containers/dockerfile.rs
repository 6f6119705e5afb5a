//! The Dockerfile, checked with a linter, against the code, and against requirements for containers.

use std::fs;
use std::process::Command;

use deploy::dockerfile::{arguments, image, stages};
use deploy::{repository, settings};
use testkit::binary;

use crate::TARGETS;

/// The shared libraries of distroless/cc-debian12 that the programs may need: the C library with its loader and its
/// mathematics, and the stack unwinder.
const LIBRARIES: [&str; 5] =
    ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];

#[test]
fn hadolint_reports_nothing() {
    let file = deploy::folder().join("containers/Dockerfile");
    let linted = Command::new(deploy::tool("hadolint").unwrap()).arg(file).output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
}

#[test]
fn compiler_version_equals_the_toolchain_file() {
    let toolchain = fs::read_to_string(repository().join("rust-toolchain.toml")).unwrap();
    let version = &arguments().unwrap()["RUST_VERSION"];
    assert!(toolchain.contains(&format!("channel = \"{version}\"")), "{version} differs from\n{toolchain}");
}

/// A program that was linked against a newer C library than the image's does not start.
#[test]
fn programs_are_built_and_run_on_same_debian() {
    let stages = stages().unwrap();
    let is_ours = |from: &str| stages.iter().any(|stage| stage.name == from);
    let foreign = stages.iter().map(|stage| &*stage.from).filter(|from| !is_ours(from));
    let foreign: Vec<&str> = foreign.map(|from| from.split('@').next().unwrap()).collect();
    assert_eq!(foreign, ["rust:${RUST_VERSION}-slim-bookworm", "gcr.io/distroless/cc-debian12:nonroot"]);
}

#[test]
fn images_run_unprivileged_and_without_shell() {
    for (target, program) in TARGETS {
        let image = image(target).unwrap();
        let installed = format!("/usr/local/bin/{program}");
        assert_eq!(image.user, "65532:65532");
        assert_eq!(image.entrypoint, [&*installed]);
        assert_eq!(image.healthcheck, [&*installed, "healthcheck"]);
    }
    for stage in stages().unwrap().iter().skip_while(|stage| stage.name != "base") {
        let runs = stage.instructions.iter().any(|(keyword, _)| keyword == "RUN");
        assert!(!runs, "{} has a RUN instruction, but no shell", stage.name);
    }
}

#[test]
fn images_expose_the_ports_of_their_program() {
    for (target, program) in TARGETS {
        let port_of = |variable| settings::default_of(program, variable).unwrap();
        let ports = ["PORT", "OPS_PORT"].into_iter().filter_map(port_of);
        let ports: Vec<u16> = ports.map(|port| port.parse().unwrap()).collect();
        assert_eq!(image(target).unwrap().exposed, ports, "{target}");
    }
}

#[test]
fn image_labels_match_the_crate() {
    for (target, program) in TARGETS {
        let labels = image(target).unwrap().labels;
        let declared = |name: &str| labels[&format!("org.opencontainers.image.{name}")].clone();
        let manifest = fs::read_to_string(repository().join(target).join("Cargo.toml")).unwrap();
        assert_eq!(declared("title"), program);
        assert!(manifest.contains(&format!("description = \"{}\"", declared("description"))), "{target}");
        assert_eq!(declared("licenses"), "MIT OR Apache-2.0");
        assert_eq!((declared("version"), declared("revision")), ("${VERSION}".into(), "${REVISION}".into()));
        assert!(declared("source").starts_with("https://"));
    }
}

#[test]
fn images_contain_no_secret() {
    let stages = stages().unwrap();
    let kept = stages.iter().flat_map(|stage| &stage.instructions);
    for (keyword, rest) in kept.filter(|(keyword, _)| ["ARG", "ENV"].contains(&&**keyword)) {
        let upper = rest.to_uppercase();
        let is_secret = ["SECRET", "TOKEN", "PASSWORD", "KEY"].iter().any(|word| upper.contains(word));
        assert!(!is_secret, "{keyword} {rest} would stay in the image");
    }
}

#[test]
fn images_have_all_needed_libraries() {
    for (_, program) in TARGETS {
        let binary = binary(program).unwrap();
        let read = Command::new("readelf").arg("--dynamic").arg(&binary).output().expect("readelf runs");
        let dynamic = String::from_utf8(read.stdout).unwrap();
        let needed: Vec<&str> = dynamic
            .lines()
            .filter(|line| line.contains("(NEEDED)"))
            .filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']')))
            .collect();
        assert!(needed.contains(&"libc.so.6"), "{program} needs {needed:?}");
        let lacking: Vec<_> = needed.iter().filter(|library| !LIBRARIES.contains(library)).collect();
        assert!(lacking.is_empty(), "{program} needs {lacking:?}");
    }
}
