//! `hudson.FilePath`: all that a controller does to files, from core 2.263 to today.
//!
//! Each callable is a Rust type with the fields of its Java class, in all the shapes that it has had, and a handler that
//! does what the Java class's `invoke` does. Relative paths are relative to the agent's current directory, as in Java.
//! The platform's character set is UTF-8, which is what the agent answers when asked for it.

mod change;
pub(super) mod charset;
pub(super) mod query;
mod transfer;
pub(super) mod types;

use super::{Call, Entry, Reply, Run, Throw};

/// The callables of `hudson.FilePath`.
pub const ENTRIES: &[Entry] = &[
    core("hudson.FilePath$Absolutize", query::absolutize),
    core("hudson.FilePath$Archive", transfer::archive),
    core("hudson.FilePath$Chmod", change::chmod),
    core("hudson.FilePath$CopyRecursiveLocal", change::copy_recursive_local),
    core("hudson.FilePath$CopyRecursiveRemoteToLocal", transfer::write_to_tar),
    core("hudson.FilePath$CopyTo", transfer::copy_to),
    core("hudson.FilePath$CopyToWithPermission", change::copy_to_with_permission),
    core("hudson.FilePath$CreateTempDir", change::create_temp_dir),
    core("hudson.FilePath$CreateTempFile", change::create_temp_file),
    core("hudson.FilePath$CreateTextTempFile", change::create_text_temp_file),
    core("hudson.FilePath$Delete", change::delete),
    core("hudson.FilePath$DeleteContents", change::delete_contents),
    core("hudson.FilePath$DeleteRecursive", change::delete_recursive),
    core("hudson.FilePath$DeleteSuffixesRecursive", change::delete_suffixes_recursive),
    core("hudson.FilePath$Digest", query::digest),
    core("hudson.FilePath$Exists", query::exists),
    core("hudson.FilePath$GetFreeDiskSpace", query::get_free_disk_space),
    core("hudson.FilePath$GetHomeDirectory", query::get_home_directory),
    core("hudson.FilePath$GetTotalDiskSpace", query::get_total_disk_space),
    core("hudson.FilePath$GetUsableDiskSpace", query::get_usable_disk_space),
    core("hudson.FilePath$HasSymlink", query::has_symlink),
    core("hudson.FilePath$IsDescendant", query::is_descendant),
    core("hudson.FilePath$IsDirectory", query::is_directory),
    Entry { class: "hudson.FilePath$IsUnix", owner: "core", run: Run::Inline(query::is_unix) },
    core("hudson.FilePath$LastModified", query::last_modified),
    core("hudson.FilePath$Length", query::length),
    core("hudson.FilePath$ListFilter", query::list_filter),
    core("hudson.FilePath$ListGlob", query::list_glob),
    core("hudson.FilePath$Mkdirs", change::mkdirs),
    core("hudson.FilePath$Mode", query::mode),
    core("hudson.FilePath$MoveAllChildrenTo", change::move_all_children_to),
    core("hudson.FilePath$OffsetPipeSecureFileCallable", transfer::read_from_offset),
    core("hudson.FilePath$Read", transfer::read),
    core("hudson.FilePath$ReadFromTar", transfer::read_from_tar),
    core("hudson.FilePath$ReadLink", query::read_link),
    core("hudson.FilePath$ReadToString", query::read_to_string),
    core("hudson.FilePath$ReadToTar", transfer::read_from_tar),
    core("hudson.FilePath$RenameTo", change::rename_to),
    core("hudson.FilePath$SetLastModified", change::set_last_modified),
    core("hudson.FilePath$SymlinkTo", change::symlink_to),
    core("hudson.FilePath$ToURI", query::to_uri),
    core("hudson.FilePath$Touch", change::touch),
    core("hudson.FilePath$Unpack", transfer::unpack),
    core("hudson.FilePath$UntarFrom", transfer::untar_from),
    core("hudson.FilePath$UntarLocal", transfer::untar_local),
    core("hudson.FilePath$UntarRemote", transfer::untar_remote),
    core("hudson.FilePath$UnzipFrom", transfer::unzip_from),
    core("hudson.FilePath$UnzipLocal", transfer::unzip_local),
    core("hudson.FilePath$UnzipRemote", transfer::unzip_from),
    core("hudson.FilePath$ValidateAntFileMask", query::validate_ant_file_mask),
    core("hudson.FilePath$Write", change::write),
    core("hudson.FilePath$WritePipe", transfer::write_pipe),
    core("hudson.FilePath$WriteToTar", transfer::write_to_tar),
];

#[cfg(test)]
mod tests;

const fn core(class: &'static str, run: fn(&Call) -> Result<Reply, Throw>) -> Entry {
    Entry { class, owner: "core", run: Run::Blocking(run) }
}
