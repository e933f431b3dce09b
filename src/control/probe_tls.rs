//! How probes use TLS: two configurations of rustls, one that verifies certificates and one that
//! does not, which all probes share.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwapOption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WantsClientCert};
use rustls::crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::config::{Config, Span, TlsCheck};

/// By the root certificates of this machine. None: no probe verifies.
static VERIFYING: ArcSwapOption<ClientConfig> = ArcSwapOption::const_empty();

/// Any certificate is accepted.
static ACCEPTING: OnceLock<Result<Arc<ClientConfig>, Error>> = OnceLock::new();

/// Reads the root certificates of this machine, for [`put_in_force`]: at the start, and again at
/// each reload. They are some 300 KB on the disk, so that no probe reads them. None: no health
/// check verifies.
///
/// # Errors
/// There are none. For the operator, a line for each backend.
pub fn load_roots(config: &Config) -> Result<Option<Arc<ClientConfig>>, Vec<String>> {
    let line = |(span, problem): (Span, String)| config.locate(span) + &problem;
    let roots = find_roots(config);
    let roots = roots.map_err(|problems| problems.into_iter().map(line).collect::<Vec<_>>())?;
    Ok(roots.map(Arc::new))
}

/// From now on, probes verify by these root certificates. None: no probe verifies.
pub fn put_in_force(roots: Option<Arc<ClientConfig>>) {
    if roots.is_some() {
        VERIFYING.store(roots);
    }
}

/// As [`load_roots`].
///
/// # Errors
/// There are none. For the operator, a problem for each backend.
pub fn find_roots(config: &Config) -> Result<Option<ClientConfig>, Vec<(Span, String)>> {
    let checks = config.backends.iter().filter_map(|backend| backend.health.tls.as_ref());
    let spans: Vec<_> = checks.filter(|(tls, _)| tls.verify).map(|(_, span)| *span).collect();
    if spans.is_empty() {
        return Ok(None);
    }
    verifying().map(Some).map_err(|why| {
        let text = format!(
            "health.tls: verify = true: {why}; install root certificates (package \
             ca-certificates), name a file with them in SSL_CERT_FILE, or set verify = false"
        );
        spans.into_iter().map(|span| (span, text.clone())).collect()
    })
}

fn verifying() -> Result<ClientConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})"));
        let why = why.or_else(|| (ignored > 0).then(|| format!(" ({ignored} cannot be read)")));
        return Err(format!("this machine has no root certificates{}", why.unwrap_or_default()));
    }
    let builder = builder().map_err(|error| error.to_string())?;
    Ok(finished(builder.with_root_certificates(roots)))
}

/// The configuration of a probe.
pub(super) fn client(verify: bool) -> Result<Arc<ClientConfig>, String> {
    if verify {
        return VERIFYING.load_full().ok_or_else(|| "no root certificates are loaded".to_owned());
    }
    let accepting = ACCEPTING.get_or_init(|| {
        let verifier = AcceptAny(provider().signature_verification_algorithms);
        let builder = builder()?.dangerous();
        Ok(Arc::new(finished(builder.with_custom_certificate_verifier(Arc::new(verifier)))))
    });
    accepting.clone().map_err(|error| error.to_string())
}

/// The name that is sent to the server (unless it is an IP address), and that its certificate must
/// have: `name` of the check, or the host name of the server, or its IP address.
pub(super) fn name(
    tls: &TlsCheck,
    host: Option<&str>,
    address: Option<SocketAddr>,
) -> Result<ServerName<'static>, String> {
    let Some(name) = tls.name.as_deref().or(host) else {
        let address = address.ok_or("a unix socket has no name; set health.tls.name")?;
        return Ok(ServerName::IpAddress(address.ip().into()));
    };
    ServerName::try_from(name.to_owned()).map_err(|error| format!("server name {name}: {error}"))
}

fn provider() -> CryptoProvider {
    crypto::ring::default_provider()
}

fn builder() -> Result<ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(Arc::new(provider())).with_safe_default_protocol_versions()
}

fn finished(builder: ConfigBuilder<ClientConfig, WantsClientCert>) -> ClientConfig {
    let mut client = builder.with_no_client_auth();
    // A resumed session would not show the certificate that the server has now.
    client.resumption = Resumption::disabled();
    client
}

/// Accepts every certificate (`verify = false`), whatever is in it: rustls cannot read some that
/// are in use, such as X.509 version 1, which `openssl x509 -req` makes by default. A certificate
/// that nobody vouches for proves nothing, so that the signature of the handshake is not checked
/// either.
#[derive(Debug)]
struct AcceptAny(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_probes_share_one_configuration() {
        let [one, other] = [(); 2].map(|()| client(false).unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert!(client(true).is_err(), "no roots were read");
    }

    #[test]
    fn the_name_is_that_of_the_check_or_the_host_name_or_the_ip_address() {
        let address = SocketAddr::from(([192, 0, 2, 1], 443));
        let named = TlsCheck { name: Some("web.test".to_owned()), ..TlsCheck::default() };
        let name =
            |tls: &TlsCheck, host| name(tls, host, Some(address)).unwrap().to_str().into_owned();
        assert_eq!(name(&named, Some("host.test")), "web.test");
        assert_eq!(name(&TlsCheck::default(), Some("host.test")), "host.test");
        assert_eq!(name(&TlsCheck::default(), Some("my_service")), "my_service");
        assert_eq!(name(&TlsCheck::default(), None), "192.0.2.1");
    }
}
