//! What a user who browses an agent's workspace makes the controller send: `jenkins.util.VirtualFile` and
//! `hudson.model.DirectoryBrowserSupport`.
//!
//! Browsing needs callables of `hudson.FilePath` besides. `Run$AddArtifacts` runs where artifacts are kept, which is
//! never an agent.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::file_path::types::{FileFilter, FilePath, OpenOptions, Restrictions, list_files};
use super::{Call, Entry, Reply, Run, Throw};
use crate::files::attributes;
use crate::files::scan::{DirScanner, Restricted, Visitor};
use crate::object::{AccessError, FromJava, Graph, NodeId, Value, View};

/// Callables of the workspace browser.
pub const ENTRIES: &[Entry] = &[
    core("hudson.model.DirectoryBrowserSupport$BuildChildPaths", build_child_paths),
    Entry { class: "hudson.model.DirectoryBrowserSupport$IsAbsolute", owner: "core", run: Run::Inline(is_absolute) },
    core("jenkins.util.VirtualFile$CollectFiles", collect_files),
    core("jenkins.util.VirtualFile$Readable", readable),
    core("jenkins.util.VirtualFile$Scanner", scanner),
];

const fn core(class: &'static str, run: fn(&Call) -> Result<Reply, Throw>) -> Entry {
    Entry { class, owner: "core", run: Run::Blocking(run) }
}

/// A `VirtualFile$FilePathVF`: a file, and the directory beyond which its reader may not look.
#[derive(Debug)]
struct VirtualFile {
    file: PathBuf,
    root: Option<String>,
}

impl<'g> FromJava<'g> for VirtualFile {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        let file = object.require(name)?;
        let path = FilePath::from_field(file, "f")?;
        let root = Option::<FilePath>::from_field(file, "root")?;
        Ok(VirtualFile { file: path.path().to_owned(), root: root.map(|root| root.remote) })
    }
}

/// `File.canRead`
fn can_read(path: &Path) -> bool {
    accessat(CWD, path, Access::READ_OK, AtFlags::empty()).is_ok()
}

fn readable(call: &Call) -> Result<Reply, Throw> {
    Ok(call.bool(can_read(call.path()?)))
}

crate::java_class! {
    struct IsAbsolute {
        fragment: String = "fragment",
    }
}

fn is_absolute(call: &Call) -> Result<Reply, Throw> {
    Ok(call.bool(Path::new(&IsAbsolute::read(call.view())?.fragment).is_absolute()))
}

fn string_list(call: &Call, names: &[String]) -> Reply {
    call.reply(|graph| {
        let names: Vec<_> = names.iter().map(|name| Some(graph.string(name))).collect();
        graph.array_list(&names)
    })
}

crate::java_class! {
    struct CollectFiles {
        root: VirtualFile = "root",
    }
}

/// Names of all files. Links to directories are entered unless they lead back to where the way came from; Java
/// recurses until the file system puts an end to it.
fn collect_files(call: &Call) -> Result<Reply, Throw> {
    #[derive(Default)]
    struct Names(Vec<String>);
    impl Visitor for Names {
        fn visit(&mut self, file: &Path, relative: &Path) -> crate::files::Result<()> {
            if !file.is_dir() && file.exists() {
                // The first component is the base directory's own name.
                let below: PathBuf = relative.components().skip(1).collect();
                self.0.push(below.to_string_lossy().into_owned());
            }
            Ok(())
        }
    }
    let this = CollectFiles::read(call.view())?;
    let mut names = Names::default();
    DirScanner::Full.scan(&this.root.file, &mut names, &|| call.is_cancelled())?;
    Ok(string_list(call, &names.0))
}

crate::java_class! {
    struct Scanner {
        includes: String = "includes",
        excludes: Option<String> = "excludes",
        use_default_excludes: bool = "useDefaultExcludes",
    }
}

