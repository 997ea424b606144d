//! What publishers and build steps of plugins look for in a workspace: files by pattern, tools, small texts. What they
//! then parse with their own classes is not here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::file_path::charset::Charset;
use super::file_path::query;
use super::file_path::types::{FilePath, build_file_path, file};
use super::{Call, Entry, Reply, Run, Throw};
use crate::files::glob::{Glob, Options};
use crate::java_class;

const fn entry(owner: &'static str, class: &'static str, run: fn(&Call) -> Result<Reply, Throw>) -> Entry {
    Entry { class, owner, run: Run::Blocking(run) }
}

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    entry(
        "code-coverage-api",
        "io.jenkins.plugins.coverage.CoverageProcessor$FindReportCallable",
        files_by_report_pattern,
    ),
    entry("email-ext", "hudson.plugins.emailext.plugins.content.AbstractEvalContent$IsChildFileCallable", is_child),
    entry("jacoco", "hudson.plugins.jacoco.JacocoPublisher$ResolveDirPaths", directories),
    entry("mercurial", "hudson.plugins.mercurial.HgExe$DeleteOnExit", delete_on_exit),
    entry("sonar", "hudson.plugins.sonar.utils.SonarUtils$ListWithoutSymlinksCallable", files_without_links),
    entry("token-macro", "org.jenkinsci.plugins.tokenmacro.impl.PropertyFromFileMacro$ReadProperty", property),
    entry(
        "token-macro",
        "org.jenkinsci.plugins.tokenmacro.impl.WorkspaceFileMacro$WorkspaceFileMasterToSlaveCallable",
        text_of_file,
    ),
    entry("warnings-ng", "io.jenkins.plugins.analysis.core.util.FileFinder", names_of_files),
];

/// Most of a file that becomes part of a text (an e-mail), in bytes.
const MAX_TEXT: u64 = 64 << 20;

/// A `FilePath[]`.
fn file_paths(call: &Call, dir: &Path, names: impl Iterator<Item = impl AsRef<Path>>) -> Reply {
    call.reply(|graph| {
        let paths: Vec<_> = names.map(|name| Some(build_file_path(graph, &dir.join(name)))).collect();
        graph.array("[Lhudson.FilePath;", 0, &paths)
    })
}

java_class! {
    struct FindReportCallable {
        pattern: String = "reportFilePath",
    }
}

fn files_by_report_pattern(call: &Call) -> Result<Reply, Throw> {
    let this = FindReportCallable::read(call.view())?;
    let dir = call.path()?;
    let names = crate::files::glob::list(dir, &this.pattern, None, true, &|| call.is_cancelled())?;
    Ok(file_paths(call, dir, names.into_iter()))
}

java_class! {
    struct ListWithoutSymlinks {
        includes: String = "includes",
    }
}

fn files_without_links(call: &Call) -> Result<Reply, Throw> {
    let this = ListWithoutSymlinks::read(call.view())?;
    let dir = call.path()?;
    let options = Options { follow_symlinks: false, ..Options::default() };
    let names = query::list(call, dir, &Glob::new(&this.includes, None, options))?;
    Ok(file_paths(call, dir, names.into_iter()))
}

java_class! {
    struct FileFinder {
        includes: String = "includesPattern",
        excludes: Option<String> = "excludesPattern",
        follow_symlinks: bool = "followSymlinks",
    }
}

fn names_of_files(call: &Call) -> Result<Reply, Throw> {
    let this = FileFinder::read(call.view())?;
    let options = Options { follow_symlinks: this.follow_symlinks, ..Options::default() };
    let excludes = this.excludes.as_deref().filter(|excludes| !excludes.trim().is_empty());
    // What Ant says of a directory that is none is no files.
    let names = match call.path()? {
        dir if dir.is_dir() => query::list(call, dir, &Glob::new(&this.includes, excludes, options))?,
        _ => Vec::new(),
    };
    Ok(call.reply(|graph| graph.string_array(&names.iter().map(String::as_str).collect::<Vec<_>>())))
}

java_class! {
    struct ResolveDirPaths {
        input: String = "input",
    }
}

