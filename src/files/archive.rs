//! Writing archives: `hudson.util.io.TarArchiver` and `ZipArchiver`, as visitors of a [`super::scan::DirScanner`].
//!
//! Archives are written as a stream, in constant memory (a zip's table of contents aside). File names are the bytes
//! that the file system has, which are UTF-8 as a rule (and what controllers since 2.449 ask for). If an archiver is
//! dropped before `finish`, for instance because a file could not be read, the stream ends without an end mark and
//! without a gzip trailer, so that no reader takes it for complete.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flate2::write::GzEncoder;
use rustix::fs::OFlags;
use tar::{Builder, EntryType, Header};
use zip::write::{FullFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::scan::{DirScanner, Visitor};
use super::{At, BUFFER, Cancel, Error, Result, check};
use crate::calendar;

/// `FilePath.TarCompression`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// A gzip'd tar, at the default level (6).
    Gzip,
}

/// Writes what the scanner finds below `dir` as a tar and answers how many entries that were
/// (`FilePath.writeToTar`, and `archive` with an `ArchiverFactory.TAR`).
pub fn tar(
    dir: &Path,
    scanner: &DirScanner,
    compression: Compression,
    out: &mut dyn Write,
    cancel: Cancel<'_>,
) -> Result<u64> {
    let mut archiver = TarArchiver::new(out, compression, cancel);
    scanner.scan(dir, &mut archiver, cancel)?;
    Ok(archiver.finish()?.1)
}

/// Writes what the scanner finds below `dir` as a zip and answers how many entries that were.
pub fn zip(
    dir: &Path,
    scanner: &DirScanner,
    prefix: &str,
    no_follow: bool,
    out: &mut dyn Write,
    cancel: Cancel<'_>,
) -> Result<u64> {
    let mut archiver = ZipArchiver::new(out, prefix, no_follow, cancel);
    scanner.scan(dir, &mut archiver, cancel)?;
    Ok(archiver.finish()?.1)
}

/// Passes data on until the archive is given up, since encoders complete what they write when they are dropped.
struct Gate<W> {
    out: W,
    shut: Arc<AtomicBool>,
}

impl<W: Write> Write for Gate<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.shut.load(Ordering::Relaxed) { Ok(data.len()) } else { self.out.write(data) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.shut.load(Ordering::Relaxed) { Ok(()) } else { self.out.flush() }
    }
}

/// Shuts the gate when dropped. Declared before the encoder in a struct, it is dropped first.
struct Shutter(Arc<AtomicBool>);

impl Drop for Shutter {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

enum Sink<W: Write> {
    Plain(BufWriter<Gate<W>>),
    Gzip(Box<GzEncoder<Gate<W>>>),
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Sink::Plain(out) => out.write(data),
            Sink::Gzip(out) => out.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(out) => out.flush(),
            Sink::Gzip(out) => out.flush(),
        }
    }
}

/// Writes a tar (`hudson.util.io.TarArchiver`) with GNU's long names and base-256 numbers, as `LONGFILE_GNU` and
/// `BIGNUMBER_STAR` have it there. Owner and group are 0 and nameless.
pub struct TarArchiver<'a, W: Write> {
    shutter: Shutter,
    tar: Builder<Sink<W>>,
    entries: u64,
    cancel: Cancel<'a>,
}

const WRITE_TAR: &str = "write the tar stream";

