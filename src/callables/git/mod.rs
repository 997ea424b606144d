//! The git-client plugin's `Git`: a client of a repository, on git's own command line.
//!
//! The controller asks for a client (`Git$GitAPIMasterToSlaveFileCallable`), gets an object of this agent's, and calls
//! its methods. What the plugin calls commands it records on its own side first, and sends as one request
//! (`RemoteGitImpl$CommandInvocationHandler$GitCommandMasterToSlaveCallable`).
//!
//! What each does, in which order, and what it prints is `CliGitAPIImpl`'s, as of git-client 3.7.1 and later. JGit, if
//! that is what the controller is configured for, is served by the command line too.

mod client;
mod commands;
mod credentials;
#[cfg(test)]
mod servers;
mod session;
#[cfg(test)]
pub(super) mod testing;
#[cfg(test)]
mod tests;
mod uri;
mod values;

use super::call::ExportedObject;
use super::{Call, Entry, Outcome, Run, Throw, ThrowClass};

/// Class of the request that carries a recorded command.
const COMMAND: &str =
    "org.jenkinsci.plugins.gitclient.RemoteGitImpl$CommandInvocationHandler$GitCommandMasterToSlaveCallable";

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    Entry {
        class: "org.jenkinsci.plugins.gitclient.Git$GitAPIMasterToSlaveFileCallable",
        owner: "git-client",
        run: Run::Blocking(client::create),
    },
    Entry { class: COMMAND, owner: "git-client", run: Run::Long(execute) },
];

/// Executes a recorded command on the client that it was recorded for.
fn execute(call: &Call) -> Outcome {
    let oid =
        || -> Result<i32, Throw> { Ok(call.view().require("this$0")?.require("proxy")?.require("h")?.int("oid")?) };
    let oid = match oid() {
        Ok(oid) => oid,
        Err(throw) => return Err(throw).into(),
    };
    let object: Option<std::sync::Arc<dyn std::any::Any + Send + Sync>> =
        call.link().object(oid).map(|object| object as _);
    match object.and_then(|object| object.downcast::<ExportedObject>().ok()) {
        Some(client) => client.0.clone().invoke(call, COMMAND, Vec::new()),
        None => {
            let text = format!("the agent exports no git client {oid}, for which a command was recorded");
            Err(Throw::new(ThrowClass::IllegalState, text)).into()
        }
    }
}
