//! Log output to the controller's consoles: a `hudson.model.TaskListener` as it arrives in a request, and what writes
//! to its stream with every decorator applied.
//!
//! Decorators run on the side that writes, and some of them hide secrets. The rule here is that **no decorator is ever
//! bypassed**: a listener with one that this agent does not know, or does not fully understand, writes nothing at all.
//! Whatever had that listener still runs, and the agent's own log names the class, once.
//!
//! In contrast to a Java agent, the beginning of a last line without an end is not lost ([`Listener::finish`]), and
//! `SecretsMasker` masks here (on a Java agent it needs the controller's extensions, which aren't there).

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::{Call, Throw};
use crate::calendar;
use crate::channel::command::class_loader;
use crate::channel::{Caller, Cancelled, RemoteOutput};
use crate::object::{AccessError, Graph, Loader, NodeId, Value, View};

/// The longest line, in bytes, that a decorator holds back while it waits for the line's end. Of a longer one, what can
/// no longer be part of a secret is passed on. (A Java agent holds any length.)
const MAX_LINE: usize = 1 << 20;

/// The most listeners and decorators that may be wrapped in one another.
const MAX_WRAPPERS: usize = 256;

/// `DelayBufferedOutputStream.Tuning`'s own buffer size, which is also the most that is accepted.
const BUFFER: usize = 64 << 10;

/// How long a `StreamTaskListener`'s output may wait for more, so that a line doesn't cost a frame of its own.
const STREAM_DELAY: Duration = Duration::from_millis(100);

/// Bounds on how long a `BufferedBuildListener`'s output may wait.
const MIN_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// `SecretPatterns.MINIMUM_ENCODED_LENGTH`, in UTF-16 units.
const MINIMUM_ENCODED_LENGTH: usize = 3;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says something in the agent's own log the first time it happens with a class.
fn once(class: &str, say: impl FnOnce()) {
    // Class names come from the wire: a bound on how many are remembered.
    const MOST: usize = 256;
    static SAID: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut said = lock(&SAID);
    let said = said.get_or_insert_default();
    if said.len() < MOST && said.insert(class.to_owned()) {
        say();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Masking

/// A set of literal secrets, and what they are replaced by.
#[derive(Debug)]
struct Mask {
    finder: AhoCorasick,
    longest: usize,
    stars: &'static [u8],
}

impl Mask {
    /// A mask for these texts; `None` if there are none.
    fn new(secrets: impl IntoIterator<Item = Vec<u8>>, stars: &'static str) -> Result<Option<Mask>, Unknown> {
        let secrets: BTreeSet<Vec<u8>> = secrets.into_iter().filter(|secret| !secret.is_empty()).collect();
        let Some(longest) = secrets.iter().map(Vec::len).max() else { return Ok(None) };
        // A secret as long as a line may be could never be held back as a whole.
        if longest > MAX_LINE / 2 {
            return Err(Unknown);
        }
        // The alternatives come longest first, so Java's first match is the longest.
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&secrets);
        Ok(Some(Mask { finder: finder.map_err(|_| Unknown)?, longest, stars: stars.as_bytes() }))
    }

    /// Appends `text`, masked, and says how much of it that was: all if this is the `end` of the line, else as much as
    /// can't be part of a secret that goes on.
    fn replace(&self, text: &[u8], end: bool, out: &mut Vec<u8>) -> usize {
        // A match that begins before this bound lies within the text whatever follows.
        let bound = if end { text.len() } else { (text.len() + 1).saturating_sub(self.longest) };
        let mut at = 0;
        for found in self.finder.find_iter(text) {
            if found.start() >= bound {
                break;
            }
            out.extend_from_slice(&text[at..found.start()]);
            out.extend_from_slice(self.stars);
            at = found.end();
        }
        if at < bound {
            out.extend_from_slice(&text[at..bound]);
            at = bound;
        }
        at
    }
}

/// A decorator is not understood.
#[derive(Debug)]
struct Unknown;

impl From<AccessError> for Unknown {
    fn from(_: AccessError) -> Unknown {
        Unknown
    }
}

/// The alternatives of `SecretPatterns.getAggregateSecretPattern`: `Pattern.quote` of each, joined by `|`.
///
/// `Pattern.quote` writes `\Q…\E`, and an `\E` within as `\E\\E\Q`.
fn literals(pattern: &str) -> Result<Vec<String>, Unknown> {
    let mut out = Vec::new();
    let mut rest = pattern;
    while !rest.is_empty() {
        if !out.is_empty() {
            rest = rest.strip_prefix('|').ok_or(Unknown)?;
        }
        let mut literal = String::new();
        loop {
            let quoted = rest.strip_prefix("\\Q").ok_or(Unknown)?;
            let (text, after) = quoted.split_once("\\E").ok_or(Unknown)?;
            literal.push_str(text);
            rest = after;
            match rest.strip_prefix("\\\\E") {
                Some(after) => {
                    literal.push_str("\\E");
                    rest = after;
                }
                None => break,
            }
        }
        out.push(literal);
    }
    Ok(out)
}

/// What a secret may look like in a log: the forms of all of credentials-binding's `SecretPatternFactory`s.
fn encoded_forms(secret: &str) -> Vec<String> {
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};
    if secret.is_empty() {
        return Vec::new();
    }
    let quoted = secret.replace('\'', "'\\''");
    let mut forms = vec![secret.to_owned(), format!("'{quoted}'"), quoted, unescaped(secret, '\\')];
    forms.push(almquist(secret));
    if secret.contains('^') {
        forms.push(unescaped(secret, '^'));
    }
    forms.push(secret.replace('$', "$$"));
    for shift in ["", "a", "aa"] {
        for encoded in [STANDARD.encode(format!("{shift}{secret}")), URL_SAFE.encode(format!("{shift}{secret}"))] {
            let form = encoded.get(2 * shift.len()..).unwrap_or_default();
            // The character before the padding depends on what would follow.
            let cut = form.trim_end_matches('=');
            if cut.len() < form.len() {
                forms.push(cut[..cut.len().saturating_sub(1)].to_owned());
            }
            forms.push(form.to_owned());
        }
    }
    forms.retain(|form| form.encode_utf16().count() >= MINIMUM_ENCODED_LENGTH);
    forms
}

/// `replaceAll("(X)(X?)", "$2")`: of two escape characters one stays, of one none.
fn unescaped(text: &str, escape: char) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != escape {
            out.push(char);
        } else if chars.as_str().starts_with(escape) {
            out.extend(chars.next());
        }
    }
    out
}

/// `AlmquistShellSecretPatternFactory`: each run of single quotes goes into double quotes.
fn almquist(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_run = false;
    for char in text.chars() {
        if (char == '\'') != in_run {
            out.push_str(if in_run { "\"'" } else { "'\"" });
            in_run = !in_run;
        }
        out.push(char);
    }
    if in_run {
        out.push_str("\"'");
    }
    out
}

/// `java.net.URLEncoder.encode(text, "UTF-8")`.
fn url_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'*' | b'_' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A secret as the bytes that a log in this character set has. What runs here writes UTF-8, whatever the controller
/// decodes it as, so that is always among them.
fn in_charset(secret: &str, charset: Option<&str>) -> Result<Vec<Vec<u8>>, Unknown> {
    let mut forms = vec![secret.as_bytes().to_vec()];
    let charset = charset.unwrap_or("UTF-8").to_ascii_uppercase();
    match charset.as_str() {
        "UTF-8" | "UTF8" | "US-ASCII" | "ASCII" => {}
        "ISO-8859-1" | "ISO8859_1" | "LATIN1" => {
            forms.extend(secret.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect::<Option<Vec<u8>>>());
        }
        _ if secret.is_ascii() && (charset.starts_with("ISO-8859-") || charset.starts_with("WINDOWS-125")) => {}
        _ => return Err(Unknown),
    }
    Ok(forms)
}

