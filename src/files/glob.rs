//! Ant's file patterns: what `hudson.Util.createFileSet` and Ant's `DirectoryScanner` select.
//!
//! Facts (Ant 1.10.9 to 1.10.17, `DirectoryScanner`, `SelectorUtils`, `TokenizedPattern`; core's `Util.createFileSet`):
//! - Patterns are separated by commas and trimmed; a blank is part of a pattern. No pattern at all means `**`.
//! - `\` is `/`. A pattern that ends with `/` means all that is below.
//! - `**` as a whole path component is any number of components, also none; `*` and `?` stay within a component.
//! - A pattern that begins with `/`, `./` or `../` selects nothing below a base directory, also in Ant. Neither does one
//!   without wildcards that has an empty component (`a//b`): Ant compares those as text.
//! - A directory that can't be listed counts as a file. So does everything that is neither file nor directory.
//! - Links to directories are entered if links are followed; one that leads back into itself is entered at most
//!   [`MAX_LEVELS_OF_SYMLINKS`] times. If links are not followed they don't exist, nor does a base directory that is one.
//!
//! Ant sorts the file names that it returns; [`Glob::scan`] reports in that order without holding them all. It differs
//! in two things: `?` matches a Unicode scalar value where Java matches half a surrogate pair, and of several directories
//! whose names differ only in case, an insensitive scan enters all where Ant may enter one.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{At, Cancel, Error, Result, check};

/// How often one name may occur as a followed link on the way to a file (`DirectoryScanner.MAX_LEVELS_OF_SYMLINKS`).
pub const MAX_LEVELS_OF_SYMLINKS: usize = 5;

/// Ant's default excludes (`DirectoryScanner.DEFAULTEXCLUDES`), unchanged since Ant 1.8.2.
pub const DEFAULT_EXCLUDES: [&str; 28] = [
    "**/*~",
    "**/#*#",
    "**/.#*",
    "**/%*%",
    "**/._*",
    "**/CVS",
    "**/CVS/**",
    "**/.cvsignore",
    "**/SCCS",
    "**/SCCS/**",
    "**/vssver.scc",
    "**/.svn",
    "**/.svn/**",
    "**/.git",
    "**/.git/**",
    "**/.gitattributes",
    "**/.gitignore",
    "**/.gitmodules",
    "**/.hg",
    "**/.hg/**",
    "**/.hgignore",
    "**/.hgsub",
    "**/.hgsubstate",
    "**/.hgtags",
    "**/.bzr",
    "**/.bzr/**",
    "**/.bzrignore",
    "**/.DS_Store",
];

const DEEP: &str = "**";

/// One pattern, cut into components.
#[derive(Debug, Clone)]
struct Pattern {
    parts: Vec<String>,
    /// Ant compares patterns without wildcards as text, so one that is not spelt like a path never matches.
    never: bool,
}

impl Pattern {
    fn new(pattern: &str) -> Pattern {
        let mut text = pattern.replace('\\', "/");
        if text.ends_with('/') {
            text.push_str(DEEP);
        }
        let parts: Vec<String> = text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        let wild = text.contains(['*', '?']);
        Pattern { never: text.starts_with('/') || (!wild && parts.join("/") != text), parts }
    }

    fn is_deep(&self) -> bool {
        self.parts.iter().any(|part| part == DEEP)
    }

    fn matches<S: AsRef<str>>(&self, path: &[S], case_sensitive: bool) -> bool {
        !self.never && match_path(&self.parts, path, case_sensitive)
    }

    /// Whether something below the directory could match (`couldHoldIncluded`); may err on the side of yes.
    fn could_match_below<S: AsRef<str>>(&self, dir: &[S], case_sensitive: bool) -> bool {
        if self.never || !(self.is_deep() || self.parts.len() > dir.len()) {
            return false;
        }
        for (part, name) in self.parts.iter().zip(dir) {
            if part == DEEP {
                return true;
            }
            if !match_name(part, name.as_ref(), case_sensitive) {
                return false;
            }
        }
        true
    }

    /// Whether the pattern, as an exclude, covers all that is below the directory (`contentsExcluded`).
    fn covers_below<S: AsRef<str>>(&self, dir: &[S], case_sensitive: bool) -> bool {
        match self.parts.split_last() {
            Some((last, head)) if last == DEEP && !self.never => match_path(head, dir, case_sensitive),
            _ => false,
        }
    }
}

