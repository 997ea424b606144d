//! Callables of build steps that find files: archiving, fingerprinting, cleaning up.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::file_path::query::list;
use super::file_path::types::{file, mkdirs_for};
use super::{Call, Entry, Reply, Run, Throw, ThrowClass};
use crate::files::glob::{Glob, Options};
use crate::files::{attributes, remove, temp};
use crate::object::{Graph, Value, View};

/// Callables of core's and plugins' build steps that work on a workspace's files.
pub const ENTRIES: &[Entry] = &[
    entry("core", "hudson.tasks.ArtifactArchiver$ListFiles", list_files),
    entry("core", "hudson.tasks.Fingerprinter$FindRecords", find_records),
    entry("branch-api", "jenkins.branch.WorkspaceLocatorImpl$WriteAtomic", write_atomic),
    entry(
        "workflow-basic-steps",
        "org.jenkinsci.plugins.workflow.steps.ArtifactArchiverStepExecution$ListFiles",
        list_files_for_step,
    ),
    entry("ws-cleanup", "hudson.plugins.ws_cleanup.Cleanup", clean_up),
];

const fn entry(owner: &'static str, class: &'static str, run: fn(&Call) -> Result<Reply, Throw>) -> Entry {
    Entry { class, owner, run: Run::Blocking(run) }
}

crate::java_class! {
    struct ListFiles {
        includes: String = "includes",
        excludes: Option<String> = "excludes",
        default_excludes: bool = "defaultExcludes",
        case_sensitive: bool = "caseSensitive",
        follow_symlinks: bool = "followSymlinks",
    }
}

fn list_files(call: &Call) -> Result<Reply, Throw> {
    let this = ListFiles::read(call.view())?;
    let options = Options {
        default_excludes: this.default_excludes,
        case_sensitive: this.case_sensitive,
        follow_symlinks: this.follow_symlinks,
    };
    let names = list(call, call.path()?, &Glob::new(&this.includes, this.excludes.as_deref(), options))?;
    if takes_set(call) {
        return Ok(call.reply(|graph| {
            let names: Vec<_> = names.iter().map(|name| Some(graph.string(name))).collect();
            graph.hash_set(&names)
        }));
    }
    Ok(names_to_themselves(call, &names))
}

/// Whether the answer to `ArtifactArchiver$ListFiles` is a `Set<String>`, as from core 2.576, or a map of each name to
/// itself, as before.
///
/// Nothing in the request tells: name, fields and `serialVersionUID` of the class are the same. The controller's class
/// file does; where that can't be had, the controller's version.
fn takes_set(call: &Call) -> bool {
    let returned =
        call.returned("hudson.tasks.ArtifactArchiver$ListFiles", "invoke", &["Ljava/util/Map;", "Ljava/util/Set;"]);
    match returned {
        Ok(index) => index == 1,
        Err(throw) => {
            tracing::debug!("what ArtifactArchiver$ListFiles returns goes by the controller's version: {throw}");
            version_takes_set(call.agent().controller_version.as_deref())
        }
    }
}

/// A controller of an unknown version is taken for an older one.
fn version_takes_set(controller_version: Option<&str>) -> bool {
    let Some(version) = controller_version else { return false };
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (2, 576),
        _ => false,
    }
}

fn names_to_themselves(call: &Call, names: &[String]) -> Reply {
    call.reply(|graph| {
        let entries: Vec<_> = names.iter().map(|name| Some(graph.string(name))).map(|name| (name, name)).collect();
        graph.hash_map(&entries)
    })
}

crate::java_class! {
    struct ListFilesForStep {
        includes: String = "includes",
        excludes: Option<String> = "excludes",
    }
}

fn list_files_for_step(call: &Call) -> Result<Reply, Throw> {
    let this = ListFilesForStep::read(call.view())?;
    let glob = Glob::new(&this.includes, this.excludes.as_deref(), Options::default());
    Ok(names_to_themselves(call, &list(call, call.path()?, &glob)?))
}

