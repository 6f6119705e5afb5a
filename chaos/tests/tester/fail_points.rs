//! The shipped node cannot be sabotaged.

use std::{fs, path::PathBuf};

use testkit::binary;

use crate::fixture::sabotaged_node;

#[test]
fn shipped_node_has_no_fail_points() {
    let has_fail_points = |program: PathBuf| {
        let point = b"die-after-donate";
        fs::read(program).unwrap().windows(point.len()).any(|bytes| bytes == point)
    };
    assert!(has_fail_points(sabotaged_node()));
    assert!(!has_fail_points(binary("flashsale-node").unwrap()));
}
