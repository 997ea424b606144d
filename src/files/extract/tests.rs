//! Round trips of archives, foreign archives, hostile archives.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{Cursor, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::super::archive::{self, Compression, TarArchiver, ZipArchiver};
use super::super::attributes::{mode, set_last_modified};
use super::super::scan::{DirScanner, Visitor};
use super::super::testing::{go_on, tree};
use super::*;

fn everything() -> DirScanner {
    DirScanner::Glob { includes: Some("**".into()), excludes: None, default_excludes: false, follow_symlinks: true }
}

fn tar(dir: &Path, scanner: &DirScanner, compression: Compression) -> (Vec<u8>, u64) {
    let mut out = Vec::new();
    let count = archive::tar(dir, scanner, compression, &mut out, &go_on).unwrap();
    (out, count)
}

fn untar_bytes(data: &[u8], dir: &Path) -> Result<()> {
    untar("test.tar", dir, &mut &data[..], Compression::None, &go_on)
}

/// Name, and what is there: contents, mode and time, or a link's target.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let what = if meta.is_symlink() {
                format!("-> {:?}", fs::read_link(&path).unwrap())
            } else if meta.is_dir() {
                pending.push(path.clone());
                "directory".to_owned()
            } else {
                format!("{:o} {} {:?}", meta.mode() & 0o777, meta.mtime(), fs::read(&path).unwrap())
            };
            found.insert(path.strip_prefix(dir).unwrap().to_owned(), what);
        }
    }
    found
}

/// Builds headers that no archiver would write.
struct Raw(Vec<u8>);

impl Raw {
    fn entry(self, flag: u8, name: &str, link: &str, data: &[u8]) -> Raw {
        self.sized(flag, name, link, data.len() as u64, data)
    }

    /// An entry whose header has another size than its data.
    fn sized(mut self, flag: u8, name: &str, link: &str, size: u64, data: &[u8]) -> Raw {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len().min(100)].copy_from_slice(&name.as_bytes()[..name.len().min(100)]);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(flag));
        header.set_mode(0o644);
        header.set_mtime(1_000_000_000);
        header.set_size(size);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn raw() -> Raw {
    Raw(Vec::new())
}

#[test]
fn another_reader_agrees_with_what_is_written() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("ws");
    let long = format!("{}/{}.txt", "d".repeat(120), "n".repeat(200));
    tree(&dir, &["a/script", "ünïcode €/😀", &long, "empty/"]);
    fs::set_permissions(dir.join("a/script"), fs::Permissions::from_mode(0o750)).unwrap();
    set_last_modified(&dir.join("a/script"), 1_234_567_890_999).unwrap();
    set_last_modified(&dir.join(&long), -5_000).unwrap();
    symlink("t".repeat(150), dir.join("link")).unwrap();

    let (data, count) = tar(&dir, &DirScanner::Full, Compression::None);
    let mut seen = BTreeMap::new();
    let mut reader = tar::Archive::new(&data[..]);
    for entry in reader.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut contents = String::new();
        entry.read_to_string(&mut contents).unwrap();
        if let Some(link) = entry.link_name_bytes() {
            contents = format!("-> {}", String::from_utf8_lossy(&link));
        }
        seen.insert(name, (entry.header().entry_type(), contents, entry.header().mode().unwrap()));
    }
    assert_eq!(count as usize, seen.len());
    assert_eq!(seen["ws/a/script"], (tar::EntryType::Regular, "a/script".into(), 0o750));
    assert_eq!(seen["ws/ünïcode €/😀"].1, "ünïcode €/😀");
    assert_eq!(seen[&format!("ws/{long}")].1, long);
    assert_eq!(seen["ws/empty/"].0, tar::EntryType::Directory);
    // The link dangles, so Full leaves it out: `File.canRead` is false.
    assert!(!seen.contains_key("ws/link"));
    let (data, _) = tar(&dir, &everything(), Compression::None);
    let mut reader = tar::Archive::new(&data[..]);
    let mut entries = reader.entries().unwrap().map(|entry| entry.unwrap());
    let link = entries.find(|entry| &*entry.path_bytes() == b"link").unwrap();
    assert_eq!(&*link.link_name_bytes().unwrap(), "t".repeat(150).as_bytes());
}

