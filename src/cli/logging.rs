//! The log: to stderr always, and to a file below the work directory or to `-agentLog`.
//!
//! Text entries have the two lines of java.util.logging's `SimpleFormatter`, so that what was written to
//! read the Java agent's log reads this one: `Nov 23, 2026 6:45:20 PM <where>`, then `INFO: <message>`.
//! JSON entries have the usual names of levels (`ERROR`, `WARN`, `INFO`, ...). Times are UTC. stdout is never written to: it may be the channel.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::calendar;
use crate::session::config::{LogFormat, LogSettings};
use crate::session::milestones;

/// A log file is turned over at this size (`WorkDirManager.setupLogging`).
const FILE_LIMIT: u64 = 10 * 1024 * 1024;
/// So many files are kept, the one being written included.
const FILE_COUNT: u32 = 5;

/// Whether to use colours: on a terminal, unless `NO_COLOR` is set to something (no-color.org).
pub fn colours(terminal: bool) -> bool {
    terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A file that is turned over when it is full, as `java.util.logging.FileHandler` does.
#[derive(Debug)]
pub struct RotatingFile {
    base: PathBuf,
    numbered: bool,
    limit: u64,
    count: u32,
    size: u64,
    file: File,
    /// Not for devices and pipes.
    rotates: bool,
}

impl RotatingFile {
    /// `<logs>/remoting.log.0`, with older ones up to `.4`, 10 MiB each; what an earlier process wrote
    /// there is turned over first.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn in_log_dir(logs: &Path) -> io::Result<Self> {
        Self::open(logs.join("remoting.log"), true, FILE_LIMIT, FILE_COUNT)
    }

    /// `-agentLog`: this file, with older ones from `.1` to `.4` beside it, 10 MiB each. Java empties the
    /// file at the start; here it is turned over.
    ///
    /// # Errors
    /// The file can't be created.
    pub fn agent_log(path: &Path) -> io::Result<Self> {
        Self::open(path.to_owned(), false, FILE_LIMIT, FILE_COUNT)
    }

    fn open(base: PathBuf, numbered: bool, limit: u64, count: u32) -> io::Result<Self> {
        let first = name(&base, numbered, 0);
        let rotates = std::fs::metadata(&first).map_or(true, |metadata| metadata.is_file());
        let file =
            if rotates { turn_over(&base, numbered, count)? } else { OpenOptions::new().append(true).open(&first)? };
        Ok(Self { base, numbered, limit, count, size: 0, file, rotates })
    }

    fn write_entry(&mut self, entry: &str) -> io::Result<()> {
        let length = entry.len() as u64;
        if self.rotates && self.size > 0 && self.size.saturating_add(length) > self.limit {
            self.file = turn_over(&self.base, self.numbered, self.count)?;
            self.size = 0;
        }
        self.size = self.size.saturating_add(length);
        self.file.write_all(entry.as_bytes())
    }
}

fn name(base: &Path, numbered: bool, generation: u32) -> PathBuf {
    if generation == 0 && !numbered {
        return base.to_owned();
    }
    let mut name = base.as_os_str().to_owned();
    name.push(format!(".{generation}"));
    name.into()
}

fn turn_over(base: &Path, numbered: bool, count: u32) -> io::Result<File> {
    for generation in (1..count).rev() {
        let from = name(base, numbered, generation - 1);
        match std::fs::rename(&from, name(base, numbered, generation)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    File::create(name(base, numbered, 0))
}

/// Installs the log for this process.
///
/// # Errors
/// If there is one already.
pub fn install(
    settings: &LogSettings,
    file: Option<RotatingFile>,
) -> Result<(), tracing::subscriber::SetGlobalDefaultError> {
    let colours = colours(io::stderr().is_terminal());
    let screen = Lines::new(settings.format, colours, io::stderr());
    let file = file.map(|file| FileLines { format: settings.format, file: Mutex::new(Some(file)) });
    let subscriber = tracing_subscriber::registry().with(targets(settings.verbosity)).with(screen).with(file);
    tracing::subscriber::set_global_default(subscriber)
}

/// INFO of everything; with `-v` more of this agent, with `-vv` more of the libraries too.
fn targets(verbosity: u8) -> Targets {
    let (libraries, own) = match verbosity {
        0 => (Level::INFO, Level::INFO),
        1 => (Level::INFO, Level::DEBUG),
        _ => (Level::DEBUG, Level::TRACE),
    };
    Targets::new().with_default(libraries).with_target("inbound_agent", own).with_target(milestones::TARGET, own)
}

/// Writes every entry to a stream.
struct Lines<W> {
    format: LogFormat,
    colours: bool,
    out: Mutex<W>,
}

impl<W> Lines<W> {
    fn new(format: LogFormat, colours: bool, out: W) -> Self {
        Self { format, colours, out: Mutex::new(out) }
    }
}

impl<S: Subscriber, W: Write + 'static> Layer<S> for Lines<W>
where
    Self: 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let entry = entry(self.format, self.colours, SystemTime::now(), event);
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // A log that nobody reads must not end the agent.
        let _ = out.write_all(entry.as_bytes()).and_then(|()| out.flush());
    }
}

