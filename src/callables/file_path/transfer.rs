//! Callables that exchange contents with the controller: streamed, in pieces of [`PIECE`], whatever their size.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::write::GzEncoder;
use rustix::fs::OFlags;

use super::change::create;
use super::types::{ArchiverFactory, FilePath, Restrictions, absolute, count, mkdirs_for};
use crate::callables::{Call, Reply, Throw};
use crate::channel::{RemoteOutput, remote_output_stream};
use crate::files::archive::{Compression, TarArchiver, ZipArchiver};
use crate::files::extract::{untar, unzip, unzip_file};
use crate::files::scan::{DirScanner, Restricted, Visitor};
use crate::object::View;

/// Each write to a stream of the controller's is a command.
const PIECE: usize = 64 * 1024;

type Output = BufWriter<RemoteOutput>;

/// Lets `work` write to a stream of the controller's and closes that. If it failed, so does who reads there.
fn send<T>(call: &Call, stream: View<'_>, work: impl FnOnce(&mut Output) -> Result<T, Throw>) -> Result<T, Throw> {
    let mut out = BufWriter::with_capacity(PIECE, call.output(stream)?);
    let result = work(&mut out).and_then(|value| {
        out.flush()?;
        Ok(value)
    });
    // What a failed call had still buffered is of no use to anybody.
    let (out, _) = out.into_parts();
    let result = interrupted(call, result);
    // An error of this means that the channel is gone, and then nobody waits for anything.
    let _ = match &result {
        Ok(_) => out.close(),
        Err(throw) => out.fail(throw),
    };
    result
}

/// Lets `work` read a stream of the controller's.
fn receive<R: Read, T>(
    call: &Call,
    stream: R,
    work: impl FnOnce(&mut BufReader<R>) -> Result<T, Throw>,
) -> Result<T, Throw> {
    interrupted(call, work(&mut BufReader::with_capacity(PIECE, stream)))
}

/// Whatever fails in a cancelled call fails because of that.
fn interrupted<T>(call: &Call, result: Result<T, Throw>) -> Result<T, Throw> {
    result.map_err(|throw| if call.is_cancelled() { Throw::interrupted() } else { throw })
}

/// `Files.newInputStream`. A named pipe that nobody writes to is empty instead of blocking for ever.
fn open(path: &Path, no_follow: bool) -> Result<File, Throw> {
    let mut flags = OFlags::NONBLOCK;
    flags.set(OFlags::NOFOLLOW, no_follow);
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    file.map_err(|error| Throw::file(&error, path))
}

fn copy(call: &Call, mut input: File, out: &mut impl Write) -> Result<(), Throw> {
    let mut buffer = vec![0; PIECE];
    loop {
        if call.is_cancelled() {
            return Err(Throw::interrupted());
        }
        match input.read(&mut buffer)? {
            0 => return Ok(()),
            got => out.write_all(&buffer[..got])?,
        }
    }
}

crate::java_class! {
    /// `Read`
    struct ReadFile<'g> {
        pipe: View<'g> = "p",
    }
}

/// The pipe carries the file or why there is none; the answer is null either way.
pub(super) fn read(call: &Call) -> Result<Reply, Throw> {
    let this = ReadFile::read(call.view())?;
    let restrictions = Restrictions::read(call.view())?;
    let path = call.path()?;
    let sent = send(call, this.pipe, |out| copy(call, open_allowed(path, &restrictions)?, out));
    if let Err(throw) = sent {
        tracing::debug!("reading {} for the controller: {throw}", path.display());
    }
    Ok(call.null())
}

/// `FilePath.newInputStreamDenyingSymlinkAsNeeded`
fn open_allowed(path: &Path, restrictions: &Restrictions) -> Result<File, Throw> {
    let deny_links = || match restrictions.is_symlink(path) {
        true => Err(Throw::io("Symlinks are prohibited.")),
        false => Ok(()),
    };
    if restrictions.is_tmp_dir(path) {
        return Err(Throw::io("Tmp directory is prohibited."));
    }
    deny_links()?;
    let file = open(path, restrictions.no_follow())?;
    deny_links()?;
    Ok(file)
}

