//! What the facts of the cluster mean. No IO, no clock.

use std::net::{IpAddr, SocketAddr};

use super::cidr::{Cidr, join};
use super::facts::{Asked, KubernetesFacts, Peer, PodNetwork, Role};
use super::objects::any;
use crate::probe::catalog::CauseId;
use crate::probe::check::{Category, Check, Confidence, Outcome, Verdict};
use crate::probe::facts::{Facts, FailureKind};

/// What tells the pod network from the controller.
const DECIDE: &str = "Run agent probe-pod, or this pod with hostNetwork: true: if the node reaches the controller, it is the pod network; if not, the controller or a firewall.";

const LOOK: &str = "Look at the pods of the pod network (CNI) on this node, compare this pod's address and the CNI's range with the one that the cluster was set up with, and compare with a pod on the host network: agent probe-pod.";

/// No more of a kind are shown.
const MAX_SHOWN: usize = 4;

const CATEGORY: Category = Category::Kubernetes;

/// Interfaces by which pod networks reach their own pods: their networks are no host networks.
const POD_INTERFACES: &[&str] = &[
    "cni",
    "flannel",
    "cali",
    "cilium",
    "lxc",
    "veth",
    "vxlan",
    "tunl",
    "wireguard",
    "kube-",
    "nodelocaldns",
    "weave",
    "ovn",
];

/// Whether a link is the pod network's own, by its name.
pub(super) fn is_of_pods(interface: &str) -> bool {
    POD_INTERFACES.iter().any(|prefix| interface.starts_with(prefix))
}

/// What the facts of the cluster mean, beside all other facts.
///
/// None of these checks accuses by itself: in a cluster whose ranges are at odds much may work, and does. It is
/// [`judge`] that knows whether the agent can connect.
pub fn evaluate(facts: &Facts) -> Vec<Check> {
    let Some(cluster) = &facts.kubernetes else { return Vec::new() };
    let mut checks: Vec<Check> = cluster.peers.iter().map(peer).collect();
    if let Some(why) = &cluster.unasked {
        let check = Check::unknown(
            "kubernetes.configuration",
            CATEGORY,
            "",
            format!("the cluster was not asked how it is set up: {why}"),
        );
        checks.push(check);
    } else {
        checks.extend(service(cluster));
        checks.extend(network_policy(facts, cluster));
        checks.extend(node_ranges(cluster));
        checks.extend(cluster.networks.iter().filter_map(|network| cni_range(cluster, network)));
        checks.extend(pod_range(facts, cluster));
        if let Some(unread) = unread(cluster) {
            checks.push(Check::unknown("kubernetes.configuration", CATEGORY, "", unread));
        }
    }
    checks.extend(overlaps(facts, cluster));
    checks
}

fn no(id: &'static str, target: impl Into<String>, cause: CauseId, seen: impl Into<String>) -> Check {
    Check::no(id, CATEGORY, target, cause, seen).warning()
}

impl Role {
    fn id(self) -> &'static str {
        match self {
            Role::ApiServer => "kubernetes.api-server",
            Role::ClusterDns => "kubernetes.cluster-dns",
            Role::Node => "kubernetes.node",
            Role::OtherPod => "kubernetes.other-pod",
            Role::ControlPlane => "kubernetes.control-plane",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Role::ApiServer => "the API server",
            Role::ClusterDns => "the cluster's DNS",
            Role::Node => "the node",
            Role::OtherPod => "another pod",
            Role::ControlPlane => "the control plane",
        }
    }
}

impl Peer {
    /// Whether it is beyond this node, as far as can be told. A name server at a link-local address is a cache on the node.
    pub(in crate::probe) fn is_away(&self) -> bool {
        let link_local = matches!(self.address.ip(), IpAddr::V4(address) if address.is_link_local());
        self.role != Role::Node && !self.same_node && !link_local
    }

    /// Whether it was tried at an address that is its own. What goes to a service's address is sent on by this pod's
    /// node, which often does so in its own name (NAT): the answer then finds its way back whatever address the pod has.
    fn is_direct(&self, cluster: &KubernetesFacts) -> bool {
        let nodes = cluster.nodes.get().into_iter().flatten();
        match self.role {
            Role::Node | Role::OtherPod | Role::ControlPlane => true,
            Role::ApiServer | Role::ClusterDns => {
                nodes.flat_map(|node| &node.addresses).any(|address| *address == self.address.ip())
            }
        }
    }

    /// Whether packets go there and back. Unknown where the answer may come from this node in the peer's name: a
    /// service without endpoints is refused by the node itself.
    fn reached(&self) -> Option<bool> {
        match self.failure.as_ref().map(|failure| failure.kind) {
            None => Some(true),
            Some(FailureKind::TimedOut | FailureKind::HostUnreachable | FailureKind::NetworkUnreachable) => Some(false),
            Some(FailureKind::Refused | FailureKind::Reset | FailureKind::Closed | FailureKind::Tls) => {
                matches!(self.role, Role::Node | Role::OtherPod | Role::ControlPlane).then_some(true)
            }
            Some(_) => None,
        }
    }
}

