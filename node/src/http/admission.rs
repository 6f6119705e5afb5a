//! Admission of requests: determines the client's address and identity, and applies the limits.
//!
//! A verified user who asks a shard is counted first. A request beyond the user's limit does not count for the address,
//! so bots do not use up what the other clients behind their address need.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use service::edge::{AdmissionControl, AdmissionDecision};
use service::serve::Peer;

use super::caller::Caller;
use super::client::Proxies;
use super::problems::too_many_requests;
use crate::identity::Identity;
use crate::limits::{LimitDecision, Limits, RateLimited, RequestKind, UserAction};
use crate::settings::WebSettings;

/// Only the API is limited. The page and its assets are cheap and may come from a cache.
const API_PREFIX: &str = "/api/";

/// Admission control of the buyers' port.
pub struct ClientAdmission {
    proxies: Proxies,
    identity: Arc<Identity>,
    limits: Arc<Limits>,
}

impl ClientAdmission {
    /// Creates an admission control with these limits.
    pub fn new(web: &WebSettings, identity: Arc<Identity>, limits: Arc<Limits>) -> Self {
        Self { proxies: Proxies(web.trusted_proxies.clone()), identity, limits }
    }
}

impl AdmissionControl for ClientAdmission {
    fn admit(&self, request: &mut Request) -> AdmissionDecision {
        let Some(&Peer(peer)) = request.extensions().get() else { return AdmissionDecision::Admit };
        let client = self.proxies.client(peer.ip(), request.headers());
        request.extensions_mut().insert(client);
        if !request.uri().path().starts_with(API_PREFIX) {
            return AdmissionDecision::Admit;
        }
        let Some(call) = ShardCall::of(request) else {
            return self.admit_address(client.address, RequestKind::Other);
        };
        let caller = match Caller::identify(&self.identity, request.headers(), Some(&client)) {
            Ok(caller) => caller,
            // No shard will be asked, and the request must not use up what the others behind its address need.
            Err(unauthenticated) => {
                return match self.admit_address(client.address, RequestKind::Other) {
                    AdmissionDecision::Admit => AdmissionDecision::Reject(unauthenticated),
                    refused_or_pending => refused_or_pending,
                };
            }
        };
        let action = match &caller {
            Caller::Unverified => None,
            Caller::Verified(user) => Some(call.counted_for(user)),
        };
        request.extensions_mut().insert(caller);
        match action {
            Some(action) => self.admit_user(action, client.address),
            None => self.admit_address(client.address, RequestKind::Purchase),
        }
    }
}

impl ClientAdmission {
    fn admit_user(&self, user: UserAction, address: IpAddr) -> AdmissionDecision {
        match self.limits.try_user(&user) {
            LimitDecision::Known(Ok(())) => self.admit_address(address, RequestKind::Purchase),
            LimitDecision::Known(Err(limited)) => AdmissionDecision::Reject(too_many_requests(limited)),
            LimitDecision::Pending => {
                let limits = Arc::clone(&self.limits);
                pending(async move {
                    limits.user(&user).await?;
                    limits.address(address, RequestKind::Purchase).await
                })
            }
        }
    }

    fn admit_address(&self, address: IpAddr, kind: RequestKind) -> AdmissionDecision {
        match self.limits.try_address(address, kind) {
            LimitDecision::Known(Ok(())) => AdmissionDecision::Admit,
            LimitDecision::Known(Err(limited)) => AdmissionDecision::Reject(too_many_requests(limited)),
            LimitDecision::Pending => {
                let limits = Arc::clone(&self.limits);
                pending(async move { limits.address(address, kind).await })
            }
        }
    }
}

fn pending(decision: impl Future<Output = Result<(), RateLimited>> + Send + 'static) -> AdmissionDecision {
    AdmissionDecision::Pending(Box::pin(async { decision.await.map_err(too_many_requests) }))
}

/// A request that asks the user's home shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ShardCall {
    Purchase,
    Lookup,
}

impl ShardCall {
    /// Returns `None` for requests that a node answers from memory.
    fn of(request: &Request) -> Option<Self> {
        let route = request.extensions().get().map(MatchedPath::as_str)?;
        match *request.method() {
            Method::POST if route.ends_with("/purchase") => Some(Self::Purchase),
            Method::GET | Method::HEAD if route.ends_with("/purchase/{userId}") => Some(Self::Lookup),
            _ => None,
        }
    }

    fn counted_for(self, user: &str) -> UserAction {
        match self {
            Self::Purchase => UserAction::purchase(user),
            Self::Lookup => UserAction::lookup(user),
        }
    }
}
