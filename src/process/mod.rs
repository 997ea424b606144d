//! Processes of the agent's machine: their environment, launching, killing, and facts about the machine itself.
//!
//! Nothing here knows the wire. Callables such as `hudson.Launcher$RemoteLaunchCallable` or `hudson.EnvVars$GetEnvVars`
//! are thin shells over these functions.
//!
//! # What ends a process
//!
//! Every launched process gets a `HUDSON_COOKIE` of its own ([`launch::Process::cookie`]) which all its descendants
//! inherit. Java uses it in one place only, `Proc.LocalProc.destroy()`, which runs when `RemoteProcess.kill()` is called
//! and when a `join()` is interrupted: that is what the loss of the channel does to a pending `join`. So a process whose
//! `join` is pending ends with the channel ([`launch::Process::kill_tree`] is to be called then), and one that nobody
//! joins lives on. Dropping a [`launch::Process`] kills nothing.
//!
//! `Launcher$RemoteLauncher$KillTask` is the other way: it kills by variables of the build ([`tree::kill_by_environment`]),
//! `JENKINS_NODE_COOKIE` at the end of a `node` block, `BUILD_ID`, `JOB_NAME`, `JENKINS_SERVER_COOKIE` … at the end of a
//! freestyle build. A user lets a daemon survive that by giving it another value (`JENKINS_NODE_COOKIE=dontKillMe`).
//!
//! A durable task (`sh` of a pipeline) survives the loss of the channel because of all of this together:
//! - its launched process (`nohup sh -c '… &'`, or the binary wrapper with `-daemon`) ends at once, and the background
//!   child that does the work belongs to init afterwards, so it is nobody's descendant;
//! - durable-task never calls `join()` or `kill()` on it, so nothing ever kills by the `HUDSON_COOKIE` it did inherit;
//! - no process group or session is involved: nothing is ever signalled as a group, and none is created;
//! - `JENKINS_SERVER_COOKIE` is `please-do-not-kill-me` for the wrapper that has to record the exit code, and
//!   `durable-<digest>` for the script itself (`BourneShellScript.launchWithCookie`): the value of a freestyle build never
//!   matches, and `Controller.stop` kills the script by exactly this value while the wrapper lives to tell about it.

pub mod env;
pub mod launch;
pub mod reaper;
pub mod system;
pub mod tree;
