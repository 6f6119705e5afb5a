//! Orders as lines: NDJSON for programs, CSV for spreadsheets.
//!
//! A file is made page by page, as fast as the client takes it, so its memory does not grow with the orders. Between two
//! pages it holds no connection to PostgreSQL.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::{StreamExt as _, stream};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::orders::{ReadError, SaleOrders, StoredOrder};

/// Most orders in one read.
pub(crate) const PAGE: u32 = 1_000;

/// Longest time in which a client takes a page of some 250 kB. A client that reads nothing is disconnected sooner.
const PAGE_LIMIT: Duration = Duration::from_mins(1);

/// The columns of a CSV file, which are the members of an order.
const COLUMNS: [&str; 6] = ["position", "orderId", "userId", "purchasedAt", "sale", "correlationId"];

/// Format of a list of orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Pages.
    Json,
    Ndjson,
    Csv,
}

impl Format {
    /// All formats. The first one is preferred where a client has no preference.
    pub(crate) const ALL: [Self; 3] = [Self::Json, Self::Ndjson, Self::Csv];

    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Csv => "text/csv",
        }
    }

    /// The value of `Content-Type`.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            other => other.media_type(),
        }
    }

    /// Returns the format that an `Accept` header (RFC 9110) prefers, or `None` when it accepts none of them.
    pub(crate) fn accepted(header: &str) -> Option<Self> {
        if header.trim().is_empty() {
            return Some(Self::Json);
        }
        let mut best = None;
        for format in Self::ALL {
            let weight = format.weight(header);
            if weight > best.map_or(0.0, |(_, weight)| weight) {
                best = Some((format, weight));
            }
        }
        best.map(|(format, _)| format)
    }

    /// Returns the weight that the most specific matching range gives this format; 0 when none matches.
    fn weight(self, header: &str) -> f32 {
        let media = self.media_type();
        let kind = media.split('/').next().unwrap_or_default();
        let specificity = |range: &str| match range.split_once('/') {
            _ if range.eq_ignore_ascii_case(media) => Some(2),
            Some((of, "*")) if of.eq_ignore_ascii_case(kind) => Some(1),
            Some(("*", "*")) => Some(0),
            _ => None,
        };
        let ranges = header.split(',').filter_map(|part| {
            let mut parameters = part.split(';').map(str::trim);
            let specificity = specificity(parameters.next().unwrap_or_default())?;
            let weight = parameters.find_map(|parameter| parameter.strip_prefix("q="));
            Some((specificity, weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0))))
        });
        ranges.max_by_key(|(specificity, _)| *specificity).map_or(0.0, |(_, weight)| weight)
    }

    /// Returns the line before the first order.
    fn head(self) -> String {
        match self {
            Self::Csv => COLUMNS.join(",") + "\r\n",
            Self::Json | Self::Ndjson => String::new(),
        }
    }

    /// Returns a line for each order.
    fn lines(self, orders: Vec<StoredOrder>) -> String {
        let mut lines = String::new();
        for StoredOrder { position, mut payload } in orders {
            payload["position"] = position.into();
            match self {
                Self::Json | Self::Ndjson => lines.push_str(&(payload.to_string() + "\n")),
                Self::Csv => {
                    let cells = COLUMNS.map(|column| cell(&payload[column]));
                    lines.push_str(&(cells.join(",") + "\r\n"));
                }
            }
        }
        lines
    }
}

/// Why an export ended before its end. The client sees a response without an end.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the client takes the file too slowly")]
    Slow,
}

/// A part of an export.
struct Progress {
    after: i64,
    /// The time when the client was given the latest page.
    since: Instant,
    place: OwnedSemaphorePermit,
}

/// Returns a file with the orders after a position, up to another one. It occupies `place` until it ends.
pub(crate) fn file(
    orders: SaleOrders,
    format: Format,
    after: i64,
    until: i64,
    place: OwnedSemaphorePermit,
) -> Body {
    let start = Progress { after, since: Instant::now(), place };
    let pages = stream::try_unfold(start, move |Progress { after, since, place }| {
        let orders = orders.clone();
        async move {
            if after >= until {
                return Ok(None);
            }
            let next = until.min(after.saturating_add(PAGE.into()));
            let page = page(&orders, after, next, since).await.inspect_err(|error| {
                tracing::warn!(sale.id = orders.sale, %error, "an export ended before its end");
            })?;
            let rest = Progress { after: next, since: Instant::now(), place };
            Ok::<_, ExportError>(Some((Bytes::from(format.lines(page)), rest)))
        }
    });
    let head = stream::iter(Some(format.head()).filter(|head| !head.is_empty()));
    Body::from_stream(head.map(|head| Ok(Bytes::from(head))).chain(pages))
}

async fn page(
    orders: &SaleOrders,
    after: i64,
    until: i64,
    since: Instant,
) -> Result<Vec<StoredOrder>, ExportError> {
    if since.elapsed() > PAGE_LIMIT {
        return Err(ExportError::Slow);
    }
    Ok(orders.between(after, until).await?)
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
        let lines = Format::Csv.lines(vec![order(Some("=1+\"2\"")), order(Some("ann")), order(None)]);
        let rest = "2026-11-28T20:00:00.000Z,flash,\"c,1\"\r\n";
        assert_eq!(lines, format!("7,A1,\"'=1+\"\"2\"\"\",{rest}7,A1,ann,{rest}7,A1,,{rest}"));
    }

    #[test]
    fn ndjson_has_an_order_per_line() {
        let lines = Format::Ndjson.lines(vec![order(Some("ann")), order(Some("bob"))]);
        let users: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(users.iter().map(|order| &order["userId"]).collect::<Vec<_>>(), ["ann", "bob"]);
        assert_eq!(users[0]["position"], 7);
    }

    #[test]
    fn accept_header_chooses_the_format() {
        for (header, format) in [
            ("", Some(Format::Json)),
            ("*/*", Some(Format::Json)),
            ("Application/JSON; charset=utf-8", Some(Format::Json)),
            ("application/x-ndjson", Some(Format::Ndjson)),
            ("text/html, text/csv;q=0.9", Some(Format::Csv)),
            ("text/*", Some(Format::Csv)),
            ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", Some(Format::Json)),
            ("application/json;q=0.4, application/x-ndjson ; q=0.8", Some(Format::Ndjson)),
            ("application/json;q=0, */*", Some(Format::Ndjson)),
            ("text/csv;q=0", None),
            ("image/png", None),
            ("nonsense", None),
        ] {
            assert_eq!(Format::accepted(header), format, "{header}");
        }
    }
}
