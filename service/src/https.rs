//! TLS and HTTPS for clients: certificates and host names are always verified.

use std::sync::Arc;

use hyper_rustls::HttpsConnectorBuilder;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};

/// Connects to `http://` and `https://` addresses.
pub type Connector = hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>;

/// Returns the authorities that this system trusts, or `None` if there are none.
pub fn system_authorities() -> Option<RootCertStore> {
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    (!authorities.is_empty()).then_some(authorities)
}

/// Returns the configuration of a client that trusts these authorities.
pub fn client_config(authorities: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(authorities)
        .with_no_client_auth()
}

/// Returns a connector for a client that trusts these authorities.
pub fn connector(authorities: RootCertStore) -> Connector {
    HttpsConnectorBuilder::new()
        .with_tls_config(client_config(authorities))
        .https_or_http()
        .enable_http1()
        .build()
}