/// Writes entries from INFO up to a file, as Java's handler does, until that fails.
struct FileLines {
    format: LogFormat,
    file: Mutex<Option<RotatingFile>>,
}

impl<S: Subscriber> Layer<S> for FileLines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::INFO {
            return;
        }
        let entry = entry(self.format, false, SystemTime::now(), event);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = file.as_mut().and_then(|open| {
            let error = open.write_entry(&entry).err()?;
            Some(format!("Cannot write the log {}: {error}\n", open.base.display()))
        });
        if let Some(message) = failed {
            *file = None;
            let _ = io::stderr().write_all(message.as_bytes());
        }
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            let _ = write!(self.message, "{value:?}");
        } else {
            self.others.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.others.push((field.name(), value.to_owned()));
        }
    }
}

fn java_level(level: &Level) -> (&'static str, &'static str) {
    match *level {
        Level::ERROR => ("SEVERE", "\u{1b}[31m"),
        Level::WARN => ("WARNING", "\u{1b}[33m"),
        Level::INFO => ("INFO", "\u{1b}[32m"),
        Level::DEBUG => ("FINE", "\u{1b}[2m"),
        Level::TRACE => ("FINER", "\u{1b}[2m"),
    }
}

fn entry(format: LogFormat, colours: bool, time: SystemTime, event: &Event<'_>) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (level, colour) = java_level(metadata.level());
    let mut out = String::with_capacity(96 + fields.message.len());
    match format {
        LogFormat::Text => {
            let _ = writeln!(out, "{} {}", java_time(since), metadata.target());
            if colours {
                let _ = write!(out, "{colour}{level}\u{1b}[0m: {}", fields.message);
            } else {
                let _ = write!(out, "{level}: {}", fields.message);
            }
            for (name, value) in &fields.others {
                let _ = write!(out, " {name}={value}");
            }
        }
        LogFormat::Json => {
            let mut object = serde_json::Map::new();
            object.insert("timestamp".into(), rfc3339(since).into());
            object.insert("level".into(), metadata.level().as_str().into());
            object.insert("target".into(), metadata.target().into());
            object.insert("message".into(), fields.message.into());
            for (name, value) in fields.others {
                // The four above can't be taken over by a field.
                object.entry(name).or_insert_with(|| value.into());
            }
            out.push_str(&serde_json::Value::Object(object).to_string());
        }
    }
    out.push('\n');
    out
}

fn java_time(since: Duration) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let seconds = since.as_secs();
    let (year, month, day) = calendar::date(seconds as i64 / 86_400);
    let hour = seconds / 3_600 % 24;
    let half = if hour < 12 { "AM" } else { "PM" };
    let hour = (hour + 11) % 12 + 1;
    let (minute, second) = (seconds / 60 % 60, seconds % 60);
    format!("{} {day}, {year} {hour}:{minute:02}:{second:02} {half}", MONTHS[usize::from(month) - 1])
}

fn rfc3339(since: Duration) -> String {
    let seconds = since.as_secs();
    let (year, month, day) = calendar::date(seconds as i64 / 86_400);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_millis()
    )
}

