//! Credentials, and the temporary files by which git and ssh ask for them.
//!
//! A secret is never part of a command line, of an environment variable or of a log: it is in a file that only this
//! user can read, for as long as one command runs.

use std::collections::hash_map::RandomState;
use std::fs::{self, OpenOptions, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::callables::listener::Listener;
use crate::callables::{Call, Throw, plain};
use crate::channel::command::class_loader;
use crate::object::{Graph, Loader, View};

/// Credentials for a repository. Not `Debug`, so that they can't end up in a log.
pub(super) enum Credentials {
    /// `StandardUsernamePasswordCredentials`
    Password { description: String, username: String, password: String },
    /// `SSHUserPrivateKey`
    Key { description: String, username: String, keys: Vec<String>, passphrase: String },
    /// `GitHubAppCredentials$DelegatingGitHubAppCredentials`: see [`App`].
    App(App),
}

/// Credentials of a GitHub App: a token that does for an hour, and what the controller needs to make another one.
pub(super) struct App {
    pub(super) description: String,
    /// The user name.
    pub(super) id: String,
    /// What only the controller can read.
    refresh: String,
    /// The class loader of the controller's that knows the plugin's classes.
    loader: Option<i32>,
    token: Mutex<Option<Token>>,
}

/// `GitHubAppCredentials$AppInstallationToken`, with times in seconds since 1970.
struct Token {
    secret: String,
    stale: i64,
    expires: i64,
}

impl Token {
    fn read(view: View<'_>) -> Result<Token, Throw> {
        let secret = secret(view, "token")?.ok_or_else(|| view.error("no token"))?;
        let stale = view.long("staleEpochSeconds").unwrap_or(0);
        Ok(Token { secret, stale, expires: view.long("expirationEpochSeconds").unwrap_or(stale) })
    }
}

const GET_TOKEN: &str = "org.jenkinsci.plugins.github_branch_source.GitHubAppCredentials\
                         $DelegatingGitHubAppCredentials$GetToken";

impl App {
    fn read(view: View<'_>, description: String) -> Result<App, Throw> {
        Ok(App {
            description,
            id: view.require_string("appID")?.into_owned(),
            refresh: view.require_string("tokenRefreshData")?.into_owned(),
            loader: class_loader(view),
            token: Mutex::new(view.get("cachedToken")?.map(Token::read).transpose()?),
        })
    }

    /// `getPassword`: the token, a new one if it is stale. If none can be had, the old one until it expires. Blocks.
    pub(super) fn password(&self, call: &Call) -> Result<String, Throw> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()) as i64;
        let mut token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if token.as_ref().is_none_or(|token| token.stale <= now) {
            match self.new_token(call) {
                Ok(new) => *token = Some(new),
                Err(_) if token.as_ref().is_some_and(|token| token.expires > now) => {
                    tracing::warn!("no new token for the GitHub App {}: the old one is used until it expires", self.id);
                }
                Err(throw) => return Err(throw),
            }
        }
        Ok(token.as_ref().map(|token| token.secret.clone()).unwrap_or_default())
    }

    fn new_token(&self, call: &Call) -> Result<Token, Throw> {
        let loader = self.loader.or(call.caller().loader_oid());
        let uid = call.class_uid_by(loader, GET_TOKEN)?;
        let oid = loader.ok_or_else(|| Throw::io("the credentials came without a class loader"))?;
        // As in answers: a peer without the capability gets no annotations at all.
        let annotated = !matches!(call.loader(), Loader::None);
        let mut graph = Graph::with_loader(if annotated { Loader::Receivers(oid) } else { Loader::None });
        let base = graph.serializable("jenkins.security.SlaveToMasterCallable", 1, &[], None);
        let desc = graph.serializable(GET_TOKEN, uid, &[("data", "Ljava/lang/String;")], Some(base));
        let data = graph.string(&self.refresh);
        let callable = graph.object(desc).set_ref("data", data).build();
        let answer = call.caller().call(oid, GET_TOKEN, graph.encode_one(Some(callable))).map_err(|error| {
            Throw::io(format!("no token for the GitHub App {}: {}", self.id, plain(&io::Error::from(error))))
        })?;
        Token::read(answer.root().ok_or_else(|| Throw::io(format!("no token for the GitHub App {}", self.id)))?)
    }
}

/// The text of a `hudson.util.Secret`, whose stream has it in the clear, or of a string.
fn secret(owner: View<'_>, field: &str) -> Result<Option<String>, Throw> {
    let Some(view) = owner.get(field)? else { return Ok(None) };
    let text = if view.is("hudson.util.Secret") { view.require_string("value")? } else { view.as_str()? };
    Ok(Some(text.into_owned()))
}