crate::java_class! {
    struct ReadFromOffset<'g> {
        pipe: View<'g> = "p",
        offset: i64 = "offset",
    }
}

/// `FilePath.readFromOffset`: compressed, whatever the file is.
pub(super) fn read_from_offset(call: &Call) -> Result<Reply, Throw> {
    let this = ReadFromOffset::read(call.view())?;
    send(call, this.pipe, |out| {
        let mut input = open(call.path()?, false)?;
        let offset = u64::try_from(this.offset).map_err(|_| Throw::io("Negative seek offset"))?;
        input.seek(SeekFrom::Start(offset))?;
        let mut gzip = GzEncoder::new(out, flate2::Compression::default());
        copy(call, input, &mut gzip)?;
        gzip.finish()?;
        Ok(())
    })?;
    Ok(call.null())
}

crate::java_class! {
    struct CopyTo<'g> {
        out: View<'g> = "out",
    }
}

pub(super) fn copy_to(call: &Call) -> Result<Reply, Throw> {
    let this = CopyTo::read(call.view())?;
    send(call, this.out, |out| copy(call, open(call.path()?, false)?, out))?;
    Ok(call.null())
}

pub(super) fn write_pipe(call: &Call) -> Result<Reply, Throw> {
    let path = absolute(call.path()?)?;
    mkdirs_for(&path)?;
    let oid = call.link().export_output(Box::new(create(&path)?));
    Ok(call.reply(|graph| remote_output_stream(graph, oid)))
}

crate::java_class! {
    struct Archive<'g> {
        factory: ArchiverFactory = "factory",
        out: View<'g> = "out",
        scanner: DirScanner = "scanner",
    }
}

pub(super) fn archive(call: &Call) -> Result<Reply, Throw> {
    let this = Archive::read(call.view())?;
    let restrictions = Restrictions::read(call.view())?;
    let dir = call.path()?;
    let cancel = || call.is_cancelled();
    let scan = |archiver: &mut dyn Visitor| {
        if !restrictions.no_follow() && !restrictions.ignore_tmp_dirs() {
            return this.scanner.scan(dir, archiver, &cancel);
        }
        let mut restricted = Restricted {
            inner: archiver,
            verification_root: restrictions.root().map(Path::to_owned),
            no_follow: restrictions.no_follow(),
            ignore_tmp_dirs: restrictions.ignore_tmp_dirs(),
        };
        this.scanner.scan(dir, &mut restricted, &cancel)
    };
    let entries = send(call, this.out, |out| match &this.factory {
        ArchiverFactory::Tar(compression) => {
            let mut archiver = TarArchiver::new(out, *compression, &cancel);
            scan(&mut archiver)?;
            Ok(archiver.finish()?.1)
        }
        ArchiverFactory::Zip { prefix, no_follow } => {
            let mut archiver = ZipArchiver::new(out, prefix, *no_follow, &cancel);
            scan(&mut archiver)?;
            Ok(archiver.finish()?.1)
        }
    })?;
    Ok(call.int(count(entries)))
}

crate::java_class! {
    struct WriteToTar<'g> {
        pipe: View<'g> = "pipe",
        scanner: DirScanner = "scanner",
        compression: Compression = "compression",
    }
}

/// `WriteToTar` and `CopyRecursiveRemoteToLocal`, which differ only in who uses them. `filenamesEncoding`, where there
/// is one, is UTF-8; up to core 2.448 names are in the platform's character set.
pub(super) fn write_to_tar(call: &Call) -> Result<Reply, Throw> {
    let this = WriteToTar::read(call.view())?;
    let cancel = || call.is_cancelled();
    let entries = send(call, this.pipe, |out| {
        let mut archiver = TarArchiver::new(out, this.compression, &cancel);
        this.scanner.scan(call.path()?, &mut archiver, &cancel)?;
        Ok(archiver.finish()?.1)
    })?;
    Ok(call.int(count(entries)))
}