fn scanner(call: &Call) -> Result<Reply, Throw> {
    struct Names(Vec<String>);
    impl Visitor for Names {
        fn visit(&mut self, _: &Path, relative: &Path) -> crate::files::Result<()> {
            self.0.push(relative.to_string_lossy().replace('\\', "/"));
            Ok(())
        }
    }
    let this = Scanner::read(call.view())?;
    let restrictions = Restrictions::read(call.view())?;
    let mut names = Names(Vec::new());
    if !this.includes.is_empty() {
        let scanner = DirScanner::Glob {
            includes: Some(this.includes),
            excludes: this.excludes,
            default_excludes: this.use_default_excludes,
            follow_symlinks: !restrictions.no_follow(),
        };
        let mut allowed = Restricted {
            inner: &mut names,
            verification_root: restrictions.root().map(Path::to_owned),
            no_follow: restrictions.no_follow(),
            ignore_tmp_dirs: restrictions.ignore_tmp_dirs(),
        };
        scanner.scan(call.path()?, &mut allowed, &|| call.is_cancelled())?;
    }
    Ok(string_list(call, &names.0))
}

crate::java_class! {
    struct BuildChildPaths {
        cur: VirtualFile = "cur",
        open_options: OpenOptions = "openOptions",
    }
}

/// One page of the workspace browser. The answer is a list of lists of `Path`, and since core 2.443, when the class got
/// its field `openOptions`, an object with that list in it.
fn build_child_paths(call: &Call) -> Result<Reply, Throw> {
    let this = BuildChildPaths::read(call.view())?;
    let dir = &this.cur.file;
    let restrict =
        |open_options| Restrictions { verification_root: this.cur.root.clone(), no_follow_links: false, open_options };
    // What is shown goes by the agent's own defaults (`DirectoryBrowserSupport.getOpenOptions`).
    let shown = FileFilter::Allowed(restrict(OpenOptions { no_follow: true, ignore_tmp_dirs: true }));
    let rows = rows(dir, &shown, &|| call.is_cancelled())?;
    let has_result_class = call.view().field("openOptions").is_some();
    Ok(call.reply(|graph| {
        let rows: Vec<_> = rows
            .iter()
            .map(|row| {
                let paths: Vec<_> = row.iter().map(|path| Some(path.build(graph))).collect();
                Some(graph.array_list(&paths))
            })
            .collect();
        let rows = graph.array_list(&rows);
        if !has_result_class {
            return rows;
        }
        let any = |filter| list_files(dir, &filter).is_some_and(|files| !files.is_empty());
        let is_tmp_dir = |file: &PathBuf| {
            let restrictions = restrict(this.open_options);
            file.is_dir() && restrictions.is_tmp_dir(file)
        };
        let has_link = any(FileFilter::Links(restrict(this.open_options)));
        let has_tmp_dir = list_files(dir, &FileFilter::All).is_some_and(|files| files.iter().any(is_tmp_dir));
        let fields = [("containsSymLink", "Z"), ("containsTmpDir", "Z"), ("glob", "Ljava/util/List;")];
        // A record since 2.556: of those nobody compares the serialVersionUID.
        let class = "hudson.model.DirectoryBrowserSupport$BuildChildPathsResult";
        let desc = graph.serializable(class, 1, &fields, None);
        graph
            .object(desc)
            .set("containsSymLink", Value::Bool(has_link))
            .set("containsTmpDir", Value::Bool(has_tmp_dir))
            .set_ref("glob", rows)
            .build()
    }))
}

/// `DirectoryBrowserSupport$Path`
#[derive(Debug, PartialEq, Eq)]
struct Row {
    href: String,
    title: String,
    is_folder: bool,
    size: u64,
    is_readable: bool,
    last_modified: i64,
}

impl Row {
    fn new(file: &Path, prefix: &str) -> Row {
        let title = name(file);
        Row {
            href: format!("{prefix}{}", raw_encode(&title)),
            is_folder: file.is_dir(),
            size: attributes::length(file),
            is_readable: can_read(file),
            last_modified: attributes::last_modified(file),
            title,
        }
    }

