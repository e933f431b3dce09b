//! Self-signed certificates of the servers.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::common::TestEnv;

/// A certificate and its key, also as PEM files in the directory of the test.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) file: PathBuf,
    pub(crate) key_file: PathBuf,
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Certificate {
    /// For these host names; the files are named after the first one.
    pub(crate) fn new(env: &TestEnv, names: &[&str]) -> Self {
        let owned: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let signed = rcgen::generate_simple_self_signed(owned).unwrap();
        let [file, key_file] =
            ["crt", "key"].map(|extension| env.file(&format!("{}.{extension}", names[0])));
        fs::write(&file, signed.cert.pem()).unwrap();
        fs::write(&key_file, signed.signing_key.serialize_pem()).unwrap();
        let certificate = signed.cert.der().clone();
        Self { file, key_file, certificate, key: signed.signing_key.serialize_der().into() }
    }

    /// For a server in the process of the test.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let chain = vec![self.certificate.clone()];
        Arc::new(builder.with_single_cert(chain, self.key.clone_key().into()).unwrap())
    }
}