#[test]
fn headers_are_gnus() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path(), &["f"]);
    fs::set_permissions(temp.path().join("f"), fs::Permissions::from_mode(0o644)).unwrap();
    set_last_modified(&temp.path().join("f"), 1_000_000_000_000).unwrap();
    let (data, _) = tar(temp.path(), &everything(), Compression::None);
    let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&data[range]).into_owned();
    assert_eq!(text(0..100), format!("f{}", "\0".repeat(99)));
    assert_eq!(text(100..124), "0000644\x000000000\x000000000\0");
    assert_eq!(text(124..148), "00000000001\x0007346545000\0");
    assert_eq!(&data[156..158], b"0\0");
    assert_eq!(text(257..265), "ustar  \0");
    // The file's data and the end mark.
    assert_eq!(data[512..], [&b"f"[..], &[0; 511 + 1024]].concat());

    // GNU's base-256 for a time before 1970.
    set_last_modified(&temp.path().join("f"), -5_000).unwrap();
    let (data, _) = tar(temp.path(), &everything(), Compression::None);
    assert_eq!(data[136..148], [&[0xff; 11][..], &[0xfb]].concat());
}

#[test]
fn names_need_not_be_utf_8() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    let long = [&[0xe4][..], &[b'x'; 150]].concat();
    for name in [b"\xfc", &long[..]] {
        fs::create_dir_all(&from).unwrap();
        fs::write(from.join(OsStr::from_bytes(name)), name).unwrap();
    }
    symlink(OsStr::from_bytes(&long), from.join("link")).unwrap();
    untar_bytes(&tar(&from, &everything(), Compression::None).0, &to).unwrap();
    assert_eq!(snapshot(&from), snapshot(&to));
}

#[test]
fn overwrites_files_replaces_links_and_keeps_directories() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    tree(&from, &["a", "b", "d/x", "hard"]);
    tree(temp.path(), &["victim", "other-name"]);
    tree(&to, &["d/kept"]);
    fs::write(to.join("a"), "what was there before, and longer").unwrap();
    symlink("../victim", to.join("b")).unwrap();
    fs::hard_link(temp.path().join("other-name"), to.join("hard")).unwrap();
    untar_bytes(&tar(&from, &everything(), Compression::None).0, &to).unwrap();
    for name in ["a", "b", "d/x", "d/kept", "hard"] {
        assert_eq!(fs::read_to_string(to.join(name)).unwrap(), name);
    }
    assert!(!fs::symlink_metadata(to.join("b")).unwrap().is_symlink());
    for name in ["victim", "other-name"] {
        assert_eq!(fs::read_to_string(temp.path().join(name)).unwrap(), name);
    }
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (rest.len() + 1..).find(|length| format!("{length}{rest}").len() == *length).unwrap();
    format!("{length}{rest}")
}

#[test]
fn pax_gnu_and_old_headers_are_understood() {
    let temp = tempfile::tempdir().unwrap();
    let pax = record("path", "pax/ñame")
        + &record("mtime", "1500000000.25")
        + &record("SCHILY.xattr.user.x", "=\n=")
        + &record("size", "4");
    let long = "l".repeat(180);
    let data = raw()
        .entry(b'g', "pax_global_header", "", record("comment", "0123").as_bytes())
        .entry(b'x', "ignored", "", pax.as_bytes())
        .entry(b'0', "short", "", b"data")
        .entry(b'L', "././@LongLink", "", format!("{long}\0").as_bytes())
        .entry(b'\0', "truncated", "", b"old")
        .entry(b'1', "hard", "pax/ñame", b"")
        .entry(b'5', "./d/", "", b"")
        .entry(b'0', "./", "", b"")
        .entry(b'2', "d/link", "../short", b"")
        .end();
    untar_bytes(&data, temp.path()).unwrap();
    let file = temp.path().join("pax/ñame");
    assert_eq!(fs::read(&file).unwrap(), b"data");
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.nlink()), (1_500_000_000, 250_000_000, 2));
    assert_eq!(fs::read(temp.path().join(long)).unwrap(), b"old");
    assert_eq!(fs::read_link(temp.path().join("d/link")).unwrap(), Path::new("../short"));
}

