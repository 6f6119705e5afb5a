//! Plain English in comments, and one meaning for each public name.
//!
//! Counts three habits that make comments hard to read. The bounds are a little above those of well-kept projects of this field.

#![expect(clippy::unwrap_used, reason = "a file that cannot be read fails the test")]

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
};

/// Sentences in a thousand that may contain one of [`VAGUE`].
const VAGUE_MAX: usize = 6;
const VAGUE: [&str; 5] = ["whoever", "whatever", "somebody", "nobody", "everybody"];

/// Sentences in a thousand that may open with one of [`CLAUSES`].
const CLAUSES_MAX: usize = 8;
const CLAUSES: [&str; 3] = ["What", "Whatever", "Whether"];

/// Sentences in a thousand that may open with one of [`PEOPLE`].
const PEOPLE_MAX: usize = 3;
const PEOPLE: [&str; 3] = ["Who", "Whom", "Nobody"];

/// Public types that share a name because they mean the same thing, and why there are two.
const SHARED_NAMES: [(&str, &[&str]); 4] = [
    ("each program has its own settings", &["ListenSettings", "Settings"]),
    (
        "the model shares no code with what it specifies",
        &[
            "Action",
            "Attempt",
            "BuyAnswer",
            "Change",
            "ReplicaLink",
            "SaleRecord",
            "Shard",
            "ShardContents",
            "State",
        ],
    ),
    ("buyers keeps journals and claims without the product's code", &["Change", "Claim", "ShardSettings"]),
    ("testkit runs the programs", &["Coordinator", "Ledger"]),
];

/// The markers of comments, by a file's extension. A longer marker comes before one that it begins with.
const MARKERS: [(&str, &[&str]); 3] = [("rs", &["///", "//!", "//"]), ("lua", &["--"]), ("sh", &["#"])];

struct Sentence {
    file: PathBuf,
    line: usize,
    text: String,
}

#[test]
fn comments_keep_to_plain_english() {
    let sentences = sentences();
    let opens_with = |words: &'static [&str]| {
        move |text: &str| {
            words.contains(&text.trim_start_matches(['(', '`', '*', '_']).split(not_a_letter).next().unwrap())
        }
    };
    let contains =
        |text: &str| text.split(not_a_letter).any(|word| VAGUE.contains(&word.to_lowercase().as_str()));
    let failures: String = [
        report(&sentences, "contain one of", &VAGUE, VAGUE_MAX, contains),
        report(&sentences, "open with one of", &CLAUSES, CLAUSES_MAX, opens_with(&CLAUSES)),
        report(&sentences, "open with one of", &PEOPLE, PEOPLE_MAX, opens_with(&PEOPLE)),
    ]
    .concat();
    assert!(failures.is_empty(), "\n{failures}Say what the item is or does, with a noun or a verb first.");
}

#[test]
fn public_types_have_names_of_their_own() {
    let mut homes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files("rs").into_iter().filter(|file| file.components().any(|part| part.as_os_str() == "src"))
    {
        let home = file.strip_prefix(workspace()).unwrap().display().to_string();
        for name in fs::read_to_string(&file).unwrap().lines().filter_map(public_type) {
            homes.entry(name.to_owned()).or_default().push(home.clone());
        }
    }
    let is_allowed = |name: &str| SHARED_NAMES.iter().any(|(_, names)| names.contains(&name));
    let shared: Vec<String> = homes
        .into_iter()
        .filter(|(name, homes)| homes.len() > 1 && !is_allowed(name))
        .map(|(name, homes)| format!("{name}: {}", homes.join(", ")))
        .collect();
    assert!(
        shared.is_empty(),
        "several public types have one name; rename all but one, or add it to SHARED_NAMES with a reason:\n{}",
        shared.join("\n")
    );
}

/// Returns the name of the public type that a line declares at the top level of a file.
fn public_type(line: &str) -> Option<&str> {
    let declaration = line.strip_prefix("pub ")?;
    let (kind, rest) = declaration.split_once(' ')?;
    let is_type = ["struct", "enum", "trait", "type", "union"].contains(&kind);
    rest.split(|c: char| !c.is_alphanumeric()).next().filter(|_| is_type)
}