// ---------------------------------------------------------------------------------------------------------------------
// Decorators

/// `DateTimeFormatter.ofPattern("yyyy-MM-dd'T'HH:mm:ss.SSSX")` in UTC.
fn utc_millis(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = calendar::date(days as i64);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// `TimeoutStepExecution$ConsoleLogFilterImpl2`, of a `timeout(activity: true)`: the step's timer starts anew while there
/// is output.
///
/// Java looks every half or tenth of the timeout whether lines have passed. Here a line itself resets the timer, but for
/// the lines within half the timeout after a reset: those do so together, at the end of that half.
struct Activity {
    id: String,
    class_loader: Option<i32>,
    interval: Duration,
    reset: OnceLock<Box<dyn Fn() + Send + Sync>>,
    state: Mutex<ActivityState>,
    runtime: Option<Handle>,
}

#[derive(Debug, Default)]
struct ActivityState {
    last_reset: Option<Instant>,
    /// Lines have passed since.
    pending: bool,
    /// What resets the timer because of them.
    task: Option<AbortHandle>,
}

impl std::fmt::Debug for Activity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Activity({})", self.id)
    }
}

impl Activity {
    fn read(filter: View<'_>) -> Result<Arc<Activity>, Unknown> {
        let half = Duration::from_millis(u64::try_from(filter.long("timeout")?).unwrap_or(0)) / 2;
        Ok(Arc::new(Activity {
            id: filter.require_string("id")?.into_owned(),
            class_loader: class_loader(filter),
            interval: half.max(MIN_DELAY),
            reset: OnceLock::new(),
            state: Mutex::default(),
            runtime: Handle::try_current().ok(),
        }))
    }

    /// Says how the timer is reached.
    fn reached_by(&self, call: &Call) {
        let link = Arc::downgrade(call.link());
        // The loader of the filter's own class, which is the plugin's, knows the callable. It stays referenced.
        let loader = self.class_loader.or(call.caller().loader_oid());
        let Some(loader) = loader else { return };
        // As in answers: a peer without the capability gets no annotations at all.
        let annotated = !matches!(call.loader(), Loader::None);
        let callable = reset_timer(if annotated { Loader::Receivers(loader) } else { Loader::None }, &self.id);
        let _ = self.reset.set(Box::new(move || {
            if let Some(link) = link.upgrade() {
                link.call_and_forget(loader, RESET_TIMER, callable.clone());
            }
        }));
    }

    fn line_passed(self: &Arc<Self>) {
        let mut state = lock(&self.state);
        if state.pending {
            return;
        }
        let wait = state.last_reset.map_or(Duration::ZERO, |last| self.interval.saturating_sub(last.elapsed()));
        if wait.is_zero() {
            return self.reset_now(state);
        }
        state.pending = true;
        if let Some(runtime) = &self.runtime {
            let activity = Arc::downgrade(self);
            let later = runtime.spawn(async move {
                tokio::time::sleep(wait).await;
                if let Some(activity) = activity.upgrade() {
                    activity.reset_now(lock(&activity.state));
                }
            });
            state.task = Some(later.abort_handle());
        }
    }

    fn reset_now(&self, mut state: MutexGuard<'_, ActivityState>) {
        *state = ActivityState { last_reset: Some(Instant::now()), pending: false, task: None };
        drop(state);
        if let Some(reset) = self.reset.get() {
            reset();
        }
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        let state = std::mem::take(&mut *lock(&self.state));
        if let Some(task) = state.task {
            task.abort();
        }
        if let (true, Some(reset)) = (state.pending, self.reset.get()) {
            reset();
        }
    }
}

const RESET_TIMER: &str = "org.jenkinsci.plugins.workflow.steps.TimeoutStepExecution$ResetTimer";

/// The stream of a `TimeoutStepExecution$ResetTimer`.
fn reset_timer(loader: Loader, id: &str) -> Bytes {
    let mut graph = Graph::with_loader(loader);
    let base = graph.serializable("jenkins.security.SlaveToMasterCallable", 1, &[], None);
    let desc = graph.serializable(RESET_TIMER, 1, &[("id", "Ljava/lang/String;")], Some(base));
    let id = graph.string(id);
    let callable = graph.object(desc).set_ref("id", id).build();
    graph.encode_one(Some(callable))
}

/// What a line decorator does with a line.
#[derive(Clone, Debug)]
enum Act {
    /// Nothing; it passes on whole lines.
    Pass,
    /// As [`Act::Pass`], and resets a timer.
    Activity(Arc<Activity>),
    /// `SecretPatterns.MaskingOutputStream`
    Mask(Arc<Mask>),
    /// timestamper's `GlobalDecorator`: `[time] ` before each line.
    Timestamp(fn() -> SystemTime),
}

/// A layer between a writer and the stream.
#[derive(Debug)]
enum Stage {
    /// A subclass of `hudson.console.LineTransformationOutputStream`.
    Lines {
        act: Act,
        line: Vec<u8>,
        /// Whether the beginning of this line, which was too long to hold, was passed on already.
        continued: bool,
    },
    /// `NewlineSafeTaskListener`: its end is the end of a line.
    Newline { ended: bool },
}

impl Stage {
    fn lines(act: Act) -> Stage {
        Stage::Lines { act, line: Vec::new(), continued: false }
    }

    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Stage::Newline { ended } => {
                out.extend_from_slice(bytes);
                *ended = bytes.last().map_or(*ended, |byte| *byte == b'\n');
            }
            Stage::Lines { act, line, continued } => {
                let mut rest = bytes;
                while !rest.is_empty() {
                    // Since 2.569 a CR ends a line too, unless an LF follows: what that is can't be told yet at the end
                    // of what there is.
                    if line.last() == Some(&b'\r') && rest[0] != b'\n' {
                        emit(act, line, continued, true, out);
                    }
                    let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
                    let room = MAX_LINE - line.len();
                    let take = end.map_or(rest.len(), |at| at + 1).min(room);
                    line.extend_from_slice(&rest[..take]);
                    rest = &rest[take..];
                    if line.last() == Some(&b'\n') {
                        emit(act, line, continued, true, out);
                    } else if line.len() == MAX_LINE {
                        emit(act, line, continued, false, out);
                    }
                }
            }
        }
    }

    /// `LineTransformationOutputStream.forceEol`; with `close` also what `NewlineSafeTaskListener`'s stream does then.
    fn finish(&mut self, close: bool, out: &mut Vec<u8>) {
        match self {
            Stage::Lines { act, line, continued } if !line.is_empty() => emit(act, line, continued, true, out),
            Stage::Newline { ended } if close && !*ended => {
                out.push(b'\n');
                *ended = true;
            }
            _ => {}
        }
    }

    fn held(&self) -> usize {
        match self {
            Stage::Lines { line, .. } => line.len(),
            Stage::Newline { .. } => 0,
        }
    }
}

/// Passes on a line, or of one that is too long as much as possible.
fn emit(act: &Act, line: &mut Vec<u8>, continued: &mut bool, end: bool, out: &mut Vec<u8>) {
    let done = match act {
        Act::Pass | Act::Activity(_) => {
            if let Act::Activity(activity) = act {
                activity.line_passed();
            }
            out.extend_from_slice(line);
            line.len()
        }
        Act::Mask(mask) => mask.replace(line, end, out),
        Act::Timestamp(now) => {
            if !*continued {
                out.push(b'[');
                out.extend_from_slice(utc_millis(now()).as_bytes());
                out.extend_from_slice(b"] ");
            }
            out.extend_from_slice(line);
            line.len()
        }
    };
    line.drain(..done);
    *continued = !end;
    if line.is_empty() && line.capacity() > 4096 {
        *line = Vec::new();
    }
}

