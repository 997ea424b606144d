//! What a probe comes to: checks in causal order, and a verdict.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::catalog::CauseId;
use super::facts::Facts;

/// What a check is about. The order is the causal one: what comes later can't work if what comes before does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Category {
    Environment,
    Dns,
    Tcp,
    Tls,
    Mtu,
    Http,
    AgentPort,
    Websocket,
    Authentication,
    Hold,
    Kubernetes,
}

impl Category {
    /// Every category, in causal order.
    pub const ALL: [Category; 11] = [
        Category::Environment,
        Category::Dns,
        Category::Tcp,
        Category::Tls,
        Category::Mtu,
        Category::Http,
        Category::AgentPort,
        Category::Websocket,
        Category::Authentication,
        Category::Hold,
        Category::Kubernetes,
    ];

    /// As a headline.
    pub fn title(self) -> &'static str {
        match self {
            Category::Environment => "Environment",
            Category::Dns => "Name resolution",
            Category::Tcp => "TCP",
            Category::Tls => "TLS",
            Category::Mtu => "Packet size",
            Category::Http => "HTTP",
            Category::AgentPort => "Agent port",
            Category::Websocket => "WebSocket",
            Category::Authentication => "Authentication",
            Category::Hold => "Idle connection",
            Category::Kubernetes => "Kubernetes",
        }
    }
}

/// Whether what a check asks is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is.
    Yes,
    /// It isn't.
    No,
    /// It could not be found out.
    Unknown,
    /// It depends on something that failed.
    Skipped,
}

/// One thing tried, at one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable: `tcp.connect`. The part before the dot is not always the category's name.
    pub id: Cow<'static, str>,
    /// What it is about.
    pub category: Category,
    /// The address, URL, name or path that it was done to; may be empty.
    pub target: String,
    /// What came out.
    pub outcome: Outcome,
    /// Worth saying, but does not keep the agent from connecting.
    pub warning: bool,
    /// With [`Outcome::No`]: of what.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<CauseId>,
    /// What was observed.
    pub seen: String,
    /// What that means; empty where it speaks for itself.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub means: String,
    /// What to do, as one sentence; empty where nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub next_step: String,
    /// How long it took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ms: Option<u64>,
    /// How sure the cause is.
    #[serde(skip)]
    pub confidence: Confidence,
}

impl Check {
    fn new(
        id: &'static str,
        category: Category,
        target: impl Into<String>,
        outcome: Outcome,
        seen: impl Into<String>,
    ) -> Self {
        Check {
            id: Cow::Borrowed(id),
            category,
            target: target.into(),
            outcome,
            warning: false,
            cause: None,
            seen: seen.into(),
            means: String::new(),
            next_step: String::new(),
            ms: None,
            confidence: Confidence::default(),
        }
    }

    /// A check that came out well.
    pub fn yes(id: &'static str, category: Category, target: impl Into<String>, seen: impl Into<String>) -> Self {
        Check::new(id, category, target, Outcome::Yes, seen)
    }

    /// A check that failed because of `cause`.
    pub fn no(
        id: &'static str,
        category: Category,
        target: impl Into<String>,
        cause: CauseId,
        seen: impl Into<String>,
    ) -> Self {
        Check { cause: Some(cause), ..Check::new(id, category, target, Outcome::No, seen) }
    }

    /// A check that told nothing.
    pub fn unknown(id: &'static str, category: Category, target: impl Into<String>, seen: impl Into<String>) -> Self {
        Check::new(id, category, target, Outcome::Unknown, seen)
    }

    /// A check that was not made, and why.
    pub fn skipped(id: &'static str, category: Category, target: impl Into<String>, why: impl Into<String>) -> Self {
        Check::new(id, category, target, Outcome::Skipped, why)
    }

    /// Adds what it means.
    pub fn means(mut self, text: impl Into<String>) -> Self {
        self.means = text.into();
        self
    }

    /// Adds what to do.
    pub fn next(mut self, text: impl Into<String>) -> Self {
        self.next_step = text.into();
        self
    }

    /// Adds how long it took.
    pub fn took(mut self, ms: impl Into<Option<u64>>) -> Self {
        self.ms = ms.into();
        self
    }

    /// Says how sure the cause is.
    pub fn sure(mut self, confidence: Confidence) -> Self {
        self.confidence = confidence;
        self
    }

    /// Does not keep the agent from connecting.
    pub fn warning(mut self) -> Self {
        self.warning = true;
        self
    }

    /// Whether it accuses its cause.
    pub fn accuses(&self) -> Option<CauseId> {
        self.cause.filter(|_| self.outcome == Outcome::No && !self.warning)
    }
}

/// How sure a verdict is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// One explanation of several.
    Possible,
    /// The usual explanation of what was seen.
    #[default]
    Likely,
    /// Nothing else explains what was seen.
    Certain,
}

/// The most probable cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The cause's id, or `ok`.
    pub id: Cow<'static, str>,
    /// What the process ends with.
    pub exit_code: u8,
    /// How sure this is.
    pub confidence: Confidence,
    /// What is wrong, as one sentence.
    pub sentence: String,
    /// What to do, as one sentence; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub next_step: String,
    /// The page to read, within the repository; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub docs: String,
}

impl Verdict {
    /// Nothing stands in the way.
    pub fn ok(sentence: impl Into<String>) -> Self {
        Verdict {
            id: Cow::Borrowed("ok"),
            exit_code: 0,
            confidence: Confidence::Certain,
            sentence: sentence.into(),
            next_step: String::new(),
            docs: String::new(),
        }
    }

    /// A cause was found.
    pub fn of(
        cause: CauseId,
        confidence: Confidence,
        sentence: impl Into<String>,
        next_step: impl Into<String>,
    ) -> Self {
        Verdict {
            id: Cow::Borrowed(cause.id()),
            exit_code: cause.exit_code(),
            confidence,
            sentence: sentence.into(),
            next_step: next_step.into(),
            docs: cause.docs(),
        }
    }

    /// The cause, where one was found.
    pub fn cause(&self) -> Option<CauseId> {
        CauseId::ALL.iter().copied().find(|cause| cause.id() == self.id && *cause != CauseId::Inconclusive)
    }

    /// Whether nothing stands in the way.
    pub fn is_ok(&self) -> bool {
        self.exit_code == 0
    }
}

/// All that a probe has found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The schema's version: 1.
    pub schema: u32,
    /// This agent's version.
    pub agent: Cow<'static, str>,
    /// The most probable cause.
    pub verdict: Verdict,
    /// What was tried, in causal order.
    pub checks: Vec<Check>,
    /// What was observed, of which the checks are the reading.
    pub facts: Facts,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
}
