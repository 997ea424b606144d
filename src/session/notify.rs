//! Telling a service manager: `sd_notify(3)`'s protocol over the datagram socket that `NOTIFY_SOCKET` names.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::run::Environment;
use super::status::Phase;

/// Most characters of a status line.
const MAX_STATUS: usize = 500;

/// How long a manager whose queue is full may hold up a message, and the agent with it.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);

/// The way to a service manager.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    was_ready: AtomicBool,
    /// How often [`Notifier::feed`] is to be called: half of what the manager waits for.
    pub watchdog: Option<Duration>,
}

impl Notifier {
    /// The service manager that the environment names, if it does.
    ///
    /// # Errors
    /// If it can't be told anything: the address makes no sense, or there are no sockets to be had.
    pub fn from_environment(environment: &Environment) -> io::Result<Option<Notifier>> {
        let variable = |name: &str| environment.iter().find(|(variable, _)| variable == name).map(|(_, value)| value);
        let Some(address) = variable("NOTIFY_SOCKET").filter(|address| !address.is_empty()) else { return Ok(None) };
        let manager = match address.as_encoded_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::other(format!("{} is no address that is understood", address.display()))),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        let number = |name: &str| variable(name).and_then(|value| value.to_str()?.parse::<u64>().ok());
        let own = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&micros| own && micros > 0);
        let watchdog = watchdog.map(|micros| Duration::from_micros(micros) / 2);
        Ok(Some(Notifier { socket, manager, was_ready: AtomicBool::new(false), watchdog }))
    }

    fn send(&self, message: &str) {
        if let Err(error) = self.socket.send_to_addr(message.as_bytes(), &self.manager) {
            tracing::debug!("cannot tell the service manager: {error}");
        }
    }

    /// Tells of a new phase: `READY=1` when the channel is up for the first time, and `STOPPING=1`.
    pub fn tell(&self, phase: &Phase, text: &str) {
        let status: String = text.chars().take(MAX_STATUS).map(|c| if c.is_control() { ' ' } else { c }).collect();
        let state = match phase {
            Phase::Connected if !self.was_ready.swap(true, Ordering::Relaxed) => "READY=1\n",
            Phase::Stopping => "STOPPING=1\n",
            _ => "",
        };
        self.send(&format!("{state}STATUS={status}"));
    }

    /// Feeds the manager's watchdog.
    pub fn feed(&self) {
        self.send("WATCHDOG=1");
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::sync::Arc;

    use super::*;
    use crate::session::status::Status;

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    fn received(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_manager_hears_of_every_phase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("@notify-test-{}", std::process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name.as_bytes()[1..]).unwrap();
        for (manager, address) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), &name),
        ] {
            manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let notifier = Notifier::from_environment(&environment(&[("NOTIFY_SOCKET", address)])).unwrap().unwrap();
            assert_eq!(notifier.watchdog, None);
            let status = Status::new(Some(notifier));
            status.connecting();
            assert_eq!(received(&manager), "STATUS=Connecting");
            status.connected("WebSocket");
            assert_eq!(received(&manager), "READY=1\nSTATUS=Connected by WebSocket");
            status.disconnected("two\nlines");
            assert_eq!(received(&manager), "STATUS=Waiting to reconnect: two lines");
            status.connected("WebSocket");
            assert_eq!(received(&manager), "STATUS=Connected by WebSocket");
            status.stopping();
            assert_eq!(received(&manager), "STOPPING=1\nSTATUS=Closing the channel");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_watchdog_is_fed_only_while_there_is_progress() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_nonblocking(true).unwrap();
        let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "60000000")];
        let notifier = Notifier::from_environment(&environment(&variables)).unwrap().unwrap();
        let status = Arc::new(Status::new(Some(notifier)));
        tokio::spawn(status.clone().feed_watchdog());
        let fed = async |seconds| {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            let mut buffer = [0; 64];
            let mut count = 0;
            while let Ok(length) = manager.recv(&mut buffer) {
                count += usize::from(&buffer[..length] == b"WATCHDOG=1");
            }
            count
        };
        assert_eq!(fed(301).await, 11);
        status.connected("WebSocket");
        assert!(fed(90).await >= 2);
        assert_eq!(fed(300).await, 0, "a channel that is not served is no progress");
        status.turned();
        assert!(fed(60).await >= 1);
    }

    #[test]
    fn only_what_is_meant_for_this_process_counts() {
        let notifier = |pairs: &[(&str, &str)]| Notifier::from_environment(&environment(pairs));
        assert!(notifier(&[]).unwrap().is_none());
        assert!(notifier(&[("NOTIFY_SOCKET", "")]).unwrap().is_none());
        assert!(notifier(&[("NOTIFY_SOCKET", "vsock:2:1")]).is_err());
        let other = (std::process::id() + 1).to_string();
        let socket = ("NOTIFY_SOCKET", "/nonexistent");
        let other = notifier(&[socket, ("WATCHDOG_USEC", "9"), ("WATCHDOG_PID", &other)]).unwrap().unwrap();
        assert_eq!(other.watchdog, None);
        // Nobody listens there, and nothing comes of it.
        other.feed();
    }
}
