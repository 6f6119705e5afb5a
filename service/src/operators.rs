//! Operators: named bearer tokens with roles, and a guard that admits their requests and writes the audit log.
//!
//! The guard knows no endpoint. A request that only reads needs the role `read`; every other one needs `operate`. A
//! valid token is never delayed, however many requests with wrong tokens arrive, from whichever address.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use crate::correlation::CorrelationId;
use crate::metrics;
use crate::problem::Problem;
use crate::serve::Peer;

/// Minimum length of a token: 64 bits as random hexadecimal digits.
const TOKEN_CHARS_MIN: usize = 16;
/// Longest name of an operator. It is stored with each change.
const NAME_CHARS_MAX: usize = 64;
/// Name of the operator whose token has no name.
const UNNAMED: &str = "admin";

/// Time before a request with a wrong token is answered.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
/// Most refused requests that wait for their answer. Further ones are answered at once, and their connections closed, so
/// that they take no places.
const REFUSALS_WAITING_MAX: usize = 32;

/// Most refusals of one address that are logged in [`LOG_WINDOW`]. Further ones are only counted.
const LOGGED_REFUSALS_MAX: u32 = 10;
const LOG_WINDOW: Duration = Duration::from_mins(1);
/// Most addresses whose log lines are limited separately. Then all of them are forgotten.
const LOGGED_ADDRESSES_MAX: usize = 1_000;
/// Longest path in the audit log.
const PATH_CHARS_MAX: usize = 200;
/// The part of a route that stands for a user id.
const USER_PATTERN: &str = "{user}";

/// What an operator may do. Each role includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads everything, changes nothing.
    Read,
    /// Changes everything.
    Operate,
}

impl Role {
    const ALL: [Self; 2] = [Self::Read, Self::Operate];

    /// The word in settings and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }

    fn needed_for(method: &Method) -> Self {
        if method.is_safe() { Self::Read } else { Self::Operate }
    }
}

/// An operator, as the token of a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedOperator {
    /// Name, for logs and histories.
    pub name: Arc<str>,
    /// What the operator may do.
    pub role: Role,
}

/// The tokens of all operators. Only their digests are stored.
#[derive(Clone)]
pub struct OperatorTokens(Arc<[NamedToken]>);

struct NamedToken {
    operator: NamedOperator,
    digest: [u8; 32],
}

/// Why a text is no valid list of tokens. It never contains the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the text of the error describes each")]
pub enum InvalidTokens {
    #[error("must contain a token, or lines of NAME:ROLE:TOKEN")]
    None,
    #[error("line {0}: must be TOKEN or NAME:ROLE:TOKEN, with the role read or operate")]
    Form(usize),
    #[error("line {0}: a name must be 1 to {NAME_CHARS_MAX} of a-z, A-Z, 0-9, '.', '_', '-' and '@'")]
    Name(usize),
    #[error("line {0}: a token must be at least {TOKEN_CHARS_MIN} visible ASCII characters without ':'")]
    Token(usize),
    #[error("line {0}: this token is in another line, too")]
    Twice(usize),
}

impl FromStr for OperatorTokens {
    type Err = InvalidTokens;

    /// Parses one token per line: `NAME:ROLE:TOKEN`, or only `TOKEN` for an operator `admin` with the role `operate`.
    /// Empty lines and lines that start with `#` are ignored. Several tokens of one name are valid at the same time,
    /// so that a token can be replaced.
    fn from_str(text: &str) -> Result<Self, InvalidTokens> {
        let mut tokens: Vec<NamedToken> = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = NamedToken::parse(line, number)?;
            if tokens.iter().any(|known| known.digest == token.digest) {
                return Err(InvalidTokens::Twice(number));
            }
            tokens.push(token);
        }
        if tokens.is_empty() { Err(InvalidTokens::None) } else { Ok(Self(tokens.into())) }
    }
}

