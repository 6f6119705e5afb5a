//! Files with the certificate authorities that verify a server.

use std::path::PathBuf;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// A file that holds at least one CA certificate as PEM, and nothing that cannot be read.
#[derive(Clone, Debug)]
pub struct CaFile {
    pub(crate) path: PathBuf,
    /// The authorities that it holds at the start.
    pub(crate) authorities: RootCertStore,
}

/// Why a file holds no valid CA certificates.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCaFile {
    /// The error of the operating system.
    #[error("it cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// It holds no certificate.
    #[error("it contains no certificate as PEM")]
    NoCertificate,
    /// A certificate is malformed.
    #[error("a certificate in it cannot be read")]
    BadCertificate,
}

impl CaFile {
    /// Reads the file of this path.
    ///
    /// # Errors
    /// Fails when it cannot be read, or holds anything but certificates.
    pub fn parse(path: &str) -> Result<Self, InvalidCaFile> {
        let pem = std::fs::read(path).map_err(InvalidCaFile::Unreadable)?;
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let read = certificate.ok().and_then(|certificate| authorities.add(certificate).ok());
            read.ok_or(InvalidCaFile::BadCertificate)?;
        }
        if authorities.is_empty() {
            return Err(InvalidCaFile::NoCertificate);
        }
        Ok(Self { path: path.into(), authorities })
    }

    /// The authorities that it holds at the start.
    pub fn authorities(&self) -> RootCertStore {
        self.authorities.clone()
    }
}
