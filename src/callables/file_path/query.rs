//! Callables that look at files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::types::{FileFilter, Restrictions, absolute, build_file_path, file, list_files};
use crate::callables::{Call, Reply, Throw};
use crate::files::glob::{Glob, Options};
use crate::files::{attributes, links, mask};
use crate::object::sc;
use crate::process::system;

/// `ReadToString` holds a file in memory, here and at the controller: this many bytes at most.
const MAX_TEXT: u64 = 128 << 20;

pub(super) fn absolutize(call: &Call) -> Result<Reply, Throw> {
    Ok(call.string(&absolute(call.path()?)?.to_string_lossy()))
}

pub(super) fn exists(call: &Call) -> Result<Reply, Throw> {
    Ok(call.bool(call.path()?.exists()))
}

pub(super) fn is_directory(call: &Call) -> Result<Reply, Throw> {
    Ok(call.bool(call.path()?.is_dir()))
}

pub(super) fn is_unix(call: &Call) -> Result<Reply, Throw> {
    Ok(call.bool(cfg!(unix)))
}

pub(super) fn last_modified(call: &Call) -> Result<Reply, Throw> {
    Ok(call.long(attributes::last_modified(call.path()?)))
}

pub(super) fn length(call: &Call) -> Result<Reply, Throw> {
    Ok(call.long(attributes::length(call.path()?).cast_signed()))
}

pub(super) fn mode(call: &Call) -> Result<Reply, Throw> {
    Ok(call.int(attributes::mode(call.path()?)?.cast_signed()))
}

/// `File.getFreeSpace` and its kin answer 0 where nothing is known.
fn space(call: &Call, which: fn(attributes::DiskSpace) -> u64) -> Result<Reply, Throw> {
    let bytes = attributes::disk_space(call.path()?).map_or(0, which);
    Ok(call.long(i64::try_from(bytes).unwrap_or(i64::MAX)))
}

pub(super) fn get_free_disk_space(call: &Call) -> Result<Reply, Throw> {
    space(call, |space| space.free)
}

pub(super) fn get_total_disk_space(call: &Call) -> Result<Reply, Throw> {
    space(call, |space| space.total)
}

pub(super) fn get_usable_disk_space(call: &Call) -> Result<Reply, Throw> {
    space(call, |space| space.usable)
}

pub(super) fn get_home_directory(call: &Call) -> Result<Reply, Throw> {
    let home = system::user().home;
    Ok(call.reply(|graph| build_file_path(graph, Path::new(&home))))
}

pub(super) fn digest(call: &Call) -> Result<Reply, Throw> {
    Ok(call.string(&attributes::md5_digest(call.path()?, &|| call.is_cancelled())?))
}

/// The link's target, or null for whatever can't be read as a link (`Util.resolveSymlink`).
pub(super) fn read_link(call: &Call) -> Result<Reply, Throw> {
    match links::read_link(call.path()?) {
        Ok(Some(target)) => Ok(call.string(&target.to_string_lossy())),
        _ => Ok(call.null()),
    }
}

/// Malformed text is decoded with replacement characters, as by cores up to 2.357; later ones throw.
pub(super) fn read_to_string(call: &Call) -> Result<Reply, Throw> {
    let path = call.path()?;
    let mut bytes = Vec::new();
    let input = File::open(path).map_err(|error| Throw::file(&error, path))?;
    input.take(MAX_TEXT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TEXT {
        return Err(Throw::io(format!("{} has more than {MAX_TEXT} bytes, too many for a string", path.display())));
    }
    Ok(call.string(&String::from_utf8_lossy(&bytes)))
}

crate::java_class! {
    struct IsDescendant {
        potential_child_relative_path: String = "potentialChildRelativePath",
    }
}

pub(super) fn is_descendant(call: &Call) -> Result<Reply, Throw> {
    let this = IsDescendant::read(call.view())?;
    Ok(call.bool(links::is_descendant(call.path()?, Path::new(&this.potential_child_relative_path))?))
}

pub(super) fn has_symlink(call: &Call) -> Result<Reply, Throw> {
    Ok(call.bool(Restrictions::read(call.view())?.is_symlink(call.path()?)))
}

pub(super) fn to_uri(call: &Call) -> Result<Reply, Throw> {
    let path = absolute(call.path()?)?;
    let uri = file_uri(&path.to_string_lossy(), path.is_dir());
    Ok(call.reply(|graph| {
        let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
        let fields = [("string", "Ljava/lang/String;")];
        let desc = graph.class_desc("java.net.URI", -6052424284110960213, flags, &fields, None);
        let string = graph.string(&uri);
        graph.object(desc).set_ref("string", string).build()
    }))
}

/// `File.toURI`: what a URI's path can't hold is escaped; characters other than ASCII may stand as they are.
fn file_uri(path: &str, is_dir: bool) -> String {
    let mut uri = String::from("file:");
    for c in path.chars() {
        let kept = if c.is_ascii() {
            c.is_ascii_alphanumeric() || "-_.!~*'(),;:$&+=@/".contains(c)
        } else {
            !c.is_control() && !c.is_whitespace()
        };
        if kept {
            uri.push(c);
        } else {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| uri.push_str(&format!("%{byte:02X}")));
        }
    }
    if is_dir && !uri.ends_with('/') {
        uri.push('/');
    }
    uri
}

