//! pipeline-utility-steps: `zip`, `unzip`, `tar`, `untar`, `tee`, and checksums of files.
//!
//! Its other steps (`findFiles`, `touch`, `readJSON`, ...) use `FilePath`. Unlike the plugin's, a test of a compressed
//! tar looks at the entries too, where Java has reached the end of the file before.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use md5::Md5;
use ring::digest as sha;
use sha2::{Digest, Sha224, Sha512_224, Sha512_256};
use zip::ZipArchive;

use super::file_path::query::list;
use super::file_path::types::{FilePath, absolute, count, file, mkdirs, mkdirs_for};
use super::listener::Listener;
use super::{Call, Entry, Reply, Run, Throw, ThrowClass, plain};
use crate::channel::{Sink, remote_output_stream};
use crate::files::archive::{Compression, TarArchiver, ZipArchiver};
use crate::files::attributes;
use crate::files::extract::tar_reader::{Kind, TarReader};
use crate::files::glob::{Glob, Options};
use crate::files::scan::Visitor;
use crate::object::View;

/// Callables of pipeline-utility-steps.
pub const ENTRIES: &[Entry] = &[
    entry("org.jenkinsci.plugins.pipeline.utility.steps.fs.ComputeHashCallable", compute_hash),
    entry("org.jenkinsci.plugins.pipeline.utility.steps.fs.FileSha1Step$ExecutionImpl$ComputeSha1", compute_sha1),
    entry("org.jenkinsci.plugins.pipeline.utility.steps.fs.TeeStep$CreateRemoteStreamCallable", create_remote_stream),
    entry("org.jenkinsci.plugins.pipeline.utility.steps.tar.TarStepExecution$TarItFileCallable", tar),
    entry("org.jenkinsci.plugins.pipeline.utility.steps.tar.UnTarStepExecution$TestTarFileCallable", test_tar),
    entry("org.jenkinsci.plugins.pipeline.utility.steps.tar.UnTarStepExecution$UnTarFileCallable", untar),
    entry("org.jenkinsci.plugins.pipeline.utility.steps.zip.UnZipStepExecution$TestZipFileCallable", test_zip),
    entry("org.jenkinsci.plugins.pipeline.utility.steps.zip.UnZipStepExecution$UnZipFileCallable", unzip),
    entry("org.jenkinsci.plugins.pipeline.utility.steps.zip.ZipStepExecution$ZipItFileCallable", zip),
];

const fn entry(class: &'static str, run: fn(&Call) -> Result<Reply, Throw>) -> Entry {
    Entry { class, owner: "pipeline-utility-steps", run: Run::Blocking(run) }
}

const BUFFER: usize = 64 * 1024;
/// How much text `unzip read: true` may return: the controller keeps it in its memory, and so does this agent.
const MAX_TEXT: u64 = 256 << 20;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

crate::java_class! {
    struct ComputeHash {
        algorithm: String = "hashAlgorithm",
    }
}

fn compute_hash(call: &Call) -> Result<Reply, Throw> {
    let algorithm = ComputeHash::read(call.view())?.algorithm;
    hash(call, &algorithm)
}

fn compute_sha1(call: &Call) -> Result<Reply, Throw> {
    hash(call, "SHA-1")
}

fn hash(call: &Call, algorithm: &str) -> Result<Reply, Throw> {
    let path = call.path()?;
    if !path.is_file() {
        return Ok(call.null());
    }
    let Some(mut digest) = Hash::new(algorithm) else {
        return Err(Throw::io(format!("{algorithm} MessageDigest not available")));
    };
    let mut input = open(path)?;
    copy(call, &mut input, &mut digest)?;
    Ok(call.string(&digest.finish()))
}

/// A `java.security.MessageDigest`.
enum Hash {
    Ring(Box<sha::Context>),
    Other(Box<dyn sha2::digest::DynDigest>),
}

