//! `hudson.EnvVars` and `hudson.Util.replaceMacro`.
//!
//! The map is ordered and looked up without regard to case on every platform, Linux included, because Java's is a
//! `TreeMap` with `String.CASE_INSENSITIVE_ORDER`; the spelling that was put first is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::OnceLock;

/// The most bytes an expansion or an expanded environment may have: more than Linux takes in `execve` (6 MiB).
///
/// Variables that refer to each other several times grow exponentially, so that a small request could ask for any amount.
pub const MAX_EXPANDED_BYTES: usize = 8 << 20;

/// Variables of the agent's own configuration that carry credentials. Neither a launched process nor the controller sees
/// them. The others of the `jenkins/inbound-agent` entrypoint (`JENKINS_URL`, `JENKINS_AGENT_NAME` …) stay: builds use them.
pub const SECRET_VARIABLES: [&str; 2] = ["JENKINS_SECRET", "REMOTING_OPTS"];

/// Variables that mean this process alone: a service manager's, and where this agent listens. What a build starts must
/// not take them for its own.
pub const OWN_VARIABLES: [&str; 4] = ["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "JENKINS_AGENT_HEALTH_ADDRESS"];

/// An expansion that would be larger than [`MAX_EXPANDED_BYTES`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("expanding environment variables gives more than {MAX_EXPANDED_BYTES} bytes")]
pub struct TooLarge;

/// `hudson.EnvVars`: variables by name, names compared without regard to case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvVars {
    entries: BTreeMap<Folded, (String, String)>,
}

/// A name by which variables are ordered: Java's `String.CASE_INSENSITIVE_ORDER` compares its characters (UTF-16 units) in
/// this form.
type Folded = Vec<u16>;

fn folded(name: &str) -> Folded {
    name.encode_utf16().map(fold).collect()
}

/// `Character.toLowerCase(Character.toUpperCase(unit))` with Java's simple (one to one) mappings.
fn fold(unit: u16) -> u16 {
    fn single(c: char, mut mapped: impl Iterator<Item = char>) -> char {
        match (mapped.next(), mapped.next()) {
            (Some(one), None) => one,
            _ => c,
        }
    }
    let Some(c) = char::from_u32(u32::from(unit)) else {
        return unit;
    };
    let upper = single(c, c.to_uppercase());
    let lower = single(upper, upper.to_lowercase());
    u16::try_from(u32::from(lower)).unwrap_or(unit)
}

