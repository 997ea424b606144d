//! Small callables of plugins that ask something of each agent: kubernetes, opentelemetry, support-core.
//!
//! Left out for their answers' sake: platformlabeler's `PlatformDetails` (a `serialVersionUID` that the JVM computed
//! until lately; the plugin bears the exception), and support-core's `SmartLogFetcher`, `SaveBundle` and
//! `CommandLauncher`.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::Ordering;

use md5::{Digest, Md5};

use super::connect::no_log_records;
use super::diagnostics::system_properties;
use super::environment::full_environment;
use super::{Call, Entry, Reply, Run, Throw};
use crate::REMOTING_VERSION;
use crate::object::{Graph, NodeId};
use crate::process::system;

const fn kubernetes(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "kubernetes", run }
}

const fn opentelemetry(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "opentelemetry", run }
}

const fn support(class: &'static str, run: Run) -> Entry {
    Entry { class, owner: "support-core", run }
}

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    kubernetes("org.csanchez.jenkins.plugins.kubernetes.KubernetesSlave$SlaveDisconnector", Run::Inline(disconnect)),
    opentelemetry(
        "io.jenkins.plugins.opentelemetry.computer.MonitoringComputerListener$GetComputerAttributes",
        Run::Blocking(computer_attributes),
    ),
    // Sets up tracing of Java code on the agent.
    opentelemetry(
        "io.jenkins.plugins.opentelemetry.jenkins.OpenTelemetryConfigurerComputerListener$OpenTelemetryConfigurerMasterToSlaveCallable",
        Run::Inline(null),
    ),
    // These three are about java.util.logging records, of which there are none.
    support("com.cloudbees.jenkins.support.SupportPlugin$LogInitializer", Run::Inline(null)),
    support("com.cloudbees.jenkins.support.SupportPlugin$LogUpdater", Run::Inline(null)),
    support("com.cloudbees.jenkins.support.SupportPlugin$LogFetcher", Run::Inline(no_log_records)),
    support(
        "com.cloudbees.jenkins.support.impl.AboutJenkins$GetAgentVersion",
        Run::Inline(|call| Ok(call.string(REMOTING_VERSION))),
    ),
    support("com.cloudbees.jenkins.support.impl.AboutJenkins$GetJavaInfo", Run::Inline(java_info)),
    support("com.cloudbees.jenkins.support.impl.AboutJenkins$GetAgentDigest", Run::Blocking(agent_digest)),
    support(
        "com.cloudbees.jenkins.support.impl.SystemProperties$GetSystemProperties",
        Run::Blocking(system_properties),
    ),
    support(
        "com.cloudbees.jenkins.support.impl.EnvironmentVariables$GetEnvironmentVariables",
        Run::Inline(full_environment),
    ),
    support("com.cloudbees.jenkins.support.impl.ThreadDumps$GetThreadDump", Run::Blocking(thread_dump)),
    support("com.cloudbees.jenkins.support.impl.FileDescriptorLimit$GetUlimit", Run::Blocking(limits)),
    support("com.cloudbees.jenkins.support.impl.NetworkInterfaces$GetNetworkInterfaces", Run::Blocking(interfaces)),
    support("com.cloudbees.jenkins.support.impl.RootCAs$GetRootCA", Run::Inline(root_cas)),
    support("com.cloudbees.jenkins.support.impl.SystemConfiguration$GetDmiInfo", Run::Blocking(dmi_info)),
    support("com.cloudbees.jenkins.support.util.SystemPlatform$GetCurrentPlatform", Run::Inline(platform)),
];

fn null(call: &Call) -> Result<Reply, Throw> {
    Ok(call.null())
}

fn disconnect(call: &Call) -> Result<Reply, Throw> {
    call.agent().no_reconnect.store(true, Ordering::Relaxed);
    Ok(call.null())
}

fn computer_attributes(call: &Call) -> Result<Reply, Throw> {
    let (name, addresses) = (system::hostname(), system::ipv4_addresses());
    Ok(call.reply(|graph| attributes(graph, &name, addresses.first())))
}

fn attributes(graph: &mut Graph, name: &str, address: Option<&Ipv4Addr>) -> NodeId {
    let mut entries = vec![(Some(graph.string("host.name")), Some(graph.string(name)))];
    if let Some(address) = address {
        entries.push((Some(graph.string("host.ip")), Some(graph.string(&address.to_string()))));
    }
    graph.hash_map(&entries)
}

fn java_info(call: &Call) -> Result<Reply, Throw> {
    let memory = system::resident_bytes().map_or_else(|_| "unknown".to_owned(), |bytes| format!("{} KiB", bytes >> 10));
    let [major, minor] = ["maj", "min"].map(|field| match call.view().string(field) {
        Ok(Some(bullet)) => bullet.into_owned(),
        _ => "-".to_owned(),
    });
    Ok(call.string(&format!(
        "{major} Java\n{minor} None: this agent is a native program\n{major} Process\n{minor} Resident memory: {memory}\n"
    )))
}

