//! What a probe reads of a cluster and of those who arrive at its port: no input panics, and what is said of it is bounded.
#![no_main]

use std::collections::BTreeMap;

use inbound_agent::probe::compare::find_report;
use inbound_agent::probe::kubernetes::cidr::Cidr;
use inbound_agent::probe::kubernetes::{objects, yaml};
use inbound_agent::probe::listen::sniff::{Greeting, sniff};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let sniffed = sniff(data, true).expect("nothing is waited for when there is nothing more");
    match &sniffed.greeting {
        Greeting::Http { request, headers } => assert!(request.len() < 2000 && headers.len() <= 64),
        Greeting::Other { text } => assert!(text.len() < 2000),
        _ => {}
    }
    // What is complete stays what it is when more comes, but for what is only told apart by its end.
    if let Some(early) = sniff(data, false) {
        assert_eq!(early, sniffed);
    }
    let _ = objects::nodes(data);
    let _ = objects::pod(data);
    let _ = objects::endpoints(data);
    let _ = objects::calico_pools(data);
    let _ = objects::calico_node(data);
    if let Ok(policies) = objects::policies(data, None) {
        for policy in policies {
            let _ = policy.allows([192, 0, 2, 1].into(), 8080);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = text.parse::<Cidr>();
    let _ = find_report(text);
    for path in [&["networking", "podSubnet"][..], &["a"], &["a", "b", "c"], &[]] {
        if let Some(value) = yaml::scalar(text, path) {
            assert!(!value.is_empty() && !value.contains('\n') && text.contains(value));
        }
    }
    let conf = |key: &str| BTreeMap::from([(key.to_owned(), text.to_owned())]);
    let _ = objects::kubeadm(&conf("ClusterConfiguration"));
    let _ = objects::flannel(&conf("net-conf.json"), "");
    let _ = objects::cilium(&conf("ipam"), "");
    let _ = objects::calico_by_node(&conf("cni_network_config"));
});
