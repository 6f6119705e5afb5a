//! Programs print in a way that a reader who is gone (`| head`) does not turn into a panic.

#![expect(clippy::unwrap_used, reason = "a failed unwrap ends the test and shows its line")]

use std::{fs, path::Path};

/// The crates with programs, and those that they print with.
const CRATES: [&str; 8] =
    ["chaos", "cluster_admin", "coordinator", "loadtest", "node", "service", "testkit", "xtask"];
/// Panic if the output is closed. `writeln!` returns an error instead.
const PANICKING: [&str; 4] = ["println!(", "print!(", "eprintln!(", "eprint!("];

#[test]
fn programs_do_not_print_with_panicking_macros() {
    let mut found = Vec::new();
    for name in CRATES {
        let folder = testkit::workspace_root().join(name).join("src");
        for_each_source(&folder, &mut |path, text| {
            let lines = text.lines().enumerate().filter(|(_, line)| {
                let code = line.split("//").next().unwrap();
                PANICKING.iter().any(|name| code.contains(name))
            });
            found.extend(lines.map(|(number, line)| format!("{}:{}: {line}", path.display(), number + 1)));
        });
    }
    assert!(found.is_empty(), "write to io::stdout() or io::stderr() instead:\n{}", found.join("\n"));
}

fn for_each_source(folder: &Path, visit: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            for_each_source(&path, visit);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            visit(&path, &fs::read_to_string(&path).unwrap());
        }
    }
}
