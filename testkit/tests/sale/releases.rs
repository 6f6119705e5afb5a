//! A rolling update from a release with another function library, as deployed: nodes may not load functions.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use redis::cmd;
use stock::functions::{LIBRARY, LIBRARY_PREFIX};
use testkit::stack::Programs;
use testkit::{BuyerAnswer, Buyers, Folder, StackOptions, binary, tally, until, workspace_root};

use crate::fixture::{OpenSale, TIMEOUT, sale_options};

const NODE: &str = "flashsale-node";
const COORDINATOR: &str = "flashsale-coordinator";

#[tokio::test(flavor = "multi_thread")]
async fn update_from_another_library_fails_no_purchase() {
    // Given coordinators and nodes of a release whose library is not that of this one.
    let folder = Folder::temporary().unwrap();
    let installed = |program| folder.path().join(program);
    for program in [NODE, COORDINATOR] {
        install_older_release(program, &installed(program));
    }
    let sale = OpenSale::start_with(StackOptions {
        secured: true,
        coordinators: 2,
        programs: Some(Programs { node: installed(NODE), coordinator: installed(COORDINATOR), ledger: None }),
        sale: sale_options(100_000),
        ..StackOptions::default()
    })
    .await;
    let older = only_library(&sale).await;
    assert_ne!(older, LIBRARY.name);

    // When, while buyers buy, the coordinators are replaced by those of this release, a primary loses its functions
    // while the nodes are still the older ones, and the nodes are replaced.
    let update = async {
        install_this_release(COORDINATOR, &installed(COORDINATOR));
        sale.stack.roll_coordinators(|_| ()).await.unwrap();
        wait_for_libraries(&sale, &[&older, &LIBRARY.name]).await;
        let primary = sale.stack.redis().primaries().await[0];
        sale.query::<()>(primary, cmd("FUNCTION").arg("FLUSH")).await;
        wait_for_libraries(&sale, &[&older, &LIBRARY.name]).await;
        wait_for_purchases(&sale, 300).await;
        install_this_release(NODE, &installed(NODE));
        sale.stack.roll_nodes(|_| ()).await.unwrap();
        wait_for_purchases(&sale, 300).await;
    };
    let ((), answers) = Buyers::new(16).buy_during(&sale.stack.url(), update).await;

    // Then each purchase succeeded, and the older library is still there for a way back.
    println!("{} purchases during the update", answers.len());
    assert!(answers.len() > 500, "too few purchases for a meaningful test");
    assert!(answers.iter().all(BuyerAnswer::is_purchased), "the answers are {:?}", tally(&answers));
    wait_for_libraries(&sale, &[&older, &LIBRARY.name]).await;
    let audit = sale.stack.audit("flash").await.unwrap();
    assert!(audit.ok, "the audit found {:?}", audit.violations);
    assert_eq!(audit.claims, answers.len() as u64);
}

/// Installs the program of a release that differs in a comment of one function, so that the digest in the names of its
/// library and its functions differs.
fn install_older_release(program: &str, to: &Path) {
    let code = fs::read_to_string(workspace_root().join("stock/src/functions/buy.lua")).unwrap();
    let comment = code.lines().next().unwrap();
    assert!(comment.starts_with("-- ") && comment.ends_with('.'), "{comment}");
    let built = binary(program).unwrap();
    let mut bytes = fs::read(&built).unwrap();
    let places: Vec<usize> = places_of(comment.as_bytes(), &bytes);
    assert!(!places.is_empty(), "{program} does not contain its Lua code");
    places.into_iter().for_each(|place| bytes[place + comment.len() - 1] = b'!');
    fs::write(to, bytes).unwrap();
    fs::set_permissions(to, fs::metadata(built).unwrap().permissions()).unwrap();
}

fn places_of(text: &[u8], bytes: &[u8]) -> Vec<usize> {
    let starts = bytes.windows(text.len()).enumerate();
    starts.filter(|(_, window)| window[3] == text[3] && *window == text).map(|(place, _)| place).collect()
}

/// Replaces the program at a path. Processes that run it go on with the former one.
fn install_this_release(program: &str, at: &Path) {
    let beside = at.with_extension("new");
    symlink(binary(program).unwrap(), &beside).unwrap();
    fs::rename(beside, at).unwrap();
}

async fn wait_for_purchases(sale: &OpenSale, more: u64) {
    let enough = sale.stack.status().await.unwrap().sold() + more;
    let sold = async || sale.stack.status().await.is_ok_and(|status| status.sold() >= enough);
    until("buyers buy", TIMEOUT, sold).await.unwrap();
}

/// Waits until each primary has these libraries, and no others.
async fn wait_for_libraries(sale: &OpenSale, expected: &[&str]) {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let have = async || libraries(sale).await.iter().all(|libraries| *libraries == expected);
    until("each primary has the libraries of both releases", TIMEOUT, have).await.unwrap();
}

async fn only_library(sale: &OpenSale) -> String {
    let libraries = libraries(sale).await;
    assert!(libraries.iter().all(|here| here.len() == 1 && here == &libraries[0]), "{libraries:?}");
    libraries[0][0].clone()
}

/// The names of the libraries of each primary, sorted.
async fn libraries(sale: &OpenSale) -> Vec<Vec<String>> {
    let mut list = cmd("FUNCTION");
    list.arg("LIST").arg("LIBRARYNAME").arg(format!("{LIBRARY_PREFIX}*"));
    let mut all = Vec::new();
    for primary in sale.stack.redis().primaries().await {
        let entries: Vec<HashMap<String, redis::Value>> = sale.query(primary, &list).await;
        let name = |entry: &HashMap<String, redis::Value>| {
            redis::from_redis_value_ref::<String>(&entry["library_name"]).unwrap()
        };
        let mut names: Vec<String> = entries.iter().map(name).collect();
        names.sort_unstable();
        all.push(names);
    }
    all
}
