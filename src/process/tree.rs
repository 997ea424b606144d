//! The process tree by `/proc`, and killing in it (`hudson.util.ProcessTree`).
//!
//! As in Java, a process is selected when its environment has *all* pairs of a model (names without regard to case), and it
//! is killed with all its descendants, children before parents, with SIGTERM. An empty model selects nothing.
//!
//! What differs from Java, on purpose:
//! - All selected processes get SIGTERM at once; Java waits for one to end before it signals the next.
//! - Java leaves alone on Unix what has not ended [`KillPolicy::soft_wait`] after SIGTERM. Here it gets SIGKILL then, unless
//!   [`KillPolicy::then_kill`] is off.
//! - What was forked while the tree was being killed is found by looking again, and a process id that was given to another
//!   process in the meantime is never signalled (pidfd and start time).
//! - The agent itself and pid 1 are never signalled, whatever their environment says.
//! - Vetoes and killers are extensions of the controller which Java's agent asks for (`ProcessTree$DoVetoersExist`,
//!   `$ListAll`, `$CheckVetoes`); they are not asked.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::env::EnvVars;

/// The most bytes of a process's environment that are looked at; Linux allows 6 MiB.
const MAX_ENVIRON_BYTES: u64 = 8 << 20;

/// How long SIGKILL may take to show before a process counts as a survivor (one in uninterruptible sleep, usually).
const KILL_WAIT: Duration = Duration::from_secs(2);

/// A process for all time: its id, and when it started so that another with the same id is told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// Its start in clock ticks since boot (`/proc/<pid>/stat`, field 22).
    pub started: u64,
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy)]
struct Stat {
    id: Identity,
    parent: i32,
    zombie: bool,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        // Bounded by the kernel: 52 numbers and a name of 64 bytes at most.
        Self::parse(pid, &std::fs::read(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(pid: i32, stat: &[u8]) -> Option<Self> {
        // The name may have anything in it, parentheses included; nothing after it has one.
        let end = stat.iter().rposition(|&b| b == b')')?;
        let rest = std::str::from_utf8(&stat[end + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let zombie = matches!(fields.next()?, "Z" | "X" | "x");
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { id: Identity { pid, started }, parent, zombie })
    }
}

impl Identity {
    /// The process that has this id now.
    pub fn of(pid: i32) -> Option<Self> {
        Stat::read(pid).map(|stat| stat.id)
    }

    /// Whether this very process still runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.id == *self && !stat.zombie)
    }

    /// Sends a signal, to this very process or to none. That it has ended already is no error.
    fn signal(&self, signal: Signal) -> Result<(), Errno> {
        let Some(pid) = Pid::from_raw(self.pid) else {
            return Ok(());
        };
        // What a pidfd names stays the same, so the start time is compared after it was opened.
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        if !self.is_alive() {
            return Ok(());
        }
        let sent = pidfd.and_then(|fd| rustix::process::pidfd_send_signal(fd, signal));
        // Kernels before 5.3, and sandboxes that don't know pidfds, are left with the comparison alone.
        match sent.or_else(|_| rustix::process::kill_process(pid, signal)) {
            Err(Errno::SRCH) => Ok(()),
            other => other,
        }
    }
}

/// All processes that could be seen at a moment. Those that end while it is taken are left out.
#[derive(Debug, Default)]
pub struct Snapshot {
    processes: HashMap<i32, Stat>,
}

impl Snapshot {
    /// Reads `/proc`. Blocking: some 10 µs per process.
    pub fn take() -> Self {
        let entries = match std::fs::read_dir("/proc") {
            Ok(entries) => entries,
            Err(error) => {
                tracing::warn!(%error, "cannot list /proc; no process will be found");
                return Self::default();
            }
        };
        let processes = entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|&pid| pid > 0)
            .filter_map(|pid| Some((pid, Stat::read(pid)?)))
            .collect();
        Self { processes }
    }

    /// The zombies among the children of a process.
    pub(super) fn zombie_children(&self, parent: i32) -> impl Iterator<Item = Identity> + '_ {
        self.processes.values().filter(move |stat| stat.zombie && stat.parent == parent).map(|stat| stat.id)
    }

