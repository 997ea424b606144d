//! The client: what it remembers between calls, and its methods.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use super::COMMAND;
use super::commands::{
    self, CheckoutCommand, CloneCommand, FetchCommand, MergeCommand, PushCommand, SubmoduleUpdateCommand,
};
use super::credentials::{Credentials, HostKeys};
use super::session::{Session, git_error};
use super::uri::Uri;
use super::values::{Args, Commit, CommitUids, IndexEntry, Named, Sha, is_sha, object_id, ref_spec, reply};
use crate::callables::file_path::types::build_file_path;
use crate::callables::listener::Listener;
use crate::callables::{Call, Exported, Outcome, Reply, Throw, ThrowClass};
use crate::object::{Graph, NodeId, Value, View};
use crate::process::env::EnvVars;

/// A client of a repository.
pub(super) struct Client {
    pub(super) exe: String,
    pub(super) workspace: PathBuf,
    pub(super) listener: Listener,
    pub(super) host_keys: HostKeys,
    state: Mutex<State>,
}

/// What calls change.
#[derive(Default)]
pub(super) struct State {
    pub(super) env: EnvVars,
    pub(super) credentials: HashMap<String, Arc<Credentials>>,
    pub(super) default_credentials: Option<Arc<Credentials>>,
    pub(super) proxy: Option<Proxy>,
    /// Of git; 0 is not known yet.
    pub(super) version: u64,
}

/// `hudson.ProxyConfiguration`
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) name: String,
    pub(super) port: i32,
    user: Option<String>,
    password: Option<String>,
    exempt: Vec<String>,
}

impl Proxy {
    fn read(view: View<'_>) -> Result<Proxy, Throw> {
        let text = |name: &str| Ok::<_, Throw>(view.string(name)?.map(Into::into));
        let exempt: Option<String> = text("noProxyHost")?;
        let password = match view.get("secretPassword")? {
            Some(secret) => Some(secret.require_string("value")?.into_owned()),
            None => None,
        };
        let separator = |char: char| matches!(char, ' ' | '\t' | '\n' | ',' | '|');
        let exempt = exempt.unwrap_or_default();
        Ok(Proxy {
            name: view.require_string("name")?.into_owned(),
            port: view.int("port")?,
            user: text("userName")?,
            password,
            exempt: exempt.split(separator).filter(|host| !host.is_empty()).map(str::to_owned).collect(),
        })
    }

    /// Whether a host is reached without the proxy (`ProxyConfiguration.getNoProxyHostPatterns`: `*` is anything).
    pub(super) fn is_exempt(&self, host: &str) -> bool {
        self.exempt.iter().any(|pattern| wildcard(pattern, host))
    }

    /// `http://user:password@name:port`, as `new URI(...)` escapes it.
    pub(super) fn address(&self) -> String {
        let mut info = String::new();
        if let Some(user) = self.user.as_deref().filter(|user| !user.is_empty()) {
            info.push_str(&escaped(user));
            if let Some(password) = self.password.as_deref().filter(|password| !password.is_empty()) {
                info.push(':');
                info.push_str(&escaped(password));
            }
            info.push('@');
        }
        format!("http://{info}{}:{}", self.name, self.port)
    }
}

/// Whether a text is matched by a pattern in which `*` is anything.
fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            _ if b"-_.!~*'(),;:$&+=".contains(&byte) => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `Git$GitAPIMasterToSlaveFileCallable`
pub(super) fn create(call: &Call) -> Result<Reply, Throw> {
    let git = call.view().require("this$0")?;
    let listener = match git.get("listener")? {
        Some(listener) => Listener::open(call, listener)?,
        None => Listener::none(),
    };
    let mut env = EnvVars::new();
    for (name, value) in git.get("env")?.map_or_else(|| Ok(Vec::new()), View::string_map)? {
        env.put(name, value.unwrap_or_default());
    }
    let exe = match git.string("exe")?.as_deref() {
        None => "git".to_owned(),
        Some(jgit) if jgit.eq_ignore_ascii_case("jgit") || jgit.eq_ignore_ascii_case("jgitapache") => "git".to_owned(),
        Some(exe) => exe.to_owned(),
    };
    let host_keys = match call.view().get("hostKeyFactory")? {
        Some(factory) => Some(factory),
        None => git.get("hostKeyFactory")?,
    };
    let client = Client {
        exe,
        workspace: std::path::absolute(call.path()?)?,
        listener,
        host_keys: HostKeys::read(host_keys)?,
        state: Mutex::new(State { env, ..State::default() }),
    };
    Ok(exported(call, client))
}

/// An answer with a client: `RemoteGitImpl`, which is a class of the controller's around a proxy.
fn exported(call: &Call, client: Client) -> Reply {
    let oid = call.export(Arc::new(client));
    call.reply(|graph| {
        let proxy = call.proxy(graph, "hudson.plugins.git.IGitAPI", oid);
        let fields = [("proxy", "Lorg/jenkinsci/plugins/gitclient/GitClient;")];
        let desc = graph.serializable("org.jenkinsci.plugins.gitclient.RemoteGitImpl", 1, &fields, None);
        graph.object(desc).set_ref("proxy", proxy).build()
    })
}

impl Client {
    pub(super) fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Client {
    /// The channel drops its objects with its lock held, which a stream that is given back needs.
    fn drop(&mut self) {
        let listener = std::mem::replace(&mut self.listener, Listener::none());
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move { drop(listener) });
        }
    }
}

impl Exported for Client {
    fn invoke(self: Arc<Self>, call: &Call, method: &str, args: Vec<Option<View<'_>>>) -> Outcome {
        let session = Session { client: &self, call };
        let result = match method {
            COMMAND => commands::replay(&session).map(|()| call.null()),
            _ => session.method(method, &Args::new(method, args)),
        };
        let _ = self.listener.flush();
        // The console was opened by another request than the one that is answered here.
        call.caller().answer_after(self.listener.last_io_id());
        result.into()
    }
}

/// `firstLine`
fn first_line(text: &str) -> Result<Option<String>, Throw> {
    let mut lines = text.lines();
    let first = lines.next().map(|line| line.trim().to_owned());
    match lines.next() {
        Some(_) => Err(git_error("Result has multiple lines")),
        None => Ok(first),
    }
}

/// What fails as a `GitException` counts as its default.
fn or_default<T: Default>(result: Result<T, Throw>) -> Result<T, Throw> {
    match result {
        Err(throw) if throw.class == ThrowClass::Git => Ok(T::default()),
        result => result,
    }
}

/// `parseBranches`
fn parse_branches(printed: &str) -> Vec<Named> {
    let printed = printed.replace('\r', "");
    let parse = |line: &str| {
        let mut fields = line.get(2..)?.split(' ').filter(|field| !field.is_empty());
        let (name, sha) = (fields.next()?, fields.next()?);
        is_sha(sha).then(|| Named { name: name.to_owned(), sha: sha.to_owned() })
    };
    printed.lines().filter_map(parse).collect()
}