impl EnvVars {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// The environment that the agent was started with, less [`SECRET_VARIABLES`] and [`OWN_VARIABLES`]; read once, at the first call.
    ///
    /// `EnvVars.masterEnvVars`, which despite its name is the agent's on an agent.
    pub fn agent() -> &'static EnvVars {
        static AGENT: OnceLock<EnvVars> = OnceLock::new();
        AGENT.get_or_init(|| Self::without_secrets(std::env::vars_os()))
    }

    /// The given variables less those. Bytes that are no UTF-8 are replaced, as Java does.
    fn without_secrets(variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut env: Self = variables
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        for name in SECRET_VARIABLES.iter().chain(&OWN_VARIABLES) {
            env.remove(name);
        }
        env
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.entries.get(&folded(name)).map(|(_, value)| value.as_str())
    }

    /// Sets a variable. One that differs only in case keeps its spelling and gets the value, as in a `TreeMap`.
    pub fn put(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let name = name.into();
        let entry = self.entries.entry(folded(&name));
        entry.or_insert((name, String::new())).1 = value.into();
    }

    /// Removes a variable and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        self.entries.remove(&folded(name)).map(|(_, value)| value)
    }

    /// Takes `NAME=value`; a line without `=`, or with nothing before it, is ignored (`EnvVars.addLine`).
    pub fn add_line(&mut self, line: &str) {
        if let Some((name, value)) = line.split_once('=')
            && !name.is_empty()
        {
            self.put(name, value);
        }
    }

    /// All variables in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.values().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many variables there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `EnvVars.override`: an empty value removes, `PATH+ANYTHING` is prepended to `PATH`.
    pub fn override_with(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            self.remove(name);
            return;
        }
        match name.split_once('+') {
            Some((real, _)) if !real.is_empty() => match self.get(real) {
                Some(old) => {
                    let joined = format!("{value}:{old}");
                    self.put(real, joined);
                }
                None => self.put(real, value),
            },
            _ => self.put(name, value),
        }
    }

    /// `EnvVars.overrideExpandingAll`: overrides with references resolved, a variable after those that it refers to and
    /// `PATH+X` last.
    ///
    /// Where Java applies an override twice because it is referred to in another spelling (`${Path}` and `PATH`), it is
    /// applied once here.
    ///
    /// # Errors
    /// [`TooLarge`]; `self` is then partly changed.
    pub fn override_expanding_all(&mut self, all: &EnvVars) -> Result<(), TooLarge> {
        let mut total: usize = self.iter().map(|(n, v)| n.len() + v.len()).sum();
        for (name, value) in override_order(self, all) {
            let value = self.expand(value)?;
            // What is replaced isn't subtracted: no real environment comes near the limit.
            total += name.len() + value.len();
            if total > MAX_EXPANDED_BYTES {
                return Err(TooLarge);
            }
            self.override_with(name, &value);
        }
        Ok(())
    }

    /// `EnvVars.expand`: [`replace_macro`] against these variables.
    ///
    /// # Errors
    /// [`TooLarge`].
    pub fn expand(&self, text: &str) -> Result<String, TooLarge> {
        replace_macro(text, |name| self.get(name))
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for EnvVars {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let mut env = Self::new();
        for (name, value) in variables {
            env.put(name, value);
        }
        env
    }
}

/// What a `$` begins in a text (`hudson.Util.VARIABLE`).
enum Macro<'a> {
    Dollar,
    Reference(&'a str),
}

/// Parses what follows a `$` and tells how many bytes of it belong to the macro.
fn parse_macro(after: &str) -> Option<(Macro<'_>, usize)> {
    let name_length = |s: &str, dots: bool| {
        s.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_' || (dots && *b == b'.')).count()
    };
    match after.as_bytes().first()? {
        b'$' => Some((Macro::Dollar, 1)),
        b'{' => {
            let inner = &after[1..];
            let length = name_length(inner, true);
            (length > 0 && inner.as_bytes().get(length) == Some(&b'}'))
                .then(|| (Macro::Reference(&inner[..length]), length + 2))
        }
        _ => {
            let length = name_length(after, false);
            (length > 0).then(|| (Macro::Reference(&after[..length]), length))
        }
    }
}

/// `hudson.Util.replaceMacro`: `$NAME`, `${NAME.WITH.DOTS}` and `$$`. An unknown name stays as it is, and values are not
/// expanded again.
///
/// # Errors
/// [`TooLarge`].
pub fn replace_macro<'v>(text: &str, mut resolve: impl FnMut(&str) -> Option<&'v str>) -> Result<String, TooLarge> {
    let mut out = String::with_capacity(text.len().min(MAX_EXPANDED_BYTES));
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        match parse_macro(&from[1..]) {
            None => {
                out.push('$');
                rest = &from[1..];
            }
            Some((found, length)) => {
                let (literal, after) = from.split_at(1 + length);
                out.push_str(match found {
                    Macro::Dollar => "$",
                    Macro::Reference(name) => resolve(name).unwrap_or(literal),
                });
                rest = after;
            }
        }
        if out.len() > MAX_EXPANDED_BYTES {
            return Err(TooLarge);
        }
    }
    out.push_str(rest);
    if out.len() > MAX_EXPANDED_BYTES {
        return Err(TooLarge);
    }
    Ok(out)
}

/// How many steps the search for cycles may take before further cycles are left uncut.
///
/// Every cut begins the search anew, which is quadratic for a request that consists of cycles. No real one comes near.
const CYCLE_SEARCH_STEPS: usize = 1 << 20;

