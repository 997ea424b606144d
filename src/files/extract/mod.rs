//! Extracting archives: `FilePath.readFromTar` and `FilePath.unzip`.
//!
//! **Nothing is written outside of the directory that is extracted to.** Every component of a name is opened from its
//! parent's descriptor without following links, so neither `..`, nor an absolute name, nor a link, be it from the
//! archive or already there, nor a directory that is exchanged meanwhile leads elsewhere. Core, since CVE-2026-33001,
//! refuses to write through links on controllers only, and takes absolute names as relative ones; here both are refused
//! everywhere, and so is any `..`.
//!
//! As in core, a link's target is not looked at when it is created: it may point anywhere, but nothing is written
//! through it. Directories get neither mode nor time, files get both. An existing file is overwritten; a link, a file
//! with other names and (where Java fails) one that can't be written is replaced.

mod root;
pub(crate) mod tar_reader;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::Path;

use flate2::bufread::GzDecoder;
use rustix::fs::{Mode, Timespec, Timestamps, UTIME_OMIT, fchmod, futimens};
use zip::{DateTime, ExtraField, System, ZipArchive};

use self::root::Root;
use self::tar_reader::{Kind, TarReader};
use super::archive::Compression;
use super::temp::unnamed_file;
use super::{At, BUFFER, Cancel, Error, Result, check};
use crate::calendar;

/// How much may follow a tar's end mark to be read; the rest is left in the stream.
const MAX_TRAILER: u64 = 1 << 20;

/// Extracts a tar into `dir`, which is created if it does not exist (`FilePath.readFromTar`).
///
/// `name` is what errors call the archive. GNU long names, pax headers (`path`, `linkpath`, `size`, `mtime`) and
/// base-256 numbers are understood. Hard links are made, where Java makes empty files; sparse files, devices and named
/// pipes are an error.
pub fn untar(name: &str, dir: &Path, input: &mut dyn Read, compression: Compression, cancel: Cancel<'_>) -> Result<()> {
    let result = match compression {
        Compression::None => untar_plain(name, dir, input, cancel),
        Compression::Gzip => untar_plain(name, dir, &mut Gunzip::new(input), cancel),
    };
    result.map_err(|error| Error::Context { context: format!("Failed to extract {name}"), source: Box::new(error) })
}

fn untar_plain(name: &str, dir: &Path, input: &mut dyn Read, cancel: Cancel<'_>) -> Result<()> {
    let mut root = Root::open(dir)?;
    let mut tar = TarReader::new(input);
    let mut buffer = vec![0; BUFFER];
    while let Some(entry) = tar.next_entry()? {
        let shown = String::from_utf8_lossy(&entry.name);
        check(cancel, "extract", &dir.join(&*shown))?;
        let Some(path) = root::components(&entry.name) else {
            return Err(Error::Archive(format!(
                "Tar {name} contains entry that escapes destination directory: {shown}"
            )));
        };
        let Some((last, parents)) = path.split_last() else {
            if entry.kind == Kind::Directory {
                continue;
            }
            return Err(Error::Archive(format!(
                "Tar {name} contains non-directory entry that resolves to base directory: {shown}"
            )));
        };
        match entry.kind {
            Kind::Directory => {
                root.directory(&path)?;
            }
            Kind::Symlink => root.symlink(parents, last, &entry.link)?,
            Kind::HardLink => match root::components(&entry.link) {
                Some(target) if !target.is_empty() => root.hard_link(parents, last, &target)?,
                _ => {
                    return Err(Error::Archive(format!(
                        "Tar {name} contains a hard link {shown} that escapes destination directory: {}",
                        String::from_utf8_lossy(&entry.link)
                    )));
                }
            },
            Kind::File => {
                let (path, mut file) = root.file(parents, last)?;
                loop {
                    check(cancel, "extract", &path)?;
                    let got = tar.read_data(&mut buffer)?;
                    if got == 0 {
                        break;
                    }
                    file.write_all(&buffer[..got]).at("write", &path)?;
                }
                set_attributes(&file, &path, Some(entry.mtime), entry.mode)?;
            }
            Kind::Unsupported(what) => {
                return Err(Error::Archive(format!("Tar {name} contains {what}, which is not supported: {shown}")));
            }
        }
    }
    // For a compressed stream this is where its checksum is compared.
    let rest = &mut tar.into_inner().take(MAX_TRAILER);
    while rest.read(&mut buffer).map_err(|error| Error::stream("read the tar stream", error))? > 0 {
        check(cancel, "extract", dir)?;
    }
    Ok(())
}