/// Lines of a name and an object, as `ls-remote` prints them.
fn refs(printed: &str) -> impl Iterator<Item = (&str, Sha)> {
    printed.lines().filter_map(|line| {
        let (sha, name) = line.split_once(['\t', ' '])?;
        is_sha(sha).then(|| (name, sha.to_owned()))
    })
}

/// A tag's or a ref's name as the plugin makes it.
fn name(text: &str) -> String {
    text.replace(' ', "_")
}

impl Session<'_> {
    /// A method of `GitClient` or `IGitAPI`.
    fn method(&self, method: &str, args: &Args<'_>) -> Result<Reply, Throw> {
        let call = self.call;
        let done = |()| call.null();
        let text = |text: Option<String>| text.map_or_else(|| call.null(), |text| call.string(&text));
        match (method, args.len()) {
            // Settings
            ("setProxy", 1) => {
                let proxy = args.any(0)?.map(Proxy::read).transpose()?;
                self.state(|state| state.proxy = proxy);
                Ok(call.null())
            }
            ("addCredentials", 2) => {
                let (url, credentials) = (args.string(0)?, self.read_credentials(args.any(1)?)?);
                self.state(|state| match credentials {
                    Some(credentials) => drop(state.credentials.insert(url, credentials)),
                    None => drop(state.credentials.remove(&url)),
                });
                Ok(call.null())
            }
            ("addDefaultCredentials", 1) => {
                let credentials = self.read_credentials(args.any(0)?)?;
                self.state(|state| state.default_credentials = credentials);
                Ok(call.null())
            }
            ("setCredentials", 1) => {
                let credentials = self.read_credentials(args.any(0)?)?;
                self.state(|state| {
                    state.credentials.clear();
                    state.default_credentials = credentials;
                });
                Ok(call.null())
            }
            ("clearCredentials", 0) => {
                self.state(|state| state.credentials.clear());
                Ok(call.null())
            }
            ("setAuthor", _) => self.set_person("GIT_AUTHOR", args, 0).map(done),
            ("setCommitter", _) => self.set_person("GIT_COMMITTER", args, 0).map(done),
            ("getWorkTree", 0) => Ok(call.reply(|graph| build_file_path(graph, self.workspace()))),
            ("subGit", 1) => {
                let client = Client {
                    exe: self.client.exe.clone(),
                    workspace: self.workspace().join(args.string(0)?),
                    listener: self.client.listener.clone(),
                    host_keys: self.client.host_keys.clone(),
                    state: Mutex::new(State { env: self.state(|state| state.env.clone()), ..State::default() }),
                };
                Ok(exported(call, client))
            }

            // Questions
            ("hasGitRepo", 0) => Ok(call.bool(self.has_git_repo(true)?)),
            ("hasGitRepo", 1) => Ok(call.bool(self.has_git_repo(args.bool(0)?)?)),
            ("hasGitModules", _) => Ok(call.bool(self.workspace().join(".gitmodules").exists())),
            ("isCommitInRepo", 1) => {
                let found = match args.any(0)? {
                    Some(_) => or_default(self.rev_list(&["--no-walk", &args.revision(0)?]))?.len(),
                    None => 0,
                };
                Ok(call.bool(found > 0))
            }
            ("isBareRepository", _) => {
                let directory = if args.len() == 0 { String::new() } else { args.string(0)? };
                Ok(call.bool(self.is_bare(&directory)?))
            }
            ("getRemoteUrl", 1) => Ok(text(self.remote_url(&args.string(0)?)?)),
            ("getRemoteUrl", 2) => {
                let (key, directory) = (format!("remote.{}.url", args.string(0)?), args.string(1)?);
                let in_directory = format!("--git-dir={directory}");
                let printed = match directory.trim() {
                    "" => self.git(&["config", "--get", &key])?,
                    _ => self.git(&[&in_directory, "config", "--get", &key])?,
                };
                let none = || git_error(format!("No output from git config check for {directory}"));
                Ok(call.string(&first_line(&printed)?.ok_or_else(none)?))
            }
            ("getSubmoduleUrl", 1) => Ok(text(self.submodule_url(&args.string(0)?)?)),
            ("getDefaultRemote", 1) => Ok(call.string(&self.default_remote(&args.string(0)?)?)),
            ("revParse", 1) => {
                let revision = args.string(0)?;
                let sha = self.rev_parse(&revision)?;
                Ok(reply(call, |values| values.object_id(&sha)))
            }
            ("revList", 1) | ("revListBranch", 1) => {
                let found = self.rev_list(&[&args.string(0)?])?;
                Ok(self.object_ids(&found))
            }
            ("revListAll", 0) => {
                let found = self.rev_list(&["--all"])?;
                Ok(self.object_ids(&found))
            }
            ("mergeBase", 2) => {
                let printed = or_default(self.git(&["merge-base", &args.revision(0)?, &args.revision(1)?]))?;
                match printed.lines().next().filter(|line| is_sha(line)) {
                    Some(sha) => Ok(reply(call, |values| values.object_id(sha))),
                    None => Ok(call.null()),
                }
            }
            ("describe", 1) => {
                let commit = args.string(0)?;
                let none = || git_error(format!("null first line from describe({commit})"));
                Ok(call.string(&first_line(&self.git(&["describe", "--tags", &commit])?)?.ok_or_else(none)?))
            }
            ("getBranches", 0) => {
                let branches = self.branches()?;
                Ok(self.set(|values| values.branches(&branches)))
            }
            ("getRemoteBranches", 0) => {
                let branches = self.remote_branches()?;
                Ok(self.set(|values| values.branches(&branches)))
            }
            ("getBranchesContaining", 1 | 2) => {
                let all = args.len() == 1 || args.bool(1)?;
                let revision = args.string(0)?;
                let mut command = vec!["branch"];
                command.extend(all.then_some("-a"));
                command.extend(["-v", "--no-abbrev", "--contains", &revision]);
                let branches = parse_branches(&self.git(&command)?);
                Ok(self.list(|values| values.branches(&branches)))
            }
            ("getTags", 0) => {
                let tags = self.tags()?;
                Ok(self.set(|values| values.git_objects(&tags)))
            }
            ("getTagsOnCommit", 1) => {
                let tags = self.tags_on(&args.string(0)?)?;
                Ok(self.list(|values| values.tags(&tags)))
            }
            ("tagExists", 1) => {
                let name = args.string(0)?;
                Ok(call.bool(self.git(&["tag", "-l", &name])?.trim() == name))
            }
            ("getTagMessage", 1) => {
                let name = args.string(0)?;
                let printed = self.git(&["tag", "-l", &name, "-n10000"])?;
                let message = printed.get(name.len()..).unwrap_or_default();
                let lines: Vec<&str> = message.lines().map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
                Ok(call.string(lines.join("\n").trim()))
            }
            ("getTagNames", 1) => {
                let pattern = args.text(0)?;
                let mut command = vec!["tag", "-l"];
                command.extend(pattern.as_deref());
                let printed = self.git(&command).map_err(|throw| wrapped("Error retrieving tag names", throw))?;
                Ok(self.names(printed.lines()))
            }
            ("getRemoteTagNames", 1) => {
                let printed = self.remote_tags(args.text(0)?);
                let printed = printed.map_err(|throw| wrapped("Error retrieving remote tag names", throw))?;
                Ok(self.names(printed.lines().map(|line| line.rsplit("refs/tags/").next().unwrap_or(line))))
            }
            ("getRefNames", 1) => {
                let prefix = match args.string(0)?.as_str() {
                    "" => "refs/".to_owned(),
                    prefix => name(prefix),
                };
                let printed = self.git(&["for-each-ref", "--format=%(refname)", &prefix]);
                let message = format!("Error retrieving refs with prefix {prefix}");
                Ok(self.names(printed.map_err(|throw| wrapped(message, throw))?.lines()))
            }
            ("refExists", 1) => {
                let found = self.git(&["show-ref", &name(&args.string(0)?)]).map(|_| true);
                Ok(call.bool(or_default(found)?))
            }
            ("getHeadRev", 1) => {
                let printed = self.ls_remote(&["-h"], &args.string(0)?, None)?;
                Ok(self.map(refs(&printed).map(|(name, sha)| (name.to_owned(), sha)).collect()))
            }
            ("getHeadRev", 2) => {
                let branch = branch_of_spec(&args.string(1)?);
                let printed = match branch.starts_with("refs/tags/") {
                    true => self.ls_remote(&[], &args.string(0)?, Some(&format!("{branch}^{{}}")))?,
                    false => self.ls_remote(&["-h"], &args.string(0)?, Some(&branch))?,
                };
                match printed.get(..40).filter(|sha| is_sha(sha)) {
                    Some(sha) => Ok(reply(call, |values| values.object_id(sha))),
                    None => Ok(call.null()),
                }
            }
            ("getRemoteReferences", 4) => {
                let mut options = Vec::new();
                options.extend(args.bool(2)?.then_some("-h"));
                options.extend(args.bool(3)?.then_some("-t"));
                let printed = self.ls_remote(&options, &args.string(0)?, args.text(1)?.as_deref())?;
                let mut found = BTreeMap::new();
                for (name, sha) in refs(&printed) {
                    match name.strip_suffix("^{}").filter(|name| name.starts_with("refs/tags")) {
                        // The commit that an annotated tag is for.
                        Some(tag) => drop(found.insert(tag.to_owned(), sha)),
                        None => drop(found.entry(name.to_owned()).or_insert(sha)),
                    }
                }
                Ok(self.map(found))
            }
            ("getRemoteSymbolicReferences", 2) => {
                let mut found = Vec::new();
                if self.at_least(2, 8, 0)? {
                    let printed = self.ls_remote(&["--symref"], &args.string(0)?, args.text(1)?.as_deref())?;
                    for line in printed.lines() {
                        let mut words = line.strip_prefix("ref:").unwrap_or_default().split_whitespace();
                        if let (Some(target), Some(name), None) = (words.next(), words.next(), words.next()) {
                            found.push((name.to_owned(), target.to_owned()));
                        }
                    }
                }
                Ok(call.reply(|graph| {
                    let mut strings =
                        |(name, target): &(String, String)| (Some(graph.string(name)), Some(graph.string(target)));
                    let entries: Vec<_> = found.iter().map(&mut strings).collect();
                    graph.hash_map(&entries)
                }))
            }
            ("lsTree", 1 | 2) => {
                let recursive = args.len() == 2 && args.bool(1)?;
                let entries = self.ls_tree(&args.string(0)?, recursive)?;
                Ok(self.list(|values| values.index_entries(&entries)))
            }
            ("getSubmodules", 1) => {
                let entries = self.submodules(&args.string(0)?)?;
                Ok(self.list(|values| values.index_entries(&entries)))
            }
            ("showRevision", 1..=3) => {
                let lines = self.show_revision(args)?;
                Ok(call.reply(|graph| {
                    let lines: Vec<_> = lines.iter().map(|line| Some(graph.string(line))).collect();
                    graph.array_list(&lines)
                }))
            }
            ("getAllLogEntries", 1) => {
                Ok(call.string(&self.git(&["log", "--all", "--pretty=format:'%H#%ct'", &args.string(0)?])?))
            }
            ("withRepository", 1) => self.with_repository(args.view(0)?),

            // Changes
            ("init", 0) => self.init(self.workspace(), false).map(done),
            ("setRemoteUrl", 2) => self.set_remote_url(&args.string(0)?, &args.string(1)?).map(done),
            ("setRemoteUrl", 3) => {
                let directory = format!("--git-dir={}", args.string(2)?);
                let key = format!("remote.{}.url", args.string(0)?);
                self.git(&[&directory, "config", &key, &args.string(1)?]).map(|_| call.null())
            }
            ("addRemoteUrl", 2) => {
                let key = format!("remote.{}.url", args.string(0)?);
                self.git(&["config", "--add", &key, &args.string(1)?]).map(|_| call.null())
            }
            ("setSubmoduleUrl", 2) => self.set_submodule_url(&args.string(0)?, &args.string(1)?).map(done),
            ("clean", 0 | 1) => {
                let submodules = args.len() == 1 && args.bool(0)?;
                self.reset(true)?;
                self.git(&["clean", if submodules { "-ffdx" } else { "-fdx" }]).map(|_| call.null())
            }
            ("reset", 0 | 1) => self.reset(args.len() == 1 && args.bool(0)?).map(done),
            ("add", 1) => {
                let pattern = args.string(0)?;
                self.git_or(&["add", &pattern], format!("Cannot add {pattern}")).map(done)
            }
            ("commit", 1 | 3) => {
                if args.len() == 3 {
                    self.set_person("GIT_AUTHOR", args, 1)?;
                    self.set_person("GIT_COMMITTER", args, 2)?;
                }
                self.commit(&args.string(0)?).map(done)
            }
            ("branch", 1) => {
                let name = args.string(0)?;
                self.git_or(&["branch", &name], format!("Cannot create branch {name}")).map(done)
            }
            ("deleteBranch", 1) => self.delete_branch(&args.string(0)?).map(done),
            ("tag", 2) => {
                let tag = name(&args.string(0)?);
                let failed = format!("Could not apply tag {tag}");
                self.git_or(&["tag", "-a", "-f", "-m", &args.string(1)?, &tag], failed).map(done)
            }
            ("deleteTag", 1) => {
                let tag = name(&args.string(0)?);
                self.git_or(&["tag", "-d", &tag], format!("Could not delete tag {tag}")).map(done)
            }
            ("ref", 1) => {
                let name = name(&args.string(0)?);
                self.git_or(&["update-ref", &name, "HEAD"], format!("Could not apply ref {name}")).map(done)
            }
            ("deleteRef", 1) => {
                let name = name(&args.string(0)?);
                self.git_or(&["update-ref", "-d", &name], format!("Could not delete ref {name}")).map(done)
            }
            ("addNote", 2) => self.note(&args.string(0)?, &args.string(1)?, "add").map(done),
            ("appendNote", 2) => self.note(&args.string(0)?, &args.string(1)?, "append").map(done),
            ("checkout", 1 | 2) => {
                let branch = if args.len() == 2 { args.text(1)? } else { None };
                self.checkout(&CheckoutCommand { reference: args.string(0)?, branch, ..CheckoutCommand::default() })
                    .map(done)
            }
            ("checkoutBranch", 2) => {
                let (branch, reference) = (args.text(0)?, args.string(1)?);
                self.checkout(&CheckoutCommand { reference, branch, delete_branch: true, ..CheckoutCommand::default() })
                    .map(done)
            }
            ("merge", 1) if !args.view(0)?.is("java.lang.String") => self
                .merge(&MergeCommand { revision: Some(object_id(args.view(0)?)?), ..MergeCommand::default() })
                .map(done),
            ("merge", 1) => {
                let revision = args.string(0)?;
                self.git_or(&["merge", &revision], format!("Could not merge {revision}")).map(done)
            }
            ("clone", 4) => {
                let clone = CloneCommand {
                    url: args.string(0)?,
                    origin: args.string(1)?,
                    shallow: args.bool(2)?,
                    reference: args.text(3)?,
                    ..CloneCommand::default()
                };
                self.clone_from(clone).map(done)
            }
            ("clone", 1 | 2) => {
                let remote = Remote::read(args.view(0)?)?;
                let shallow = args.len() == 2 && args.bool(1)?;
                let clone =
                    CloneCommand { url: remote.url.private(), origin: remote.name, shallow, ..CloneCommand::default() };
                self.clone_from(clone).map(done)
            }
            ("fetch", _) => self.fetch_method(args).map(done),
            ("push", 2) => self.push_method(args).map(done),
            ("prune", 1) => {
                let name = args.view(0)?.require_string("name")?.into_owned();
                self.prune(&name).map(done)
            }
            ("submoduleInit", 0) => self.git(&["submodule", "init"]).map(|_| call.null()),
            ("submoduleSync", 0) => self.git(&["submodule", "sync"]).map(|_| call.null()),
            ("addSubmodule", 2) => {
                self.git(&["submodule", "add", &args.string(0)?, &args.string(1)?]).map(|_| call.null())
            }
            ("submoduleUpdate", 1..=3) => {
                let second = if args.len() > 1 { args.any(1)? } else { None };
                let tracks = second.is_some_and(|second| !second.is("java.lang.String"));
                let reference = match args.len() {
                    3 => args.text(2)?,
                    2 if !tracks => args.text(1)?,
                    _ => None,
                };
                let remote_tracking = tracks && args.bool(1)?;
                let recursive = args.bool(0)?;
                let update = SubmoduleUpdateCommand {
                    recursive,
                    remote_tracking,
                    reference,
                    ..SubmoduleUpdateCommand::default()
                };
                self.update_submodules(update).map(done)
            }
            ("submoduleClean", 1) => self.clean_submodules(args.bool(0)?).map(done),
            ("setupSubmoduleUrls", 2) => {
                let remote = match args.view(0)? {
                    name if name.is("java.lang.String") => name.as_str()?.into_owned(),
                    revision => self.remote_of(revision)?,
                };
                self.git(&["submodule", "init"])?;
                self.git(&["submodule", "sync"])?;
                self.fix_submodule_urls(&remote).map(done)
            }
            ("fixSubmoduleUrls", 2) => self.fix_submodule_urls(&args.string(0)?).map(done),
            ("changelog", 3) => {
                let (from, to) = (args.string(0)?, args.string(1)?);
                let revisions = vec![format!("^{from}"), to];
                commands::changelog(self, &revisions, None, args.view(2)?).map(done)
            }
            _ => {
                let text = format!("GitClient.{method} with {} arguments is not known to this agent", args.len());
                Err(Throw::new(ThrowClass::UnsupportedOperation, text))
            }
        }
    }

    fn set(&self, build: impl FnOnce(&mut super::values::Values<'_>) -> Vec<Option<NodeId>>) -> Reply {
        reply(self.call, |values| {
            let items = build(values);
            values.graph.hash_set(&items)
        })
    }

    fn list(&self, build: impl FnOnce(&mut super::values::Values<'_>) -> Vec<Option<NodeId>>) -> Reply {
        reply(self.call, |values| {
            let items = build(values);
            values.graph.array_list(&items)
        })
    }

    fn object_ids(&self, shas: &[Sha]) -> Reply {
        self.list(|values| shas.iter().map(|sha| Some(values.object_id(sha))).collect())
    }

    /// A `Set<String>`.
    fn names<'n>(&self, names: impl Iterator<Item = &'n str>) -> Reply {
        let names: HashSet<&str> = names.collect();
        let string = |graph: &mut Graph, name: &str| Some(graph.string(name));
        self.set(|values| names.into_iter().map(|name| string(values.graph, name)).collect())
    }

    /// A `Map<String, ObjectId>`.
    fn map(&self, entries: BTreeMap<String, Sha>) -> Reply {
        reply(self.call, |values| {
            let mut items = Vec::new();
            for (name, sha) in &entries {
                items.push((Some(values.graph.string(name)), Some(values.object_id(sha))));
            }
            values.graph.hash_map(&items)
        })
    }

    fn read_credentials(&self, view: Option<View<'_>>) -> Result<Option<Arc<Credentials>>, Throw> {
        let Some(view) = view else { return Ok(None) };
        let read = Credentials::read(view)?;
        if read.is_none() {
            let class = view.class_name();
            self.println(&format!("[WARNING] This agent does not know credentials of the class {class}: not used"));
        }
        Ok(read.map(Arc::new))
    }

    /// `setAuthor` and `setCommitter`: two strings, or a `PersonIdent`.
    fn set_person(&self, variable: &str, args: &Args<'_>, at: usize) -> Result<(), Throw> {
        let (name, email) = match args.any(at)? {
            Some(person) if !person.is("java.lang.String") => {
                let text = |field: &str| Ok::<_, Throw>(person.string(field)?.map(Into::into));
                (text("name")?, text("emailAddress")?)
            }
            None if args.len() == 1 || at > 0 => return Ok(()),
            _ => (args.text(at)?, args.text(at + 1)?),
        };
        self.state(|state| {
            for (suffix, value) in [("NAME", name), ("EMAIL", email)] {
                let variable = format!("{variable}_{suffix}");
                match value {
                    Some(value) => state.env.put(variable, value),
                    None => drop(state.env.remove(&variable)),
                }
            }
        });
        Ok(())
    }

    /// Runs git; a failure is told in the words of the plugin.
    fn git_or(&self, args: &[&str], failed: String) -> Result<(), Throw> {
        self.git(args).map(drop).map_err(|throw| wrapped(failed, throw))
    }

    fn has_git_repo(&self, in_parents: bool) -> Result<bool, Throw> {
        let git = self.workspace().join(".git");
        if !git.exists() {
            return Ok(false);
        }
        let valid = match in_parents {
            true => self.git(&["rev-parse", "--is-inside-work-tree"]),
            false => self.git(&["rev-parse", "--resolve-git-dir", &git.to_string_lossy()]),
        };
        match valid {
            Ok(_) => Ok(true),
            Err(throw) if throw.class == ThrowClass::Interrupted => Err(throw),
            Err(throw) => {
                self.error_with("Workspace has a .git repository, but it appears to be corrupt.", &throw);
                Ok(false)
            }
        }
    }

    fn is_bare(&self, directory: &str) -> Result<bool, Throw> {
        let in_directory = format!("--git-dir={directory}");
        let printed = match directory {
            "" => self.git(&["rev-parse", "--is-bare-repository"])?,
            _ => self.git(&[&in_directory, "rev-parse", "--is-bare-repository"])?,
        };
        match printed.trim() {
            "" => Err(git_error(format!("No output from bare repository check for {directory}"))),
            answer => Ok(answer != "false"),
        }
    }

    pub(super) fn remote_url(&self, name: &str) -> Result<Option<String>, Throw> {
        first_line(&self.git(&["config", "--get", &format!("remote.{name}.url")])?)
    }

    pub(super) fn set_remote_url(&self, name: &str, url: &str) -> Result<(), Throw> {
        self.git(&["config", &format!("remote.{name}.url"), url]).map(drop)
    }

    pub(super) fn submodule_url(&self, name: &str) -> Result<Option<String>, Throw> {
        first_line(&self.git(&["config", "--get", &format!("submodule.{name}.url")])?)
    }

    fn set_submodule_url(&self, name: &str, url: &str) -> Result<(), Throw> {
        self.git(&["config", &format!("submodule.{name}.url"), url]).map(drop)
    }

    pub(super) fn submodule_path(&self, name: &str) -> Result<Option<String>, Throw> {
        first_line(&self.git(&["config", "-f", ".gitmodules", "--get", &format!("submodule.{name}.path")])?)
    }

    pub(super) fn default_remote(&self, preferred: &str) -> Result<String, Throw> {
        let printed = self.git(&["remote"])?;
        if printed.lines().any(|line| line == preferred) {
            return Ok(preferred.to_owned());
        }
        printed.lines().next().map(str::to_owned).ok_or_else(|| git_error("No remotes found!"))
    }

    fn rev_parse(&self, revision: &str) -> Result<Sha, Throw> {
        let printed = self.git(&["rev-parse", &format!("{revision}^{{commit}}")])?;
        match printed.trim() {
            "" => Err(git_error(format!("rev-parse no content returned for {revision}"))),
            sha => checked(sha),
        }
    }

    pub(super) fn rev_list(&self, args: &[&str]) -> Result<Vec<Sha>, Throw> {
        let mut command = vec!["rev-list"];
        command.extend(args);
        self.git(&command)?.lines().map(checked).collect()
    }

    pub(super) fn branches(&self) -> Result<Vec<Named>, Throw> {
        Ok(parse_branches(&self.git(&["branch", "-a", "-v", "--no-abbrev"])?))
    }

    /// A Java agent reads these by JGit.
    fn remote_branches(&self) -> Result<Vec<Named>, Throw> {
        let printed = self.quietly(&["for-each-ref", "--format=%(objectname) %(refname)", "refs/remotes/"])?;
        let printed = String::from_utf8_lossy(&printed.unwrap_or_default()).into_owned();
        let strip = |name: &str| name.strip_prefix("refs/remotes/").unwrap_or(name).to_owned();
        let branches: Vec<Named> = refs(&printed).map(|(name, sha)| Named { name: strip(name), sha }).collect();
        for branch in &branches {
            self.println(&format!("Seen branch in repository {}", branch.name));
        }
        match branches.len() {
            1 => self.println("Seen 1 remote branch"),
            number => self.println(&format!("Seen {} remote branches", grouped(number))),
        }
        Ok(branches)
    }

    fn tags(&self) -> Result<Vec<Named>, Throw> {
        let printed = or_default(self.git(&["show-ref", "--tags", "-d"]))?;
        let mut tags: BTreeMap<String, Sha> = BTreeMap::new();
        for line in printed.lines().filter(|line| !line.is_empty()) {
            let parsed = line.split_once(' ').filter(|(sha, _)| is_sha(sha));
            let Some((sha, tag)) = parsed.and_then(|(sha, name)| Some((sha, name.strip_prefix("refs/tags/")?))) else {
                self.println(&format!("git show-ref --tags -d output not matched in line: {line}"));
                continue;
            };
            match tag.strip_suffix("^{}") {
                // The commit that an annotated tag is for.
                Some(tag) => drop(tags.insert(tag.to_owned(), sha.to_owned())),
                None => drop(tags.entry(tag.to_owned()).or_insert_with(|| sha.to_owned())),
            }
        }
        Ok(tags.into_iter().map(|(name, sha)| Named { name, sha }).collect())
    }

    /// A Java agent reads these by JGit, which compares with the tag itself and not with what it is for.
    fn tags_on(&self, revision: &str) -> Result<Vec<Named>, Throw> {
        let resolved = self.quietly(&["rev-parse", "--verify", "--quiet", revision])?.unwrap_or_default();
        let commit = String::from_utf8_lossy(&resolved).trim().to_owned();
        let printed = self.quietly(&["for-each-ref", "--format=%(objectname) %(refname)", "refs/tags/"])?;
        let printed = String::from_utf8_lossy(&printed.unwrap_or_default()).into_owned();
        let tags = refs(&printed).filter(|(_, sha)| *sha == commit);
        let strip = |name: &str| name.strip_prefix("refs/tags/").unwrap_or(name).to_owned();
        Ok(tags.map(|(name, sha)| Named { name: strip(name), sha }).collect())
    }

    fn remote_tags(&self, pattern: Option<String>) -> Result<String, Throw> {
        let mut command = vec!["ls-remote".to_owned(), "--tags".to_owned()];
        if let Some(url) = self.remote_url("origin")? {
            self.add_url(&mut command, &url)?;
        }
        command.extend(pattern);
        self.git_in(&command, Some(self.workspace()), self.state(|state| state.env.clone()), None)
    }

    fn ls_remote(&self, options: &[&str], url: &str, pattern: Option<&str>) -> Result<String, Throw> {
        let mut command = vec!["ls-remote".to_owned()];
        command.extend(options.iter().map(|&option| option.to_owned()));
        self.add_url(&mut command, url)?;
        command.extend(pattern.map(str::to_owned));
        self.git_with(&command, None, self.credentials(url), &parse_url(url)?, None)
    }

    fn ls_tree(&self, tree: &str, recursive: bool) -> Result<Vec<IndexEntry>, Throw> {
        let mut command = vec!["ls-tree"];
        command.extend(recursive.then_some("-r"));
        command.push(tree);
        let printed = self.git(&command)?;
        let parse = |line: &str| {
            let mut words = line.split_whitespace().map(str::to_owned);
            Some([words.next()?, words.next()?, words.next()?, words.next()?])
        };
        Ok(printed.lines().filter_map(parse).collect())
    }

    fn submodules(&self, tree: &str) -> Result<Vec<IndexEntry>, Throw> {
        let mut entries = self.ls_tree(tree, true)?;
        entries.retain(|[mode, ..]| mode == "160000");
        Ok(entries)
    }

    fn show_revision(&self, args: &Args<'_>) -> Result<Vec<String>, Throw> {
        let revision = |at: usize| {
            let Some(view) = args.any(at)? else { return Ok(None) };
            // The deprecated form has a `Revision`.
            let view = if view.is("hudson.plugins.git.Revision") { view.require("sha1")? } else { view };
            object_id(view).map(Some)
        };
        let (from, to) = if args.len() == 1 { (None, revision(0)?) } else { (revision(0)?, revision(1)?) };
        let raw = args.len() < 3 || args.bool(2)?;
        let to = to.ok_or_else(|| Throw::io("showRevision of null"))?;
        let mut command = vec!["log", "--full-history", "--no-abbrev", "--format=raw", "-M", "-m"];
        command.extend(raw.then_some("--raw"));
        let range = from.map(|from| format!("{from}..{to}"));
        match &range {
            Some(range) => command.push(range),
            None => command.extend(["-1", &to]),
        }
        let printed = self.git(&command)?;
        // String.split leaves out what is empty at the end.
        Ok(printed.trim_end_matches('\n').split('\n').map(str::to_owned).collect())
    }

    pub(super) fn reset(&self, hard: bool) -> Result<(), Throw> {
        match self.git(&["rev-parse", "--verify", "HEAD"]) {
            Ok(_) => {}
            Err(throw) if throw.class == ThrowClass::Git => {
                self.println("No valid HEAD. Skipping the resetting");
                return Ok(());
            }
            Err(throw) => return Err(throw),
        }
        self.println("Resetting working tree");
        self.git(if hard { &["reset", "--hard"] } else { &["reset"] }).map(drop)
    }

    pub(super) fn delete_branch(&self, name: &str) -> Result<(), Throw> {
        self.git_or(&["branch", "-D", name], format!("Could not delete branch {name}"))
    }

    fn commit(&self, message: &str) -> Result<(), Throw> {
        let mut files = super::credentials::TempFiles::beside(self.workspace(), &self.client.listener);
        let failed = |throw| wrapped(format!("Cannot commit {message}"), throw);
        let file = files.create("gitcommit", ".txt", 0o600, message).map_err(|error| failed(error.into()))?;
        self.git(&["commit", "-F", &file.to_string_lossy()]).map(drop).map_err(failed)
    }

    fn note(&self, note: &str, namespace: &str, command: &str) -> Result<(), Throw> {
        let mut files = super::credentials::TempFiles::beside(self.workspace(), &self.client.listener);
        let failed = |throw| wrapped(format!("Could not apply note {note}"), throw);
        let file = files.create("git-note", ".txt", 0o600, note).map_err(|error| failed(error.into()))?;
        let namespace = format!("--ref={namespace}");
        self.git(&["notes", &namespace, command, "-F", &file.to_string_lossy()]).map(drop).map_err(failed)
    }

    fn fetch_method(&self, args: &Args<'_>) -> Result<(), Throw> {
        let first = if args.len() == 0 { None } else { args.any(0)? };
        match first {
            Some(uri) if uri.hierarchy().any(|class| class == "org.eclipse.jgit.transport.URIish") => {
                let ref_specs = if args.len() > 1 { args.ref_specs(1)? } else { None };
                self.fetch(&FetchCommand { url: Some(Uri::read(uri)?), ref_specs, ..FetchCommand::default() })
            }
            Some(remote) if !remote.is("java.lang.String") => {
                let remote = Remote::read(remote)?;
                let ref_specs = Some(remote.ref_specs);
                self.fetch(&FetchCommand { url: Some(remote.url), ref_specs, ..FetchCommand::default() })
            }
            _ => {
                let remote = if args.len() == 0 { None } else { args.text(0)? };
                let ref_specs = match args.len() {
                    2 if args.any(1)?.is_some_and(|spec| spec.is("java.lang.String")) => vec![args.string(1)?],
                    2 => args.ref_specs(1)?.unwrap_or_default(),
                    _ => Vec::new(),
                };
                self.fetch_remote(remote, ref_specs)
            }
        }
    }

    /// `fetch(String, RefSpec...)`
    fn fetch_remote(&self, remote: Option<String>, ref_specs: Vec<String>) -> Result<(), Throw> {
        let from = remote.as_ref().map(|remote| format!(" from {remote}")).unwrap_or_default();
        self.println(&format!("Fetching upstream changes{from}"));
        let mut command = vec!["fetch".to_owned(), "-t".to_owned()];
        if self.at_least(2, 20, 0)? {
            command.push("--force".to_owned());
        }
        let remote = match remote {
            Some(remote) => remote,
            None => self.default_remote("origin")?,
        };
        let url = self.remote_url(&remote)?;
        let url = url.ok_or_else(|| git_error(format!("remote.{remote}.url not defined")))?;
        self.add_url(&mut command, &url)?;
        command.extend(ref_specs);
        let uri = parse_url(&url)?;
        self.git_with(&command, Some(self.workspace()), self.credentials(&url), &uri, None).map(drop)
    }

    fn push_method(&self, args: &Args<'_>) -> Result<(), Throw> {
        let (target, ref_spec) = (args.view(0)?, args.text(1)?);
        let remote = if target.is("java.lang.String") {
            let url = self.remote_url(&target.as_str()?)?;
            let url = url.ok_or_else(|| git_error("bad remote name, URL not set in working copy"))?;
            Uri::parse(&url).ok_or_else(|| git_error("bad repository URL"))?
        } else if target.field("uris").is_some() {
            Remote::read(target)?.url
        } else {
            Uri::read(target)?
        };
        self.push(&PushCommand { remote: Some(remote), ref_spec, ..PushCommand::default() })
    }

    fn prune(&self, name: &str) -> Result<(), Throw> {
        let Some(url) = self.remote_url(name)?.filter(|url| !url.is_empty()) else { return Ok(()) };
        let command = ["remote", "prune", name].map(str::to_owned);
        let uri = parse_url(&url)?;
        self.git_with(&command, Some(self.workspace()), self.credentials(&url), &uri, None).map(drop)
    }

    fn clean_submodules(&self, recursive: bool) -> Result<(), Throw> {
        self.git(&["submodule", "foreach", "--recursive", "git reset --hard"])?;
        let mut command = vec!["submodule", "foreach"];
        command.extend(recursive.then_some("--recursive"));
        command.push("git clean -fdx");
        self.git(&command).map(drop)
    }

    /// The remote that a `Revision` came from, by the names of its branches (`setupSubmoduleUrls`).
    fn remote_of(&self, revision: View<'_>) -> Result<String, Throw> {
        let branches = revision.get("branches")?.map_or_else(|| Ok(Vec::new()), View::collection)?;
        for branch in branches.into_iter().flatten() {
            let name = branch.string("name")?;
            if let Some((remote, _)) = name.as_deref().and_then(|name| name.split_once('/')) {
                return self.default_remote(remote);
            }
        }
        self.default_remote("origin")
    }

    /// Points submodules into a checked-out copy that the remote is, if it is one.
    fn fix_submodule_urls(&self, remote: &str) -> Result<(), Throw> {
        let failed = format!("Could not determine remote.{remote}.url");
        let url = self.remote_url(remote).map_err(|throw| wrapped(failed.as_str(), throw))?;
        let url = url.ok_or_else(|| {
            git_error(failed).caused_by(git_error(format!("remote.{remote}.url not defined in workspace")))
        })?;
        let mut bare = true;
        let url = match url.strip_suffix("/.git") {
            Some(url) => {
                bare = false;
                url
            }
            None => &url,
        };
        // What `java.net.URI` can't read is left alone.
        let Some(origin) = Uri::parse(url).filter(|uri| uri.scheme.is_some() || !uri.is_remote()) else {
            return Ok(());
        };
        let local = match origin.scheme.as_deref() {
            None => Some(url),
            Some(scheme) if scheme.eq_ignore_ascii_case("file") && !origin.is_remote() => {
                Some(url.trim_start_matches("file:").trim_start_matches("//"))
            }
            Some(_) => None,
        };
        if let Some(path) = local {
            for path in [Path::new(path).to_owned(), Path::new(path).join(".git")] {
                match self.is_bare(&path.to_string_lossy()) {
                    Ok(answer) => {
                        bare = answer;
                        break;
                    }
                    Err(throw) if throw.class == ThrowClass::Git => {}
                    Err(throw) => return Err(throw),
                }
            }
        }
        if bare {
            return Ok(());
        }
        let path = Path::new(local.unwrap_or(url)).to_owned();
        // HEAD may not exist yet.
        or_default(self.point_submodules_into(&path))
    }

    fn point_submodules_into(&self, origin: &Path) -> Result<(), Throw> {
        for [_, _, _, file] in self.submodules("HEAD")? {
            let url = origin.join(&file).to_string_lossy().into_owned();
            self.set_submodule_url(&file, &url)?;
            let directory = format!("{file}/.git");
            if self.workspace().join(&directory).exists() {
                let directory = format!("--git-dir={directory}");
                let known = first_line(&self.git(&[&directory, "config", "--get", "remote.origin.url"])?)?;
                if known.is_some_and(|known| !known.is_empty()) {
                    self.git(&[&directory, "config", "remote.origin.url", &url])?;
                }
            }
        }
        Ok(())
    }

    /// Code of the controller's that would run here, with a repository. Only what is known can be done.
    fn with_repository(&self, callback: View<'_>) -> Result<Reply, Throw> {
        let class = callback.class_name();
        match class.as_ref() {
            "hudson.plugins.git.util.RevCommitRepositoryCallback" => {
                let sha = object_id(callback.require("revToBuild")?.require("revision")?.require("sha1")?)?;
                let missing = || Throw::io(format!("Missing unknown {sha}"));
                let body = self.quietly(&["cat-file", "commit", &sha])?.ok_or_else(missing)?;
                let mut commit = Commit::parse(&sha, &body).ok_or_else(missing)?;
                // JGit takes it for one without parents.
                let shallow = std::fs::read_to_string(self.workspace().join(".git/shallow")).unwrap_or_default();
                if shallow.lines().any(|line| line == sha) {
                    commit.parents.clear();
                }
                let uids = CommitUids::of(self.call);
                Ok(reply(self.call, |values| values.rev_commit(&commit, &uids)))
            }
            "java.lang.invoke.SerializedLambda" => {
                let implementor = callback.require_string("implClass")?;
                let method = callback.require_string("implMethodName")?;
                let by = |owner: &str, name: &str| {
                    implementor.strip_prefix("hudson/plugins/git/util/") == Some(owner) && method.contains(name)
                };
                if by("GitUtils", "filterTipBranches") {
                    return self.tips(&Revision::captured(callback)?);
                }
                if by("DefaultBuildChooser", "getAdvancedCandidateRevisions")
                    || by("InverseBuildChooser", "getCandidateRevisions")
                {
                    return self.by_time(Revision::captured(callback)?);
                }
                if by("AncestryBuildChooser", "getCandidateRevisions") {
                    return self.by_ancestry(callback);
                }
                Err(Throw::abort(format!(
                    "This agent runs without a JVM and does not know what {method} of {} does with a repository.",
                    implementor.replace('/', ".")
                )))
            }
            _ if class.ends_with("$DisableHooks") || class.ends_with(".DisableHooks") => {
                self.quietly(&["config", "--local", "core.hooksPath", "/dev/null"])?;
                Ok(self.call.null())
            }
            _ if class.ends_with("$UnsetHooks") || class.ends_with(".UnsetHooks") => {
                // What somebody set is left alone.
                let set = self.quietly(&["config", "--local", "core.hooksPath"])?.unwrap_or_default();
                if set.trim_ascii() == b"/dev/null" {
                    self.quietly(&["config", "--local", "--unset", "core.hooksPath"])?;
                }
                Ok(self.call.null())
            }
            _ => Err(Throw::abort(format!(
                "This agent runs without a JVM and does not know what {class} does with a repository."
            ))),
        }
    }

    /// `GitUtils.filterTipBranches`: the revisions that no other one contains.
    fn tips(&self, revisions: &[Revision]) -> Result<Reply, Throw> {
        let mut command = vec!["merge-base", "--independent"];
        command.extend(revisions.iter().map(|revision| revision.sha.as_str()));
        let failed = || Throw::io("git can't tell which branches contain one another");
        let printed = self.quietly(&command)?.ok_or_else(failed)?;
        let printed = String::from_utf8_lossy(&printed).into_owned();
        let mut tips: HashSet<&str> = printed.lines().collect();
        Ok(self.revisions(revisions.iter().filter(|revision| tips.remove(revision.sha.as_str()))))
    }

    /// Revisions by the time of their commits, oldest first (`CommitTimeComparator`).
    fn by_time(&self, mut revisions: Vec<Revision>) -> Result<Reply, Throw> {
        if revisions.len() > 1 {
            let mut command = vec!["rev-list", "--no-walk", "--timestamp"];
            command.extend(revisions.iter().map(|revision| revision.sha.as_str()));
            let failed = || Throw::io("git can't tell the time of some commits");
            let printed = self.quietly(&command)?.ok_or_else(failed)?;
            let printed = String::from_utf8_lossy(&printed).into_owned();
            let parse = |line: &str| line.split_once(' ').map(|(time, sha)| (sha.to_owned(), time.parse::<i64>().ok()));
            let times: HashMap<Sha, Option<i64>> = printed.lines().filter_map(parse).collect();
            revisions.sort_by_key(|revision| times.get(&revision.sha).copied().flatten());
        }
        Ok(self.revisions(revisions.iter()))
    }

    /// `AncestryBuildChooser.getCandidateRevisions`: the revisions that are young enough, and descend from a commit.
    fn by_ancestry(&self, lambda: View<'_>) -> Result<Reply, Throw> {
        let revisions = Revision::captured(lambda)?;
        let mut captured = lambda.require("capturedArgs")?.elements()?.flatten();
        let class = "hudson.plugins.git.util.AncestryBuildChooser";
        let chooser = captured.find(|argument| argument.is(class)).ok_or_else(|| lambda.error("no chooser"))?;
        let days = match chooser.get("maximumAgeInDays")?.and_then(View::unboxed) {
            Some(Value::Int(days)) if days >= 0 => Some(days),
            _ => None,
        };
        let ancestor = chooser.string("ancestorCommitSha1")?.filter(|sha| !sha.is_empty());
        if let Some(sha) = &ancestor {
            if !is_sha(sha) {
                return Err(git_error(format!("org.eclipse.jgit.errors.InvalidObjectIdException: Invalid id: {sha}")));
            }
            self.quietly(&["cat-file", "-e", &format!("{sha}^{{commit}}")])?
                .ok_or_else(|| Throw::io(format!("Missing commit {sha}")))?;
        }
        let oldest = days.map(|days| self.midnight(days)).transpose()?;
        let mut chosen = Vec::new();
        for revision in &revisions {
            let body = self.quietly(&["cat-file", "commit", &revision.sha])?;
            let commit = body.and_then(|body| Commit::parse(&revision.sha, &body));
            let commit = commit.ok_or_else(|| Throw::io(format!("Missing commit {}", revision.sha)))?;
            if oldest.is_some_and(|oldest| i64::from(commit.time) <= oldest) {
                continue;
            }
            if let Some(ancestor) = &ancestor
                && self.quietly(&["merge-base", "--is-ancestor", ancestor, &revision.sha])?.is_none()
            {
                continue;
            }
            chosen.push(revision);
        }
        Ok(self.revisions(chosen.into_iter()))
    }

    /// When the day that was so many days ago began here, in seconds since 1970. Git knows of time zones.
    fn midnight(&self, days: i32) -> Result<i64, Throw> {
        let printed = self.quietly(&["rev-parse", &format!("--since=00:00 {days} days ago")])?.unwrap_or_default();
        let text = String::from_utf8_lossy(&printed);
        let time = text.trim().strip_prefix("--max-age=").and_then(|time| time.parse().ok());
        time.ok_or_else(|| Throw::io(format!("git can't tell what day it was {days} days ago")))
    }

    fn revisions<'r>(&self, revisions: impl Iterator<Item = &'r Revision>) -> Reply {
        self.list(|values| {
            let fields = [("branches", "Ljava/util/Collection;"), ("sha1", "Lorg/eclipse/jgit/lib/ObjectId;")];
            let class = "hudson.plugins.git.Revision";
            let desc = values.graph.serializable(class, -7203898556389073882, &fields, None);
            let mut built = Vec::new();
            for Revision { sha, branches } in revisions {
                let (named, id) = (values.branches(branches), values.object_id(sha));
                // The same object, as where it comes from.
                let same = named.iter().zip(branches).filter(|(_, of)| of.sha == *sha);
                for branch in same.filter_map(|(branch, _)| *branch) {
                    values.graph.set_field(branch, "sha1", Value::Ref(Some(id)));
                }
                let (branches, sha) = (values.graph.array_list(&named), id);
                let revision = values.graph.object(desc).set_ref("branches", branches).set_ref("sha1", sha);
                built.push(Some(revision.build()));
            }
            built
        })
    }
}