impl Hash {
    /// By its Java name, in any case.
    fn new(algorithm: &str) -> Option<Hash> {
        let ring = |algorithm| Some(Hash::Ring(Box::new(sha::Context::new(algorithm))));
        match algorithm.to_ascii_uppercase().as_str() {
            "SHA-1" | "SHA1" | "SHA" => ring(&sha::SHA1_FOR_LEGACY_USE_ONLY),
            "SHA-256" => ring(&sha::SHA256),
            "SHA-384" => ring(&sha::SHA384),
            "SHA-512" => ring(&sha::SHA512),
            "SHA-224" => Some(Hash::Other(Box::new(Sha224::new()))),
            "SHA-512/224" => Some(Hash::Other(Box::new(Sha512_224::new()))),
            "SHA-512/256" => Some(Hash::Other(Box::new(Sha512_256::new()))),
            "MD5" => Some(Hash::Other(Box::new(Md5::new()))),
            _ => None,
        }
    }

    fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Hash::Ring(context) => hex(context.finish().as_ref()),
            Hash::Other(digest) => hex(&digest.finalize()),
        }
    }
}

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Hash::Ring(context) => context.update(bytes),
            Hash::Other(digest) => digest.update(bytes),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies until the end, or until the call is cancelled.
fn copy(call: &Call, input: &mut dyn Read, out: &mut dyn Write) -> Result<(), Throw> {
    let mut buffer = vec![0; BUFFER];
    loop {
        if call.is_cancelled() {
            return Err(Throw::interrupted());
        }
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(got) => out.write_all(&buffer[..got])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Throw::io(plain(&error))),
        }
    }
}

/// `new FileInputStream(file)`
fn open(path: &Path) -> Result<File, Throw> {
    let failed = |error: io::Error| format!("{} ({})", file(path), plain(&error));
    File::open(path).map_err(|error| Throw::new(ThrowClass::FileNotFound, failed(error)))
}

fn create_remote_stream(call: &Call) -> Result<Reply, Throw> {
    let path = absolute(call.path()?)?;
    mkdirs_for(&path)?;
    let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|error| Throw::file(&error, &path))?;
    let oid = call.link().export_output(Box::new(AppendSink(file)));
    Ok(call.reply(|graph| remote_output_stream(graph, oid)))
}

/// A file that the controller appends to.
struct AppendSink(File);

impl Sink for AppendSink {
    fn write(&mut self, data: &[u8]) -> io::Result<()> {
        self.0.write_all(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>, _: Option<String>) -> io::Result<()> {
        Ok(())
    }
}

crate::java_class! {
    /// `ZipItFileCallable` and `TarItFileCallable`.
    struct Compress<'g> {
        /// Since 2.10.
        destination: Option<View<'g>> = "destination",
        zip_file: Option<View<'g>> = "zipFile",
        glob: Option<String> = "glob",
        exclude: Option<String> = "exclude",
        overwrite: bool = "overwrite",
        compress: bool = "compress",
        default_excludes: bool = "defaultExcludes",
    }
}

fn zip(call: &Call) -> Result<Reply, Throw> {
    compress(call, |out, _, cancel, scan| {
        let mut archiver = ZipArchiver::new(out, "", false, cancel);
        scan(&mut archiver)?;
        Ok(archiver.finish()?.1)
    })
}

fn tar(call: &Call) -> Result<Reply, Throw> {
    compress(call, |out, compression, cancel, scan| {
        let mut archiver = TarArchiver::new(out, compression, cancel);
        scan(&mut archiver)?;
        Ok(archiver.finish()?.1)
    })
}

/// What gives an archiver the files.
type Scan<'s> = &'s mut dyn FnMut(&mut dyn Visitor) -> Result<(), Throw>;