impl Credentials {
    /// Reads credentials by what they have: plugins bring classes of their own. `None` if they have neither a key nor a
    /// password.
    pub(super) fn read(view: View<'_>) -> Result<Option<Credentials>, Throw> {
        let text = |field: &str| Ok::<_, Throw>(view.string(field)?.unwrap_or_default().into_owned());
        let description = text("description")?;
        if let Some(source) = view.get("privateKeySource")? {
            let key = secret(source, "privateKey")?.ok_or_else(|| source.error("no private key"))?;
            // DirectEntryPrivateKeySource.getPrivateKeys
            let keys = key.split('\u{c}').filter(|key| !key.trim().is_empty()).map(str::to_owned).collect();
            let passphrase = secret(view, "passphrase")?.unwrap_or_default();
            return Ok(Some(Credentials::Key { description, username: text("username")?, keys, passphrase }));
        }
        if view.field("tokenRefreshData").is_some() {
            return Ok(Some(Credentials::App(App::read(view, description)?)));
        }
        match view.field("password") {
            Some(_) => {
                let password = secret(view, "password")?.unwrap_or_default();
                Ok(Some(Credentials::Password { description, username: text("username")?, password }))
            }
            None => Ok(None),
        }
    }
}

/// How ssh is to know servers (`HostKeyVerifierFactory`, git-client 3.11.1 and later; before, all were accepted).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum HostKeys {
    #[default]
    AcceptAll,
    AcceptFirst,
    KnownHosts,
    /// Lines of a `known_hosts` file.
    Given(String),
}

impl HostKeys {
    /// Reads the factory of a request.
    ///
    /// # Errors
    /// If it is none that this agent knows: to connect without the check it stands for would be unsafe.
    pub(super) fn read(factory: Option<View<'_>>) -> Result<HostKeys, Throw> {
        let Some(factory) = factory else { return Ok(HostKeys::AcceptAll) };
        let class = factory.class_name();
        Ok(match class.rsplit('.').next().unwrap_or_default() {
            "NoHostKeyVerifier" => HostKeys::AcceptAll,
            "AcceptFirstConnectionVerifier" => HostKeys::AcceptFirst,
            "KnownHostsFileVerifier" => HostKeys::KnownHosts,
            "ManuallyProvidedKeyVerifier" => HostKeys::Given(factory.require_string("approvedHostKeys")?.into_owned()),
            _ => {
                let text = format!("This agent does not know the SSH host key verification {class}.");
                return Err(Throw::abort(text));
            }
        })
    }

    /// The option of ssh, with `file` for the given keys.
    pub(super) fn option(&self, file: Option<&Path>) -> String {
        match (self, file) {
            (HostKeys::AcceptAll, _) => "-o StrictHostKeyChecking=no".to_owned(),
            (HostKeys::AcceptFirst, _) => "-o StrictHostKeyChecking=accept-new".to_owned(),
            (HostKeys::Given(_), Some(file)) => {
                let file = quoted(&file.to_string_lossy());
                format!("-o StrictHostKeyChecking=yes -o UserKnownHostsFile={file}")
            }
            (HostKeys::KnownHosts | HostKeys::Given(_), _) => "-o StrictHostKeyChecking=yes".to_owned(),
        }
    }
}

/// A word for the shell (`CliGitAPIImpl.unixArgEncodeFileName`).
pub(super) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Temporary files of one command, which go when this does.
pub(super) struct TempFiles {
    directory: PathBuf,
    files: Vec<PathBuf>,
    listener: Listener,
}

impl TempFiles {
    /// Files beside a workspace, or, where git or ssh would misread that path, in the system's temporary directory
    /// (`CliGitAPIImpl.createTempFile`).
    pub(super) fn beside(workspace: &Path, listener: &Listener) -> TempFiles {
        let mut directory = workspace.as_os_str().to_owned();
        directory.push("@tmp");
        let mut directory = PathBuf::from(directory);
        let odd = directory.to_string_lossy().contains(['%', '`', '\n', '\r']);
        if odd || (fs::create_dir_all(&directory).is_err() && !directory.is_dir()) {
            directory = std::env::temp_dir();
        }
        TempFiles { directory, files: Vec::new(), listener: listener.clone() }
    }

    /// Makes a file with this text and mode, readable by this user alone from the start.
    pub(super) fn create(&mut self, prefix: &str, suffix: &str, mode: u32, text: &str) -> io::Result<PathBuf> {
        // A new state has new keys, so the hash of nothing is a random number.
        let number = RandomState::new().build_hasher().finish();
        let path = self.directory.join(format!("jenkins-gitclient-{prefix}{number}{suffix}"));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        self.files.push(path.clone());
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Takes over a file that somebody else makes.
    pub(super) fn adopt(&mut self, path: PathBuf) {
        self.files.push(path);
    }
}

impl Drop for TempFiles {
    fn drop(&mut self) {
        for file in self.files.drain(..) {
            match fs::remove_file(&file) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.listener.println(&format!("[WARNING] temp file {} not deleted", file.display()));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_private_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("ws");
        let (listener, _) = Listener::in_memory();
        let mut files = TempFiles::beside(&workspace, &listener);
        let path = files.create("ssh", ".key", 0o400, "secret").unwrap();
        assert!(path.starts_with(dir.path().join("ws@tmp")), "{path:?}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        drop(files);
        assert!(!path.exists());
    }

    #[test]
    fn odd_workspaces_have_their_files_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["feature%2Fx", "a`b"] {
            let files = TempFiles::beside(&dir.path().join(name), &Listener::none());
            assert_eq!(files.directory, std::env::temp_dir());
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn quoting_survives_the_shell() {
        for text in ["plain", "a b", "it's", "''", "$x `y` \"z\""] {
            let mut shell = std::process::Command::new("sh");
            shell.args(["-c", &format!("printf %s {}", quoted(text))]);
            let output = shell.output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }
}