crate::java_class! {
    struct ListFilter {
        filter: FileFilter = "filter",
    }
}

pub(super) fn list_filter(call: &Call) -> Result<Reply, Throw> {
    let this = ListFilter::read(call.view())?;
    let files = list_files(call.path()?, &this.filter).unwrap_or_default();
    Ok(call.reply(|graph| {
        let paths: Vec<_> = files.iter().map(|file| Some(build_file_path(graph, file))).collect();
        graph.array_list(&paths)
    }))
}

crate::java_class! {
    struct ListGlob {
        includes: String = "includes",
        excludes: Option<String> = "excludes",
        default_excludes: bool = "defaultExcludes",
    }
}

pub(super) fn list_glob(call: &Call) -> Result<Reply, Throw> {
    let this = ListGlob::read(call.view())?;
    if is_absolute(&this.includes) {
        return Err(Throw::io(format!(
            "Expecting Ant GLOB pattern, but saw '{}'. See https://ant.apache.org/manual/Types/fileset.html for syntax",
            this.includes
        )));
    }
    let dir = call.path()?;
    let options = Options { default_excludes: this.default_excludes, ..Options::default() };
    let names = list(call, dir, &Glob::new(&this.includes, this.excludes.as_deref(), options))?;
    Ok(call.reply(|graph| {
        let paths: Vec<_> = names.iter().map(|name| Some(build_file_path(graph, &dir.join(name)))).collect();
        // Of an array's class nobody compares the serialVersionUID (ObjectStreamClass.initNonProxy).
        graph.array("[Lhudson.FilePath;", 0, &paths)
    }))
}

/// The files that a `FileSet` selects, with `/` in their names. What Ant says of a base directory that is none is an
/// `IOException` (`FilePath.glob`).
pub(in crate::callables) fn list(call: &Call, dir: &Path, glob: &Glob) -> Result<Vec<String>, Throw> {
    // AbstractFileSet.getDirectoryScanner
    if !dir.exists() {
        return Err(Throw::io(format!("{} does not exist.", file(&absolute(dir)?))));
    }
    if !dir.is_dir() {
        return Err(Throw::io(format!("{} is not a directory.", file(&absolute(dir)?))));
    }
    let names = glob.list(dir, &|| call.is_cancelled())?;
    Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

/// `FilePath.isAbsolute`: on Unix, `C:\` or on a Windows share.
fn is_absolute(path: &str) -> bool {
    let bytes = path.as_bytes();
    let drive = matches!(bytes, [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic());
    path.starts_with('/') || path.starts_with("\\\\") || drive
}

crate::java_class! {
    struct ValidateAntFileMask {
        file_masks: String = "fileMasks",
        case_sensitive: bool = "caseSensitive",
        bound: i32 = "bound",
    }
}

pub(super) fn validate_ant_file_mask(call: &Call) -> Result<Reply, Throw> {
    let this = ValidateAntFileMask::read(call.view())?;
    let cancel = || call.is_cancelled();
    let problem = mask::validate_file_mask(call.path()?, &this.file_masks, this.case_sensitive, this.bound, &cancel)?;
    Ok(problem.map_or_else(|| call.null(), |problem| call.string(&problem)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_are_those_of_java() {
        // What `new File(path).toURI()` prints on OpenJDK.
        let cases = [
            ("/tmp/a", false, "file:/tmp/a"),
            ("/tmp", true, "file:/tmp/"),
            ("/", true, "file:/"),
            ("/a b/c%20#?[x]", false, "file:/a%20b/c%2520%23%3F%5Bx%5D"),
            ("/é\u{a0}€", false, "file:/é%C2%A0€"),
            ("/a@b;c=d&e+f$g,h:i", false, "file:/a@b;c=d&e+f$g,h:i"),
        ];
        for (path, is_dir, uri) in cases {
            assert_eq!(file_uri(path, is_dir), uri);
        }
    }

    #[test]
    fn absolute_patterns_are_recognized() {
        for pattern in ["/a", "C:\\a", "c:/a", "\\\\share"] {
            assert!(is_absolute(pattern), "{pattern}");
        }
        for pattern in ["a/b", "**", "C:a", "", "é:/"] {
            assert!(!is_absolute(pattern), "{pattern}");
        }
    }
}
