//! Certificates of an authority that lives as long as the test.

use std::io;
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use crate::scenario::Certificate;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "The company's own CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    })
}

/// The authority's certificate.
pub fn ca() -> &'static str {
    &authority().pem
}

/// TLS of a server with such a certificate.
pub fn acceptor(kind: Certificate) -> io::Result<TlsAcceptor> {
    let name = if kind == Certificate::WrongName { "other.example" } else { "jenkins.example" };
    let years = if kind == Certificate::Expired { (2020, 2021) } else { (2020, 2120) };
    signed(&[name], years)
}

/// TLS of the API server.
pub fn api_server(address: &str, own: &[String]) -> io::Result<TlsAcceptor> {
    let own = own.iter().map(String::as_str);
    let names: Vec<&str> = ["kubernetes.default.svc", address].into_iter().chain(own).collect();
    signed(&names, (2020, 2120))
}

fn signed(names: &[&str], years: (i32, i32)) -> io::Result<TlsAcceptor> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names.clone()).map_err(io::Error::other)?;
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    let certificate = params.signed_by(&key, &authority().issuer).map_err(io::Error::other)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key))
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
