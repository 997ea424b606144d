//! Clusters as data: objects as an API server gives them, what is read of them, and what that means.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::cidr::Cidr;
use super::facts::*;
use super::{evaluate, judge, objects};
use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence, Outcome, Verdict};
use crate::probe::facts::{AgentPort, Connect, Facts, Failure, FailureKind, Interface, Route, Site};

fn cidr(text: &str) -> Cidr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn bytes(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn data(name: &str, data: &Value) -> objects::Data {
    let object = json!({"kind": "ConfigMap", "apiVersion": "v1", "data": data, "metadata": {
        "name": name, "namespace": "kube-system", "uid": "d9a3c2f4-0c0e-4d0f-9b43-3d5c8a8ab0a1", "resourceVersion": "217",
        "creationTimestamp": "2026-11-20T09:12:01Z"}});
    objects::config_map(&bytes(&object)).unwrap()
}

/// `kubeadm init --pod-network-cidr PODS --service-cidr SERVICES`.
fn kubeadm(pods: &str, services: &str) -> Asked<Kubeadm> {
    let configuration = format!(
        "apiServer: {{}}\napiVersion: kubeadm.k8s.io/v1beta4\ncaCertificateValidityPeriod: 87600h0m0s\n\
         certificatesDir: /etc/kubernetes/pki\nclusterName: kubernetes\ncontrollerManager: {{}}\ndns: {{}}\netcd:\n  local:\n    \
         dataDir: /var/lib/etcd\nimageRepository: registry.k8s.io\nkind: ClusterConfiguration\nkubernetesVersion: v1.32.4\n\
         networking:\n  dnsDomain: cluster.local\n  podSubnet: {pods}\n  serviceSubnet: {services}\nproxy: {{}}\nscheduler: {{}}\n"
    );
    Asked::Is(objects::kubeadm(&data("kubeadm-config", &json!({"ClusterConfiguration": configuration}))).unwrap())
}

fn flannel(network: &str) -> PodNetwork {
    let conf = format!(
        "{{\n  \"Network\": \"{network}\",\n  \"EnableNFTables\": false,\n  \"Backend\": {{\n    \"Type\": \"vxlan\"\n  }}\n}}\n"
    );
    let cni = "{\n  \"name\": \"cbr0\",\n  \"cniVersion\": \"0.3.1\",\n  \"plugins\": [{\"type\": \"flannel\"}]\n}\n";
    let data = data("kube-flannel-cfg", &json!({"net-conf.json": conf, "cni-conf.json": cni}));
    objects::flannel(&data, "ConfigMap kube-flannel/kube-flannel-cfg").unwrap()
}

fn calico(pools: &[&str], template: &str) -> PodNetwork {
    let items: Vec<Value> = pools
        .iter()
        .map(|pool| {
            json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool", "metadata": {"name": "default-ipv4-ippool"},
                "spec": {"allowedUses": ["Workload", "Tunnel"], "blockSize": 26, "cidr": pool, "ipipMode": "Always",
                    "natOutgoing": true, "nodeSelector": "all()", "vxlanMode": "Never"}})
        })
        .collect();
    let list = json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "IPPoolList", "items": items, "metadata": {"continue": ""}});
    PodNetwork {
        cni: Cni::Calico,
        source: "IPPool".into(),
        ranges: objects::calico_pools(&bytes(&list)).unwrap(),
        by_node: objects::calico_by_node(&data("calico-config", &json!({"cni_network_config": template}))),
    }
}

fn cilium(values: Value) -> PodNetwork {
    objects::cilium(&data("cilium-config", &values), "ConfigMap kube-system/cilium-config").unwrap()
}

/// Nodes `node-0`, `node-1` ... at 192.0.2.10, .11 ...
fn nodes(pod_cidrs: &[&str]) -> Asked<Vec<Node>> {
    let items: Vec<Value> = pod_cidrs
        .iter()
        .enumerate()
        .map(|(i, cidr)| {
            let mut spec =
                json!({"taints": [{"effect": "NoSchedule", "key": "node-role.kubernetes.io/control-plane"}]});
            if !cidr.is_empty() {
                spec["podCIDR"] = json!(cidr);
                spec["podCIDRs"] = json!([cidr]);
            }
            json!({"metadata": {"name": format!("node-{i}"), "labels": {"kubernetes.io/os": "linux"}}, "spec": spec,
                "status": {"addresses": [{"type": "InternalIP", "address": format!("192.0.2.{}", 10 + i)},
                    {"type": "Hostname", "address": format!("node-{i}")}], "images": [{"names": ["x"], "sizeBytes": 1}],
                    "nodeInfo": {"kubeletVersion": "v1.32.4"}}})
        })
        .collect();
    let list = json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {"resourceVersion": "8123"}, "items": items});
    let (nodes, next) = objects::nodes(&bytes(&list)).unwrap();
    assert_eq!(next, None);
    Asked::Is(nodes)
}

fn pod(address: &str) -> Pod {
    let object = json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": "agent-7qkzv", "namespace": "ci", "labels": {"jenkins": "agent"}},
        "spec": {"nodeName": "node-1", "containers": [{"name": "jnlp", "image": "x"}]},
        "status": {"phase": "Running", "hostIP": "192.0.2.11", "hostIPs": [{"ip": "192.0.2.11"}],
            "podIP": address, "podIPs": [{"ip": address}]}});
    Pod { namespace: Some("ci".into()), ..objects::pod(&bytes(&object)).unwrap() }
}

fn failure(kind: FailureKind) -> Failure {
    Failure { kind, message: "it said no".into() }
}