/// Extracts a zip from a stream, which is first copied to a temporary file since a zip's table of contents is at its
/// end (`FilePath.unzip`).
pub fn unzip(name: &str, dir: &Path, input: &mut dyn Read, cancel: Cancel<'_>) -> Result<()> {
    let mut file = unnamed_file()?;
    let temporary = std::env::temp_dir();
    let mut buffer = vec![0; BUFFER];
    loop {
        check(cancel, "extract", dir)?;
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => file.write_all(&buffer[..got]).at("write a temporary file in", &temporary)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::stream("read the zip stream", error)),
        }
    }
    file.rewind().at("read a temporary file in", &temporary)?;
    unzip_from(name, dir, file, cancel)
}

/// Extracts a zip file into `dir`, which is created if it does not exist.
///
/// As in Java, a link in a zip becomes a file with the link's text. Modes are set if the archive was made on Unix.
pub fn unzip_file(zip: &Path, dir: &Path, cancel: Cancel<'_>) -> Result<()> {
    let file = File::open(zip).at("open", zip)?;
    unzip_from(&zip.display().to_string(), dir, file, cancel)
}

fn unzip_from(name: &str, dir: &Path, file: File, cancel: Cancel<'_>) -> Result<()> {
    let broken = |error: zip::result::ZipError| match error {
        zip::result::ZipError::Io(source) => Error::stream("read the zip file", source),
        other => Error::Archive(format!("Zip {name} can't be read: {other}")),
    };
    let mut zip = ZipArchive::new(BufReader::with_capacity(BUFFER, file)).map_err(broken)?;
    let mut root = Root::open(dir)?;
    let mut buffer = vec![0; BUFFER];
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(broken)?;
        let raw = entry.name_raw().to_vec();
        let shown = String::from_utf8_lossy(&raw);
        check(cancel, "extract", &dir.join(&*shown))?;
        let is_dir = raw.ends_with(b"/");
        let path = match root::components(&raw) {
            Some(path) if is_dir || !path.is_empty() => path,
            _ => {
                return Err(Error::Archive(format!(
                    "Zip {name} contains illegal file name that breaks out of the target directory: {shown}"
                )));
            }
        };
        if is_dir {
            root.directory(&path)?;
            continue;
        }
        let Some((last, parents)) = path.split_last() else {
            continue;
        };
        let (path, mut file) = root.file(parents, last)?;
        loop {
            check(cancel, "extract", &path)?;
            match entry.read(&mut buffer) {
                Ok(0) => break,
                Ok(got) => file.write_all(&buffer[..got]).at("write", &path)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::Archive(format!("Zip {name} is damaged at {shown}: {error}")));
                }
            }
        }
        let precise = entry.extra_data_fields().find_map(|field| match field {
            ExtraField::ExtendedTimestamp(times) => times.mod_time(),
            _ => None,
        });
        let mtime = match precise {
            // The field is signed.
            Some(seconds) => Some(i64::from(seconds as i32)),
            None => entry.last_modified().map(unix_time),
        };
        let mode = if entry.system() == System::Unix { entry.unix_mode().unwrap_or(0) } else { 0 };
        set_attributes(&file, &path, mtime.map(|seconds| (seconds, 0)), mode)?;
    }
    Ok(())
}

/// Sets time (seconds and nanoseconds) and permissions; a mode without any means that none were recorded.
fn set_attributes(file: &File, path: &Path, mtime: Option<(i64, u32)>, mode: u32) -> Result<()> {
    if let Some((seconds, nanoseconds)) = mtime {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
        };
        futimens(file, &times).at("set the time of", path)?;
    }
    let mode = mode & 0o777;
    if mode != 0 {
        fchmod(file, Mode::from_raw_mode(mode)).at("set the mode of", path)?;
    }
    Ok(())
}

/// A zip entry's date, taken as UTC, in seconds since 1970.
fn unix_time(date: DateTime) -> i64 {
    let days = calendar::days(date.year().into(), date.month().into(), date.day().into());
    days * 86_400 + i64::from(date.hour()) * 3600 + i64::from(date.minute()) * 60 + i64::from(date.second())
}

/// All members of a gzip stream, as `GZIPInputStream` reads them: what follows and is no gzip is ignored.
struct Gunzip<R: Read> {
    member: Option<GzDecoder<BufReader<R>>>,
}

impl<R: Read> Gunzip<R> {
    fn new(input: R) -> Gunzip<R> {
        Gunzip { member: Some(GzDecoder::new(BufReader::with_capacity(BUFFER, input))) }
    }
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, data: &mut [u8]) -> io::Result<usize> {
        if data.is_empty() {
            return Ok(0);
        }
        while let Some(member) = &mut self.member {
            let got = member.read(data)?;
            if got > 0 {
                return Ok(got);
            }
            if let Some(mut input) = self.member.take().map(GzDecoder::into_inner)
                && input.fill_buf()?.starts_with(&[0x1f])
            {
                self.member = Some(GzDecoder::new(input));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests;