/// Layers, the stream's own first: what is written goes through the last one first.
#[derive(Debug, Default)]
struct Chain(Vec<Stage>);

impl Chain {
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.run(bytes, |_, _| {})
    }

    fn finish(&mut self, close: bool) -> Vec<u8> {
        self.run(&[], |stage, out| stage.finish(close, out))
    }

    fn run(&mut self, bytes: &[u8], then: impl Fn(&mut Stage, &mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = Cow::Borrowed(bytes);
        for stage in self.0.iter_mut().rev() {
            let mut out = Vec::new();
            stage.push(&bytes, &mut out);
            then(stage, &mut out);
            bytes = Cow::Owned(out);
        }
        bytes.into_owned()
    }
}

/// The text of a `hudson.util.Secret`, a `java.util.regex.Pattern` without flags, or a string.
fn secret_text(view: View<'_>) -> Result<String, Unknown> {
    match view.class_name().as_ref() {
        "hudson.util.Secret" => Ok(view.require_string("value")?.into_owned()),
        "java.util.regex.Pattern" if view.int("flags")? == 0 => Ok(view.require_string("pattern")?.into_owned()),
        "java.lang.String" => Ok(view.as_str()?.into_owned()),
        _ => Err(Unknown),
    }
}

/// The texts of a collection of secrets or strings; null for no collection.
fn secret_texts(view: Option<View<'_>>) -> Result<Vec<String>, Unknown> {
    let items = view.map_or(Ok(Vec::new()), View::collection)?;
    items.into_iter().flatten().map(secret_text).collect()
}

fn mask_stage(secrets: &[String], charset: Option<&str>, stars: &'static str) -> Result<Option<Stage>, Unknown> {
    let mut bytes = Vec::new();
    for secret in secrets {
        bytes.extend(in_charset(secret, charset)?);
    }
    Ok(Mask::new(bytes, stars)?.map(|mask| Stage::lines(Act::Mask(Arc::new(mask)))))
}

/// What a decorator comes to.
enum Decorator<'g> {
    /// Others, the stream's own first.
    Others(Vec<Option<View<'g>>>),
    /// A layer, or none.
    Layer(Option<Stage>),
}