fn compress(
    call: &Call,
    archive: impl FnOnce(File, Compression, &dyn Fn() -> bool, Scan<'_>) -> Result<u64, Throw>,
) -> Result<Reply, Throw> {
    let this = Compress::read(call.view())?;
    let Some(destination) = this.destination.or(this.zip_file) else {
        return Err(call.view().error("it has no destination").into());
    };
    let destination = absolute(FilePath::read(destination)?.path())?;
    if this.overwrite && destination.exists() {
        let removed = if destination.is_dir() { fs::remove_dir(&destination) } else { fs::remove_file(&destination) };
        removed.map_err(|error| Throw::file(&error, &destination))?;
    }
    mkdirs_for(&destination)?;
    let out = File::create(&destination).map_err(|error| Throw::file(&error, &destination))?;
    let itself = out.metadata()?;
    let glob = this.glob.filter(|glob| !glob.trim().is_empty());
    let options = Options {
        default_excludes: this.default_excludes || call.view().field("defaultExcludes").is_none(),
        ..Options::default()
    };
    let glob = Glob::new(glob.as_deref().unwrap_or("**/*"), this.exclude.as_deref(), options);
    let dir = absolute(call.path()?)?;
    let names = list(call, &dir, &glob)?;
    let compression = if this.compress { Compression::Gzip } else { Compression::None };
    let cancel = || call.is_cancelled();
    let mut scan = |archiver: &mut dyn Visitor| {
        for name in &names {
            let path = dir.join(name);
            // A link is archived as the file that it leads to.
            let path = path.canonicalize().map_err(|error| Throw::file(&error, &path))?;
            let meta = path.metadata().map_err(|error| Throw::file(&error, &path))?;
            if (meta.dev(), meta.ino()) != (itself.dev(), itself.ino()) {
                archiver.visit(&path, Path::new(name))?;
            }
        }
        Ok(())
    };
    Ok(call.int(count(archive(out, compression, &cancel, &mut scan)?)))
}

crate::java_class! {
    /// `UnZipFileCallable` and `UnTarFileCallable`, and those that test archives.
    struct Decompress<'g> {
        destination: Option<View<'g>> = "destination",
        allow_outside: bool = "allowExtractionOutsideDestination",
        listener: Option<View<'g>> = "listener",
        glob: Option<String> = "glob",
        quiet: bool = "quiet",
        keep_permissions: bool = "keepPermissions",
        read_text: bool = "read",
    }
}

/// An archive's entries and where they go.
struct Extraction<'c> {
    call: &'c Call,
    archive: PathBuf,
    /// Absolute.
    destination: Option<PathBuf>,
    allow_outside: bool,
    glob: Option<Glob>,
    quiet: bool,
    log: Listener,
}

impl<'c> Extraction<'c> {
    fn new(call: &'c Call, this: &Decompress<'_>) -> Result<Extraction<'c>, Throw> {
        let destination = this.destination.map(FilePath::read).transpose()?;
        let destination = destination.map(|destination| absolute(destination.path())).transpose()?;
        let glob = this.glob.as_deref().filter(|glob| !glob.trim().is_empty());
        Ok(Extraction {
            call,
            archive: absolute(call.path()?)?,
            destination,
            allow_outside: this.allow_outside,
            glob: glob.map(|glob| Glob::single(glob, true)),
            quiet: this.quiet,
            log: this.listener.map_or_else(|| Ok(Listener::none()), |listener| Listener::open(call, listener))?,
        })
    }

    fn selects(&self, name: &str) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.matches(name))
    }

    /// Where an entry goes: `Err` with the path if that is out of bounds (SECURITY-2169).
    fn target(&self, name: &str) -> Result<PathBuf, PathBuf> {
        let root = self.destination.as_deref().unwrap_or(Path::new("/"));
        let target = normalized(&root.join(name));
        if self.allow_outside {
            return Ok(target);
        }
        match (canonical(root), canonical(&target)) {
            (Some(root), Some(real)) if self.destination.is_some() && real.starts_with(&root) => Ok(target),
            _ => Err(target),
        }
    }

    fn create(&self, name: &str, target: &Path, data: &mut dyn Read) -> Result<(), Throw> {
        if !self.quiet {
            self.log.println(&format!("Extracting: {name} -> {}", target.display()));
        }
        mkdirs_for(target)?;
        let mut out = File::create(target).map_err(|error| Throw::file(&error, target))?;
        copy(self.call, data, &mut out)?;
        Ok(())
    }

    /// The answer to a test: no, and why.
    fn fault(&self, text: &str) -> Result<Reply, Throw> {
        self.log.println(&format!("ERROR: {text}"));
        self.log.finish();
        Ok(self.call.bool(false))
    }
}