/// Values are as long as their records say, whatever is in them, and the size is that of the file, not of a header
/// between.
#[test]
fn pax_headers_are_read_by_their_lengths() {
    let temp = tempfile::tempdir().unwrap();
    let pax =
        record("SCHILY.xattr.a", "\n\n17 path=smuggled\n") + &record("path", "two\nlines") + &record("size", "600");
    let data = raw()
        .entry(b'x', "x", "", pax.as_bytes())
        .entry(b'K', "././@LongLink", "", b"unused\0")
        .sized(b'0', "short", "", 0, &[b'x'; 600])
        .entry(b'0', "next", "", b"x")
        // A hard link has no data, whatever size its header has.
        .sized(b'1', "hard", "next", 1, b"")
        .entry(b'0', "last", "", b"x")
        .end();
    untar_bytes(&data, temp.path()).unwrap();
    let found: Vec<_> = snapshot(temp.path()).into_keys().collect();
    assert_eq!(found, ["hard", "last", "next", "two\nlines"].map(PathBuf::from));
    assert_eq!(fs::metadata(temp.path().join("two\nlines")).unwrap().len(), 600);
}

/// Each hostile archive fails, and the directory beside the target stays as it was.
#[test]
fn nothing_escapes_from_a_tar() {
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("parent", raw().entry(b'0', "../victim", "", b"x").end()),
        ("parent within", raw().entry(b'0', "a/../../victim", "", b"x").end()),
        ("out and in again", raw().entry(b'0', "../to/x", "", b"x").end()),
        ("absolute", raw().entry(b'0', "/victim", "", b"x").end()),
        ("parent directory", raw().entry(b'5', "../new/", "", b"").end()),
        ("root as a file", raw().entry(b'0', ".", "", b"x").end()),
        ("root as a link", raw().entry(b'2', "./", "..", b"").end()),
        ("empty name", raw().entry(b'0', "", "", b"x").end()),
        ("through own link", raw().entry(b'2', "l", "..", b"").entry(b'0', "l/victim", "", b"x").end()),
        ("directory through own link", raw().entry(b'2', "l", "..", b"").entry(b'5', "l/new", "", b"").end()),
        ("link through own link", raw().entry(b'2', "l", "..", b"").entry(b'2', "l/new", "x", b"").end()),
        (
            "directory exchanged for a link",
            raw().entry(b'5', "d/", "", b"").entry(b'2', "d", "..", b"").entry(b'0', "d/victim", "", b"x").end(),
        ),
        (
            "cached directory exchanged for a link",
            raw()
                .entry(b'5', "d/e/", "", b"")
                .entry(b'2', "d/e", "../..", b"")
                .entry(b'0', "d/e/victim", "", b"x")
                .end(),
        ),
        ("through a link that was there", raw().entry(b'0', "there/victim", "", b"x").end()),
        ("deeper through a link that was there", raw().entry(b'0', "there/to/a/b", "", b"x").end()),
        ("hard link to the outside", raw().entry(b'1', "h", "../victim", b"").entry(b'0', "h", "", b"x").end()),
        ("hard link to an absolute name", raw().entry(b'1', "h", "/etc/passwd", b"").end()),
        ("hard link through a link", raw().entry(b'1', "h", "there/victim", b"").end()),
        ("hard link to a link", raw().entry(b'1', "h", "there", b"").end()),
        ("GNU long name", raw().entry(b'L', "x", "", b"../victim\0").entry(b'0', "f", "", b"x").end()),
        ("pax path", raw().entry(b'x', "x", "", b"18 path=../victim\n").entry(b'0', "f", "", b"x").end()),
        ("GNU long hard link", raw().entry(b'K', "x", "", b"../victim\0").entry(b'1', "h", "f", b"").end()),
        ("device", raw().entry(b'3', "dev", "", b"").end()),
        ("pipe", raw().entry(b'6', "pipe", "", b"").end()),
        ("sparse", raw().entry(b'S', "sparse", "", b"").end()),
        ("pax sparse", raw().entry(b'x', "x", "", b"22 GNU.sparse.major=1\n").entry(b'0', "f", "", b"x").end()),
    ];
    for (what, data) in hostile {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("to");
        tree(temp.path(), &["victim", "to/"]);
        symlink("..", to.join("there")).unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = untar_bytes(&data, &to).expect_err(what);
        assert!(error.to_string().starts_with("Failed to extract test.tar: "), "{what}: {error}");
        assert_eq!(fs::read_to_string(temp.path().join("victim")).unwrap(), "victim", "{what}");
        let mut names: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["to", "victim"], "{what}");
    }
}