/// `EnvVars.OverrideOrderCalculator`: the overrides in the order in which they are to be applied.
fn override_order<'a>(target: &EnvVars, overrides: &'a EnvVars) -> Vec<(&'a str, &'a str)> {
    let keys: Vec<&Folded> = overrides.entries.keys().collect();
    let pairs: Vec<(&str, &str)> = overrides.iter().collect();
    let (extending, plain): (Vec<usize>, Vec<usize>) =
        (0..pairs.len()).partition(|&at| matches!(pairs[at].0.find('+'), Some(plus) if plus > 0));
    let mut references: Vec<Vec<usize>> = vec![Vec::new(); pairs.len()];
    for &at in &plain {
        let mut found_here = BTreeSet::new();
        let mut rest = pairs[at].1;
        while let Some(dollar) = rest.find('$') {
            rest = &rest[dollar + 1..];
            if let Some((found, length)) = parse_macro(rest) {
                rest = &rest[length..];
                if let Macro::Reference(name) = found
                    && let Ok(to) = keys.binary_search(&&folded(name))
                    && to != at
                {
                    found_here.insert(to);
                }
            }
        }
        references[at] = found_here.into_iter().collect();
    }

    let mut steps = 0;
    let mut cuts = 0;
    let mut order = loop {
        match sort_by_references(&plain, &references, &mut steps) {
            Ok(order) => break order,
            Err(cycle) => cut_cycle(target, &pairs, &mut references, &cycle),
        }
        cuts += 1;
    };
    if cuts > 0 {
        tracing::warn!(
            cuts,
            "environment variables refer to each other in a circle; some references are ignored for their order"
        );
    }
    order.extend(extending);
    order.into_iter().map(|at| pairs[at]).collect()
}

/// `hudson.util.CyclicGraphDetector` without recursion: nodes after those they refer to, or the first cycle (which begins
/// and ends with the same node).
fn sort_by_references(nodes: &[usize], references: &[Vec<usize>], steps: &mut usize) -> Result<Vec<usize>, Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    *steps += references.len();
    let mut marks = vec![Mark::New; references.len()];
    let mut order = Vec::with_capacity(nodes.len());
    let mut path: Vec<(usize, usize)> = Vec::new();
    for &start in nodes {
        if marks[start] != Mark::New {
            continue;
        }
        marks[start] = Mark::Open;
        path.push((start, 0));
        while let Some((node, next)) = path.last_mut() {
            *steps += 1;
            let Some(&to) = references[*node].get(*next) else {
                marks[*node] = Mark::Done;
                order.push(*node);
                path.pop();
                continue;
            };
            *next += 1;
            match marks[to] {
                Mark::New => {
                    marks[to] = Mark::Open;
                    path.push((to, 0));
                }
                Mark::Open if *steps < CYCLE_SEARCH_STEPS => {
                    let from = path.iter().position(|&(n, _)| n == to).unwrap_or(0);
                    let mut cycle: Vec<usize> = path[from..].iter().map(|&(n, _)| n).collect();
                    cycle.push(to);
                    return Err(cycle);
                }
                Mark::Open | Mark::Done => {}
            }
        }
    }
    Ok(order)
}

