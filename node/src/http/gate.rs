//! Who is let in at all: finds out which client a request is from, and how many it may make.

use std::sync::Arc;

use axum::extract::Request;
use service::edge::Gate;
use service::problem::Problem;
use service::serve::Peer;
use stock::cluster::Cluster;

use super::client::Proxies;
use super::problems::too_many_requests;
use crate::limits::AddressLimits;
use crate::settings::{LimitSettings, WebSettings};

/// What is limited: the page and its parts cost nobody anything, and may come from a cache.
const API: &str = "/api/";

/// The way in for the public.
pub struct PublicGate {
    proxies: Proxies,
    addresses: Option<AddressLimits>,
}

impl PublicGate {
    /// A gate that counts through this cluster.
    pub fn new(cluster: &Arc<Cluster>, web: &WebSettings, limits: &LimitSettings) -> Self {
        let limit = limits.of_address();
        let addresses =
            limit.map(|limit| AddressLimits::start(cluster, limit, limits.rate_limit_exempt.clone()));
        Self { proxies: Proxies(web.trusted_proxies.clone()), addresses }
    }
}

impl Gate for PublicGate {
    async fn admit(&self, request: &mut Request) -> Result<(), Problem> {
        let Some(&Peer(peer)) = request.extensions().get() else { return Ok(()) };
        let client = self.proxies.client(peer.ip(), request.headers());
        request.extensions_mut().insert(client);
        match &self.addresses {
            Some(addresses) if request.uri().path().starts_with(API) => {
                addresses.admit(client.address).await.map_err(too_many_requests)
            }
            _ => Ok(()),
        }
    }
}