/// `hudson.plugins.git.Revision`
struct Revision {
    sha: Sha,
    branches: Vec<Named>,
}

impl Revision {
    /// Those that a lambda captured.
    fn captured(lambda: View<'_>) -> Result<Vec<Revision>, Throw> {
        let mut captured = lambda.require("capturedArgs")?.elements()?.flatten();
        let revisions = captured.find_map(|argument| argument.collection().ok());
        let revisions = revisions.ok_or_else(|| lambda.error("no revisions"))?;
        revisions.into_iter().flatten().map(Revision::read).collect()
    }

    fn read(view: View<'_>) -> Result<Revision, Throw> {
        let mut branches = Vec::new();
        let items = view.get("branches")?.map_or_else(|| Ok(Vec::new()), View::collection)?;
        for branch in items.into_iter().flatten() {
            let name = branch.string("name")?.unwrap_or_default().into_owned();
            branches.push(Named { name, sha: object_id(branch.require("sha1")?)? });
        }
        Ok(Revision { sha: object_id(view.require("sha1")?)?, branches })
    }
}

/// `org.eclipse.jgit.transport.RemoteConfig`, with its first address.
struct Remote {
    name: String,
    url: Uri,
    ref_specs: Vec<String>,
}

impl Remote {
    fn read(view: View<'_>) -> Result<Remote, Throw> {
        let url = view.require("uris")?.collection()?.into_iter().flatten().next();
        let url = url.ok_or_else(|| view.error("a remote without an address"))?;
        let specs = view.get("fetch")?.map_or_else(|| Ok(Vec::new()), View::collection)?;
        Ok(Remote {
            name: view.require_string("name")?.into_owned(),
            url: Uri::read(url)?,
            ref_specs: specs.into_iter().flatten().map(ref_spec).collect::<Result<_, _>>()?,
        })
    }
}