fn peer(role: Role, address: &str, kind: Option<FailureKind>) -> Peer {
    let address = address.parse().unwrap();
    Peer { role, address, same_node: false, failure: kind.map(failure), said: String::new(), ms: 1 }
}

/// The API server and DNS.
fn peers(kind: Option<FailureKind>) -> Vec<Peer> {
    vec![peer(Role::ApiServer, "10.96.0.1:443", kind), peer(Role::ClusterDns, "10.96.0.10:53", kind)]
}

/// A healthy cluster with flannel.
fn cluster() -> KubernetesFacts {
    KubernetesFacts {
        pod: pod("10.244.1.7"),
        peers: peers(None),
        nodes: nodes(&["10.244.0.0/24", "10.244.1.0/24"]),
        kubeadm: kubeadm("10.244.0.0/16", "10.96.0.0/12"),
        networks: vec![flannel("10.244.0.0/16")],
        policies: Asked::Is(Vec::new()),
        ..KubernetesFacts::default()
    }
}

fn facts_at(cluster: KubernetesFacts, host: &str, controller: &str) -> Facts {
    let connect = Connect {
        address: controller.parse::<SocketAddr>().unwrap(),
        source: None,
        failure: Some(failure(FailureKind::TimedOut)),
        ms: 5000,
        path_mtu: None,
        next_hop: None,
    };
    let site = Site { host: host.into(), port: 8080, connects: vec![connect], ..Site::default() };
    Facts { kubernetes: Some(cluster), sites: vec![site], ..Facts::default() }
}

fn facts(cluster: KubernetesFacts) -> Facts {
    facts_at(cluster, "jenkins.example.org", "198.51.100.7:8080")
}

/// The verdict, its confidence and all that is accused, where the probe has come to `symptom`.
fn judged(facts: &Facts, symptom: CauseId) -> (String, Confidence, Vec<CauseId>) {
    let mut checks = vec![Check::no("tcp.connect", Category::Tcp, "198.51.100.7:8080", symptom, "timed out")];
    checks.extend(evaluate(facts));
    let verdict = Verdict::of(symptom, Confidence::Likely, "Packets are lost.", "Look.");
    let verdict = judge(facts, &mut checks, verdict);
    let mut accused: Vec<CauseId> = checks.iter().filter_map(Check::accuses).collect();
    accused.sort();
    accused.dedup();
    assert!(verdict.sentence.ends_with('.') && !verdict.sentence.contains(".."), "{}", verdict.sentence);
    assert!(!verdict.next_step.is_empty());
    (verdict.id.into_owned(), verdict.confidence, accused)
}

#[track_caller]
fn assert_judged(facts: &Facts, symptom: CauseId, expected: CauseId, confidence: Confidence) {
    assert_eq!(
        judged(facts, symptom),
        (expected.id().to_owned(), confidence, vec![expected]),
        "{:#?}",
        evaluate(facts)
    );
}

/// What isn't fine, by id and outcome.
fn complaints(facts: &Facts) -> Vec<(String, Outcome)> {
    let checks = evaluate(facts);
    assert!(
        checks.iter().all(|check| check.category == Category::Kubernetes && check.accuses().is_none()),
        "{checks:#?}"
    );
    checks
        .iter()
        .filter(|check| check.outcome != Outcome::Yes)
        .map(|check| (check.id.to_string(), check.outcome))
        .collect()
}

#[test]
fn a_healthy_cluster() {
    let facts = facts(cluster());
    assert_eq!(complaints(&facts), []);
    let ids: Vec<_> = evaluate(&facts).into_iter().map(|check| check.id.into_owned()).collect();
    for id in ["api-server", "cluster-dns", "network-policy", "node-range", "cni-range", "pod-range", "overlap"] {
        assert_eq!(ids.iter().filter(|other| **other == format!("kubernetes.{id}")).count(), 1, "{id}: {ids:?}");
    }
    // Then it is the controller.
    assert_judged(&facts, CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Likely);
    assert_judged(&facts, CauseId::HostUnreachable, CauseId::ControllerDead, Confidence::Likely);
    // What the cluster can't explain better stays.
    for symptom in [
        CauseId::TcpRefused,
        CauseId::NetworkUnreachable,
        CauseId::DnsServerDead,
        CauseId::TlsExpired,
        CauseId::AgentPortBlocked,
    ] {
        assert_judged(&facts, symptom, symptom, Confidence::Likely);
    }
}

#[test]
fn outside_of_a_cluster_nothing_is_said() {
    let facts = Facts { kubernetes: None, ..facts(cluster()) };
    assert!(evaluate(&facts).is_empty());
    assert_judged(&facts, CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Likely);
}

/// The cluster was set up with one range, flannel's manifest was applied with another.
#[test]
fn flannel_with_its_default_in_a_cluster_with_another_range() {
    let mismatch = KubernetesFacts {
        pod: pod("172.20.1.7"),
        nodes: nodes(&["172.20.0.0/24", "172.20.1.0/24"]),
        kubeadm: kubeadm("172.20.0.0/16", "10.96.0.0/12"),
        ..cluster()
    };
    let facts = facts(mismatch);
    assert_eq!(complaints(&facts), [("kubernetes.cni-range".to_owned(), Outcome::No)]);
    assert_judged(&facts, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Likely);
    let seen = evaluate(&facts).into_iter().find(|check| check.id == "kubernetes.cni-range").unwrap();
    assert_eq!(seen.target, "ConfigMap kube-flannel/kube-flannel-cfg");
    assert!(seen.seen.contains("10.244.0.0/16") && seen.seen.contains("172.20.0.0/24"), "{}", seen.seen);
    // A controller that refuses is reached, and a fault above TCP is none of the network's.
    assert_judged(&facts, CauseId::TcpRefused, CauseId::TcpRefused, Confidence::Likely);
    assert_judged(&facts, CauseId::SecretWrong, CauseId::SecretWrong, Confidence::Likely);

    // With kubeadm's configuration alone, and with the nodes' ranges alone.
    for cluster in [
        KubernetesFacts { nodes: Asked::Forbidden, ..facts.kubernetes.clone().unwrap() },
        KubernetesFacts { kubeadm: Asked::Absent, ..facts.kubernetes.clone().unwrap() },
    ] {
        let facts = self::facts(cluster);
        assert_judged(&facts, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Likely);
    }
    // Nothing else answers either: then there is no doubt.
    let mut dead = facts.kubernetes.clone().unwrap();
    dead.peers = peers(Some(FailureKind::TimedOut));
    assert_judged(&self::facts(dead), CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Certain);
}

