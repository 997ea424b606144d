//! TLS handshakes that tell what the server presents, whether or not it is trusted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::http::Route;
use crate::probe::facts::{FailureKind, Handshake, TlsFailure, TlsFailureKind};
use crate::probe::{certificate, time};
use crate::transport::http;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(4);

/// No more certificates of a chain are kept.
const MAX_CHAIN: usize = 8;

/// Asks another verifier and remembers what it said, but goes on in any case. What is sent over such a connection is
/// nothing that a stranger must not see.
#[derive(Debug)]
struct Recorder {
    inner: Arc<dyn ServerCertVerifier>,
    seen: Mutex<(Vec<CertificateDer<'static>>, Option<rustls::Error>)>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.inner.verify_server_cert(leaf, intermediates, name, ocsp, now);
        let chain = std::iter::once(leaf).chain(intermediates).take(MAX_CHAIN).map(|c| c.clone().into_owned());
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = (chain.collect(), verdict.err());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, leaf, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, leaf, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// One handshake with the server of `route`.
pub(super) async fn handshake(route: &Route<'_>) -> Handshake {
    let begun = Instant::now();
    let host = &route.url.host;
    let mut seen = Handshake { server_name: host.clone(), ..Handshake::default() };
    let outcome = shake(route, &mut seen).await;
    seen.failure = outcome.err();
    seen.ms = begun.elapsed().as_millis() as u64;
    seen
}

async fn shake(route: &Route<'_>, seen: &mut Handshake) -> Result<(), TlsFailure> {
    let other = |message: String| TlsFailure { kind: TlsFailureKind::Other, message };
    let inner = route.tls.verifier().map_err(|error| other(error.to_string()))?;
    seen.roots = route.tls.roots().map(ToString::to_string).unwrap_or_default();
    let name = ServerName::try_from(route.url.host.clone()).map_err(|error| other(error.to_string()))?;
    let recorder = Arc::new(Recorder { inner, seen: Mutex::default() });
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| other(error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(recorder.clone())
        .with_no_client_auth();
    let stream = route.tcp().await.map_err(|failure| {
        let kind = match failure.kind {
            FailureKind::TimedOut => TlsFailureKind::TimedOut,
            FailureKind::Proxy => TlsFailureKind::Proxy,
            _ => TlsFailureKind::Closed,
        };
        TlsFailure { kind, message: failure.message }
    })?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let shaken = route.clock.within(HANDSHAKE, connecting).await;
    let (chain, verdict) = std::mem::take(&mut *recorder.seen.lock().unwrap_or_else(PoisonError::into_inner));
    seen.chain = chain.iter().filter_map(|der| certificate::parse(der)).collect();
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            return Err(match tls {
                Some(tls) => failure(tls),
                None => TlsFailure { kind: TlsFailureKind::Closed, message: error.to_string() },
            });
        }
        Err(failure) => return Err(TlsFailure { kind: TlsFailureKind::TimedOut, message: failure.message }),
    };
    seen.version = stream.get_ref().1.protocol_version().and_then(|v| v.as_str().map(str::to_owned));
    let Some(verdict) = verdict else { return Ok(()) };
    let failure = failure(&verdict);
    if matches!(failure.kind, TlsFailureKind::Expired | TlsFailureKind::NotYetValid) {
        // It may as well be our clock: what is the server's?
        let authority = route.url.authority();
        let headers = [("Host", authority.as_str()), ("Connection", "close")];
        if let Ok(request) = http::request(hyper::Method::GET, &route.url.join("login").path, headers)
            && let Ok((response, ..)) = http::exchange(stream, request, HANDSHAKE.min(route.clock.left())).await
        {
            seen.server_date = response.header("Date").and_then(time::parse_http_date);
        }
    }
    Err(failure)
}

fn failure(error: &rustls::Error) -> TlsFailure {
    use rustls::Error as E;
    use rustls::InvalidMessage;
    let kind = match error {
        E::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer => TlsFailureKind::UnknownIssuer,
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFailureKind::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFailureKind::NotYetValid,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsFailureKind::WrongName
            }
            CertificateError::Other(_) => TlsFailureKind::UnknownIssuer,
            _ => TlsFailureKind::Other,
        },
        E::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            TlsFailureKind::NotTls
        }
        E::InvalidMessage(_) => TlsFailureKind::NotTls,
        _ => TlsFailureKind::Other,
    };
    TlsFailure { kind, message: error.to_string() }
}