/// A `GitException` with a cause; that a call was cancelled stays what it is.
pub(super) fn wrapped(message: impl Into<String>, cause: Throw) -> Throw {
    match cause.class {
        ThrowClass::Interrupted => cause,
        _ => git_error(message).caused_by(cause),
    }
}

pub(super) fn parse_url(url: &str) -> Result<Uri, Throw> {
    Uri::parse(url).ok_or_else(|| git_error(format!("Invalid URL {url}")))
}

fn checked(sha: &str) -> Result<Sha, Throw> {
    match is_sha(sha) {
        true => Ok(sha.to_owned()),
        false => Err(Throw::new(ThrowClass::IllegalArgument, format!("Invalid id: {sha}"))),
    }
}

/// `MessageFormat`'s numbers.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `extractBranchNameFromBranchSpec`
fn branch_of_spec(spec: &str) -> String {
    let after = |skip: usize| spec.split('/').skip(skip).collect::<Vec<_>>().join("/");
    if spec.starts_with("remotes/") {
        format!("refs/heads/{}", after(2))
    } else if spec.starts_with("refs/remotes/") {
        format!("refs/heads/{}", after(3))
    } else if spec.starts_with("refs/heads/") || spec.starts_with("refs/tags/") {
        spec.to_owned()
    } else {
        spec.rsplit('/').next().unwrap_or(spec).to_owned()
    }
}
