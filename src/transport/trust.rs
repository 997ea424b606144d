//! Which certificates of an HTTPS or WSS controller are trusted.
//!
//! One [`TlsConfig`] serves discovery and the WebSocket. JNLP4's TLS has nothing to do with it:
//! there the controller's instance identity is the trust anchor.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// No `-cert` file is larger: the bundle of a whole operating system has 250 KB.
const MAX_CERT_FILE: u64 = 8 << 20;

/// What the command line and the environment say about trust.
#[derive(Debug, Clone, Default)]
pub struct TrustOptions {
    /// The values of `-cert`, each a PEM or DER file's path, `@` and such a path, or PEM text.
    pub certs: Vec<String>,
    /// `-noCertificateCheck`: trust whoever answers, under any name.
    pub no_certificate_check: bool,
    /// `SSL_CERT_FILE`: a bundle that replaces the system's.
    pub ssl_cert_file: Option<PathBuf>,
    /// `SSL_CERT_DIR`: a directory of hashed certificates that replaces the system's.
    pub ssl_cert_dir: Option<PathBuf>,
}

/// Why no trust can be established from the options.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A file of `-cert` can't be read.
    #[error("cannot read the certificates of -cert from {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A value of `-cert` holds no certificate.
    #[error("-cert: no certificate in {origin}")]
    Empty {
        /// The file, or "the given text".
        origin: String,
    },
    /// A value of `-cert` holds something that is not a certificate.
    #[error("-cert: certificate {number} in {origin} is not usable: {reason}")]
    Bad {
        /// The file, or "the given text".
        origin: String,
        /// Counted from 1.
        number: usize,
        /// What is wrong.
        reason: String,
    },
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set, but gives no certificate.
    #[error("no certificate can be read from {variables}: {reason}")]
    Environment {
        /// Names and values.
        variables: String,
        /// What is wrong.
        reason: String,
    },
}

/// Where the roots of a [`TlsConfig`] came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Roots {
    /// The system's store, or what `SSL_CERT_FILE` and `SSL_CERT_DIR` say: this many certificates.
    System(usize),
    /// The Mozilla roots that are compiled in, because there is no system store.
    BuiltIn,
    /// Nothing is checked.
    Unchecked,
}

impl fmt::Display for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Roots::System(n) => write!(f, "the system's trust store ({n} certificates)"),
            Roots::BuiltIn => f.write_str("built-in roots (the system has no trust store)"),
            Roots::Unchecked => f.write_str("nothing: certificates are not checked"),
        }
    }
}

/// The TLS client configuration for HTTPS and WSS, made on first use: a controller on plain HTTP
/// never costs the memory of a hundred roots.
///
/// `-cert` adds to the system's store. Java's help text promises "additional" certificates, but
/// `Engine.getSSLContext` empties the store that it just loaded, so that there they replace it.
pub struct TlsConfig {
    options: TrustOptions,
    given: Vec<CertificateDer<'static>>,
    built: OnceLock<Built>,
}

struct Built {
    config: Arc<ClientConfig>,
    verifier: Arc<Verifier>,
    roots: Roots,
}

impl TlsConfig {
    /// Reads and checks all that `-cert` names.
    ///
    /// # Errors
    /// Any value without a usable certificate. (Java logs a warning and goes on without it.)
    pub fn new(options: TrustOptions) -> Result<Self, TrustError> {
        let mut given = Vec::new();
        for value in &options.certs {
            given.extend(read_certificates(value)?);
        }
        Ok(Self { options, given, built: OnceLock::new() })
    }

