//! Scripted servers that speak TLS, and their certificates.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::common::{Server, TestEnv};

/// TLS on an accepted connection.
pub(crate) type TlsStream = StreamOwned<ServerConnection, TcpStream>;

/// Issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for host names and IP addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        Identity::of(&params(names), |params, key| params.signed_by(key, &self.0).unwrap())
    }

    /// As `issue`, with a certificate that has expired.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Identity {
        let mut params = params(names);
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
        Identity::of(&params, |params, key| params.signed_by(key, &self.0).unwrap())
    }

    /// A file with its certificate, for `SSL_CERT_FILE`.
    pub(crate) fn file(&self, env: &TestEnv) -> PathBuf {
        let file = env.file("authority.pem");
        fs::write(&file, self.0.pem()).unwrap();
        file
    }
}

impl Identity {
    fn of(
        params: &CertificateParams,
        sign: impl FnOnce(&CertificateParams, &KeyPair) -> rcgen::Certificate,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        Self { certificate: sign(params, &key), key }
    }

    pub(crate) fn self_signed(names: &[&str]) -> Self {
        Self::of(&params(names), |params, key| params.self_signed(key).unwrap())
    }

    /// Files with the certificate and the key, for other programs.
    pub(crate) fn files(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
        fs::write(&certificate, self.certificate.pem()).unwrap();
        fs::write(&key, self.key.serialize_pem()).unwrap();
        (certificate, key)
    }

    /// Starts a server with this certificate, which runs `handler` for each connection. The
    /// handshake is done by the first read or write.
    pub(crate) fn serve(
        &self,
        address: SocketAddr,
        handler: impl Fn(TlsStream) + Send + Sync + 'static,
    ) -> Server {
        let chain = vec![self.certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(self.key.serialize_der().into());
        serve(address, chain, key, handler)
    }
}

/// As [`Identity::serve`], with a certificate of another source.
pub(crate) fn serve(
    address: SocketAddr,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    handler: impl Fn(TlsStream) + Send + Sync + 'static,
) -> Server {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(config.with_single_cert(chain, key).unwrap());
    Server::start(address, move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        handler(StreamOwned::new(connection, stream));
    })
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap()
}
