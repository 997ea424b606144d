//! Who the controller is: its RSA key, and the proof by TLS that the other end holds it.
//!
//! JNLP4-connect knows no certificate authority and no host name. The controller presents a self-signed certificate,
//! and all that counts is that its public key is the instance identity (remoting's
//! `PublicKeyMatchingX509ExtendedTrustManager`). Without an identity Java refuses every certificate; here it can't even
//! be asked for: an [`InstanceIdentity`] is needed to get a [`Verified`] stream, and that to get at a [`Secret`].

use super::Cause;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use md5::{Digest, Md5};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerMisbehaved, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::WebPkiSupportedAlgorithms,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, alg_id};
use std::{fmt, io, net::Ipv4Addr, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The public key that makes a controller this controller.
#[derive(Clone, PartialEq, Eq)]
pub struct InstanceIdentity {
    key: RsaKey,
}

impl InstanceIdentity {
    /// Reads what `-instanceIdentity` and the `X-Instance-Identity` header hold: base64 of an X.509
    /// `SubjectPublicKeyInfo` with an RSA key (`JnlpEndpointResolver.getIdentity`). White space is ignored.
    ///
    /// # Errors
    /// [`Cause::Configuration`] that says what is wrong with it.
    pub fn from_base64(text: &str) -> Result<Self, Cause> {
        let wrong = |what| Cause::Configuration(format!("the instance identity is {what}"));
        let text: String = text.split_ascii_whitespace().collect();
        let der = BASE64_STANDARD.decode(text).map_err(|_| wrong("not base64"))?;
        Self::from_der(&der)
    }

    /// Reads an X.509 `SubjectPublicKeyInfo` with an RSA key.
    ///
    /// # Errors
    /// [`Cause::Configuration`] that says what is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, Cause> {
        let wrong = |what| Cause::Configuration(format!("the instance identity is {what}"));
        let mut rest = der;
        let key = der::element(&mut rest).filter(|_| rest.is_empty()).and_then(RsaKey::from_spki);
        Ok(InstanceIdentity { key: key.ok_or_else(|| wrong("not an RSA public key in X.509 form"))? })
    }

    /// The MD5 fingerprint that Java's agent logs and the controller shows (`KeyUtils.fingerprint`).
    pub fn fingerprint(&self) -> String {
        self.key.fingerprint()
    }
}

impl fmt::Debug for InstanceIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstanceIdentity({})", self.fingerprint())
    }
}

/// What proves to a controller that we are the agent. Never shown, and given out only to whom it may be told.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Wraps the secret as it was configured.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(secret.into())
    }

    /// The secret, for a controller whose identity has been proved.
    pub fn reveal_to<S>(&self, _controller: &Verified<S>) -> &str {
        &self.0
    }

    /// Whether none was given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As much of it as may be shown, to tell two apart and to see that one was cut.
    pub fn shape(&self) -> SecretShape {
        let digest = sha2::Sha256::digest(self.0.as_bytes());
        SecretShape {
            length: self.0.chars().count(),
            hexadecimal: self.0.bytes().all(|byte| byte.is_ascii_hexdigit()),
            sha256: digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// The secret, to be sent as an HTTP header: trust is TLS's with its certificate authorities there, or nobody's
    /// where the URL is plain http, about which the user is to be warned.
    pub fn reveal_over_http(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What may be shown of a [`Secret`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretShape {
    /// In characters; a controller's secrets have 64.
    pub length: usize,
    /// Whether all of it are hexadecimal digits, as a controller's are.
    pub hexadecimal: bool,
    /// The first eight digits of its SHA-256.
    pub sha256: String,
}

/// A TLS stream whose other end has proved to hold the key of an [`InstanceIdentity`]. Only [`verify`] makes these.
#[derive(Debug)]
pub struct Verified<S> {
    stream: TlsStream<S>,
}

impl<S> Verified<S> {
    /// The stream itself.
    pub fn stream(&mut self) -> &mut TlsStream<S> {
        &mut self.stream
    }

    /// Gives the stream away, and the proof up.
    pub fn into_inner(self) -> TlsStream<S> {
        self.stream
    }
}

/// Does a TLS handshake (1.2 or 1.3) as its client, and refuses whoever doesn't hold the identity's private key.
///
/// No name is sent and no session is resumed. No client certificate is presented: the controller asks for one but needs
/// none (`JnlpSlaveAgentProtocol4` builds its handler with `needClientAuth` false).
///
/// # Errors
/// [`Cause::IdentityMismatch`], or another cause of a failed handshake. There is no deadline in here.
pub async fn verify<S>(stream: S, identity: &InstanceIdentity) -> Result<Verified<S>, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = PinnedKey { key: identity.key.clone(), algorithms: provider.signature_verification_algorithms };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    let name = ServerName::from(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Ok(stream) => Ok(Verified { stream }),
        Err(error) => Err(mismatch(&error).unwrap_or_else(|| Cause::from(error))),
    }
}

/// The mismatch that [`PinnedKey`] reported, if it was that.
fn mismatch(error: &io::Error) -> Option<Cause> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            let Mismatch { expected, found } = inner.downcast_ref()?;
            Some(Cause::IdentityMismatch { expected: expected.clone(), found: found.clone() })
        }
        _ => None,
    }
}

