//! Admission of requests: determines the client's address and applies its rate limit.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::Request;
use rediscluster::Cluster;
use service::edge::{AdmissionControl, AdmissionDecision};
use service::problem::Problem;
use service::serve::Peer;

use super::client::Proxies;
use super::problems::too_many_requests;
use crate::limits::{AddressLimits, RateLimited};
use crate::metrics;
use crate::settings::{LimitSettings, WebSettings};

/// Only the API is limited. The page and its assets are cheap and may come from a cache.
const API_PREFIX: &str = "/api/";

/// Admission control of the buyers' port.
pub struct ClientAdmission {
    proxies: Proxies,
    addresses: Option<Arc<AddressLimits>>,
}

impl ClientAdmission {
    /// Creates an admission control that counts requests through this cluster.
    pub fn new(cluster: &Arc<Cluster>, web: &WebSettings, limits: &LimitSettings) -> Self {
        let limit = limits.for_address();
        let addresses = limit
            .map(|limit| AddressLimits::start(cluster, limit, limits.rate_limit_exempt.clone()))
            .map(Arc::new);
        Self { proxies: Proxies(web.trusted_proxies.clone()), addresses }
    }
}

impl AdmissionControl for ClientAdmission {
    fn admit(&self, request: &mut Request) -> AdmissionDecision {
        let Some(&Peer(peer)) = request.extensions().get() else { return AdmissionDecision::Admit };
        let client = self.proxies.client(peer.ip(), request.headers());
        request.extensions_mut().insert(client);
        match &self.addresses {
            Some(addresses) if request.uri().path().starts_with(API_PREFIX) => {
                admission(addresses, client.address)
            }
            _ => AdmissionDecision::Admit,
        }
    }
}

fn admission(addresses: &Arc<AddressLimits>, address: IpAddr) -> AdmissionDecision {
    match addresses.try_admit(address) {
        Some(Ok(())) => AdmissionDecision::Admit,
        Some(Err(limited)) => AdmissionDecision::Reject(refused(limited)),
        None => {
            let addresses = Arc::clone(addresses);
            AdmissionDecision::Pending(Box::pin(
                async move { addresses.admit(address).await.map_err(refused) },
            ))
        }
    }
}

fn refused(limited: RateLimited) -> Problem {
    metrics::count_limited_request();
    too_many_requests(limited)
}