crate::java_class! {
    struct FindRecords {
        targets: String = "targets",
        excludes: Option<String> = "excludes",
        default_excludes: bool = "defaultExcludes",
        case_sensitive: bool = "caseSensitive",
        build_timestamp: i64 = "buildTimestamp",
    }
}

/// VFAT retains times with a precision of two seconds (`FindRecords.invoke`).
const TIMESTAMP_MARGIN: i64 = 2000;

fn find_records(call: &Call) -> Result<Reply, Throw> {
    let this = FindRecords::read(call.view())?;
    let options =
        Options { default_excludes: this.default_excludes, case_sensitive: this.case_sensitive, follow_symlinks: true };
    let dir = call.path()?;
    let names = list(call, dir, &Glob::new(&this.targets, this.excludes.as_deref(), options))?;
    let mut graph = Graph::with_loader(call.loader());
    let mut records = Vec::with_capacity(names.len());
    for name in names {
        let path = dir.join(&name);
        let produced = this.build_timestamp <= attributes::last_modified(&path).saturating_add(TIMESTAMP_MARGIN);
        let digest = attributes::md5_digest(&path, &|| call.is_cancelled()).map_err(|error| {
            let cause = Throw::from(error);
            let message = match cause.class {
                ThrowClass::Interrupted => "Aborted".to_owned(),
                _ => format!("Failed to compute digest for {}", file(&path)),
            };
            Throw::io(message).caused_by(cause)
        })?;
        let fields = [
            ("produced", "Z"),
            ("fileName", "Ljava/lang/String;"),
            ("md5sum", "Ljava/lang/String;"),
            ("relativePath", "Ljava/lang/String;"),
        ];
        let desc = graph.serializable("hudson.tasks.Fingerprinter$Record", 1, &fields, None);
        let file_name = graph.string(&path.file_name().unwrap_or_default().to_string_lossy());
        let (digest, name) = (graph.string(&digest), graph.string(&name));
        let record = graph
            .object(desc)
            .set("produced", Value::Bool(produced))
            .set_ref("fileName", file_name)
            .set_ref("md5sum", digest)
            .set_ref("relativePath", name)
            .build();
        records.push(Some(record));
    }
    let root = Some(graph.array_list(&records));
    Ok(Reply { graph, root })
}

crate::java_class! {
    struct WriteAtomic {
        text: String = "text",
    }
}

