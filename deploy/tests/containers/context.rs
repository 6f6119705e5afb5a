//! The build context is complete and small.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use deploy::{context, repository};
use testkit::binary::cargo;
use testkit::{Folder, binary};

use crate::TARGETS;

/// The sources of the programs and the list of their dependencies are 1.5 MB. With their tests it would be half as much
/// again.
const BYTES_MAX: u64 = 1_800_000;
/// Crates that only tests and the load test need. Goose alone brings two hundred crates.
const NOT_SHIPPED: [&str; 6] = ["goose", "buyers", "testkit", "chaos", "proptest", "stateright"];

/// Returns every file of the repository that the compiler read for the programs. It lists them in a `.d` file beside
/// each program.
fn read_by_the_compiler() -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::new();
    for (_, program) in TARGETS {
        let list = fs::read_to_string(binary(program)?.with_extension("d"))?;
        let ours = list.split_whitespace().filter_map(|file| Path::new(file).strip_prefix(repository()).ok());
        // The first entry is the program itself.
        files.extend(ours.skip(1).map(Path::to_owned));
    }
    Ok(files)
}

#[test]
fn context_contains_every_compiled_file() {
    let sent = BTreeSet::from_iter(context::files().unwrap());
    let read = read_by_the_compiler().unwrap();
    for known in [
        "stock/src/functions/buy.lua",
        "node/page/page.js",
        "coordinator/src/main.rs",
        "ledger/migrations/V1__orders.sql",
    ] {
        assert!(read.contains(Path::new(known)), "the compiler does not list {known}");
    }
    let missing: Vec<_> = read.difference(&sent).collect();
    assert!(missing.is_empty(), "not in the context: {missing:?}");
}

#[test]
fn context_is_small_and_opens_as_workspace() {
    let folder = Folder::temporary().unwrap();
    let bytes = context::copy_to(folder.path()).unwrap();
    assert!(bytes < BYTES_MAX, "{bytes} bytes would be sent");

    // Resolves the crates of the images offline, from the local registry.
    let tree = cargo()
        .current_dir(folder.path())
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--edges", "normal,build"])
        .args(["--package", "node", "--package", "coordinator", "--package", "ledger"])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let crates = String::from_utf8(tree.stdout).unwrap();
    let compiles = |name: &str| crates.lines().any(|line| line.starts_with(&format!("{name} v")));
    assert!(compiles("stock") && compiles("axum"), "{crates}");
    let unwanted: Vec<_> = NOT_SHIPPED.into_iter().filter(|name| compiles(name)).collect();
    assert!(unwanted.is_empty(), "{unwanted:?} would be compiled");
}