/// Ant's `SelectorUtils.matchPath`.
fn match_path<S: AsRef<str>>(pattern: &[String], path: &[S], case_sensitive: bool) -> bool {
    let (mut p, mut s) = (0, 0);
    // Where to resume when what follows the last `**` does not fit: it then swallows one component more.
    let mut retry: Option<(usize, usize)> = None;
    while s < path.len() {
        if p < pattern.len() && pattern[p] == DEEP {
            p += 1;
            retry = Some((p, s));
        } else if p < pattern.len() && match_name(&pattern[p], path[s].as_ref(), case_sensitive) {
            p += 1;
            s += 1;
        } else if let Some((after, from)) = retry {
            p = after;
            s = from + 1;
            retry = Some((after, s));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|part| part == DEEP)
}

/// Ant's `SelectorUtils.match`: `*` and `?` within one name.
fn match_name(pattern: &str, name: &str, case_sensitive: bool) -> bool {
    if pattern == "*" {
        return true;
    }
    if case_sensitive && !pattern.contains(['*', '?']) {
        return pattern == name;
    }
    let (mut p, mut s) = (pattern.chars(), name.chars());
    // What follows the last star, and the first character that the star has not swallowed.
    let mut retry = None;
    loop {
        let (mut next_p, mut next_s) = (p.clone(), s.clone());
        match (next_p.next(), next_s.next()) {
            (Some('*'), _) => {
                p = next_p;
                retry = Some((p.clone(), s.clone()));
                continue;
            }
            (Some(want), Some(have)) if want == '?' || same(want, have, case_sensitive) => {
                (p, s) = (next_p, next_s);
                continue;
            }
            (None, None) => return true,
            (Some(_), None) => return false,
            (_, Some(_)) => {}
        }
        let Some((after, from)) = &mut retry else {
            return false;
        };
        from.next();
        (p, s) = (after.clone(), from.clone());
    }
}

fn same(a: char, b: char, case_sensitive: bool) -> bool {
    a == b || (!case_sensitive && upper(a) == upper(b))
}

/// `Character.toUpperCase`: one character to one character.
fn upper(c: char) -> char {
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => one,
        _ => c,
    }
}

/// How a [`Glob`] scans. The default is that of `Util.createFileSet`: default excludes, case sensitive, links followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Leave out what Ant leaves out by default: editors' and version control's files.
    pub default_excludes: bool,
    /// Whether `a` and `A` differ.
    pub case_sensitive: bool,
    /// Whether links are followed, or ignored altogether.
    pub follow_symlinks: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { default_excludes: true, case_sensitive: true, follow_symlinks: true }
    }
}