/// A `TaskListenerDecorator` or `ConsoleLogFilter`.
fn decorator(view: View<'_>) -> Result<Decorator<'_>, Unknown> {
    let class = view.class_name();
    let charset = || Ok::<_, Unknown>(view.string("charsetName")?.map(Cow::into_owned));
    Ok(Decorator::Layer(match class.as_ref() {
        // decorateAll(logger, List.of(subsequent, original))
        "org.jenkinsci.plugins.workflow.log.TaskListenerDecorator$MergedTaskListenerDecorator" => {
            return Ok(Decorator::Others(vec![view.get("subsequent")?, view.get("original")?]));
        }
        // subsequent.decorateLogger(original.decorateLogger(logger))
        "org.jenkinsci.plugins.workflow.steps.BodyInvoker$MergedFilter" => {
            return Ok(Decorator::Others(vec![view.get("original")?, view.get("subsequent")?]));
        }
        "org.jenkinsci.plugins.workflow.log.TaskListenerDecorator$ConsoleLogFilterAdapter" => {
            return Ok(Decorator::Others(vec![view.get("filter")?]));
        }
        "org.jenkinsci.plugins.credentialsbinding.impl.BindingStep$Filter" => {
            mask_stage(&literals(&secret_text(view.require("pattern")?)?)?, charset()?.as_deref(), "****")?
        }
        "org.jenkinsci.plugins.configfiles.buildwrapper.ConfigFileBuildWrapper$SecretFilter"
        | "jenkins.plugins.nodejs.NodeJSBuildWrapper$SecretFilter" => {
            let charset = view.string("charset")?;
            mask_stage(&literals(&secret_text(view.require("pattern")?)?)?, charset.as_deref(), "****")?
        }
        // The plugin leaves lines alone that name the address of a result. Here they are masked too.
        "hudson.plugins.sonar.SonarBuildWrapper$SonarQubePasswordLogFilter" => {
            let (passwords, charset) = (secret_texts(view.get("passwords")?)?, view.string("consoleCharset")?);
            mask_stage(&passwords, charset.as_deref(), "******")?
        }
        "org.jenkinsci.plugins.pipeline.maven.console.MaskPasswordsConsoleLogFilter" => {
            let field = view.require("secretsAsRegexp")?;
            mask_stage(&literals(&secret_text(field)?)?, charset()?.as_deref(), "****")?
        }
        "com.datapipe.jenkins.vault.log.MaskingConsoleLogFilter"
        | "org.jenkinsci.plugins.azurekeyvaultplugin.MaskingConsoleLogFilter"
        | "io.jenkins.plugins.infisicaljenkins.log.MaskingConsoleLogFilter" => {
            let mut secrets = Vec::new();
            let values = match view.get("valuesToMask")? {
                Some(pattern) if pattern.is("java.util.regex.Pattern") => {
                    secrets.extend(literals(&secret_text(pattern)?)?);
                    None
                }
                values => values,
            };
            if let Some(pattern) = view.get("pattern")? {
                secrets.extend(literals(&secret_text(pattern)?)?);
            }
            secrets.extend(secret_texts(values)?.iter().flat_map(|value| encoded_forms(value)));
            mask_stage(&secrets, charset()?.as_deref(), "****")?
        }
        "org.csanchez.jenkins.plugins.kubernetes.pipeline.SecretsMasker" => {
            let values = secret_texts(Some(view.require("values")?))?;
            let secrets: Vec<String> = values.iter().flat_map(|value| encoded_forms(value)).collect();
            mask_stage(&secrets, None, "****")?
        }
        "com.michelin.cio.hudson.plugins.maskpasswords.MaskPasswordsBuildWrapper$FilterImpl" => {
            if !secret_texts(view.get("allRegexes")?)?.is_empty() {
                return Err(Unknown);
            }
            let passwords = secret_texts(Some(view.require("allPasswords")?))?;
            let secrets: Vec<String> = passwords.into_iter().flat_map(|text| [url_encoded(&text), text]).collect();
            mask_stage(&secrets, None, "********")?
        }
        "hudson.plugins.timestamper.pipeline.GlobalDecorator" => Some(Stage::lines(Act::Timestamp(SystemTime::now))),
        "org.jenkinsci.plugins.workflow.steps.TimeoutStepExecution$ConsoleLogFilterImpl2" => {
            Some(Stage::lines(Act::Activity(Activity::read(view)?)))
        }
        // Of older versions of the plugin, and of builds that began with one: a proxy is called at each line.
        "org.jenkinsci.plugins.workflow.steps.TimeoutStepExecution$ConsoleLogFilterImpl" => {
            once(&class, || {
                tracing::info!("output of this agent's own steps does not extend a timeout(activity: true)");
            });
            Some(Stage::lines(Act::Pass))
        }
        // These only add marks for the console to show.
        "hudson.plugins.timestamper.pipeline.TimestamperStep$TimestampNotesConsoleLogFilter"
        | "hudson.plugins.ansicolor.AnsiColorConsoleLogFilter"
        | "hudson.plugins.ansicolor.AnsiColorBuildWrapper$ConsoleLogFilterImpl"
        | "org.jenkinsci.plugins.pipeline.maven.console.MavenColorConsoleLogFilter"
        | "org.jenkinsci.plugins.pipeline.maven.console.MavenColorizerConsoleLogFilter"
        | "hudson.plugins.gradle.GradleTaskListenerDecorator"
        | "hudson.plugins.gradle.injection.BuildScanDetectionTaskListenerDecoratorFactory$BuildScanDetectionTaskListenerDecorator"
        | "hudson.plugins.gradle.injection.DevelocityExceptionTaskListenerDecoratorFactory$DevelocityExceptionTaskListenerDecorator" => {
            None
        }
        _ => return Err(Unknown),
    }))
}

/// The layers of a list of decorators, the stream's own first; or the class that is not understood.
fn decorators(list: View<'_>) -> Result<Vec<Stage>, String> {
    let class_of = |view: Option<View<'_>>| view.map_or_else(|| "null".to_owned(), |v| v.class_name().into_owned());
    let mut todo = list.collection().map_err(|_| class_of(Some(list)))?;
    todo.reverse();
    let mut stages = Vec::new();
    let mut visited = 0;
    while let Some(next) = todo.pop() {
        visited += 1;
        if visited > MAX_WRAPPERS {
            return Err(class_of(next));
        }
        match next.ok_or(Unknown).and_then(decorator) {
            Ok(Decorator::Others(others)) => todo.extend(others.into_iter().rev()),
            Ok(Decorator::Layer(stage)) => stages.extend(stage),
            Err(Unknown) => return Err(class_of(next)),
        }
    }
    Ok(stages)
}

// ---------------------------------------------------------------------------------------------------------------------
// The stream

/// `DelayBufferedOutputStream.Tuning`, within bounds.
#[derive(Clone, Copy, Debug)]
struct Tuning {
    delay: Duration,
    longest_delay: Duration,
    backoff: f32,
    buffer: usize,
}

impl Tuning {
    const STREAM: Tuning = Tuning { delay: STREAM_DELAY, longest_delay: STREAM_DELAY, backoff: 1.0, buffer: BUFFER };

    fn read(view: Option<View<'_>>) -> Result<Tuning, AccessError> {
        let Some(view) = view else {
            return Ok(Tuning {
                delay: Duration::from_secs(1),
                longest_delay: MAX_DELAY,
                backoff: 1.05,
                buffer: BUFFER,
            });
        };
        let millis = |name| Ok(Duration::from_millis(u64::try_from(view.long(name)?).unwrap_or(0)));
        let delay = millis("minRecurrencePeriod")?.clamp(MIN_DELAY, MAX_DELAY);
        let backoff = match view.field("recurrencePeriodBackoff") {
            Some(Value::Float(backoff)) if (1.0..=2.0).contains(&backoff) => backoff,
            _ => 1.05,
        };
        Ok(Tuning {
            delay,
            longest_delay: millis("maxRecurrencePeriod")?.clamp(delay, MAX_DELAY),
            backoff,
            buffer: usize::try_from(view.int("bufferSize")?).unwrap_or(0).clamp(1, BUFFER),
        })
    }
}

/// Where output goes in the end.
enum Target {
    Remote(RemoteOutput),
    #[cfg(test)]
    Memory(Arc<Mutex<Vec<u8>>>),
    /// It failed, for this reason.
    Failed(io::Error),
}

impl Target {
    fn outcome(&self) -> io::Result<()> {
        match self {
            Target::Failed(error) if Cancelled::is_why(error) => Err(Cancelled.into()),
            Target::Failed(error) => Err(io::Error::new(error.kind(), error.to_string())),
            _ => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        let result = match self {
            Target::Remote(output) => io::Write::write_all(output, bytes),
            #[cfg(test)]
            Target::Memory(memory) => {
                lock(memory).extend_from_slice(bytes);
                Ok(())
            }
            Target::Failed(_) => return,
        };
        self.settle(result);
    }

    async fn write_async(&mut self, bytes: Vec<u8>) {
        if let Target::Remote(output) = self {
            let result = output.write_async(bytes.into()).await;
            self.settle(result);
        } else {
            self.write(&bytes);
        }
    }

    fn settle(&mut self, result: io::Result<()>) {
        if let Err(error) = result {
            tracing::debug!(%error, "a console of the controller's takes no more output");
            *self = Target::Failed(error);
        }
    }

    fn last_io_id(&self) -> i32 {
        match self {
            Target::Remote(output) => output.last_io_id(),
            _ => 0,
        }
    }
}

#[derive(Debug)]
struct Pending {
    bytes: Vec<u8>,
    /// A task will write them.
    armed: bool,
    delay: Duration,
}

/// The controller's stream with a buffer before it.
struct Base {
    tuning: Tuning,
    pending: Mutex<Pending>,
    /// Whoever holds it writes what is pending: that keeps the order.
    target: tokio::sync::Mutex<Target>,
    last_io_id: AtomicI32,
    caller: Weak<Caller>,
    /// What runs the task that writes after a delay. Without it nothing waits.
    runtime: Option<Handle>,
}

impl Base {
    fn new(target: Target, tuning: Tuning, caller: Weak<Caller>) -> Arc<Base> {
        Arc::new(Base {
            tuning,
            pending: Mutex::new(Pending { bytes: Vec::new(), armed: false, delay: tuning.delay }),
            target: tokio::sync::Mutex::new(target),
            last_io_id: AtomicI32::new(0),
            caller,
            runtime: Handle::try_current().ok(),
        })
    }

    /// Adds to the buffer, and says whether it is to be written now.
    fn add(self: &Arc<Self>, bytes: Vec<u8>) -> bool {
        if bytes.is_empty() {
            return false;
        }
        let mut pending = lock(&self.pending);
        if pending.bytes.is_empty() {
            pending.bytes = bytes;
        } else {
            pending.bytes.extend_from_slice(&bytes);
        }
        let Some(runtime) = &self.runtime else { return true };
        if pending.bytes.len() >= self.tuning.buffer {
            return true;
        }
        if !pending.armed {
            pending.armed = true;
            let delay = pending.delay;
            pending.delay = delay.mul_f32(self.tuning.backoff).min(self.tuning.longest_delay);
            let base = Arc::downgrade(self);
            runtime.spawn(async move {
                tokio::time::sleep(delay).await;
                if let Some(base) = base.upgrade() {
                    lock(&base.pending).armed = false;
                    base.drain_async().await;
                }
            });
        }
        false
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut lock(&self.pending).bytes)
    }

    fn wrote(&self, target: &Target) {
        let id = target.last_io_id();
        if id != 0 {
            self.last_io_id.store(id, Ordering::Relaxed);
            if let Some(caller) = self.caller.upgrade() {
                caller.answer_after(id);
            }
        }
    }

    fn drain(&self) -> io::Result<()> {
        let mut target = self.target.blocking_lock();
        target.write(&self.take());
        self.wrote(&target);
        target.outcome()
    }

    async fn drain_async(&self) {
        let mut target = self.target.lock().await;
        let bytes = self.take();
        target.write_async(bytes).await;
        self.wrote(&target);
    }
}

impl Drop for Base {
    fn drop(&mut self) {
        let bytes = self.take();
        if let (false, Some(runtime)) = (bytes.is_empty(), &self.runtime) {
            let none = Target::Failed(io::ErrorKind::BrokenPipe.into());
            let mut target = std::mem::replace(self.target.get_mut(), none);
            runtime.spawn(async move { target.write_async(bytes).await });
        }
    }
}

struct Inner {
    chain: Mutex<Chain>,
    base: Arc<Base>,
}

impl Inner {
    fn push(&self, bytes: &[u8]) -> bool {
        let mut chain = lock(&self.chain);
        // The chain stays locked: what was first through it is to be first in the buffer.
        self.base.add(chain.push(bytes))
    }

    fn end(&self, close: bool) {
        let mut chain = lock(&self.chain);
        let bytes = chain.finish(close);
        let _ = self.base.add(bytes);
    }
}

/// What writes to a console of the controller's. Clones are the same listener.
///
/// Output waits a little for more (see [`finish`](Self::finish)). As Java's `PrintStream`, the plain methods never fail:
/// when the controller's end is gone, the output is nobody's. [`Listener::outcome`] tells.
///
/// The methods that aren't async block, and must not be called on a thread that runs the runtime's tasks.
#[derive(Clone)]
pub struct Listener(Option<Arc<Inner>>);

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Listener" } else { "Listener(none)" })
    }
}