fn agent_digest(call: &Call) -> Result<Reply, Throw> {
    let root = call.view().require_string("rootPathName")?;
    Ok(call.string(&digests(Path::new(&*root), &|| call.is_cancelled())?))
}

/// `md5sum` of the files in a directory, by name. What can't be read is left out.
fn digests(directory: &Path, is_cancelled: &dyn Fn() -> bool) -> Result<String, Throw> {
    let entries = std::fs::read_dir(directory).map_err(|error| Throw::file(&error, directory))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    let mut text = String::new();
    for name in names {
        if is_cancelled() {
            return Err(Throw::interrupted());
        }
        let path = directory.join(&name);
        if !path.is_file() {
            continue;
        }
        let mut digest = Md5::new();
        let Ok(_) =
            std::fs::File::open(&path).and_then(|mut file| std::io::copy(&mut file, &mut DigestWriter(&mut digest)))
        else {
            continue;
        };
        for byte in digest.finalize() {
            let _ = write!(text, "{byte:02x}");
        }
        let _ = writeln!(text, "  {}", name.to_string_lossy());
    }
    Ok(text)
}

struct DigestWriter<'a>(&'a mut Md5);

impl std::io::Write for DigestWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn thread_dump(call: &Call) -> Result<Reply, Throw> {
    let threads: Vec<String> = system::thread_dump().into_iter().map(|(_, text)| text).collect();
    Ok(call.string(&threads.join("\n")))
}

/// The limits of the process and its open files.
fn limits(call: &Call) -> Result<Reply, Throw> {
    let mut text = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let descriptors = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let mut files: Vec<String> = descriptors
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    files.sort();
    let _ = writeln!(text, "Open File Descriptor Count: {}\n\nAll open files\n==============", files.len());
    for file in files {
        text.push_str(&file);
        text.push('\n');
    }
    Ok(call.string(&text))
}

fn interfaces(call: &Call) -> Result<Reply, Throw> {
    let addresses = system::ipv4_addresses().into_iter();
    let lines: Vec<String> = addresses.map(|address| format!(" ** InetAddress - /{address}\n")).collect();
    Ok(call.string(&lines.concat()))
}

fn root_cas(call: &Call) -> Result<Reply, Throw> {
    Ok(call.string("This agent has no Java trust store: it uses the system's, and what its options name.\n"))
}

fn dmi_info(call: &Call) -> Result<Reply, Throw> {
    Ok(call.string(&readable_files(Path::new("/sys/devices/virtual/dmi/id"))))
}

/// A line for each file of a directory that can be read.
fn readable_files(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut lines: Vec<String> = entries
        .filter_map(|entry| {
            let text = std::fs::read_to_string(entry.path()).ok()?;
            Some(format!("{}: {}\n", entry.file_name().to_string_lossy(), text.trim()))
        })
        .collect();
    lines.sort();
    lines.concat()
}

fn platform(call: &Call) -> Result<Reply, Throw> {
    Ok(call.reply(|graph| graph.enum_constant("com.cloudbees.jenkins.support.util.SystemPlatform", "LINUX")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_the_readable_files_of_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("b.jar"), "abc").unwrap();
        std::fs::write(directory.path().join("a.jar"), "").unwrap();
        std::fs::create_dir(directory.path().join("directory")).unwrap();
        let expected = "d41d8cd98f00b204e9800998ecf8427e  a.jar\n900150983cd24fb0d6963f7d28e17f72  b.jar\n";
        assert_eq!(digests(directory.path(), &|| false).unwrap(), expected);
        assert!(digests(&directory.path().join("missing"), &|| false).is_err());
        assert!(digests(directory.path(), &|| true).is_err());
    }

    #[test]
    fn files_of_a_directory_as_lines() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("sys_vendor"), " Acme \n").unwrap();
        std::fs::write(directory.path().join("binary"), [0xff]).unwrap();
        std::fs::create_dir(directory.path().join("power")).unwrap();
        assert_eq!(readable_files(directory.path()), "sys_vendor: Acme\n");
        assert_eq!(readable_files(&directory.path().join("missing")), "");
    }

    #[test]
    fn attributes_of_a_host_with_and_without_an_address() {
        let mut graph = Graph::default();
        let both = attributes(&mut graph, "node", Some(&Ipv4Addr::new(10, 0, 0, 1)));
        let entry = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        assert_eq!(graph.view(both).string_map().unwrap(), [entry("host.name", "node"), entry("host.ip", "10.0.0.1")]);
        let name = attributes(&mut graph, "node", None);
        assert_eq!(graph.view(name).string_map().unwrap(), [entry("host.name", "node")]);
    }
}
