//! The Dockerfile against its linter, against the code, and against what containers are asked to be.

use std::fs;
use std::process::Command;

use deploy::dockerfile::{arguments, image, stages};
use deploy::{repository, settings};
use testkit::binary;

use crate::TARGETS;

/// What distroless/cc-debian12 has, and all that the programs may ask for: the C library with its loader, its mathematics,
/// and what unwinds a stack.
const LIBRARIES: [&str; 5] =
    ["ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];

#[test]
fn hadolint_finds_nothing() {
    let file = deploy::folder().join("containers/Dockerfile");
    let linted = Command::new(deploy::tool("hadolint").unwrap()).arg(file).output().unwrap();
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
}

#[test]
fn the_compiler_is_the_one_that_developers_have() {
    let toolchain = fs::read_to_string(repository().join("rust-toolchain.toml")).unwrap();
    let version = &arguments().unwrap()["RUST_VERSION"];
    assert!(toolchain.contains(&format!("channel = \"{version}\"")), "{version} is not that of\n{toolchain}");
}

/// A program that was linked against a newer C library than the image has does not start there.
#[test]
fn the_programs_are_built_and_run_on_the_same_debian() {
    let stages = stages().unwrap();
    let is_ours = |from: &str| stages.iter().any(|stage| stage.name == from);
    let foreign: Vec<&str> = stages.iter().map(|stage| &*stage.from).filter(|from| !is_ours(from)).collect();
    assert_eq!(foreign, ["rust:${RUST_VERSION}-slim-bookworm", "gcr.io/distroless/cc-debian12:nonroot"]);
}

#[test]
fn an_image_runs_its_program_as_nobody_and_without_a_shell() {
    for (target, program) in TARGETS {
        let image = image(target).unwrap();
        let installed = format!("/usr/local/bin/{program}");
        assert_eq!(image.user, "65532:65532");
        assert_eq!(image.entrypoint, [&*installed]);
        assert_eq!(image.healthcheck, [&*installed, "healthcheck"]);
    }
    for stage in stages().unwrap().iter().skip_while(|stage| stage.name != "base") {
        let runs = stage.instructions.iter().any(|(keyword, _)| keyword == "RUN");
        assert!(!runs, "{} runs something, and has nothing to run it with", stage.name);
    }
}

#[test]
fn an_image_exposes_the_ports_that_its_program_has() {
    for (target, program) in TARGETS {
        let port_of = |variable| settings::default_of(program, variable).unwrap();
        let ports = ["PORT", "OPS_PORT"].into_iter().filter_map(port_of);
        let ports: Vec<u16> = ports.map(|port| port.parse().unwrap()).collect();
        assert_eq!(image(target).unwrap().exposed, ports, "{target}");
    }
}

#[test]
fn an_image_says_what_it_is_in_the_words_of_its_crate() {
    for (target, program) in TARGETS {
        let labels = image(target).unwrap().labels;
        let said = |name: &str| labels[&format!("org.opencontainers.image.{name}")].clone();
        let manifest = fs::read_to_string(repository().join(target).join("Cargo.toml")).unwrap();
        assert_eq!(said("title"), program);
        assert!(manifest.contains(&format!("description = \"{}\"", said("description"))), "{target}");
        assert_eq!(said("licenses"), "MIT OR Apache-2.0");
        assert_eq!((said("version"), said("revision")), ("${VERSION}".into(), "${REVISION}".into()));
        assert!(said("source").starts_with("https://"));
    }
}

#[test]
fn no_secret_can_go_in() {
    let stages = stages().unwrap();
    let kept = stages.iter().flat_map(|stage| &stage.instructions);
    for (keyword, rest) in kept.filter(|(keyword, _)| ["ARG", "ENV"].contains(&&**keyword)) {
        let upper = rest.to_uppercase();
        let is_secret = ["SECRET", "TOKEN", "PASSWORD", "KEY"].iter().any(|word| upper.contains(word));
        assert!(!is_secret, "{keyword} {rest} stays in the image");
    }
}

#[test]
fn the_programs_need_no_library_that_the_image_lacks() {
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
