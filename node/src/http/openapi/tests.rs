use super::*;

/// The tracked copy shows in a diff how a change affects the API.
#[test]
fn tracked_copy_matches_the_served_document() {
    let tracked = testkit::workspace_root().join("node/openapi.json");
    let served = description().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&tracked, &served).unwrap();
    }
    assert!(
        std::fs::read_to_string(&tracked).unwrap_or_default() == served,
        "node/openapi.json differs from the served document; `UPDATE_OPENAPI=1 cargo test -p node openapi` rewrites it"
    );
}

#[test]
fn references_and_linked_operations_exist() {
    let document = serde_json::to_value(description()).unwrap();
    let text = document.to_string();
    for pointer in text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(document.pointer(pointer).is_some(), "{pointer}");
    }
    for (from, _, next, _) in LINKS {
        for id in [from, next] {
            let described = format!("\"operationId\":\"{id}\",\"parameters\":[");
            assert!(text.contains(&described), "a link names {id}, which is no operation");
        }
    }
}

fn description() -> OpenApi {
    complete(crate::router::api().into_openapi())
}