fn peer(peer: &Peer) -> Check {
    let (id, target) = (peer.role.id(), peer.address.to_string());
    let name = peer.role.name();
    let said = if peer.said.is_empty() { String::new() } else { format!(" ({})", peer.said) };
    let failure = peer.failure.as_ref().map_or("", |failure| failure.message.as_str());
    let check = match peer.reached() {
        Some(true) if failure.is_empty() => Check::yes(id, CATEGORY, target, format!("{name} answers{said}")),
        Some(true) => Check::yes(id, CATEGORY, target, format!("{name} is reached: {failure}")),
        // A cloud's control plane may have addresses that are no business of pods.
        Some(false) if peer.role == Role::ControlPlane => {
            Check::unknown(id, CATEGORY, target, format!("{name} does not answer at its own address: {failure}"))
        }
        Some(false) => no(id, target, CauseId::PodNetworkDead, format!("{name} can't be reached: {failure}")),
        None => Check::unknown(id, CATEGORY, target, format!("{name}: {failure}")),
    };
    check.took(peer.ms)
}

fn service(cluster: &KubernetesFacts) -> Option<Check> {
    let service = cluster.service.as_ref()?;
    let (id, target) = ("kubernetes.service", format!("{}/{}", service.namespace, service.name));
    let ready = service.ready?;
    if ready > 0 {
        return Some(Check::yes(id, CATEGORY, target, format!("{ready} ready behind the service")));
    }
    let seen = match service.not_ready.unwrap_or(0) {
        0 => "no pod stands behind the service".to_owned(),
        count => format!("no pod behind the service is ready, of {count}"),
    };
    let next = format!(
        "See kubectl -n {0} get pods, and kubectl -n {0} describe service {1} for the selector that must match them.",
        service.namespace, service.name
    );
    Some(
        no(id, target, CauseId::ControllerDead, seen)
            .means("the controller's pod is down, starting, or not selected")
            .next(next),
    )
}

/// Where the agent wants to go and doesn't get.
fn wanted(facts: &Facts) -> Vec<SocketAddr> {
    let sites = facts.sites.iter().flat_map(|site| &site.connects);
    let port = facts.agent_port.iter().flat_map(|port| &port.connects);
    sites.chain(port).filter(|connect| connect.failure.is_some()).map(|connect| connect.address).collect()
}

/// The same, or the name servers that don't tell its address.
fn controller_or_dns(facts: &Facts, cluster: &KubernetesFacts) -> Vec<SocketAddr> {
    let wanted = wanted(facts);
    if !wanted.is_empty() {
        return wanted;
    }
    let dns = cluster.peers.iter().filter(|peer| peer.role == Role::ClusterDns && peer.reached() == Some(false));
    dns.map(|peer| peer.address).collect()
}

/// Whether the network policies let a TCP connection from this pod to that address; `None` where that depends on what
/// isn't known.
fn allowed(cluster: &KubernetesFacts, address: SocketAddr) -> Option<bool> {
    let policies = cluster.policies.get()?;
    let mut selecting = policies.iter().filter(|policy| policy.selects != Some(false)).peekable();
    if selecting.peek().is_none() {
        return Some(true);
    }
    // What a policy sees of a service is the pod behind it and that pod's port, neither of which we know.
    let behind_service = cluster.service.is_some();
    any(selecting.map(|policy| {
        // A policy that may not be for this pod allows nothing for certain, and forbids nothing.
        let clear = policy.selects == Some(true) && (policy.egress.is_empty() || !behind_service);
        if clear { policy.allows(address.ip(), address.port()) } else { None }
    }))
}

/// Whether it is known that no network policy is for this pod.
pub(in crate::probe) fn no_policy(cluster: &KubernetesFacts) -> bool {
    cluster.policies.get().is_some_and(|policies| policies.iter().all(|policy| policy.selects == Some(false)))
}