fn out_of_bounds(target: &Path) -> Throw {
    Throw::new(ThrowClass::FileNotFound, format!("{} is out of bounds!", target.display()))
}

/// A path without `.` and `..` (`FilePath.normalize`).
fn normalized(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, component| {
        match component {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            other => path.push(other),
        }
        path
    })
}

/// `File.getCanonicalFile` of a normalized path: links resolved, as far as it exists. `None` if a link on the way leads
/// nowhere: what is created there could be anywhere.
fn canonical(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok())?;
    let rest = path.strip_prefix(existing).ok()?;
    Some(existing.canonicalize().ok()?.join(rest))
}

fn open_zip(path: &Path) -> Result<Result<ZipArchive<BufReader<File>>, String>, Throw> {
    let input = BufReader::with_capacity(BUFFER, open(path)?);
    Ok(ZipArchive::new(input).map_err(|error| error.to_string()))
}

fn unzip(call: &Call) -> Result<Reply, Throw> {
    let this = Decompress::read(call.view())?;
    let extraction = Extraction::new(call, &this)?;
    if let Some(destination) = extraction.destination.as_deref().filter(|_| !this.read_text) {
        mkdirs(destination)?;
    }
    let damaged = |problem: String| Throw::io(format!("{}: {problem}", extraction.archive.display()));
    let mut zip = open_zip(&extraction.archive)?.map_err(damaged)?;
    extraction.log.println(&format!("Extracting from {}", extraction.archive.display()));
    let mut texts = BTreeMap::new();
    let mut left = MAX_TEXT;
    let mut files = 0;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| damaged(error.to_string()))?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if !extraction.selects(&name) {
            continue;
        }
        let target = extraction.target(&name).map_err(|target| out_of_bounds(&target))?;
        let is_directory = name.ends_with('/');
        files += i32::from(!is_directory);
        match (is_directory, this.read_text) {
            (true, true) => {}
            (true, false) => mkdirs(&target)?,
            (false, false) => extraction.create(&name, &target, &mut entry)?,
            (false, true) => {
                if !this.quiet {
                    extraction.log.println(&format!("Reading: {name}"));
                }
                let mut text = Vec::new();
                copy(call, &mut entry.by_ref().take(left + 1), &mut text)?;
                left = left.checked_sub(text.len() as u64).ok_or_else(|| {
                    damaged(format!("its files have more than the {} MiB that can be read", MAX_TEXT >> 20))
                })?;
                // Java orders strings by UTF-16 units.
                let key: Vec<u16> = name.encode_utf16().collect();
                texts.insert(key, (name, String::from_utf8_lossy(&text).into_owned()));
            }
        }
    }
    extraction.log.println(&format!("{}: {files} files", if this.read_text { "Read" } else { "Extracted" }));
    extraction.log.finish();
    if !this.read_text {
        return Ok(call.null());
    }
    Ok(call.reply(|graph| {
        let texts = texts.into_values().map(|(name, text)| (graph.string(&name), graph.string(&text)));
        let texts: Vec<_> = texts.collect();
        graph.tree_map(None, &texts)
    }))
}

fn test_zip(call: &Call) -> Result<Reply, Throw> {
    let this = Decompress::read(call.view())?;
    let extraction = Extraction::new(call, &this)?;
    let path = extraction.archive.display();
    let mut zip = match open_zip(&extraction.archive)? {
        Ok(zip) => zip,
        Err(problem) => return extraction.fault(&format!("Error validating zip file: {problem}")),
    };
    extraction.log.println(&format!("Checking {} zipped entries in {path}", zip.len()));
    for index in 0..zip.len() {
        let mut entry = match zip.by_index(index) {
            Ok(entry) => entry,
            Err(problem) => return extraction.fault(&format!("Error validating zip file: {problem}")),
        };
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if name.ends_with('/') {
            continue;
        }
        if extraction.destination.is_some()
            && let Err(target) = extraction.target(&name)
        {
            return extraction.fault(&format!("{} is out of bounds!", target.display()));
        }
        match copy(call, &mut entry, &mut io::sink()) {
            Ok(()) => {}
            Err(throw) if throw.class == ThrowClass::Interrupted => return Err(throw),
            Err(_) => return extraction.fault(&format!("Checksum error in : {path}:{name}")),
        }
    }
    extraction.log.finish();
    Ok(call.bool(true))
}