/// `OverrideOrderCalculator.cutCycle`: the reference to the first variable of the cycle that has a value already, or else
/// to the first one, is dropped.
fn cut_cycle(target: &EnvVars, overrides: &[(&str, &str)], references: &mut [Vec<usize>], cycle: &[usize]) {
    let name = |at: usize| overrides[at].0;
    let referee = cycle.iter().copied().find(|&at| target.get(name(at)).is_some()).unwrap_or(cycle[0]);
    // The first is also the last, so that there is always one before the last appearance.
    let last = cycle.iter().rposition(|&at| at == referee).unwrap_or(1);
    let referrer = cycle[last.saturating_sub(1)];
    references[referrer].retain(|&to| to != referee);
    tracing::debug!(variable = name(referrer), refers_to = name(referee), "cut a circle of environment variables");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn env(pairs: &[(&str, &str)]) -> EnvVars {
        pairs.iter().copied().collect()
    }

    /// hudson.UtilTest.testReplaceMacro, and what its pattern says beside that.
    #[test]
    fn replaces_macros_as_java_does() {
        // A HashMap in Java's test, so case matters there.
        let table = |name: &str| match name {
            "A" => Some("a"),
            "A.B" => Some("a-b"),
            "AA" => Some("aa"),
            "B" => Some("B"),
            "DOLLAR" => Some("$"),
            "ENCLOSED" => Some("a${A}"),
            _ => None,
        };
        for (text, expected) in [
            ("$AA", "aa"),
            ("$AAB", "$AAB"),
            ("${AA}B", "aaB"),
            ("${AAB}", "${AAB}"),
            ("asd$$$${AA}dd", "asd$${AA}dd"),
            ("$$", "$"),
            ("$$$$", "$$"),
            ("$A.B", "a.B"),
            ("${A.B}", "a-b"),
            ("/$A/$B/$AA", "/a/B/aa"),
            ("$A-$AA", "a-aa"),
            ("/$A/foo/can/$B/you-believe_$AA~it?", "/a/foo/can/B/you-believe_aa~it?"),
            ("$$$DOLLAR${AA}$$B${ENCLOSED}$it", "$$aa$Ba${A}$it"),
            ("", ""),
            ("$", "$"),
            ("${", "${"),
            ("${}", "${}"),
            ("${A", "${A"),
            ("${A$A}", "${Aa}"),
            ("${A-B}$A", "${A-B}a"),
            ("$ü$A", "$üa"),
            ("$?$A$", "$?a$"),
        ] {
            assert_eq!(replace_macro(text, table).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn names_are_compared_without_case_and_keep_their_first_spelling() {
        let mut vars = env(&[("Path", "A:B:C")]);
        assert_eq!(vars.get("PATH"), Some("A:B:C"));
        vars.put("PATH", "D");
        assert_eq!(vars.iter().collect::<Vec<_>>(), [("Path", "D")]);
        vars.put("b_", "1");
        vars.put("BA", "2");
        // `_` lies between the cases in ASCII; Java compares lower case.
        assert_eq!(vars.iter().map(|(n, _)| n).collect::<Vec<_>>(), ["b_", "BA", "Path"]);
    }

    #[test]
    fn overrides() {
        let mut vars = env(&[("PATH", "/bin"), ("GONE", "x")]);
        vars.override_with("PATH+MAVEN", "/maven/bin");
        vars.override_with("NEW+X", "/new");
        vars.override_with("GONE", "");
        vars.override_with("+ODD", "v");
        assert_eq!(vars, env(&[("PATH", "/maven/bin:/bin"), ("NEW", "/new"), ("+ODD", "v")]));
        vars.override_with("path+A", "/a");
        assert_eq!(vars.get("PATH"), Some("/a:/maven/bin:/bin"));
        // The name is removed as it stands, so an empty PATH+X changes nothing.
        vars.override_with("PATH+A", "");
        assert_eq!(vars.get("PATH"), Some("/a:/maven/bin:/bin"));
    }

    #[test]
    fn lines() {
        let mut vars = EnvVars::new();
        for line in ["A=b=c", "=x", "nothing", "E="] {
            vars.add_line(line);
        }
        assert_eq!(vars, env(&[("A", "b=c"), ("E", "")]));
    }

    /// hudson.EnvVarsTest.overrideExpandingAll
    #[test]
    fn overrides_expanding() {
        let mut vars = env(&[("PATH", "orig"), ("A", "Value1")]);
        vars.override_expanding_all(&env(&[
            ("PATH", "append:${PATH}"),
            ("B", "${A}Value2"),
            ("C", "${B}${D}"),
            ("D", "${E}"),
            ("E", "Value3"),
            ("PATH+TEST", "another"),
            ("PRICE", "5$$"),
        ]))
        .unwrap();
        assert_eq!(vars.get("C"), Some("Value1Value2Value3"));
        assert_eq!(vars.get("PATH"), Some("another:append:orig"));
        assert_eq!(vars.get("PRICE"), Some("5$"));
    }

    /// hudson.EnvVarsTest.overrideOrderCalculator*
    #[test]
    fn order_of_overrides() {
        type Pairs = &'static [(&'static str, &'static str)];
        let cases: [(Pairs, Pairs, &[&str]); 6] = [
            (
                &[],
                &[
                    ("A", "NoReference"),
                    ("A+B", "NoReference"),
                    ("B", "Refer1${A}"),
                    ("C", "Refer2${B}"),
                    ("D", "Refer3${B}${Nosuch}"),
                ],
                &["A", "B", "C", "D", "A+B"],
            ),
            (
                &[],
                &[("A", "x"), ("B", "${A}"), ("C", "${B}"), ("D", "${E}"), ("E", "${C}")],
                &["A", "B", "C", "E", "D"],
            ),
            (&[], &[("A", "x"), ("B", "${A}"), ("C", "${A}${B}")], &["A", "B", "C"]),
            (&[], &[("PATH", "some;${PATH}")], &["PATH"]),
            (
                &[("C", "Existing")],
                &[("A", "${B}"), ("B", "${C}"), ("C", "${A}"), ("D", "${C}${E}"), ("E", "${C}${D}")],
                &["B", "A", "C", "E", "D"],
            ),
            (&[], &[("A", "$b"), ("B", "x")], &["B", "A"]),
        ];
        for (target, overrides, expected) in cases {
            let overrides = env(overrides);
            let order: Vec<&str> = override_order(&env(target), &overrides).into_iter().map(|(name, _)| name).collect();
            assert_eq!(order, expected);
        }
    }

    #[test]
    fn growth_is_bounded() {
        let mut bomb = env(&[("V00", &"x".repeat(1024))]);
        for i in 1..40 {
            bomb.put(format!("V{i:02}"), format!("$V{0:02}$V{0:02}", i - 1));
        }
        assert_eq!(EnvVars::new().override_expanding_all(&bomb), Err(TooLarge));
    }

    #[test]
    fn long_chains_and_many_cycles_end() {
        let chain: EnvVars = (0..20_000).map(|i| (format!("V{i:05}"), format!("$V{:05}", i + 1))).collect();
        let order = override_order(&EnvVars::new(), &chain);
        assert_eq!(order.first().map(|(name, _)| *name), Some("V19999"));

        let everyone: String = (0..100).map(|i| format!("$V{i:03}")).collect();
        let tangle: EnvVars = (0..100).map(|i| (format!("V{i:03}"), everyone.clone())).collect();
        assert_eq!(override_order(&EnvVars::new(), &tangle).len(), 100);
    }

    #[test]
    fn secrets_of_the_agent_are_not_passed_on() {
        let given = [("JENKINS_SECRET", "s"), ("jenkins_secret", "t"), ("NOTIFY_SOCKET", "@n"), ("HOME", "/h")];
        let vars = EnvVars::without_secrets(given.iter().map(|&(n, v)| (OsString::from(n), v.into())));
        assert_eq!(vars, env(&[("HOME", "/h")]));
    }

    proptest! {
        #[test]
        fn doubled_dollars_block_expansion(text in "[$A{}. a]{0,40}") {
            // What durable-task relies on (JENKINS-40734).
            let vars = env(&[("A", "value")]);
            prop_assert_eq!(vars.expand(&text.replace('$', "$$")).unwrap(), text);
        }

        #[test]
        fn every_override_is_applied_once(
            pairs in proptest::collection::vec(("[A-Fa-f+]{1,2}", "[$A-F{}]{0,6}"), 0..12),
        ) {
            let overrides: EnvVars = pairs.into_iter().collect();
            let mut order = override_order(&env(&[("A", "x")]), &overrides);
            order.sort_unstable();
            let mut all: Vec<_> = overrides.iter().collect();
            all.sort_unstable();
            prop_assert_eq!(order, all);
        }
    }
}
