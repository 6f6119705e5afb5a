//! Label selectors.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{list, pairs, text};

/// Returns true when a selector matches these labels. An empty selector matches everything, a missing one nothing.
pub fn selects(selector: &Value, labels: &BTreeMap<String, String>) -> bool {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selector_matches_when_all_conditions_hold() {
        let labels = BTreeMap::from([("app".to_owned(), "node".to_owned())]);
        assert!(selects(&json!({}), &labels) && !selects(&Value::Null, &labels));
        assert!(selects(&json!({"matchLabels": {"app": "node"}}), &labels));
        assert!(!selects(&json!({"matchLabels": {"app": "node", "pair": "a"}}), &labels));
        let asks = |operator: &str, key: &str| json!({"matchExpressions": [{"key": key, "operator": operator, "values": ["node", "redis"]}]});
        assert!(selects(&asks("In", "app"), &labels) && !selects(&asks("In", "pair"), &labels));
        assert!(!selects(&asks("NotIn", "app"), &labels) && selects(&asks("NotIn", "pair"), &labels));
        assert!(selects(&asks("Exists", "app"), &labels) && !selects(&asks("Exists", "pair"), &labels));
        assert!(!selects(&asks("DoesNotExist", "app"), &labels) && !selects(&asks("Near", "app"), &labels));
    }
}