impl<'a, W: Write> TarArchiver<'a, W> {
    /// An archive that is written to `out`.
    pub fn new(out: W, compression: Compression, cancel: Cancel<'a>) -> TarArchiver<'a, W> {
        let shutter = Shutter(Arc::default());
        let gate = Gate { out, shut: shutter.0.clone() };
        let sink = match compression {
            Compression::None => Sink::Plain(BufWriter::with_capacity(BUFFER, gate)),
            Compression::Gzip => Sink::Gzip(Box::new(GzEncoder::new(gate, flate2::Compression::default()))),
        };
        TarArchiver { shutter, tar: Builder::new(sink), entries: 0, cancel }
    }

    /// Completes the archive; answers the stream and the number of entries (`Archiver.countEntries`).
    pub fn finish(self) -> Result<(W, u64)> {
        let TarArchiver { shutter, tar, entries, .. } = self;
        let sink = tar.into_inner().map_err(|error| Error::stream(WRITE_TAR, error))?;
        let gate = match sink {
            Sink::Plain(out) => out.into_inner().map_err(io::IntoInnerError::into_error),
            Sink::Gzip(out) => out.finish(),
        };
        let mut gate = gate.map_err(|error| Error::stream(WRITE_TAR, error))?;
        gate.flush().map_err(|error| Error::stream(WRITE_TAR, error))?;
        drop(shutter);
        Ok((gate.out, entries))
    }

    /// Writes an entry, whose data must be as long as the header says.
    fn entry(&mut self, header: &mut Header, name: &[u8], data: impl Read) -> Result<()> {
        self.text(EntryType::GNULongName, name, &mut header.as_old_mut().name)?;
        self.append(header, data)?;
        self.entries += 1;
        Ok(())
    }

    /// Fills the field of a name or a link's target, after an entry with the whole text if that is longer.
    ///
    /// [`Builder::append_data`] and [`Builder::append_link`] do the same for paths, but would write `a/b` for `a//b` (a
    /// link's text is what `git status` compares) and refuse some long names that are not UTF-8.
    fn text(&mut self, kind: EntryType, text: &[u8], field: &mut [u8; 100]) -> Result<()> {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
        if text.len() < field.len() {
            return Ok(());
        }
        let mut header = header(kind, 0o644, 0, text.len() as u64 + 1);
        header.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
        self.append(&mut header, text.chain(&[0][..]))
    }

    fn append(&mut self, header: &mut Header, data: impl Read) -> Result<()> {
        header.set_cksum();
        let result = self.tar.append(header, data);
        result.map_err(|error| error.downcast().unwrap_or_else(|error| Error::stream(WRITE_TAR, error)))
    }
}

/// The contents of a file, of the size that its header says. Errors carry an [`Error`].
struct Contents<'a> {
    file: &'a Path,
    input: io::Take<File>,
    size: u64,
    cancel: Cancel<'a>,
}

impl Read for Contents<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check(self.cancel, "archive", self.file).map_err(io::Error::other)?;
        match self.input.read(buffer) {
            Ok(0) if self.input.limit() > 0 && !buffer.is_empty() => Err(io::Error::other(Error::Changed(format!(
                "{} became shorter while it was archived: it ended at {} of the {} bytes that it had",
                self.file.display(),
                self.size - self.input.limit(),
                self.size
            )))),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(io::Error::other(Error::io("read", self.file, error)))
            }
            result => result,
        }
    }
}

/// A header that lacks only names and checksum.
fn header(kind: EntryType, mode: u32, mtime: i64, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    match u64::try_from(mtime) {
        Ok(mtime) => header.set_mtime(mtime),
        // The library knows no time before 1970: base-256, two's complement.
        Err(_) => {
            let field = &mut header.as_old_mut().mtime;
            field.fill(0xff);
            field[4..].copy_from_slice(&mtime.to_be_bytes());
        }
    }
    header
}

impl<W: Write> Visitor for TarArchiver<'_, W> {
    fn understands_symlink(&self) -> bool {
        true
    }

    /// A file that grows meanwhile is archived with the size that it had when it was opened; one that shrinks is an
    /// error, as in Java.
    fn visit(&mut self, file: &Path, relative: &Path) -> Result<()> {
        let meta = fs::metadata(file).at("archive", file)?;
        let mut name = entry_name(relative);
        if meta.is_dir() {
            name.push(b'/');
            self.entry(&mut header(EntryType::Directory, meta.mode() & 0o777, meta.mtime(), 0), &name, io::empty())
        } else {
            let (input, meta) = open_regular(file, &meta, false)?;
            let size = meta.len();
            let mut header = header(EntryType::Regular, meta.mode() & 0o777, meta.mtime(), size);
            let contents = Contents { file, input: input.take(size), size, cancel: self.cancel };
            self.entry(&mut header, &name, BufReader::with_capacity(BUFFER, contents))
        }
    }

    fn visit_symlink(&mut self, link: &Path, target: &Path, relative: &Path) -> Result<()> {
        let own = fs::symlink_metadata(link).at("archive", link)?;
        // `IOUtils.mode` follows the link; a dangling one has `TarEntry.DEFAULT_FILE_MODE`.
        let mode = fs::metadata(link).map_or(0o100_644, |meta| meta.mode() & 0o777);
        let mut header = header(EntryType::Symlink, mode, own.mtime(), 0);
        self.text(EntryType::GNULongLink, target.as_os_str().as_bytes(), &mut header.as_old_mut().linkname)?;
        self.entry(&mut header, &entry_name(relative), io::empty())
    }
}

/// `TarEntry.normalizeFileName`: names in an archive don't begin with `/`.
fn entry_name(relative: &Path) -> Vec<u8> {
    let bytes = relative.as_os_str().as_bytes();
    let start = bytes.iter().position(|&byte| byte != b'/').unwrap_or(bytes.len());
    bytes[start..].to_vec()
}

