//! The context of `docker build`: the files that `.dockerignore` includes.
//!
//! The file has a simple form that cannot be misread: the first pattern excludes everything, and each further line
//! includes one literal path.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Returns every file of the context, relative to the root of the repository.
///
/// # Errors
/// Fails when `.dockerignore` does not have this form, or names a path that does not exist.
pub fn files() -> Result<Vec<PathBuf>> {
    let root = crate::repository();
    let mut files = Vec::new();
    for path in named(&fs::read_to_string(root.join(".dockerignore"))?)? {
        let full = root.join(&path);
        ensure!(full.exists(), ".dockerignore names {path}, which does not exist");
        collect(&full, &mut files)?;
    }
    Ok(files.into_iter().filter_map(|file| Some(file.strip_prefix(&root).ok()?.to_owned())).collect())
}

/// Copies the context into a folder and returns its size in bytes.
///
/// # Errors
/// Fails when a file cannot be read or written.
pub fn copy_to(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for file in files()? {
        let copy = folder.join(&file);
        fs::create_dir_all(copy.parent().context("a file lies in a folder")?)?;
        bytes += fs::copy(crate::repository().join(&file), copy)?;
    }
    Ok(bytes)
}

fn named(ignored: &str) -> Result<Vec<String>> {
    let mut patterns = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    ensure!(patterns.next() == Some("*"), "the first pattern must exclude everything");
    let path = |pattern: &str| {
        let path = pattern.strip_prefix('!').filter(|path| !path.contains(['*', '?', '[', '\\']));
        Ok(path.with_context(|| format!("{pattern} does not include a literal path"))?.to_owned())
    };
    patterns.map(path).collect()
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
        return Ok(());
    }
    fs::read_dir(path)?.try_for_each(|entry| collect(&entry?.path(), files))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_literal_paths_are_included() {
        assert_eq!(named("# why\n*\n\n!a/b\n!c\n").unwrap(), ["a/b", "c"]);
        for other in ["!a\n", "*\na\n", "*\n!a/*\n", ""] {
            assert!(named(other).is_err(), "{other:?}");
        }
    }
}