#[test]
fn flannel_of_both_families() {
    let conf = r#"{"EnableIPv4": true, "EnableIPv6": true, "Network": "10.244.0.0/16", "IPv6Network": "fd00:10:244::/56", "Backend": {"Type": "vxlan"}}"#;
    let network = objects::flannel(&data("kube-flannel-cfg", &json!({"net-conf.json": conf})), "x").unwrap();
    assert_eq!(network.ranges, [cidr("10.244.0.0/16"), cidr("fd00:10:244::/56")]);
    let dual = |nodes_v6: &str| KubernetesFacts {
        networks: vec![network.clone()],
        kubeadm: kubeadm("10.244.0.0/16,fd00:10:244::/56", "10.96.0.0/12,fd00:10:96::/112"),
        nodes: Asked::Is(vec![Node {
            name: "node-1".into(),
            pod_cidrs: vec![cidr("10.244.1.0/24"), cidr(nodes_v6)],
            addresses: vec![ip("192.0.2.11")],
        }]),
        ..cluster()
    };
    assert_eq!(complaints(&facts(dual("fd00:10:244:1::/64"))), []);
    let ids: Vec<_> = complaints(&facts(dual("fd00:11:244:1::/64"))).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["kubernetes.node-range", "kubernetes.cni-range"]);
    // What isn't enabled does not count; what can't be read is not guessed.
    let conf = r#"{"EnableIPv4": false, "EnableIPv6": true, "Network": "10.244.0.0/16", "IPv6Network": "fd76:cac2:6150::/56"}"#;
    let network = objects::flannel(&data("x", &json!({"net-conf.json": conf})), "x").unwrap();
    assert_eq!(network.ranges, [cidr("fd76:cac2:6150::/56")]);
    for bad in [json!({}), json!({"net-conf.json": "{"}), json!({"net-conf.json": "{\"Network\": \"$POD_CIDR\"}"})] {
        assert_eq!(objects::flannel(&data("x", &bad), "x"), None, "{bad}");
    }
}

const CALICO_IPAM: &str = r#"{"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [{"type": "calico", "mtu": __CNI_MTU__, "ipam": {"type": "calico-ipam"}}]}"#;
const HOST_LOCAL: &str =
    r#"{"plugins": [{"type": "calico", "mtu": __CNI_MTU__, "ipam": {"type": "host-local", "subnet": "usePodCidr"}}]}"#;

#[test]
fn calico_hands_out_addresses_itself() {
    // Its blocks are not the nodes' ranges, and need not be.
    let with = |address: &str, pools: &[&str], ipam: &str| {
        facts(KubernetesFacts { pod: pod(address), networks: vec![calico(pools, ipam)], ..cluster() })
    };
    assert_eq!(complaints(&with("10.244.77.130", &["10.244.0.0/16"], CALICO_IPAM)), []);
    // With the nodes' ranges they must be.
    assert_eq!(complaints(&with("10.244.1.130", &["10.244.0.0/16"], HOST_LOCAL)), []);
    let outside = with("10.244.77.130", &["10.244.0.0/16"], HOST_LOCAL);
    assert_eq!(complaints(&outside), [("kubernetes.pod-range".to_owned(), Outcome::No)]);
    assert_judged(&outside, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Certain);
    // Its default in a cluster of another range.
    let default = with("192.168.77.130", &["192.168.0.0/16"], CALICO_IPAM);
    assert_eq!(complaints(&default), [("kubernetes.cni-range".to_owned(), Outcome::No)]);
    assert_judged(&default, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Likely);
    // An address that no pool has.
    let leftover = with("10.88.0.5", &["10.244.0.0/16"], CALICO_IPAM);
    assert_eq!(complaints(&leftover), [("kubernetes.pod-range".to_owned(), Outcome::No)]);
}

