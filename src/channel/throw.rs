//! Java exceptions, as handlers throw them and as responses carry them.

use std::io;
use std::path::Path;

use thiserror::Error;

use crate::object::{AccessError, Graph, NodeId, Value, sc};

/// Classes of exceptions that this agent sends: known to every controller's class filter, which takes any exception of
/// the JDK, core or a plugin, and with a `serialVersionUID` that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ThrowClass {
    /// `java.io.IOException`
    Io,
    /// `java.io.FileNotFoundException`
    FileNotFound,
    /// `java.io.InterruptedIOException`
    InterruptedIo,
    /// `java.nio.file.FileSystemException`; the message is the file
    FileSystem,
    /// `java.nio.file.NoSuchFileException`; the message is the file
    NoSuchFile,
    /// `java.nio.file.AccessDeniedException`; the message is the file
    AccessDenied,
    /// `java.lang.InterruptedException`
    Interrupted,
    /// `java.lang.IllegalStateException`
    IllegalState,
    /// `java.lang.IllegalArgumentException`
    IllegalArgument,
    /// `java.lang.UnsupportedOperationException`
    UnsupportedOperation,
    /// `java.lang.ClassNotFoundException`
    ClassNotFound,
    /// `hudson.AbortException`: builds print its message alone, without a stack trace
    Abort,
    /// `hudson.plugins.git.GitException`, a class of the git-client plugin: to be thrown only at requests of its own
    Git,
    /// `hudson.plugins.git.GitLockFailedException`, as [`ThrowClass::Git`]
    GitLockFailed,
}

/// An exception thrown by a callable.
#[derive(Clone, Debug, Error)]
#[error("{}{}", self.class_name(), self.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
pub struct Throw {
    /// Its class.
    pub class: ThrowClass,
    /// Its message (`Throwable.getMessage`); for [`ThrowClass::FileSystem`] and its kin: the file.
    pub message: Option<String>,
    /// Of [`ThrowClass::FileSystem`] and its kin: the reason.
    pub reason: Option<String>,
    /// Its cause.
    #[source]
    pub cause: Option<Box<Throw>>,
}

impl Throw {
    /// An exception of this class with a message.
    pub fn new(class: ThrowClass, message: impl Into<String>) -> Throw {
        Throw { class, message: Some(message.into()), reason: None, cause: None }
    }

    /// A `java.io.IOException`.
    pub fn io(message: impl Into<String>) -> Throw {
        Throw::new(ThrowClass::Io, message)
    }

    /// A `hudson.AbortException`: what is the user's to mend, said in one line.
    pub fn abort(message: impl Into<String>) -> Throw {
        Throw::new(ThrowClass::Abort, message)
    }

    /// A `java.lang.InterruptedException`: the controller cancelled the call.
    pub fn interrupted() -> Throw {
        Throw { class: ThrowClass::Interrupted, message: None, reason: None, cause: None }
    }

    /// Gives the exception a cause.
    #[must_use]
    pub fn caused_by(mut self, cause: Throw) -> Throw {
        self.cause = Some(Box::new(cause));
        self
    }

    /// What `java.nio.file.Files` throws for a failed operation on `path`.
    pub fn file(error: &io::Error, path: &Path) -> Throw {
        let class = match error.kind() {
            io::ErrorKind::NotFound => ThrowClass::NoSuchFile,
            io::ErrorKind::PermissionDenied => ThrowClass::AccessDenied,
            _ => ThrowClass::FileSystem,
        };
        let reason = (class == ThrowClass::FileSystem).then(|| plain(error));
        Throw { class, message: Some(path.display().to_string()), reason, cause: None }
    }