fn network_policy(facts: &Facts, cluster: &KubernetesFacts) -> Option<Check> {
    let policies = cluster.policies.get()?;
    // They are for pods with a network of their own.
    if on_host_network(facts, cluster) == Some(true) {
        return None;
    }
    let namespace = cluster.pod.namespace.as_deref().unwrap_or_default();
    let id = "kubernetes.network-policy";
    let selecting: Vec<_> = policies.iter().filter(|policy| policy.selects != Some(false)).collect();
    if selecting.is_empty() {
        let seen = "no network policy restricts what leaves this pod";
        return Some(Check::yes(id, CATEGORY, namespace, seen));
    }
    let names: Vec<&str> = selecting.iter().map(|policy| policy.name.as_str()).take(MAX_SHOWN).collect();
    let names = names.join(", ");
    let restricted = format!("what leaves this pod is restricted by {names}");
    let wanted = controller_or_dns(facts, cluster);
    let Some(first) = wanted.first() else {
        return Some(Check::unknown(id, CATEGORY, namespace, restricted));
    };
    let allowed = |address: &SocketAddr| allowed(cluster, *address);
    Some(match wanted.iter().find(|address| allowed(address) != Some(true)) {
        None => Check::yes(id, CATEGORY, namespace, format!("{restricted}, which allow {first}")),
        Some(address) if allowed(address) == Some(false) => {
            no(id, namespace, CauseId::NetworkPolicy, format!("{restricted}, and none allows {address}"))
                .means("the network drops or refuses what this pod sends there")
                .next(format!("Allow egress to {address} for this pod's labels in a NetworkPolicy of {namespace}."))
        }
        Some(address) => {
            Check::unknown(id, CATEGORY, namespace, format!("{restricted}; whether to {address} is not clear"))
        }
    })
}

/// kubeadm's range for pods, of both families.
fn pod_subnets(cluster: &KubernetesFacts) -> &[Cidr] {
    cluster.kubeadm.get().map_or(&[], |kubeadm| &kubeadm.pod_subnets)
}

/// Of these, those of the family.
fn family(ranges: &[Cidr], of: Cidr) -> impl Iterator<Item = Cidr> + '_ {
    ranges.iter().copied().filter(move |range| range.is_ipv4() == of.is_ipv4())
}

fn node_ranges(cluster: &KubernetesFacts) -> Option<Check> {
    let subnets = pod_subnets(cluster);
    let nodes = cluster.nodes.get()?;
    let id = "kubernetes.node-range";
    let ranges = || nodes.iter().flat_map(|node| node.pod_cidrs.iter().map(move |cidr| (node, *cidr)));
    let foreign: Vec<String> = ranges()
        .filter(|(_, cidr)| {
            let mut subnets = family(subnets, *cidr).peekable();
            subnets.peek().is_some() && !subnets.any(|subnet| subnet.covers(*cidr))
        })
        .map(|(node, cidr)| format!("{} has {cidr}", node.name))
        .take(MAX_SHOWN)
        .collect();
    if subnets.is_empty() || ranges().next().is_none() {
        return None;
    }
    let subnets = join(subnets);
    Some(if foreign.is_empty() {
        Check::yes(id, CATEGORY, subnets, "the nodes' ranges are within kubeadm's podSubnet")
    } else {
        no(
            id,
            subnets.clone(),
            CauseId::PodCidrMismatch,
            format!("outside of kubeadm's podSubnet {subnets}: {}", foreign.join(", ")),
        )
        .means("the controller manager gives nodes other ranges than the cluster was set up with")
        .next("Give kube-controller-manager's --cluster-cidr and kubeadm's podSubnet the same range.")
    })
}

fn cni_range(cluster: &KubernetesFacts, network: &PodNetwork) -> Option<Check> {
    let id = "kubernetes.cni-range";
    let name = network.cni.name();
    let subnets = pod_subnets(cluster);
    let nodes = cluster.nodes.get().map_or(&[][..], |nodes| nodes);
    if network.ranges.is_empty() {
        return None;
    }
    let ranges = join(&network.ranges);
    let next = format!(
        "Set the range in {} to the one that the cluster was set up with, restart {name}'s pods, then all pods that have an address of the old one.",
        network.source
    );
    // The nodes' ranges are what the pods' addresses are of; this network must carry each.
    let uncarried =
        nodes.iter().flat_map(|node| node.pod_cidrs.iter().map(move |cidr| (node, *cidr))).find(|(_, cidr)| {
            let mut ranges = family(&network.ranges, *cidr).peekable();
            network.by_node && ranges.peek().is_some() && !ranges.any(|range| range.covers(*cidr))
        });
    if let Some((node, cidr)) = uncarried {
        let seen = format!("{name}'s range is {ranges}, and node {} has {cidr} for its pods", node.name);
        return Some(
            no(id, &network.source, CauseId::PodCidrMismatch, seen)
                .means(format!("{name} neither routes nor masquerades what these pods send"))
                .next(next),
        );
    }
    let stranger = network.ranges.iter().find(|range| {
        let mut subnets = family(subnets, **range).peekable();
        subnets.peek().is_some() && !subnets.any(|subnet| subnet.overlaps(**range))
    });
    if let Some(stranger) = stranger {
        let seen = format!("{name} gives pods addresses of {stranger}, kubeadm was given {}", join(subnets));
        return Some(
            no(id, &network.source, CauseId::PodCidrMismatch, seen)
                .means("what else goes by kubeadm's range (kube-proxy, firewalls, routes) does not take these for pods")
                .next(next),
        );
    }
    if subnets.is_empty() && !(network.by_node && nodes.iter().any(|node| !node.pod_cidrs.is_empty())) {
        return None;
    }
    let with = if subnets.is_empty() { "the nodes' ranges" } else { "kubeadm's podSubnet" };
    Some(Check::yes(id, CATEGORY, &network.source, format!("{name}'s range {ranges} agrees with {with}")))
}

