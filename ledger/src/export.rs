//! Orders as lines: NDJSON for programs, CSV for spreadsheets.

use serde_json::Value;

use crate::orders::StoredOrder;

/// The columns of a CSV file, which are the members of an order.
const COLUMNS: [&str; 6] = ["position", "orderId", "userId", "purchasedAt", "sale", "correlationId"];

/// Format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ndjson,
    Csv,
}

impl Format {
    /// Returns the format that an `Accept` header asks for, or `None` for pages of JSON.
    pub(crate) fn accepted(header: &str) -> Option<Self> {
        let types = header.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
        types.into_iter().find_map(|media| match media {
            "application/x-ndjson" => Some(Self::Ndjson),
            "text/csv" => Some(Self::Csv),
            _ => None,
        })
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv; charset=utf-8; header=present",
        }
    }

    /// Returns the line before the first order.
    pub(crate) fn head(self) -> String {
        match self {
            Self::Ndjson => String::new(),
            Self::Csv => COLUMNS.join(",") + "\r\n",
        }
    }

    /// Returns a line for each order.
    pub(crate) fn write(self, orders: Vec<StoredOrder>) -> String {
        let mut lines = String::new();
        for StoredOrder { position, mut payload } in orders {
            payload["position"] = position.into();
            match self {
                Self::Ndjson => lines.push_str(&(payload.to_string() + "\n")),
                Self::Csv => {
                    let cells = COLUMNS.map(|column| cell(&payload[column]));
                    lines.push_str(&(cells.join(",") + "\r\n"));
                }
            }
        }
        lines
    }
}

/// Returns a cell of RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe in front.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let text = if is_formula { format!("'{text}") } else { text };
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(user: Option<&str>) -> StoredOrder {
        let payload = json!({
            "sale": "flash", "orderId": "A1", "userId": user, "purchasedAt": "2026-11-28T20:00:00.000Z",
            "correlationId": "c,1",
        });
        StoredOrder { position: 7, payload }
    }

    #[test]
    fn csv_cells_are_quoted_and_are_no_formulas() {
        let lines = Format::Csv.write(vec![order(Some("=1+\"2\"")), order(Some("ann")), order(None)]);
        let rest = "2026-11-28T20:00:00.000Z,flash,\"c,1\"\r\n";
        assert_eq!(lines, format!("7,A1,\"'=1+\"\"2\"\"\",{rest}7,A1,ann,{rest}7,A1,,{rest}"));
    }

    #[test]
    fn ndjson_has_an_order_per_line() {
        let lines = Format::Ndjson.write(vec![order(Some("ann")), order(Some("bob"))]);
        let users: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(users.iter().map(|order| &order["userId"]).collect::<Vec<_>>(), ["ann", "bob"]);
        assert_eq!(users[0]["position"], 7);
    }

    #[test]
    fn accept_header_chooses_the_format() {
        assert_eq!(Format::accepted("text/html, text/csv;q=0.9"), Some(Format::Csv));
        assert_eq!(Format::accepted("application/x-ndjson"), Some(Format::Ndjson));
        for json in ["", "*/*", "application/json"] {
            assert_eq!(Format::accepted(json), None, "{json}");
        }
    }
}
