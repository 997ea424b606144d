//! Looking around in the cluster.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use super::api::{self, Account, Api};
use super::facts::{Asked, Cni, KubernetesFacts, Node, Peer, PodNetwork, Role, Service};
use super::objects::{self, Data, Endpoints};
use crate::probe::dns;
use crate::probe::facts::{Failure, FailureKind, RecordKind, ResolvConf, Route};
use crate::probe::{Target, system};
use crate::transport::Cause;

/// Where a service account is mounted into pods.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Says where else it is.
pub const SERVICE_ACCOUNT_VARIABLE: &str = "AGENT_PROBE_SERVICE_ACCOUNT";

/// The variables by which a pod's manifest can tell the pod about itself (downward API), as those of `k8s/probe` do.
pub const VARIABLES: &[&str] = &["HOST_IP", "NODE_NAME", "POD_NAME", "POD_NAMESPACE", "POD_IP"];

/// How long one peer may take to answer. In a cluster that is a thousand times what it takes.
const PEER_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the API server may be asked.
const API_TIMEOUT: Duration = Duration::from_secs(5);

/// At which a node is tried: the kubelet's.
const KUBELET: u16 = 10250;

/// At which API servers listen, as kubeadm sets them up.
const API_PORT: u16 = 6443;

/// No more addresses of the control plane are tried.
const MAX_CONTROL_PLANE: usize = 3;

/// No more other pods are tried.
const MAX_PODS: usize = 3;

/// Nodes are asked for by as many, ...
const PAGE: usize = 50;

/// ... and so often at most.
const MAX_PAGES: usize = 6;

/// What the process finds around itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Surroundings {
    /// Of the API server.
    pub host: String,
    pub port: u16,
    pub account: PathBuf,
    pub resolv_conf: ResolvConf,
    pub gateway: Option<IpAddr>,
    /// [`VARIABLES`] that are set.
    pub variables: BTreeMap<String, String>,
    pub host_name: Option<String>,
    /// The host of the controller's URL.
    pub controller: Option<String>,
}

/// Looks around in the cluster, at the same time as everything else is done. `None` where this is no pod.
pub async fn gather(target: &Target, within: Duration) -> Option<KubernetesFacts> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = variable("KUBERNETES_SERVICE_HOST").filter(|_| target.in_pod)?;
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let routes = system::routes_v4(&read("/proc/net/route"));
    let surroundings = Surroundings {
        host,
        port: variable("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok()).unwrap_or(443),
        account: variable(SERVICE_ACCOUNT_VARIABLE).unwrap_or_else(|| SERVICE_ACCOUNT.to_owned()).into(),
        resolv_conf: dns::resolv_conf(&read("/etc/resolv.conf")),
        gateway: node_gateway(&routes),
        variables: VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), variable(name)?))).collect(),
        host_name: Some(read("/proc/sys/kernel/hostname").trim().to_owned()).filter(|name| !name.is_empty()),
        controller: target.discovery.urls.first().map(|url| url.host.clone()),
    };
    Some(look_around(&surroundings, within).await)
}

/// The default gateway where that may be the pod's node. It isn't on the node's own network, which has the pods'
/// interfaces.
fn node_gateway(routes: &[Route]) -> Option<IpAddr> {
    let host = routes.iter().any(|route| super::evaluate::is_of_pods(&route.interface));
    routes.iter().filter(|route| route.prefix == 0 && !host).find_map(|route| route.gateway)
}