crate::java_class! {
    struct ReadFromTar<'g> {
        pipe: View<'g> = "pipe",
        description: Option<String> = "description",
        compression: Compression = "compression",
        /// Absent up to core 2.448, where the class is `ReadToTar`.
        target: Option<FilePath> = "target",
    }
}

pub(super) fn read_from_tar(call: &Call) -> Result<Reply, Throw> {
    let this = ReadFromTar::read(call.view())?;
    let dir = call.path()?;
    let target = this.target.map_or_else(|| dir.display().to_string(), |target| target.remote);
    let name = format!("{target}/{}", this.description.as_deref().unwrap_or("null"));
    receive(call, call.pipe_reader(this.pipe)?, |input| {
        Ok(untar(&name, dir, input, this.compression, &|| call.is_cancelled())?)
    })?;
    Ok(call.null())
}

crate::java_class! {
    struct Untar<'g> {
        compression: Compression = "compression",
        input: View<'g> = "in",
        /// Of `UntarRemote`, since core 2.319.
        name: Option<String> = "name",
        /// Of `UntarRemote`, before that: the archive.
        outer: Option<FilePath> = "this$0",
    }
}

pub(super) fn untar_from(call: &Call) -> Result<Reply, Throw> {
    let this = Untar::read(call.view())?;
    untar_stream(call, &this, "input stream")
}

pub(super) fn untar_remote(call: &Call) -> Result<Reply, Throw> {
    let this = Untar::read(call.view())?;
    let name = this.name.as_deref().or(this.outer.as_ref().map(FilePath::name)).unwrap_or("input stream");
    untar_stream(call, &this, name)
}

fn untar_stream(call: &Call, this: &Untar<'_>, name: &str) -> Result<Reply, Throw> {
    let dir = call.path()?;
    receive(call, call.input(this.input)?, |input| {
        Ok(untar(name, dir, input, this.compression, &|| call.is_cancelled())?)
    })?;
    Ok(call.null())
}

crate::java_class! {
    /// The archive is `filePath`; as long as the class was an inner one, the outer instance.
    struct Local {
        file_path: Option<FilePath> = "filePath",
        outer: Option<FilePath> = "this$0",
    }
}

fn local_archive(call: &Call) -> Result<FilePath, Throw> {
    let this = Local::read(call.view())?;
    this.file_path.or(this.outer).ok_or_else(|| call.view().error("field filePath is null or missing").into())
}

crate::java_class! {
    struct UntarLocal {
        compression: Compression = "compression",
    }
}

pub(super) fn untar_local(call: &Call) -> Result<Reply, Throw> {
    let this = UntarLocal::read(call.view())?;
    let archive = local_archive(call)?;
    let mut input = BufReader::with_capacity(PIECE, open(archive.path(), false)?);
    untar(archive.name(), call.path()?, &mut input, this.compression, &|| call.is_cancelled())?;
    Ok(call.null())
}

crate::java_class! {
    struct Unzip<'g> {
        input: View<'g> = "in",
    }
}

/// `UnzipFrom` and `UnzipRemote`
pub(super) fn unzip_from(call: &Call) -> Result<Reply, Throw> {
    let this = Unzip::read(call.view())?;
    let dir = call.path()?;
    receive(call, call.input(this.input)?, |input| Ok(unzip("input stream", dir, input, &|| call.is_cancelled())?))?;
    Ok(call.null())
}

pub(super) fn unzip_local(call: &Call) -> Result<Reply, Throw> {
    let archive = local_archive(call)?;
    unzip_file(archive.path(), call.path()?, &|| call.is_cancelled())?;
    Ok(call.null())
}

/// Refuses: the controller then streams the archive itself (`FilePath.installIfNecessaryFrom`), as it does for an agent
/// that can't reach the internet.
pub(super) fn unpack(_: &Call) -> Result<Reply, Throw> {
    Err(Throw::io("this agent downloads nothing by itself"))
}
