//! Servers of repositories, for tests: all on the loopback interface, and gone when they are dropped.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long something may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something is so.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server of the repositories in a directory, which ends when it is dropped.
pub(crate) struct GitDaemon {
    child: Child,
    pub(crate) port: u16,
}

impl GitDaemon {
    /// `None` if there is no such program here.
    pub(crate) fn start(directory: &Path) -> Option<GitDaemon> {
        let exec = Command::new("git").arg("--exec-path").output().ok()?;
        let program = PathBuf::from(String::from_utf8(exec.stdout).ok()?.trim()).join("git-daemon");
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let child = Command::new(program)
            .args(["--export-all", "--reuseaddr", "--listen=127.0.0.1"])
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", directory.display()))
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let daemon = GitDaemon { child, port };
        wait_for("the git daemon", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Some(daemon)
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `git http-backend` behind HTTP with a password: what a request must say in its `Authorization` header, or is
/// refused.
pub(crate) struct HttpServer {
    pub(crate) port: u16,
    stop: Arc<AtomicBool>,
}

impl HttpServer {
    pub(crate) fn start(directory: &Path, authorization: &str) -> HttpServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let stop = Arc::new(AtomicBool::new(false));
        let (directory, authorization, stopped) = (directory.to_owned(), authorization.to_owned(), stop.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // A client that goes away is no matter.
                let _ = stream.and_then(|stream| answer(stream, &directory, &authorization));
            }
        });
        HttpServer { port, stop }
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

/// Reads one request, and answers it by CGI.
fn answer(mut stream: TcpStream, directory: &Path, authorization: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let header = |name: &str| {
        let found = head.lines().skip(1).filter_map(|line| line.split_once(": "));
        found.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or_default()
    };
    let mut body = vec![0; header("Content-Length").parse().unwrap_or(0)];
    stream.read_exact(&mut body)?;
    if header("Authorization") != authorization {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\
                       Connection: close\r\n\r\n";
        return stream.write_all(refusal.as_bytes());
    }
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut child = Command::new("git")
        .args(["-c", "http.receivepack=true", "http-backend"])
        .env("GIT_PROJECT_ROOT", directory)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("Content-Type"))
        .env("HTTP_CONTENT_ENCODING", header("Content-Encoding"))
        .env("GIT_PROTOCOL", header("Git-Protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().unwrap().write_all(&body)?;
    let output = child.wait_with_output()?.stdout;
    let end = output.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap_or(0);
    let fields = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = fields.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n")?;
    stream.write_all(&output)
}

/// A server of OpenSSH's, for one key.
pub(crate) struct SshServer {
    child: Child,
    pub(crate) port: u16,
    /// Its own key, as a line of `known_hosts`.
    pub(crate) known_hosts: String,
    /// The private key that it lets in.
    pub(crate) key: String,
}

impl SshServer {
    /// `None`, with a word, if there is no such server here, or it can't run.
    pub(crate) fn start(directory: &Path) -> Option<SshServer> {
        let program = ["/usr/sbin/sshd", "/usr/local/sbin/sshd"].map(Path::new).into_iter().find(|path| path.exists());
        let Some(program) = program else {
            eprintln!("skipped: there is no sshd on this machine");
            return None;
        };
        // Where it gives up its privileges, if it has any; packages leave it to the init system to make this.
        let _ = std::fs::create_dir("/run/sshd");
        for (name, passphrase) in [("host", ""), ("user", "open sesame")] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", passphrase, "-f"]).arg(directory.join(name));
            if !keygen.status().is_ok_and(|status| status.success()) {
                eprintln!("skipped: ssh-keygen does not work on this machine");
                return None;
            }
        }
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap();
        std::fs::write(directory.join("authorized"), read("user.pub")).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.local_addr().ok()?.port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host\nAuthorizedKeysFile {0}/authorized\nStrictModes no\n\
             PidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            directory.display()
        );
        std::fs::write(directory.join("config"), config).unwrap();
        let mut test = Command::new(program);
        let test = test.args(["-t", "-f"]).arg(directory.join("config")).output().unwrap();
        if !test.status.success() {
            eprintln!("skipped: sshd can't run here: {}", String::from_utf8_lossy(&test.stderr));
            return None;
        }
        let log = std::fs::File::create(directory.join("log")).unwrap();
        let child = Command::new(program).args(["-D", "-e", "-f"]).arg(directory.join("config")).stderr(log).spawn();
        let server = SshServer {
            child: child.unwrap(),
            port,
            known_hosts: format!("[127.0.0.1]:{port} {}", read("host.pub").trim()),
            key: read("user"),
        };
        wait_for("sshd", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        Some(server)
    }
}

impl Drop for SshServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
