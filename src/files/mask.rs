//! Why a file mask matches nothing: `FilePath.validateAntFileMask`, its algorithm and its messages.

use std::path::Path;
use std::time::{Duration, Instant};

use super::glob::{Glob, Options, tokens};
use super::{Cancel, Error, Result};

/// How long a bounded search may take (`ValidateAntFileMask.hasMatch`).
const BOUNDED_TIME: Duration = Duration::from_millis(5000);

/// Explains which of the comma separated patterns matches nothing below `dir`, and guesses what was meant; `None` if
/// each of them matches.
///
/// `bound` limits each of the searches to roughly that many comparisons and to five seconds, and
/// [`Error::BoundReached`] says that there was no answer within that. `i32::MAX` means no limit, as in Java. The
/// messages are those of core's English `hudson/Messages.properties`.
pub fn validate_file_mask(
    dir: &Path,
    masks: &str,
    case_sensitive: bool,
    bound: i32,
    cancel: Cancel<'_>,
) -> Result<Option<String>> {
    if masks.starts_with('~') {
        return Ok(Some("‘~’ is only supported in a Unix shell and nowhere else.".to_owned()));
    }
    let search = Search { dir, bound: u32::try_from(bound).unwrap_or(0), cancel };
    for mask in tokens(masks) {
        if let Some(message) = search.explain(mask, case_sensitive)? {
            return Ok(Some(message));
        }
    }
    Ok(None)
}

struct Search<'a> {
    dir: &'a Path,
    bound: u32,
    cancel: Cancel<'a>,
}

impl Search<'_> {
    fn explain(&self, mask: &str, case_sensitive: bool) -> Result<Option<String>> {
        if self.has_match(mask, case_sensitive)? {
            return Ok(None);
        }
        if case_sensitive && self.has_match(mask, false)? {
            return Ok(Some(format!(
                "‘{mask}’ doesn’t match anything because it is treated case sensitively. \
                 You can deactivate case sensitivity to get matches"
            )));
        }
        if mask.contains(' ') {
            let mut all = true;
            for token in mask.split_ascii_whitespace() {
                all &= self.has_match(token, case_sensitive)?;
            }
            if all {
                return Ok(Some(
                    "Whitespace can no longer be used as the separator. Please Use ‘,’ as the separator instead."
                        .to_owned(),
                ));
            }
        }
        let suggest = |other: &str| {
            Ok(Some(format!("‘{mask}’ doesn’t match anything, but ‘{other}’ does. Perhaps that’s what you mean?")))
        };
        // The base directory is deeper than the user thinks: aa/bb/cc/dd where cc/dd would do.
        let mut shorter = mask;
        while let Some(at) = separator(shorter) {
            shorter = &shorter[at + 1..];
            if self.has_match(shorter, case_sensitive)? {
                return suggest(shorter);
            }
        }
        // Or higher: cc/dd where it must be aa/bb/cc/dd.
        let deeper = Glob::new(&format!("**/{mask}"), None, Options { case_sensitive, ..Options::default() });
        let mut names = Vec::new();
        deeper.scan(self.dir, self.cancel, &mut |name| {
            names.push(name.to_string_lossy().into_owned());
            Ok(())
        })?;
        names.sort_by_key(|name| name.encode_utf16().count());
        for name in &names {
            let mut prefix = String::new();
            let mut rest = name.as_str();
            while let Some(at) = separator(rest) {
                prefix.push_str(&rest[..at]);
                prefix.push('/');
                rest = &rest[at + 1..];
                let candidate = format!("{prefix}{mask}");
                if self.has_match(&candidate, case_sensitive)? {
                    return suggest(&candidate);
                }
            }
        }
        // Else the longest leading part that does exist. (Java cuts at the first separator, so it tries only that one.)
        let mut previous = None;
        let mut pattern = mask;
        loop {
            if self.has_match(pattern, case_sensitive)? {
                return Ok(Some(match previous {
                    None => format!("‘{mask}’ doesn’t match anything, although ‘{pattern}’ exists"),
                    Some(previous) => {
                        format!("‘{mask}’ doesn’t match anything: ‘{pattern}’ exists but not ‘{previous}’")
                    }
                }));
            }
            let Some(at) = separator(pattern) else {
                return Ok(Some(if pattern == mask {
                    format!("‘{mask}’ doesn’t match anything")
                } else {
                    format!("‘{mask}’ doesn’t match anything: even ‘{pattern}’ doesn’t exist")
                }));
            };
            previous = Some(pattern);
            pattern = &pattern[..at];
        }
    }

    /// Whether a pattern matches a file or a directory, be it the base directory itself.
    fn has_match(&self, pattern: &str, case_sensitive: bool) -> Result<bool> {
        let bounded = self.bound != i32::MAX as u32;
        let start = Instant::now();
        let mut ticks = 0u32;
        let mut matched = false;
        Glob::single(pattern, case_sensitive).walk(self.dir, self.cancel, &mut |found| {
            matched |= found.selected;
            // Ant asks for the case sensitivity, which is where Java counts, this often per file and directory.
            ticks += if found.is_dir { 4 } else { 2 };
            if !matched && bounded && (ticks > self.bound || start.elapsed() > BOUNDED_TIME) {
                return Err(Error::BoundReached { bound: self.bound });
            }
            Ok(!matched)
        })?;
        Ok(matched)
    }
}

