//! Facts about the machine, under the names that Java has for them.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

/// What a fact about the machine could not be read from.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// A file of `/proc` can't be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// There is nothing of what was looked for in it (the text is `ProcMemInfo`'s).
    #[error("No information found in {0}")]
    Nothing(&'static str),
}

fn read(path: &'static str) -> Result<String, SystemError> {
    std::fs::read_to_string(path).map_err(|source| SystemError::Read { path, source })
}

/// Java's `os.name`.
pub const OS_NAME: &str = "Linux";

/// Java's `java.io.tmpdir`, which does not depend on `TMPDIR`.
pub const TMPDIR: &str = "/tmp";

/// Java's `os.arch`: what the JDK calls the processor.
pub fn os_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "i386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        other => other,
    }
}

/// Java's `os.version`: the release of the kernel.
pub fn os_version() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The name of the machine.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// `org.jvnet.hudson.MemoryUsage`, in bytes; -1 where the system doesn't tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUsage {
    /// `MemTotal`.
    pub total_physical: i64,
    /// `MemFree` (not `MemAvailable`: `org.jvnet.hudson.ProcMemInfo` of extras-memory-monitor reads the former to this day).
    pub available_physical: i64,
    /// `SwapTotal`.
    pub total_swap: i64,
    /// `SwapFree`.
    pub available_swap: i64,
}

/// Memory and swap of the machine, for `SwapSpaceMonitor`.
///
/// # Errors
/// When `/proc/meminfo` can't be read or has none of it.
pub fn memory() -> Result<MemoryUsage, SystemError> {
    parse_meminfo(&read("/proc/meminfo")?).ok_or(SystemError::Nothing("/proc/meminfo"))
}

/// The bytes of a line such as `MemTotal:  16 kB`.
fn sized_line(text: &str, header: &str) -> Option<i64> {
    let value = text.lines().find_map(|line| line.strip_prefix(header))?;
    let mut words = value.split_ascii_whitespace();
    let number: i64 = words.next()?.parse().ok()?;
    let unit = match words.next().map(str::to_ascii_lowercase).as_deref() {
        Some("kb") => 1 << 10,
        Some("mb") => 1 << 20,
        Some("gb") => 1 << 30,
        _ => 1,
    };
    number.checked_mul(unit)
}

fn parse_meminfo(text: &str) -> Option<MemoryUsage> {
    let values = ["MemTotal:", "MemFree:", "SwapTotal:", "SwapFree:"].map(|header| sized_line(text, header));
    values.iter().any(Option::is_some).then(|| {
        let [total_physical, available_physical, total_swap, available_swap] = values.map(|value| value.unwrap_or(-1));
        MemoryUsage { total_physical, available_physical, total_swap, available_swap }
    })
}

/// The agent's resident memory in bytes.
///
/// # Errors
/// When `/proc/self/status` can't be read.
pub fn resident_bytes() -> Result<u64, SystemError> {
    let path = "/proc/self/status";
    sized_line(&read(path)?, "VmRSS:").and_then(|bytes| bytes.try_into().ok()).ok_or(SystemError::Nothing(path))
}

/// The processor time that the agent has used, that of its children left out.
pub fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// `Computer$ListPossibleNames`: the machine's IPv4 addresses but for loopback, in numeric order (Java's order is that of
/// the interfaces). Where the kernel doesn't list them, the one that packets to elsewhere leave from.
pub fn ipv4_addresses() -> Vec<Ipv4Addr> {
    let listed = read("/proc/net/fib_trie").map(|text| parse_fib_trie(&text));
    match listed {
        Ok(addresses) if !addresses.is_empty() => addresses.into_iter().collect(),
        _ => default_address().into_iter().collect(),
    }
}

/// The local addresses in `/proc/net/fib_trie`: a line `|-- ADDRESS`, and below it `/32 host LOCAL`.
fn parse_fib_trie(text: &str) -> BTreeSet<Ipv4Addr> {
    let mut addresses = BTreeSet::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in text.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line == "/32 host LOCAL" {
            addresses.extend(last.filter(|address| !address.is_loopback()));
        }
    }
    addresses
}

fn default_address() -> Option<Ipv4Addr> {
    // Connecting a UDP socket chooses a route and sends nothing. The address is TEST-NET-1 (RFC 5737).
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()?.ip() {
        std::net::IpAddr::V4(address) if !address.is_loopback() => Some(address),
        _ => None,
    }
}

/// The user that the agent runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The real user id.
    pub uid: u32,
    /// Java's `user.name`; `?` when `/etc/passwd` has no entry, which is usual under OpenShift.
    pub name: String,
    /// Java's `user.home`: of `/etc/passwd`; `HOME` where that has no entry or one of at most one character (JDK-8280357);
    /// else `?`.
    pub home: String,
}

/// The user that the agent runs as. Directory services beside `/etc/passwd` are not asked.
pub fn user() -> User {
    let uid = rustix::process::getuid().as_raw();
    let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
    let home = std::env::var_os("HOME").map(|home| home.to_string_lossy().into_owned());
    user_from(uid, &String::from_utf8_lossy(&passwd), home)
}

fn user_from(uid: u32, passwd: &str, home_variable: Option<String>) -> User {
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.len() >= 6 && fields[2].parse() == Ok(uid)).then(|| (fields[0], fields[5]))
    });
    let home = entry
        .map(|(_, home)| home.to_owned())
        .filter(|home| home.len() > 1)
        .or(home_variable.filter(|home| !home.is_empty()))
        .unwrap_or_else(|| "?".to_owned());
    let name = entry.map_or("?", |(name, _)| name).to_owned();
    User { uid, name, home }
}