#[test]
fn calico_pools_that_count() {
    let list = json!({"items": [
        {"spec": {"cidr": "10.1.0.0/16"}},
        {"spec": {"cidr": "10.2.0.0/16", "disabled": true}},
        {"spec": {"cidr": "10.3.0.0/16", "allowedUses": ["Tunnel"]}},
        {"spec": {"cidr": "fd00:4::/64", "allowedUses": ["Workload"]}},
        {"spec": {"cidr": "nonsense"}}]});
    assert_eq!(objects::calico_pools(&bytes(&list)).unwrap(), [cidr("10.1.0.0/16"), cidr("fd00:4::/64")]);
    let set = json!({"spec": {"template": {"spec": {"initContainers": [{"name": "install-cni"}], "containers": [{"name": "calico-node", "env": [
        {"name": "NODENAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "CALICO_IPV4POOL_CIDR", "value": "192.168.0.0/16"},
        {"name": "CALICO_IPV4POOL_IPIP", "value": "Always"}]}]}}}});
    assert_eq!(objects::calico_node(&bytes(&set)).unwrap(), [cidr("192.168.0.0/16")]);
}

#[test]
fn cilium_by_its_kinds_of_ipam() {
    let pool = cilium(
        json!({"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.0.0.0/8", "cluster-pool-ipv4-mask-size": "24", "enable-ipv4": "true", "enable-ipv6": "false"}),
    );
    assert_eq!((pool.ranges.clone(), pool.by_node), (vec![cidr("10.0.0.0/8")], false));
    let list = cilium(json!({"ipam": "cluster-pool", "cluster-pool-ipv4-cidr": "10.1.0.0/16 10.2.0.0/16"}));
    assert_eq!(list.ranges, [cidr("10.1.0.0/16"), cidr("10.2.0.0/16")]);
    let kubernetes = cilium(json!({"ipam": "kubernetes", "cluster-pool-ipv4-cidr": "10.0.0.0/8"}));
    assert_eq!((kubernetes.ranges.len(), kubernetes.by_node), (0, true));
    let eni = cilium(json!({"ipam": "eni"}));
    assert_eq!((eni.ranges.len(), eni.by_node), (0, false));
    assert_eq!(objects::cilium(&data("x", &json!({"debug": "false"})), "x"), None);

    let with = |address: &str, network: &PodNetwork| {
        facts(KubernetesFacts { pod: pod(address), networks: vec![network.clone()], ..cluster() })
    };
    assert_eq!(complaints(&with("10.244.1.9", &kubernetes)), []);
    assert_eq!(complaints(&with("10.244.9.9", &kubernetes)), [("kubernetes.pod-range".to_owned(), Outcome::No)]);
    // Its default covers the services.
    let default = with("10.0.1.9", &pool);
    assert_eq!(complaints(&default), [("kubernetes.overlap".to_owned(), Outcome::No)]);
    // Of addresses that come from a cloud's network nothing is known.
    assert_eq!(complaints(&with("192.0.2.77", &eni)), [("kubernetes.pod-range".to_owned(), Outcome::Unknown)]);
}

#[test]
fn a_network_that_is_not_known() {
    let unknown = |address: &str, nodes: Asked<Vec<Node>>| {
        facts(KubernetesFacts { pod: pod(address), networks: Vec::new(), nodes, ..cluster() })
    };
    assert_eq!(complaints(&unknown("10.244.1.9", nodes(&["10.244.0.0/24", "10.244.1.0/24"]))), []);
    let strange = unknown("10.32.0.9", nodes(&["10.244.0.0/24", "10.244.1.0/24"]));
    assert_eq!(complaints(&strange), [("kubernetes.pod-range".to_owned(), Outcome::No)]);
    assert_judged(&strange, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Likely);
    // A network with ranges of its own that does its work: somebody far away answers that very address.
    let mut works = strange.clone();
    works.kubernetes.as_mut().unwrap().peers.push(peer(Role::OtherPod, "10.32.4.2:53", None));
    assert_judged(&works, CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Likely);
    works.kubernetes.as_mut().unwrap().peers[2].same_node = true;
    assert_judged(&works, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Likely);
    // A cloud's own: neither kubeadm nor ranges.
    let mut cloud = unknown("10.32.0.9", nodes(&["", ""]));
    cloud.kubernetes.as_mut().unwrap().kubeadm = Asked::Absent;
    assert_eq!(complaints(&cloud), []);
}

#[test]
fn nodes_outside_of_what_kubeadm_was_given() {
    let facts = facts(KubernetesFacts {
        nodes: nodes(&["10.244.0.0/24", "10.245.1.0/24"]),
        pod: pod("10.245.1.4"),
        networks: Vec::new(),
        ..cluster()
    });
    assert_eq!(complaints(&facts), [("kubernetes.node-range".to_owned(), Outcome::No)]);
    assert_judged(&facts, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Likely);
}

#[test]
fn ranges_that_overlap() {
    // Pods and services.
    let pods_services =
        facts(KubernetesFacts { kubeadm: kubeadm("10.244.0.0/16", "10.244.64.0/20"), peers: Vec::new(), ..cluster() });
    assert_eq!(complaints(&pods_services), [("kubernetes.overlap".to_owned(), Outcome::No)]);
    assert_judged(&pods_services, CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Likely);
    // A controller whose address is in both is what suffers by it.
    let hit = facts_at(pods_services.kubernetes.clone().unwrap(), "jenkins.ci.svc", "10.244.64.9:8080");
    assert_judged(&hit, CauseId::TcpTimeout, CauseId::CidrOverlap, Confidence::Likely);

    // Calico's default, and hosts in 192.168.
    let mut hosts = cluster();
    hosts.kubeadm = kubeadm("192.168.0.0/16", "10.96.0.0/12");
    hosts.networks = vec![calico(&["192.168.0.0/16"], CALICO_IPAM)];
    hosts.pod = pod("192.168.44.3");
    hosts.nodes =
        Asked::Is(vec![Node { name: "node-1".into(), pod_cidrs: vec![], addresses: vec![ip("192.168.1.11")] }]);
    let facts_hosts = facts(hosts.clone());
    assert_eq!(complaints(&facts_hosts), [("kubernetes.overlap".to_owned(), Outcome::No)]);
    let neighbour = facts_at(hosts.clone(), "jenkins.example.org", "192.168.1.20:8080");
    assert_judged(&neighbour, CauseId::TcpTimeout, CauseId::CidrOverlap, Confidence::Likely);
    // A dead network and ranges that overlap.
    hosts.peers = peers(Some(FailureKind::TimedOut));
    assert_judged(&facts(hosts), CauseId::TcpTimeout, CauseId::CidrOverlap, Confidence::Likely);

    // A controller outside of the cluster, at an address that belongs to services here.
    let outside = facts_at(cluster(), "jenkins.example.org", "10.96.7.7:8080");
    assert_eq!(complaints(&outside), [("kubernetes.overlap".to_owned(), Outcome::No)]);
    assert_judged(&outside, CauseId::TcpTimeout, CauseId::CidrOverlap, Confidence::Likely);
    for inside in ["jenkins", "jenkins.ci", "jenkins.ci.svc.cluster.local", "jenkins.ci.svc", "10.96.7.7"] {
        assert_eq!(complaints(&facts_at(cluster(), inside, "10.96.7.7:8080")), [], "{inside}");
    }
}

#[test]
fn links_that_overlap_are_seen_without_any_rights() {
    let route = |network: &str, prefix, interface: &str| Route {
        network: ip(network),
        prefix,
        gateway: None,
        interface: interface.into(),
        metric: 0,
        reject: false,
    };
    let mut host = facts(KubernetesFacts {
        peers: peers(None),
        unasked: Some("no service account".into()),
        ..KubernetesFacts::default()
    });
    host.environment.routes =
        vec![route("10.96.0.0", 16, "eth0"), route("10.244.1.0", 24, "cni0"), route("169.254.0.0", 16, "eth0")];
    let ids: Vec<_> = complaints(&host).into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, ["kubernetes.configuration", "kubernetes.overlap", "kubernetes.overlap"]);
    host.environment.routes =
        vec![route("10.244.1.0", 24, "eth0"), route("10.96.0.1", 32, "cali1"), route("10.96.0.0", 12, "kube-ipvs0")];
    assert_eq!(complaints(&host), [("kubernetes.configuration".to_owned(), Outcome::Unknown)]);
}