impl NamedToken {
    fn parse(line: &str, number: usize) -> Result<Self, InvalidTokens> {
        let parts: Vec<&str> = line.split(':').collect();
        let (name, role, token) = match parts[..] {
            [token] => (UNNAMED, Role::Operate, token),
            [name, role, token] => {
                let role = Role::ALL.into_iter().find(|known| known.as_str() == role);
                (name, role.ok_or(InvalidTokens::Form(number))?, token)
            }
            _ => return Err(InvalidTokens::Form(number)),
        };
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || "._-@".contains(c);
        if !(1..=NAME_CHARS_MAX).contains(&name.len()) || !name.chars().all(is_name_char) {
            return Err(InvalidTokens::Name(number));
        }
        if token.len() < TOKEN_CHARS_MIN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidTokens::Token(number));
        }
        Ok(Self { operator: NamedOperator { name: name.into(), role }, digest: Sha256::digest(token).into() })
    }
}

impl OperatorTokens {
    /// Returns the operator with this token. Takes the same time for each token, right or wrong.
    fn find(&self, token: &str) -> Option<&NamedOperator> {
        let presented: [u8; 32] = Sha256::digest(token).into();
        let mut found = None;
        for NamedToken { operator, digest } in &*self.0 {
            if bool::from(digest.ct_eq(&presented)) {
                found = Some(operator);
            }
        }
        found
    }
}

impl fmt::Debug for OperatorTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|token| &token.operator)).finish()
    }
}

/// The origin of a request that the guard has admitted, as an extension of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestOrigin {
    /// The operator.
    pub operator: NamedOperator,
    /// Address of the client's end of the connection; `None` in tests without a connection.
    pub address: Option<IpAddr>,
    /// Correlation id of the request.
    pub correlation: CorrelationId,
}

/// Protects the routes of a router: requests need the token of an operator with a sufficient role.
pub fn protect<S: Clone + Send + Sync + 'static>(routes: Router<S>, tokens: OperatorTokens) -> Router<S> {
    metrics::register_operator_refusals();
    let guard =
        OperatorGuard { tokens, waiting: Semaphore::new(REFUSALS_WAITING_MAX), log: Mutex::default() };
    routes.route_layer(from_fn_with_state(Arc::new(guard), guard_request))
}

struct OperatorGuard {
    tokens: OperatorTokens,
    /// Places for refused requests that wait for their answer.
    waiting: Semaphore,
    log: Mutex<RefusalLog>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It has no token.
    Missing,
    /// Its token is wrong.
    Wrong,
    /// The operator's role is not sufficient.
    Role,
}

impl Refusal {
    pub(crate) const ALL: [Self; 3] = [Self::Missing, Self::Wrong, Self::Role];

    /// The word in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "token_missing",
            Self::Wrong => "token_wrong",
            Self::Role => "role",
        }
    }
}

/// The facts of a request that the audit log shows.
struct RequestFacts {
    address: Option<IpAddr>,
    correlation: CorrelationId,
    method: Method,
    path: String,
}

impl RequestFacts {
    fn of(request: &Request) -> Self {
        let extensions = request.extensions();
        Self {
            address: extensions.get::<Peer>().map(|Peer(address)| address.ip().to_canonical()),
            correlation: extensions.get().cloned().unwrap_or_else(CorrelationId::random),
            method: request.method().clone(),
            path: path_without_users(request.uri().path(), extensions.get()),
        }
    }

    fn address(&self) -> String {
        self.address.map_or_else(String::new, |address| address.to_string())
    }
}

/// Returns the path as logs show it: cut off, and without user ids, which must not be logged.
fn path_without_users(path: &str, route: Option<&MatchedPath>) -> String {
    let route = route.map_or("", MatchedPath::as_str);
    let patterns = route.split('/').chain(std::iter::repeat(""));
    let segments = path.split('/').zip(patterns);
    let shown = segments.map(|(segment, pattern)| if pattern == USER_PATTERN { pattern } else { segment });
    shown.collect::<Vec<_>>().join("/").chars().take(PATH_CHARS_MAX).collect()
}