/// Opens a tar, compressed or not; also answers whether it is empty.
fn open_tar(path: &Path) -> Result<(TarReader<Box<dyn Read>>, bool), Throw> {
    let mut input = BufReader::with_capacity(BUFFER, open(path)?);
    let mut magic = Vec::new();
    input.by_ref().take(GZIP_MAGIC.len() as u64).read_to_end(&mut magic)?;
    input.rewind()?;
    let stream: Box<dyn Read> =
        if magic == GZIP_MAGIC { Box::new(MultiGzDecoder::new(input)) } else { Box::new(input) };
    Ok((TarReader::new(stream), magic.is_empty()))
}

/// The data of the current entry.
struct Data<'t>(&'t mut TarReader<Box<dyn Read>>);

impl Read for Data<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_data(buffer).map_err(io::Error::other)
    }
}

fn untar(call: &Call) -> Result<Reply, Throw> {
    let this = Decompress::read(call.view())?;
    let extraction = Extraction::new(call, &this)?;
    let (mut tar, is_empty) = open_tar(&extraction.archive)?;
    if is_empty {
        extraction.log.println("File is empty.");
    }
    if let Some(destination) = &extraction.destination {
        mkdirs(destination)?;
    }
    extraction.log.println(&format!("Extracting from {}", extraction.archive.display()));
    let mut files = 0;
    while let Some(entry) = tar.next_entry()? {
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        if !extraction.selects(&name) {
            continue;
        }
        let target = extraction.target(&name).map_err(|target| out_of_bounds(&target))?;
        match entry.kind {
            Kind::Directory => mkdirs(&target)?,
            Kind::Unsupported(what) => {
                let archive = extraction.archive.display();
                return Err(Throw::io(format!("{archive}: {name} is {what}, which can't be extracted")));
            }
            // A link becomes an empty file, as in Java.
            Kind::File | Kind::Symlink | Kind::HardLink => {
                files += 1;
                extraction.create(&name, &target, &mut Data(&mut tar))?;
            }
        }
        if this.keep_permissions {
            attributes::chmod(&target, i32::try_from(entry.mode & 0o777).unwrap_or_default())?;
        }
    }
    extraction.log.println(&format!("Extracted: {files} files"));
    extraction.log.finish();
    Ok(call.null())
}