#[test]
fn a_dead_pod_network() {
    let dead = |kind, node| {
        let mut cluster = KubernetesFacts {
            peers: peers(Some(kind)),
            unasked: Some("the API server can't be reached".into()),
            ..KubernetesFacts::default()
        };
        cluster.peers.push(peer(Role::Node, "192.0.2.11:10250", node));
        facts(cluster)
    };
    for kind in [FailureKind::TimedOut, FailureKind::HostUnreachable, FailureKind::NetworkUnreachable] {
        for symptom in [CauseId::TcpTimeout, CauseId::DnsServerDead, CauseId::NetworkUnreachable] {
            // Its own node, by the bridge, says nothing about the rest.
            for node in [None, Some(FailureKind::TimedOut)] {
                let mut dead = dead(kind, node);
                // A policy that forbids everything can't be told from it, unless somebody else knows the policies.
                assert_judged(&dead, symptom, CauseId::PodNetworkDead, Confidence::Likely);
                dead.kubernetes.as_mut().unwrap().policies = Asked::Is(Vec::new());
                assert_judged(&dead, symptom, CauseId::PodNetworkDead, Confidence::Certain);
                dead.kubernetes.as_mut().unwrap().peers.remove(0);
                assert_judged(&dead, symptom, CauseId::PodNetworkDead, Confidence::Likely);
            }
        }
    }
    // A node refuses in the name of services that have no endpoints: nothing is known.
    assert_judged(&dead(FailureKind::Refused, None), CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Likely);
    // One of them answers.
    let mut one = dead(FailureKind::TimedOut, None);
    one.kubernetes.as_mut().unwrap().peers[0].failure = None;
    assert_judged(&one, CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Possible);
    assert_judged(&one, CauseId::DnsServerDead, CauseId::DnsServerDead, Confidence::Likely);
    // A cache of names on the node is no more than the node.
    let mut cache = dead(FailureKind::TimedOut, None);
    cache.kubernetes.as_mut().unwrap().peers[1] = peer(Role::ClusterDns, "169.254.20.10:53", None);
    assert_judged(&cache, CauseId::TcpTimeout, CauseId::PodNetworkDead, Confidence::Likely);
    // On the node's own network it is not the pods' that is dead.
    let mut host = dead(FailureKind::TimedOut, None);
    host.kubernetes.as_mut().unwrap().pod.host_network = Some(true);
    assert_judged(&host, CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Likely);
}

/// As in a cluster of Kubernetes 1.32 that was given 10.244.0.0/16 and whose bridge plugin hands out 10.88.0.0/24:
/// what goes to a service is masqueraded, as it comes from no address of the cluster, and so it is answered.
fn services_by_nat() -> KubernetesFacts {
    let mut pod = pod("10.88.0.3");
    (pod.node, pod.node_addresses) = (Some("n1".into()), vec![ip("10.77.0.11")]);
    let node = |name: &str, pod_cidrs: Vec<Cidr>, address: &str| Node {
        name: name.into(),
        pod_cidrs,
        addresses: vec![ip(address)],
    };
    KubernetesFacts {
        pod,
        peers: vec![
            peer(Role::ApiServer, "10.96.0.1:443", None),
            peer(Role::ClusterDns, "10.96.0.10:53", None),
            peer(Role::Node, "10.77.0.11:10250", None),
            peer(Role::OtherPod, "10.77.0.10:53", Some(FailureKind::TimedOut)),
        ],
        nodes: Asked::Is(vec![
            node("control", vec![], "10.77.0.10"),
            node("n1", vec![cidr("10.244.0.0/24")], "10.77.0.11"),
        ]),
        kubeadm: kubeadm("10.244.0.0/16", "10.96.0.0/12"),
        networks: Vec::new(),
        policies: Asked::Is(Vec::new()),
        ..KubernetesFacts::default()
    }
}

