//! Reaping of orphans when the agent is pid 1 of a container.
//!
//! A process whose parent has ended becomes a child of pid 1, and stays a zombie until that waits for it. An image without
//! an init (`tini`) has nobody else to do it: every durable task would leave one.
//!
//! The exit statuses of our own children must not be taken from those who wait for them. So a zombie is only reaped by id,
//! when [`launch`](super::launch) does not know it, and when it was there at the previous look already: an own child is
//! waited for within milliseconds.

use std::collections::HashSet;
use std::time::Duration;

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};

use super::tree::{Identity, Snapshot};

/// How often to look. An orphan is gone after two looks.
const INTERVAL: Duration = Duration::from_secs(5);

/// Reaps orphans for ever if this process is pid 1, and returns at once if it isn't. To be spawned once.
///
/// While there is no zombie at all a look is one system call.
pub async fn run() {
    if rustix::process::getpid().as_raw_pid() != 1 {
        return;
    }
    let mut seen = HashSet::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let looked = tokio::task::spawn_blocking(move || {
            reap_orphans(&mut seen);
            seen
        });
        seen = looked.await.unwrap_or_default();
    }
}

/// Reaps the zombies that are in `seen` and no child of [`launch`](super::launch), and leaves the new ones in `seen`.
/// Returns how many were reaped.
fn reap_orphans(seen: &mut HashSet<Identity>) -> usize {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if !matches!(rustix::process::waitid(WaitId::All, options), Ok(Some(_))) {
        seen.clear();
        return 0;
    }
    let own = rustix::process::getpid().as_raw_pid();
    let zombies: HashSet<Identity> =
        Snapshot::take().zombie_children(own).filter(|zombie| !super::launch::is_launched(zombie.pid)).collect();
    let mut reaped = 0;
    seen.retain(|zombie| zombies.contains(zombie));
    for zombie in seen.iter() {
        if matches!(rustix::process::waitpid(Pid::from_raw(zombie.pid), WaitOptions::NOHANG), Ok(Some(_))) {
            tracing::debug!(pid = zombie.pid, "reaped an orphan");
            reaped += 1;
        }
    }
    *seen = &zombies - seen;
    reaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn orphans_are_reaped_at_the_second_look() {
        // A subreaper is to orphans what pid 1 is.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
        let output = Command::new("sh").args(["-c", "sleep 0 >&- 2>&- & echo $!"]).output().unwrap();
        let orphan: i32 = String::from_utf8(output.stdout).unwrap().trim().parse().unwrap();
        let own = rustix::process::getpid().as_raw_pid();
        let is_zombie = || Snapshot::take().zombie_children(own).any(|zombie| zombie.pid == orphan);
        while !is_zombie() {
            std::thread::yield_now();
        }
        let mut seen = HashSet::new();
        reap_orphans(&mut seen);
        assert!(is_zombie());
        assert!(seen.iter().any(|zombie| zombie.pid == orphan));
        // Only this one: the other tests of this process have children of their own.
        seen.retain(|zombie| zombie.pid == orphan);
        assert_eq!(reap_orphans(&mut seen), 1);
        assert!(!is_zombie());
    }
}