/// This pod's addresses: what the API says, or the interfaces.
fn own_addresses(facts: &Facts, cluster: &KubernetesFacts) -> Vec<IpAddr> {
    if !cluster.pod.addresses.is_empty() {
        return cluster.pod.addresses.clone();
    }
    let all = facts.environment.interfaces.iter().flat_map(|interface| interface.addresses.iter().copied());
    all.filter(|address| match address {
        IpAddr::V4(address) => !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unicast_link_local(),
    })
    .collect()
}

/// Whether this pod has the node's network. What the API says, or whether it has one of the node's addresses.
fn on_host_network(facts: &Facts, cluster: &KubernetesFacts) -> Option<bool> {
    cluster.pod.host_network.or_else(|| {
        let own = own_addresses(facts, cluster);
        let known = !cluster.pod.node_addresses.is_empty() && !own.is_empty();
        known.then(|| own.iter().any(|address| cluster.pod.node_addresses.contains(address)))
    })
}

fn pod_range(facts: &Facts, cluster: &KubernetesFacts) -> Option<Check> {
    let id = "kubernetes.pod-range";
    if on_host_network(facts, cluster) != Some(false) {
        return None;
    }
    let nodes = cluster.nodes.get().map_or(&[][..], |nodes| nodes);
    let own_node = nodes.iter().find(|node| Some(&node.name) == cluster.pod.node.as_ref());
    let node_ranges: Vec<Cidr> = match own_node {
        Some(node) => node.pod_cidrs.clone(),
        None => nodes.iter().flat_map(|node| node.pod_cidrs.iter().copied()).collect(),
    };
    // Where addresses come from depends on the network. Of one that isn't known it can't be told.
    let mut expected: Vec<Cidr> = Vec::new();
    let mut complete = !cluster.networks.is_empty();
    for network in &cluster.networks {
        let ranges = if network.by_node { &node_ranges } else { &network.ranges };
        complete &= !ranges.is_empty();
        expected.extend(ranges);
    }
    let of = match own_node {
        Some(node) if cluster.networks.iter().all(|network| network.by_node) => format!("node {}'s range", node.name),
        _ => "the pod network's range".to_owned(),
    };
    let own = own_addresses(facts, cluster);
    let first = own.first()?;
    let foreign = own.iter().find(|address| {
        let mut ranges = expected.iter().filter(|range| range.is_ipv4() == address.is_ipv4()).peekable();
        ranges.peek().is_some() && !ranges.any(|range| range.contains(**address))
    });
    match foreign {
        Some(address) if complete => Some(
            no(id, address.to_string(), CauseId::PodCidrMismatch, format!("this pod's address is not of {of} {}", join(&expected)))
                .means("nobody else in the cluster knows a way back to this address")
                .next(format!(
                    "Look for leftovers of another network in the node's /etc/cni/net.d, and compare its addresses (ip address) with {}.",
                    join(&expected)
                )),
        ),
        None if !expected.is_empty() => {
            Some(Check::yes(id, CATEGORY, first.to_string(), format!("this pod's address is of {of}")))
        }
        _ => of_no_known_range(cluster, &node_ranges, &own),
    }
}

/// An address that is not of what the cluster was set up with, in a network that is not known.
fn of_no_known_range(cluster: &KubernetesFacts, node_ranges: &[Cidr], own: &[IpAddr]) -> Option<Check> {
    let id = "kubernetes.pod-range";
    let subnets = pod_subnets(cluster);
    let known: Vec<Cidr> = subnets.iter().chain(node_ranges).copied().collect();
    let address = own.iter().find(|address| {
        let mut ranges = known.iter().filter(|range| range.is_ipv4() == address.is_ipv4()).peekable();
        ranges.peek().is_some() && !ranges.any(|range| range.contains(**address))
    })?;
    let ranges = match (subnets, node_ranges) {
        (_, []) => format!("not of kubeadm's podSubnet {}", join(subnets)),
        ([], _) => format!("not of the nodes' range {}", join(node_ranges)),
        _ => format!("neither of kubeadm's podSubnet {} nor of its node's range {}", join(subnets), join(node_ranges)),
    };
    let seen = format!("this pod's address {address} is {ranges}");
    // A network that is known and hands out addresses of its own, as those of clouds do, may be right.
    if !cluster.networks.is_empty() {
        return Some(Check::unknown(id, CATEGORY, address.to_string(), seen));
    }
    let next = format!(
        "Compare the range in the node's /etc/cni/net.d with {}, and set the pod network (CNI) to the one that the cluster was set up with.",
        join(&known)
    );
    let means = "the cluster neither routes nor masquerades what pods with such an address send";
    Some(no(id, address.to_string(), CauseId::PodCidrMismatch, seen).means(means).next(next))
}