async fn guard_request(
    State(guard): State<Arc<OperatorGuard>>,
    mut request: Request,
    next: Next,
) -> Response {
    let facts = RequestFacts::of(&request);
    let operator = match presented_token(request.headers()) {
        None => return guard.refuse_token(&facts, Refusal::Missing).await,
        Some(token) => match guard.tokens.find(token) {
            None => return guard.refuse_token(&facts, Refusal::Wrong).await,
            Some(operator) => operator.clone(),
        },
    };
    let needed = Role::needed_for(&facts.method);
    if operator.role < needed {
        guard.note_refusal(&facts, Refusal::Role, &operator.name);
        let detail = format!(
            "This token has the role {}, and the request needs {}.",
            operator.role.as_str(),
            needed.as_str()
        );
        return Problem::new(StatusCode::FORBIDDEN).detail(detail).into_response();
    }
    let origin = RequestOrigin {
        operator: operator.clone(),
        address: facts.address,
        correlation: facts.correlation.clone(),
    };
    request.extensions_mut().insert(origin);
    let response = next.run(request).await;
    if needed == Role::Operate {
        tracing::info!(
            operator.name = %operator.name,
            client.address = facts.address(),
            correlation.id = %facts.correlation,
            http.request.method = %facts.method,
            url.path = facts.path,
            http.response.status_code = response.status().as_u16(),
            "audit: request of an operator answered"
        );
    }
    response
}

impl OperatorGuard {
    async fn refuse_token(&self, facts: &RequestFacts, refusal: Refusal) -> Response {
        self.note_refusal(facts, refusal, "");
        if let Ok(_place) = self.waiting.try_acquire() {
            sleep(REFUSAL_DELAY).await;
            let detail = "The request needs the bearer token of an operator.";
            let problem = Problem::new(StatusCode::UNAUTHORIZED).detail(detail);
            return ([(WWW_AUTHENTICATE, "Bearer")], problem).into_response();
        }
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS)
            .detail("Too many requests with wrong tokens.")
            .retry_after(REFUSAL_DELAY)
            .header(CONNECTION, HeaderValue::from_static("close"));
        problem.into_response()
    }

    /// Counts a refusal, and logs it unless its address has had many.
    fn note_refusal(&self, facts: &RequestFacts, refusal: Refusal, operator: &str) {
        metrics::operator_refused(refusal);
        let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let Some(is_last) = log.admit(facts.address, Instant::now()) else { return };
        drop(log);
        tracing::warn!(
            reason = refusal.as_str(),
            operator.name = operator,
            client.address = facts.address(),
            correlation.id = %facts.correlation,
            http.request.method = %facts.method,
            url.path = facts.path,
            further_refusals_are_only_counted = is_last,
            "audit: request to the admin API refused"
        );
    }
}

fn presented_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim())
}

/// Limits the log lines of each address, so that neither a flood fills the log, nor hides the refusals of others.
#[derive(Default)]
struct RefusalLog(HashMap<Option<IpAddr>, LoggedRefusals>);

struct LoggedRefusals {
    since: Instant,
    lines: u32,
}

impl RefusalLog {
    /// Returns `None` if the refusal must not be logged, otherwise whether it is the last one of its window.
    fn admit(&mut self, address: Option<IpAddr>, now: Instant) -> Option<bool> {
        if self.0.len() >= LOGGED_ADDRESSES_MAX {
            self.0.clear();
        }
        let logged = self.0.entry(address.map(network_of)).or_insert(LoggedRefusals { since: now, lines: 0 });
        if now.duration_since(logged.since) >= LOG_WINDOW {
            *logged = LoggedRefusals { since: now, lines: 0 };
        }
        logged.lines = logged.lines.saturating_add(1);
        (logged.lines <= LOGGED_REFUSALS_MAX).then_some(logged.lines == LOGGED_REFUSALS_MAX)
    }
}

