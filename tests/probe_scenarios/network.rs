//! Network namespaces: agent - router - controller, joined by veth pairs.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::scenario::{self, Met};

const PREFIX: &str = "probe-test";

/// Three namespaces, which are gone when this is dropped.
pub struct Network {
    pub agent: String,
    pub router: String,
    pub controller: String,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The addresses of the controller's host.
const HOSTS: [&str; 7] =
    ["10.2.0.2/24", "10.2.0.3/24", "10.2.0.4/24", "10.2.0.43/24", "10.2.0.53/24", "10.2.0.54/24", "10.2.0.80/24"];

impl Network {
    pub fn create(settings: &scenario::Network) -> io::Result<Network> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |part| format!("{PREFIX}-{}-{number}-{part}", std::process::id());
        let network = Network { agent: name("agent"), router: name("router"), controller: name("controller") };
        let Network { agent, router, controller } = &network;
        batch(&format!(
            "netns add {agent}\nnetns add {router}\nnetns add {controller}\n\
             link add eth0 netns {agent} type veth peer name near netns {router}\n\
             link add eth0 netns {controller} type veth peer name far netns {router}\n"
        ))?;
        let (address, gateway) = (settings.agent, settings.gateway());
        let default = match settings.default_route {
            true => format!("route add default via {gateway}\nroute add default via 2001:db8:1::1\n"),
            false => String::new(),
        };
        inside(agent, || {
            batch(&format!(
                "link set lo up\nlink set eth0 up\naddr add {address}/24 dev eth0\n\
                 addr add 2001:db8:1::2/64 dev eth0 nodad\n{default}"
            ))
        })?;
        inside(router, || {
            // Errors are limited to one a second and target otherwise.
            for (name, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv4/icmp_ratelimit", "0"),
                ("ipv6/icmp/ratelimit", "0"),
            ] {
                fs::write(format!("/proc/sys/net/{name}"), value)?;
            }
            let mtu =
                |side, mtu: Option<u32>| mtu.map_or_else(String::new, |mtu| format!("link set {side} mtu {mtu}\n"));
            let mtu = mtu("far", settings.path_mtu) + &mtu("near", settings.path_mtu_back);
            batch(&format!(
                "link set lo up\nlink set near up\nlink set far up\naddr add {gateway}/24 dev near\n\
                 addr add 10.2.0.1/24 dev far\naddr add 2001:db8:1::1/64 dev near nodad\n\
                 addr add 2001:db8:2::1/64 dev far nodad\n{mtu}"
            ))?;
            nft(&rules(settings))
        })?;
        let addresses: String = HOSTS.iter().map(|host| format!("addr add {host} dev eth0\n")).collect();
        inside(controller, || {
            batch(&format!(
                "link set lo up\nlink set eth0 up\n{addresses}addr add 2001:db8:2::2/64 dev eth0 nodad\n\
                 route add default via 10.2.0.1\nroute add default via 2001:db8:2::1\n"
            ))
        })?;
        Ok(network)
    }

    /// Files that programs started with `ip netns exec` at the agent's place or on the router see in `/etc`.
    pub fn etc(&self, file: &str, content: &str) -> io::Result<()> {
        for name in [&self.agent, &self.router] {
            let directory = etc(name);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join(file), content)?;
        }
        Ok(())
    }

    /// What an attempt to connect from the agent's place meets.
    pub fn connect(&self, to: &str, expected: Met) -> io::Result<Met> {
        let to: SocketAddr = to.parse().map_err(io::Error::other)?;
        // It takes the router three seconds to find that nobody has an address.
        let wait = Duration::from_millis(if expected == Met::Timeout { 1500 } else { 5000 });
        inside(&self.agent, move || {
            use io::ErrorKind as K;
            Ok(match TcpStream::connect_timeout(&to, wait) {
                Ok(_) => Met::Open,
                Err(error) => match error.kind() {
                    K::ConnectionRefused => Met::Refused,
                    K::TimedOut => Met::Timeout,
                    K::HostUnreachable => Met::HostUnreachable,
                    K::NetworkUnreachable => Met::NetworkUnreachable,
                    _ => return Err(error),
                },
            })
        })
    }

    /// The rules of the router that nothing has hit.
    pub fn unhit(&self) -> io::Result<Vec<String>> {
        let listing = inside(&self.router, || run(Command::new("nft").args(["-j", "list", "table", "inet", "fault"])))?;
        let listing: serde_json::Value = serde_json::from_str(&listing)?;
        let rules = listing["nftables"].as_array().into_iter().flatten().filter_map(|entry| entry.get("rule"));
        let unhit = rules.filter(|rule| {
            let counters = rule["expr"].as_array().into_iter().flatten().filter_map(|part| part.get("counter"));
            counters.into_iter().any(|counter| counter["packets"] == 0)
        });
        Ok(unhit.map(|rule| rule["comment"].as_str().unwrap_or_default().to_owned()).collect())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [&self.agent, &self.router, &self.controller] {
            remove(name);
        }
    }
}

