use std::collections::BTreeSet;
use std::path::Path;

use super::*;

/// What others read, and see in a diff what a change does to it.
#[test]
fn the_tracked_copy_is_what_is_served() {
    let tracked = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let served = description().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&tracked, &served).unwrap();
    }
    assert!(
        std::fs::read_to_string(&tracked).unwrap_or_default() == served,
        "node/openapi.json is another document; `UPDATE_OPENAPI=1 cargo test -p node openapi` rewrites it"
    );
}

#[test]
fn every_route_of_the_api_is_described() {
    let router = include_str!("../../router.rs");
    let routes = router.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
    let routes: BTreeSet<&str> =
        routes.filter(|path| path.starts_with("/api/") && !path.starts_with("/api/docs")).collect();
    let paths = description().paths.paths;
    assert_eq!(paths.keys().map(String::as_str).collect::<BTreeSet<_>>(), routes);
}

#[test]
fn whatever_is_referred_to_is_there() {
    let document = serde_json::to_value(description()).unwrap();
    let text = document.to_string();
    for pointer in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    for id in text.split("\"operationId\":\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        let described = format!("\"operationId\":\"{id}\",\"parameters\":[");
        assert!(text.contains(&described), "{id} is linked to, and no operation");
    }
}
