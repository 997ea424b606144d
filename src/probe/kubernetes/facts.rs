//! What was observed of the cluster, without any judgement.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use crate::probe::facts::Failure;

/// What was observed of the cluster. Part of [`crate::probe::facts::Facts`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesFacts {
    /// The pod that this process is in.
    pub pod: Pod,
    /// Others that tell a dead network from a dead controller.
    pub peers: Vec<Peer>,
    /// Why the API server was not asked for the rest; `None` where it was.
    pub unasked: Option<String>,
    /// The cluster's nodes.
    pub nodes: Asked<Vec<Node>>,
    /// What the cluster was set up with (`kubeadm init`).
    pub kubeadm: Asked<Kubeadm>,
    /// The pod networks that are configured. More than one are mostly leftovers.
    pub networks: Vec<PodNetwork>,
    /// Where a pod network might be configured, but could not be read, and why.
    pub unread: Vec<String>,
    /// The service that the controller's host name stands for.
    pub service: Option<Service>,
    /// The network policies of this pod's namespace.
    pub policies: Asked<Vec<Policy>>,
}

/// What the API server says to a question.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked<T> {
    /// It was not asked.
    #[default]
    Not,
    /// The answer.
    Is(T),
    /// There is no such thing.
    Absent,
    /// The service account may not know it.
    Forbidden,
    /// There was no answer, or none that can be read.
    Failed(String),
}

impl<T> Asked<T> {
    /// The answer, if there is one.
    pub fn get(&self) -> Option<&T> {
        match self {
            Asked::Is(answer) => Some(answer),
            _ => None,
        }
    }

    /// Reads the answer on.
    pub fn and_then<U>(self, read: impl FnOnce(T) -> Asked<U>) -> Asked<U> {
        match self {
            Asked::Is(answer) => read(answer),
            Asked::Not => Asked::Not,
            Asked::Absent => Asked::Absent,
            Asked::Forbidden => Asked::Forbidden,
            Asked::Failed(why) => Asked::Failed(why),
        }
    }
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Its name.
    pub name: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// The node that it is on.
    pub node: Option<String>,
    /// The addresses of that node.
    pub node_addresses: Vec<IpAddr>,
    /// Its own addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it has the node's network in place of one of its own (`hostNetwork`).
    pub host_network: Option<bool>,
    /// Its labels, by which network policies select it; `None` where they could not be read.
    pub labels: Option<std::collections::BTreeMap<String, String>>,
}

/// What a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The cluster's API server, at its service address.
    ApiServer,
    /// The cluster's DNS, at its service address.
    ClusterDns,
    /// The API server, at an address of its own that its certificate names.
    ControlPlane,
    /// The node that the pod is on.
    Node,
    /// Another pod, at its own address.
    OtherPod,
}

/// Somebody else in the cluster, and whether it can be reached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// What it is.
    pub role: Role,
    /// Where it was tried.
    pub address: SocketAddr,
    /// It is, or may be, on this pod's node.
    #[serde(default)]
    pub same_node: bool,
    /// Why it could not be reached; `None` where it was.
    #[serde(default)]
    pub failure: Option<Failure>,
    /// What it said, if anything: a version, an answer to a DNS question, what TLS failed by.
    #[serde(default)]
    pub said: String,
    /// How long it took.
    pub ms: u64,
}

/// A node of the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The ranges that it was given for its pods (`spec.podCIDRs`); none where the cluster does not do that.
    pub pod_cidrs: Vec<Cidr>,
    /// Its own addresses (`InternalIP`).
    pub addresses: Vec<IpAddr>,
}

/// `networking` of kubeadm's `ClusterConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kubeadm {
    /// `podSubnet`; none where it was not given.
    pub pod_subnets: Vec<Cidr>,
    /// `serviceSubnet`.
    pub service_subnets: Vec<Cidr>,
}

/// A pod network (CNI) as it is configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// Which.
    pub cni: Cni,
    /// The object that says so: `ConfigMap kube-flannel/kube-flannel-cfg`.
    pub source: String,
    /// The ranges that pods get addresses of; none where the configuration does not tell.
    pub ranges: Vec<Cidr>,
    /// Each node's pods get addresses of that node's `podCIDR`, and not of what the network hands out itself.
    pub by_node: bool,
}

/// The pod networks that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Cni {
    Flannel,
    Calico,
    Cilium,
}

impl Cni {
    /// As its makers write it.
    pub fn name(self) -> &'static str {
        match self {
            Cni::Flannel => "flannel",
            Cni::Calico => "Calico",
            Cni::Cilium => "Cilium",
        }
    }
}

/// A service and who stands behind it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// How many addresses behind it are ready.
    pub ready: Option<usize>,
    /// How many are not.
    pub not_ready: Option<usize>,
    /// Its TCP ports; none where that is not known, or where it has no address and so no ports of its own.
    pub ports: Vec<u16>,
}

/// A network policy, as far as it says what may leave a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Policy {
    /// Its name.
    pub name: String,
    /// It selects this pod. `None` where the pod's labels are not known.
    pub selects: Option<bool>,
    /// What it lets out. None at all is everything forbidden.
    pub egress: Vec<EgressRule>,
}

/// One rule of what may leave a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EgressRule {
    /// To these addresses; `None` is to all.
    pub to: Option<Vec<Destination>>,
    /// To these ports; `None` is to all.
    pub ports: Option<Vec<Ports>>,
}

/// A destination of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Destination {
    /// A range, without some parts of it.
    Block {
        /// The range.
        cidr: Cidr,
        /// The parts that do not belong to it.
        except: Vec<Cidr>,
    },
    /// Pods by their labels: which addresses these have is not known.
    Pods,
}

/// Ports of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ports {
    /// From the first to the last of these.
    Range(u16, u16),
    /// All of TCP.
    All,
    /// By the name that a container gives to one: its number is not known.
    Named(String),
}
