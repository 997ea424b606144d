//! Callables that change files on this node.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use super::charset::Charset;
use super::types::{self, FilePath, absolute, file, mkdirs_for, old_style};
use crate::callables::{Call, Reply, Throw, plain};
use crate::files::scan::DirScanner;
use crate::files::{Error, attributes, copy, links, remove, temp};

pub(super) fn mkdirs(call: &Call) -> Result<Reply, Throw> {
    types::mkdirs(call.path()?)?;
    Ok(call.bool(true))
}

pub(super) fn delete(call: &Call) -> Result<Reply, Throw> {
    remove::remove_file(call.path()?, &|| call.is_cancelled())?;
    Ok(call.null())
}

pub(super) fn delete_contents(call: &Call) -> Result<Reply, Throw> {
    remove::remove_contents(call.path()?, &|| call.is_cancelled())?;
    Ok(call.null())
}

pub(super) fn delete_recursive(call: &Call) -> Result<Reply, Throw> {
    remove::remove_recursive(call.path()?, &|| call.is_cancelled())?;
    Ok(call.null())
}

pub(super) fn delete_suffixes_recursive(call: &Call) -> Result<Reply, Throw> {
    remove::remove_suffixes(call.path()?, &|| call.is_cancelled())?;
    Ok(call.null())
}

crate::java_class! {
    struct Timestamp {
        timestamp: i64 = "timestamp",
    }
}

pub(super) fn touch(call: &Call) -> Result<Reply, Throw> {
    let Timestamp { timestamp } = Timestamp::read(call.view())?;
    let path = call.path()?;
    if !path.exists() {
        create(path)?;
    }
    set_time(path, timestamp)?;
    Ok(call.null())
}

/// Answers null: a message in place of an exception is for Windows only.
pub(super) fn set_last_modified(call: &Call) -> Result<Reply, Throw> {
    let Timestamp { timestamp } = Timestamp::read(call.view())?;
    set_time(call.path()?, timestamp)?;
    Ok(call.null())
}

fn set_time(path: &Path, timestamp: i64) -> Result<(), Throw> {
    attributes::set_last_modified(path, timestamp).map_err(|error| {
        Throw::io(format!("Failed to set the timestamp of {} to {timestamp}", file(path))).caused_by(error.into())
    })
}

crate::java_class! {
    struct Chmod {
        mask: i32 = "mask",
    }
}

pub(super) fn chmod(call: &Call) -> Result<Reply, Throw> {
    let this = Chmod::read(call.view())?;
    attributes::chmod(call.path()?, this.mask).map_err(|error| match error {
        Error::Argument(message) => Throw::io(message),
        error => error.into(),
    })?;
    Ok(call.null())
}

crate::java_class! {
    struct SymlinkTo {
        target: String = "target",
    }
}

/// As in Java, a failure is no exception (`Util.createSymlink`). Java's callable writes it to a listener; here it is
/// logged by the agent.
pub(super) fn symlink_to(call: &Call) -> Result<Reply, Throw> {
    let this = SymlinkTo::read(call.view())?;
    if let Err(error) = links::create_symlink(call.path()?, Path::new(&this.target)) {
        tracing::warn!("ln -s {} {} failed: {error}", this.target, call.path()?.display());
    }
    Ok(call.null())
}

crate::java_class! {
    struct Write {
        encoding: Option<String> = "encoding",
        content: String = "content",
    }
}

pub(super) fn write(call: &Call) -> Result<Reply, Throw> {
    let this = Write::read(call.view())?;
    let charset = match &this.encoding {
        // UnsupportedEncodingException is an IOException with the name as its message.
        Some(name) => Charset::for_name(name)
            .ok_or_else(|| Throw::io(format!("{name}: this agent does not know the character set")))?,
        None => Charset::Utf8,
    };
    let path = call.path()?;
    mkdirs_for(path)?;
    write_text(create(path)?, charset, &this.content)?;
    Ok(call.null())
}

fn write_text(file: File, charset: Charset, text: &str) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, file);
    charset.write(text, &mut out)?;
    out.flush()
}

/// `Files.newOutputStream`
pub(super) fn create(path: &Path) -> Result<File, Throw> {
    File::create(path).map_err(|error| Throw::file(&error, path))
}

crate::java_class! {
    struct CreateTempFile {
        prefix: String = "prefix",
        suffix: Option<String> = "suffix",
    }
}

pub(super) fn create_temp_file(call: &Call) -> Result<Reply, Throw> {
    let this = CreateTempFile::read(call.view())?;
    let (path, _) = temp::create_temp_file(call.path()?, &this.prefix, this.suffix.as_deref()).map_err(old_style)?;
    Ok(call.string(name(&path).as_str()))
}

crate::java_class! {
    struct CreateTextTempFile {
        in_this_directory: bool = "inThisDirectory",
        prefix: String = "prefix",
        suffix: Option<String> = "suffix",
        contents: String = "contents",
    }
}

pub(super) fn create_text_temp_file(call: &Call) -> Result<Reply, Throw> {
    let this = CreateTextTempFile::read(call.view())?;
    let dir = if this.in_this_directory {
        types::mkdirs(call.path()?)?;
        call.path()?.to_owned()
    } else {
        std::env::temp_dir()
    };
    let (path, file) =
        temp::create_temp_file(&dir, &this.prefix, this.suffix.as_deref()).map_err(|error| match error {
            Error::Io { source, .. } => {
                Throw::io(format!("Failed to create a temporary directory in {}", types::file(&dir)))
                    .caused_by(Throw::io(plain(&source)))
            }
            error => error.into(),
        })?;
    write_text(file, Charset::Utf8, &this.contents)?;
    Ok(call.string(&absolute(&path)?.to_string_lossy()))
}

crate::java_class! {
    struct CreateTempDir {
        name: String = "name",
    }
}

pub(super) fn create_temp_dir(call: &Call) -> Result<Reply, Throw> {
    let this = CreateTempDir::read(call.view())?;
    Ok(call.string(&name(&temp::create_temp_dir(call.path()?, &this.name)?)))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

crate::java_class! {
    struct Target {
        target: FilePath = "target",
    }
}

pub(super) fn rename_to(call: &Call) -> Result<Reply, Throw> {
    let this = Target::read(call.view())?;
    copy::rename(call.path()?, this.target.path(), &|| call.is_cancelled())?;
    Ok(call.null())
}

pub(super) fn move_all_children_to(call: &Call) -> Result<Reply, Throw> {
    let this = Target::read(call.view())?;
    copy::move_all_children(call.path()?, this.target.path(), &|| call.is_cancelled())?;
    Ok(call.null())
}

pub(super) fn copy_to_with_permission(call: &Call) -> Result<Reply, Throw> {
    let this = Target::read(call.view())?;
    copy::copy_with_permission(call.path()?, this.target.path(), &|| call.is_cancelled())?;
    Ok(call.null())
}

crate::java_class! {
    struct CopyRecursiveLocal {
        target: FilePath = "target",
        scanner: DirScanner = "scanner",
    }
}

pub(super) fn copy_recursive_local(call: &Call) -> Result<Reply, Throw> {
    let this = CopyRecursiveLocal::read(call.view())?;
    let target: PathBuf = this.target.path().to_owned();
    let count = copy::copy_recursive(&this.scanner, call.path()?, &target, &|| call.is_cancelled())?;
    Ok(call.int(types::count(count)))
}
