//! Label selectors.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::overlay::{list, pairs, text};

/// Returns true when a selector matches these labels. An empty selector matches everything, a missing one nothing.
pub(crate) fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
    let is_equal = |(key, value): (&String, &Value)| labels.get(key).map(String::as_str) == value.as_str();
    selector.is_object()
        && pairs(&selector["matchLabels"]).all(is_equal)
        && list(&selector["matchExpressions"]).iter().all(|expression| holds(expression, labels))
}

fn holds(expression: &Value, labels: &BTreeMap<String, String>) -> bool {
    let label = labels.get(text(&expression["key"]));
    let is_among = label.is_some_and(|label| list(&expression["values"]).iter().any(|value| value == label));
    match text(&expression["operator"]) {
        "In" => is_among,
        "NotIn" => !is_among,
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false,
    }
}

#[test]
fn selector_matches_when_all_conditions_hold() {
    let labels = BTreeMap::from([("app".to_owned(), "node".to_owned())]);
    let matches = |selector: Value| selects(&selector, &labels);
    assert!(matches(json!({})) && !matches(Value::Null));
    assert!(matches(json!({"matchLabels": {"app": "node"}})));
    assert!(!matches(json!({"matchLabels": {"app": "node", "pair": "a"}})));

    // Operator, and the result for a label that is among the values, and for a missing label.
    let operators = [
        ("In", true, false),
        ("NotIn", false, true),
        ("Exists", true, false),
        ("DoesNotExist", false, true),
        ("Near", false, false),
    ];
    for (operator, if_among, if_missing) in operators {
        for (key, expected) in [("app", if_among), ("pair", if_missing)] {
            let expression = json!({"key": key, "operator": operator, "values": ["node", "redis"]});
            assert_eq!(matches(json!({"matchExpressions": [expression]})), expected, "{operator} {key}");
        }
    }
}