#[test]
fn messages_say_what_core_says() {
    let temp = tempfile::tempdir().unwrap();
    for (data, message) in [
        (
            raw().entry(b'0', "../x", "", b"").end(),
            "Failed to extract test.tar: Tar test.tar contains entry that escapes destination directory: ../x",
        ),
        (
            raw().entry(b'0', "./.", "", b"").end(),
            "Failed to extract test.tar: Tar test.tar contains non-directory entry that resolves to base directory: ./.",
        ),
        (
            raw().entry(b'S', "s", "", b"").end(),
            "Failed to extract test.tar: Tar test.tar contains a sparse file, which is not supported: s",
        ),
    ] {
        let error = untar_bytes(&data, temp.path()).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.kind()), (message, io::ErrorKind::InvalidData));
    }
}

#[test]
fn damaged_archives_are_errors_not_panics_or_allocations() {
    let temp = tempfile::tempdir().unwrap();
    let huge = |flag, size| raw().sized(flag, "x", "", size, &[b'x'; 4096]).0;
    let pax = |record: &[u8]| raw().entry(b'x', "x", "", record).entry(b'0', "f", "", b"x").end();
    let mut checksum = raw().entry(b'0', "f", "", b"x").end();
    checksum[0] = b'g';
    for (what, data) in [
        ("long name", huge(b'L', 2 << 30)),
        ("long link", huge(b'K', i64::MAX as u64)),
        ("pax header", huge(b'x', u64::MAX)),
        ("checksum", checksum),
        ("text", vec![b'x'; 2048]),
        ("pax length", pax(b"99999 path=x\n")),
        ("pax no length", pax(b"path=x\n")),
        ("pax zero length", pax(b"0 path=x\n")),
        ("pax size", pax(b"29 size=18446744073709551615\n")),
        ("pax time", pax(b"11 mtime=x\n")),
    ] {
        let error = untar_bytes(&data, temp.path()).expect_err(what);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{what}: {error}");
    }
    for flag in [b'0', b'g', b'5'] {
        let error = untar_bytes(&huge(flag, u64::MAX), &temp.path().join(flag.to_string())).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    }
    let whole = raw().entry(b'0', "f", "", &[7; 700]).entry(b'0', "g", "", b"x").0;
    for length in 1..whole.len() {
        let result = untar_bytes(&whole[..length], temp.path());
        // Ant takes a stream that ends between entries for complete.
        assert_eq!(result.is_ok(), length == 512 + 1024, "{length}");
    }
}

#[test]
fn gzip_is_checked_to_its_end() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    tree(&from, &["a", "b/c"]);
    let (data, count) = tar(&from, &everything(), Compression::Gzip);
    assert_eq!(count, 2);
    let gunzip = |data: &[u8]| untar("x", &to, &mut &data[..], Compression::Gzip, &go_on);
    gunzip(&data).unwrap();
    assert_eq!(snapshot(&from), snapshot(&to));

    let garbage = [&data[..], b"trailing"].concat();
    gunzip(&garbage).unwrap();
    let mut wrong = data.clone();
    let at = wrong.len() - 6;
    wrong[at] ^= 1;
    assert!(gunzip(&wrong).is_err());
    assert_eq!(gunzip(&data[..data.len() - 4]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert!(gunzip(b"no gzip").is_err());

    // Members that follow each other are one stream.
    let (plain, _) = tar(&from, &everything(), Compression::None);
    let mut members = Vec::new();
    for part in plain.chunks(700) {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(part).unwrap();
        members.extend(encoder.finish().unwrap());
    }
    fs::remove_dir_all(&to).unwrap();
    gunzip(&members).unwrap();
    assert_eq!(snapshot(&from), snapshot(&to));
}

/// Shrinks or extends the file when the archiver reads from it for the second time.
fn tar_of_changing_file(compression: Compression, change: u64) -> (Result<()>, Vec<u8>) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("log");
    fs::write(&path, vec![b'x'; 300_000]).unwrap();
    let asked = std::cell::Cell::new(0);
    let cancel = || {
        asked.set(asked.get() + 1);
        if asked.get() == 2 {
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(change).unwrap();
        }
        false
    };
    let mut out = Vec::new();
    let mut archiver = TarArchiver::new(&mut out, compression, &cancel);
    let result = archiver.visit(&path, Path::new("log"));
    let result = match result {
        Ok(()) => archiver.finish().map(drop),
        Err(error) => {
            drop(archiver);
            Err(error)
        }
    };
    (result, out)
}