#[derive(Debug, thiserror::Error)]
#[error("expected the key {expected}, found {found}")]
struct Mismatch {
    expected: String,
    found: String,
}

/// Trusts certificates of one key, and verifies handshakes with that key. Of the certificate nothing but the key is
/// read: dates, names, extensions, even its own signature mean nothing here.
#[derive(Debug)]
struct PinnedKey {
    key: RsaKey,
    algorithms: WebPkiSupportedAlgorithms,
}

/// What an RSA key may sign a handshake with: RSASSA-PSS, and in TLS 1.2 also PKCS #1 (RFC 8446, section 4.2.3).
const PSS: [SignatureScheme; 3] =
    [SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PSS_SHA384, SignatureScheme::RSA_PSS_SHA512];
const PKCS1: [SignatureScheme; 3] =
    [SignatureScheme::RSA_PKCS1_SHA256, SignatureScheme::RSA_PKCS1_SHA384, SignatureScheme::RSA_PKCS1_SHA512];

impl PinnedKey {
    fn verify_signature(
        &self,
        message: &[u8],
        signed: &DigitallySignedStruct,
        schemes: &[&[SignatureScheme]],
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !schemes.iter().any(|allowed| allowed.contains(&signed.scheme)) {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        }
        let valid = self
            .algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == signed.scheme)
            .flat_map(|(_, algorithms)| *algorithms)
            .filter(|algorithm| algorithm.public_key_alg_id() == alg_id::RSA_ENCRYPTION)
            .any(|algorithm| algorithm.verify_signature(&self.key.0, message, signed.signature()).is_ok());
        if valid { Ok(HandshakeSignatureValid::assertion()) } else { Err(CertificateError::BadSignature.into()) }
    }
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = match RsaKey::from_certificate(leaf) {
            Some(key) if key == self.key => return Ok(ServerCertVerified::assertion()),
            Some(key) => key.fingerprint(),
            None => "a certificate without an RSA key".to_owned(),
        };
        let expected = self.key.fingerprint();
        Err(CertificateError::Other(OtherError(Arc::new(Mismatch { expected, found }))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        _leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, signed, &[&PSS, &PKCS1])
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        _leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_signature(message, signed, &[&PSS])
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        [PSS, PKCS1].concat()
    }
}

/// An RSA public key as the DER of PKCS #1 (`RSAPublicKey`, RFC 8017, appendix A.1.1).
#[derive(Clone, PartialEq, Eq)]
struct RsaKey(Vec<u8>);

/// The algorithm `rsaEncryption` with its NULL parameter, as an element, and the bare object identifier within it.
const RSA_ALGORITHM: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";
const RSA_OID: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";

impl RsaKey {
    /// The key in a `SubjectPublicKeyInfo` (RFC 5280, section 4.1).
    fn from_spki(spki: der::Element<'_>) -> Option<Self> {
        let mut spki = spki.content(der::SEQUENCE)?;
        let mut algorithm = der::element(&mut spki)?.content(der::SEQUENCE)?;
        if der::element(&mut algorithm)?.content(der::OID)? != RSA_OID {
            return None;
        }
        let key = der::element(&mut spki)?.content(der::BIT_STRING)?.strip_prefix(&[0])?;
        (spki.is_empty() && !key.is_empty()).then(|| RsaKey(key.to_vec()))
    }

    /// The key in a certificate (RFC 5280, section 4.1).
    fn from_certificate(certificate: &[u8]) -> Option<Self> {
        let mut rest = certificate;
        let mut certificate = der::element(&mut rest)?.content(der::SEQUENCE)?;
        let mut body = der::element(&mut certificate)?.content(der::SEQUENCE)?;
        let first = der::element(&mut body)?;
        if first.tag == der::VERSION {
            der::element(&mut body)?.content(der::INTEGER)?;
        }
        for _signature_issuer_validity_subject in 0..4 {
            der::element(&mut body)?.content(der::SEQUENCE)?;
        }
        RsaKey::from_spki(der::element(&mut body)?)
    }

    /// MD5 over the whole `SubjectPublicKeyInfo` as Java encodes it.
    fn fingerprint(&self) -> String {
        let bits = der::encode(der::BIT_STRING, &[&[0], &self.0[..]].concat());
        let spki = der::encode(der::SEQUENCE, &[RSA_ALGORITHM, &bits].concat());
        let digest = Md5::digest(spki);
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKey({})", self.fingerprint())
    }
}

/// As much of DER (X.690) as it takes to walk through a certificate.
pub(crate) mod der {
    pub const INTEGER: u8 = 0x02;
    pub const BIT_STRING: u8 = 0x03;
    pub const OID: u8 = 0x06;
    pub const SEQUENCE: u8 = 0x30;
    /// `[0] EXPLICIT`, which holds a certificate's version.
    pub const VERSION: u8 = 0xa0;