/// The files that match comma separated patterns, as `FilePath.list(includes, excludes, defaultExcludes)` answers them.
///
/// Unlike elsewhere, includes that begin like an absolute path are an error.
pub fn list(
    dir: &Path,
    includes: &str,
    excludes: Option<&str>,
    default_excludes: bool,
    cancel: Cancel<'_>,
) -> Result<Vec<PathBuf>> {
    let bytes = includes.as_bytes();
    let drive = matches!(bytes, [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    if drive || includes.starts_with('/') {
        return Err(Error::Argument(format!(
            "Expecting Ant GLOB pattern, but saw '{includes}'. \
             See https://ant.apache.org/manual/Types/fileset.html for syntax"
        )));
    }
    Glob::new(includes, excludes, Options { default_excludes, ..Options::default() }).list(dir, cancel)
}

/// What a scan found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    /// Relative to the base directory; empty for the base directory itself.
    pub relative: &'a Path,
    pub is_dir: bool,
    /// Included and not excluded.
    pub selected: bool,
}

/// A set of Ant patterns, to be matched against paths or to find files with.
#[derive(Debug, Clone)]
pub struct Glob {
    includes: Vec<Pattern>,
    excludes: Vec<Pattern>,
    options: Options,
}

impl Glob {
    /// Patterns as `Util.createFileSet` takes them: separated by commas, trimmed.
    pub fn new(includes: &str, excludes: Option<&str>, options: Options) -> Glob {
        let mut glob = Glob {
            includes: tokens(includes).map(Pattern::new).collect(),
            excludes: excludes.map_or_else(Vec::new, |excludes| tokens(excludes).map(Pattern::new).collect()),
            options,
        };
        if glob.includes.is_empty() {
            glob.includes.push(Pattern::new(DEEP));
        }
        if options.default_excludes {
            glob.excludes.extend(DEFAULT_EXCLUDES.into_iter().map(Pattern::new));
        }
        glob
    }

    /// A single pattern that is neither split nor trimmed, without default excludes (a bare `DirectoryScanner`).
    pub(crate) fn single(pattern: &str, case_sensitive: bool) -> Glob {
        Glob {
            includes: vec![Pattern::new(pattern)],
            excludes: Vec::new(),
            options: Options { default_excludes: false, case_sensitive, follow_symlinks: true },
        }
    }

    /// Whether a path, relative and with `/`, is selected.
    pub fn matches(&self, relative: &str) -> bool {
        let parts: Vec<&str> = relative.split('/').filter(|part| !part.is_empty()).collect();
        self.selects(&parts)
    }

    fn selects<S: AsRef<str>>(&self, path: &[S]) -> bool {
        let case = self.options.case_sensitive;
        self.includes.iter().any(|pattern| pattern.matches(path, case))
            && !self.excludes.iter().any(|pattern| pattern.matches(path, case))
    }

    fn enters<S: AsRef<str>>(&self, dir: &[S]) -> bool {
        let case = self.options.case_sensitive;
        self.includes.iter().any(|pattern| pattern.could_match_below(dir, case))
            && !self.excludes.iter().any(|pattern| pattern.covers_below(dir, case))
    }

    /// Reports every selected file below `dir`, as a path relative to it, in the order of the paths' bytes.
    ///
    /// Fails if `dir` does not exist or is no directory, if the visitor fails, or when cancelled.
    pub fn scan(&self, dir: &Path, cancel: Cancel<'_>, visit: &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> {
        self.walk(dir, cancel, &mut |found| {
            if found.selected && !found.is_dir {
                visit(found.relative)?;
            }
            Ok(true)
        })
    }

    /// [`Glob::scan`] into a list.
    pub fn list(&self, dir: &Path, cancel: Cancel<'_>) -> Result<Vec<PathBuf>> {
        let mut names = Vec::new();
        self.scan(dir, cancel, &mut |name| {
            names.push(name.to_owned());
            Ok(())
        })?;
        Ok(names)
    }

    /// Reports everything that is looked at, until the visitor answers `false`.
    pub(crate) fn walk(
        &self,
        dir: &Path,
        cancel: Cancel<'_>,
        visit: &mut dyn FnMut(Found<'_>) -> Result<bool>,
    ) -> Result<()> {
        const OPERATION: &str = "scan directory";
        let follow = self.options.follow_symlinks;
        if !follow && fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_symlink()) {
            return Ok(());
        }
        let meta = fs::metadata(dir).at(OPERATION, dir)?;
        if !meta.is_dir() {
            return Err(Error::io(OPERATION, dir, io::Error::from(io::ErrorKind::NotADirectory)));
        }
        let mut names: Vec<String> = Vec::new();
        let base = Found { relative: Path::new(""), is_dir: true, selected: self.selects(&names) };
        if !visit(base)? {
            return Ok(());
        }
        let mut path = dir.to_owned();
        let mut relative = PathBuf::new();
        let mut stack = vec![entries(dir, follow).at(OPERATION, dir)?.into_iter()];
        while let Some(level) = stack.last_mut() {
            let Some(entry) = level.next() else {
                stack.pop();
                path.pop();
                relative.pop();
                names.pop();
                continue;
            };
            check(cancel, OPERATION, &path)?;
            path.push(&entry.name);
            relative.push(&entry.name);
            names.push(lossy(&entry.name).into_owned());

            let mut children = None;
            let mut is_dir = entry.is_dir;
            if is_dir {
                if entry.is_link && loops(&path, &names) {
                    path.pop();
                    relative.pop();
                    names.pop();
                    continue;
                }
                if self.enters(&names) {
                    match entries(&path, follow) {
                        Ok(list) => children = Some(list),
                        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                        Err(_) => is_dir = false,
                    }
                }
            }
            let selected = self.selects(&names);
            if !visit(Found { relative: &relative, is_dir, selected })? {
                return Ok(());
            }
            match children {
                Some(list) => stack.push(list.into_iter()),
                None => {
                    path.pop();
                    relative.pop();
                    names.pop();
                }
            }
        }
        Ok(())
    }
}

/// Java's `StringTokenizer(text, ",")` with each token trimmed as `String.trim` does.
pub(crate) fn tokens(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').filter(|token| !token.is_empty()).map(|token| token.trim_matches(|c| c <= ' '))
}

pub(crate) fn lossy(name: &std::ffi::OsStr) -> Cow<'_, str> {
    name.to_string_lossy()
}