#[test]
fn a_file_that_shrinks_is_an_error_and_one_that_grows_is_cut() {
    for compression in [Compression::None, Compression::Gzip] {
        let temp = tempfile::tempdir().unwrap();
        let (result, data) = tar_of_changing_file(compression, 500_000);
        result.unwrap();
        untar("x", temp.path(), &mut &data[..], compression, &go_on).unwrap();
        assert_eq!(fs::metadata(temp.path().join("log")).unwrap().len(), 300_000);

        let (result, data) = tar_of_changing_file(compression, 70_000);
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Changed(_)), "{error}");
        assert!(error.to_string().ends_with("it ended at 70000 of the 300000 bytes that it had"), "{error}");
        let error = untar("x", temp.path(), &mut &data[..], compression, &go_on).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}

#[test]
fn an_archive_that_is_given_up_does_not_look_complete() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path(), &["a"]);
    let files = DirScanner::Explicit(vec![("a".into(), "a".into()), ("b".into(), "missing".into())]);
    let mut gz = Vec::new();
    let error = archive::tar(temp.path(), &files, Compression::Gzip, &mut gz, &go_on).unwrap_err();
    assert_eq!((error.kind(), error.path()), (io::ErrorKind::NotFound, Some(&*temp.path().join("missing"))));
    assert!(untar("x", &temp.path().join("to"), &mut &gz[..], Compression::Gzip, &go_on).is_err());
    let mut zip = Vec::new();
    archive::zip(temp.path(), &files, "", false, &mut zip, &go_on).unwrap_err();
    assert!(unzip("x", &temp.path().join("to"), &mut &zip[..], &go_on).is_err());
}

#[test]
fn what_has_no_contents_is_not_archived() {
    let temp = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(temp.path().join("socket")).unwrap();
    let error = archive::tar(temp.path(), &everything(), Compression::None, &mut Vec::new(), &go_on).unwrap_err();
    assert_eq!((error.kind(), error.path()), (io::ErrorKind::Unsupported, Some(&*temp.path().join("socket"))));
}