/// What the agent shows as its system properties (`RemotingDiagnostics$GetSystemProperties`), ordered by name.
///
/// Only what is true of it: no `java.version` and nothing else of a virtual machine.
pub fn properties() -> Vec<(&'static str, String)> {
    let user = user();
    let directory = std::env::current_dir().unwrap_or_default();
    vec![
        ("file.encoding", "UTF-8".to_owned()),
        ("file.separator", "/".to_owned()),
        ("java.io.tmpdir", TMPDIR.to_owned()),
        ("line.separator", "\n".to_owned()),
        ("native.encoding", "UTF-8".to_owned()),
        ("os.arch", os_arch().to_owned()),
        ("os.name", OS_NAME.to_owned()),
        ("os.version", os_version()),
        ("path.separator", ":".to_owned()),
        ("sun.jnu.encoding", "UTF-8".to_owned()),
        ("user.dir", directory.to_string_lossy().into_owned()),
        ("user.home", user.home),
        ("user.name", user.name),
    ]
}

/// The agent's threads for `RemotingDiagnostics$GetThreadDump`: a name that occurs once, and what the kernel knows.
pub fn thread_dump() -> Vec<(String, String)> {
    let mut ids: Vec<u32> = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids.into_iter().filter_map(describe_thread).collect()
}

fn describe_thread(id: u32) -> Option<(String, String)> {
    // A thread may end at any time; it is left out then.
    let status = std::fs::read_to_string(format!("/proc/self/task/{id}/status")).ok()?;
    let field = |header: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(header));
        value.map_or("?", str::trim)
    };
    let wchan = std::fs::read_to_string(format!("/proc/self/task/{id}/wchan")).unwrap_or_default();
    let name = field("Name:");
    let mut text = format!(
        "\"{name}\" Id={id} {}\n\tcontext switches: {} voluntary, {} involuntary\n",
        field("State:"),
        field("voluntary_ctxt_switches:"),
        field("nonvoluntary_ctxt_switches:"),
    );
    if !matches!(wchan.as_str(), "" | "0") {
        text.push_str(&format!("\tin {wchan}\n"));
    }
    Some((format!("{name} #{id}"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_as_proc_mem_info_reads_it() {
        let text = "MemTotal:       16 kB\nMemFree:  2 MB\nMemAvailable: 9 kB\nSwapFree:  7\n";
        let expected =
            MemoryUsage { total_physical: 16 << 10, available_physical: 2 << 20, total_swap: -1, available_swap: 7 };
        assert_eq!(parse_meminfo(text), Some(expected));
        assert_eq!(parse_meminfo("MemAvailable: 9 kB\n"), None);
        assert_eq!(parse_meminfo("MemTotal: 9223372036854775807 kB\n"), None);
        let real = memory().unwrap();
        assert!(0 < real.available_physical && real.available_physical < real.total_physical);
    }

    #[test]
    fn resident_memory_is_plausible() {
        let bytes = resident_bytes().unwrap();
        assert!((1 << 20..1 << 34).contains(&bytes), "{bytes}");
    }

    #[test]
    fn local_addresses_of_a_fib_trie() {
        let text = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.2.255\n        /32 link BROADCAST\n        +-- 127.0.0.0/31 1 0 0\n           |-- 127.0.0.1\n              /32 host LOCAL\nLocal:\n     |-- 10.1.2.3\n        /32 host LOCAL\n     |-- nonsense\n        /32 host LOCAL\n";
        let addresses: Vec<Ipv4Addr> = parse_fib_trie(text).into_iter().collect();
        assert_eq!(addresses, [Ipv4Addr::new(10, 1, 2, 3)]);
        assert!(ipv4_addresses().iter().all(|address| !address.is_loopback()));
    }

    #[test]
    fn users_as_java_names_them() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\njenkins:x:1000:1000::/home/jenkins:\nnohome:x:7:7::/:\n";
        for (uid, variable, name, home) in [
            (1000, Some("/elsewhere"), "jenkins", "/home/jenkins"),
            (7, Some("/elsewhere"), "nohome", "/elsewhere"),
            (7, None, "nohome", "?"),
            (1000680000, Some("/elsewhere"), "?", "/elsewhere"),
            (1000680000, None, "?", "?"),
            (1000680000, Some(""), "?", "?"),
        ] {
            let user = user_from(uid, passwd, variable.map(str::to_owned));
            assert_eq!((user.name.as_str(), user.home.as_str()), (name, home));
        }
    }

    #[test]
    fn properties_are_ordered_and_whole() {
        let properties = properties();
        assert!(properties.is_sorted_by(|a, b| a.0 < b.0));
        assert!(properties.iter().all(|(_, value)| !value.is_empty()));
        if cfg!(target_arch = "x86_64") {
            assert!(properties.contains(&("os.arch", "amd64".to_owned())));
        }
    }

    #[test]
    fn threads_have_names_that_occur_once() {
        let name = "dump-me";
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let threads: Vec<_> = [wait]
            .into_iter()
            .map(|wait| std::thread::Builder::new().name(name.to_owned()).spawn(move || wait.recv()).unwrap())
            .collect();
        // The name is set by the thread itself when it starts.
        let dump = loop {
            let dump = thread_dump();
            if dump.iter().any(|(thread, _)| thread.starts_with(name)) {
                break dump;
            }
        };
        let names: BTreeSet<&String> = dump.iter().map(|(thread, _)| thread).collect();
        assert_eq!(names.len(), dump.len());
        assert!(dump.iter().all(|(_, text)| text.contains(" Id=")));
        drop(go);
        for thread in threads {
            let _ = thread.join().unwrap();
        }
    }
}