    /// The configuration for rustls. The first call reads the system's store from disk.
    ///
    /// # Errors
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set but useless.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        Ok(Arc::clone(&self.get()?.config))
    }

    /// What decides about a server's certificate, for whoever wants to know the reasons.
    ///
    /// # Errors
    /// As [`TlsConfig::client_config`].
    pub(crate) fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
        Ok(self.get()?.verifier.clone())
    }

    /// Where the roots come from, beside `-cert`.
    ///
    /// # Errors
    /// As [`TlsConfig::client_config`].
    pub fn roots(&self) -> Result<&Roots, TrustError> {
        Ok(&self.get()?.roots)
    }

    /// Whether the caller owes the user a warning: certificates are not checked.
    pub fn is_unchecked(&self) -> bool {
        self.options.no_certificate_check
    }

    fn get(&self) -> Result<&Built, TrustError> {
        match self.built.get() {
            Some(built) => Ok(built),
            None => {
                let built = self.build()?;
                Ok(self.built.get_or_init(|| built))
            }
        }
    }

    fn build(&self) -> Result<Built, TrustError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let (trust, roots) = if self.options.no_certificate_check {
            (Trust::Anyone, Roots::Unchecked)
        } else {
            let (mut store, roots) = self.system_roots()?;
            for cert in &self.given {
                // Checked by `read_certificates`.
                let _ = store.add(cert.clone());
            }
            let given = self.given.clone();
            (Trust::Anchors { store, given }, roots)
        };
        let verifier = Arc::new(Verifier { trust, provider: Arc::clone(&provider) });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring has cipher suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_no_client_auth();
        Ok(Built { config: Arc::new(config), verifier, roots })
    }

    fn system_roots(&self) -> Result<(RootCertStore, Roots), TrustError> {
        let TrustOptions { ssl_cert_file: file, ssl_cert_dir: dir, .. } = &self.options;
        let from_environment = file.is_some() || dir.is_some();
        let loaded = if from_environment {
            rustls_native_certs::load_certs_from_paths(file.as_deref(), dir.as_deref())
        } else {
            rustls_native_certs::load_native_certs()
        };
        let mut store = RootCertStore::empty();
        // Stores hold certificates that no one can parse; Java skips them too.
        let (usable, _) = store.add_parsable_certificates(loaded.certs);
        if usable > 0 {
            return Ok((store, Roots::System(usable)));
        }
        if from_environment {
            let variables = [("SSL_CERT_FILE", file), ("SSL_CERT_DIR", dir)]
                .iter()
                .filter_map(|(n, v)| v.as_ref().map(|v| format!("{n}={}", v.display())))
                .collect::<Vec<_>>()
                .join(", ");
            let reason = match loaded.errors.first() {
                Some(error) => error.to_string(),
                None => "it holds none".to_owned(),
            };
            return Err(TrustError::Environment { variables, reason });
        }
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        Ok((store, Roots::BuiltIn))
    }
}

impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig").field("options", &self.options).finish_non_exhaustive()
    }
}

/// All certificates of one value of `-cert`.
fn read_certificates(value: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let value = value.trim();
    let (bytes, origin) = if value.contains("-----BEGIN ") {
        (value.as_bytes().to_vec(), "the given text".to_owned())
    } else {
        let path = PathBuf::from(value.strip_prefix('@').unwrap_or(value));
        let bytes = read_bounded(&path).map_err(|source| TrustError::Read { path: path.clone(), source })?;
        (bytes, path.display().to_string())
    };
    let bad = |number: usize, reason: &dyn fmt::Display| TrustError::Bad {
        origin: origin.clone(),
        number,
        reason: reason.to_string(),
    };
    // A DER certificate is a SEQUENCE; no PEM file begins with that byte.
    let certificates = if bytes.first() == Some(&0x30) {
        vec![CertificateDer::from(bytes)]
    } else {
        let mut certificates = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let number = certificates.len() + 1;
            certificates.push(certificate.map_err(|e| bad(number, &e))?);
        }
        certificates
    };
    if certificates.is_empty() {
        return Err(TrustError::Empty { origin });
    }
    let mut check = RootCertStore::empty();
    for (i, certificate) in certificates.iter().enumerate() {
        check.add(certificate.clone()).map_err(|e| bad(i + 1, &e))?;
    }
    Ok(certificates)
}

fn read_bounded(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_CERT_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_CERT_FILE {
        return Err(std::io::Error::other("larger than 8 MiB"));
    }
    Ok(bytes)
}