#[test]
fn sizes_beyond_octal_are_written_and_read() {
    // A sparse file of 9 GiB whose header only is looked at: the reader is stopped at its data.
    let temp = tempfile::tempdir().unwrap();
    let size = 9u64 << 30;
    fs::File::create(temp.path().join("big")).unwrap().set_len(size).unwrap();
    let wrote = std::cell::Cell::new(0);
    let cancel = || {
        wrote.set(wrote.get() + 1);
        wrote.get() > 3
    };
    let mut out = Vec::new();
    let mut archiver = TarArchiver::new(&mut out, Compression::None, &cancel);
    assert!(archiver.visit(&temp.path().join("big"), Path::new("big")).unwrap_err().is_interrupted());
    drop(archiver);
    // What the buffer held is dropped with the archive, but three portions are more than it holds.
    assert_eq!(&out[124..136], [&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat());
    let mut header = tar::Header::new_old();
    header.as_mut_bytes().copy_from_slice(&out[..512]);
    assert_eq!(header.size().unwrap(), size);
    let mut reader = TarReader::new(&out[..]);
    assert_eq!(reader.next_entry().unwrap().unwrap().name, b"big");
}

#[test]
fn extraction_can_be_cancelled() {
    let temp = tempfile::tempdir().unwrap();
    let data = raw().entry(b'0', "f", "", b"x").end();
    let error = untar("x", temp.path(), &mut &data[..], Compression::None, &|| true).unwrap_err();
    assert!(error.is_interrupted());
    assert!(unzip("x", temp.path(), &mut &data[..], &|| true).unwrap_err().is_interrupted());
}

/// A zip with the given names, as they are.
fn zip_of(names: &[&str]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for name in names {
        zip.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(b"hostile").unwrap();
    }
    zip.finish().unwrap().into_inner()
}

#[test]
fn nothing_escapes_from_a_zip() {
    for names in
        [&["../victim"][..], &["a/../../victim"], &["/victim"], &["there/victim"], &["ok", "../victim"], &["../new/x"]]
    {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("to");
        tree(temp.path(), &["victim", "to/"]);
        symlink("..", to.join("there")).unwrap();
        // The writer may refuse a name that we want to see refused by the reader: same length, then patched.
        let placeholders: Vec<String> = names.iter().map(|name| name.replace('.', "_").replace('/', "+")).collect();
        let mut data = zip_of(&placeholders.iter().map(String::as_str).collect::<Vec<_>>());
        for (placeholder, name) in placeholders.iter().zip(names) {
            let places: Vec<usize> = data
                .windows(name.len())
                .enumerate()
                .filter(|(_, window)| *window == placeholder.as_bytes())
                .map(|(at, _)| at)
                .collect();
            for at in places {
                data[at..at + name.len()].copy_from_slice(name.as_bytes());
            }
        }
        let error = unzip("x.zip", &to, &mut &data[..], &go_on).expect_err(names[0]);
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        if names == ["../victim"] {
            assert_eq!(
                error.to_string(),
                "Zip x.zip contains illegal file name that breaks out of the target directory: ../victim"
            );
        }
        assert_eq!(fs::read_to_string(temp.path().join("victim")).unwrap(), "victim");
        assert!(!temp.path().join("new").exists());
    }
}

#[test]
fn zips_keep_modes_times_and_prefix_and_follow_links() {
    let temp = tempfile::tempdir().unwrap();
    let (from, to) = (temp.path().join("from"), temp.path().join("to"));
    tree(&from, &["d/script", "ünïcode €", "empty/"]);
    fs::set_permissions(from.join("d/script"), fs::Permissions::from_mode(0o750)).unwrap();
    set_last_modified(&from.join("d/script"), 1_234_567_891_000).unwrap();
    symlink("d/script", from.join("link")).unwrap();
    let mut data = Vec::new();
    let count = archive::zip(&from, &DirScanner::Full, "pre/fix", false, &mut data, &go_on).unwrap();
    assert_eq!(count, 6);
    unzip("x", &to, &mut &data[..], &go_on).unwrap();
    let base = to.join("pre/fix/from");
    assert_eq!(mode(&base.join("d/script")).unwrap(), 0o750);
    assert_eq!(fs::metadata(base.join("d/script")).unwrap().mtime(), 1_234_567_891);
    assert_eq!(fs::read_to_string(base.join("link")).unwrap(), "d/script");
    assert_eq!(fs::read_to_string(base.join("ünïcode €")).unwrap(), "ünïcode €");
    assert!(base.join("empty").is_dir());

    // Also from a file, and to where something is.
    let file = temp.path().join("x.zip");
    fs::write(&file, &data).unwrap();
    unzip_file(&file, &to, &go_on).unwrap();
    assert!(archive::zip(&from, &DirScanner::Full, "", true, &mut Vec::new(), &go_on).is_err());
    assert!(unzip("x", &to, &mut &b"no zip"[..], &go_on).unwrap_err().to_string().starts_with("Zip x can't be read"));
    for length in (0..data.len()).step_by(7) {
        assert!(unzip("x", &to, &mut &data[..length], &go_on).is_err());
    }
}

#[test]
fn zip_dates() {
    for seconds in [315_532_800, 951_782_400, 951_868_800, 1_709_164_800, 1_709_251_198, 4_102_444_798] {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("f");
        fs::write(&file, "").unwrap();
        set_last_modified(&file, seconds * 1000).unwrap();
        let mut out = Vec::new();
        let mut archiver = ZipArchiver::new(&mut out, " ", false, &go_on);
        archiver.visit(&file, Path::new("f")).unwrap();
        archiver.finish().unwrap();
        let mut zip = ZipArchive::new(Cursor::new(out)).unwrap();
        assert_eq!(unix_time(zip.by_index(0).unwrap().last_modified().unwrap()), seconds);
    }
}

/// A node of a random tree.
#[derive(Debug, Clone)]
enum Node {
    File(Vec<u8>, u32),
    Link(String),
    Directory(BTreeMap<String, Node>),
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{1,3}",
        2 => "[ a-zäöü€😀.%#~-]{1,12}".prop_filter("not a directory's own", |name| name != "." && name != ".."),
        1 => "[x-z]{90,110}",
        1 => "[x-z]{200,250}",
    ]
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        4 => (prop::collection::vec(any::<u8>(), 0..1500), 0u32..0o1000)
            .prop_map(|(data, mode)| Node::File(data, mode | 0o400)),
        1 => "[a-c./]{1,150}".prop_map(Node::Link),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| prop::collection::btree_map(name(), inner, 0..4).prop_map(Node::Directory))
}

