//! Checks the links of all tracked Markdown files: each relative path exists, and each `#anchor` is a heading.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;
use std::{env, fs};

#[test]
fn relative_links_and_anchors_resolve() {
    let documents = documents();
    assert!(documents.contains_key(Path::new("README.md")), "no Markdown files were found");
    let broken: Vec<String> = documents
        .iter()
        .flat_map(|(path, document)| document.links.iter().map(move |link| (path, link)))
        .filter_map(|(path, link)| {
            let reason = problem(&documents, path, &link.target)?;
            Some(format!("{}:{}: {}: {reason}", path.display(), link.line, link.target))
        })
        .collect();
    assert!(broken.is_empty(), "{} broken links:\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn links_are_found_outside_code_only() {
    let document = Document::parse(
        "# A *b* `c_d` [e](f.md), (g)!\n\
         text [one](a.md) and ![two](b.png \"title\")\n\
         `[not](code.md)` [`three`](c.md#x)\n\
         ```sh\n\
         # not a heading [not](fenced.md)\n\
         ```\n\
         # A *b* `c_d` [e](f.md), (g)!\n\
         <img src=\"d.png\">\n\
         [four]: e.md\n",
    );
    let links: Vec<(usize, &str)> =
        document.links.iter().map(|link| (link.line, link.target.as_str())).collect();
    let expected =
        [(1, "f.md"), (2, "a.md"), (2, "b.png"), (3, "c.md#x"), (7, "f.md"), (8, "d.png"), (9, "e.md")];
    assert_eq!(links, expected);
    assert_eq!(document.anchors, ["a-b-c_d-e-g", "a-b-c_d-e-g-1"].map(String::from).into());
}

/// A Markdown file, reduced to its links and to the anchors of its headings.
#[derive(Default)]
struct Document {
    links: Vec<Link>,
    anchors: BTreeSet<String>,
}

struct Link {
    line: usize,
    target: String,
}

impl Document {
    fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut slugs: BTreeMap<String, usize> = BTreeMap::new();
        let mut in_fence = false;
        for (index, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_fence = !in_fence;
            } else if !in_fence {
                let targets = targets(&without_code(line));
                document.links.extend(targets.into_iter().map(|target| Link { line: index + 1, target }));
                document.anchors.extend(heading(line).map(|title| unique(slug(title), &mut slugs)));
            }
        }
        document
    }
}

/// The tracked Markdown files, by their path from the root of the workspace.
fn documents() -> BTreeMap<PathBuf, Document> {
    let listed = Command::new("git").args(["ls-files", "-z", "*.md"]).current_dir(root()).output().unwrap();
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let paths = String::from_utf8(listed.stdout).unwrap();
    let paths = paths.split_terminator('\0').map(PathBuf::from);
    // A file that is deleted but not yet committed is still listed.
    let present = paths.filter(|path| root().join(path).is_file());
    present
        .map(|path| {
            let document = Document::parse(&fs::read_to_string(root().join(&path)).unwrap());
            (path, document)
        })
        .collect()
}

fn root() -> PathBuf {
    Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

/// Returns the reason why the link of a document does not resolve.
fn problem(documents: &BTreeMap<PathBuf, Document>, document: &Path, target: &str) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (target, None),
    };
    let path = match file {
        "" => document.to_owned(),
        file => normalized(&document.parent().unwrap().join(file)),
    };
    if !root().join(&path).exists() {
        return Some(format!("there is no file {}", path.display()));
    }
    let anchor = anchor?;
    match documents.get(&path) {
        None => Some(format!("{} is not a tracked Markdown file, so it has no anchors", path.display())),
        Some(linked) if linked.anchors.contains(anchor) => None,
        Some(_) => Some(format!("{} has no heading with the anchor #{anchor}", path.display())),
    }
}

/// Resolves `..` without the file system, as a browser does.
fn normalized(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, component| {
        match component {
            Component::ParentDir => _ = path.pop(),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
        path
    })
}

/// The targets of `[text](target)`, `![text](target "title")`, `[label]: target` and `<img src="target">`.
fn targets(line: &str) -> Vec<String> {
    let inline = line.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next());
    let html = ["src=\"", "href=\""].into_iter().flat_map(|attribute| line.split(attribute).skip(1));
    let html = html.filter_map(|rest| rest.split('"').next());
    let definition = line.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
    let definition = definition.and_then(|(_, rest)| rest.split_whitespace().next());
    inline.chain(html).chain(definition).map(str::to_owned).collect()
}

/// The line with its code spans emptied: code is not parsed for links.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

/// The text of a heading: the line after one to six `#` and a space.
fn heading(line: &str) -> Option<&str> {
    let title = line.trim_start_matches('#');
    let level = line.len() - title.len();
    ((1..=6).contains(&level) && title.starts_with(' ')).then(|| title.trim())
}

/// The anchor that GitHub gives to a heading: lower case, punctuation removed, spaces as hyphens.
fn slug(title: &str) -> String {
    let text = without_targets(title).to_lowercase();
    let kept = text.chars().filter(|&char| char.is_alphanumeric() || " -_".contains(char));
    kept.map(|char| if char == ' ' { '-' } else { char }).collect()
}

/// `[text](target)` as `text`.
fn without_targets(title: &str) -> String {
    let mut parts = title.split("](");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, rest| text + rest.split_once(')').map_or("", |(_, after)| after))
}

/// GitHub numbers repeated anchors: `limits`, `limits-1`.
fn unique(slug: String, seen: &mut BTreeMap<String, usize>) -> String {
    let repeats = seen.entry(slug.clone()).and_modify(|repeats| *repeats += 1).or_insert(0);
    if *repeats == 0 { slug } else { format!("{slug}-{repeats}") }
}