/// Opens what has contents. A named pipe or device would block or never end.
fn open_regular(file: &Path, meta: &fs::Metadata, no_follow: bool) -> Result<(File, fs::Metadata)> {
    let special = || {
        Error::io("archive", file, io::Error::new(io::ErrorKind::Unsupported, "neither a file, a directory nor a link"))
    };
    if !meta.is_file() && !meta.is_symlink() {
        return Err(special());
    }
    let mut flags = OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, no_follow);
    let input = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(file).at("open", file)?;
    let meta = input.metadata().at("open", file)?;
    if !meta.is_file() {
        return Err(special());
    }
    Ok((input, meta))
}

/// Writes a zip (`hudson.util.io.ZipArchiver`): deflated, with Unix modes, links followed.
///
/// Times have two seconds' precision and are written as UTC, plus the extended timestamp that says so; Java writes its
/// local time.
pub struct ZipArchiver<'a, W: Write> {
    shutter: Shutter,
    zip: ZipWriter<StreamWriter<Gate<W>>>,
    prefix: String,
    no_follow: bool,
    buffer: Vec<u8>,
    entries: u64,
    cancel: Cancel<'a>,
}

const WRITE_ZIP: &str = "write the zip stream";
/// Header id of the extended timestamp (Info-ZIP's `UT`).
const EXTENDED_TIMESTAMP: u16 = 0x5455;

impl<'a, W: Write> ZipArchiver<'a, W> {
    /// An archive that is written to `out`, with `prefix` and a `/` in front of each name if it is not blank.
    ///
    /// With `no_follow` a file that is a link is an error (`LinkOption.NOFOLLOW_LINKS`).
    pub fn new(out: W, prefix: &str, no_follow: bool, cancel: Cancel<'a>) -> ZipArchiver<'a, W> {
        let shutter = Shutter(Arc::default());
        let gate = Gate { out, shut: shutter.0.clone() };
        let mut prefix = prefix.trim().to_owned();
        if !prefix.is_empty() && !prefix.ends_with('/') {
            prefix.push('/');
        }
        let zip = ZipWriter::new_stream(gate);
        ZipArchiver { shutter, zip, prefix, no_follow, buffer: vec![0; BUFFER], entries: 0, cancel }
    }

    /// Completes the archive; answers the stream and the number of entries.
    pub fn finish(self) -> Result<(W, u64)> {
        let ZipArchiver { shutter, zip, entries, .. } = self;
        let mut gate = zip.finish().map_err(zip_error)?.into_inner();
        gate.flush().map_err(|error| Error::stream(WRITE_ZIP, error))?;
        drop(shutter);
        Ok((gate.out, entries))
    }
}

impl<W: Write> Visitor for ZipArchiver<'_, W> {
    fn visit(&mut self, file: &Path, relative: &Path) -> Result<()> {
        let name = format!("{}{}", self.prefix, relative.to_string_lossy().replace('\\', "/"));
        let meta = fs::metadata(file).at("archive", file)?;
        if meta.is_dir() {
            self.zip.add_directory(name, options(&meta)?).map_err(zip_error)?;
        } else {
            let (mut input, meta) = open_regular(file, &meta, self.no_follow)?;
            self.zip.start_file(name, options(&meta)?).map_err(zip_error)?;
            loop {
                check(self.cancel, "archive", file)?;
                match input.read(&mut self.buffer) {
                    Ok(0) => break,
                    Ok(got) => {
                        self.zip.write_all(&self.buffer[..got]).map_err(|error| Error::stream(WRITE_ZIP, error))?;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Error::io("read", file, error)),
                }
            }
        }
        self.entries += 1;
        Ok(())
    }
}

fn options(meta: &fs::Metadata) -> Result<FullFileOptions<'static, 'static>> {
    let mut options = FullFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(6))
        .unix_permissions(meta.mode() & 0o777)
        .last_modified_time(dos_time(meta.mtime()))
        // A margin for a file that grows.
        .large_file(meta.len() >= u64::from(u32::MAX) / 2);
    if let Ok(seconds) = i32::try_from(meta.mtime()) {
        let mut field = vec![1];
        field.extend(seconds.to_le_bytes());
        options.add_extra_field(EXTENDED_TIMESTAMP, field, false).map_err(zip_error)?;
    }
    Ok(options)
}

fn zip_error(error: zip::result::ZipError) -> Error {
    Error::stream(WRITE_ZIP, error)
}

/// Seconds since 1970 as the date of a zip entry, which knows the years 1980 to 2107.
fn dos_time(seconds: i64) -> DateTime {
    const DAY: i64 = 86_400;
    let (days, time) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    let (year, month, day) = calendar::date(days);
    let civil = u16::try_from(year).ok().and_then(|year| {
        DateTime::from_date_and_time(year, month, day, (time / 3600) as u8, (time / 60 % 60) as u8, (time % 60) as u8)
            .ok()
    });
    civil.unwrap_or_default()
}