impl Listener {
    /// One that writes nothing (`TaskListener.NULL`).
    pub fn none() -> Listener {
        Listener(None)
    }

    /// The listener of a request. What a request has several of, with a stream in common, is for [`Listeners`].
    ///
    /// # Errors
    /// If its stream can't be opened.
    pub fn open(call: &Call, listener: View<'_>) -> Result<Listener, Throw> {
        Listeners::new(call).open(listener)
    }

    /// One that writes to memory, and what shows that.
    #[cfg(test)]
    pub(super) fn in_memory() -> (Listener, impl Fn() -> String) {
        let memory = Arc::new(Mutex::new(Vec::new()));
        let base = Base::new(Target::Memory(memory.clone()), Tuning::STREAM, Weak::new());
        (Listener::over(base, Vec::new()), move || String::from_utf8(lock(&memory).clone()).unwrap_or_default())
    }

    fn over(base: Arc<Base>, stages: Vec<Stage>) -> Listener {
        Listener(Some(Arc::new(Inner { chain: Mutex::new(Chain(stages)), base })))
    }

    /// Writes text and a line feed.
    pub fn println(&self, text: &str) {
        self.write_bytes(format!("{text}\n").as_bytes());
    }

    /// Writes bytes.
    pub fn write_bytes(&self, bytes: &[u8]) {
        let Some(inner) = &self.0 else { return };
        for part in bytes.chunks(BUFFER) {
            if inner.push(part) {
                let _ = inner.base.drain();
            }
        }
    }

    /// Writes bytes without blocking a thread.
    pub async fn write_async(&self, bytes: &[u8]) {
        let Some(inner) = &self.0 else { return };
        for part in bytes.chunks(BUFFER) {
            if inner.push(part) {
                inner.base.drain_async().await;
            }
        }
    }

    /// Passes on what was written, but for the beginning of a line that a decorator has to see as a whole. To be called
    /// before a request is answered whose output is to be there by then.
    ///
    /// # Errors
    /// If the controller's end takes no more output; it is the same error again then at the next call.
    pub fn flush(&self) -> io::Result<()> {
        self.0.as_ref().map_or(Ok(()), |inner| inner.base.drain())
    }

    /// [`flush`](Self::flush) without blocking a thread. Never fails.
    pub async fn flush_async(&self) {
        if let Some(inner) = &self.0 {
            inner.base.drain_async().await;
        }
    }

    /// Passes on all that was written, a line without an end too.
    pub fn finish(&self) {
        if let Some(inner) = &self.0 {
            inner.end(false);
            let _ = inner.base.drain();
        }
    }

    /// [`finish`](Self::finish) without blocking a thread.
    pub async fn finish_async(&self) {
        if let Some(inner) = &self.0 {
            inner.end(false);
            inner.base.drain_async().await;
        }
    }

    /// `getLogger().close()`: as [`finish`](Self::finish), and a `NewlineSafeTaskListener` ends the last line. The
    /// controller's stream stays open, as these streams are all proof against being closed.
    pub fn close(&self) {
        if let Some(inner) = &self.0 {
            inner.end(true);
            let _ = inner.base.drain();
        }
    }

    /// How many bytes decorators hold back because their line has not ended.
    pub fn held(&self) -> usize {
        self.0.as_ref().map_or(0, |inner| lock(&inner.chain).0.iter().map(Stage::held).sum())
    }

    /// The id of the last pipe operation that carried output, 0 if none: see [`Caller::answer_after`].
    pub fn last_io_id(&self) -> i32 {
        self.0.as_ref().map_or(0, |inner| inner.base.last_io_id.load(Ordering::Relaxed))
    }
}

/// Never fails, see [`Listener`]. `flush` is [`Listener::flush`].
impl io::Write for Listener {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_bytes(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let _ = Listener::flush(self);
        Ok(())
    }
}

/// The listeners of a request: those that are one object in it are one here, and those that share a stream share its
/// buffer.
pub struct Listeners<'c> {
    call: &'c Call,
    streams: HashMap<NodeId, Arc<Base>>,
    listeners: HashMap<NodeId, Listener>,
}

impl<'c> Listeners<'c> {
    /// None yet.
    pub fn new(call: &'c Call) -> Self {
        Listeners { call, streams: HashMap::new(), listeners: HashMap::new() }
    }

    /// A listener of the request.
    ///
    /// # Errors
    /// If its stream can't be opened.
    pub fn open(&mut self, listener: View<'_>) -> Result<Listener, Throw> {
        if let Some(known) = self.listeners.get(&listener.id()) {
            return Ok(known.clone());
        }
        let opened = match resolve(listener) {
            Resolved::Null => Listener::none(),
            Resolved::Withheld(class) => {
                withhold(&class);
                Listener::none()
            }
            Resolved::Stream { stream, tuning, stages } => {
                for stage in &stages {
                    if let Stage::Lines { act: Act::Activity(activity), .. } = stage {
                        activity.reached_by(self.call);
                    }
                }
                let base = match self.streams.get(&stream.id()) {
                    Some(base) => base.clone(),
                    None => {
                        let target = Target::Remote(self.call.output(stream)?);
                        let base = Base::new(target, tuning, Arc::downgrade(self.call.caller()));
                        self.streams.insert(stream.id(), base.clone());
                        base
                    }
                };
                Listener::over(base, stages)
            }
        };
        self.listeners.insert(listener.id(), opened.clone());
        Ok(opened)
    }

    /// A listener that may be null: that writes nothing.
    ///
    /// # Errors
    /// If its stream can't be opened.
    pub fn open_any(&mut self, listener: Option<View<'_>>) -> Result<Listener, Throw> {
        listener.map_or_else(|| Ok(Listener::none()), |listener| self.open(listener))
    }
}

fn withhold(class: &str) {
    once(class, || {
        tracing::warn!(
            class,
            "this agent does not know how {class} changes console output (it may hide secrets), so steps that have it \
             run, but what they print from this agent is not shown"
        );
    });
}

/// Whether a request has a listener whose output this agent would withhold.
pub(super) fn is_withheld(graph: &Graph) -> bool {
    const DECORATED: &str = "org.jenkinsci.plugins.workflow.log.TaskListenerDecorator$DecoratedTaskListener";
    let objects = (0..graph.nodes().len()).filter_map(|index| graph.id_at(index));
    objects.map(|id| graph.view(id)).any(|view| view.is(DECORATED) && matches!(resolve(view), Resolved::Withheld(_)))
}

/// What a listener is made of.
enum Resolved<'g> {
    /// It writes nothing.
    Null,
    /// This class in it is not understood.
    Withheld(String),
    Stream {
        stream: View<'g>,
        tuning: Tuning,
        stages: Vec<Stage>,
    },
}

