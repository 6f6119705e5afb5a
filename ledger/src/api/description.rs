//! The description of the API: an OpenAPI document. Each handler describes its own operation; this module adds the parts that all
//! of them have.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use utoipa::ToSchema;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, HeaderBuilder, OpenApi, Ref, RefOr, Required, ResponseBuilder};

/// Path of the document. It needs no token, because it has no data.
pub(super) const PATH: &str = "/openapi.json";

const ABOUT: &str = "\
The orders of flash sales, as the ledger has written them into PostgreSQL. An order is there once no failure of Redis can take \
it back, usually within a second.\n\n\
Requests need the bearer token of an operator: with the role `read`, or `operate` to erase. Errors are \
`application/problem+json` (RFC 9457). Every response has an `X-Correlation-Id`, and every problem repeats it as \
`correlationId`. Responses have personal data and must not be cached.";

/// Problems that every operation may answer.
const COMMON: [(&str, &str); 5] = [
    ("400", "The path or the query is invalid."),
    ("401", "The token is missing or wrong."),
    ("429", "Too many requests with wrong tokens."),
    ("500", "A fault of the ledger."),
    ("503", "PostgreSQL does not answer, or too many exports run. Try again after `Retry-After`."),
];

/// A problem (RFC 9457).
#[derive(ToSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "the type only describes another one and is never constructed")]
struct Problem {
    /// The type of problem; `about:blank`, because the status says all.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    /// The type in words.
    title: String,
    /// The status of the response.
    status: u16,
    /// The reason for this problem, and how to solve it.
    #[schema(required = false)]
    detail: String,
    /// The id of the request; the same as in `X-Correlation-Id`.
    #[schema(max_length = 64)]
    correlation_id: String,
}

/// The description without the operations that the router lists.
#[derive(utoipa::OpenApi)]
#[openapi(info(title = "Orders of flash sales", description = ABOUT), components(schemas(Problem)))]
pub(super) struct Description;

/// Returns the route of the description of these operations.
pub(super) fn router(operations: OpenApi) -> Router {
    let json = serde_json::to_vec(&complete(operations)).expect("a description has only plain members");
    Router::new().route(PATH, get(document)).with_state(Bytes::from(json))
}

async fn document(State(json): State<Bytes>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], json)
}

/// Adds the id of the sale, the token, and the problems to all operations.
fn complete(mut api: OpenApi) -> OpenApi {
    for (path, item) in &mut api.paths.paths {
        let reads = item.get.iter_mut().map(|operation| (operation, false));
        let erases = item.delete.iter_mut().map(|operation| (operation, true));
        for (operation, changes) in reads.chain(erases) {
            complete_operation(operation, path, changes);
        }
    }
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
    let bearer = bearer.description(Some("A token of ADMIN_TOKEN or ADMIN_TOKEN_FILE.")).build();
    api.components.get_or_insert_default().add_security_scheme("operator", SecurityScheme::Http(bearer));
    api
}

fn complete_operation(operation: &mut Operation, path: &str, changes: bool) {
    if path.contains("{sale}") {
        let id = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[a-z0-9-]{1,32}$"));
        let sale = ParameterBuilder::new()
            .name("sale")
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .description(Some("Name of the sale."))
            .schema(Some(id))
            .example(Some("flash".into()));
        operation.parameters.get_or_insert_default().insert(0, RefOr::T(sale.build()));
        add_problem(operation, "404", "The ledger knows no such sale, order or user.");
    }
    if path.ends_with("/orders") && path.contains("{sale}") {
        add_problem(operation, "406", "`Accept` allows none of the formats.");
        add_problem(
            operation,
            "409",
            "The sale has not reached this place: PostgreSQL was restored from a backup.",
        );
    }
    if changes {
        add_problem(operation, "403", "The role of the token does not allow it.");
    }
    COMMON.iter().for_each(|(status, about)| add_problem(operation, status, about));
    operation.security = Some(vec![SecurityRequirement::new("operator", [""; 0])]);
}

fn add_problem(operation: &mut Operation, status: &str, about: &str) {
    let problem = ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).build();
    let mut response = ResponseBuilder::new().description(about).content("application/problem+json", problem);
    if ["429", "503"].contains(&status) {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer);
        let pause = HeaderBuilder::new().schema(Some(seconds)).description(Some("Seconds until a retry."));
        response = response.header("Retry-After", pause.build());
    }
    operation.responses.responses.insert(status.to_owned(), response.build().into());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tracked copy shows in a diff how a change affects the API.
    #[test]
    fn tracked_copy_matches_the_served_document() {
        let tracked = testkit::workspace_root().join("ledger/openapi.json");
        let served = complete(super::super::api().into_openapi()).to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(&tracked, &served).unwrap();
        }
        assert!(
            std::fs::read_to_string(&tracked).unwrap_or_default() == served,
            "ledger/openapi.json differs from the served document; `UPDATE_OPENAPI=1 cargo test -p ledger tracked_copy` rewrites it"
        );
    }
}
