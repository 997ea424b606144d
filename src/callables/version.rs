//! Versions of the controller, which tell the shape of some answers.

use std::cmp::Ordering;

use super::Agent;

impl Agent {
    /// Whether the controller is of this version or a later one; `None` if it did not say its version, or says
    /// something that is none.
    pub fn controller_at_least(&self, version: &str) -> Option<bool> {
        at_least(self.controller_version.as_deref()?, version)
    }
}

fn at_least(actual: &str, wanted: &str) -> Option<bool> {
    Some(compare(&parse(actual)?, &parse(wanted)?) != Ordering::Less)
}

/// A version of Jenkins core: weekly (`2.579`), long-term (`2.361.1`), or not yet released (`2.579-SNAPSHOT`).
#[derive(Debug)]
struct Version {
    numbers: Vec<u64>,
    before_release: bool,
}

fn parse(text: &str) -> Option<Version> {
    let text = text.trim();
    let (release, rest) = text.split_at(text.find(|c: char| c != '.' && !c.is_ascii_digit()).unwrap_or(text.len()));
    let numbers: Vec<u64> = release.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let qualifier = rest.trim_start_matches('-').to_ascii_lowercase();
    let before_release = ["snapshot", "alpha", "beta", "rc"].iter().any(|word| qualifier.starts_with(word));
    Some(Version { numbers, before_release })
}

/// `hudson.util.VersionNumber.compareTo` for versions of core: trailing zeros do not count, and what comes before a
/// release is less than it. Other qualifiers (`2.387.1.3-rolling`) are ignored.
fn compare(left: &Version, right: &Version) -> Ordering {
    let length = left.numbers.len().max(right.numbers.len());
    let padded = |version: &Version| {
        let mut numbers = version.numbers.clone();
        numbers.resize(length, 0);
        numbers
    };
    padded(left).cmp(&padded(right)).then(right.before_release.cmp(&left.before_release))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_version_number_does() {
        for (actual, wanted, expected) in [
            ("2.284", "2.284", Some(true)),
            ("2.283", "2.284", Some(false)),
            ("2.277.4", "2.284", Some(false)),
            ("2.289.1", "2.284", Some(true)),
            ("2.361.1", "2.361", Some(true)),
            ("2.361", "2.361.1", Some(false)),
            ("2.361.0", "2.361", Some(true)),
            ("2.361", "2.361.0", Some(true)),
            ("2.1000", "2.579", Some(true)),
            ("3.0", "2.579", Some(true)),
            ("1.651.3", "2.284", Some(false)),
            ("2.579-SNAPSHOT", "2.578", Some(true)),
            ("2.579-SNAPSHOT", "2.579", Some(false)),
            ("2.579-SNAPSHOT (private-01/02/2027)", "2.579", Some(false)),
            ("2.579-rc36987.abc", "2.579", Some(false)),
            ("2.387.1.3-rolling", "2.387.1", Some(true)),
            (" 2.579 ", "2.579", Some(true)),
            ("", "2.284", None),
            ("?", "2.284", None),
            ("2..3", "2.284", None),
            ("v2.284", "2.284", None),
            ("99999999999999999999999.1", "2.284", None),
        ] {
            assert_eq!(at_least(actual, wanted), expected, "{actual} and {wanted}");
        }
    }
}