fn build(path: &Path, node: &Node, time: i64) {
    match node {
        Node::File(data, mode) => {
            fs::write(path, data).unwrap();
            set_last_modified(path, time * 1000).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        Node::Link(target) => symlink(target, path).unwrap(),
        Node::Directory(children) => {
            fs::create_dir(path).unwrap();
            for (name, child) in children {
                build(&path.join(name), child, time + 1);
            }
        }
    }
}

/// Passes on everything below a directory, dangling links included, which no scanner of Java's does.
fn visit_all(dir: &Path, visitor: &mut dyn Visitor) {
    let mut names: Vec<_> = snapshot(dir).into_keys().collect();
    names.sort_by_key(|name| name.as_os_str().as_bytes().to_vec());
    for relative in names {
        let file = dir.join(&relative);
        match fs::read_link(&file) {
            Ok(target) => visitor.visit_symlink(&file, &target, &relative).unwrap(),
            Err(_) => visitor.visit(&file, &relative).unwrap(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_archived_comes_out_again(
        children in prop::collection::btree_map(name(), node(), 0..5),
        time in -100_000i64..5_000_000_000,
        gzip: bool,
    ) {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        build(&from, &Node::Directory(children), time);
        let compression = if gzip { Compression::Gzip } else { Compression::None };
        let mut archiver = TarArchiver::new(Vec::new(), compression, &go_on);
        visit_all(&from, &mut archiver);
        let (data, _) = archiver.finish().unwrap();
        untar("x", &to, &mut &data[..], compression, &go_on).unwrap();
        prop_assert_eq!(snapshot(&from), snapshot(&to));
        // Again, over what is there now.
        untar("x", &to, &mut &data[..], compression, &go_on).unwrap();
        prop_assert_eq!(snapshot(&from), snapshot(&to));
    }

    #[test]
    fn damage_never_panics_or_escapes(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let temp = tempfile::tempdir().unwrap();
        let to = temp.path().join("to");
        let mut data = raw()
            .entry(b'x', "x", "", b"19 path=some/file0\n")
            .entry(b'0', "f", "", b"x")
            .entry(b'2', "l", "..", b"")
            .entry(b'1', "h", "f", b"")
            .entry(b'5', "d/", "", b"")
            .end();
        for (at, value) in flips {
            let at = at.index(data.len());
            data[at] = value;
        }
        let _ = untar_bytes(&data, &to);
        prop_assert!(fs::read_dir(temp.path()).unwrap().count() <= 1);
        let mut zip = zip_of(&["a", "b/c"]);
        let length = zip.len();
        zip[length / 2] ^= data[600];
        let _ = unzip("x", &to, &mut &zip[..], &go_on);
        prop_assert!(fs::read_dir(temp.path()).unwrap().count() <= 1);
    }
}
