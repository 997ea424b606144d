//! Java values that file callables are made of, as Rust types, and what they answer with.

use std::path::{Path, PathBuf};

use crate::callables::{Throw, ThrowClass, plain};
use crate::channel::Cancelled;
use crate::files::archive::Compression;
use crate::files::links::{has_symlink, is_in_tmp_dir};
use crate::files::scan::DirScanner;
use crate::files::{self, Error};
use crate::object::{AccessError, FromJava, Graph, NodeId, Value, View, sc};

/// A `hudson.FilePath` in a request: a path of this agent's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FilePath {
    pub(crate) remote: String,
}

impl FilePath {
    pub(crate) fn read(object: View<'_>) -> Result<FilePath, AccessError> {
        Ok(FilePath { remote: object.require_string("remote")?.into_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.remote)
    }

    /// `FilePath.getName`.
    pub(crate) fn name(&self) -> &str {
        let text = self.remote.strip_suffix(['/', '\\']).unwrap_or(&self.remote);
        text.rsplit(['/', '\\']).next().unwrap_or_default()
    }
}

impl<'g> FromJava<'g> for FilePath {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        FilePath::read(object.require(name)?)
    }
}

impl<'g> FromJava<'g> for Option<FilePath> {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        object.get(name)?.map(FilePath::read).transpose()
    }
}

/// A `hudson.FilePath` for an answer. It says that the path is its sender's (`FilePath.writeObject`).
pub(crate) fn build_file_path(graph: &mut Graph, path: &Path) -> NodeId {
    let fields = [("remote", "Ljava/lang/String;"), ("urlFactory", "Lhudson/FilePath$UrlFactory;")];
    let desc = graph.class_desc("hudson.FilePath", 1, sc::SERIALIZABLE | sc::WRITE_METHOD, &fields, None);
    let remote = graph.string(&file(path));
    graph.object(desc).set_ref("remote", remote).annotate_bytes(desc, vec![1]).build()
}

/// `File.getPath`: without doubled or trailing slashes.
pub(crate) fn file(path: &Path) -> String {
    path.components().collect::<PathBuf>().to_string_lossy().into_owned()
}

/// `File.getAbsolutePath`.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Throw> {
    Ok(std::path::absolute(path)?)
}

impl<'g> FromJava<'g> for Compression {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        match object.require(name)?.constant()?.as_ref() {
            "NONE" => Ok(Compression::None),
            "GZIP" => Ok(Compression::Gzip),
            other => Err(object.error(format!("field {name} is {other}, which is no known compression"))),
        }
    }
}

/// An `OpenOption[]`; what is not known has no effect on reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenOptions {
    /// `LinkOption.NOFOLLOW_LINKS`
    pub(crate) no_follow: bool,
    /// `FilePath.DisplayOption.IGNORE_TMP_DIRS`
    pub(crate) ignore_tmp_dirs: bool,
}

impl<'g> FromJava<'g> for OpenOptions {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        let mut options = OpenOptions::default();
        let Some(array) = object.get(name)? else { return Ok(options) };
        for option in array.elements()?.flatten() {
            match option.constant()?.as_ref() {
                "NOFOLLOW_LINKS" => options.no_follow = true,
                "IGNORE_TMP_DIRS" => options.ignore_tmp_dirs = true,
                _ => {}
            }
        }
        Ok(options)
    }
}

crate::java_class! {
    /// What a user who looks at a workspace may not be shown. Many classes have these fields: `noFollowLinks` up to
    /// core 2.393, `openOptions` since.
    pub(crate) struct Restrictions {
        verification_root: Option<String> = "verificationRoot",
        no_follow_links: bool = "noFollowLinks",
        open_options: OpenOptions = "openOptions",
    }
}

impl Restrictions {
    pub(crate) fn no_follow(&self) -> bool {
        self.no_follow_links || self.open_options.no_follow
    }

    pub(crate) fn ignore_tmp_dirs(&self) -> bool {
        self.open_options.ignore_tmp_dirs
    }

    pub(crate) fn root(&self) -> Option<&Path> {
        self.verification_root.as_deref().map(Path::new)
    }

    /// `FilePath.isSymlink(File, String, OpenOption...)`
    pub(crate) fn is_symlink(&self, file: &Path) -> bool {
        self.no_follow() && has_symlink(file, self.root())
    }

    /// `FilePath.isTmpDir(File, String, OpenOption...)`
    pub(crate) fn is_tmp_dir(&self, file: &Path) -> bool {
        self.ignore_tmp_dirs() && is_in_tmp_dir(file, self.root())
    }
}

crate::java_class! {
    /// `hudson.util.DirScanner$Glob`. How links are treated is read apart.
    struct GlobScanner {
        includes: Option<String> = "includes",
        excludes: Option<String> = "excludes",
        use_default_excludes: bool = "useDefaultExcludes",
        open_options: OpenOptions = "openOptions",
    }
}

impl<'g> FromJava<'g> for DirScanner {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        let scanner = object.require(name)?;
        match scanner.class_name().as_ref() {
            "hudson.util.DirScanner$Full" => Ok(DirScanner::Full),
            "hudson.util.DirScanner$Glob" => {
                let glob = GlobScanner::read(scanner)?;
                // The field is there from core 2.275 to 2.393; without any of the two, links are followed.
                let follow_symlinks = match scanner.field("followSymlinks") {
                    Some(Value::Bool(follow)) => follow,
                    _ => !glob.open_options.no_follow,
                };
                Ok(DirScanner::Glob {
                    includes: glob.includes,
                    excludes: glob.excludes,
                    default_excludes: glob.use_default_excludes,
                    follow_symlinks,
                })
            }
            "hudson.FilePath$ExplicitlySpecifiedDirScanner" => {
                let files = scanner.require("files")?.string_map()?;
                let named = files.into_iter().map(|(archived, file)| match file {
                    Some(file) => Ok((archived, file)),
                    None => Err(scanner.error(format!("{archived} names no file"))),
                });
                Ok(DirScanner::Explicit(named.collect::<Result<_, _>>()?))
            }
            other => Err(object.error(format!("this agent has no scanner {other}"))),
        }
    }
}