    /// The given roots and all their descendants, children before parents, without what must not be signalled.
    fn with_descendants(&self, roots: impl IntoIterator<Item = i32>) -> Vec<Identity> {
        let own = rustix::process::getpid().as_raw_pid();
        let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
        for stat in self.processes.values() {
            children.entry(stat.parent).or_default().push(stat.id.pid);
        }
        let mut seen = HashSet::from([own, 1]);
        let mut found = Vec::new();
        for root in roots {
            let mut stack = vec![(root, false)];
            while let Some((pid, children_done)) = stack.pop() {
                if children_done {
                    if let Some(stat) = self.processes.get(&pid).filter(|stat| !stat.zombie) {
                        found.push(stat.id);
                    }
                } else if seen.insert(pid) {
                    stack.push((pid, true));
                    let below = children.get(&pid).map_or(&[][..], Vec::as_slice);
                    stack.extend(below.iter().map(|&child| (child, false)));
                }
            }
        }
        found
    }
}

/// `OSProcess.hasMatchingEnvVars` on the bytes of `/proc/<pid>/environ`.
fn environ_matches(environ: &[u8], model: &EnvVars) -> bool {
    let last_value = |name: &str| {
        environ
            .split(|&b| b == 0)
            .rev()
            .filter_map(|line| {
                let equals = line.iter().position(|&b| b == b'=')?;
                Some((&line[..equals], &line[equals + 1..]))
            })
            .find(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    };
    !model.is_empty() && model.iter().all(|(name, value)| last_value(name) == Some(value.as_bytes()))
}

/// Which processes to kill: a process of our own, and those whose environment has all pairs of a model.
#[derive(Debug, Clone)]
struct Selection {
    root: Option<Identity>,
    model: EnvVars,
}

impl Selection {
    fn find(&self) -> Vec<Identity> {
        let snapshot = Snapshot::take();
        let mut roots = Vec::new();
        if let Some(root) = self.root
            && snapshot.processes.get(&root.pid).is_some_and(|stat| stat.id == root)
        {
            roots.push(root.pid);
        }
        if !self.model.is_empty() {
            let mut environ = Vec::new();
            for &pid in snapshot.processes.keys() {
                environ.clear();
                // Another user's, or gone: no match, as in Java.
                if let Ok(file) = std::fs::File::open(format!("/proc/{pid}/environ"))
                    && file.take(MAX_ENVIRON_BYTES).read_to_end(&mut environ).is_ok()
                    && environ_matches(&environ, &self.model)
                {
                    roots.push(pid);
                }
            }
        }
        snapshot.with_descendants(roots)
    }
}

/// How insistently to kill.
#[derive(Debug, Clone, Copy)]
pub struct KillPolicy {
    /// How long processes have to end after SIGTERM (Java's `SoftKillWaitSeconds`, 5 s). A call takes no longer than this
    /// and 2 s.
    pub soft_wait: Duration,
    /// Whether those that have not ended by then get SIGKILL. Java never sends it.
    pub then_kill: bool,
}

impl Default for KillPolicy {
    fn default() -> Self {
        Self { soft_wait: Duration::from_secs(5), then_kill: true }
    }
}

/// What killing came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KillReport {
    /// How many processes got SIGTERM.
    pub terminated: usize,
    /// How many got SIGKILL because they did not end by that.
    pub killed: usize,
    /// The ids of those that still run.
    pub survivors: Vec<i32>,
}

/// `ProcessTree.killAll(Map)`: kills every process whose environment has all pairs of `model`, with its descendants.
///
/// It goes on to its end even if the future is dropped.
pub async fn kill_by_environment(model: EnvVars, policy: KillPolicy) -> KillReport {
    kill(Selection { root: None, model }, policy).await
}

/// `ProcessTree.killAll(Process, Map)`: the same for a process with its descendants, and for all that have its cookie.
pub(super) async fn kill_process(root: Option<Identity>, cookie: EnvVars, policy: KillPolicy) -> KillReport {
    kill(Selection { root, model: cookie }, policy).await
}

async fn kill(selection: Selection, policy: KillPolicy) -> KillReport {
    tokio::task::spawn_blocking(move || kill_blocking(&selection, policy)).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "killing processes was broken off");
        KillReport::default()
    })
}