pub(super) async fn look_around(around: &Surroundings, within: Duration) -> KubernetesFacts {
    // One connection, TLS on it, and other pods at last follow one another.
    let limit = PEER_TIMEOUT.min(within / 3);
    let mut facts = KubernetesFacts::default();
    let variable = |name: &str| around.variables.get(name).cloned();
    let address = |name: &str| around.variables.get(name).and_then(|text| text.parse::<IpAddr>().ok());
    facts.pod.name = variable("POD_NAME").or_else(|| around.host_name.clone());
    facts.pod.namespace = variable("POD_NAMESPACE");
    facts.pod.node = variable("NODE_NAME");
    facts.pod.node_addresses = address("HOST_IP").into_iter().collect();
    facts.pod.addresses = address("POD_IP").into_iter().collect();

    // The gateway of a pod is its node with most networks; Calico has a link-local address for it that means nothing.
    let link_local = |address: &IpAddr| matches!(address, IpAddr::V4(address) if address.is_link_local());
    let node = address("HOST_IP").or(around.gateway.filter(|address| !link_local(address)));
    let cluster = async {
        let account = Account::read(&around.account);
        if let Ok(account) = &account
            && facts.pod.namespace.is_none()
        {
            facts.pod.namespace.clone_from(&account.namespace);
        }
        let (peers, api) = api_server(around, account.as_ref().ok(), limit, within).await;
        facts.peers = peers;
        match (api, &account) {
            (Some(api), _) => {
                let own = own_addresses(&api);
                let ((), own) =
                    tokio::join!(read(api, around, &mut facts, limit), control_plane(own, around.port, limit));
                facts.peers.extend(own.into_iter().map(|peer| {
                    let node = &facts.pod.node_addresses;
                    Peer { same_node: node.is_empty() || node.contains(&peer.address.ip()), ..peer }
                }));
            }
            (None, Err(why)) => facts.unasked = Some(why.clone()),
            (None, Ok(_)) => facts.unasked = Some("the API server can't be reached".to_owned()),
        }
        facts
    };
    let node = async {
        match node {
            Some(address) => Some(tcp(Role::Node, SocketAddr::new(address, KUBELET), limit).await),
            None => None,
        }
    };
    let (mut facts, dns, node) = tokio::join!(cluster, cluster_dns(&around.resolv_conf, limit), node);
    facts.peers.extend(dns);
    // On the host network the gateway is the site's router.
    facts.peers.extend(node.filter(|_| address("HOST_IP").is_some() || facts.pod.host_network != Some(true)));
    facts.peers.sort_by_key(|peer| (peer.role, peer.address));
    facts
}

fn millis(begun: Instant) -> u64 {
    begun.elapsed().as_millis() as u64
}

/// Opens a TCP connection and closes it.
async fn tcp(role: Role, address: SocketAddr, limit: Duration) -> Peer {
    let begun = Instant::now();
    let failure = api::connect(address, limit).await.err();
    Peer { role, address, same_node: false, failure, said: String::new(), ms: millis(begun) }
}

