//! Images of other projects are pinned by `containers/pin.sh`, which needs a connection to the registries.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use testkit::Folder;

/// Answers with a digest made from the name of the image, and knows no image that contains `UNKNOWN`.
const DOCKER: &str = r#"#!/bin/sh
for image; do :; done
case $image in *"$UNKNOWN"*) echo "manifest unknown" >&2; exit 1 ;; esac
printf 'sha256:%s\n' "$(printf %s "$image$SALT" | sha256sum | cut -c1-64)"
"#;
/// An answer that no image contains.
const NONE: &str = "no-such-image";

/// A copy of the files that name images, which a test can change.
struct CopiedFiles {
    folder: Folder,
}

impl CopiedFiles {
    fn new() -> Self {
        let folder = Folder::temporary().unwrap();
        for source in ["compose.yaml", "containers", "k8s"] {
            let source = deploy::folder().join(source);
            let copied = Command::new("cp").arg("-r").arg(source).arg(folder.path()).status().unwrap();
            assert!(copied.success());
        }
        let docker = folder.subfolder("bin").unwrap().join("docker");
        fs::write(&docker, DOCKER).unwrap();
        fs::set_permissions(docker, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn pin(&self, salt: &str, unknown: &str) -> Output {
        let path = format!("{}:{}", self.folder.path().join("bin").display(), std::env::var("PATH").unwrap());
        let mut pin = Command::new(deploy::folder().join("containers/pin.sh"));
        pin.arg(self.folder.path())
            .env("PATH", path)
            .env("SALT", salt)
            .env("UNKNOWN", unknown)
            .output()
            .unwrap()
    }

    /// Returns every image with its digest, which is empty for one that is not pinned.
    fn images(&self) -> BTreeMap<String, String> {
        let mut images = BTreeMap::new();
        for file in files_in(self.folder.path()) {
            let text = fs::read_to_string(&file).unwrap();
            for line in text.lines() {
                let line = line.trim_start().trim_start_matches("- ");
                let prefixes = ["image: ", "FROM ", "# syntax="];
                let Some(image) = prefixes.into_iter().find_map(|prefix| line.strip_prefix(prefix)) else {
                    continue;
                };
                let image = image.split(' ').next().unwrap();
                let (name, digest) = image.split_once('@').unwrap_or((image, ""));
                // Without a tag it is a stage of the Dockerfile.
                if name.contains(':') {
                    let before = images.insert(name.to_owned(), digest.to_owned());
                    assert!(before.is_none_or(|before| before == digest), "{name} has two digests");
                }
            }
        }
        images
    }
}

/// Returns the files that may name images.
fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_in(&path));
        } else if path.extension().is_some_and(|it| it == "yaml") || path.ends_with("Dockerfile") {
            files.push(path);
        }
    }
    files
}

fn is_own(image: &str) -> bool {
    image.rsplit('/').next().unwrap().starts_with("flashsale-")
}

#[test]
fn one_command_pins_all_images_of_other_projects() {
    let copy = CopiedFiles::new();
    let before = copy.images();
    for salt in ["first", "second"] {
        let run = copy.pin(salt, NONE);
        assert!(run.status.success(), "{run:?}");
        let pinned = copy.images();
        assert!(pinned.keys().eq(before.keys()), "a tag was changed: {pinned:?}");
        for (image, digest) in &pinned {
            assert_eq!(deploy::is_digest(digest), !is_own(image), "{image}@{digest}");
        }
        // A second run has other digests, and changes all of them.
        assert_ne!(pinned, before);
        let again = copy.pin(salt, NONE);
        assert!(again.status.success() && copy.images() == pinned, "{again:?}");
    }
}

#[test]
fn unknown_image_changes_no_file() {
    let copy = CopiedFiles::new();
    let before = copy.images();
    let run = copy.pin("first", "prometheus");
    assert_eq!(run.status.code(), Some(1), "{run:?}");
    assert!(String::from_utf8_lossy(&run.stderr).contains("no digest of prom/prometheus:"), "{run:?}");
    assert_eq!(copy.images(), before);
}
