//! What is read of HTTP headers and of the JNLP4 handshake: no input panics.
#![no_main]

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use inbound_agent::callables::suid::class_uid;
use inbound_agent::discovery::{Endpoint, HostPort, compare_versions};
use inbound_agent::frame::handshake;
use inbound_agent::transport::http::ControllerUrl;
use inbound_agent::transport::identity::InstanceIdentity;
use inbound_agent::transport::proxy::{Proxies, Scheme};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Ok(Some((text, used))) = handshake::parse_item(data) {
        assert!(used <= data.len());
        let encoded = handshake::encode_item(text).expect("what was read can be written");
        assert_eq!(encoded, data[..used]);
    }
    let _ = handshake::parse_first_answer(data, data.first().is_some_and(|first| first & 1 == 1));
    let _ = class_uid(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = handshake::parse_headers(text);
    let _ = handshake::parse_verdict(text);
    let _ = ControllerUrl::parse(text);
    let _ = HostPort::parse(text);
    let _ = InstanceIdentity::from_base64(text);
    let (left, right) = text.split_once('\n').unwrap_or((text, ""));
    assert_eq!(compare_versions(left, right), compare_versions(right, left).reverse());
    let _ = Proxies::from_env([("http_proxy", left), ("no_proxy", right)]).decide(Scheme::Agent, left, 80);

    let mut headers = HeaderMap::new();
    for line in text.lines() {
        if let Some((name, value)) = line.split_once(':')
            && let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.append(name, value);
        }
    }
    let _ = Endpoint::from_headers(&headers, "localhost", None);
});