/// Tries each address of the API server, and keeps the first connection that it can be asked on.
async fn api_server<'a>(
    around: &'a Surroundings,
    account: Option<&'a Account>,
    limit: Duration,
    within: Duration,
) -> (Vec<Peer>, Option<Api<'a>>) {
    let host = around.host.trim_start_matches('[').trim_end_matches(']');
    let addresses: Vec<SocketAddr> = match timeout(limit, tokio::net::lookup_host((host, around.port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        _ => Vec::new(),
    };
    let end = Instant::now() + API_TIMEOUT.min(within);
    let tried = join_all(addresses.into_iter().map(|address| async move {
        let begun = Instant::now();
        let mut peer =
            Peer { role: Role::ApiServer, address, same_node: false, failure: None, said: String::new(), ms: 0 };
        let mut opened = None;
        match (api::connect(address, limit).await, account) {
            (Err(failure), _) => peer.failure = Some(failure),
            (Ok(_), None) => {}
            (Ok(stream), Some(account)) => match Api::open(stream, address, host, account, limit, end).await {
                Ok(mut api) => {
                    peer.said = version(&mut api).await;
                    opened = Some(api);
                }
                // Packets go there and back, which is the question; large ones may not.
                Err(failure) if failure.kind == FailureKind::TimedOut => peer.failure = Some(failure),
                Err(failure) => peer.said = failure.message,
            },
        }
        peer.ms = millis(begun);
        (peer, opened)
    }))
    .await;
    let (peers, opened): (Vec<Peer>, Vec<Option<Api<'_>>>) = tried.into_iter().unzip();
    (peers, opened.into_iter().flatten().next())
}

/// The addresses that the API server has beside that of its service, by its certificate: kubeadm's and others' have the
/// control plane's in it.
fn own_addresses(api: &Api<'_>) -> Vec<IpAddr> {
    let service = api.address().ip();
    let own = |address: &IpAddr| {
        // A pod may have one family alone.
        address.is_ipv4() == service.is_ipv4()
            && *address != service
            && !address.is_loopback()
            && !address.is_unspecified()
    };
    api.addresses().iter().copied().filter(own).take(MAX_CONTROL_PLANE).collect()
}

/// Tries the control plane at its own addresses. It listens at the one port or the other; refusing is as good.
async fn control_plane(addresses: Vec<IpAddr>, port: u16, limit: Duration) -> Vec<Peer> {
    join_all(addresses.into_iter().map(|address| async move {
        let at = |port| tcp(Role::ControlPlane, SocketAddr::new(address, port), limit);
        let (usual, other) = tokio::join!(at(API_PORT), at(port));
        let lost = |peer: &Peer| peer.failure.as_ref().is_some_and(|failure| failure.kind != FailureKind::Refused);
        if lost(&usual) && !lost(&other) { other } else { usual }
    }))
    .await
}

async fn version(api: &mut Api<'_>) -> String {
    #[derive(serde::Deserialize)]
    struct Version {
        #[serde(rename = "gitVersion")]
        git_version: String,
    }
    match api.read("/version", |json| serde_json::from_slice::<Version>(json)).await {
        Asked::Is(version) => version.git_version.chars().filter(char::is_ascii_graphic).take(40).collect(),
        _ => String::new(),
    }
}

/// Tries the name servers, where they are the cluster's, which the search list gives away.
async fn cluster_dns(conf: &ResolvConf, limit: Duration) -> Vec<Peer> {
    let Some(domain) = conf.search.iter().find_map(|domain| domain.strip_prefix("svc.")) else { return Vec::new() };
    let name = format!("kubernetes.default.svc.{domain}");
    join_all(conf.nameservers.iter().map(|server| {
        let (address, name) = (SocketAddr::new(*server, dns::PORT), &name);
        async move {
            let begun = Instant::now();
            let (udp, tcp) = tokio::join!(ask(address, name, limit), tcp(Role::ClusterDns, address, limit));
            let (failure, said) = match (udp, tcp.failure) {
                (Ok(()), None) => (None, String::new()),
                (Ok(()), Some(failure)) => (None, format!("over UDP; over TCP: {}", failure.message)),
                (Err(failure), None) => (None, format!("over TCP; over UDP: {}", failure.message)),
                (Err(udp), Some(_)) => (Some(udp), String::new()),
            };
            Peer { role: Role::ClusterDns, address, same_node: false, failure, said, ms: millis(begun) }
        }
    }))
    .await
}

/// Asks a name server, twice; any answer will do.
async fn ask(server: SocketAddr, name: &str, limit: Duration) -> Result<(), Failure> {
    let io = |error: std::io::Error| Failure::from(&error);
    let id = std::process::id() as u16;
    let malformed = || Failure { kind: FailureKind::Other, message: format!("{name} can't be asked for") };
    let question = dns::question(id, name, RecordKind::A).ok_or_else(malformed)?;
    let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).await.map_err(io)?;
    socket.connect(server).await.map_err(io)?;
    for _ in 0..2 {
        socket.send(&question).await.map_err(io)?;
        let mut message = [0; dns::MAX_MESSAGE];
        let answer = async {
            loop {
                let length = socket.recv(&mut message).await.map_err(io)?;
                if dns::reply(&message[..length], id, name, RecordKind::A).is_some() {
                    return Ok(());
                }
            }
        };
        if let Ok(answer) = timeout(limit / 2, answer).await {
            return answer;
        }
    }
    Err(Failure { kind: FailureKind::TimedOut, message: Cause::TimedOut(limit).to_string() })
}

/// A name that can be part of a path.
fn plain(name: &str) -> Option<&str> {
    let fits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    (fits && name.len() <= 253 && name != "." && name != "..").then_some(name)
}

/// Asks the API server for all that is of use, what matters most first.
async fn read(mut api: Api<'_>, around: &Surroundings, facts: &mut KubernetesFacts, limit: Duration) {
    let api = &mut api;
    let namespace = facts.pod.namespace.clone();
    let namespace = namespace.as_deref().and_then(plain);
    if let (Some(namespace), Some(name)) = (namespace, facts.pod.name.as_deref().and_then(plain)) {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        if let Asked::Is(pod) = api.read(&path, objects::pod).await {
            facts.pod = super::facts::Pod { namespace: Some(namespace.to_owned()), ..pod };
        }
    }
    if let Some(host) = &around.controller {
        facts.service = service(api, host, namespace).await;
    }
    facts.nodes = nodes(api).await;
    facts.kubeadm =
        config_map(api, "kube-system", "kubeadm-config").await.and_then(|data| understood(objects::kubeadm(&data)));
    networks(api, facts).await;
    if let Some(namespace) = namespace {
        let path = format!("/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies?limit={PAGE}");
        let labels = facts.pod.labels.clone();
        facts.policies = api.read(&path, |json| objects::policies(json, labels.as_ref())).await;
    }
    // Pods that are there in every cluster, and listen.
    if let Asked::Is(found) = endpoints(api, "kube-system", "kube-dns").await {
        let own_node = facts.pod.node.clone();
        let others = found.ready.iter().filter(|other| !facts.pod.addresses.contains(&other.address)).take(MAX_PODS);
        let others = others.map(|other| async {
            let address = SocketAddr::new(other.address, other.port.unwrap_or(dns::PORT));
            let same_node = other.node.is_some() && other.node == own_node;
            Peer { same_node, ..tcp(Role::OtherPod, address, limit).await }
        });
        facts.peers.extend(join_all(others).await);
    }
}

fn understood<T>(read: Option<T>) -> Asked<T> {
    read.map_or_else(|| Asked::Failed("its form is not understood".to_owned()), Asked::Is)
}

async fn config_map(api: &mut Api<'_>, namespace: &str, name: &str) -> Asked<Data> {
    api.read(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}"), objects::config_map).await
}

async fn nodes(api: &mut Api<'_>) -> Asked<Vec<Node>> {
    let mut all = Vec::new();
    let mut next = String::new();
    for _ in 0..MAX_PAGES {
        let path = format!("/api/v1/nodes?limit={PAGE}{next}");
        match api.read(&path, objects::nodes).await {
            Asked::Is((nodes, token)) => {
                all.extend(nodes);
                // The token is base64 without anything that would have to be escaped, but that is the server's to decide.
                match token.filter(|token| token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_=.~".contains(&b))) {
                    Some(token) => next = format!("&continue={token}"),
                    None => break,
                }
            }
            _ if !all.is_empty() => break,
            other => return other.and_then(|_| Asked::Not),
        }
    }
    Asked::Is(all)
}

async fn endpoints(api: &mut Api<'_>, namespace: &str, service: &str) -> Asked<Endpoints> {
    let selector = format!("labelSelector=kubernetes.io%2Fservice-name%3D{service}");
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?limit={PAGE}&{selector}");
    api.read(&path, objects::endpoints).await
}

/// The namespace and name of the service that a host name may stand for.
fn service_name<'a>(host: &'a str, own_namespace: Option<&'a str>) -> Option<(&'a str, &'a str)> {
    if host.parse::<IpAddr>().is_ok() {
        return None;
    }
    let mut labels = host.trim_end_matches('.').split('.');
    let name = plain(labels.next()?)?;
    let namespace = match (labels.next(), labels.next()) {
        (None, _) => own_namespace?,
        (Some(namespace), None | Some("svc")) => plain(namespace)?,
        _ => return None,
    };
    Some((namespace, name))
}

async fn service(api: &mut Api<'_>, host: &str, own_namespace: Option<&str>) -> Option<Service> {
    #[derive(serde::Deserialize)]
    struct Object {
        spec: Spec,
    }
    #[derive(serde::Deserialize)]
    struct Spec {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(rename = "clusterIP", default)]
        cluster_ip: String,
        #[serde(default)]
        ports: Vec<Port>,
    }
    #[derive(serde::Deserialize)]
    struct Port {
        port: u16,
        protocol: Option<String>,
    }
    let (namespace, name) = service_name(host, own_namespace)?;
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}");
    // One that stands for a name elsewhere has nobody behind it.
    let Asked::Is(object) = api.read(&path, |json| serde_json::from_slice::<Object>(json)).await else { return None };
    if object.spec.kind == "ExternalName" {
        return None;
    }
    let mut service = Service { name: name.to_owned(), namespace: namespace.to_owned(), ..Service::default() };
    // A headless one is no more than a name for its pods, with all of their ports.
    if object.spec.cluster_ip.parse::<IpAddr>().is_ok() {
        let ports = object.spec.ports.iter();
        let tcp = ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        service.ports = tcp.map(|port| port.port).collect();
    }
    if let Asked::Is(found) = endpoints(api, namespace, name).await {
        service.ready = Some(found.ready.len());
        service.not_ready = Some(found.not_ready);
    }
    Some(service)
}

