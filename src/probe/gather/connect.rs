//! TCP connections to single addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use rustix::net::sockopt;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Clock, environment};
use crate::probe::facts::{Connect, NextHop, Route};

/// How long a connection may take: the kernel asks again after 1 s and after 3 s.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// No more addresses of one name are tried.
const MAX_ADDRESSES: usize = 8;

/// Tries every address at once.
pub(super) async fn all(addresses: &[IpAddr], port: u16, clock: Clock) -> Vec<(Connect, Option<TcpStream>)> {
    let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let mut all = join_all(addresses.iter().map(|&ip| one(SocketAddr::new(ip, port), CONNECT, clock))).await;
    let routes = environment::routes();
    for (connect, _) in &mut all {
        // What goes to this host itself takes no route of the main table.
        let to = connect.address.ip();
        connect.next_hop = if connect.source == Some(to) { None } else { next_hop(to, &routes) };
    }
    all
}

/// Tries one address.
pub(super) async fn one(address: SocketAddr, limit: Duration, clock: Clock) -> (Connect, Option<TcpStream>) {
    let begun = Instant::now();
    let mut connect = Connect { address, source: None, failure: None, ms: 0, path_mtu: None, next_hop: None };
    let connected = match clock.within(clock.no_more_than_half(limit), TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err((&error).into()),
        Err(failure) => Err(failure),
    };
    connect.ms = begun.elapsed().as_millis() as u64;
    match connected {
        Ok(stream) => {
            connect.source = stream.local_addr().ok().map(|source| source.ip());
            connect.path_mtu = path_mtu(&stream, address);
            (connect, Some(stream))
        }
        Err(failure) => {
            connect.failure = Some(failure);
            connect.source = source(address);
            (connect, None)
        }
    }
}

/// The path's MTU, as far as the kernel knows.
pub(super) fn path_mtu(socket: impl std::os::fd::AsFd, address: SocketAddr) -> Option<u32> {
    if address.is_ipv4() { sockopt::ip_mtu(socket).ok() } else { sockopt::ipv6_mtu(socket).ok() }
}

/// The address from which the kernel would send there. Nothing is sent.
fn source(to: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|source| source.ip())
}

/// The route that the kernel takes: the longest prefix, then the lowest metric.
pub(super) fn next_hop(to: IpAddr, routes: &[Route]) -> Option<NextHop> {
    let route = environment::route_to(to, routes)?;
    let hop = route.gateway.unwrap_or(to);
    Some(NextHop {
        gateway: route.gateway,
        interface: route.interface.clone(),
        answers_arp: environment::answers_arp(hop, &route.interface),
    })
}