fn verdict_of(facts: &Facts) -> Verdict {
    let mut checks = vec![Check::no("tcp.connect", Category::Tcp, "", CauseId::TcpTimeout, "timed out")];
    checks.extend(evaluate(facts));
    judge(facts, &mut checks, Verdict::of(CauseId::TcpTimeout, Confidence::Likely, "Packets are lost.", "Look."))
}

#[test]
fn services_that_answer_by_nat_prove_nothing_of_the_pod_network() {
    let at = |cluster: KubernetesFacts| facts_at(cluster, "jenkins.example", "10.77.1.10:18500");
    // The ranges tell, with and without the configuration of the network.
    let full = at(services_by_nat());
    assert_judged(&full, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Likely);
    let sentence = verdict_of(&full).sentence;
    for words in ["10.88.0.3", "podSubnet 10.244.0.0/16", "10.244.0.0/24"] {
        assert!(sentence.contains(words), "{sentence}");
    }
    let flannel = KubernetesFacts { networks: vec![flannel("10.88.0.0/16")], ..services_by_nat() };
    assert_judged(&at(flannel), CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Certain);
    for half in [
        KubernetesFacts { kubeadm: Asked::Forbidden, ..services_by_nat() },
        KubernetesFacts { nodes: Asked::Forbidden, ..services_by_nat() },
    ] {
        let half = at(half);
        assert_judged(&half, CauseId::TcpTimeout, CauseId::PodCidrMismatch, Confidence::Likely);
    }

    // Only that another pod does not answer at its own address.
    let unread = KubernetesFacts { kubeadm: Asked::Forbidden, nodes: Asked::Forbidden, ..services_by_nat() };
    let direct = at(unread.clone());
    assert_judged(&direct, CauseId::TcpTimeout, CauseId::PodNetworkDead, Confidence::Likely);
    let sentence = verdict_of(&direct).sentence;
    assert!(sentence.contains("10.77.0.10:53") && sentence.contains("the cluster's DNS answer, but"), "{sentence}");
    // Nor does the own node, which may have its reasons.
    let mut node = unread.clone();
    node.peers.pop();
    node.peers[2].failure = Some(failure(FailureKind::TimedOut));
    assert_judged(&at(node.clone()), CauseId::TcpTimeout, CauseId::PodNetworkDead, Confidence::Possible);
    node.kubeadm = kubeadm("10.88.0.0/16", "10.96.0.0/12");
    assert_judged(&at(node), CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Likely);

    // Without any rights there is the control plane's own address, of the API server's certificate.
    let mut certificate = unread.clone();
    certificate.peers[3] = peer(Role::ControlPlane, "10.77.0.10:6443", Some(FailureKind::TimedOut));
    assert_judged(&at(certificate.clone()), CauseId::TcpTimeout, CauseId::PodNetworkDead, Confidence::Possible);
    certificate.peers[3].failure = Some(failure(FailureKind::Refused));
    assert_judged(&at(certificate.clone()), CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Likely);
    // It may be this very node.
    certificate.peers[3].same_node = true;
    assert_judged(&at(certificate), CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Possible);

    // Else nothing tells, and nothing is claimed.
    let mut blind = unread.clone();
    blind.peers.truncate(3);
    (blind.policies, blind.unasked) = (Asked::Not, Some("no service account".into()));
    let told = verdict_of(&at(blind.clone()));
    assert_eq!((&*told.id, told.confidence), ("tcp-timeout", Confidence::Possible));
    assert!(!told.sentence.contains("network works") && told.sentence.contains("network is dead"), "{told:?}");
    assert!(told.next_step.starts_with("Run agent probe-pod"), "{told:?}");
    // A router far away that says "host unreachable" has a way back.
    assert_judged(&at(blind.clone()), CauseId::HostUnreachable, CauseId::HostUnreachable, Confidence::Likely);
    // A controller that is a service itself is masqueraded just so.
    let inside = facts_at(blind.clone(), "jenkins.ci.svc.cluster.local", "10.96.7.7:8080");
    assert_judged(&inside, CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Likely);
    assert!(!verdict_of(&inside).sentence.contains("network works"));
    // Somebody answers directly: unless that is the neighbour.
    blind.peers.push(peer(Role::OtherPod, "10.77.0.10:53", None));
    assert_judged(&at(blind.clone()), CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Likely);
    blind.peers[3].same_node = true;
    assert_judged(&at(blind), CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Possible);
}

#[test]
fn a_service_without_the_agent_port() {
    let service = |ports: &[u16]| Service {
        name: "jenkins".into(),
        namespace: "jenkins".into(),
        ready: Some(1),
        not_ready: Some(0),
        ports: ports.to_vec(),
    };
    let with = |ports: &[u16]| {
        let cluster = KubernetesFacts { service: Some(service(ports)), ..cluster() };
        let mut facts = facts_at(cluster, "jenkins.jenkins.svc", "10.96.7.7:8080");
        let host = "jenkins.jenkins.svc".to_owned();
        facts.agent_port = Some(AgentPort { host, port: 18501, ..AgentPort::default() });
        facts
    };
    let blocked = (CauseId::AgentPortBlocked, CauseId::AgentPortBlocked);
    assert_judged(&with(&[8080, 50000]), blocked.0, blocked.1, Confidence::Certain);
    for fine in [&[][..], &[8080, 18501]] {
        assert_judged(&with(fine), blocked.0, blocked.1, Confidence::Likely);
    }
}