fn separator(pattern: &str) -> Option<usize> {
    pattern.find(['/', '\\'])
}

#[cfg(test)]
mod tests {
    use super::super::testing::{go_on, tree};
    use super::*;

    #[test]
    fn messages_are_those_of_core() {
        let dir = tempfile::tempdir().unwrap();
        tree(dir.path(), &["build/libs/app.jar", "build/Report.xml", "src/main/A.java", "top.txt", "empty/"]);
        for (masks, message) in [
            ("top.txt", None),
            ("", None),
            ("build/libs/*.jar, src/**", None),
            ("empty", None),
            ("~/x", Some("‘~’ is only supported in a Unix shell and nowhere else.")),
            (
                "build/report.xml",
                Some(
                    "‘build/report.xml’ doesn’t match anything because it is treated case sensitively. \
                     You can deactivate case sensitivity to get matches",
                ),
            ),
            (
                "top.txt build/Report.xml",
                Some("Whitespace can no longer be used as the separator. Please Use ‘,’ as the separator instead."),
            ),
            (
                "job/build/libs/*.jar",
                Some(
                    "‘job/build/libs/*.jar’ doesn’t match anything, but ‘build/libs/*.jar’ does. \
                     Perhaps that’s what you mean?",
                ),
            ),
            (
                "libs/*.jar",
                Some("‘libs/*.jar’ doesn’t match anything, but ‘build/libs/*.jar’ does. Perhaps that’s what you mean?"),
            ),
            ("*.war", Some("‘*.war’ doesn’t match anything")),
            ("build/*.war", Some("‘build/*.war’ doesn’t match anything: ‘build’ exists but not ‘build/*.war’")),
            ("dist/*.war", Some("‘dist/*.war’ doesn’t match anything: even ‘dist’ doesn’t exist")),
            ("top.txt,*.war", Some("‘*.war’ doesn’t match anything")),
        ] {
            let answer = validate_file_mask(dir.path(), masks, true, i32::MAX, &go_on).unwrap();
            assert_eq!(answer.as_deref(), message, "{masks:?}");
        }
    }

    #[test]
    fn a_bound_ends_in_its_own_error_unless_there_was_a_match() {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..50 {
            std::fs::write(dir.path().join(format!("f{i:02}")), "").unwrap();
        }
        let validate = |mask, bound| validate_file_mask(dir.path(), mask, true, bound, &go_on);
        assert!(matches!(validate("*.x", 20), Err(Error::BoundReached { bound: 20 })));
        assert!(validate("f00", 20).unwrap().is_none());
        assert!(validate("*.x", 10_000).unwrap().is_some());
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = validate_file_mask(&dir.path().join("no"), "*", true, i32::MAX, &go_on).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