/// A range and whose it is.
struct Range {
    cidr: Cidr,
    whose: String,
}

fn pod_ranges(cluster: &KubernetesFacts) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut add = |cidr: Cidr, whose: String| {
        // Narrower ones within one that is there already say nothing new.
        if !ranges.iter().any(|range| range.cidr.covers(cidr)) {
            ranges.push(Range { cidr, whose });
        }
    };
    for network in &cluster.networks {
        network.ranges.iter().for_each(|cidr| add(*cidr, format!("pods ({})", network.cni.name())));
    }
    pod_subnets(cluster).iter().for_each(|cidr| add(*cidr, "pods (kubeadm)".to_owned()));
    for node in cluster.nodes.get().into_iter().flatten() {
        node.pod_cidrs.iter().for_each(|cidr| add(*cidr, format!("pods of {}", node.name)));
    }
    ranges
}

fn service_ranges(cluster: &KubernetesFacts) -> Vec<Range> {
    let told = cluster.kubeadm.get().map_or(&[][..], |kubeadm| &kubeadm.service_subnets);
    let mut ranges: Vec<Range> =
        told.iter().map(|cidr| Range { cidr: *cidr, whose: "services (kubeadm)".to_owned() }).collect();
    for peer in cluster.peers.iter().filter(|peer| matches!(peer.role, Role::ApiServer | Role::ClusterDns)) {
        let address = peer.address.ip();
        // A host that asks another name server than the cluster's, or an API server that is given by its own address.
        let is_node = cluster.nodes.get().into_iter().flatten().any(|node| node.addresses.contains(&address));
        let loopback = address.is_loopback();
        if !is_node && !loopback && !ranges.iter().any(|range| range.cidr.contains(address)) {
            ranges.push(Range { cidr: Cidr::new(address, u8::MAX), whose: peer.role.name().to_owned() });
        }
    }
    ranges
}

/// Networks that are on a link of this machine or pod, those of its pods aside.
fn links(facts: &Facts) -> impl Iterator<Item = Range> {
    facts
        .environment
        .routes
        .iter()
        .filter(|route| route.gateway.is_none() && route.prefix > 0 && !route.reject)
        .filter_map(|route| {
            let of_pods = is_of_pods(&route.interface);
            let cidr = Cidr::new(route.network, route.prefix);
            let host_route = cidr == Cidr::new(route.network, u8::MAX);
            let link_local = match route.network {
                IpAddr::V4(address) => address.is_link_local(),
                IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
            };
            let network = !of_pods && !host_route && !link_local && route.interface != "lo";
            network.then(|| Range { cidr, whose: format!("the network at {}", route.interface) })
        })
}

/// A host name that can only be of the cluster: a service's.
fn of_cluster(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host.parse::<IpAddr>().is_ok()
        || host.matches('.').count() < 2
        || host.ends_with(".svc")
        || host.contains(".svc.")
        || host.contains(".pod.")
}

fn overlaps(facts: &Facts, cluster: &KubernetesFacts) -> Vec<Check> {
    let id = "kubernetes.overlap";
    let (pods, services) = (pod_ranges(cluster), service_ranges(cluster));
    let mut found: Vec<Check> = Vec::new();
    let mut add = |one: &Range, other: &Range| {
        let show = |range: &Range| format!("{} of {}", range.cidr, range.whose);
        let seen = format!("{} and {} overlap", show(one), show(other));
        let next = "Give pods, services and hosts ranges that have nothing in common; a cluster's can hardly be changed afterwards.";
        found.push(
            no(id, format!("{}, {}", one.cidr, other.cidr), CauseId::CidrOverlap, seen)
                .means("packets to the one are taken for packets to the other")
                .next(next),
        );
    };
    for service in &services {
        pods.iter().filter(|pods| pods.cidr.overlaps(service.cidr)).for_each(|pods| add(pods, service));
    }
    for node in cluster.nodes.get().into_iter().flatten() {
        for address in &node.addresses {
            let node = Range { cidr: Cidr::new(*address, u8::MAX), whose: format!("node {}", node.name) };
            let cluster = pods.iter().chain(&services);
            cluster.filter(|range| range.cidr.contains(*address)).for_each(|range| add(range, &node));
        }
    }
    // In a pod the link is the pod network's own.
    let host = on_host_network(facts, cluster) == Some(true);
    for link in links(facts) {
        let cluster = services.iter().chain(pods.iter().filter(|_| host));
        cluster.filter(|range| range.cidr.overlaps(link.cidr)).for_each(|range| add(range, &link));
    }
    for site in facts.sites.iter().filter(|site| site.proxy.is_none() && !of_cluster(&site.host)) {
        for connect in site.connects.iter().filter(|connect| connect.failure.is_some()) {
            let address = connect.address.ip();
            let controller = Range { cidr: Cidr::new(address, u8::MAX), whose: site.host.clone() };
            pods.iter()
                .chain(&services)
                .filter(|range| range.cidr.contains(address))
                .for_each(|range| add(range, &controller));
        }
    }
    found.truncate(MAX_SHOWN);
    let known = !pods.is_empty() && (!services.is_empty() || cluster.nodes.get().is_some());
    if found.is_empty() && known {
        let seen = "the ranges of pods, services and nodes do not overlap";
        found.push(Check::yes(id, CATEGORY, "", seen));
    }
    found
}