fn etc(name: &str) -> PathBuf {
    PathBuf::from("/etc/netns").join(name)
}

fn remove(name: &str) {
    if let Err(error) = batch(&format!("netns delete {name}\n")) {
        eprintln!("cannot remove the namespace {name}: {error}");
    }
    let _ = fs::remove_dir_all(etc(name));
}

/// Removes what a run that was killed has left.
pub fn remove_stale() {
    let names = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    for name in names.filter_map(|entry| entry.file_name().into_string().ok()) {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1));
        if owner.is_some_and(|pid| !PathBuf::from("/proc").join(pid).exists()) {
            remove(&name);
        }
    }
}

/// Why there can be no namespaces here; `None` if there can.
pub fn hindrance() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    for (program, argument) in [("ip", "-V"), ("nft", "--version")] {
        if let Err(error) = run(Command::new(program).arg(argument)) {
            return Some(error.to_string());
        }
    }
    let settings = scenario::Network { router: vec!["tcp dport 1 drop".to_owned()], ..scenario::Network::default() };
    let network = match Network::create(&settings) {
        Ok(network) => network,
        Err(error) => return Some(error.to_string()),
    };
    // It makes a mount namespace too.
    run(Command::new("ip").args(["netns", "exec", &network.agent, "true"])).err().map(|error| error.to_string())
}

fn rules(settings: &scenario::Network) -> String {
    let counted = |rule: &String| {
        let verdict =
            [" drop", " reject", " masquerade"].iter().find_map(|verdict| rule.find(verdict)).unwrap_or(rule.len());
        let (condition, verdict) = rule.split_at(verdict);
        format!("{condition} counter{verdict} comment \"{}\"\n", rule.replace('"', "'"))
    };
    let forward: String = settings.router.iter().map(counted).collect();
    let agent = settings.agent;
    let masqueraded = settings.masqueraded.iter().map(|to| format!("ip saddr {agent} ip daddr {to} masquerade"));
    let postrouting: String = masqueraded.map(|rule| counted(&rule)).collect();
    // Without a counter: a peer that sends nothing large gives no cause to complain.
    let silent = match settings.path_mtu.or(settings.path_mtu_back) {
        Some(_) => "icmp type destination-unreachable drop\nicmpv6 type packet-too-big drop\n",
        None => "",
    };
    format!(
        "table inet fault {{\nchain forward {{\ntype filter hook forward priority 0\n{forward}}}\n\
         chain postrouting {{\ntype nat hook postrouting priority 100\n{postrouting}}}\n\
         chain output {{\ntype filter hook output priority 0\n{silent}}}\n}}\n"
    )
}

/// Runs `body` on a thread inside a namespace. Threads and processes that it starts are there too.
pub fn inside<T: Send>(name: &str, body: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter(name)?;
            body()
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("panicked")))
    })
}

/// Moves this thread into a namespace.
pub fn enter(name: &str) -> io::Result<()> {
    let namespace = fs::File::open(PathBuf::from("/run/netns").join(name))?;
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn batch(commands: &str) -> io::Result<()> {
    feed(Command::new("ip").args(["-batch", "-"]), commands)
}

fn nft(rules: &str) -> io::Result<()> {
    feed(Command::new("nft").args(["-f", "-"]), rules)
}

fn feed(command: &mut Command, input: &str) -> io::Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{command:?}: {}\n{input}", complaint.trim())))
}

fn run(command: &mut Command) -> io::Result<String> {
    let name = format!("{command:?}");
    let output = command.output().map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("{name}: {}", complaint.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