fn kill_blocking(selection: &Selection, policy: KillPolicy) -> KillReport {
    let deadline = Instant::now() + policy.soft_wait;
    let mut report = KillReport::default();
    let mut known: HashSet<Identity> = HashSet::new();
    loop {
        let found = selection.find();
        if found.is_empty() {
            break;
        }
        // What a signalled process starts to clean up after itself is left alone until the deadline: it is only looked
        // for again when all that were signalled have ended.
        for process in found {
            if known.insert(process) {
                report.terminated += 1;
                send(process, Signal::TERM);
            }
        }
        wait_for_end(&known, deadline);
        if Instant::now() >= deadline {
            break;
        }
    }

    let give_up = Instant::now() + KILL_WAIT;
    let mut killed = HashSet::new();
    let survivors = loop {
        let mut left: HashSet<Identity> = known.iter().copied().filter(Identity::is_alive).collect();
        left.extend(selection.find());
        if left.is_empty() || !policy.then_kill || Instant::now() >= give_up {
            break left;
        }
        for &process in &left {
            if killed.insert(process) {
                send(process, Signal::KILL);
            }
        }
        wait_for_end(&left, give_up);
    };
    report.killed = killed.len();
    report.survivors = survivors.into_iter().map(|process| process.pid).collect();
    if policy.then_kill && !report.survivors.is_empty() {
        tracing::warn!(pids = ?report.survivors, "processes could not be killed");
    }
    report
}

fn send(process: Identity, signal: Signal) {
    tracing::debug!(pid = process.pid, ?signal, "killing a process");
    if let Err(error) = process.signal(signal) {
        tracing::info!(pid = process.pid, ?signal, %error, "cannot signal a process");
    }
}

