//! Certificates for connections with TLS.

use redis::{Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, TlsCertificates};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The certificates of the connections, as PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Certificates {
    /// Those of the authorities that are trusted, instead of the system's.
    pub(super) roots: Option<Vec<u8>>,
    /// That of this client with its chain, and its private key.
    pub(super) client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Certificates {
    /// Returns the address with the certificates, if it is one for TLS.
    pub(super) fn apply(&self, address: ConnectionInfo) -> Result<ConnectionInfo, RedisError> {
        if !matches!(address.addr(), ConnectionAddr::TcpTls { .. }) {
            return Ok(address);
        }
        // rustls panics if it has to choose among several.
        if CryptoProvider::get_default().is_none() {
            // Another thread may have been first.
            let _ = ring::default_provider().install_default();
        }
        if *self == Self::default() {
            return Ok(address);
        }
        let client_tls =
            self.client.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        if self.roots.as_ref().is_some_and(|roots| CertificateDer::pem_slice_iter(roots).next().is_none()) {
            return Err((ErrorKind::InvalidClientConfig, "there is no certificate among those to trust").into());
        }
        let certificates = TlsCertificates { client_tls, root_cert: self.roots.clone() };
        Ok(Client::build_with_tls(address, certificates)?.get_connection_info().clone())
    }

    /// Checks that they are used.
    pub(super) fn check(&self, primary: &ConnectionInfo) -> Result<(), RedisError> {
        let is_tls = matches!(primary.addr(), ConnectionAddr::TcpTls { .. });
        if is_tls || *self == Self::default() {
            return Ok(());
        }
        Err((ErrorKind::InvalidClientConfig, "certificates need a URL that begins with `rediss`").into())
    }
}