/// Directories that match, in any case. Nothing is excluded: the plugin's scanner is a bare `DirectoryScanner`.
fn directories(call: &Call) -> Result<Reply, Throw> {
    let this = ResolveDirPaths::read(call.view())?;
    let dir = call.path()?;
    if !dir.is_dir() {
        // DirectoryScanner.scan
        return Err(Throw::new(
            super::ThrowClass::IllegalState,
            match dir.exists() {
                true => format!("basedir {} is not a directory.", file(dir)),
                false => format!("basedir {} does not exist.", file(dir)),
            },
        ));
    }
    let options = Options { default_excludes: false, case_sensitive: false, follow_symlinks: true };
    let mut found: Vec<PathBuf> = Vec::new();
    Glob::new(&this.input, None, options).walk(dir, &|| call.is_cancelled(), &mut |entry| {
        if entry.selected && entry.is_dir {
            found.push(entry.relative.to_owned());
        }
        Ok(true)
    })?;
    Ok(file_paths(call, dir, found.into_iter()))
}

/// Whether a file is below the directory. One of another machine is not.
fn is_child(call: &Call) -> Result<Reply, Throw> {
    let view = call.view().require("potentialChild")?;
    let elsewhere = view.annotation_bytes("hudson.FilePath").first() == Some(&1);
    let child = FilePath::read(view)?;
    let parent = file(call.path()?);
    Ok(call.bool(!elsewhere && child.path().ancestors().skip(1).any(|ancestor| file(ancestor) == parent)))
}

/// A key that hg is to use. Its client deletes it; a Java agent would once more when it exits.
fn delete_on_exit(call: &Call) -> Result<Reply, Throw> {
    Ok(call.null())
}

java_class! {
    struct WorkspaceFile {
        root: String = "root",
        path: String = "path",
        missing: String = "fileNotFoundMessage",
        charset: String = "charSet",
        max_lines: i32 = "maxLines",
    }
}

fn text_of_file(call: &Call) -> Result<Reply, Throw> {
    let this = WorkspaceFile::read(call.view())?;
    let path = Path::new(&this.root).join(this.path.trim_start_matches('/'));
    if !path.exists() {
        return Ok(call.string(&this.missing.replace("%s", &this.path).replace("%%", "%")));
    }
    let charset = Charset::for_name(&this.charset)
        .ok_or_else(|| Throw::io(format!("this agent does not know the character set {}", this.charset)))?;
    let Some(bytes) = read_text(&path) else {
        return Ok(call.string(&format!("ERROR: File '{}' could not be read", this.path)));
    };
    let text = charset.read(&bytes);
    let most = usize::try_from(this.max_lines).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
    Ok(call.string(&lines(&text).take(most).collect::<Vec<_>>().join("\n")))
}

fn read_text(path: &Path) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path).ok()?.take(MAX_TEXT + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= MAX_TEXT).then_some(bytes)
}

/// Lines as `BufferedReader` reads them: what ends one is `\n`, `\r` or both.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        rest = after.strip_prefix("\r\n").or_else(|| after.get(1..)).unwrap_or("");
        Some(line)
    })
}

java_class! {
    struct ReadProperty {
        root: String = "root",
        name: String = "filename",
        property: String = "property",
    }
}

fn property(call: &Call) -> Result<Reply, Throw> {
    let this = ReadProperty::read(call.view())?;
    let path = Path::new(&this.root).join(this.name.trim_start_matches('/'));
    if !path.exists() {
        return Ok(call.string(&format!("{} not found", this.name)));
    }
    let Some(bytes) = read_text(&path) else {
        return Ok(call.string(&format!("Error reading {}", this.name)));
    };
    let found = properties(&String::from_utf8_lossy(&bytes)).remove(&this.property);
    Ok(call.string(&found.unwrap_or_default()))
}

