//! The plugin's commands: each as the controller recorded it, and what it does.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use super::client::{parse_url, wrapped};
use super::credentials::Credentials;
use super::session::{Session, git_error};
use super::uri::Uri;
use super::values::{Args, Sha};
use crate::callables::{Throw, ThrowClass};
use crate::files::remove::remove_contents;
use crate::object::{Node, View};

/// What `git whatchanged` is given: the raw format, by which the plugin parses changes.
const RAW: &str =
    "--format=commit %H%ntree %T%nparent %P%nauthor %aN <%aE> %ai%ncommitter %cN <%cE> %ci%n%n%w(0,4,4)%B";
/// The most submodules that are updated at once.
const MAX_THREADS: usize = 32;

/// Executes the recorded command that a request carries.
///
/// What a Java agent throws of a cancelled command is a `GitException` too.
pub(super) fn replay(session: &Session<'_>) -> Result<(), Throw> {
    execute(session).map_err(|throw| match throw.class {
        ThrowClass::Interrupted => git_error(throw.java_string()).caused_by(throw),
        _ => throw,
    })
}

fn execute(session: &Session<'_>) -> Result<(), Throw> {
    let handler = session.call.view().require("this$0")?;
    let command = handler.require("command")?;
    let Node::Class(Some(class)) = command.node() else { return Err(command.error("a class was expected").into()) };
    let class = handler.graph().class_name(*class).into_owned();
    let calls = handler.require("invocations")?.collection()?;
    let mut read = Vec::new();
    for call in calls.into_iter().flatten() {
        let args = call.require("args")?.elements()?.collect();
        read.push((call.require_string("methodName")?.into_owned(), args));
    }
    let calls = Calls { class: &class, calls: read };
    match class.rsplit('.').next().unwrap_or_default() {
        "InitCommand" => init(session, &calls),
        "CloneCommand" => session.clone_from(CloneCommand::read(&calls)?),
        "FetchCommand" => session.fetch(&FetchCommand::read(&calls)?),
        "CheckoutCommand" => session.checkout(&CheckoutCommand::read(&calls)?),
        "ChangelogCommand" => changelog_command(session, &calls),
        "SubmoduleUpdateCommand" => session.update_submodules(SubmoduleUpdateCommand::read(&calls)?),
        "MergeCommand" => session.merge(&MergeCommand::read(&calls)?),
        "RebaseCommand" => rebase(session, &calls),
        "PushCommand" => session.push(&PushCommand::read(&calls)?),
        "RevListCommand" => rev_list(session, &calls),
        _ => Err(Throw::new(ThrowClass::IllegalState, format!("Can't find the factory method for interface {class}"))),
    }
}

/// The recorded calls of a command.
struct Calls<'g> {
    class: &'g str,
    calls: Vec<(String, Vec<Option<View<'g>>>)>,
}

impl Calls<'_> {
    fn each(&self, mut set: impl FnMut(&str, &Args<'_>) -> Result<bool, Throw>) -> Result<(), Throw> {
        for (method, args) in &self.calls {
            if !set(method, &Args::new(method, args.clone()))? {
                let text = format!("Method not found: {method} of {} with {} arguments", self.class, args.len());
                return Err(Throw::new(ThrowClass::IllegalState, text));
            }
        }
        Ok(())
    }
}

/// A switch that is recorded with its value or without one.
fn switch(args: &Args<'_>) -> Result<bool, Throw> {
    if args.len() == 0 { Ok(true) } else { args.bool(0) }
}

// ---------------------------------------------------------------------------------------------------------------------
// Init and clone