/// What the service account may not see.
fn unread(cluster: &KubernetesFacts) -> Option<String> {
    fn state<T>(asked: &Asked<T>) -> Option<String> {
        match asked {
            Asked::Forbidden => Some("forbidden".to_owned()),
            Asked::Failed(why) => Some(why.clone()),
            _ => None,
        }
    }
    let named = [
        ("nodes", state(&cluster.nodes)),
        ("kubeadm-config", state(&cluster.kubeadm)),
        ("network policies", state(&cluster.policies)),
    ];
    let named = named.into_iter().filter_map(|(what, why)| Some(format!("{what}: {}", why?)));
    let all: Vec<String> = named.chain(cluster.unread.iter().cloned()).collect();
    (!all.is_empty()).then(|| format!("not all of the cluster's configuration could be read ({})", all.join("; ")))
}

/// What is away from this node, by whether it can be reached; those of which that is not known are in neither.
struct Contrast<'a> {
    alive: Vec<&'a Peer>,
    dead: Vec<&'a Peer>,
    /// Somebody answers at an address of its own.
    direct: bool,
    /// Nobody does, and these should.
    silent: Vec<&'a Peer>,
}

fn contrast(cluster: &KubernetesFacts) -> Contrast<'_> {
    let of = |reached| move |peer: &&Peer| peer.is_away() && peer.reached() == Some(reached);
    let alive: Vec<_> = cluster.peers.iter().filter(of(true)).collect();
    let dead: Vec<_> = cluster.peers.iter().filter(of(false)).collect();
    let direct = alive.iter().any(|peer| peer.is_direct(cluster));
    let silent = |peer: &&Peer| !direct && peer.is_direct(cluster) && peer.reached() == Some(false);
    let silent = cluster.peers.iter().filter(silent).collect();
    Contrast { alive, dead, direct, silent }
}

/// Whether somebody beyond this node answers at an address of its own.
pub(in crate::probe) fn reaches_directly(cluster: &KubernetesFacts) -> bool {
    contrast(cluster).direct
}

/// Whether this pod's address is of a range that the cluster was set up with, so that it is not NAT by which services
/// answer.
fn of_the_cluster(facts: &Facts, cluster: &KubernetesFacts) -> bool {
    let nodes = cluster.nodes.get().into_iter().flatten().flat_map(|node| &node.pod_cidrs);
    let ranges: Vec<&Cidr> = pod_subnets(cluster).iter().chain(nodes).collect();
    own_addresses(facts, cluster).iter().any(|address| ranges.iter().any(|range| range.contains(*address)))
}

/// Whether the controller's address is a service's: those that answer then tell as much of it.
fn is_service(facts: &Facts, cluster: &KubernetesFacts) -> bool {
    let subnets = cluster.kubeadm.get().map_or(&[][..], |kubeadm| &kubeadm.service_subnets);
    let named = |host: &str| {
        let host = host.trim_end_matches('.');
        !host.is_empty() && (host.ends_with(".svc") || host.contains(".svc.") || !host.contains(['.', ':']))
    };
    let by_address = |address: &SocketAddr| subnets.iter().any(|subnet| subnet.contains(address.ip()));
    cluster.service.is_some()
        || facts.sites.iter().any(|site| named(&site.host))
        || wanted(facts).first().is_some_and(by_address)
}

fn names(peers: &[&Peer]) -> String {
    let mut names: Vec<&str> = peers.iter().map(|peer| peer.role.name()).collect();
    names.dedup();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => (*last).to_owned(),
        None => String::new(),
    }
}

/// `the API server answers`, `the API server and the cluster's DNS answer`.
fn answer(peers: &[&Peer]) -> String {
    let several = peers.iter().any(|peer| peer.role != peers[0].role);
    format!("{} {}", names(peers), if several { "answer" } else { "answers" })
}