/// The network that one client can choose its addresses from: a single IPv4 address, or an IPv6 /64.
fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt as _;

    use super::*;

    const ADMIN: &str = "0123456789abcdef";
    const READER: &str = "fedcba9876543210";

    fn tokens() -> OperatorTokens {
        format!("# operators\n\nann:operate:{ADMIN}\nbob.b@shop:read:{READER}\n").parse().unwrap()
    }

    fn router() -> Router {
        let origin = async |request: Request| {
            let origin: &RequestOrigin = request.extensions().get().unwrap();
            origin.operator.name.to_string()
        };
        protect(Router::new().route("/sales", get(origin).post(origin).delete(origin)), tokens())
    }

    async fn status(method: Method, token: &str) -> StatusCode {
        let request = Request::builder().method(method).uri("/sales");
        let request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
    }

    #[test]
    fn single_token_belongs_to_admin() {
        let tokens: OperatorTokens = ADMIN.parse().unwrap();
        let operator = tokens.find(ADMIN).unwrap();
        assert_eq!((&*operator.name, operator.role), ("admin", Role::Operate));
        assert_eq!(tokens.find(READER), None);
    }

    #[test]
    fn tokens_have_names_and_roles() {
        let tokens = tokens();
        assert_eq!(tokens.find(ADMIN).map(|it| (&*it.name, it.role)), Some(("ann", Role::Operate)));
        assert_eq!(tokens.find(READER).map(|it| (&*it.name, it.role)), Some(("bob.b@shop", Role::Read)));
        assert!(!format!("{tokens:?}").contains(ADMIN));
    }

    #[test]
    fn two_tokens_of_one_name_are_valid_together() {
        let tokens: OperatorTokens = format!("ann:operate:{ADMIN}\nann:operate:{READER}").parse().unwrap();
        assert_eq!(tokens.find(ADMIN), tokens.find(READER));
    }

    #[test]
    fn invalid_lines_are_refused_without_repeating_them() {
        for (text, error) in [
            ("", InvalidTokens::None),
            ("# 0123456789abcdef", InvalidTokens::None),
            ("short", InvalidTokens::Token(1)),
            ("0123456789 abcdef", InvalidTokens::Token(1)),
            ("0123456789abcd\u{e9}", InvalidTokens::Token(1)),
            ("\nann:operate:short", InvalidTokens::Token(2)),
            ("ann:operator:0123456789abcdef", InvalidTokens::Form(1)),
            ("ann:0123456789abcdef", InvalidTokens::Form(1)),
            ("ann:operate:0123456789:abcdef", InvalidTokens::Form(1)),
            (":operate:0123456789abcdef", InvalidTokens::Name(1)),
            ("ann lee:operate:0123456789abcdef", InvalidTokens::Name(1)),
            ("a:read:0123456789abcdef\nb:operate:0123456789abcdef", InvalidTokens::Twice(2)),
        ] {
            assert_eq!(text.parse::<OperatorTokens>().unwrap_err(), error, "{text:?}");
        }
    }

    #[tokio::test]
    async fn reader_reads_and_changes_nothing() {
        assert_eq!(status(Method::GET, READER).await, StatusCode::OK);
        assert_eq!(status(Method::POST, READER).await, StatusCode::FORBIDDEN);
        assert_eq!(status(Method::DELETE, READER).await, StatusCode::FORBIDDEN);
        assert_eq!(status(Method::POST, ADMIN).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn refused_request_waits_and_valid_one_does_not() {
        let router = router();
        let send = async |token: &str| {
            let request = Request::get("/sales").header(AUTHORIZATION, format!("Bearer {token}"));
            router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status()
        };
        let started = Instant::now();
        let flood = futures::future::join_all((0..REFUSALS_WAITING_MAX + 5).map(|_| send("wrong")));
        let valid = async {
            let status = send(ADMIN).await;
            (status, started.elapsed())
        };
        let (refused, (status, took)) = tokio::join!(flood, valid);
        assert!(status == StatusCode::OK && took < REFUSAL_DELAY, "{status} after {took:?}");
        assert!(started.elapsed() >= REFUSAL_DELAY, "wrong tokens are answered late");
        let at_once = refused.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
        assert_eq!(at_once, 5, "{refused:?}");
    }

    #[test]
    fn flood_of_one_address_hides_no_refusal_of_another() {
        let (mut log, now) = (RefusalLog::default(), Instant::now());
        let [flood, other] = ["2001:db8::1", "2001:db8:0:1::1"].map(|text| Some(text.parse().unwrap()));
        let logged = (0..100).filter(|_| log.admit(flood, now).is_some()).count();
        assert_eq!(logged, LOGGED_REFUSALS_MAX as usize);
        assert_eq!(log.admit(Some("2001:db8::2".parse().unwrap()), now), None, "the same /64");
        assert_eq!(log.admit(other, now), Some(false));
        assert_eq!(log.admit(flood, now + LOG_WINDOW), Some(false));
    }

    #[test]
    fn refusal_log_forgets_addresses_beyond_its_limit() {
        let (mut log, now) = (RefusalLog::default(), Instant::now());
        for address in 0..10_000_u32 {
            log.admit(Some(IpAddr::V4(address.into())), now);
        }
        assert!(log.0.len() <= LOGGED_ADDRESSES_MAX);
    }
}