#[test]
fn whether_a_pod_is_on_the_host_network_shows_in_its_addresses() {
    let interface = |address: &str| Interface { addresses: vec![ip(address), ip("fe80::1")], ..Interface::default() };
    let mut host = facts(KubernetesFacts {
        pod: Pod { node_addresses: vec![ip("192.0.2.11")], ..Pod::default() },
        peers: peers(Some(FailureKind::TimedOut)),
        ..KubernetesFacts::default()
    });
    host.environment.interfaces = vec![interface("192.0.2.11"), interface("10.244.1.1")];
    assert_judged(&host, CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Likely);
    host.environment.interfaces = vec![interface("10.244.1.7")];
    assert_judged(&host, CauseId::TcpTimeout, CauseId::PodNetworkDead, Confidence::Likely);
}

fn slices(ready: &[bool]) -> objects::Endpoints {
    let endpoints: Vec<Value> =
        ready.iter().enumerate().map(|(i, ready)| json!({"addresses": [format!("10.244.0.{i}")], "nodeName": "node-0", "conditions": {"ready": ready, "serving": ready}})).collect();
    let list = json!({"kind": "EndpointSliceList", "metadata": {}, "items": [
        {"addressType": "IPv4", "endpoints": endpoints, "ports": [
            {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 5353, "protocol": "TCP"}]},
        {"addressType": "IPv4", "endpoints": null, "ports": null}]});
    objects::endpoints(&bytes(&list)).unwrap()
}

#[test]
fn a_service_without_a_ready_pod() {
    assert_eq!(
        slices(&[true, false]),
        objects::Endpoints {
            ready: vec![objects::Ready {
                address: ip("10.244.0.0"),
                port: Some(5353),
                node: Some("node-0".to_owned())
            }],
            not_ready: 1
        }
    );
    let with = |ready: &[bool]| {
        let found = slices(ready);
        let service = Service {
            name: "jenkins".into(),
            namespace: "ci".into(),
            ready: Some(found.ready.len()),
            not_ready: Some(found.not_ready),
            ports: vec![8080],
        };
        facts_at(KubernetesFacts { service: Some(service), ..cluster() }, "jenkins", "10.96.7.7:8080")
    };
    for dead in [&[][..], &[false]] {
        assert_eq!(complaints(&with(dead)), [("kubernetes.service".to_owned(), Outcome::No)]);
        // A node refuses, or drops, what is for such a service.
        assert_judged(&with(dead), CauseId::TcpRefused, CauseId::ControllerDead, Confidence::Certain);
        assert_judged(&with(dead), CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Certain);
        assert_judged(&with(dead), CauseId::AgentPortBlocked, CauseId::AgentPortBlocked, Confidence::Likely);
    }
    assert_eq!(complaints(&with(&[true])), []);
    assert_judged(&with(&[true]), CauseId::TcpRefused, CauseId::TcpRefused, Confidence::Likely);
}

fn policies(specs: &[Value]) -> Asked<Vec<Policy>> {
    let items: Vec<Value> =
        specs.iter().map(|spec| json!({"metadata": {"name": "egress", "namespace": "ci"}, "spec": spec})).collect();
    let labels = BTreeMap::from([("jenkins".to_owned(), "agent".to_owned())]);
    Asked::Is(
        objects::policies(&bytes(&json!({"kind": "NetworkPolicyList", "metadata": {}, "items": items})), Some(&labels))
            .unwrap(),
    )
}

#[test]
fn network_policies() {
    let with = |specs: &[Value]| facts(KubernetesFacts { policies: policies(specs), ..cluster() });
    let egress = |rules: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": rules});
    let block = |cidr: &str, except: &[&str]| json!([{"to": [{"ipBlock": {"cidr": cidr, "except": except}}], "ports": [{"protocol": "TCP", "port": 8080}]}]);
    // What forbids, allows, and leaves it open whether 198.51.100.7:8080 may be reached.
    let none = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    let elsewhere = egress(block("192.0.2.0/24", &[]));
    let except = egress(block("198.51.100.0/24", &["198.51.100.0/28"]));
    let port = egress(
        json!([{"ports": [{"port": 443}, {"protocol": "UDP", "port": 8080}, {"port": 50000, "endPort": 50010}]}]),
    );
    let there = egress(block("198.51.100.0/24", &["198.51.100.64/28"]));
    let all = egress(json!([{}]));
    let any_port = egress(json!([{"to": [], "ports": [{"protocol": "TCP"}]}]));
    let range = egress(json!([{"ports": [{"port": 8000, "endPort": 8090}]}]));
    let pods = egress(json!([{"to": [{"namespaceSelector": {}}]}]));
    let named = egress(json!([{"ports": [{"port": "http"}]}]));
    let of_others = json!({"podSelector": {"matchLabels": {"app": "x"}}, "policyTypes": ["Egress"]});
    let ingress = json!({"podSelector": {}, "policyTypes": ["Ingress"], "ingress": []});
    let untold = json!({"podSelector": {"matchLabels": {"jenkins": "agent"}}, "egress": []});
    for forbids in [
        vec![none.clone()],
        vec![elsewhere.clone()],
        vec![except],
        vec![port],
        vec![untold],
        vec![ingress.clone(), none.clone()],
    ] {
        assert_eq!(complaints(&with(&forbids)), [("kubernetes.network-policy".to_owned(), Outcome::No)], "{forbids:?}");
        assert_judged(&with(&forbids), CauseId::TcpTimeout, CauseId::NetworkPolicy, Confidence::Certain);
    }
    for allows in [
        vec![there.clone()],
        vec![all.clone()],
        vec![any_port],
        vec![range],
        vec![of_others],
        vec![ingress],
        vec![none.clone(), all],
    ] {
        assert_eq!(complaints(&with(&allows)), [], "{allows:?}");
        assert_judged(&with(&allows), CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Likely);
    }
    for open in [vec![pods], vec![named], vec![elsewhere.clone(), egress(json!([{"to": [{"podSelector": {}}]}]))]] {
        assert_eq!(complaints(&with(&open)), [("kubernetes.network-policy".to_owned(), Outcome::Unknown)], "{open:?}");
        assert_judged(&with(&open), CauseId::TcpTimeout, CauseId::NetworkPolicy, Confidence::Likely);
    }
    // HTTP passes, the agent port does not: a policy that knows the one and not the other.
    assert_judged(
        &with(std::slice::from_ref(&none)),
        CauseId::AgentPortBlocked,
        CauseId::NetworkPolicy,
        Confidence::Certain,
    );
    // Policies are not for the host's network, and not needed to explain a network that is dead altogether.
    let mut host = with(std::slice::from_ref(&none));
    host.kubernetes.as_mut().unwrap().pod.host_network = Some(true);
    assert_judged(&host, CauseId::TcpTimeout, CauseId::ControllerDead, Confidence::Likely);
    // One that forbids everything explains a network in which nothing answers; one that lets others through does not.
    let mut dead = with(&[none]);
    dead.kubernetes.as_mut().unwrap().peers = peers(Some(FailureKind::TimedOut));
    assert_judged(&dead, CauseId::TcpTimeout, CauseId::NetworkPolicy, Confidence::Certain);
    dead.sites.clear();
    assert_judged(&dead, CauseId::DnsServerDead, CauseId::NetworkPolicy, Confidence::Certain);
    let mut dead = with(&[egress(json!([{"to": [{"ipBlock": {"cidr": "10.96.0.0/12"}}]}]))]);
    dead.kubernetes.as_mut().unwrap().peers = peers(Some(FailureKind::TimedOut));
    assert_judged(&dead, CauseId::TcpTimeout, CauseId::PodNetworkDead, Confidence::Likely);
}

