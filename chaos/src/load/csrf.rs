//! The CSRF token of the single-sale endpoints. Like a browser, it is kept with its cookie until a node refuses it.

use std::sync::{Mutex, PoisonError};

use reqwest::{Client, RequestBuilder, Response, header::SET_COOKIE};
use serde::Deserialize;

/// A token and its cookie, shared by all buyers of one sale.
#[derive(Debug, Default)]
pub(super) struct CsrfToken(Mutex<Option<Pair>>);

#[derive(Clone, Debug)]
struct Pair {
    token: String,
    cookie: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenBody {
    csrf_token: String,
}

impl CsrfToken {
    /// Adds the token to a request. A request without a token gets one with the answer.
    pub(super) fn add_to(&self, request: RequestBuilder) -> RequestBuilder {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            Some(Pair { token, cookie }) => request.header("x-csrf-token", token).header("cookie", cookie),
            None => request,
        }
    }

    /// Requests the first token, if there is none yet. Ignores failures: the purchase's answer brings a token, too.
    pub(super) async fn prepare(&self, client: &Client, base_url: &str) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return;
        }
        if let Ok(answer) = client.get(format!("{base_url}/api/csrf")).send().await {
            let cookie = cookie_of(&answer);
            self.keep(cookie, &answer.bytes().await.unwrap_or_default());
        }
    }

    /// Keeps the token of an answer, if it has one.
    pub(super) fn keep(&self, cookie: Option<String>, body: &[u8]) {
        if let (Some(cookie), Ok(TokenBody { csrf_token })) = (cookie, serde_json::from_slice(body)) {
            let pair = Pair { token: csrf_token, cookie };
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(pair);
        }
    }
}

/// Returns the cookie that an answer sets.
pub(super) fn cookie_of(answer: &Response) -> Option<String> {
    let cookie = answer.headers().get(SET_COOKIE)?.to_str().ok()?;
    Some(cookie.split(';').next()?.to_owned())
}