    fn build(&self, graph: &mut Graph) -> NodeId {
        let fields = [
            ("isFolder", "Z"),
            ("isReadable", "Z"),
            ("lastModified", "J"),
            ("size", "J"),
            ("href", "Ljava/lang/String;"),
            ("title", "Ljava/lang/String;"),
        ];
        let desc = graph.serializable("hudson.model.DirectoryBrowserSupport$Path", 1, &fields, None);
        let (href, title) = (graph.string(&self.href), graph.string(&self.title));
        graph
            .object(desc)
            .set("isFolder", Value::Bool(self.is_folder))
            .set("isReadable", Value::Bool(self.is_readable))
            .set("lastModified", Value::Long(self.last_modified))
            .set("size", Value::Long(self.size.cast_signed()))
            .set_ref("href", href)
            .set_ref("title", title)
            .build()
    }
}

fn name(file: &Path) -> String {
    file.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// `DirectoryBrowserSupport.buildChildPaths`: directories first, each with the directories that are all it contains.
/// Names are ordered regardless of case, where Java goes by the rules of the user's language.
fn rows(dir: &Path, shown: &FileFilter, cancel: &dyn Fn() -> bool) -> Result<Vec<Vec<Row>>, Throw> {
    let mut files: Vec<(bool, String, PathBuf)> = list_files(dir, shown)
        .unwrap_or_default()
        .into_iter()
        .map(|file| (!file.is_dir(), name(&file), file))
        .collect();
    files.sort_by(|(a_file, a, _), (b_file, b, _)| a_file.cmp(b_file).then_with(|| alphabetical(a, b)));
    let mut rows = Vec::with_capacity(files.len());
    for (_, _, mut file) in files {
        if cancel() {
            return Err(Throw::interrupted());
        }
        let mut row = vec![Row::new(&file, "")];
        // Ends because paths have a greatest length.
        while file.is_dir() {
            let meaningful = |file: &PathBuf| {
                let name = name(file);
                !name.starts_with('.') && name != "CVS"
            };
            let mut below = list_files(&file, shown).unwrap_or_default();
            below.retain(meaningful);
            match below.pop() {
                Some(only) if below.is_empty() && only.is_dir() => file = only,
                _ => break,
            }
            let prefix = row.last().map(|path| format!("{}/", path.href)).unwrap_or_default();
            row.push(Row::new(&file, &prefix));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn alphabetical(a: &str, b: &str) -> Ordering {
    a.to_lowercase().cmp(&b.to_lowercase()).then_with(|| b.cmp(a))
}

/// `Util.rawEncode`
fn raw_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"!$&'()*+,-.=@_".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::files::testing::tree;

    #[test]
    fn encodes_as_java_does() {
        // UtilTest.testRawEncode, and `Util.rawEncode`'s own list of what is unsafe.
        for (text, encoded) in [
            ("/", "%2F"),
            ("abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz"),
            ("01234567890!@$&*()-_=+',.", "01234567890!@$&*()-_=+',."),
            (" \"#%/:;<>?", "%20%22%23%25%2F%3A%3B%3C%3E%3F"),
            ("[\\]^`{|}~", "%5B%5C%5D%5E%60%7B%7C%7D%7E"),
            ("d\u{e9}velopp\u{e9}s", "d%C3%A9velopp%C3%A9s"),
        ] {
            assert_eq!(raw_encode(text), encoded);
        }
    }

    #[test]
    fn a_page_shows_directories_first_and_skips_those_that_hold_one_directory() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        tree(dir, &["b.txt", "A.txt", "z/y/x w/1", "z/y/x w/2", "a@tmp/secret", "c/.hidden", "c/d/"]);
        symlink("b.txt", dir.join("link")).unwrap();
        let options = OpenOptions { no_follow: true, ignore_tmp_dirs: true };
        let root = Some(dir.to_string_lossy().into_owned());
        let shown = FileFilter::Allowed(Restrictions {
            verification_root: root,
            no_follow_links: false,
            open_options: options,
        });
        let rows = rows(dir, &shown, &|| false).unwrap();
        let hrefs: Vec<Vec<&str>> =
            rows.iter().map(|row| row.iter().map(|path| path.href.as_str()).collect()).collect();
        assert_eq!(hrefs, [vec!["c", "c/d"], vec!["z", "z/y", "z/y/x%20w"], vec!["A.txt"], vec!["b.txt"]]);
        let last = &rows[3][0];
        assert!(last.size == 5 && last.is_readable && !last.is_folder && last.last_modified > 0);
    }
}
