//! Responses of an operation, described from samples of them.

use std::collections::{BTreeMap, BTreeSet};

use axum::body::to_bytes;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use serde_json::Value;
use service::problem::Problem;
use utoipa::ToSchema;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::link::Link;
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{
    Content, ContentBuilder, Ref, RefOr, ResponseBuilder, Responses, ResponsesBuilder, Schema,
};

use super::{headers, samples, schemas};

/// Possible responses, by status.
#[derive(Default)]
pub(super) struct Answers(BTreeMap<u16, Answer>);

/// All responses with one status.
#[derive(Default)]
struct Answer {
    summary: Vec<String>,
    headers: BTreeSet<&'static str>,
    /// By media type.
    bodies: BTreeMap<String, Vec<Body>>,
    links: Vec<(&'static str, Link)>,
}

/// Bodies that share one schema.
struct Body {
    schema: String,
    /// The member whose value distinguishes the samples.
    discriminator: Option<&'static str>,
    samples: Vec<Sample>,
}

struct Sample {
    summary: String,
    value: Value,
}

impl Answers {
    /// Adds a response.
    pub(super) fn answer<T: ToSchema>(self, summary: &str, sample: impl IntoResponse) -> Self {
        self.add(summary, &T::name(), None, sample.into_response())
    }

    /// Adds one of several responses that a member distinguishes.
    pub(super) fn answer_by_member<T: ToSchema>(
        self,
        member: &'static str,
        summary: &str,
        sample: impl IntoResponse,
    ) -> Self {
        self.add(summary, &T::name(), Some(member), sample.into_response())
    }

    /// Adds problems. Their titles describe them.
    pub(super) fn problems(self, problems: impl IntoIterator<Item = Problem>) -> Self {
        problems.into_iter().fold(self, |answers, problem| {
            let summary = problem.title();
            answers.add(summary, &schemas::Problem::name(), Some("type"), problem.into_response())
        })
    }

    /// Adds a link to an operation that may follow a response with this status.
    pub(super) fn link(mut self, status: u16, name: &'static str, link: Link) -> Self {
        self.0.entry(status).or_default().links.push((name, link));
        self
    }

    fn add(
        mut self,
        summary: &str,
        schema: &str,
        discriminator: Option<&'static str>,
        sample: Response,
    ) -> Self {
        let answer = self.0.entry(sample.status().as_u16()).or_default();
        if !answer.summary.iter().any(|existing| existing == summary) {
            answer.summary.push(summary.to_owned());
        }
        answer.headers.insert(headers::CORRELATION_ID_HEADER);
        answer.headers.extend(sample.headers().keys().filter_map(|name| headers::documented(name.as_str())));
        let (media_type, value) = read(sample);
        let sample = Sample { summary: summary.to_owned(), value };
        let bodies = answer.bodies.entry(media_type).or_default();
        match bodies.iter_mut().find(|body| body.schema == schema) {
            Some(body) => body.samples.push(sample),
            None => bodies.push(Body { schema: schema.to_owned(), discriminator, samples: vec![sample] }),
        }
        self
    }
}

/// Returns the media type and the body of a sample, as sent by the edge.
fn read(sample: Response) -> (String, Value) {
    let media_type = sample.headers()[CONTENT_TYPE].to_str().expect("media types are ASCII").to_owned();
    let bytes = to_bytes(sample.into_body(), usize::MAX).now_or_never();
    let bytes = bytes.and_then(Result::ok).expect("a sample is in memory");
    let text = || Value::from(String::from_utf8_lossy(&bytes));
    let mut value = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
    if media_type == "application/problem+json" {
        value["correlationId"] = samples::CORRELATION_ID.into();
    }
    (media_type, value)
}

impl From<Answers> for Responses {
    fn from(Answers(answers): Answers) -> Self {
        let responses = answers.into_iter().map(|(status, answer)| (status.to_string(), answer.response()));
        ResponsesBuilder::new().responses_from_iter(responses).build()
    }
}

impl Answer {
    fn response(self) -> ResponseBuilder {
        let response = ResponseBuilder::new().description(self.summary.join("; ") + ".");
        let response = self.headers.into_iter().fold(response, |response, name| {
            response.header_ref(name, Ref::new(format!("#/components/headers/{name}")))
        });
        let response = self
            .bodies
            .into_iter()
            .fold(response, |response, (media_type, bodies)| response.content(media_type, content(&bodies)));
        self.links.into_iter().fold(response, |response, (name, link)| response.link(name, link))
    }
}

fn content(bodies: &[Body]) -> Content {
    let schema = match bodies {
        [body] => body.schema(),
        several => several.iter().fold(OneOfBuilder::new(), |all, body| all.item(body.schema())).into(),
    };
    let examples = bodies.iter().flat_map(Body::examples);
    ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build()
}

impl Body {
    /// Returns the schema. The distinguishing member is restricted to the values in the samples.
    fn schema(&self) -> RefOr<Schema> {
        let named = Ref::from_schema_name(&self.schema);
        let Some(member) = self.discriminator else { return named.into() };
        let values: BTreeSet<&str> =
            self.samples.iter().filter_map(|sample| sample.value[member].as_str()).collect();
        let member_schema = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(values));
        let narrowed = ObjectBuilder::new().property(member, member_schema).required(member);
        AllOfBuilder::new().item(named).item(narrowed).into()
    }

    fn examples(&self) -> impl Iterator<Item = (String, Example)> {
        self.samples.iter().enumerate().map(|(number, Sample { summary, value })| {
            let example = ExampleBuilder::new().summary(summary).value(Some(value.clone())).build();
            (format!("{}{}", self.schema, number + 1), example)
        })
    }
}