/// A `hudson.util.io.ArchiverFactory`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ArchiverFactory {
    Tar(Compression),
    Zip { prefix: String, no_follow: bool },
}

impl<'g> FromJava<'g> for ArchiverFactory {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        let factory = object.require(name)?;
        let zip = |no_follow| {
            let prefix = factory.string("prefix")?.map(Into::into).unwrap_or_default();
            Ok(ArchiverFactory::Zip { prefix, no_follow })
        };
        match factory.class_name().as_ref() {
            "hudson.util.io.ArchiverFactory$TarArchiverFactory" => {
                Ok(ArchiverFactory::Tar(Compression::from_field(factory, "method")?))
            }
            "hudson.util.io.ArchiverFactory$ZipArchiverFactory" => {
                zip(OpenOptions::from_field(factory, "openOptions")?.no_follow)
            }
            "hudson.util.io.ArchiverFactory$ZipWithoutSymLinksArchiverFactory" => zip(true),
            other => Err(object.error(format!("this agent has no archiver {other}"))),
        }
    }
}

/// A `java.io.FileFilter`: one of those that core has.
#[derive(Debug)]
pub(crate) enum FileFilter {
    All,
    /// `FilePath$DirectoryFilter`
    Directories,
    /// `FilePath$SymlinkRetainingFileFilter`
    Links(Restrictions),
    /// `FilePath$OptionalDiscardingFileFilter`, and up to core 2.393 `FilePath$SymlinkDiscardingFileFilter`
    Allowed(Restrictions),
}

impl FileFilter {
    pub(crate) fn accepts(&self, file: &Path) -> bool {
        match self {
            FileFilter::All => true,
            FileFilter::Directories => file.is_dir(),
            FileFilter::Links(restrictions) => restrictions.is_symlink(file),
            FileFilter::Allowed(restrictions) => !restrictions.is_symlink(file) && !restrictions.is_tmp_dir(file),
        }
    }
}

impl<'g> FromJava<'g> for FileFilter {
    fn from_field(object: View<'g>, name: &str) -> Result<Self, AccessError> {
        let Some(filter) = object.get(name)? else { return Ok(FileFilter::All) };
        match filter.class_name().as_ref() {
            "hudson.FilePath$DirectoryFilter" => Ok(FileFilter::Directories),
            "hudson.FilePath$SymlinkRetainingFileFilter" => Ok(FileFilter::Links(Restrictions::read(filter)?)),
            "hudson.FilePath$OptionalDiscardingFileFilter" | "hudson.FilePath$SymlinkDiscardingFileFilter" => {
                Ok(FileFilter::Allowed(Restrictions::read(filter)?))
            }
            other => Err(object.error(format!("this agent has no file filter {other}"))),
        }
    }
}

/// `File.listFiles`, in the order of the names; `None` if the directory can't be listed.
pub(crate) fn list_files(dir: &Path, filter: &FileFilter) -> Option<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).ok()?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| filter.accepts(file));
    files.sort_unstable();
    Some(files)
}

impl From<Error> for Throw {
    fn from(error: Error) -> Throw {
        if error.is_interrupted() {
            return Throw::interrupted();
        }
        match error {
            Error::Io { path, source, .. } => Throw::file(&source, &path),
            Error::Stream { source, .. } if Cancelled::is_why(&source) => Throw::interrupted(),
            Error::Stream { operation, source } => Throw::io(format!("Failed to {operation}: {}", plain(&source))),
            Error::Argument(message) => Throw::new(ThrowClass::IllegalArgument, message),
            Error::BoundReached { .. } => Throw::new(ThrowClass::Interrupted, error.to_string()),
            Error::Composite { message, errors } => {
                // Java's class for this, `CompositeIOException`, has them all; a build's log is served by the first.
                let throw = Throw::io(message);
                match errors.into_iter().next() {
                    Some(first) => throw.caused_by(first.into()),
                    None => throw,
                }
            }
            Error::Context { context, source } => {
                let cause = Throw::from(*source);
                if cause.class == ThrowClass::Interrupted { cause } else { Throw::io(context).caused_by(cause) }
            }
            other => Throw::io(other.to_string()),
        }
    }
}

/// What `java.io.File` makes of a failure: an `IOException` that does not name the file.
pub(crate) fn old_style(error: Error) -> Throw {
    match error {
        Error::Io { source, .. } => Throw::io(plain(&source)),
        other => other.into(),
    }
}

/// `FilePath.mkdirs(File)`. As `Files.createDirectories`, an error names the first directory that is missing.
pub(crate) fn mkdirs(dir: &Path) -> Result<(), Throw> {
    match files::mkdirs(dir) {
        Ok(_) => Ok(()),
        Err(Error::Io { source, .. }) => {
            let missing = dir.ancestors().take_while(|dir| !dir.exists()).last();
            Err(Throw::file(&source, missing.unwrap_or(dir)))
        }
        Err(error) => Err(error.into()),
    }
}

/// [`mkdirs`] of the directory that a file is in.
pub(crate) fn mkdirs_for(file: &Path) -> Result<(), Throw> {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => mkdirs(parent),
        _ => Ok(()),
    }
}

/// A number of files as Java counts them.
pub(crate) fn count(files: u64) -> i32 {
    i32::try_from(files).unwrap_or(i32::MAX)
}