    /// A tag and what it holds.
    #[derive(Clone, Copy)]
    pub struct Element<'a> {
        pub tag: u8,
        content: &'a [u8],
    }

    impl<'a> Element<'a> {
        /// What it holds, if it is of this tag.
        pub fn content(self, tag: u8) -> Option<&'a [u8]> {
            (self.tag == tag).then_some(self.content)
        }

        /// What it holds, whatever its tag.
        pub fn bytes(self) -> &'a [u8] {
            self.content
        }
    }

    /// Takes the first element; `None` where there is none, or one of indefinite length or of a multi-byte tag.
    pub fn element<'a>(rest: &mut &'a [u8]) -> Option<Element<'a>> {
        let &tag = rest.split_off_first()?;
        let &short = rest.split_off_first()?;
        let length = match short {
            0..=0x7f => usize::from(short),
            0x81..=0x84 => {
                let bytes = rest.split_off(..usize::from(short & 0x7f))?;
                bytes.iter().try_fold(0usize, |sum, &b| sum.checked_mul(256)?.checked_add(b.into()))?
            }
            _ => return None,
        };
        if tag & 0x1f == 0x1f {
            return None;
        }
        Some(Element { tag, content: rest.split_off(..length)? })
    }

    /// An element of this content.
    pub fn encode(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut element = vec![tag];
        let length = content.len().to_be_bytes();
        let significant = &length[length.iter().take_while(|&&b| b == 0).count().min(length.len() - 1)..];
        if content.len() >= 0x80 {
            element.push(0x80 | significant.len() as u8);
        }
        element.extend_from_slice(significant);
        element.extend_from_slice(content);
        element
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls_pki_types::pem::PemObject;

    const IDENTITY: &str = include_str!("testdata/controller.identity");

    fn certificate(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    #[test]
    fn the_fingerprint_is_javas() {
        let identity = InstanceIdentity::from_base64(IDENTITY).unwrap();
        // openssl pkey -in controller.key -pubout -outform DER | md5sum
        assert_eq!(identity.fingerprint(), "36:2a:11:df:16:ad:a4:24:06:b0:d4:b1:dd:f0:e3:7f");
        let (head, tail) = IDENTITY.split_at(64);
        assert_eq!(InstanceIdentity::from_base64(&format!(" {head}\r\n{tail}\n")).unwrap(), identity);
    }

    #[test]
    fn the_key_is_found_in_any_certificate() {
        let identity = InstanceIdentity::from_base64(IDENTITY).unwrap();
        for pem in [
            include_str!("testdata/controller.crt"),
            include_str!("testdata/controller-v1.crt"),
            include_str!("testdata/controller-odd.crt"),
        ] {
            assert_eq!(RsaKey::from_certificate(&certificate(pem)), Some(identity.key.clone()));
        }
        let impostor = RsaKey::from_certificate(&certificate(include_str!("testdata/impostor.crt")));
        assert!(impostor.is_some_and(|key| key != identity.key));
        assert_eq!(RsaKey::from_certificate(&certificate(include_str!("testdata/ec.crt"))), None);
    }

    #[test]
    fn what_is_no_identity_is_refused_by_name() {
        let whole = BASE64_STANDARD.decode(IDENTITY).unwrap();
        for length in 0..whole.len() {
            let cut = BASE64_STANDARD.encode(&whole[..length]);
            assert!(matches!(InstanceIdentity::from_base64(&cut), Err(Cause::Configuration(_))), "{length}");
        }
        let longer = BASE64_STANDARD.encode([&whole[..], &[0]].concat());
        assert!(InstanceIdentity::from_base64(&longer).is_err());
        assert_eq!(
            InstanceIdentity::from_base64("nonsense!").unwrap_err().to_string(),
            "the instance identity is not base64"
        );
    }

    #[test]
    fn the_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "Secret(…)");
    }

    #[test]
    fn der_lengths() {
        for length in [0, 1, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000] {
            let encoded = der::encode(4, &vec![7; length]);
            let mut rest = &encoded[..];
            assert_eq!(der::element(&mut rest).unwrap().content(4).unwrap().len(), length);
            assert!(rest.is_empty());
        }
        for bad in [&b"\x30\x80\0\0"[..], b"\x30\x85\0\0\0\0\0", b"\x30\x84\xff\xff\xff\xff", b"\x1f\x01\x00", b"\x30"]
        {
            assert!(der::element(&mut &bad[..]).is_none());
        }
    }

    proptest! {
        #[test]
        fn a_broken_certificate_does_not_panic(at in 0usize..700, byte: u8, length in 0usize..800) {
            let mut der = certificate(include_str!("testdata/controller.crt")).to_vec();
            der.truncate(length);
            if let Some(broken) = der.get_mut(at) {
                *broken = byte;
            }
            let _ = RsaKey::from_certificate(&der);
        }
    }
}
