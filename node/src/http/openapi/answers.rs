//! Responses of an operation, described from samples of them.

use std::borrow::Cow;
use std::collections::BTreeSet;

use axum::body::to_bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use serde_json::Value;
use service::edge;
use service::json;
use service::problem::Problem;
use utoipa::ToSchema;
use utoipa::openapi::example::Example;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{self, Content, ContentBuilder, Ref, RefOr, ResponseBuilder, Schema};

use super::{Responses, headers, samples, schemas};
use crate::http::problems::{
    archived, invalid_idempotency_key, network_full, order_not_found, other_user, too_many_requests,
    unauthenticated, unavailable, unknown_outcome, unknown_sale,
};

/// Summary of the responses to an invalid user id.
pub(crate) const INVALID_USER_ID: &str = "The user id is invalid";

/// Samples of the responses of one operation.
#[derive(Default)]
pub(crate) struct Answers(Vec<Sample>);

struct Sample {
    status: String,
    media_type: String,
    schema: Cow<'static, str>,
    /// The member whose value distinguishes the samples of this schema.
    member: Option<&'static str>,
    summary: String,
    headers: Vec<&'static str>,
    body: Value,
}

impl Answers {
    /// Adds a response.
    pub(crate) fn answer<T: ToSchema>(mut self, summary: &str, sample: impl IntoResponse) -> Self {
        self.0.push(Sample::of(T::name(), None, summary, sample.into_response()));
        self
    }

    /// Adds responses that a member distinguishes.
    pub(crate) fn variants<T: ToSchema>(
        mut self,
        member: &'static str,
        samples: impl IntoIterator<Item = (&'static str, Response)>,
    ) -> Self {
        let samples = samples.into_iter();
        self.0.extend(samples.map(|(summary, sample)| Sample::of(T::name(), Some(member), summary, sample)));
        self
    }

    /// Adds problems. Their titles describe them.
    pub(crate) fn problems(self, problems: impl IntoIterator<Item = Problem>) -> Self {
        let samples = problems.into_iter().map(|problem| (problem.title(), problem.into_response()));
        self.variants::<schemas::Problem>("type", samples)
    }

    /// Adds the problems of a purchase that both families share.
    pub(crate) fn purchase_problems(self) -> Self {
        self.problems([
            unknown_sale(),
            json::no_object(),
            invalid_idempotency_key(),
            unauthenticated(None),
            other_user(),
            network_full(),
            json::too_slow(),
            json::too_long(),
            json::unsupported(),
            unknown_outcome(samples::order()),
        ])
    }

    /// Adds the problems of a lookup that both families share. The plain 400 is for paths that HTTP or nginx rejects.
    pub(crate) fn lookup_problems(self) -> Self {
        let bad_path = Problem::new(StatusCode::BAD_REQUEST);
        self.problems([
            bad_path,
            unknown_sale(),
            order_not_found(),
            archived(),
            unauthenticated(None),
            unavailable(),
        ])
    }
}

impl Sample {
    fn of(schema: Cow<'static, str>, member: Option<&'static str>, summary: &str, sample: Response) -> Self {
        let (parts, body) = sample.into_parts();
        let media_type = parts.headers[CONTENT_TYPE].to_str().expect("media types are ASCII").to_owned();
        let bytes = to_bytes(body, usize::MAX).now_or_never();
        let bytes = bytes.and_then(Result::ok).expect("a sample is in memory");
        let text = || Value::from(String::from_utf8_lossy(&bytes));
        let mut body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
        // The edge adds it.
        if media_type == "application/problem+json" {
            body["correlationId"] = samples::CORRELATION_ID.into();
        }
        let headers = parts.headers.keys().filter_map(headers::documented).collect();
        let (status, summary) = (parts.status.as_str().to_owned(), summary.to_owned());
        Self { status, media_type, schema, member, summary, headers, body }
    }
}

impl From<Answers> for Responses {
    fn from(answers: Answers) -> Self {
        // Every operation may answer these.
        let Answers(mut samples) =
            answers.problems([too_many_requests(samples::limited()), edge::timed_out()]);
        samples.sort_by(|a, b| {
            (&a.status, &a.media_type, &a.schema).cmp(&(&b.status, &b.media_type, &b.schema))
        });
        let answers = samples.chunk_by(|a, b| a.status == b.status);
        answers.map(|samples| (samples[0].status.clone(), response(samples).into())).collect()
    }
}

fn response(samples: &[Sample]) -> openapi::Response {
    let summaries: Vec<&str> = samples.iter().map(|sample| sample.summary.as_str()).collect();
    let mut response = ResponseBuilder::new().description(summaries.join("; ") + ".");
    for name in samples.iter().flat_map(|sample| &sample.headers).chain([&headers::CORRELATION_ID]) {
        response = response.header_ref(*name, Ref::new(format!("#/components/headers/{name}")));
    }
    for samples in samples.chunk_by(|a, b| a.media_type == b.media_type) {
        response = response.content(&samples[0].media_type, content(samples));
    }
    response.build()
}

fn content(samples: &[Sample]) -> Content {
    let mut schemas: Vec<_> = samples.chunk_by(|a, b| a.schema == b.schema).map(schema).collect();
    let schema = match schemas.len() {
        1 => schemas.remove(0),
        _ => schemas.into_iter().fold(OneOfBuilder::new(), OneOfBuilder::item).into(),
    };
    let examples = samples.iter().map(|sample| {
        let example = Example::builder().value(Some(sample.body.clone()));
        (sample.summary.clone(), example.build())
    });
    ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build()
}

/// Returns the schema of these samples. The member that distinguishes them is restricted to their values.
fn schema(samples: &[Sample]) -> RefOr<Schema> {
    let named = Ref::from_schema_name(&*samples[0].schema);
    let Some(member) = samples[0].member else { return named.into() };
    let values: BTreeSet<&str> = samples.iter().filter_map(|sample| sample.body[member].as_str()).collect();
    let values = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values));
    let narrowed = ObjectBuilder::new().property(member, values).required(member);
    AllOfBuilder::new().item(named).item(narrowed).into()
}
