//! What matters of the API's objects. Each is read from the JSON of one answer; a field that is missing, of another
//! type or not understood counts as not there.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use super::cidr::{self, Cidr};
use super::facts::{Cni, Destination, EgressRule, Kubeadm, Node, Pod, PodNetwork, Policy, Ports};
use super::yaml;

#[derive(Deserialize)]
struct List<T> {
    #[serde(default)]
    metadata: ListMeta,
    items: Vec<T>,
}

#[derive(Deserialize, Default)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// The data of a ConfigMap.
pub type Data = BTreeMap<String, String>;

#[derive(Deserialize)]
struct ConfigMap {
    #[serde(default)]
    data: Data,
}

/// Reads a `v1/ConfigMap`.
pub fn config_map(json: &[u8]) -> Result<Data, serde_json::Error> {
    Ok(serde_json::from_slice::<ConfigMap>(json)?.data)
}

#[derive(Deserialize)]
struct NodeObject {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: NodeSpec,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct NodeSpec {
    #[serde(rename = "podCIDR")]
    pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<NodeAddress>,
}

#[derive(Deserialize)]
struct NodeAddress {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// Reads a page of a `v1/NodeList`, and where the next one begins.
pub fn nodes(json: &[u8]) -> Result<(Vec<Node>, Option<String>), serde_json::Error> {
    let list: List<NodeObject> = serde_json::from_slice(json)?;
    let nodes = list.items.into_iter().map(|node| {
        let mut pod_cidrs: Vec<Cidr> = node.spec.pod_cidrs.iter().flat_map(|text| cidr::list(text)).collect();
        if pod_cidrs.is_empty() {
            pod_cidrs = cidr::list(&node.spec.pod_cidr);
        }
        let internal = node.status.addresses.iter().filter(|address| address.kind == "InternalIP");
        Node {
            name: node.metadata.name,
            pod_cidrs,
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
        }
    });
    let next = Some(list.metadata.next).filter(|next| !next.is_empty());
    Ok((nodes.collect(), next))
}

#[derive(Deserialize)]
struct PodObject {
    #[serde(default)]
    metadata: Meta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: Option<String>,
    host_network: bool,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    #[serde(rename = "hostIP")]
    host_ip: Option<String>,
    #[serde(rename = "hostIPs")]
    host_ips: Vec<Ip>,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pod_ips: Vec<Ip>,
}

#[derive(Deserialize)]
struct Ip {
    ip: String,
}

fn addresses(one: Option<String>, many: Vec<Ip>) -> Vec<IpAddr> {
    let mut all: Vec<IpAddr> = Vec::new();
    for text in many.into_iter().map(|ip| ip.ip).chain(one) {
        if let Ok(address) = text.parse()
            && !all.contains(&address)
        {
            all.push(address);
        }
    }
    all
}

/// Reads a `v1/Pod`. Its namespace is that which it was asked for in.
pub fn pod(json: &[u8]) -> Result<Pod, serde_json::Error> {
    let pod: PodObject = serde_json::from_slice(json)?;
    Ok(Pod {
        name: Some(pod.metadata.name),
        namespace: None,
        node: pod.spec.node_name,
        node_addresses: addresses(pod.status.host_ip, pod.status.host_ips),
        addresses: addresses(pod.status.pod_ip, pod.status.pod_ips),
        host_network: Some(pod.spec.host_network),
        labels: Some(pod.metadata.labels),
    })
}

/// Reads the ConfigMap `kubeadm-config` of `kube-system`. `None` where its form is not understood.
pub fn kubeadm(data: &Data) -> Option<Kubeadm> {
    let text = data.get("ClusterConfiguration")?;
    let get = |key: &str| yaml::scalar(text, &["networking", key]).map(cidr::list).unwrap_or_default();
    // Without networking, this is none of kubeadm's files, or one in a form that is not understood.
    let known = ["dnsDomain", "podSubnet", "serviceSubnet"];
    known.iter().find_map(|key| yaml::scalar(text, &["networking", key]))?;
    Some(Kubeadm { pod_subnets: get("podSubnet"), service_subnets: get("serviceSubnet") })
}

/// Reads flannel's ConfigMap (`kube-flannel-cfg`, or `canal-config`). Its `kube-subnet-mgr`, which every manifest for
/// Kubernetes uses, takes each node's addresses from its `podCIDR`; `Network` is what it routes and masquerades by.
pub fn flannel(data: &Data, source: &str) -> Option<PodNetwork> {
    #[derive(Deserialize)]
    struct NetConf {
        #[serde(rename = "Network", default)]
        network: String,
        #[serde(rename = "IPv6Network", default)]
        ipv6_network: String,
        #[serde(rename = "EnableIPv4", default = "yes")]
        ipv4: bool,
        #[serde(rename = "EnableIPv6", default)]
        ipv6: bool,
    }
    fn yes() -> bool {
        true
    }
    let conf: NetConf = serde_json::from_str(data.get("net-conf.json")?).ok()?;
    let mut ranges = Vec::new();
    if conf.ipv4 {
        ranges.extend(cidr::list(&conf.network));
    }
    if conf.ipv6 {
        ranges.extend(cidr::list(&conf.ipv6_network));
    }
    (!ranges.is_empty()).then(|| PodNetwork { cni: Cni::Flannel, source: source.to_owned(), ranges, by_node: true })
}

/// Reads Cilium's ConfigMap (`cilium-config`).
pub fn cilium(data: &Data, source: &str) -> Option<PodNetwork> {
    let ipam = data.get("ipam").map_or("", String::as_str);
    // With other modes (eni, azure, multi-pool ...) the ranges are somewhere else.
    let ranges = if ipam.starts_with("cluster-pool") {
        let mut ranges = Vec::new();
        for (enabled, default, range) in
            [("enable-ipv4", "true", "cluster-pool-ipv4-cidr"), ("enable-ipv6", "false", "cluster-pool-ipv6-cidr")]
        {
            if data.get(enabled).map_or(default, String::as_str) == "true" {
                ranges.extend(data.get(range).map(|text| cidr::list(text)).unwrap_or_default());
            }
        }
        ranges
    } else {
        Vec::new()
    };
    (!ipam.is_empty()).then(|| PodNetwork {
        cni: Cni::Cilium,
        source: source.to_owned(),
        ranges,
        by_node: ipam == "kubernetes",
    })
}

/// Reads Calico's pools (`crd.projectcalico.org/v1/IPPoolList`): those that pods get addresses of.
pub fn calico_pools(json: &[u8]) -> Result<Vec<Cidr>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Pool {
        spec: PoolSpec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PoolSpec {
        #[serde(default)]
        cidr: String,
        #[serde(default)]
        disabled: bool,
        #[serde(default)]
        allowed_uses: Vec<String>,
    }
    let list: List<Pool> = serde_json::from_slice(json)?;
    let for_pods = |pool: &PoolSpec| {
        !pool.disabled && (pool.allowed_uses.is_empty() || pool.allowed_uses.iter().any(|used| used == "Workload"))
    };
    Ok(list
        .items
        .iter()
        .map(|pool| &pool.spec)
        .filter(|pool| for_pods(pool))
        .flat_map(|p| cidr::list(&p.cidr))
        .collect())
}

/// Whether the ConfigMap `calico-config` leaves the addresses to the node's `podCIDR`.
///
/// `cni_network_config` is a template and no JSON before `__CNI_MTU__` and the like are filled in.
pub fn calico_by_node(data: &Data) -> bool {
    data.get("cni_network_config").is_some_and(|template| template.contains("usePodCidr"))
}

/// Reads the ranges that the DaemonSet `calico-node` makes its first pools of, where it is told any.
pub fn calico_node(json: &[u8]) -> Result<Vec<Cidr>, serde_json::Error> {
    #[derive(Deserialize)]
    struct DaemonSet {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        template: Template,
    }
    #[derive(Deserialize)]
    struct Template {
        spec: Containers,
    }
    #[derive(Deserialize)]
    struct Containers {
        containers: Vec<Container>,
    }
    #[derive(Deserialize)]
    struct Container {
        #[serde(default)]
        env: Vec<Variable>,
    }
    #[derive(Deserialize)]
    struct Variable {
        name: String,
        #[serde(default)]
        value: String,
    }
    let set: DaemonSet = serde_json::from_slice(json)?;
    let variables = set.spec.template.spec.containers.into_iter().flat_map(|container| container.env);
    let pools = variables.filter(|v| matches!(&*v.name, "CALICO_IPV4POOL_CIDR" | "CALICO_IPV6POOL_CIDR"));
    Ok(pools.flat_map(|variable| cidr::list(&variable.value)).collect())
}

/// Addresses behind a service: those that are ready, and how many are not.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Those that are ready.
    pub ready: Vec<Ready>,
    /// How many are not ready.
    pub not_ready: usize,
}

/// An address behind a service.
#[derive(Debug, PartialEq, Eq)]
pub struct Ready {
    /// The address.
    pub address: IpAddr,
    /// The first TCP port, where one is told.
    pub port: Option<u16>,
    /// The node that it is on.
    pub node: Option<String>,
}

/// Reads a `discovery.k8s.io/v1/EndpointSliceList`.
pub fn endpoints(json: &[u8]) -> Result<Endpoints, serde_json::Error> {
    #[derive(Deserialize)]
    struct Slice {
        #[serde(default)]
        endpoints: Option<Vec<Endpoint>>,
        #[serde(default)]
        ports: Option<Vec<Port>>,
    }
    #[derive(Deserialize)]
    struct Endpoint {
        #[serde(default)]
        addresses: Vec<String>,
        #[serde(default)]
        conditions: Conditions,
        #[serde(rename = "nodeName")]
        node_name: Option<String>,
    }
    #[derive(Deserialize, Default)]
    struct Conditions {
        ready: Option<bool>,
    }
    #[derive(Deserialize)]
    struct Port {
        port: Option<u16>,
        protocol: Option<String>,
    }
    let list: List<Slice> = serde_json::from_slice(json)?;
    let mut result = Endpoints::default();
    for slice in list.items {
        let ports = slice.ports.unwrap_or_default();
        let tcp = ports.iter().find(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"));
        let port = tcp.and_then(|port| port.port);
        for endpoint in slice.endpoints.unwrap_or_default() {
            // Not told counts as ready, says the API.
            if endpoint.conditions.ready.unwrap_or(true) {
                let addresses = endpoint.addresses.iter().filter_map(|text| text.parse().ok());
                let node = endpoint.node_name;
                result.ready.extend(addresses.map(|address| Ready { address, port, node: node.clone() }));
            } else {
                result.not_ready += endpoint.addresses.len();
            }
        }
    }
    Ok(result)
}

#[derive(Deserialize)]
struct PolicyObject {
    #[serde(default)]
    metadata: Meta,
    spec: PolicySpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicySpec {
    #[serde(default)]
    pod_selector: Selector,
    policy_types: Option<Vec<String>>,
    egress: Option<Vec<Egress>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Selector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Deserialize)]
struct Egress {
    to: Option<Vec<PolicyPeer>>,
    ports: Option<Vec<PolicyPort>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyPeer {
    ip_block: Option<IpBlock>,
}

#[derive(Deserialize)]
struct IpBlock {
    cidr: Cidr,
    #[serde(default)]
    except: Vec<Cidr>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PolicyPort {
    protocol: Option<String>,
    port: Option<serde_json::Value>,
    end_port: Option<u16>,
}

impl Selector {
    /// It selects every pod.
    fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| {
                let value = labels.get(&expression.key);
                let listed = value.is_some_and(|value| expression.values.contains(value));
                match expression.operator.as_str() {
                    "In" => listed,
                    "NotIn" => !listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

impl PolicyPort {
    /// `None` for what isn't TCP.
    fn read(&self) -> Option<Ports> {
        if self.protocol.as_deref().is_some_and(|protocol| protocol != "TCP") {
            return None;
        }
        Some(match &self.port {
            None => Ports::All,
            Some(serde_json::Value::String(name)) => Ports::Named(name.clone()),
            Some(number) => {
                let first = number.as_u64().and_then(|number| u16::try_from(number).ok())?;
                Ports::Range(first, self.end_port.unwrap_or(first))
            }
        })
    }
}

/// Reads a `networking.k8s.io/v1/NetworkPolicyList`: the policies that say what may leave a pod, for a pod of these
/// labels.
pub fn policies(json: &[u8], labels: Option<&BTreeMap<String, String>>) -> Result<Vec<Policy>, serde_json::Error> {
    let list: List<PolicyObject> = serde_json::from_slice(json)?;
    let egress = list.items.into_iter().filter(|policy| match &policy.spec.policy_types {
        Some(types) => types.iter().any(|kind| kind == "Egress"),
        None => policy.spec.egress.is_some(),
    });
    let rule = |egress: Egress| EgressRule {
        // An empty list is everything, as none.
        to: egress.to.filter(|to| !to.is_empty()).map(|to| {
            let destination = |peer: PolicyPeer| match peer.ip_block {
                Some(IpBlock { cidr, except }) => Destination::Block { cidr, except },
                None => Destination::Pods,
            };
            to.into_iter().map(destination).collect()
        }),
        ports: egress
            .ports
            .filter(|ports| !ports.is_empty())
            .map(|ports| ports.iter().filter_map(PolicyPort::read).collect()),
    };
    Ok(egress
        .map(|policy| Policy {
            name: policy.metadata.name,
            selects: match labels {
                Some(labels) => Some(policy.spec.pod_selector.selects(labels)),
                None => policy.spec.pod_selector.is_empty().then_some(true),
            },
            egress: policy.spec.egress.unwrap_or_default().into_iter().map(rule).collect(),
        })
        .collect())
}

impl Policy {
    /// Whether a TCP connection to that address may leave the pod, by this policy alone; `None` where that depends on
    /// what isn't known.
    pub fn allows(&self, address: IpAddr, port: u16) -> Option<bool> {
        let mut all = Some(false);
        for rule in &self.egress {
            let to = match &rule.to {
                None => Some(true),
                Some(to) => any(to.iter().map(|destination| match destination {
                    Destination::Block { cidr, except } => {
                        Some(cidr.contains(address) && !except.iter().any(|part| part.contains(address)))
                    }
                    Destination::Pods => None,
                })),
            };
            let port = match &rule.ports {
                None => Some(true),
                Some(ports) => any(ports.iter().map(|ports| match ports {
                    Ports::Range(first, last) => Some((*first..=*last).contains(&port)),
                    Ports::All => Some(true),
                    Ports::Named(_) => None,
                })),
            };
            let both = match (to, port) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
            all = any([all, both].into_iter());
        }
        all
    }
}

/// Whether one is so; unknown where none is, but one may be.
pub(super) fn any(cases: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(false);
    for case in cases {
        match case {
            Some(true) => return Some(true),
            None => result = None,
            Some(false) => {}
        }
    }
    result
}
