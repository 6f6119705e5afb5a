//! Durations of requests, by route, method and status.
//!
//! Each combination looks up its histogram handle once. After that a request costs two lookups in small tables, and no
//! lock.

use std::collections::HashMap;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::extract::MatchedPath;
use axum::http::{Method, StatusCode};
use metrics::{Histogram, histogram};

use super::REQUEST_DURATION;

/// Label for requests that match no route.
const NO_ROUTE: &str = "none";
/// Label for uncommon methods: clients can invent methods, and these must not become labels.
const OTHER_METHOD: &str = "other";

/// The handles that were needed so far. Routes come from the router, and methods and statuses are few, so the number is
/// bounded.
#[derive(Default)]
pub(crate) struct Requests(ArcSwap<HashMap<Box<str>, Vec<ResponseMetrics>>>);

/// The histogram of one route, method and status.
#[derive(Clone)]
struct ResponseMetrics {
    method: &'static str,
    status: StatusCode,
    took: Histogram,
}

impl Requests {
    /// Records a request that was answered.
    pub(crate) fn record(
        &self,
        route: Option<&MatchedPath>,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let (route, method) = (route.map_or(NO_ROUTE, MatchedPath::as_str), method_name(method));
        let known = self.0.load();
        let answers = known.get(route).and_then(|answers| {
            answers.iter().find(|answers| answers.status == status && answers.method == method)
        });
        match answers {
            Some(answers) => answers.took.record(took),
            None => self.register(route, method, status).record(took),
        }
    }

    fn register(&self, route: &str, method: &'static str, status: StatusCode) -> Histogram {
        let took = histogram_of(route, method, status);
        let answers = ResponseMetrics { method, status, took: took.clone() };
        self.0.rcu(|known| {
            let mut known = HashMap::clone(known);
            known.entry(route.into()).or_default().push(answers.clone());
            known
        });
        took
    }
}

/// Registers histograms for these responses with a count of 0. A series that first appears at 1 has no rate.
pub fn expect_requests(route: &str, method: &Method, statuses: &[u16]) {
    for &status in statuses {
        let status = StatusCode::from_u16(status).expect("the expected statuses are valid");
        let _registered = histogram_of(route, method_name(method), status);
    }
}

fn histogram_of(route: &str, method: &'static str, status: StatusCode) -> Histogram {
    let status = status.as_str().to_owned();
    histogram!(REQUEST_DURATION, "route" => route.to_owned(), "method" => method, "status" => status)
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => OTHER_METHOD,
    }
}

#[cfg(test)]
mod tests {
    use metrics::with_local_recorder;

    use super::*;

    #[test]
    fn labels_contain_nothing_that_clients_invent() {
        let recorder = super::super::builder().build_recorder();
        with_local_recorder(&recorder, || {
            let (requests, took) = (Requests::default(), Duration::from_millis(3));
            let made_up = Method::from_bytes(b"BREW").unwrap();
            requests.record(None, &Method::POST, StatusCode::NOT_FOUND, took);
            requests.record(None, &made_up, StatusCode::NOT_FOUND, took);
            requests.record(None, &Method::from_bytes(b"STEEP").unwrap(), StatusCode::NOT_FOUND, took);
            requests.record(None, &Method::POST, StatusCode::NOT_FOUND, took);
            expect_requests("/api/purchase", &Method::POST, &[410]);
        });
        let text = recorder.handle().render();
        let count = |labels: &str| {
            let line = format!("flashsale_http_request_duration_seconds_count{{{labels}}} ");
            text.lines().find_map(|text| text.strip_prefix(&line)).map(str::to_owned)
        };
        assert_eq!(count(r#"route="none",method="POST",status="404""#).as_deref(), Some("2"), "{text}");
        assert_eq!(count(r#"route="none",method="other",status="404""#).as_deref(), Some("2"), "{text}");
        assert_eq!(
            count(r#"route="/api/purchase",method="POST",status="410""#).as_deref(),
            Some("0"),
            "{text}"
        );
    }
}