#[derive(Debug)]
enum Trust {
    Anyone,
    Anchors { store: RootCertStore, given: Vec<CertificateDer<'static>> },
}

/// As rustls's own verifier, with two additions: `-noCertificateCheck`, and a server certificate
/// that was itself given by `-cert` is trusted, as Java's `PKIXValidator` does. The latter is what
/// users of self-signed controllers have, and webpki rejects it (`CaUsedAsEndEntity`).
#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Trust::Anchors { store, given } = &self.trust else {
            return Ok(ServerCertVerified::assertion());
        };
        let certificate = ParsedCertificate::try_from(end_entity)?;
        if !given.contains(end_entity) {
            verify_server_cert_signed_by_trust_anchor(
                &certificate,
                store,
                intermediates,
                now,
                self.provider.signature_verification_algorithms.all,
            )?;
        }
        verify_server_name(&certificate, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rustls::{ServerConfig, ServerConnection};
    use rustls_pki_types::PrivateKeyDer;

    pub(crate) const CA: &str = include_str!("../../tests/fixtures/tls/ca.pem");
    pub(crate) const SERVER: [&str; 2] =
        [include_str!("../../tests/fixtures/tls/server.pem"), include_str!("../../tests/fixtures/tls/server.key")];
    const SELF_SIGNED: [&str; 2] = [
        include_str!("../../tests/fixtures/tls/self-signed.pem"),
        include_str!("../../tests/fixtures/tls/self-signed.key"),
    ];

    pub(crate) fn server_config([cert, key]: [&str; 2]) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key)
            .unwrap();
        Arc::new(config)
    }

    pub(crate) fn trusting(certs: &[&str]) -> TlsConfig {
        TlsConfig::new(TrustOptions {
            certs: certs.iter().map(|c| (*c).to_owned()).collect(),
            ..TrustOptions::default()
        })
        .unwrap()
    }

    /// A whole handshake in memory: the client's verdict.
    fn handshake(tls: &TlsConfig, name: &'static str, server: [&str; 2]) -> Result<(), String> {
        let config = tls.client_config().unwrap();
        let name = ServerName::try_from(name).unwrap();
        let mut client = rustls::ClientConnection::new(config, name).unwrap();
        let mut server = ServerConnection::new(server_config(server)).unwrap();
        let mut wire = Vec::new();
        while client.is_handshaking() {
            wire.clear();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().map_err(|e| e.to_string())?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                client.process_new_packets().map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    #[test]
    fn a_given_authority_is_trusted_for_the_right_name_only() {
        let tls = trusting(&[CA]);
        assert_eq!(handshake(&tls, "localhost", SERVER), Ok(()));
        assert_eq!(handshake(&tls, "127.0.0.1", SERVER), Ok(()));
        let error = handshake(&tls, "jenkins.example.com", SERVER).unwrap_err();
        assert!(error.contains("not valid for name"), "{error}");
        let error = handshake(&tls, "localhost", SELF_SIGNED).unwrap_err();
        assert!(error.contains("invalid peer certificate"), "{error}");
    }

    #[test]
    fn a_given_self_signed_certificate_is_trusted() {
        let tls = trusting(&[SELF_SIGNED[0]]);
        assert_eq!(handshake(&tls, "localhost", SELF_SIGNED), Ok(()));
        assert!(handshake(&tls, "jenkins.example.com", SELF_SIGNED).is_err());
        assert!(handshake(&tls, "localhost", SERVER).is_err());
    }

    #[test]
    fn unknown_authorities_are_refused_unless_nothing_is_checked() {
        assert!(handshake(&trusting(&[]), "localhost", SERVER).is_err());
        let unchecked = TlsConfig::new(TrustOptions { no_certificate_check: true, ..TrustOptions::default() }).unwrap();
        assert!(unchecked.is_unchecked());
        assert_eq!(handshake(&unchecked, "other", SELF_SIGNED), Ok(()));
        assert_eq!(unchecked.roots().unwrap(), &Roots::Unchecked);
    }

    #[test]
    fn every_certificate_of_every_value_counts() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = dir.path().join("bundle.pem");
        // Beyond the 64 KiB at which Java's agent ignores the file, a key, and text between.
        let text = format!("{}\n# {}\n{}\n{CA}\n", SELF_SIGNED[0], "x".repeat(100_000), SELF_SIGNED[1]);
        std::fs::write(&bundle, text).unwrap();
        let der = dir.path().join("ca.der");
        let ca = CertificateDer::from_pem_slice(CA.as_bytes()).unwrap();
        std::fs::write(&der, &ca).unwrap();
        let path = bundle.to_str().unwrap();
        for values in [
            vec![path.to_owned()],
            vec![format!(" @{path} ")],
            vec![SELF_SIGNED[0].to_owned(), format!("@{}", der.display())],
        ] {
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let tls = trusting(&values);
            assert_eq!(handshake(&tls, "localhost", SERVER), Ok(()));
            assert_eq!(handshake(&tls, "localhost", SELF_SIGNED), Ok(()));
        }
    }

    #[test]
    fn useless_values_are_errors_that_name_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let garbage = "-----BEGIN CERTIFICATE-----\nMAMCAQA=\n-----END CERTIFICATE-----\n";
        let cases = [
            (file("empty.pem", ""), "no certificate in"),
            (file("key.pem", SERVER[1]), "no certificate in"),
            (file("bad.pem", &format!("{CA}{garbage}")), "certificate 2 in"),
            (file("cut.pem", &CA[..CA.len() - 40]), "certificate 1 in"),
            ("@/nonexistent.pem".to_owned(), "/nonexistent.pem"),
        ];
        for (value, expected) in cases {
            let options = TrustOptions { certs: vec![value], ..TrustOptions::default() };
            let error = TlsConfig::new(options).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.contains(".pem"), "{error}");
        }
    }

    #[test]
    fn ssl_cert_file_replaces_the_system_store_or_fails() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("roots.pem");
        let tls = |path: &PathBuf| {
            TlsConfig::new(TrustOptions { ssl_cert_file: Some(path.clone()), ..TrustOptions::default() }).unwrap()
        };
        let error = tls(&path).client_config().unwrap_err().to_string();
        assert!(error.contains("SSL_CERT_FILE="), "{error}");
        std::fs::write(&path, CA).unwrap();
        let tls = tls(&path);
        assert_eq!(tls.roots().unwrap(), &Roots::System(1));
        assert_eq!(handshake(&tls, "localhost", SERVER), Ok(()));
    }
}