/// `hudson.util.TextFile.write`
fn write_atomic(call: &Call) -> Result<Reply, Throw> {
    let this = WriteAtomic::read(call.view())?;
    let path = call.path()?;
    mkdirs_for(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (temporary, mut file) = temp::create_temp_file(dir, "atomic", None)?;
    let written = (|| {
        file.write_all(this.text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        // It failed already; what's left behind is the lesser evil.
        let _ = fs::remove_file(&temporary);
        return Err(Throw::file(&error, path));
    }
    Ok(call.null())
}

crate::java_class! {
    struct Cleanup<'g> {
        patterns: Option<View<'g>> = "patterns",
        delete_dirs: bool = "deleteDirs",
        delete_command: Option<String> = "deleteCommand",
    }
}

crate::java_class! {
    /// `hudson.plugins.ws_cleanup.Pattern`; without a type it includes (`Pattern.readResolve`).
    struct Pattern<'g> {
        pattern: String = "pattern",
        pattern_type: Option<View<'g>> = "type",
    }
}

fn clean_up(call: &Call) -> Result<Reply, Throw> {
    let this = Cleanup::read(call.view())?;
    if let Some(command) = this.delete_command.filter(|command| !command.trim().is_empty()) {
        return Err(Throw::abort(format!(
            "this agent deletes files by itself only; ask for no external deletion command ({command}) in the cleanup"
        )));
    }
    let mut patterns = Patterns::default();
    for pattern in this.patterns.map(View::collection).transpose()?.unwrap_or_default().into_iter().flatten() {
        let pattern = Pattern::read(pattern)?;
        let excludes = match pattern.pattern_type {
            Some(constant) => constant.constant()? == "EXCLUDE",
            None => false,
        };
        let list = if excludes { &mut patterns.excludes } else { &mut patterns.includes };
        list.push(Glob::single(&pattern.pattern, true));
    }
    if patterns.includes.is_empty() {
        patterns.includes.push(Glob::single("**/*", true));
    }
    patterns.delete(call.path()?, this.delete_dirs, &|| call.is_cancelled())?;
    Ok(call.null())
}

/// Patterns as a bare Ant `DirectoryScanner` has them: neither split at commas nor trimmed, without default excludes.
#[derive(Default)]
struct Patterns {
    includes: Vec<Glob>,
    excludes: Vec<Glob>,
}

impl Patterns {
    fn select(&self, relative: &str) -> bool {
        self.includes.iter().any(|glob| glob.matches(relative))
            && !self.excludes.iter().any(|glob| glob.matches(relative))
    }

    /// Deletes the files and links that are selected, and the directories if so asked, with all that is in them.
    ///
    /// Links are not followed. Unlike Ant, which also gives out links to directories in which a pattern could match
    /// something, a link goes only if it is selected itself.
    fn delete(&self, base: &Path, directories: bool, cancel: &dyn Fn() -> bool) -> Result<(), Throw> {
        if !base.is_dir() {
            // DirectoryScanner.scan
            let what = if base.exists() { "is not a directory." } else { "does not exist." };
            return Err(Throw::io(format!("basedir {} {what}", file(base))));
        }
        if base.is_symlink() {
            // Nothing is below a base directory that is a link.
            return Ok(());
        }
        if directories && self.select("") {
            return Ok(remove::remove_recursive(base, cancel)?);
        }
        let mut pending = vec![(base.to_owned(), String::new())];
        while let Some((dir, prefix)) = pending.pop() {
            // A directory that can't be listed has nothing in it that can be selected.
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries {
                if cancel() {
                    return Err(Throw::interrupted());
                }
                let entry = entry?;
                let relative = format!("{prefix}{}", entry.file_name().to_string_lossy());
                let is_dir = entry.file_type()?.is_dir();
                if (directories || !is_dir) && self.select(&relative) {
                    remove::remove_recursive(&entry.path(), cancel)?;
                } else if is_dir {
                    pending.push((entry.path(), format!("{relative}/")));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::callables::Agent;
    use crate::callables::suid::class_file_of;
    use crate::callables::testing::Harness;
    use crate::demo::controller::requests;
    use crate::files::testing::tree;

    #[test]
    fn the_answer_of_list_files_goes_by_version() {
        for version in ["2.576", "2.579", "2.576-rc1", "2.600.3", "3.0"] {
            assert!(version_takes_set(Some(version)), "{version}");
        }
        for version in ["2.575", "2.293", "2.541.3", "2.555.3.1", "1.700", "", "unknown"] {
            assert!(!version_takes_set(Some(version)), "{version}");
        }
        assert!(!version_takes_set(None));
    }

    #[test]
    fn the_answer_of_list_files_is_what_the_class_file_says() {
        let class = "hudson.tasks.ArtifactArchiver$ListFiles";
        let parameters = "(Ljava/io/File;Lhudson/remoting/VirtualChannel;)";
        let with = |types: &[&str]| {
            let descriptors: Vec<_> = types.iter().map(|name| format!("{parameters}Ljava/{name};")).collect();
            let methods: Vec<_> = descriptors.iter().map(|descriptor| ("invoke", descriptor.as_str())).collect();
            Some(class_file_of(class, &methods))
        };
        let too_large = || {
            with(&["util/Set"]).map(|mut bytes| {
                bytes.resize((1 << 20) + 1, 0);
                bytes
            })
        };
        let (set, map) = ("java.util.HashSet", "java.util.HashMap");
        for (class_file, version, expected) in [
            (with(&["lang/Object", "util/Set"]), None, set),
            (with(&["util/Map", "lang/Object"]), None, map),
            (with(&["util/Set"]), Some("2.293"), set),
            (with(&["util/Map"]), Some("2.579"), map),
            (with(&["lang/Object"]), Some("2.579"), set),
            (Some(b"no class file".to_vec()), Some("2.579"), set),
            (too_large(), Some("2.293"), map),
            (too_large(), Some("2.579"), set),
            (None, Some("2.579"), set),
            (None, None, map),
        ] {
            let harness = Harness::with_agent(Agent::new(None, None, version.map(str::to_owned)));
            if let Some(class_file) = class_file {
                harness.end.define(class, class_file);
            }
            let dir = tempfile::tempdir().unwrap();
            for _ in 0..2 {
                let answer = harness.call(requests::list_files(dir.path().to_str().unwrap(), "*")).unwrap();
                assert_eq!(answer.root().unwrap().class_name(), expected, "{version:?}");
            }
            assert_eq!(harness.end.asked(), ["fetch"], "asked once");
            harness.finish();
        }
    }

    fn patterns(includes: &[&str], excludes: &[&str]) -> Patterns {
        let globs = |list: &[&str]| list.iter().map(|pattern| Glob::single(pattern, true)).collect();
        Patterns { includes: globs(includes), excludes: globs(excludes) }
    }

    fn left(dir: &Path) -> Vec<String> {
        let all = crate::files::glob::Options { default_excludes: false, ..Options::default() };
        let names = Glob::new("**", None, all).list(dir, &|| false).unwrap();
        names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn cleanup_deletes_what_patterns_select() {
        type Names = &'static [&'static str];
        let cases: &[(Names, Names, bool, Names)] = &[
            (&["**/*"], &[], false, &[]),
            (&["**/*.o"], &["lib/**"], false, &[".git/HEAD", "a b.txt", "lib/x.o", "link", "src/x.c"]),
            (&["src"], &[], false, &[".git/HEAD", "a b.txt", "lib/x.o", "link", "src/x.c", "src/x.o"]),
            (&["src"], &["**/*.c"], true, &[".git/HEAD", "a b.txt", "lib/x.o", "link"]),
            (&["lib/x.o,src/x.o"], &[], false, &[".git/HEAD", "a b.txt", "lib/x.o", "link", "src/x.c", "src/x.o"]),
            (&["l*"], &[], false, &[".git/HEAD", "a b.txt", "lib/x.o", "src/x.c", "src/x.o"]),
        ];
        for (includes, excludes, directories, expected) in cases {
            let temp = tempfile::tempdir().unwrap();
            let dir = temp.path().join("ws");
            tree(temp.path(), &["ws/src/x.c", "ws/src/x.o", "ws/lib/x.o", "ws/.git/HEAD", "ws/a b.txt", "kept"]);
            symlink("../kept", dir.join("link")).unwrap();
            patterns(includes, excludes).delete(&dir, *directories, &|| false).unwrap();
            assert_eq!(left(&dir), *expected, "{includes:?} {excludes:?} {directories}");
            assert!(temp.path().join("kept").exists());
        }
    }

    #[test]
    fn cleanup_does_not_enter_links() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["outside/x", "ws/y"]);
        symlink("../outside", temp.path().join("ws/out")).unwrap();
        patterns(&["**/x"], &[]).delete(&temp.path().join("ws"), true, &|| false).unwrap();
        assert!(temp.path().join("outside/x").exists());
        patterns(&["**"], &[]).delete(&temp.path().join("ws"), true, &|| false).unwrap();
        assert!(!temp.path().join("ws").exists() && temp.path().join("outside/x").exists());
    }
}