fn init(session: &Session<'_>, calls: &Calls<'_>) -> Result<(), Throw> {
    let (mut workspace, mut bare) = (session.workspace().to_owned(), false);
    calls.each(|method, args| {
        match method {
            "workspace" => workspace = PathBuf::from(args.string(0)?),
            "bare" => bare = switch(args)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    session.init(&workspace, bare)
}

/// `CloneCommand`
#[derive(Default)]
pub(super) struct CloneCommand {
    pub(super) url: String,
    /// Empty: `origin`.
    pub(super) origin: String,
    pub(super) reference: Option<String>,
    pub(super) shallow: bool,
    pub(super) shared: bool,
    pub(super) no_tags: bool,
    pub(super) timeout: Option<i32>,
    pub(super) depth: Option<i32>,
    pub(super) ref_specs: Option<Vec<String>>,
}

impl CloneCommand {
    fn read(calls: &Calls<'_>) -> Result<CloneCommand, Throw> {
        let mut command = CloneCommand::default();
        calls.each(|method, args| {
            match method {
                "url" => command.url = args.string(0)?,
                "repositoryName" => command.origin = args.string(0)?,
                "reference" => command.reference = args.text(0)?,
                "shallow" => command.shallow = switch(args)?,
                "shared" => command.shared = switch(args)?,
                "tags" => command.no_tags = !args.bool(0)?,
                "timeout" => command.timeout = args.int(0)?,
                "depth" => command.depth = args.int(0)?,
                "refspecs" => command.ref_specs = args.ref_specs(0)?,
                "noCheckout" => {}
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(command)
    }
}

/// `FetchCommand`
#[derive(Default)]
pub(super) struct FetchCommand {
    pub(super) url: Option<Uri>,
    pub(super) ref_specs: Option<Vec<String>>,
    pub(super) prune: bool,
    pub(super) shallow: bool,
    pub(super) no_tags: bool,
    pub(super) timeout: Option<i32>,
    pub(super) depth: Option<i32>,
}

impl FetchCommand {
    fn read(calls: &Calls<'_>) -> Result<FetchCommand, Throw> {
        let mut command = FetchCommand::default();
        calls.each(|method, args| {
            match method {
                "from" => {
                    command.url = Some(args.uri(0)?);
                    command.ref_specs = args.ref_specs(1)?;
                }
                "prune" => command.prune = switch(args)?,
                "shallow" => command.shallow = switch(args)?,
                "tags" => command.no_tags = !args.bool(0)?,
                "timeout" => command.timeout = args.int(0)?,
                "depth" => command.depth = args.int(0)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(command)
    }
}

impl Session<'_> {
    /// `InitCommand.execute`
    pub(super) fn init(&self, workspace: &Path, bare: bool) -> Result<(), Throw> {
        if fs::create_dir_all(workspace).is_err() && !workspace.exists() {
            return Err(git_error(format!("Could not create directory '{}'", workspace.display())));
        }
        let path = workspace.to_string_lossy();
        let mut command = vec!["init", &path];
        command.extend(bare.then_some("--bare"));
        self.git(&command).map(drop).map_err(|throw| wrapped(format!("Could not init {path}"), throw))
    }

    /// `CloneCommand.execute`: init and fetch, for the sake of the credentials.
    pub(super) fn clone_from(&self, mut command: CloneCommand) -> Result<(), Throw> {
        let url = std::mem::take(&mut command.url);
        let Some(uri) = Uri::parse(&url) else {
            let text = format!("Invalid repository {url}");
            self.println(&text);
            return Err(Throw::new(ThrowClass::IllegalArgument, text));
        };
        let origin = if command.origin.is_empty() { "origin".to_owned() } else { command.origin };
        self.println(&format!("Cloning repository {url}"));
        let cancelled = || self.call.is_cancelled();
        remove_contents(self.workspace(), &cancelled).map_err(|error| {
            if error.is_interrupted() {
                return Throw::interrupted();
            }
            let throw = Throw::from(error);
            self.error_with("Failed to clean the workspace", &throw);
            git_error("Failed to delete workspace").caused_by(throw)
        })?;
        self.init(self.workspace(), false)?;
        let mut reference = command.reference.filter(|reference| !reference.is_empty());
        if command.shared {
            match &reference {
                None => reference = Some(url.clone()),
                Some(_) => self.println("[WARNING] Both shared and reference is used, shared is ignored."),
            }
        }
        if let Some(reference) = reference {
            self.refer_to(&reference);
        }
        let default = || vec![format!("+refs/heads/*:refs/remotes/{origin}/*")];
        let ref_specs = command.ref_specs.unwrap_or_else(default);
        self.fetch(&FetchCommand {
            url: Some(uri),
            ref_specs: Some(ref_specs.clone()),
            shallow: command.shallow,
            depth: command.depth,
            timeout: command.timeout,
            no_tags: command.no_tags,
            prune: false,
        })?;
        self.set_remote_url(&origin, &url)?;
        for ref_spec in &ref_specs {
            self.git(&["config", "--add", &format!("remote.{origin}.fetch"), ref_spec])?;
        }
        Ok(())
    }

    /// Borrows objects from a repository on this machine.
    fn refer_to(&self, reference: &str) {
        let path = Path::new(reference);
        if !path.exists() {
            return self.println(&format!("[WARNING] Reference path does not exist: {reference}"));
        }
        if !path.is_dir() {
            return self.println(&format!("[WARNING] Reference path is not a directory: {reference}"));
        }
        let mut objects = path.join(".git/objects");
        if !objects.is_dir() {
            // A bare repository.
            objects = path.join("objects");
        }
        if !objects.is_dir() {
            return self.println(&format!(
                "[WARNING] Reference path does not contain an objects directory (not a git repo?): {}",
                objects.display()
            ));
        }
        let absolute = std::path::absolute(&objects).unwrap_or(objects);
        match fs::File::create(self.workspace().join(".git/objects/info/alternates")) {
            Ok(mut file) => {
                self.println(&format!("Using reference repository: {reference}"));
                if file.write_all(absolute.to_string_lossy().as_bytes()).is_err() {
                    self.error("Failed to setup reference");
                }
            }
            Err(_) => self.error("Failed to setup reference"),
        }
    }

    /// `FetchCommand.execute`
    pub(super) fn fetch(&self, fetch: &FetchCommand) -> Result<(), Throw> {
        let url = fetch.url.as_ref().ok_or_else(|| git_error("FetchCommand requires a 'from'"))?;
        self.println(&format!("Fetching upstream changes from {}", url.public()));
        let mut command = vec!["fetch".to_owned()];
        let mut add = |arg: &str| command.push(arg.to_owned());
        add(if fetch.no_tags { "--no-tags" } else { "--tags" });
        if self.at_least(2, 20, 0)? {
            add("--force");
        }
        add("--progress");
        if fetch.prune {
            add("--prune");
        }
        if fetch.shallow {
            add(&format!("--depth={}", fetch.depth.unwrap_or(1)));
        }
        let credentials = self.credentials(&url.private());
        self.add_url(&mut command, &url.private_ascii())?;
        command.extend(fetch.ref_specs.iter().flatten().cloned());
        // What looks like the name of a remote is fetched with the credentials for the remote's address.
        let public = url.public();
        let named = match !url.is_remote() && !public.contains([':', '@', '/', '\\']) {
            true => match self.remote_url(&public)?.as_deref().and_then(Uri::parse) {
                Some(named) => Some(named),
                None => {
                    self.println(&format!("Unexpected remote name or URL: '{public}'"));
                    None
                }
            },
            false => None,
        };
        let target = named.as_ref().unwrap_or(url);
        self.git_with(&command, Some(self.workspace()), credentials, target, fetch.timeout).map(drop)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Checkout

/// `CheckoutCommand`
#[derive(Default)]
pub(super) struct CheckoutCommand {
    pub(super) reference: String,
    pub(super) branch: Option<String>,
    pub(super) delete_branch: bool,
    pub(super) sparse_paths: Vec<String>,
    pub(super) timeout: Option<i32>,
    pub(super) lfs_remote: Option<String>,
    pub(super) lfs_credentials: Option<Arc<Credentials>>,
}

impl CheckoutCommand {
    fn read(calls: &Calls<'_>) -> Result<CheckoutCommand, Throw> {
        let mut command = CheckoutCommand::default();
        calls.each(|method, args| {
            match method {
                "ref" => command.reference = args.string(0)?,
                "branch" => command.branch = args.text(0)?,
                "deleteBranchIfExist" => command.delete_branch = args.bool(0)?,
                "sparseCheckoutPaths" => command.sparse_paths = args.paths(0)?,
                "timeout" => command.timeout = args.int(0)?,
                "lfsRemote" => command.lfs_remote = args.text(0)?,
                "lfsCredentials" => {
                    let credentials = args.any(0)?.map(Credentials::read).transpose()?;
                    command.lfs_credentials = credentials.flatten().map(Arc::new);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(command)
    }
}

/// A failure that has to be told as this status code is none.
fn unless_status(result: Result<String, Throw>, code: i32) -> Result<(), Throw> {
    let status = format!("returned status code {code}:");
    match result {
        Err(throw) if throw.class == ThrowClass::Git && says(&throw, &status) => Ok(()),
        result => result.map(drop),
    }
}

fn says(throw: &Throw, text: &str) -> bool {
    throw.message.as_ref().is_some_and(|message| message.contains(text))
}

impl Session<'_> {
    /// `CheckoutCommand.execute`
    pub(super) fn checkout(&self, command: &CheckoutCommand) -> Result<(), Throw> {
        // File systems may count in seconds.
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.check_out(command).map_err(|throw| match throw.class {
            ThrowClass::Git if says(&throw, "index.lock") => {
                Throw::new(ThrowClass::GitLockFailed, "Could not lock repository. Please try again").caused_by(throw)
            }
            ThrowClass::Git => {
                let reference = &command.reference;
                let message = match &command.branch {
                    Some(branch) => format!("Could not checkout {branch} with start point {reference}"),
                    None => format!("Could not checkout {reference}"),
                };
                git_error(message).caused_by(throw)
            }
            ThrowClass::Interrupted => self.unlock_index(started).err().unwrap_or(throw),
            _ => throw,
        })
    }

    /// Removes the lock that an interrupted checkout leaves, unless it was there before.
    fn unlock_index(&self, started: u64) -> Result<(), Throw> {
        let lock = self.workspace().join(".git/index.lock");
        let Ok(metadata) = fs::metadata(&lock) else { return Ok(()) };
        if u64::try_from(metadata.mtime()).is_ok_and(|modified| modified >= started) {
            fs::remove_file(&lock).map_err(|error| {
                git_error("Could not remove index lock file on interrupting thread").caused_by(error.into())
            })?;
        }
        Ok(())
    }

    fn check_out(&self, command: &CheckoutCommand) -> Result<(), Throw> {
        self.sparse_checkout(command)?;
        let mut env = self.state(|state| state.env.clone());
        if command.lfs_remote.is_some() {
            // One `git lfs pull` afterwards is quicker.
            env.put("GIT_LFS_SKIP_SMUDGE", "1");
        }
        let run = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
            self.git_in(&args, Some(self.workspace()), env.clone(), command.timeout).map(drop)
        };
        let reference = &command.reference;
        match &command.branch {
            Some(branch) => {
                if command.delete_branch {
                    // Away from the branch, so that it can be deleted.
                    run(&["checkout", "-f", reference])?;
                    for _ in self.branches()?.iter().filter(|known| known.name == *branch) {
                        self.delete_branch(branch)?;
                    }
                }
                run(&["checkout", "-b", branch, reference])?;
            }
            None => run(&["checkout", "-f", reference])?,
        }
        let Some(remote) = &command.lfs_remote else { return Ok(()) };
        let url = self.remote_url(remote)?.unwrap_or_default();
        let credentials = command.lfs_credentials.clone().or_else(|| self.credentials(&url));
        let args = ["lfs", "pull", remote].map(str::to_owned);
        self.git_with(&args, Some(self.workspace()), credentials, &parse_url(&url)?, command.timeout).map(drop)
    }

    fn sparse_checkout(&self, command: &CheckoutCommand) -> Result<(), Throw> {
        let active = match self.git(&["config", "core.sparsecheckout"]) {
            Ok(printed) => printed.contains("true"),
            Err(throw) if throw.class == ThrowClass::Git => false,
            Err(throw) => return Err(throw),
        };
        let everything = ["/*".to_owned()];
        let paths = match (command.sparse_paths.is_empty(), active) {
            (true, false) => return Ok(()),
            (true, true) => &everything[..],
            (false, active) => {
                if !active {
                    self.git(&["config", "core.sparsecheckout", "true"])?;
                }
                &command.sparse_paths
            }
        };
        let directory = self.workspace().join(".git/info");
        if !directory.exists() && fs::create_dir(&directory).is_err() {
            return Err(git_error(format!("Impossible to create sparse checkout dir {}", directory.display())));
        }
        let file = directory.join("sparse-checkout");
        let text: String = paths.iter().flat_map(|path| [path, "\n"]).collect();
        fs::write(&file, text).map_err(|error| {
            git_error(format!("Could not write sparse checkout file {}", file.display())).caused_by(error.into())
        })?;
        if command.lfs_remote.is_some() {
            self.lfs_paths(paths)?;
        }
        // 128: nothing of these paths was ever in the branch that is checked out.
        unless_status(self.git(&["read-tree", "-mu", "HEAD"]), 128)?;
        if command.sparse_paths.is_empty() {
            self.git(&["config", "core.sparsecheckout", "false"])?;
        }
        Ok(())
    }

    fn lfs_paths(&self, paths: &[String]) -> Result<(), Throw> {
        // git-lfs has no way to write a comma in a path.
        let paths = if paths.iter().any(|path| path.contains(',')) { &[] } else { paths };
        let include: Vec<&str> = paths.iter().map(String::as_str).filter(|path| !path.starts_with('!')).collect();
        let exclude: Vec<&str> = paths.iter().filter_map(|path| path.strip_prefix('!')).collect();
        for (key, value) in [("lfs.fetchinclude", include.join(",")), ("lfs.fetchexclude", exclude.join(","))] {
            match value.as_str() {
                // 5: it was not set.
                "" | "/*" => unless_status(self.git(&["config", "--unset", key]), 5)?,
                value => drop(self.git(&["config", key, value])?),
            }
        }
        Ok(())
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Changelog

fn changelog_command(session: &Session<'_>, calls: &Calls<'_>) -> Result<(), Throw> {
    let (mut revisions, mut max, mut to) = (Vec::new(), None, None);
    for (method, args) in &calls.calls {
        if let ("to", [Some(writer)]) = (method.as_str(), args.as_slice()) {
            to = Some(*writer);
        }
    }
    calls.each(|method, args| {
        match method {
            "excludes" => revisions.push(format!("^{}", args.revision(0)?)),
            "includes" => revisions.push(args.revision(0)?),
            "max" => max = args.int(0)?,
            "to" | "abort" => {}
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let to = to.ok_or_else(|| Throw::new(ThrowClass::IllegalState, "ChangelogCommand requires a 'to'"))?;
    changelog(session, &revisions, max, to)
}

/// Writes the changes of revisions to a writer, or a stream, of the controller's.
///
/// `git log --raw --no-merges` is what `git whatchanged` was before git declared it a thing of the past.
pub(super) fn changelog(
    session: &Session<'_>,
    revisions: &[String],
    max: Option<i32>,
    to: View<'_>,
) -> Result<(), Throw> {
    let mut command: Vec<String> = ["log", "--raw", "--no-merges", "--no-abbrev", "-M", RAW].map(str::to_owned).into();
    if let Some(max) = max {
        command.extend(["-n".to_owned(), max.to_string()]);
    }
    command.extend(revisions.iter().cloned());
    let code = if to.is("hudson.remoting.RemoteWriter") {
        let mut writer = session.call.writer(to)?;
        let mut decoder = Utf8::default();
        let code = session.stream(&command, |bytes| writer.write_str(&decoder.decode(bytes)))?;
        writer.write_str(&decoder.finish())?;
        writer.close()?;
        code
    } else {
        let mut output = session.call.output(to)?;
        session.stream(&command, |bytes| output.write_all(bytes))?
    };
    match code {
        0 => Ok(()),
        _ => Err(git_error(format!(
            "Error: {} {} in {}",
            session.client.exe,
            command.join(" "),
            session.workspace().display()
        ))),
    }
}

/// UTF-8 that comes in parts.
#[derive(Default)]
struct Utf8(Vec<u8>);

impl Utf8 {
    /// The text so far, without a character that has not ended.
    fn decode(&mut self, bytes: &[u8]) -> String {
        self.0.extend_from_slice(bytes);
        let ended = match self.0.utf8_chunks().last() {
            Some(last) if !last.invalid().is_empty() => {
                let invalid = last.invalid();
                // Nothing follows, so it may be the beginning of a character.
                let begins = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
                self.0.len() - if begins { invalid.len() } else { 0 }
            }
            _ => self.0.len(),
        };
        let rest = self.0.split_off(ended);
        String::from_utf8_lossy(&std::mem::replace(&mut self.0, rest)).into_owned()
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0)).into_owned()
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Submodules

/// `SubmoduleUpdateCommand`
#[derive(Default)]
pub(super) struct SubmoduleUpdateCommand {
    pub(super) recursive: bool,
    pub(super) remote_tracking: bool,
    pub(super) reference: Option<String>,
    pub(super) parent_credentials: bool,
    pub(super) shallow: bool,
    pub(super) branches: Vec<(String, String)>,
    pub(super) timeout: Option<i32>,
    pub(super) depth: Option<i32>,
    pub(super) threads: usize,
}

impl SubmoduleUpdateCommand {
    fn read(calls: &Calls<'_>) -> Result<SubmoduleUpdateCommand, Throw> {
        let mut command = SubmoduleUpdateCommand::default();
        calls.each(|method, args| {
            match method {
                "recursive" => command.recursive = args.bool(0)?,
                "remoteTracking" => command.remote_tracking = args.bool(0)?,
                "parentCredentials" => command.parent_credentials = args.bool(0)?,
                "ref" => command.reference = args.text(0)?,
                "useBranch" => command.branches.push((args.string(0)?, args.string(1)?)),
                "timeout" => command.timeout = args.int(0)?,
                "shallow" => command.shallow = args.bool(0)?,
                "depth" => command.depth = args.int(0)?,
                "threads" => command.threads = args.int(0)?.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(command)
    }
}

/// What updates one submodule.
struct Update {
    args: Vec<String>,
    credentials: Option<Arc<Credentials>>,
    url: Uri,
}

/// Names of submodules in what `git config --get-regexp` prints: the longest match of `submodule.NAME.url`.
fn submodule_names(printed: &str) -> impl Iterator<Item = &str> {
    printed.lines().filter_map(|line| {
        let key = line.strip_prefix("submodule.")?.split_whitespace().next()?;
        key.strip_suffix(".url").filter(|name| !name.is_empty())
    })
}

impl Session<'_> {
    /// `SubmoduleUpdateCommand.execute`
    pub(super) fn update_submodules(&self, command: SubmoduleUpdateCommand) -> Result<(), Throw> {
        self.git(&["submodule", "init"])?;
        let mut args = vec!["submodule".to_owned(), "update".to_owned()];
        let mut add = |more: &[&str]| args.extend(more.iter().map(|&arg| arg.to_owned()));
        if command.recursive {
            add(&["--init", "--recursive"]);
        }
        if command.remote_tracking && self.at_least(1, 8, 2)? {
            add(&["--remote"]);
            for (submodule, branch) in &command.branches {
                self.git(&["config", "-f", ".gitmodules", &format!("submodule.{submodule}.branch"), branch])?;
            }
        }
        if let Some(reference) = command.reference.as_deref().filter(|reference| !reference.is_empty()) {
            match fs::metadata(reference) {
                Err(_) => self.println(&format!("[WARNING] Reference path does not exist: {reference}")),
                Ok(found) if !found.is_dir() => {
                    self.println(&format!("[WARNING] Reference path is not a directory: {reference}"));
                }
                Ok(_) => add(&["--reference", reference]),
            }
        }
        if command.shallow {
            add(&[&format!("--depth={}", command.depth.unwrap_or(1))]);
        }
        let printed = match self.git(&["config", "-f", ".gitmodules", "--get-regexp", "^submodule\\.(.+)\\.url"]) {
            Ok(printed) => printed,
            Err(throw) if throw.class == ThrowClass::Git => {
                self.error("No submodules found.");
                return Ok(());
            }
            Err(throw) => return Err(throw),
        };
        let mut updates = Vec::new();
        for name in submodule_names(&printed) {
            let url = self.submodule_url(name)?.unwrap_or_default();
            let Some(url) = Uri::parse(&url) else {
                let text = format!("Invalid repository for {name}");
                self.error(&text);
                return Err(git_error(text));
            };
            let credentials = if command.parent_credentials {
                let parent = self.remote_url(&self.default_remote("origin")?)?.unwrap_or_default();
                let Some(uri) = Uri::parse(&parent) else {
                    let text = format!("Invalid URI for {parent}");
                    self.error(&text);
                    return Err(git_error(text));
                };
                self.credentials(&uri.private())
            } else {
                self.credentials(&url.private())
            };
            let mut args = args.clone();
            args.extend(self.submodule_path(name)?);
            updates.push(Update { args, credentials, url });
        }
        self.update_each(updates, command.threads, command.timeout)
    }

    /// Updates submodules, several at once if asked to. The first failure counts, and ends what has not begun.
    fn update_each(&self, updates: Vec<Update>, threads: usize, timeout: Option<i32>) -> Result<(), Throw> {
        let update = |Update { args, credentials, url }: Update| {
            self.git_with(&args, Some(self.workspace()), credentials, &url, timeout).map(drop)
        };
        let threads = threads.clamp(1, MAX_THREADS).min(updates.len());
        if threads <= 1 {
            return updates.into_iter().try_for_each(update);
        }
        // So that the threads find it known.
        self.at_least(2, 3, 0)?;
        let runtime = tokio::runtime::Handle::current();
        let waiting = Mutex::new(updates.into_iter());
        let failed: Mutex<Option<Throw>> = Mutex::new(None);
        fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
            mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let _runtime = runtime.enter();
                    while lock(&failed).is_none() {
                        let Some(next) = lock(&waiting).next() else { break };
                        if let Err(throw) = update(next) {
                            lock(&failed).get_or_insert(throw);
                        }
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Merge, rebase, push, rev-list

/// `MergeCommand`
#[derive(Default)]
pub(super) struct MergeCommand {
    pub(super) revision: Option<Sha>,
    pub(super) comment: Option<String>,
    pub(super) strategy: Option<String>,
    pub(super) fast_forward: Option<String>,
    pub(super) squash: bool,
    pub(super) no_commit: bool,
}

impl MergeCommand {
    fn read(calls: &Calls<'_>) -> Result<MergeCommand, Throw> {
        let mut command = MergeCommand::default();
        // Strategy.toString and GitPluginFastForwardMode.toString
        let lower = |args: &Args<'_>| Ok::<_, Throw>(args.view(0)?.constant()?.to_lowercase().replace('_', "-"));
        calls.each(|method, args| {
            match method {
                "setRevisionToMerge" => command.revision = Some(args.revision(0)?),
                "setMessage" => command.comment = args.text(0)?,
                "setStrategy" => command.strategy = Some(args.view(0)?.constant()?.to_lowercase()),
                "setGitPluginFastForwardMode" => command.fast_forward = Some(format!("--{}", lower(args)?)),
                "setSquash" => command.squash = args.bool(0)?,
                "setCommit" => command.no_commit = !args.bool(0)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(command)
    }
}

/// `PushCommand`
#[derive(Default)]
pub(super) struct PushCommand {
    pub(super) remote: Option<Uri>,
    pub(super) ref_spec: Option<String>,
    pub(super) force: bool,
    pub(super) tags: bool,
    pub(super) timeout: Option<i32>,
}

impl PushCommand {
    fn read(calls: &Calls<'_>) -> Result<PushCommand, Throw> {
        let mut command = PushCommand::default();
        calls.each(|method, args| {
            match method {
                "to" => command.remote = Some(args.uri(0)?),
                "ref" => command.ref_spec = args.text(0)?,
                "force" => command.force = switch(args)?,
                "tags" => command.tags = args.bool(0)?,
                "timeout" => command.timeout = args.int(0)?,
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(command)
    }
}

impl Session<'_> {
    /// `MergeCommand.execute`
    pub(super) fn merge(&self, merge: &MergeCommand) -> Result<(), Throw> {
        let mut args = vec!["merge"];
        args.extend(merge.squash.then_some("--squash"));
        args.extend(merge.no_commit.then_some("--no-commit"));
        if let Some(comment) = merge.comment.as_deref().filter(|comment| !comment.is_empty()) {
            args.extend(["-m", comment]);
        }
        match merge.strategy.as_deref() {
            None | Some("" | "default") => {}
            Some("recursive_theirs") => args.extend(["-s", "recursive", "--strategy-option", "theirs"]),
            Some(strategy) => args.extend(["-s", strategy]),
        }
        args.extend(merge.fast_forward.as_deref());
        let revision = merge.revision.as_deref();
        args.push(revision.ok_or_else(|| git_error("MergeCommand requires a revision to merge"))?);
        // LFS may need credentials for the remote.
        let remote = match self.default_remote("origin") {
            Ok(remote) => Some(remote),
            Err(throw) if throw.class == ThrowClass::Git => None,
            Err(throw) => return Err(throw),
        };
        match remote {
            Some(remote) => {
                let url = self.remote_url(&remote)?.unwrap_or_default();
                let args: Vec<String> = args.into_iter().map(str::to_owned).collect();
                let credentials = self.credentials(&url);
                self.git_with(&args, Some(self.workspace()), credentials, &parse_url(&url)?, None).map(drop)
            }
            None => self.git(&args).map(drop),
        }
    }

    /// `PushCommand.execute`
    pub(super) fn push(&self, push: &PushCommand) -> Result<(), Throw> {
        let remote = push.remote.as_ref().ok_or_else(|| git_error("PushCommand requires a 'remote'"))?;
        let mut args = vec!["push".to_owned(), remote.private_ascii()];
        args.extend(push.ref_spec.clone());
        args.extend(push.force.then(|| "-f".to_owned()));
        args.extend(push.tags.then(|| "--tags".to_owned()));
        let credentials = self.credentials(&remote.private());
        self.git_with(&args, Some(self.workspace()), credentials, remote, push.timeout).map(drop)
    }
}

fn rebase(session: &Session<'_>, calls: &Calls<'_>) -> Result<(), Throw> {
    let mut upstream = String::new();
    calls.each(|method, args| {
        match method {
            "setUpstream" => upstream = args.string(0)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    match session.git(&["rebase", &upstream]) {
        Err(throw) if throw.class == ThrowClass::Git => {
            session.git(&["rebase", "--abort"])?;
            Err(git_error(format!("Could not rebase {upstream}")).caused_by(throw))
        }
        result => result.map(drop),
    }
}

/// The list that it fills is a copy of the controller's: nobody sees what is found, as on a Java agent.
fn rev_list(session: &Session<'_>, calls: &Calls<'_>) -> Result<(), Throw> {
    let (mut all, mut no_walk, mut first_parent, mut reference) = (false, false, false, None);
    calls.each(|method, args| {
        match method {
            "all" => all = switch(args)?,
            "nowalk" => no_walk = args.bool(0)?,
            "firstParent" => first_parent = switch(args)?,
            "reference" => reference = args.text(0)?,
            "to" => {}
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let mut args = Vec::new();
    args.extend(first_parent.then_some("--first-parent"));
    args.extend(all.then_some("--all"));
    args.extend(no_walk.then_some("--no-walk"));
    args.extend(reference.as_deref());
    session.rev_list(&args).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_of_submodules() {
        let printed = "submodule.ntp.url https://example.org/ntp\nsubmodule.modules/x.url.path modules/x.url\n\
                       submodule.modules/x.url.url https://example.org/x\n";
        assert_eq!(submodule_names(printed).collect::<Vec<_>>(), ["ntp", "modules/x.url"]);
    }

    proptest! {
        /// However the output of git is cut, the text is the same.
        #[test]
        fn text_in_parts(text in prop::collection::vec(any::<u8>(), 0..40), cuts in prop::collection::vec(0usize..40, 0..6)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut decoder = Utf8::default();
            let mut out: String = cuts.windows(2).map(|pair| decoder.decode(&text[pair[0]..pair[1]])).collect();
            out.push_str(&decoder.finish());
            prop_assert_eq!(out, String::from_utf8_lossy(&text));
        }
    }
}