/// Confirms or replaces the verdict that the other checks came to; `checks` holds all of them, those of [`evaluate`]
/// included.
///
/// Where the cluster explains better why the network fails, the checks that accuse a symptom accuse that cause instead.
pub fn judge(facts: &Facts, checks: &mut [Check], verdict: Verdict) -> Verdict {
    let Some(cluster) = &facts.kubernetes else { return verdict };
    let is = |cause: CauseId| verdict.id == cause.id();
    let dns = is(CauseId::DnsServerDead);
    let silent = dns || is(CauseId::TcpTimeout) || is(CauseId::HostUnreachable) || is(CauseId::NetworkUnreachable);
    let blocked = is(CauseId::AgentPortBlocked);
    if !(silent || blocked || is(CauseId::TcpRefused)) {
        return verdict;
    }
    let replacement = replacement(facts, cluster, checks, &verdict, silent, dns);
    let Some((cause, confidence, sentence, next)) = replacement else { return verdict };
    for check in checks.iter_mut() {
        if check.cause == Some(cause) {
            check.warning = false;
        } else if check.accuses().is_some_and(is_symptom) {
            check.cause = Some(cause);
        }
    }
    Verdict::of(cause, confidence, sentence, next)
}

/// What a network at fault shows as.
fn is_symptom(cause: CauseId) -> bool {
    matches!(
        cause,
        CauseId::TcpTimeout
            | CauseId::TcpRefused
            | CauseId::TcpSlow
            | CauseId::HostUnreachable
            | CauseId::NetworkUnreachable
            | CauseId::AddressDead
            | CauseId::Ipv6Dead
            | CauseId::DnsServerDead
            | CauseId::AgentPortBlocked
    )
}

