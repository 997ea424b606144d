//! Counts by callable, method and command.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use super::escape;
use super::session::{Direction, Record};
use crate::object::{Graph, Limits, View};

/// Wrappers of callables: the class and the field that holds what is wrapped.
const WRAPPERS: [(&str, &str); 3] = [
    ("hudson.FilePath$FileCallableWrapper", "callable"),
    ("hudson.FilePath$CallableWith", "task"),
    (
        "io.jenkins.plugins.opentelemetry.jenkins.OpenTelemetryTraceContextPropagatorFileCallableWrapperFactory$OTelDelegatingCallable",
        "callable",
    ),
];
/// Wrappers within wrappers that are looked through.
const MAX_WRAPPERS: usize = 8;

#[derive(Default, Clone, Copy)]
struct Count {
    count: u64,
    bytes: u64,
    normal: u64,
    exception: u64,
}

type Key = (Option<Direction>, String);

/// What was seen so far.
#[derive(Default)]
pub(super) struct Summary {
    counts: BTreeMap<Key, Count>,
    /// Requests without a response yet: which way they went, their id, and what they ask for.
    open: HashMap<(Option<Direction>, i32), Key>,
}

impl Summary {
    pub fn add(&mut self, record: &Record, graph: &Graph) {
        let direction = record.place.map(|(_, direction)| direction);
        let root = graph.root();
        let id = root.and_then(|root| root.int("id").ok());
        let is = |class: &str| root.is_some_and(|root| root.hierarchy().any(|name| name == class));
        let key = (direction, root.map_or_else(|| "(no object)".to_owned(), name));
        let entry = self.counts.entry(key.clone()).or_default();
        entry.count += 1;
        entry.bytes += record.bytes.len() as u64;
        if let (true, Some(id)) = (is("hudson.remoting.Request"), id) {
            self.open.insert((direction, id), key);
        } else if let (true, Some(id), Some(root)) = (is("hudson.remoting.Response"), id, root) {
            let request = direction.map(|direction| match direction {
                Direction::ToAgent => Direction::ToController,
                Direction::ToController => Direction::ToAgent,
            });
            let asked = self.open.remove(&(request, id)).and_then(|key| self.counts.get_mut(&key));
            if let Some(asked) = asked {
                *(if is_exception(root) { &mut asked.exception } else { &mut asked.normal }) += 1;
            }
        }
    }

    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut rows: Vec<_> = self.counts.iter().collect();
        rows.sort_by(|a, b| a.0.0.cmp(&b.0.0).then(b.1.count.cmp(&a.1.count)).then(a.0.1.cmp(&b.0.1)));
        let width = rows.iter().map(|((_, name), _)| name.chars().count()).max().unwrap_or(0).max(8);
        let line = |out: &mut dyn Write, cells: [&str; 6]| {
            let [direction, name, count, bytes, normal, exception] = cells;
            writeln!(
                out,
                "| {direction:13} | {name:width$} | {count:>7} | {bytes:>11} | {normal:>7} | {exception:>10} |"
            )
        };
        line(out, ["direction", "what", "count", "bytes", "normal", "exceptions"])?;
        let rule = |dashes: usize, end: &str| format!("{}{end}", "-".repeat(dashes));
        let rules = [rule(13, ""), rule(width, ""), rule(6, ":"), rule(10, ":"), rule(6, ":"), rule(9, ":")];
        line(out, std::array::from_fn(|i| rules[i].as_str()))?;
        for ((direction, name), c) in rows {
            let direction = match direction {
                Some(Direction::ToAgent) => "to agent",
                Some(Direction::ToController) => "to controller",
                None => "",
            };
            let numbers = [c.count, c.bytes, c.normal, c.exception].map(|n| n.to_string());
            let [count, bytes, normal, exception] = &numbers;
            line(out, [direction, name, count, bytes, normal, exception])?;
        }
        Ok(())
    }
}

/// Whether a response carries an exception: of the old shape, the new one (`Capability.supportsProxyExceptionFallback`),
/// or that of a bare request.
fn is_exception(response: View<'_>) -> bool {
    let thrown = response.get("exception").ok().flatten().is_some();
    let returned = response.get("returnValue").ok().flatten();
    thrown
        || returned.is_some_and(|value| {
            value.is("hudson.remoting.UserRequest$ExceptionResponse") || value.bool("isException") == Ok(true)
        })
}

/// What a command asks for, if it is a request; else its class.
fn name(root: View<'_>) -> String {
    if let Some(method) = method(root) {
        return method;
    }
    if root.is("hudson.remoting.UserRequest") {
        let bytes = root.require("request").and_then(View::byte_array);
        let graph = bytes.ok().and_then(|bytes| Graph::decode(bytes, &Limits::default()).ok());
        return graph.as_ref().and_then(Graph::root).map_or_else(
            || "hudson.remoting.UserRequest (unreadable)".to_owned(),
            |callable| method(callable).unwrap_or_else(|| escape(&unwrap(callable).class_name())),
        );
    }
    escape(&root.class_name())
}

/// `interface.method` of a call of an exported object's method.
fn method(request: View<'_>) -> Option<String> {
    let class = request.class_name();
    if !matches!(
        class.as_ref(),
        "hudson.remoting.RemoteInvocationHandler$RPCRequest" | "hudson.remoting.RemoteInvocationHandler$UserRPCRequest"
    ) {
        return None;
    }
    let text = |name| request.string(name).ok().flatten();
    let method = text("methodName")?;
    let interface = text("declaringClassName").unwrap_or_else(|| "?".into());
    Some(format!("{}.{}", escape(&interface), escape(&method)))
}

/// The innermost callable.
fn unwrap(callable: View<'_>) -> View<'_> {
    let mut inner = callable;
    for _ in 0..MAX_WRAPPERS {
        let class = inner.class_name();
        let field = WRAPPERS.iter().find(|(wrapper, _)| *wrapper == class).map(|(_, field)| *field);
        match field.and_then(|field| inner.get(field).ok().flatten()) {
            Some(next) => inner = next,
            None => break,
        }
    }
    inner
}