struct Entry {
    name: OsString,
    is_dir: bool,
    is_link: bool,
}

/// The entries of a directory such that a walk in this order meets full paths in the order of their bytes: a directory
/// sorts as if its name ended with the `/` that follows in the paths below.
fn entries(dir: &Path, follow: bool) -> io::Result<Vec<Entry>> {
    use std::os::unix::ffi::OsStrExt;
    let mut list = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let is_link = kind.is_symlink();
        if is_link && !follow {
            continue;
        }
        let is_dir = if is_link { entry.path().is_dir() } else { kind.is_dir() };
        list.push(Entry { name: entry.file_name(), is_dir, is_link });
    }
    fn key(entry: &Entry) -> impl Iterator<Item = u8> + '_ {
        entry.name.as_bytes().iter().copied().chain(entry.is_dir.then_some(b'/'))
    }
    list.sort_unstable_by(|a, b| key(a).cmp(key(b)));
    Ok(list)
}

/// Ant's `causesIllegalSymlinkLoop`: the link's name was entered [`MAX_LEVELS_OF_SYMLINKS`] times on the way here, and
/// each time it was the same directory.
fn loops(path: &Path, names: &[String]) -> bool {
    let Some((name, above)) = names.split_last() else {
        return false;
    };
    if above.iter().filter(|other| *other == name).count() < MAX_LEVELS_OF_SYMLINKS {
        return false;
    }
    let Ok(target) = fs::canonicalize(path) else {
        return true;
    };
    let mut same = 1;
    let mut ancestor = path;
    for other in above.iter().rev() {
        let Some(parent) = ancestor.parent() else {
            break;
        };
        ancestor = parent;
        if other == name && fs::canonicalize(ancestor).is_ok_and(|real| real == target) {
            same += 1;
        }
    }
    same > MAX_LEVELS_OF_SYMLINKS
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::super::testing::{go_on, tree};
    use super::*;

    const PLAIN: Options = Options { default_excludes: false, case_sensitive: true, follow_symlinks: true };

    fn matches(pattern: &str, path: &str) -> bool {
        Glob::new(pattern, None, PLAIN).matches(path)
    }

    /// The examples of Ant's manual ("Directory-based Tasks") and `SelectorUtilsTest`, then the corner cases.
    #[test]
    fn patterns_match_as_ants_do() {
        for (pattern, yes, no) in [
            ("*.java", &[".java", "x.java", "FooBar.java"][..], &["FooBar.xml", "a/x.java"][..]),
            ("?.java", &["x.java", "A.java"], &[".java", "xyz.java"]),
            ("/?abc/*/*.java", &[], &["xabc/foobar/test.java"]),
            ("?abc/*/*.java", &["xabc/foobar/test.java"], &["abc/foobar/test.java", "xabc/test.java"]),
            (
                "**/CVS/*",
                &["CVS/Repository", "org/apache/CVS/Entries", "org/apache/jakarta/tools/ant/CVS/Entries"],
                &["org/apache/CVS/foo/bar/Entries"],
            ),
            (
                "org/apache/jakarta/**",
                &["org/apache/jakarta/tools/ant/docs/index.html", "org/apache/jakarta/test.xml", "org/apache/jakarta"],
                &["org/apache/xyz.java"],
            ),
            (
                "org/apache/**/CVS/*",
                &["org/apache/CVS/Entries", "org/apache/jakarta/tools/ant/CVS/Entries"],
                &["org/apache/CVS/foo/bar/Entries"],
            ),
            ("**/test/**", &["test", "a/test", "test/b", "a/test/b/c"], &["a/testb", "atest/x"]),
            ("**/test/**/XYZ*", &["abc/test/def/ghi/XYZ123", "test/XYZ"], &["XYZ123", "abc/test/x/aXYZ"]),
            ("**", &["", "a", "a/b/c"], &[]),
            ("test/", &["test", "test/a/b"], &["tests", "a/test"]),
            ("a\\b\\*.c", &["a/b/x.c"], &["a/x.c"]),
            ("**/**/a/**/**", &["a", "b/c/a", "a/x", "q/a/x/y"], &["b"]),
            ("**/a/**/a", &["a/a", "x/a/a", "a/b/a", "a/a/a"], &["a", "a/b"]),
            ("**/a/b/**/a/b/c", &["a/b/a/b/c", "a/a/b/x/a/b/a/b/c"], &["a/b/c"]),
            ("a/**b/c", &["a/b/c", "a/xb/c"], &["a/x/b/c"]),
            ("***", &["a"], &["a/b"]),
            ("*", &["a", ".a"], &["", "a/b"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc", "abcbc"], &["ab", "abcd", "acb"]),
            ("*a*", &["a", "ba", "ab"], &["b"]),
            ("**a*?**", &["ab", "xaxx"], &["xa", "b"]),
            ("?", &["ä", "a"], &["ab"]),
            ("./a", &[], &["a"]),
            ("./*", &[], &["a"]),
            ("../*", &[], &["a"]),
            ("a//b", &[], &["a/b"]),
            ("a//*", &["a/b"], &[]),
            ("/tmp/**", &[], &["tmp/x", "x"]),
            ("a b", &["a b"], &["a", "b"]),
            (" a.txt , b/*.c,, ", &["a.txt", "b/x.c", ""], &[" a.txt ", "b"]),
            ("", &["a", "a/b"], &[]),
            (",", &["a"], &[]),
            (" ", &[""], &["a"]),
        ] {
            for path in yes {
                assert!(matches(pattern, path), "{pattern:?} must match {path:?}");
            }
            for path in no {
                assert!(!matches(pattern, path), "{pattern:?} must not match {path:?}");
            }
        }
    }

    #[test]
    fn case_excludes_and_default_excludes() {
        let glob = |options| Glob::new("**/*.TXT", Some("skip/, **/no*"), options);
        assert!(!glob(PLAIN).matches("a.txt"));
        let insensitive = glob(Options { case_sensitive: false, ..PLAIN });
        assert!(insensitive.matches("a.txt") && insensitive.matches("Ä/ä.Txt"));
        assert!(!insensitive.matches("SKIP/a.txt") && !insensitive.matches("x/NO.txt"));

        let all = Glob::new("**", None, Options::default());
        for path in
            ["a~", "x/#a#", ".#a", "%a%", "._a", "CVS", "CVS/x", ".git/config", "x/.gitignore", ".svn/a", ".DS_Store"]
        {
            assert!(!all.matches(path), "{path}");
        }
        assert!(all.matches(".github/workflows/x.yml") && all.matches("cvs/x") && all.matches(".gitkeep"));
    }

    fn scan(glob: &Glob, dir: &Path) -> Vec<String> {
        glob.list(dir, &go_on).unwrap().iter().map(|path| path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn results_are_in_the_order_of_whole_paths() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["a/b", "a.txt", "a-b", "a0", "b/c/d", "b/c.d", "empty/"]);
        let names = scan(&Glob::new("", None, PLAIN), temp.path());
        assert_eq!(names, ["a-b", "a.txt", "a/b", "a0", "b/c.d", "b/c/d"]);
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(names, sorted);
    }

    #[test]
    fn links_are_followed_or_do_not_exist() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("ws");
        tree(temp.path(), &["ws/a/f", "outside/o"]);
        symlink("../outside", dir.join("out")).unwrap();
        symlink("a/f", dir.join("file")).unwrap();
        symlink("nowhere", dir.join("dangling")).unwrap();
        symlink("ws", temp.path().join("ws-link")).unwrap();
        let never = Options { follow_symlinks: false, ..PLAIN };
        assert_eq!(scan(&Glob::new("**", None, PLAIN), &dir), ["a/f", "dangling", "file", "out/o"]);
        assert_eq!(scan(&Glob::new("**", None, never), &dir), ["a/f"]);
        assert_eq!(scan(&Glob::new("out/*", None, never), &dir), [""; 0]);
        assert_eq!(scan(&Glob::new("a/*", None, PLAIN), &temp.path().join("ws-link")), ["a/f"]);
        assert_eq!(scan(&Glob::new("a/*", None, never), &temp.path().join("ws-link")), [""; 0]);
    }

    #[test]
    fn a_link_that_leads_back_is_entered_five_times() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["f"]);
        symlink(".", temp.path().join("l")).unwrap();
        let found = scan(&Glob::new("**", None, PLAIN), temp.path());
        let expected: Vec<_> = (0..=MAX_LEVELS_OF_SYMLINKS).map(|depth| "l/".repeat(depth) + "f").collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn only_directories_that_can_hold_matches_are_read() {
        let glob = Glob::new("src/*/main/**, *.txt", Some("src/gen/, **/.git/**"), PLAIN);
        for (dir, enters) in [
            ("src", true),
            ("src/a", true),
            ("src/a/main/b/c", true),
            ("src/a/test", false),
            ("src/gen", false),
            ("src/a/main/.git", false),
            ("doc", false),
        ] {
            let parts: Vec<&str> = dir.split('/').collect();
            assert_eq!(glob.enters(&parts), enters, "{dir}");
        }
    }

    #[test]
    fn a_list_needs_relative_patterns() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["a.txt", "b~"]);
        assert_eq!(list(temp.path(), "*", None, true, &go_on).unwrap(), [Path::new("a.txt")]);
        assert_eq!(list(temp.path(), "*", Some("a*"), false, &go_on).unwrap(), [Path::new("b~")]);
        for pattern in ["/tmp/*", "C:\\x", "d:/x"] {
            let message = list(temp.path(), pattern, None, true, &go_on).unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("Expecting Ant GLOB pattern, but saw '{pattern}'. See ")),
                "{message}"
            );
        }
    }

    #[test]
    fn what_cannot_be_scanned() {
        let temp = tempfile::tempdir().unwrap();
        tree(temp.path(), &["f", "g"]);
        let glob = Glob::new("**", None, PLAIN);
        assert_eq!(glob.list(&temp.path().join("no"), &go_on).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(glob.list(&temp.path().join("f"), &go_on).unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert!(glob.list(temp.path(), &|| true).unwrap_err().is_interrupted());
    }

    /// `match_path` by its definition.
    fn reference(pattern: &[String], path: &[&str]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((first, rest)) if first == DEEP => (0..=path.len()).any(|skip| reference(rest, &path[skip..])),
            Some((first, rest)) => path.split_first().is_some_and(|(name, below)| {
                let (p, n): (Vec<char>, Vec<char>) = (first.chars().collect(), name.chars().collect());
                reference_name(&p, &n) && reference(rest, below)
            }),
        }
    }

    fn reference_name(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|skip| reference_name(rest, &name[skip..])),
            Some((c, rest)) => {
                name.split_first().is_some_and(|(n, below)| (*c == '?' || c == n) && reference_name(rest, below))
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn matching_is_what_it_is_defined_to_be(
            pattern in prop::collection::vec(prop_oneof![Just("**".to_owned()), "[ab*?]{1,4}"], 1..6),
            path in prop::collection::vec("[ab]{1,4}", 0..6),
        ) {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            prop_assert_eq!(match_path(&pattern, &path, true), reference(&pattern, &path));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Leaving out directories does not lose files.
        #[test]
        fn a_scan_finds_all_that_matches(
            files in prop::collection::btree_set("[ab]{1,2}(/[ab]{1,2}){0,3}", 0..12),
            includes in prop::collection::vec("(\\*\\*|[ab*]{1,2})(/(\\*\\*|[ab?*]{1,2})){0,3}/?", 1..3),
            excludes in prop::collection::vec("(\\*\\*|[ab*]{1,2})(/(\\*\\*|[ab?*]{1,2})){0,3}/?", 0..3),
        ) {
            let temp = tempfile::tempdir().unwrap();
            let mut made = Vec::new();
            for file in &files {
                let path = temp.path().join(file);
                if path.is_dir() || fs::create_dir_all(path.parent().unwrap()).is_err() {
                    continue;
                }
                fs::write(path, "").unwrap();
                made.push(file.clone());
            }
            let glob = Glob::new(&includes.join(","), Some(&excludes.join(",")), PLAIN);
            let expected: Vec<_> = made.into_iter().filter(|file| glob.matches(file)).collect();
            prop_assert_eq!(scan(&glob, temp.path()), expected);
        }
    }
}