fn replacement(
    facts: &Facts,
    cluster: &KubernetesFacts,
    checks: &[Check],
    verdict: &Verdict,
    silent: bool,
    dns: bool,
) -> Option<(CauseId, Confidence, String, String)> {
    let failed = |cause: CauseId| {
        checks.iter().find(move |c| c.category == CATEGORY && c.outcome == Outcome::No && c.cause == Some(cause))
    };
    let told = |check: &Check, cause, confidence| {
        let means = if check.means.is_empty() { String::new() } else { format!(": {}", check.means) };
        (cause, confidence, sentence(&format!("{}{means}", check.seen)), check.next_step.clone())
    };
    let host = on_host_network(facts, cluster) == Some(true);
    let Contrast { alive, dead, direct, silent: silent_peers } = contrast(cluster);
    let nothing = alive.is_empty() && !dead.is_empty();
    let policy = checks.iter().find(|check| check.id == "kubernetes.network-policy");

    if let Some(check) = failed(CauseId::ControllerDead)
        && verdict.id != CauseId::AgentPortBlocked.id()
        && !dns
    {
        return Some(told(check, CauseId::ControllerDead, Confidence::Certain));
    }
    if silent && !host {
        let of_pod = |check: &Check| check.id == "kubernetes.pod-range";
        // In a network that is not known, an address is told wrong by what the cluster was set up with alone: somebody
        // who answers it directly knows better.
        let unfounded = |check: &Check| of_pod(check) && cluster.networks.is_empty() && direct;
        if let Some(check) = failed(CauseId::PodCidrMismatch).filter(|check| !unfounded(check)) {
            let own = checks.iter().any(|check| of_pod(check) && check.outcome == Outcome::No);
            let certain = nothing || (own && !cluster.networks.is_empty());
            let confidence = if certain { Confidence::Certain } else { Confidence::Likely };
            return Some(told(check, CauseId::PodCidrMismatch, confidence));
        }
        let wanted = wanted(facts);
        let touching = checks.iter().filter(|check| check.cause == Some(CauseId::CidrOverlap)).find(|check| {
            let ranges = super::cidr::list(&check.target);
            wanted.iter().any(|address| ranges.iter().any(|range| range.contains(address.ip())))
        });
        if let Some(check) = touching.or_else(|| failed(CauseId::CidrOverlap).filter(|_| nothing)) {
            return Some(told(check, CauseId::CidrOverlap, Confidence::Likely));
        }
        if nothing {
            // A policy that forbids everything looks the same.
            let forbidden = |peer: &&&Peer| allowed(cluster, peer.address) == Some(false);
            if let Some(check) = failed(CauseId::NetworkPolicy)
                && dead.iter().filter(forbidden).count() == dead.len()
            {
                return Some(told(check, CauseId::NetworkPolicy, Confidence::Certain));
            }
            let several = dead.iter().any(|peer| peer.role != dead[0].role);
            let certain = several && no_policy(cluster);
            let node = cluster.peers.iter().any(|peer| peer.role == Role::Node && peer.reached() == Some(true));
            let but = if node { ", only its own node" } else { "" };
            let or = if certain { "" } else { "; a network policy that forbids everything would look the same" };
            return Some((
                CauseId::PodNetworkDead,
                if certain { Confidence::Certain } else { Confidence::Likely },
                format!("This pod's network is dead: neither the controller nor {} can be reached{but}{or}.", names(&dead)),
                "Look at the pods of the pod network (CNI) and of kube-proxy on this node, and compare with a pod on the host network: agent probe-pod."
                    .to_owned(),
            ));
        }
    }
    if dns || alive.is_empty() {
        return None;
    }
    let tried = wanted(facts);
    let target = tried.first().map_or_else(|| "the controller".to_owned(), SocketAddr::to_string);
    let selected = cluster.policies.get().into_iter().flatten().any(|policy| policy.selects == Some(true));
    match policy.map(|check| (check, check.outcome)) {
        Some((check, Outcome::No)) => return Some(told(check, CauseId::NetworkPolicy, Confidence::Certain)),
        Some((check, Outcome::Unknown)) if selected && verdict.id != CauseId::TcpRefused.id() => {
            return Some((
                CauseId::NetworkPolicy,
                Confidence::Likely,
                sentence(&format!("{}, {target} does not, and {}", answer(&alive), check.seen)),
                "Allow egress from this pod to the controller, HTTP port and agent port both, or show by agent probe-pod that the node can't reach it either."
                    .to_owned(),
            ));
        }
        _ => {}
    }
    if verdict.id == CauseId::AgentPortBlocked.id() {
        return no_such_port(facts, cluster);
    }
    let timeout = verdict.id == CauseId::TcpTimeout.id();
    if !timeout && verdict.id != CauseId::HostUnreachable.id() {
        return None;
    }
    let fault = "the controller is down, or a firewall or network policy before it drops packets";
    let of_the_cluster = of_the_cluster(facts, cluster);
    // Its own node, or the control plane, may drop what comes from pods for reasons of its own.
    let weak = silent_peers.iter().all(|peer| peer.role != Role::OtherPod);
    if timeout
        && !host
        && let Some(first) = silent_peers.first().filter(|_| !(weak && of_the_cluster))
    {
        let or = match (weak, no_policy(cluster)) {
            (true, _) => format!("; or else {} takes nothing from pods, and {fault}", first.role.name()),
            (false, true) => String::new(),
            (false, false) => "; a network policy might look the same".to_owned(),
        };
        return Some((
            CauseId::PodNetworkDead,
            if weak { Confidence::Possible } else { Confidence::Likely },
            sentence(&format!(
                "This pod's network is dead but for service addresses, which the node translates (NAT): {}, but neither {target} nor {} ({}) does{or}",
                answer(&alive),
                first.role.name(),
                first.address
            )),
            (if weak { DECIDE } else { LOOK }).to_owned(),
        ));
    }
    if host || direct || of_the_cluster {
        let works = if host { "The node's network works" } else { "The pod network works" };
        return Some((
            CauseId::ControllerDead,
            Confidence::Likely,
            sentence(&format!("{works} ({} can be reached), but {target} does not answer: {fault}", names(&alive))),
            "Check that the controller runs, and what filters packets on the way to it; agent probe-pod tells whether the node itself reaches it."
                .to_owned(),
        ));
    }
    if is_service(facts, cluster) {
        return Some((
            CauseId::ControllerDead,
            Confidence::Likely,
            sentence(&format!("{} at service addresses, and the controller's, {target}, does not: {fault}", answer(&alive))),
            "Check that the controller runs and that its service has a ready pod (kubectl get endpoints), and what filters packets on the way to it; agent probe-pod tells whether the node itself reaches it."
                .to_owned(),
        ));
    }
    timeout.then(|| {
        (
            CauseId::TcpTimeout,
            Confidence::Possible,
            sentence(&format!(
                "{target} does not answer, and only service addresses do ({}), which the node translates (NAT): {fault}, or this pod's network is dead for all but services",
                names(&alive)
            )),
            DECIDE.to_owned(),
        )
    })
}

/// The service that the controller's host name stands for lets the agent port not through.
fn no_such_port(facts: &Facts, cluster: &KubernetesFacts) -> Option<(CauseId, Confidence, String, String)> {
    let (service, port) = (cluster.service.as_ref()?, facts.agent_port.as_ref()?);
    let same_host = port.proxy.is_none() && facts.sites.iter().any(|site| site.host == port.host);
    if !same_host || service.ports.is_empty() || service.ports.contains(&port.port) {
        return None;
    }
    let ports: Vec<String> = service.ports.iter().map(u16::to_string).collect();
    let (name, wanted) = (format!("{}/{}", service.namespace, service.name), port.port);
    Some((
        CauseId::AgentPortBlocked,
        Confidence::Certain,
        format!(
            "HTTP works, but the controller's TCP port for agents is {wanted}, and service {name} has no port {wanted}, only {}.",
            ports.join(", ")
        ),
        format!(
            "Add port {wanted} to service {name}, or name the one that leads there with -tunnel {}:PORT, or connect with -webSocket.",
            port.host
        ),
    ))
}

/// A capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}
