//! `agent --probe`: why can't this agent reach its controller?
//!
//! Three steps, of which only the first does IO:
//! 1. [`gather`] observes [`facts`]: per address and not per name, in parallel where the order does not matter, and within
//!    a deadline;
//! 2. [`evaluate`] reads the facts as [`check`]s in causal order, and as a verdict;
//! 3. [`print`] shows the report.
//!
//! A controller is asked only what leaves no line in its log, as long as there is no doubt that needs more:
//! - `GET tcpSlaveAgentListener/`, as a start does, and `GET login`;
//! - `GET favicon.ico`, which has 17 KB, with a header of 6 KB, to see whether large packets pass;
//! - `GET /` at the agent port, which answers with the controller's version, protocols and session
//!   (`TcpSlaveAgentListener.ConnectionHandler.respondHello`). A session equal to the `X-Jenkins-Session` of the HTTP side
//!   proves that both are one process; only where it is not told, a JNLP4 handshake is made as far as the proof of
//!   identity, which is before the secret would be sent;
//! - for WebSockets `GET wsagents` without the slash at its end, which redirects to `wsagents/` where there is such a thing,
//!   and `GET whoAmI/` with an upgrade's headers, which shows those that have arrived. Anything to `wsagents/`
//!   itself that is not a whole login leaves a warning (`WebSocketAgents.doIndex`).
//!
//! The secret is sent with `--probe-auth` only, and to whom a start would send it.

pub mod catalog;
pub mod certificate;
pub mod check;
mod command;
pub mod compare;
pub mod dns;
mod evaluate;
pub mod facts;
mod gather;
pub mod kubernetes;
pub mod listen;
pub mod pod;
pub mod print;
pub mod system;
pub mod time;

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::discovery::Discovery;
use crate::transport::ConnectError;
use crate::transport::identity::{InstanceIdentity, Secret};

pub use evaluate::evaluate;

/// How long a probe takes at most unless told otherwise; what is held comes on top.
pub const TIMEOUT: Duration = Duration::from_secs(15);

/// The whole time is for what is asked; this much more is for what has to be put together.
const SLACK: Duration = Duration::from_millis(500);

/// The same where a connection is held: what shows that it still is one takes an answer.
const HOLD_SLACK: Duration = Duration::from_secs(9);

/// What a start would do, and how far the probe may go.
#[derive(Debug, Clone)]
pub struct Target {
    /// How it connects.
    pub way: facts::Way,
    /// URLs, proxies, trust and all.
    pub discovery: Discovery,
    /// `-direct HOST:PORT`, with its host unbracketed.
    pub direct: Option<(String, u16)>,
    /// `-instanceIdentity`.
    pub identity: Option<InstanceIdentity>,
    /// `-name`.
    pub name: Option<String>,
    /// `-secret`.
    pub secret: Option<Secret>,
    /// `-webSocketHeader`.
    pub headers: Vec<(String, String)>,
    /// `-workDir`.
    pub work_dir: Option<PathBuf>,
    /// In a Kubernetes pod.
    pub in_pod: bool,
    /// `--probe-auth`: log in with the secret, which takes the node's place for a moment.
    pub authenticate: bool,
    /// `--probe-hold`: keep an idle connection for as long.
    pub hold: Option<Duration>,
    /// `--probe-timeout`: for all but that.
    pub timeout: Duration,
    /// What a start has just met.
    pub attempt: Option<facts::Attempt>,
}

impl From<&ConnectError> for facts::Attempt {
    fn from(error: &ConnectError) -> Self {
        facts::Attempt {
            doing: error.doing.to_string(),
            address: error.address.clone(),
            cause: error.cause.kind().to_owned(),
            message: error.cause.to_string(),
            exit_code: error.exit_code().code(),
        }
    }
}

/// Probes, within [`Target::timeout`] and what is held.
pub async fn probe(target: &Target) -> check::Report {
    let begun = Instant::now();
    let facts = Arc::new(Mutex::new(facts::Facts::default()));
    let all = target.timeout + target.hold.map_or(SLACK, |hold| hold + HOLD_SLACK);
    let cut_off = timeout_at(begun + all, gather::gather(target, &facts)).await.is_err();
    let mut facts = facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if cut_off {
        facts.cut_off_ms = Some(begun.elapsed().as_millis() as u64);
    }
    let (checks, verdict) = evaluate(&facts);
    check::Report {
        schema: 1,
        agent: Cow::Borrowed(env!("CARGO_PKG_VERSION")),
        verdict,
        checks,
        facts,
        elapsed_ms: begun.elapsed().as_millis() as u64,
    }
}