/// `java.util.Properties.load`; a malformed `\u` is left as it is.
fn properties(text: &str) -> BTreeMap<String, String> {
    let blank = |c: char| matches!(c, ' ' | '\t' | '\u{c}');
    let mut found = BTreeMap::new();
    let mut natural = lines(text);
    while let Some(line) = natural.next() {
        let mut logical = line.trim_start_matches(blank).to_owned();
        if logical.is_empty() || logical.starts_with(['#', '!']) {
            continue;
        }
        // An odd number of backslashes at the end joins the next line.
        while logical.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
            logical.pop();
            match natural.next() {
                Some(next) => logical.push_str(next.trim_start_matches(blank)),
                None => break,
            }
        }
        let mut escaped = false;
        let end = logical.find(|c: char| {
            let ends = !escaped && (matches!(c, '=' | ':') || blank(c));
            escaped = !escaped && c == '\\';
            ends
        });
        let (key, rest) = logical.split_at(end.unwrap_or(logical.len()));
        let rest = rest.trim_start_matches(blank);
        let value = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(blank);
        found.insert(unescape(key), unescape(value));
    }
    found
}

fn unescape(text: &str) -> String {
    let mut units: Vec<u16> = Vec::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let c = match c {
            '\\' => match rest.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('f') => '\u{c}',
                Some('u') => {
                    if let Some(unit) = rest.as_str().get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok()) {
                        units.push(unit);
                        rest = rest.as_str()[4..].chars();
                        continue;
                    }
                    'u'
                }
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        units.extend(c.encode_utf16(&mut [0; 2]).iter());
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::callables::Agent;
    use crate::callables::scripted::object;
    use crate::callables::testing::ask;
    use crate::files::testing::tree;
    use crate::object::{Graph, NodeId, Value};

    /// What a callable with these fields is answered, on a path if there is one.
    async fn answer(
        path: Option<&Path>,
        class: &str,
        strings: &[(&'static str, &str)],
        values: &[(&'static str, Value)],
    ) -> Result<Graph, String> {
        let agent = Arc::new(Agent::new(None, None, None));
        let build = |graph: &mut Graph| {
            let texts: Vec<_> = strings.iter().map(|(name, text)| (*name, Some(graph.string(text)))).collect();
            let callable = object(graph, class, &texts, values);
            path.map_or(callable, |path| act(graph, path, callable))
        };
        ask(&agent, build).await
    }

    fn act(graph: &mut Graph, path: &Path, callable: NodeId) -> NodeId {
        let remote = graph.string(&path.to_string_lossy());
        let file = object(graph, "hudson.FilePath", &[("remote", Some(remote))], &[]);
        let fields = [("callable", Some(callable)), ("filePath", Some(file))];
        object(graph, "hudson.FilePath$FileCallableWrapper", &fields, &[])
    }

    fn remotes(answer: &Graph, root: &Path) -> Vec<String> {
        let root_prefix = format!("{}/", root.display());
        let paths = answer.root().unwrap().elements().unwrap().flatten();
        let mut names: Vec<String> =
            paths.map(|path| path.require_string("remote").unwrap().replace(&root_prefix, "")).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn what_is_found_in_a_workspace() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        tree(
            root,
            &["a/target/Classes/X.class", "b/target/classes/", "b/report-task.txt", "c/cov.xml", ".git/classes/"],
        );
        symlink("../b/report-task.txt", root.join("c/report-task.txt")).unwrap();
        let class = "hudson.plugins.jacoco.JacocoPublisher$ResolveDirPaths";
        let found = answer(Some(root), class, &[("input", "**/target/classes , c")], &[]).await.unwrap();
        assert_eq!(remotes(&found, root), ["a/target/Classes", "b/target/classes", "c"]);
        let missing = answer(Some(&root.join("no")), class, &[("input", "**")], &[]).await;
        assert_eq!(missing.unwrap_err(), "java.lang.IllegalStateException");

        let class = "hudson.plugins.sonar.utils.SonarUtils$ListWithoutSymlinksCallable";
        let found = answer(Some(root), class, &[("includes", "**/report-task.txt")], &[]).await.unwrap();
        assert_eq!(remotes(&found, root), ["b/report-task.txt"]);

        let class = "io.jenkins.plugins.coverage.CoverageProcessor$FindReportCallable";
        let found = answer(Some(root), class, &[("reportFilePath", "**/*.xml")], &[]).await.unwrap();
        assert_eq!(remotes(&found, root), ["c/cov.xml"]);

        let class = "io.jenkins.plugins.analysis.core.util.FileFinder";
        let patterns = [("includesPattern", "**/*.txt, **/*.xml"), ("excludesPattern", "c/c*")];
        for (follow, expected) in
            [(true, vec!["b/report-task.txt", "c/report-task.txt"]), (false, vec!["b/report-task.txt"])]
        {
            let found = answer(Some(root), class, &patterns, &[("followSymlinks", Value::Bool(follow))]).await.unwrap();
            let names: Vec<_> = found.root().unwrap().elements().unwrap().flatten().collect();
            let names: Vec<_> = names.iter().map(|name| name.as_str().unwrap()).collect();
            assert_eq!(names, expected);
        }
        let none = answer(Some(&root.join("no")), class, &patterns, &[("followSymlinks", Value::Bool(true))]).await;
        assert_eq!(none.unwrap().root().unwrap().elements().unwrap().count(), 0);
    }

    #[tokio::test]
    async fn children_of_a_directory() {
        let class = "hudson.plugins.emailext.plugins.content.AbstractEvalContent$IsChildFileCallable";
        for (parent, child, mark, expected) in [
            ("/ws", "/ws/a/b", 0, true),
            ("/ws/", "/ws/a", 0, true),
            ("/ws", "/ws", 0, false),
            ("/ws", "/ws2/a", 0, false),
            ("/ws", "/ws/a", 1, false),
        ] {
            let agent = Arc::new(Agent::new(None, None, None));
            let answer = ask(&agent, |graph| {
                let remote = graph.string(child);
                let flags = crate::object::sc::SERIALIZABLE | crate::object::sc::WRITE_METHOD;
                let fields = [("remote", "Ljava/lang/String;")];
                let desc = graph.class_desc("hudson.FilePath", 1, flags, &fields, None);
                let file = graph.object(desc).set_ref("remote", remote).annotate_bytes(desc, vec![mark]).build();
                let callable = object(graph, class, &[("potentialChild", Some(file))], &[]);
                act(graph, Path::new(parent), callable)
            });
            let answer = answer.await.unwrap();
            assert_eq!(answer.root().unwrap().unboxed(), Some(Value::Bool(expected)), "{parent} {child} {mark}");
        }
    }

    #[tokio::test]
    async fn texts_of_files() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().to_string_lossy().into_owned();
        std::fs::write(temp.path().join("f"), b"caf\xe9\r\ntwo\rthree\n").unwrap();
        std::fs::write(temp.path().join("p"), "a = 1\n# b=2\nlong\\\n  er : x\\u00e9\\ty\nend").unwrap();
        let file = "org.jenkinsci.plugins.tokenmacro.impl.WorkspaceFileMacro$WorkspaceFileMasterToSlaveCallable";
        let text = async |path: &str, lines: i32| {
            let strings =
                [("root", &*root), ("path", path), ("fileNotFoundMessage", "no '%s'"), ("charSet", "ISO-8859-1")];
            let found = answer(None, file, &strings, &[("maxLines", Value::Int(lines))]).await.unwrap();
            found.root().unwrap().as_str().unwrap().into_owned()
        };
        assert_eq!(text("f", 0).await, "café\ntwo\nthree");
        assert_eq!(text("f", 1).await, "café");
        assert_eq!(text("g", 1).await, "no 'g'");
        let class = "org.jenkinsci.plugins.tokenmacro.impl.PropertyFromFileMacro$ReadProperty";
        for (name, property, expected) in
            [("p", "a", "1"), ("p", "b", ""), ("p", "longer", "xé\ty"), ("p", "end", ""), ("q", "a", "q not found")]
        {
            let strings = [("root", &*root), ("filename", name), ("property", property)];
            let found = answer(None, class, &strings, &[]).await.unwrap();
            assert_eq!(found.root().unwrap().as_str().unwrap(), expected, "{property}");
        }
    }

    #[test]
    fn properties_as_java_reads_them() {
        let found = properties("k\\=e\\:y=v\\\\\n\\ x y\n=empty\n!c\nlast=a\\\\\\\n b\\");
        let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let expected = [entry("k=e:y", "v\\"), entry(" x", "y"), entry("", "empty"), entry("last", "a\\b")];
        assert_eq!(found, expected.into_iter().collect());
    }
}