fn test_tar(call: &Call) -> Result<Reply, Throw> {
    let this = Decompress::read(call.view())?;
    let extraction = Extraction::new(call, &this)?;
    let path = &extraction.archive;
    extraction.log.println(&format!("Checking {} bytes in {}", attributes::length(path), path.display()));
    let (mut tar, _) = open_tar(path)?;
    let invalid = |problem: String| extraction.fault(&format!("Error validating tar file: {problem}"));
    loop {
        let entry = match tar.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return invalid(error.to_string()),
        };
        let name = String::from_utf8_lossy(&entry.name).into_owned();
        if extraction.destination.is_some()
            && let Err(target) = extraction.target(&name)
        {
            return extraction.fault(&format!("{} is out of bounds!", target.display()));
        }
        match copy(call, &mut Data(&mut tar), &mut io::sink()) {
            Ok(()) => {}
            Err(throw) if throw.class == ThrowClass::Interrupted => return Err(throw),
            Err(throw) => return invalid(throw.message.unwrap_or_default()),
        }
    }
    extraction.log.finish();
    Ok(call.bool(true))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::sync::Arc;

    use super::*;
    use crate::callables::Agent;
    use crate::callables::testing::ask;
    use crate::files::testing::tree;
    use crate::object::{Graph, Value};

    const STRING: &str = "Ljava/lang/String;";

    /// What `act` of this callable on `path` is answered. `Err` is the class of an exception.
    async fn act(
        path: &Path,
        class: &str,
        destination: Option<&Path>,
        strings: &[(&'static str, &str)],
        flags: &[&'static str],
    ) -> Result<Graph, String> {
        let class = format!("org.jenkinsci.plugins.pipeline.utility.steps.{class}");
        let agent = Arc::new(Agent::new(None, None, None));
        let answer = ask(&agent, |graph| {
            let desc = graph.serializable("hudson.FilePath", 1, &[("remote", STRING)], None);
            let [path, destination] = [Some(path), destination].map(|path| {
                let remote = graph.string(&path?.to_string_lossy());
                Some(graph.object(desc).set_ref("remote", remote).build())
            });
            let mut fields: Vec<_> = flags.iter().map(|flag| (*flag, "Z")).collect();
            fields.push(("destination", "Lhudson/FilePath;"));
            fields.extend(strings.iter().map(|(name, _)| (*name, STRING)));
            let values: Vec<_> = strings.iter().map(|(name, text)| (*name, graph.string(text))).collect();
            let callable = graph.serializable(&class, 1, &fields, None);
            let mut callable = graph.object(callable).set_ref("destination", destination);
            for flag in flags {
                callable = callable.set(flag, Value::Bool(true));
            }
            for (name, value) in values {
                callable = callable.set_ref(name, value);
            }
            let callable = callable.build();
            let fields = [("callable", "Lhudson/FilePath$FileCallable;"), ("filePath", "Lhudson/FilePath;")];
            let desc = graph.serializable("hudson.FilePath$FileCallableWrapper", 1, &fields, None);
            graph.object(desc).set_ref("callable", callable).set_ref("filePath", path).build()
        });
        answer.await
    }

    fn value(answer: Result<Graph, String>) -> Value {
        answer.unwrap().root().unwrap().unboxed().unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let all = Options { default_excludes: false, ..Options::default() };
        let names = Glob::new("**", None, all).list(dir, &|| false).unwrap();
        names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect()
    }

    const ZIP: &str = "zip.ZipStepExecution$ZipItFileCallable";
    const UNZIP: &str = "zip.UnZipStepExecution$UnZipFileCallable";
    const TEST_ZIP: &str = "zip.UnZipStepExecution$TestZipFileCallable";
    const TAR: &str = "tar.TarStepExecution$TarItFileCallable";
    const UNTAR: &str = "tar.UnTarStepExecution$UnTarFileCallable";
    const TEST_TAR: &str = "tar.UnTarStepExecution$TestTarFileCallable";

    #[tokio::test]
    async fn hashes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "abc").unwrap();
        const HASH: &str = "fs.ComputeHashCallable";
        for (algorithm, expected) in [
            ("SHA1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("SHA-1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            ("sha-256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            ("SHA-224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"),
            ("MD5", "900150983cd24fb0d6963f7d28e17f72"),
        ] {
            let answer = act(&file, HASH, None, &[("hashAlgorithm", algorithm)], &[]).await.unwrap();
            assert_eq!(answer.root().unwrap().as_str().unwrap(), expected, "{algorithm}");
        }
        let missing = dir.path().join("missing");
        assert!(act(&missing, HASH, None, &[("hashAlgorithm", "MD5")], &[]).await.unwrap().root().is_none());
        assert!(act(dir.path(), HASH, None, &[("hashAlgorithm", "MD5")], &[]).await.unwrap().root().is_none());
        let unknown = act(&file, HASH, None, &[("hashAlgorithm", "MD7")], &[]).await;
        assert_eq!(unknown.unwrap_err(), "java.io.IOException");
    }

    #[tokio::test]
    async fn archives_there_and_back() {
        type Flags = &'static [&'static str];
        let cases: &[(&str, &str, &str, Flags, &str, &str)] = &[
            (ZIP, UNZIP, TEST_ZIP, &[], "", "a.txt,link.txt,s/b c.txt,s/ü.log"),
            (ZIP, UNZIP, TEST_ZIP, &["defaultExcludes"], "**/*.txt", "a.txt,link.txt,s/b c.txt"),
            (TAR, UNTAR, TEST_TAR, &[], " ", "a.txt,link.txt,s/b c.txt,s/ü.log"),
            (TAR, UNTAR, TEST_TAR, &["compress"], "s/*", "s/b c.txt,s/ü.log"),
        ];
        for (pack, unpack, test, flags, glob, expected) in cases {
            let temp = tempfile::tempdir().unwrap();
            let ws = temp.path().join("ws");
            tree(&ws, &["a.txt", "s/b c.txt", "s/ü.log", "x/excluded", ".git/HEAD", "s/empty/"]);
            symlink("a.txt", ws.join("link.txt")).unwrap();
            // The archive is in the directory that is archived.
            let archive = ws.join("out/archive");
            let strings = [("glob", *glob), ("exclude", "x/**")];
            let answer = act(&ws, pack, Some(&archive), &strings, flags).await;
            assert_eq!(value(answer), Value::Int(expected.split(',').count() as i32), "{pack} {glob}");
            // A second time only if it may be overwritten; it then has the same content.
            let again: Vec<_> = flags.iter().copied().chain(["overwrite"]).collect();
            let answer = act(&ws, pack, Some(&archive), &strings, &again).await;
            assert_eq!(value(answer), Value::Int(expected.split(',').count() as i32), "{pack} {glob}");

            let out = temp.path().join("new/dir");
            assert_eq!(value(act(&archive, test, Some(&out), &[], &[]).await), Value::Bool(true), "{test}");
            let answer = act(&archive, unpack, Some(&out), &[("glob", ""), ("charset", "UTF-8")], &[]).await;
            assert!(answer.unwrap().root().is_none());
            assert_eq!(names(&out).join(","), *expected, "{unpack}");
            assert_eq!(fs::read_to_string(out.join("s/b c.txt")).unwrap(), "s/b c.txt");
            let some = temp.path().join("some");
            let answer = act(&archive, unpack, Some(&some), &[("glob", "**/*c.*"), ("charset", "UTF-8")], &["quiet"]);
            answer.await.unwrap();
            assert_eq!(names(&some), ["s/b c.txt"], "{unpack}");
        }
    }

    #[tokio::test]
    async fn texts_of_a_zip() {
        let temp = tempfile::tempdir().unwrap();
        let ws = temp.path().join("ws");
        tree(&ws, &["b", "a/c"]);
        let archive = temp.path().join("z.zip");
        act(&ws, ZIP, Some(&archive), &[], &[]).await.unwrap();
        let answer = act(&archive, UNZIP, Some(&ws), &[("charset", "UTF-8")], &["read"]).await.unwrap();
        let pair = |name: &str| (name.to_owned(), Some(name.to_owned()));
        assert!(answer.root().unwrap().is("java.util.TreeMap"));
        assert_eq!(answer.root().unwrap().string_map().unwrap(), [pair("a/c"), pair("b")]);
    }

    #[tokio::test]
    async fn permissions_are_kept_if_wanted() {
        let temp = tempfile::tempdir().unwrap();
        let ws = temp.path().join("ws");
        tree(&ws, &["run"]);
        fs::set_permissions(ws.join("run"), fs::Permissions::from_mode(0o754)).unwrap();
        let archive = temp.path().join("t.tar");
        act(&ws, TAR, Some(&archive), &[], &[]).await.unwrap();
        let out = temp.path().join("out");
        act(&archive, UNTAR, Some(&out), &[], &["keepPermissions"]).await.unwrap();
        assert_eq!(fs::metadata(out.join("run")).unwrap().permissions().mode() & 0o777, 0o754);
    }

    /// A zip and a tar with one file of this name.
    fn archives(dir: &Path, name: &str) -> [PathBuf; 2] {
        let [zip, tar] = [dir.join("x.zip"), dir.join("x.tar")];
        let mut writer = zip::ZipWriter::new(File::create(&zip).unwrap());
        writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(b"evil").unwrap();
        writer.finish().unwrap();
        let mut header = tar::Header::new_old();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(4);
        header.set_mode(0o644);
        header.set_cksum();
        let mut builder = tar::Builder::new(File::create(&tar).unwrap());
        builder.append(&header, &b"evil"[..]).unwrap();
        builder.finish().unwrap();
        [zip, tar]
    }

    #[tokio::test]
    async fn nothing_is_written_out_of_bounds() {
        for name in ["../evil", "a/../../evil", "/tmp/evil-of-a-test", "out/evil", "dangling", "dangling/evil"] {
            let temp = tempfile::tempdir().unwrap();
            let ws = temp.path().join("ws");
            tree(temp.path(), &["outside/", "ws/a/"]);
            symlink("../outside", ws.join("out")).unwrap();
            symlink("../outside/new", ws.join("dangling")).unwrap();
            let [zip, tar] = archives(temp.path(), name);
            for (archive, unpack, test) in [(zip, UNZIP, TEST_ZIP), (tar, UNTAR, TEST_TAR)] {
                let strings = [("charset", "UTF-8")];
                let answer = act(&archive, unpack, Some(&ws), &strings, &[]).await;
                assert_eq!(answer.unwrap_err(), "java.io.FileNotFoundException", "{unpack} {name}");
                assert_eq!(value(act(&archive, test, Some(&ws), &[], &[]).await), Value::Bool(false), "{name}");
                assert_eq!(names(&temp.path().join("outside")), [""; 0]);
                assert!(!temp.path().join("evil").exists() && !Path::new("/tmp/evil-of-a-test").exists());
            }
            let [zip, _] = archives(temp.path(), "../evil");
            let allowed = act(&zip, UNZIP, Some(&ws), &[], &["allowExtractionOutsideDestination"]).await;
            assert!(allowed.is_ok() && temp.path().join("evil").exists());
        }
    }

    #[tokio::test]
    async fn damaged_archives() {
        let temp = tempfile::tempdir().unwrap();
        let out = temp.path().join("out");
        let [zip, tar] = archives(temp.path(), "name");
        for (archive, unpack, test) in [(zip, UNZIP, TEST_ZIP), (tar, UNTAR, TEST_TAR)] {
            let good = fs::read(&archive).unwrap();
            let at = good.windows(4).position(|bytes| bytes == b"name").unwrap();
            let mut broken = good.clone();
            broken[at] ^= 1;
            let gzip = [&GZIP_MAGIC[..], b"no gzip"].concat();
            for bytes in [broken, good[..good.len().min(520) / 2].to_vec(), vec![b'x'; 700], gzip] {
                fs::write(&archive, &bytes).unwrap();
                let answer = act(&archive, test, None, &[], &[]).await;
                if unpack == UNTAR || !bytes.windows(4).any(|bytes| bytes == b"PK\x05\x06") {
                    assert_eq!(value(answer), Value::Bool(false), "{test} {}", bytes.len());
                    assert!(act(&archive, unpack, Some(&out), &[], &[]).await.is_err(), "{unpack} {}", bytes.len());
                }
            }
        }
        let empty = temp.path().join("empty");
        fs::write(&empty, "").unwrap();
        assert!(act(&empty, UNTAR, Some(&out), &[], &[]).await.is_ok());
        assert!(act(&empty, UNZIP, Some(&out), &[], &[]).await.is_err());
    }

    #[tokio::test]
    async fn tee_appends_to_a_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("new/log");
        let answer = act(&path, "fs.TeeStep$CreateRemoteStreamCallable", None, &[], &[]).await.unwrap();
        assert!(answer.root().unwrap().is("hudson.remoting.RemoteOutputStream"));
        fs::write(&path, "kept ").unwrap();
        let mut sink = AppendSink(OpenOptions::new().append(true).open(&path).unwrap());
        sink.write(b"added").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept added");
    }
}