/// What `body` logs on this thread, at every level.
#[cfg(test)]
pub(crate) fn capture(format: LogFormat, body: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Shared(std::sync::Arc<Mutex<Vec<u8>>>);
    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let shared = Shared::default();
    let subscriber = tracing_subscriber::registry().with(Lines::new(format, false, shared.clone()));
    tracing::subscriber::with_default(subscriber, body);
    let bytes = shared.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (seconds, java, iso) in [
            (0, "Jan 1, 1970 12:00:00 AM", "1970-01-01T00:00:00.007Z"),
            (951_782_399, "Feb 28, 2000 11:59:59 PM", "2000-02-28T23:59:59.007Z"),
            (951_782_400, "Feb 29, 2000 12:00:00 AM", "2000-02-29T00:00:00.007Z"),
            (1_795_459_520, "Nov 23, 2026 6:45:20 PM", "2026-11-23T18:45:20.007Z"),
            (4_107_542_400, "Mar 1, 2100 12:00:00 AM", "2100-03-01T00:00:00.007Z"),
            (1_735_646_400, "Dec 31, 2024 12:00:00 PM", "2024-12-31T12:00:00.007Z"),
        ] {
            let since = Duration::new(seconds, 7_000_000);
            assert_eq!(java_time(since), java);
            assert_eq!(rfc3339(since), iso);
        }
    }

    #[test]
    fn text_has_javas_levels_and_the_fields() {
        let text = capture(LogFormat::Text, || {
            tracing::error!(target: "t", "bad");
            tracing::warn!(target: "t", peer = "h:1", tries = 3, "odd");
            tracing::debug!(target: "t", "fine");
            tracing::trace!(target: "t", "finer");
        });
        let messages: Vec<&str> = text.lines().skip(1).step_by(2).collect();
        assert_eq!(messages, ["SEVERE: bad", "WARNING: odd peer=h:1 tries=3", "FINE: fine", "FINER: finer"]);
        assert!(text.lines().step_by(2).all(|line| line.ends_with("M t")), "{text}");
    }

    #[test]
    fn json_is_one_object_a_line() {
        let text = capture(LogFormat::Json, || {
            tracing::info!(target: "t", level = "not this one", peer = "\"h\"", "two\nlines");
            tracing::warn!(target: "t", "next");
        });
        let objects: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(objects[0]["level"], "INFO");
        assert_eq!(objects[0]["message"], "two\nlines");
        assert_eq!(objects[0]["peer"], "\"h\"");
        assert_eq!(objects[1]["level"], "WARN");
        assert!(objects[0]["timestamp"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn verbosity() {
        for (verbosity, own, library) in
            [(0, Level::INFO, Level::INFO), (1, Level::DEBUG, Level::INFO), (2, Level::TRACE, Level::DEBUG)]
        {
            let targets = targets(verbosity);
            for level in [Level::INFO, Level::DEBUG, Level::TRACE] {
                assert_eq!(targets.would_enable("inbound_agent::session", &level), level <= own);
                assert_eq!(targets.would_enable("rustls", &level), level <= library);
            }
        }
    }

    #[test]
    fn files_turn_over_at_the_start_and_when_full() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
        let base = dir.path().join("remoting.log");
        for entry in ["first", "second"] {
            let mut log = RotatingFile::open(base.clone(), true, 10, 3).unwrap();
            log.write_entry(entry).unwrap();
        }
        assert_eq!(read("remoting.log.0").as_deref(), Some("second"));
        assert_eq!(read("remoting.log.1").as_deref(), Some("first"));

        let mut log = RotatingFile::open(base, true, 10, 3).unwrap();
        log.write_entry("aaaaaa").unwrap();
        log.write_entry("bbbb").unwrap();
        log.write_entry("longer than the limit").unwrap();
        log.write_entry("c").unwrap();
        assert_eq!(read("remoting.log.0").as_deref(), Some("c"));
        assert_eq!(read("remoting.log.1").as_deref(), Some("longer than the limit"));
        assert_eq!(read("remoting.log.2").as_deref(), Some("aaaaaabbbb"));
        assert_eq!(read("remoting.log.3"), None);
    }

    #[test]
    fn agent_log_is_the_file_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        std::fs::write(&path, "before").unwrap();
        RotatingFile::agent_log(&path).unwrap().write_entry("now").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "now");
        assert_eq!(std::fs::read_to_string(dir.path().join("agent.log.1")).unwrap(), "before");

        let mut null = RotatingFile::agent_log(Path::new("/dev/null")).unwrap();
        null.write_entry("gone").unwrap();
        assert!(!null.rotates);
    }
}
