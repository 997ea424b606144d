//! The machine or pod: addresses, routes, name servers, work directory, clock.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, access, statvfs};

use super::names::{read, resolv_conf};
use super::{Clock, Target};
use crate::probe::facts::{Environment, Interface, Route, WorkDir};
use crate::probe::system;

pub(super) use crate::probe::system::route_to;

/// How long a file system may take to answer: one over the network may be dead.
const FILES: Duration = Duration::from_secs(3);

/// No more interfaces and routes are kept: what matters on a node with thousands of pods are those to the controller.
const MAX_KEPT: usize = 64;

pub(super) async fn gather(target: &Target, clock: Clock) -> Environment {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut environment = Environment {
        in_pod: target.in_pod,
        host_name: read("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()),
        uid: rustix::process::geteuid().as_raw(),
        home: std::env::var("HOME").ok(),
        work_dir: None,
        interfaces: interfaces(),
        routes: routes(),
        resolv_conf: resolv_conf(),
        clock_ms: since_1970.as_millis() as i64,
    };
    environment.interfaces.truncate(MAX_KEPT);
    environment.routes.truncate(MAX_KEPT);
    if let Some(path) = target.work_dir.clone() {
        let shown = path.display().to_string();
        let looked = clock.within(FILES, tokio::task::spawn_blocking(move || work_dir(&path))).await;
        environment.work_dir = Some(match looked {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => WorkDir { path: shown, problem: Some(error.to_string()), free: None },
            Err(failure) => {
                let problem = Some(format!("its file system does not answer: {}", failure.message));
                WorkDir { path: shown, problem, free: None }
            }
        });
    }
    environment
}

/// A directory that is not there yet is made at a start, so that the nearest one above it counts.
fn work_dir(path: &Path) -> WorkDir {
    let mut found = WorkDir { path: path.display().to_string(), problem: None, free: None };
    let Some(existing) = path.ancestors().find(|ancestor| ancestor.exists()) else {
        found.problem = Some("it does not exist".to_owned());
        return found;
    };
    if !existing.is_dir() {
        found.problem = Some(format!("{} is not a directory", existing.display()));
        return found;
    }
    if let Err(error) = access(existing, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        let error = std::io::Error::from(error);
        found.problem = Some(format!("{} can't be written to by this user: {error}", existing.display()));
    }
    if let Ok(fs) = statvfs(existing) {
        found.free = Some(fs.f_bavail.saturating_mul(fs.f_frsize));
    }
    found
}

/// The routing tables of both families.
pub(super) fn routes() -> Vec<Route> {
    let mut routes = read("/proc/net/route").map(|text| system::routes_v4(&text)).unwrap_or_default();
    routes.extend(read("/proc/net/ipv6_route").map(|text| system::routes_v6(&text)).unwrap_or_default());
    routes
}

fn interfaces() -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = Vec::new();
    for entry in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == "lo" {
            continue;
        }
        let of = |what: &str| read(&format!("/sys/class/net/{name}/{what}")).map(|text| text.trim().to_owned());
        let (mtu, state) = (of("mtu").and_then(|mtu| mtu.parse().ok()), of("operstate"));
        interfaces.push(Interface { name, addresses: Vec::new(), mtu, state });
    }
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    let mut add = |name: &str, address: IpAddr| match interfaces.iter_mut().find(|known| known.name == name) {
        Some(known) => known.addresses.push(address),
        None => interfaces.push(Interface { name: name.to_owned(), addresses: vec![address], ..Interface::default() }),
    };
    let routes = read("/proc/net/route").map(|text| system::routes_v4(&text)).unwrap_or_default();
    for address in read("/proc/net/fib_trie").map(|text| system::addresses_v4(&text)).unwrap_or_default() {
        // The kernel's table does not say which interface has an address; the route to its own network does.
        let on_link: Vec<Route> =
            routes.iter().filter(|route| route.gateway.is_none() && route.prefix > 0).cloned().collect();
        let interface = system::route_to(address.into(), &on_link).map_or("?", |route| &route.interface);
        add(interface, address.into());
    }
    for (interface, address) in read("/proc/net/if_inet6").map(|text| system::addresses_v6(&text)).unwrap_or_default() {
        add(&interface, address.into());
    }
    interfaces
}

/// Whether the next hop has answered to ARP; IPv6's neighbours are not in `/proc`.
pub(super) fn answers_arp(hop: IpAddr, interface: &str) -> Option<bool> {
    let IpAddr::V4(hop) = hop else { return None };
    system::answers_arp(&read("/proc/net/arp")?, hop, interface)
}

/// What the kernel still has to send over a connection, and how often it has sent the same again.
pub(super) fn unacknowledged(socket: impl AsFd) -> Option<(u64, u32)> {
    let socket = socket2::SockRef::from(&socket);
    let local = canonical(socket.local_addr().ok()?.as_socket()?);
    let remote = canonical(socket.peer_addr().ok()?.as_socket()?);
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .find_map(|table| system::unacknowledged(&read(table)?, local, remote))
}

fn canonical(address: std::net::SocketAddr) -> std::net::SocketAddr {
    std::net::SocketAddr::new(address.ip().to_canonical(), address.port())
}