fn wait_for_end(processes: &HashSet<Identity>, deadline: Instant) {
    let mut pause = Duration::from_millis(5);
    while processes.iter().any(Identity::is_alive) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(200));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn shell(script: &str, cookie: &str) -> Child {
        Command::new("sh").args(["-c", script]).env("TREE_TEST_COOKIE", cookie).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn model(cookie: &str) -> EnvVars {
        [("TREE_TEST_COOKIE", cookie)].into_iter().collect()
    }

    fn cookie(name: &str) -> String {
        format!("{name}-{}", std::process::id())
    }

    /// Reads the first line, which a script prints when it is ready.
    fn ready(child: &mut Child) -> String {
        use std::io::BufRead;
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn policy(millis: u64) -> KillPolicy {
        KillPolicy { soft_wait: Duration::from_millis(millis), then_kill: true }
    }

    #[test]
    fn reads_stat_with_any_name() {
        let stat = b"7 (a) Z (b)) S 42 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2\n";
        let stat = Stat::parse(7, stat).unwrap();
        assert_eq!((stat.parent, stat.zombie, stat.id.started), (42, false, 987654));
        for bad in [&b""[..], b"7 (x", b"7 (x) S", b"7 (x) S 1 2 3", b"7 (x) S \xff 2"] {
            assert!(Stat::parse(7, bad).is_none());
        }
    }

    #[test]
    fn matches_all_pairs_only() {
        let environ = b"A=1\0b=two=2\0broken\0A=3\0";
        for (pairs, expected) in [
            (&[][..], false),
            (&[("B", "two=2")], true),
            (&[("A", "3")], true),
            // The last one counts, as in the map that Java puts them into.
            (&[("A", "1")], false),
            (&[("A", "3"), ("B", "two=2")], true),
            (&[("A", "3"), ("B", "no")], false),
            (&[("broken", "")], false),
        ] {
            let model: EnvVars = pairs.iter().copied().collect();
            assert_eq!(environ_matches(environ, &model), expected, "{pairs:?}");
        }
    }

    #[tokio::test]
    async fn kills_the_tree_of_a_cookie_and_nothing_else() {
        let (mine, other) = (cookie("mine"), cookie("other"));
        // A child whose environment was wiped is still a descendant; one in the background that was orphaned has the cookie.
        let mut parent = shell("env -i sleep 301 & (sleep 302 & echo $! ) & wait", &mine);
        let orphan: i32 = ready(&mut parent).parse().unwrap();
        let orphan = Identity::of(orphan).unwrap();
        let mut bystander = shell("echo; exec sleep 303", &other);
        ready(&mut bystander);

        let report = kill_by_environment(model(&mine), policy(4000)).await;
        assert!(report.terminated >= 3, "{report:?}");
        assert_eq!((report.killed, report.survivors), (0, vec![]));
        assert!(!orphan.is_alive());
        parent.wait().unwrap();
        assert!(bystander.try_wait().unwrap().is_none());
        bystander.kill().unwrap();
        bystander.wait().unwrap();
    }

    #[tokio::test]
    async fn what_ignores_sigterm_is_killed_after_the_wait() {
        use std::os::unix::process::ExitStatusExt;
        let cookie = cookie("stubborn");
        let mut child = shell("trap '' TERM; echo; while :; do sleep 1; done", &cookie);
        ready(&mut child);
        let lenient = KillPolicy { then_kill: false, ..policy(100) };
        let report = kill_by_environment(model(&cookie), lenient).await;
        assert_eq!(report.killed, 0);
        assert!(report.survivors.contains(&(child.id() as i32)));
        assert!(child.try_wait().unwrap().is_none());

        let report = kill_by_environment(model(&cookie), policy(100)).await;
        assert!(report.killed >= 1, "{report:?}");
        assert_eq!(report.survivors, Vec::<i32>::new());
        assert_eq!(child.wait().unwrap().signal(), Some(9));
    }

    #[tokio::test]
    async fn a_trap_may_clean_up() {
        let cookie = cookie("trap");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("cleaned");
        let script = format!(
            "trap 'sh -c \"sleep 0.3; echo ok\" > {}; exit 3' TERM; echo; while :; do sleep 0.05; done",
            file.display()
        );
        let mut child = shell(&script, &cookie);
        ready(&mut child);
        kill_by_environment(model(&cookie), policy(5000)).await;
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert_eq!(std::fs::read_to_string(file).unwrap(), "ok\n");
    }

    #[tokio::test]
    async fn an_empty_model_kills_nothing() {
        let started = Instant::now();
        let report = kill_by_environment(EnvVars::new(), KillPolicy::default()).await;
        assert_eq!(report, KillReport::default());
        assert!(started.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test]
    async fn another_process_with_the_id_is_not_signalled() {
        let mut child = shell("echo; exec sleep 304", &cookie("reuse"));
        ready(&mut child);
        let mut id = Identity::of(child.id() as i32).unwrap();
        id.started += 1;
        id.signal(Signal::KILL).unwrap();
        assert_eq!(kill_process(Some(id), EnvVars::new(), policy(50)).await, KillReport::default());
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn children_come_before_their_parents() {
        let stat = |pid, parent, zombie| {
            let id = Identity { pid, started: 1 };
            let stat = Stat { id, parent, zombie };
            (pid, stat)
        };
        let own = rustix::process::getpid().as_raw_pid();
        let far = |n: i32| 1 << 24 | n;
        let snapshot = Snapshot {
            processes: HashMap::from([
                stat(far(1), 1, false),
                stat(far(2), far(1), false),
                stat(far(3), far(2), false),
                stat(far(4), far(2), true),
                stat(far(5), far(4), false),
                stat(own, far(1), false),
                stat(far(6), own, false),
                // A circle, which a snapshot that isn't of one moment may have.
                stat(far(7), far(8), false),
                stat(far(8), far(7), false),
                stat(far(9), 1, false),
            ]),
        };
        // The agent's own children are not reached through the agent, and each process comes once.
        let found = snapshot.with_descendants([far(2), far(1), far(7), far(99)]);
        let order: Vec<i32> = found.iter().map(|id| id.pid & 0xff).collect();
        assert_eq!(order.len(), 6, "{order:?}");
        let place = |n| order.iter().position(|&o| o == n).unwrap();
        assert!(place(3) < place(2) && place(5) < place(2) && place(2) < place(1));
        assert!(place(8) < place(7));
    }

    #[test]
    fn the_agent_itself_is_never_among_them() {
        let own = rustix::process::getpid().as_raw_pid();
        let parent = Stat::read(own).unwrap().parent;
        let found = Snapshot::take().with_descendants([1, parent, own]);
        assert!(found.iter().all(|id| id.pid != own && id.pid != 1));
    }
}