    /// Name of the Java class.
    pub fn class_name(&self) -> &'static str {
        match self.class {
            ThrowClass::Io => "java.io.IOException",
            ThrowClass::FileNotFound => "java.io.FileNotFoundException",
            ThrowClass::InterruptedIo => "java.io.InterruptedIOException",
            ThrowClass::FileSystem => "java.nio.file.FileSystemException",
            ThrowClass::NoSuchFile => "java.nio.file.NoSuchFileException",
            ThrowClass::AccessDenied => "java.nio.file.AccessDeniedException",
            ThrowClass::Interrupted => "java.lang.InterruptedException",
            ThrowClass::IllegalState => "java.lang.IllegalStateException",
            ThrowClass::IllegalArgument => "java.lang.IllegalArgumentException",
            ThrowClass::UnsupportedOperation => "java.lang.UnsupportedOperationException",
            ThrowClass::ClassNotFound => "java.lang.ClassNotFoundException",
            ThrowClass::Abort => "hudson.AbortException",
            ThrowClass::Git => "hudson.plugins.git.GitException",
            ThrowClass::GitLockFailed => "hudson.plugins.git.GitLockFailedException",
        }
    }

    /// What `Throwable.toString` says.
    pub fn java_string(&self) -> String {
        match (&self.message, &self.reason) {
            (Some(message), Some(reason)) => format!("{}: {message}: {reason}", self.class_name()),
            (Some(message), None) => format!("{}: {message}", self.class_name()),
            _ => self.class_name().to_owned(),
        }
    }

    /// Adds this exception, and its causes, to a graph.
    pub fn build(&self, graph: &mut Graph) -> NodeId {
        let mut chain = vec![self];
        while let Some(cause) = chain.last().and_then(|throw| throw.cause.as_deref()) {
            chain.push(cause);
        }
        let mut built = None;
        for throw in chain.into_iter().rev() {
            let desc = throw.desc(graph);
            let is_file =
                matches!(throw.class, ThrowClass::FileSystem | ThrowClass::NoSuchFile | ThrowClass::AccessDenied);
            // FileSystemException passes the reason to Throwable and keeps the file in a field of its own.
            let detail = if is_file { &throw.reason } else { &throw.message };
            let detail = detail.as_ref().map(|text| graph.string(text));
            let file = throw.message.as_ref().filter(|_| is_file).map(|text| graph.string(text));
            built = Some(throwable(graph, desc, detail, built, file));
        }
        built.unwrap_or_else(|| graph.string("unreachable: a chain has at least one exception"))
    }

    fn desc(&self, graph: &mut Graph) -> NodeId {
        let exception = exception_desc(graph);
        let runtime = |graph: &mut Graph| {
            graph.serializable("java.lang.RuntimeException", -7034897190745766939, &[], Some(exception))
        };
        let io =
            |graph: &mut Graph| graph.serializable("java.io.IOException", 7818375828146090155, &[], Some(exception));
        let name = self.class_name();
        match self.class {
            ThrowClass::Io => io(graph),
            ThrowClass::FileNotFound => {
                let parent = io(graph);
                graph.serializable(name, -897856973823710492, &[], Some(parent))
            }
            ThrowClass::InterruptedIo => {
                let parent = io(graph);
                graph.serializable(name, 4020568460727500567, &[("bytesTransferred", "I")], Some(parent))
            }
            ThrowClass::FileSystem | ThrowClass::NoSuchFile | ThrowClass::AccessDenied => {
                let parent = io(graph);
                let fields = [("file", "Ljava/lang/String;"), ("other", "Ljava/lang/String;")];
                let base = "java.nio.file.FileSystemException";
                let base = graph.serializable(base, -3055425747967319812, &fields, Some(parent));
                match self.class {
                    ThrowClass::NoSuchFile => graph.serializable(name, -1390291775875351931, &[], Some(base)),
                    ThrowClass::AccessDenied => graph.serializable(name, 4943049599949219617, &[], Some(base)),
                    _ => base,
                }
            }
            ThrowClass::Interrupted => graph.serializable(name, 6700697376100628473, &[], Some(exception)),
            ThrowClass::IllegalState => {
                let parent = runtime(graph);
                graph.serializable(name, -1848914673093119416, &[], Some(parent))
            }
            ThrowClass::IllegalArgument => {
                let parent = runtime(graph);
                graph.serializable(name, -5365630128856068164, &[], Some(parent))
            }
            ThrowClass::UnsupportedOperation => {
                let parent = runtime(graph);
                graph.serializable(name, -1242599979055084673, &[], Some(parent))
            }
            ThrowClass::ClassNotFound => {
                let base = "java.lang.ReflectiveOperationException";
                let base = graph.serializable(base, 123456789, &[], Some(exception));
                graph.serializable(name, 9176873029745254542, &[("ex", "Ljava/lang/Throwable;")], Some(base))
            }
            ThrowClass::Abort => {
                let parent = io(graph);
                graph.serializable(name, 1, &[], Some(parent))
            }
            ThrowClass::Git | ThrowClass::GitLockFailed => {
                let parent = runtime(graph);
                let git = graph.serializable("hudson.plugins.git.GitException", 1, &[], Some(parent));
                match self.class {
                    ThrowClass::GitLockFailed => graph.serializable(name, 1, &[], Some(git)),
                    _ => git,
                }
            }
        }
    }
}