/// Looks for the configuration of the known pod networks.
async fn networks(api: &mut Api<'_>, facts: &mut KubernetesFacts) {
    let mut unread = Vec::new();
    let mut note = |what: &str, asked: &str| unread.push(format!("{what}: {asked}"));
    let mut canal = false;
    for (namespace, name) in
        [("kube-flannel", "kube-flannel-cfg"), ("kube-system", "kube-flannel-cfg"), ("kube-system", "canal-config")]
    {
        let source = format!("ConfigMap {namespace}/{name}");
        match config_map(api, namespace, name).await {
            Asked::Is(data) => {
                canal = name == "canal-config";
                match objects::flannel(&data, &source) {
                    Some(network) => facts.networks.push(network),
                    None => note(&source, "its form is not understood"),
                }
                break;
            }
            Asked::Forbidden => note(&source, "forbidden"),
            Asked::Failed(why) => note(&source, &why),
            Asked::Absent | Asked::Not => {}
        }
    }
    // Canal is Calico's policies on flannel's network.
    if !canal {
        let mut source = "IPPool".to_owned();
        let mut pools = api.read("/apis/crd.projectcalico.org/v1/ippools?limit=50", objects::calico_pools).await;
        for namespace in ["kube-system", "calico-system"] {
            if pools.get().is_some_and(|pools| !pools.is_empty()) {
                break;
            }
            let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/calico-node");
            let told = api.read(&path, objects::calico_node).await;
            if told.get().is_some_and(|ranges| !ranges.is_empty()) {
                source = format!("DaemonSet {namespace}/calico-node");
                pools = told;
            }
        }
        match pools {
            Asked::Is(ranges) if !ranges.is_empty() => {
                let config = config_map(api, "kube-system", "calico-config").await;
                let by_node = config.get().is_some_and(objects::calico_by_node);
                facts.networks.push(PodNetwork { cni: Cni::Calico, source, ranges, by_node });
            }
            Asked::Forbidden => note("Calico's IPPools", "forbidden"),
            Asked::Failed(why) => note("Calico's IPPools", &why),
            _ => {}
        }
    }
    let source = "ConfigMap kube-system/cilium-config";
    match config_map(api, "kube-system", "cilium-config").await {
        Asked::Is(data) => match objects::cilium(&data, source) {
            Some(network) => facts.networks.push(network),
            None => note(source, "its form is not understood"),
        },
        Asked::Forbidden => note(source, "forbidden"),
        Asked::Failed(why) => note(source, &why),
        Asked::Absent | Asked::Not => {}
    }
    // Where one network is known, it doesn't matter that others could not be looked for.
    if facts.networks.is_empty() {
        facts.unread = unread;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::kubernetes::facts::Kubeadm;
    use rustls_pki_types::pem::PemObject;
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const CA: &[u8] = include_bytes!("../../../tests/fixtures/tls/ca.pem");
    const CERTIFICATE: &[u8] = include_bytes!("../../../tests/fixtures/tls/server.pem");
    const KEY: &[u8] = include_bytes!("../../../tests/fixtures/tls/server.key");

    /// Answers each path with a status and a body; keeps what it was asked.
    async fn api_server(answers: Vec<(&'static str, u16, String)>) -> (u16, Arc<Mutex<Vec<String>>>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![rustls_pki_types::CertificateDer::from_pem_slice(CERTIFICATE).unwrap()],
                rustls_pki_types::PrivateKeyDer::from_pem_slice(KEY).unwrap(),
            )
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers, log) = (acceptor.clone(), answers.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut head = Vec::new();
                    while let Ok(byte) = stream.read_u8().await {
                        head.push(byte);
                        if !head.ends_with(b"\r\n\r\n") {
                            continue;
                        }
                        let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                        let path = text.split(' ').nth(1).unwrap().to_owned();
                        let found = answers.iter().find(|(known, ..)| *known == path.split('?').next().unwrap());
                        let (status, body) = found.map_or((404, "{}"), |(_, status, body)| (*status, body.as_str()));
                        log.lock().unwrap().push(text);
                        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        (port, asked)
    }

    fn account(dir: &std::path::Path) {
        for (name, content) in [("token", &b"eyJhbGciOi.TOKEN\n"[..]), ("namespace", b"ci"), ("ca.crt", CA)] {
            std::fs::write(dir.join(name), content).unwrap();
        }
    }

    fn around(port: u16, account: &std::path::Path) -> Surroundings {
        Surroundings {
            host: "127.0.0.1".into(),
            port,
            account: account.to_owned(),
            host_name: Some("agent-x".into()),
            controller: Some("jenkins".into()),
            ..Surroundings::default()
        }
    }

    #[tokio::test]
    async fn a_cluster_that_may_be_read() {
        let dir = tempfile::tempdir().unwrap();
        account(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dns_port = listener.local_addr().unwrap().port();
        let configuration =
            "kind: ClusterConfiguration\\nnetworking:\\n  podSubnet: 172.20.0.0/16\\n  serviceSubnet: 10.96.0.0/12\\n";
        let slice = format!(
            r#"{{"items": [{{"endpoints": [{{"addresses": ["127.0.0.1"]}}], "ports": [{{"port": {dns_port}, "protocol": "TCP"}}]}}]}}"#
        );
        let (port, asked) = api_server(vec![
            ("/version", 200, r#"{"major": "1", "gitVersion": "v1.32.4"}"#.into()),
            ("/api/v1/namespaces/ci/pods/agent-x", 200, r#"{"metadata": {"name": "agent-x"}, "spec": {"nodeName": "n1"}, "status": {"hostIP": "192.0.2.11", "podIP": "172.20.1.7"}}"#.into()),
            ("/api/v1/nodes", 200, r#"{"metadata": {}, "items": [{"metadata": {"name": "n1"}, "spec": {"podCIDR": "172.20.1.0/24"}}]}"#.into()),
            ("/api/v1/namespaces/kube-system/configmaps/kubeadm-config", 200, format!(r#"{{"data": {{"ClusterConfiguration": "{configuration}"}}}}"#)),
            ("/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg", 200, r#"{"data": {"net-conf.json": "{\"Network\": \"10.244.0.0/16\"}"}}"#.into()),
            ("/apis/networking.k8s.io/v1/namespaces/ci/networkpolicies", 200, r#"{"metadata": {}, "items": []}"#.into()),
            ("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", 200, slice),
            ("/api/v1/namespaces/ci/services/jenkins", 200, r#"{"spec": {"type": "ClusterIP"}}"#.into()),
            ("/apis/discovery.k8s.io/v1/namespaces/ci/endpointslices", 200, r#"{"items": []}"#.into()),
        ])
        .await;
        let facts = look_around(&around(port, dir.path()), Duration::from_secs(15)).await;
        assert!(!serde_json::to_string(&facts).unwrap().contains("TOKEN"));
        assert_eq!(facts.pod.node.as_deref(), Some("n1"));
        assert_eq!((facts.pod.namespace.as_deref(), facts.pod.host_network), (Some("ci"), Some(false)));
        let cidr = |text: &str| text.parse().unwrap();
        let kubeadm = Kubeadm { pod_subnets: vec![cidr("172.20.0.0/16")], service_subnets: vec![cidr("10.96.0.0/12")] };
        assert_eq!(facts.kubeadm, Asked::Is(kubeadm));
        assert_eq!(facts.nodes.get().unwrap()[0].pod_cidrs, [cidr("172.20.1.0/24")]);
        assert_eq!(facts.networks.len(), 1);
        assert_eq!(facts.networks[0].ranges, [cidr("10.244.0.0/16")]);
        assert_eq!(facts.policies, Asked::Is(Vec::new()));
        let service = facts.service.unwrap();
        assert_eq!((service.ready, service.not_ready), (Some(0), Some(0)));
        let roles: Vec<_> =
            facts.peers.iter().map(|peer| (peer.role, peer.failure.is_none(), peer.said.as_str())).collect();
        assert_eq!(roles, [(Role::ApiServer, true, "v1.32.4"), (Role::OtherPod, true, "")]);
        let asked = asked.lock().unwrap();
        for request in asked.iter() {
            assert!(
                request.starts_with("GET /") && request.contains("uthorization: Bearer eyJhbGciOi.TOKEN\r\n"),
                "{request}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_forbidden_broken_or_too_much_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        account(dir.path());
        let (port, _) = api_server(vec![
            ("/api/v1/nodes", 403, r#"{"kind": "Status"}"#.into()),
            (
                "/api/v1/namespaces/kube-system/configmaps/kubeadm-config",
                200,
                r#"{"data": {"ClusterConfiguration": "{}"}}"#.into(),
            ),
            ("/apis/networking.k8s.io/v1/namespaces/ci/networkpolicies", 200, "<html>".into()),
            ("/apis/crd.projectcalico.org/v1/ippools", 500, String::new()),
            ("/api/v1/namespaces/kube-system/configmaps/cilium-config", 200, " ".repeat(5 << 20)),
            ("/api/v1/namespaces/kube-flannel/configmaps/kube-flannel-cfg", 403, String::new()),
        ])
        .await;
        let facts = look_around(&around(port, dir.path()), Duration::from_secs(15)).await;
        assert_eq!(facts.nodes, Asked::Forbidden);
        assert_eq!(facts.kubeadm, Asked::Failed("its form is not understood".into()));
        assert!(matches!(&facts.policies, Asked::Failed(why) if why.contains("can't be read")), "{:?}", facts.policies);
        let unread = facts.unread.join("; ");
        for what in
            ["kube-flannel-cfg: forbidden", "IPPools: HTTP 500", "cilium-config: the answer is larger than 4 MiB"]
        {
            assert!(unread.contains(what), "{unread}");
        }
        assert_eq!(facts.service, None);
    }

    #[tokio::test]
    async fn nodes_on_several_pages() {
        let dir = tempfile::tempdir().unwrap();
        account(dir.path());
        let page = r#"{"metadata": {"continue": "eyJ2"}, "items": [{"metadata": {"name": "n"}}]}"#;
        let (port, asked) = api_server(vec![("/api/v1/nodes", 200, page.into())]).await;
        let facts = look_around(&around(port, dir.path()), Duration::from_secs(15)).await;
        assert_eq!(facts.nodes.get().unwrap().len(), MAX_PAGES);
        assert!(asked.lock().unwrap().iter().any(|request| request.contains("/api/v1/nodes?limit=50&continue=eyJ2 ")));
    }

    #[tokio::test]
    async fn without_an_account_or_with_another_authority() {
        let dir = tempfile::tempdir().unwrap();
        let (port, asked) = api_server(Vec::new()).await;
        let facts = look_around(&around(port, dir.path()), Duration::from_secs(15)).await;
        assert!(facts.unasked.unwrap().starts_with("no service account"));
        assert_eq!(facts.peers[0].failure, None);

        account(dir.path());
        std::fs::write(dir.path().join("ca.crt"), include_bytes!("../../../tests/fixtures/tls/self-signed.pem"))
            .unwrap();
        let facts = look_around(&around(port, dir.path()), Duration::from_secs(15)).await;
        assert_eq!(facts.unasked.as_deref(), Some("the API server can't be reached"));
        // Packets go there and back: the network isn't to blame.
        assert_eq!(facts.peers[0].failure, None);
        assert!(facts.peers[0].said.contains("TLS"), "{}", facts.peers[0].said);
        // Nobody but the right server is told the token.
        assert!(asked.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_silent_api_server_is_given_up_in_time() {
        let dir = tempfile::tempdir().unwrap();
        account(dir.path());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let around = around(listener.local_addr().unwrap().port(), dir.path());
        let begun = Instant::now();
        let facts = look_around(&around, Duration::from_millis(600)).await;
        assert!(begun.elapsed() < Duration::from_secs(3));
        assert_eq!(facts.peers[0].failure.as_ref().unwrap().kind, FailureKind::TimedOut);
        drop(listener);
    }

    #[tokio::test]
    async fn name_servers_and_nodes() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut message = [0; 512];
            let (length, from) = server.recv_from(&mut message).await.unwrap();
            // Not ours, then ours: NXDOMAIN.
            server.send_to(b"??", from).await.unwrap();
            message[2..4].copy_from_slice(&[0x81, 0x83]);
            server.send_to(&message[..length], from).await.unwrap();
        });
        ask(address, "kubernetes.default.svc.cluster.local", Duration::from_secs(3)).await.unwrap();
        task.await.unwrap();
        let failure = ask(address, "kubernetes.default.svc.cluster.local", Duration::from_secs(3)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused);
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let failure = ask(silent.local_addr().unwrap(), "a.b", Duration::from_millis(100)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::TimedOut);
        // A name server that isn't the cluster's tells nothing about the cluster.
        assert!(
            cluster_dns(&dns::resolv_conf("nameserver 127.0.0.1\nsearch example.org"), PEER_TIMEOUT).await.is_empty()
        );
    }

    #[test]
    fn the_gateway_is_the_node_in_a_pod_alone() {
        let route = |network: &str, prefix, gateway: Option<&str>, interface: &str| Route {
            network: network.parse().unwrap(),
            prefix,
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            interface: interface.into(),
            metric: 0,
            reject: false,
        };
        let default = route("0.0.0.0", 0, Some("10.88.0.1"), "eth0");
        let mut routes = vec![default, route("10.88.0.0", 24, None, "eth0")];
        assert_eq!(node_gateway(&routes), Some("10.88.0.1".parse().unwrap()));
        routes.push(route("10.244.0.0", 24, None, "cni0"));
        assert_eq!(node_gateway(&routes), None);
    }

    #[test]
    fn the_manifests_grant_what_is_asked_for_and_tell_what_is_read() {
        let rbac = include_str!("../../../k8s/probe/rbac.yaml");
        for name in
            ["kubeadm-config", "kube-flannel-cfg", "canal-config", "calico-config", "cilium-config", "calico-node"]
        {
            assert!(rbac.contains(name), "{name}");
        }
        for kind in
            ["nodes", "configmaps", "daemonsets", "ippools", "services", "endpointslices", "pods", "networkpolicies"]
        {
            assert!(rbac.contains(&format!("resources: [{kind}]")), "{kind}");
        }
        for manifest in [include_str!("../../../k8s/probe/job.yaml"), include_str!("../../../k8s/probe/daemonset.yaml")]
        {
            for variable in VARIABLES {
                assert!(manifest.contains(&format!("- name: {variable}\n")), "{variable}");
            }
        }
    }

    #[test]
    fn names_of_services() {
        let cases = [
            ("jenkins", Some(("ci", "jenkins"))),
            ("jenkins.", Some(("ci", "jenkins"))),
            ("jenkins.build", Some(("build", "jenkins"))),
            ("jenkins.build.svc", Some(("build", "jenkins"))),
            ("jenkins.build.svc.cluster.local", Some(("build", "jenkins"))),
            ("jenkins.example.org", None),
            ("192.0.2.7", None),
            ("fd00::7", None),
            ("..", None),
            ("", None),
            ("a%2f.b", None),
        ];
        for (host, expected) in cases {
            assert_eq!(service_name(host, Some("ci")), expected, "{host}");
        }
        assert_eq!(service_name("jenkins", None), None);
    }
}