/// Returns the message of a bound that is exceeded, with the sentences that exceed it.
fn report(
    sentences: &[Sentence],
    habit: &str,
    words: &[&str],
    max: usize,
    has_habit: impl Fn(&str) -> bool,
) -> String {
    let found: Vec<&Sentence> = sentences.iter().filter(|sentence| has_habit(&sentence.text)).collect();
    if found.len() * 1_000 <= max * sentences.len() {
        return String::new();
    }
    let lines: String = found
        .iter()
        .map(|Sentence { file, line, text }| format!("  {}:{line}: {text}\n", file.display()))
        .collect();
    format!(
        "{} of {} sentences in comments {habit} {words:?}; {max} in a thousand may:\n{lines}",
        found.len(),
        sentences.len()
    )
}

/// Returns all sentences of all comments.
fn sentences() -> Vec<Sentence> {
    let mut sentences = Vec::new();
    for (extension, markers) in MARKERS {
        for file in files(extension) {
            let relative = file.strip_prefix(workspace()).unwrap().to_owned();
            for (line, paragraph) in paragraphs(&fs::read_to_string(&file).unwrap(), markers) {
                let split = split_sentences(&paragraph);
                sentences.extend(split.map(|text| Sentence { file: relative.clone(), line, text }));
            }
        }
    }
    sentences
}

/// Joins adjacent comment lines. Leaves out code, headings and tables.
fn paragraphs(text: &str, markers: &[&str]) -> Vec<(usize, String)> {
    let mut paragraphs: Vec<(usize, String)> = Vec::new();
    let (mut continues, mut is_code) = (false, false);
    for (number, line) in text.lines().enumerate() {
        let comment = markers.iter().find_map(|marker| line.trim_start().strip_prefix(marker)).map(str::trim);
        let is_fence = comment.is_some_and(|comment| comment.starts_with("```"));
        is_code = comment.is_some() && is_code != is_fence;
        match comment.filter(|comment| !is_code && !is_fence && !comment.starts_with(['#', '|'])) {
            Some("") | None => continues = false,
            Some(comment) if continues && !comment.starts_with("- ") => {
                let (_, last) = paragraphs.last_mut().unwrap();
                *last += " ";
                *last += comment;
            }
            Some(comment) => {
                paragraphs.push((number + 1, comment.trim_start_matches("- ").to_owned()));
                continues = true;
            }
        }
    }
    paragraphs
}

/// Splits a paragraph after each full stop, question or exclamation mark that is followed by a capital letter or a mark-up character.
fn split_sentences(paragraph: &str) -> impl Iterator<Item = String> {
    let mut sentences = vec![String::new()];
    let mut words = paragraph.split(' ').peekable();
    while let Some(word) = words.next() {
        let sentence = sentences.last_mut().unwrap();
        *sentence += word;
        let ends = word.ends_with(['.', '?', '!']);
        let begins = |next: &&str| next.starts_with(|c: char| c.is_uppercase() || "`[(*\"".contains(c));
        if ends && words.peek().is_some_and(begins) {
            sentences.push(String::new());
        } else {
            *sentence += " ";
        }
    }
    sentences.into_iter().map(|sentence| sentence.trim().to_owned()).filter(|sentence| !sentence.is_empty())
}

fn not_a_letter(character: char) -> bool {
    !character.is_alphabetic()
}

/// Lists the workspace's own files with this extension.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![workspace()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == extension) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn workspace() -> PathBuf {
    Path::new(&env::var_os("CARGO_MANIFEST_DIR").unwrap()).parent().unwrap().to_owned()
}

#[test]
fn sentences_are_told_apart() {
    let text = "/// Sells units, e.g. one. Counts them\n/// by `x`.\n///\n/// ```\n/// What();\n/// ```\nfn a() {}\n// Whether.";
    let found = paragraphs(text, &["///", "//!", "//"]);
    assert_eq!(found, [(1, "Sells units, e.g. one. Counts them by `x`.".into()), (8, "Whether.".into())]);
    let sentences: Vec<String> = split_sentences(&found[0].1).collect();
    assert_eq!(sentences, ["Sells units, e.g. one.", "Counts them by `x`."]);
}