/// The message of an IO error without Rust's own additions ("(os error 2)"), as Java's messages have it.
pub fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

/// A text of the controller's for a line of the log: without control characters, which could forge other lines or
/// drive a terminal, and not longer than a line should be.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 1_000;
    let mut out = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LONGEST {
            out.push_str("...");
            break;
        }
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

fn exception_desc(graph: &mut Graph) -> NodeId {
    let fields = [
        ("cause", "Ljava/lang/Throwable;"),
        ("detailMessage", "Ljava/lang/String;"),
        ("stackTrace", "[Ljava/lang/StackTraceElement;"),
        ("suppressedExceptions", "Ljava/util/List;"),
    ];
    let flags = sc::SERIALIZABLE | sc::WRITE_METHOD;
    let throwable = graph.class_desc("java.lang.Throwable", -3042686055658047285, flags, &fields, None);
    graph.serializable("java.lang.Exception", -3387516993124229948, &[], Some(throwable))
}

fn throwable(
    graph: &mut Graph,
    desc: NodeId,
    message: Option<NodeId>,
    cause: Option<NodeId>,
    file: Option<NodeId>,
) -> NodeId {
    let trace = graph.array("[Ljava.lang.StackTraceElement;", 163864874655228473, &[]);
    let empty = graph.serializable("java.util.Collections$EmptyList", 8842843931221139166, &[], None);
    let suppressed = graph.object(empty).build();
    let object = graph
        .object(desc)
        .set_ref("detailMessage", message)
        .set_ref("stackTrace", trace)
        .set_ref("suppressedExceptions", suppressed)
        .set("file", Value::Ref(file));
    match cause {
        Some(cause) => object.set_ref("cause", cause).build(),
        // Throwable's own mark for "no cause was given".
        None => object.build_self_referring("cause"),
    }
}

/// A `hudson.remoting.ProxyException` that stands for `throw` where its class can't be resolved.
///
/// Its `serialVersionUID` is computed by the JVM, the same from remoting 4.7 to 3386.
pub fn proxy_exception(throw: &Throw, graph: &mut Graph) -> NodeId {
    let exception = exception_desc(graph);
    let io = graph.serializable("java.io.IOException", 7818375828146090155, &[], Some(exception));
    let desc = graph.serializable("hudson.remoting.ProxyException", 1332793125360580541, &[], Some(io));
    let mut chain = vec![throw];
    while let Some(cause) = chain.last().and_then(|throw| throw.cause.as_deref()) {
        chain.push(cause);
    }
    let mut built = None;
    for throw in chain.into_iter().rev() {
        // ProxyException's message is the original's toString.
        let message = graph.string(&throw.java_string());
        built = Some(throwable(graph, desc, Some(message), built, None));
    }
    built.unwrap_or_else(|| graph.string("unreachable: a chain has at least one exception"))
}

/// Why a stream that a call has opened fails once the controller has cancelled that call.
///
/// It comes inside an [`io::Error`] of the kind `ConnectionAborted`, and not as `Interrupted`: that is what the standard
/// library's loops take for a reason to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the call was cancelled")]
pub struct Cancelled;

impl Cancelled {
    /// Whether this is why something failed.
    pub fn is_why(error: &io::Error) -> bool {
        error.get_ref().is_some_and(|inner| inner.is::<Cancelled>())
    }
}

impl From<Cancelled> for io::Error {
    fn from(cancelled: Cancelled) -> io::Error {
        io::Error::new(io::ErrorKind::ConnectionAborted, cancelled)
    }
}

impl From<io::Error> for Throw {
    fn from(error: io::Error) -> Throw {
        if Cancelled::is_why(&error) { Throw::interrupted() } else { Throw::io(plain(&error)) }
    }
}

impl From<AccessError> for Throw {
    fn from(error: AccessError) -> Throw {
        Throw::io(format!("this agent does not understand the request: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard library's loops go on after `Interrupted`.
    #[test]
    fn a_cancelled_call_is_an_error_that_loops_end_at() {
        struct Stream;
        impl io::Write for Stream {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(Cancelled.into())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = io::copy(&mut &b"contents"[..], &mut io::BufWriter::with_capacity(1, Stream)).unwrap_err();
        assert_eq!(Throw::from(error).class, ThrowClass::Interrupted);
        let aborted = io::Error::from(io::ErrorKind::ConnectionAborted);
        assert_eq!(Throw::from(aborted).class, ThrowClass::Io);
    }
}