fn resolve(listener: View<'_>) -> Resolved<'_> {
    let mut view = listener;
    // The stream's own first: what is found later goes before.
    let mut stages: Vec<Stage> = Vec::new();
    for _ in 0..MAX_WRAPPERS {
        let class = view.class_name();
        let next = match class.as_ref() {
            "hudson.util.NullTaskListener" | "hudson.model.TaskListener$1" => return Resolved::Null,
            "hudson.util.StreamTaskListener" | "hudson.model.StreamBuildListener" => {
                let stream = view.annotation_objects("hudson.util.StreamTaskListener").next().flatten();
                let Some(stream) = stream else { return Resolved::Withheld(class.into_owned()) };
                return Resolved::Stream { stream, tuning: Tuning::STREAM, stages };
            }
            "org.jenkinsci.plugins.workflow.log.BufferedBuildListener$Replacement" => {
                let tuning = view.get("tuning").and_then(Tuning::read);
                return match (view.require("ros"), tuning) {
                    (Ok(stream), Ok(tuning)) => Resolved::Stream { stream, tuning, stages },
                    _ => Resolved::Withheld(class.into_owned()),
                };
            }
            "hudson.util.LogTaskListener" | "jenkins.util.BuildListenerAdapter" => view.require("delegate"),
            "org.jenkinsci.plugins.workflow.log.TaskListenerDecorator$CloseableTaskListener" => {
                view.require("mainDelegate")
            }
            "org.jenkinsci.plugins.workflow.steps.durable_task.DurableTaskStep$Execution$NewlineSafeTaskListener" => {
                stages.insert(0, Stage::Newline { ended: true });
                view.require("delegate")
            }
            "org.jenkinsci.plugins.workflow.log.TaskListenerDecorator$DecoratedTaskListener" => {
                match view.require("decorators").map_err(|_| class.clone().into_owned()).and_then(decorators) {
                    Ok(found) => drop(stages.splice(0..0, found)),
                    Err(class) => return Resolved::Withheld(class),
                }
                view.require("delegate")
            }
            _ => return Resolved::Withheld(class.into_owned()),
        };
        match next {
            Ok(next) => view = next,
            Err(_) => return Resolved::Withheld(class.into_owned()),
        }
    }
    Resolved::Withheld(view.class_name().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callables::scripted::{self, Controller};
    use crate::object::{Content, sc};
    use proptest::prelude::*;

    fn mask(secrets: &[&str]) -> Stage {
        let owned: Vec<String> = secrets.iter().map(|&secret| secret.to_owned()).collect();
        mask_stage(&owned, None, "****").ok().flatten().unwrap()
    }

    fn at_epoch() -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn run(stages: Vec<Stage>, chunks: &[&[u8]]) -> Vec<u8> {
        let mut chain = Chain(stages);
        let mut out: Vec<u8> = chunks.iter().flat_map(|chunk| chain.push(chunk)).collect();
        out.extend(chain.finish(true));
        out
    }

    fn contains(text: &[u8], part: &[u8]) -> bool {
        text.windows(part.len()).any(|window| window == part)
    }

    proptest! {
        /// However output is cut into writes, what comes out is the same, and has none of the secrets.
        #[test]
        fn no_chunking_leaks(
            secrets in prop::collection::vec("[abc]{1,5}", 1..5),
            text in "[abc\r\n ]{0,60}",
            cuts in prop::collection::vec(0usize..60, 0..8),
        ) {
            let secrets: Vec<&str> = secrets.iter().map(String::as_str).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &text.as_bytes()[pair[0]..pair[1]]).collect();
            let out = run(vec![mask(&secrets)], &chunks);
            prop_assert_eq!(&out, &run(vec![mask(&secrets)], &[text.as_bytes()]));
            for secret in secrets {
                prop_assert!(!contains(&out, secret.as_bytes()), "{secret:?} in {:?}", out.escape_ascii().to_string());
            }
        }

        /// What is passed on of a line that is too long to hold never ends within a secret.
        #[test]
        fn no_part_of_a_line_leaks(
            secrets in prop::collection::vec("[ab]{1,5}", 1..4),
            text in "[abc]{0,40}",
            cut in 0usize..40,
        ) {
            let secrets: Vec<Vec<u8>> = secrets.into_iter().map(String::into_bytes).collect();
            let mask = Mask::new(secrets.clone(), "*").ok().flatten().unwrap();
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            mask.replace(text.as_bytes(), true, &mut whole);
            let first = &text.as_bytes()[..cut.min(text.len())];
            let done = mask.replace(first, false, &mut parts);
            mask.replace(&text.as_bytes()[done..], true, &mut parts);
            prop_assert_eq!(whole, parts);
        }

        /// `Pattern.quote` and back.
        #[test]
        fn quoted_literals_are_read(secrets in prop::collection::vec("[a\\\\EQ|. ]{1,8}", 0..5)) {
            let quote = |text: &String| format!("\\Q{}\\E", text.replace("\\E", "\\E\\\\E\\Q"));
            let pattern: Vec<String> = secrets.iter().map(quote).collect();
            prop_assert_eq!(literals(&pattern.join("|")).unwrap(), secrets);
        }
    }

    #[test]
    fn patterns_that_are_no_list_of_literals_are_not_understood() {
        assert_eq!(literals("").unwrap(), Vec::<String>::new());
        for pattern in ["secret", "\\Qa\\E|b", "\\Qa", "\\Qa\\E\\Qb\\E", "(\\Qa\\E)", "\\Qa\\E|", "\\Qa\\E\\d+"] {
            assert!(literals(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn masks_lines_longer_than_what_is_held() {
        let mut text = vec![b'x'; MAX_LINE - 3];
        text.extend_from_slice(b"secret");
        text.resize(3 * MAX_LINE, b'y');
        text.extend_from_slice(b"secret\n");
        let out = run(vec![mask(&["secret"])], &[&text]);
        assert!(!contains(&out, b"secret") && !contains(&out, b"sec"));
        assert_eq!(out.len(), text.len() - 4);
    }

    #[test]
    fn timestamps_every_line_once() {
        let stages = || vec![Stage::lines(Act::Timestamp(at_epoch))];
        let out = run(stages(), &[b"a\nb", b"c\r", b"\nd\re"]);
        let stamp = "[1970-01-01T00:00:00.000Z] ";
        assert_eq!(String::from_utf8(out).unwrap(), format!("{stamp}a\n{stamp}bc\r\n{stamp}d\r{stamp}e"));
        let long = run(stages(), &[&vec![b'x'; MAX_LINE + 1]]);
        assert_eq!(long.len(), MAX_LINE + 1 + stamp.len());
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, millis, text) in [
            (0, 0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, 7, "2000-02-29T00:00:00.007Z"),
            (1_709_251_199, 999, "2024-02-29T23:59:59.999Z"),
            (1_795_461_052, 238, "2026-11-23T19:10:52.238Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000Z"),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
            assert_eq!(utc_millis(time), text);
        }
    }

    #[test]
    fn secrets_are_known_in_all_their_forms() {
        let forms = encoded_forms("it's $x\\y^z");
        for form in [
            "it's $x\\y^z",
            "it'\\''s $x\\y^z",
            "'it'\\''s $x\\y^z'",
            "it's $xy^z",
            "it'\"'\"'s $x\\y^z",
            "it's $x\\yz",
        ] {
            assert!(forms.iter().any(|known| known == form), "{form}");
        }
        assert!(forms.iter().any(|known| known == "it's $$x\\y^z"));
        // Base64 of "user:" + secret, as an Authorization header has it: the secret's part does not depend on the rest.
        let secret = "s3cr3t-value";
        for prefix in ["abc", "abcd", "abcde"] {
            let header = base64::engine::general_purpose::STANDARD.encode(format!("{prefix}{secret}!"));
            assert!(encoded_forms(secret).iter().any(|form| header.contains(form.as_str())), "{header}");
        }
        assert!(encoded_forms("ab").iter().all(|form| form.len() >= 3));
    }

    fn object(graph: &mut Graph, class: &str, fields: &[(&'static str, NodeId)]) -> NodeId {
        let declared: Vec<(&'static str, &str)> =
            fields.iter().map(|(name, _)| (*name, "Ljava/lang/Object;")).collect();
        let desc = graph.serializable(class, 1, &declared, None);
        fields.iter().fold(graph.object(desc), |object, (name, node)| object.set_ref(name, *node)).build()
    }

    fn filter(graph: &mut Graph, pattern: &str) -> NodeId {
        let pattern = graph.string(pattern);
        let secret = object(graph, "hudson.util.Secret", &[("value", pattern)]);
        let charset = graph.string("UTF-8");
        let class = "org.jenkinsci.plugins.credentialsbinding.impl.BindingStep$Filter";
        object(graph, class, &[("pattern", secret), ("charsetName", charset)])
    }

    const LOG: &str = "org.jenkinsci.plugins.workflow.log.TaskListenerDecorator";

    fn adapter(graph: &mut Graph, filter: NodeId) -> NodeId {
        object(graph, &format!("{LOG}$ConsoleLogFilterAdapter"), &[("filter", filter)])
    }

    fn decorated(graph: &mut Graph, decorators: &[NodeId]) -> NodeId {
        let ros =
            graph.class_desc("hudson.remoting.RemoteOutputStream", 1, sc::SERIALIZABLE | sc::WRITE_METHOD, &[], None);
        let ros = graph.object(ros).annotate_bytes(ros, vec![0, 0, 0, 15]).build();
        let class = "org.jenkinsci.plugins.workflow.log.BufferedBuildListener$Replacement";
        let base = object(graph, class, &[("ros", ros)]);
        let decorators: Vec<_> = decorators.iter().map(|id| Some(*id)).collect();
        let decorators = graph.array_list(&decorators);
        let fields = [("delegate", base), ("decorators", decorators)];
        let main = object(graph, &format!("{LOG}$DecoratedTaskListener"), &fields);
        let fields = [("mainDelegate", main), ("closeDelegate", base)];
        object(graph, &format!("{LOG}$CloseableTaskListener"), &fields)
    }

    fn written(graph: &Graph, listener: NodeId, text: &str) -> Result<String, String> {
        match resolve(graph.view(listener)) {
            Resolved::Stream { stream, stages, .. } => {
                assert!(stream.is("hudson.remoting.RemoteOutputStream"));
                Ok(String::from_utf8(run(stages, &[text.as_bytes()])).unwrap())
            }
            Resolved::Withheld(class) => Err(class),
            Resolved::Null => Ok(String::new()),
        }
    }

    /// "They are applied in reverse order, so the first one has the final say in what gets printed."
    #[test]
    fn the_first_decorator_has_the_final_say() {
        let mut graph = Graph::default();
        let stamp = object(&mut graph, "hudson.plugins.timestamper.pipeline.GlobalDecorator", &[]);
        let bracket = filter(&mut graph, "\\Q] s\\E");
        let bracket = adapter(&mut graph, bracket);
        let first_masks = decorated(&mut graph, &[bracket, stamp]);
        let last_masks = decorated(&mut graph, &[stamp, bracket]);
        assert!(written(&graph, first_masks, "say\n").unwrap().ends_with("Z****ay\n"));
        assert!(written(&graph, last_masks, "say\n").unwrap().ends_with("Z] say\n"));

        // merge(original, subsequent) has subsequent first; BodyInvoker.mergeConsoleLogFilters the other way round.
        let fields = [("original", stamp), ("subsequent", bracket)];
        let merged = object(&mut graph, &format!("{LOG}$MergedTaskListenerDecorator"), &fields);
        let merged = decorated(&mut graph, &[merged]);
        assert!(written(&graph, merged, "say\n").unwrap().ends_with("Z****ay\n"));
        let one = filter(&mut graph, "\\Qone\\E");
        let stars = filter(&mut graph, "\\Q***\\E|\\Qtwo\\E");
        let fields = [("original", one), ("subsequent", stars)];
        let merged = object(&mut graph, "org.jenkinsci.plugins.workflow.steps.BodyInvoker$MergedFilter", &fields);
        let merged = adapter(&mut graph, merged);
        let merged = decorated(&mut graph, &[merged]);
        // Had the original been written to first, the stars it makes of "one" would be masked again.
        assert_eq!(written(&graph, merged, "one two\n").unwrap(), "**** ****\n");
    }

    /// Filters of build wrappers that a Pipeline may use, by their classes' own field names.
    #[test]
    fn secrets_of_build_wrappers() {
        for class in [
            "org.jenkinsci.plugins.configfiles.buildwrapper.ConfigFileBuildWrapper$SecretFilter",
            "jenkins.plugins.nodejs.NodeJSBuildWrapper$SecretFilter",
        ] {
            let mut graph = Graph::default();
            let [pattern, charset] = ["\\Qs3cret\\E", "UTF-8"].map(|text| graph.string(text));
            let secret = object(&mut graph, "hudson.util.Secret", &[("value", pattern)]);
            let filter = object(&mut graph, class, &[("pattern", secret), ("charset", charset)]);
            let filter = adapter(&mut graph, filter);
            let listener = decorated(&mut graph, &[filter]);
            assert_eq!(written(&graph, listener, "a s3cret\n").unwrap(), "a ****\n", "{class}");
        }
        let mut graph = Graph::default();
        let [password, empty, charset] = ["s3cret", "", "UTF-8"].map(|text| graph.string(text));
        let passwords = graph.array_list(&[Some(password), Some(empty)]);
        let class = "hudson.plugins.sonar.SonarBuildWrapper$SonarQubePasswordLogFilter";
        let filter = object(&mut graph, class, &[("passwords", passwords), ("consoleCharset", charset)]);
        let filter = adapter(&mut graph, filter);
        let listener = decorated(&mut graph, &[filter]);
        assert_eq!(written(&graph, listener, "a s3cret\n").unwrap(), "a ******\n");
    }

    #[test]
    fn what_is_not_understood_writes_nothing() {
        let mut graph = Graph::default();
        let known = filter(&mut graph, "\\Qsecret\\E");
        let known = adapter(&mut graph, known);
        let unknown = object(&mut graph, "com.example.Mystery", &[]);
        let regex = filter(&mut graph, "sec[r]et");
        let fields = [("original", known), ("subsequent", unknown)];
        let merged = object(&mut graph, &format!("{LOG}$MergedTaskListenerDecorator"), &fields);
        let adapted = adapter(&mut graph, regex);
        let filter = "org.jenkinsci.plugins.credentialsbinding.impl.BindingStep$Filter";
        for (decorators, class) in [
            (vec![known, unknown], "com.example.Mystery"),
            (vec![merged], "com.example.Mystery"),
            (vec![adapted], filter),
        ] {
            let listener = decorated(&mut graph, &decorators);
            assert_eq!(written(&graph, listener, "secret\n"), Err(class.to_owned()));
        }
        let listener = object(&mut graph, "com.example.MyListener", &[]);
        assert_eq!(written(&graph, listener, "x\n"), Err("com.example.MyListener".to_owned()));
        let listener = decorated(&mut graph, &[known]);
        assert_eq!(written(&graph, listener, "secret\n").unwrap(), "****\n");
    }

    /// A listener that contains itself is bad input, not a reason to go on for ever.
    #[test]
    fn cycles_end() {
        let mut graph = Graph::default();
        let desc =
            graph.serializable("hudson.util.LogTaskListener", 1, &[("delegate", "Lhudson/model/TaskListener;")], None);
        let cycle = graph.object(desc).build_self_referring("delegate");
        assert_eq!(written(&graph, cycle, "x"), Err("hudson.util.LogTaskListener".to_owned()));
        let desc = graph.serializable(&format!("{LOG}$ConsoleLogFilterAdapter"), 1, &[("filter", "Lx;")], None);
        let cycle = graph.object(desc).build_self_referring("filter");
        let cycle = decorated(&mut graph, &[cycle]);
        assert_eq!(written(&graph, cycle, "x"), Err(format!("{LOG}$ConsoleLogFilterAdapter")));
    }

    #[test]
    fn newline_safe_listeners_end_their_last_line() {
        let mut graph = Graph::default();
        let known = filter(&mut graph, "\\Qsecret\\E");
        let known = adapter(&mut graph, known);
        let listener = decorated(&mut graph, &[known]);
        let class =
            "org.jenkinsci.plugins.workflow.steps.durable_task.DurableTaskStep$Execution$NewlineSafeTaskListener";
        let listener = object(&mut graph, class, &[("delegate", listener)]);
        assert_eq!(written(&graph, listener, "a secret").unwrap(), "a ****\n");
        assert_eq!(written(&graph, listener, "a secret\n").unwrap(), "a ****\n");
        assert_eq!(written(&graph, listener, "").unwrap(), "");
    }

    fn in_memory(tuning: Tuning, stages: Vec<Stage>) -> (Listener, impl Fn() -> String) {
        let memory = Arc::new(Mutex::new(Vec::new()));
        let base = Base::new(Target::Memory(memory.clone()), tuning, Weak::new());
        (Listener::over(base, stages), move || String::from_utf8(lock(&memory).clone()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn output_waits_for_more_but_not_for_long() {
        let tuning = Tuning::read(None).unwrap();
        let (listener, seen) = in_memory(tuning, vec![mask(&["secret"])]);
        listener.write_async(b"a secret\nunfinished sec").await;
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(seen(), "");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(seen(), "a ****\n");
        assert_eq!(listener.held(), 14);
        // A full buffer waits for nothing.
        listener.write_async(format!("ret\n{}\n", "x".repeat(BUFFER)).as_bytes()).await;
        assert!(seen().starts_with("a ****\nunfinished ****\nxxx"));
        listener.write_async(b"the end").await;
        listener.finish_async().await;
        assert!(seen().ends_with("x\nthe end"));
        listener.write_async(b"dropped\n").await;
        drop(listener);
        tokio::task::yield_now().await;
        assert!(seen().ends_with("the enddropped\n"));
    }

    fn activity(timeout: i64) -> (Arc<Activity>, Arc<AtomicI32>) {
        let mut graph = Graph::default();
        let class = "org.jenkinsci.plugins.workflow.steps.TimeoutStepExecution$ConsoleLogFilterImpl2";
        let fields = [("timeout", "J"), ("id", "Ljava/lang/String;")];
        let desc = graph.serializable(class, 1, &fields, None);
        let id = graph.string("an id");
        let filter = graph.object(desc).set("timeout", Value::Long(timeout)).set_ref("id", id).build();
        let activity = Activity::read(graph.view(filter)).unwrap();
        let resets = Arc::new(AtomicI32::new(0));
        let count = resets.clone();
        let _ = activity.reset.set(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        (activity, resets)
    }

    /// No line is without a reset within half the timeout, and there is no more than one in that time.
    #[tokio::test(start_paused = true)]
    async fn output_resets_the_timer_now_and_then() {
        let (activity, resets) = activity(60_000);
        let (listener, seen) = in_memory(Tuning::STREAM, vec![Stage::lines(Act::Activity(activity))]);
        let resets = || resets.load(Ordering::Relaxed);
        let second = Duration::from_secs(1);
        tokio::time::sleep(100 * second).await;
        listener.write_async(b"no line yet").await;
        assert_eq!(resets(), 0, "without output there is none");
        listener.write_async(b"\na\nb\n").await;
        assert_eq!(resets(), 1, "the first line does not wait");
        tokio::time::sleep(29 * second).await;
        assert_eq!(resets(), 1);
        tokio::time::sleep(2 * second).await;
        assert_eq!(resets(), 2, "for the others");
        tokio::time::sleep(300 * second).await;
        assert_eq!(resets(), 2);
        for _ in 0..300 {
            listener.write_async(b"line\n").await;
            tokio::time::sleep(second).await;
        }
        assert_eq!(resets(), 12);
        listener.write_async(b"the end\n").await;
        drop(listener);
        assert_eq!(resets(), 13, "nothing is owed when the listener is gone");
        tokio::time::sleep(300 * second).await;
        assert_eq!(resets(), 13);
        assert!(seen().starts_with("no line yet\na\nb\nline\n"));
    }

    /// A timeout out of all reason is one that resets rarely, or not too often.
    #[tokio::test(start_paused = true)]
    async fn any_timeout_is_taken() {
        for timeout in [i64::MIN, -1, 0, 1] {
            let (activity, resets) = activity(timeout);
            let stage = Stage::lines(Act::Activity(activity));
            let (listener, _) = in_memory(Tuning::STREAM, vec![stage]);
            for _ in 0..1000 {
                listener.write_async(b"line\n").await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!((9..=11).contains(&resets.load(Ordering::Relaxed)), "{resets:?}");
        }
        let (activity, resets) = activity(i64::MAX);
        let (listener, _) = in_memory(Tuning::STREAM, vec![Stage::lines(Act::Activity(activity))]);
        listener.write_async(b"a\nb\n").await;
        tokio::time::sleep(Duration::from_secs(1_000_000)).await;
        assert_eq!(resets.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn the_controller_is_asked_to_reset_the_timer() {
        let mut controller = Controller::new();
        controller.send(|graph| {
            let class = "org.jenkinsci.plugins.workflow.steps.TimeoutStepExecution$ConsoleLogFilterImpl2";
            let desc = graph.serializable(class, 1, &[("timeout", "J"), ("id", "Ljava/lang/String;")], None);
            let id = graph.string("an id");
            let filter = graph.object(desc).set("timeout", Value::Long(600_000)).set_ref("id", id).build();
            let filter = adapter(graph, filter);
            let listener = decorated(graph, &[filter]);
            let words = ["echo", "output"].map(|word| Some(graph.string(word)));
            let cmd = graph.array_list(&words);
            let env = graph.string_array(&[]);
            let references = [
                ("cmd", Some(cmd)),
                ("env", Some(env)),
                ("listener", Some(listener)),
                ("stdoutListener", Some(listener)),
            ];
            let flags = ["reverseStdin", "reverseStdout", "reverseStderr"].map(|name| (name, Value::Bool(false)));
            scripted::object(graph, "hudson.Launcher$RemoteLaunchCallable", &references, &flags)
        });
        controller.until(|controller| !controller.calls.is_empty() && controller.text(15).ends_with("output\n")).await;
        let [(_, call)] = &controller.calls[..] else { panic!("{:?}", controller.calls) };
        let call = call.root().unwrap();
        assert_eq!(call.class_name(), RESET_TIMER);
        assert_eq!(call.hierarchy().collect::<Vec<_>>(), [RESET_TIMER, "jenkins.security.SlaveToMasterCallable"]);
        assert_eq!(call.require_string("id").unwrap(), "an id");
        // Resolved by the receiver's class loader 2.
        let desc = call.graph().class(call.desc().unwrap()).unwrap();
        let Some(Content::Block { data, .. }) = desc.annotation.first() else { panic!("{desc:?}") };
        assert_eq!(call.graph().bytes(data), [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 2]);
    }

    #[test]
    fn without_a_runtime_nothing_waits() {
        let (listener, seen) = in_memory(Tuning::STREAM, Vec::new());
        listener.println("line");
        assert_eq!(seen(), "line\n");
    }
}