#[test]
fn selectors() {
    let select = |selector: Value| {
        policies(&[json!({"podSelector": selector, "policyTypes": ["Egress"]})]).get().unwrap()[0].selects.unwrap()
    };
    let expression = |key: &str, operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    assert!(select(json!({})));
    assert!(
        select(json!({"matchLabels": {"jenkins": "agent"}})) && !select(json!({"matchLabels": {"jenkins": "other"}}))
    );
    assert!(
        select(expression("jenkins", "In", &["agent", "x"])) && !select(expression("jenkins", "NotIn", &["agent"]))
    );
    assert!(select(expression("app", "NotIn", &["x"])) && select(expression("app", "DoesNotExist", &[])));
    assert!(select(expression("jenkins", "Exists", &[])) && !select(expression("app", "Exists", &[])));
    // Of a pod whose labels are not known it is clear only what selects all.
    let unknown = |selector: Value| {
        let spec = json!({"podSelector": selector, "egress": []});
        objects::policies(&bytes(&json!({"items": [{"metadata": {}, "spec": spec}]})), None).unwrap()[0].selects
    };
    assert_eq!(unknown(json!({"matchLabels": {"jenkins": "agent"}})), None);
    assert_eq!(unknown(json!({})), Some(true));
}

#[test]
fn what_may_not_be_read_is_unknown() {
    let forbidden = KubernetesFacts {
        nodes: Asked::Forbidden,
        kubeadm: Asked::Forbidden,
        policies: Asked::Failed("HTTP 500".into()),
        networks: Vec::new(),
        unread: vec!["Calico's IPPools: forbidden".into()],
        ..cluster()
    };
    let facts = facts(forbidden);
    assert_eq!(complaints(&facts), [("kubernetes.configuration".to_owned(), Outcome::Unknown)]);
    assert_judged(&facts, CauseId::TcpTimeout, CauseId::TcpTimeout, Confidence::Possible);
    let check = evaluate(&facts).into_iter().find(|check| check.outcome == Outcome::Unknown).unwrap();
    for what in ["nodes: forbidden", "kubeadm-config: forbidden", "network policies: HTTP 500", "IPPools"] {
        assert!(check.seen.contains(what), "{}", check.seen);
    }
}

#[test]
fn objects_that_are_none() {
    for bad in [&b""[..], b"{}", b"[]", b"{\"items\": 7}", b"\xff", b"{\"kind\": \"Status\", \"code\": 403}"] {
        assert!(
            objects::nodes(bad).is_err() && objects::endpoints(bad).is_err() && objects::policies(bad, None).is_err()
        );
        assert!(objects::calico_pools(bad).is_err() && objects::calico_node(bad).is_err());
    }
    let page = json!({"metadata": {"continue": "eyJ2", "remainingItemCount": 7}, "items": [{"metadata": {"name": "a"}, "spec": {"podCIDR": "10.1.0.0/24"}}]});
    let (nodes, next) = objects::nodes(&bytes(&page)).unwrap();
    assert_eq!((nodes[0].pod_cidrs[0], next.as_deref()), (cidr("10.1.0.0/24"), Some("eyJ2")));
}

#[test]
fn facts_survive_json() {
    let all = KubernetesFacts {
        kubeadm: Asked::Failed("why".into()),
        service: Some(Service::default()),
        policies: policies(&[
            json!({"podSelector": {}, "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"podSelector": {}}], "ports": [{"port": 1}, {}, {"port": "x"}]}]}),
        ]),
        ..cluster()
    };
    let json = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<KubernetesFacts>(&json).unwrap(), all);
    assert_eq!(serde_json::from_str::<KubernetesFacts>("{}").unwrap(), KubernetesFacts::default());
}
