//! What a pod's status says of a container that ended.

use std::io::Write;
use std::path::Path;

/// Where Kubernetes looks by default (`terminationMessagePath`).
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// Kubernetes' limit on one container's message.
const LIMIT: usize = 4096;

/// Writes why the agent ends to `path`, normally [`TERMINATION_LOG`]: at most 4096 bytes, in place of
/// what stood there. Does nothing where the file is not there (outside a pod), and tells whether it
/// wrote; there is no one left to tell of an error.
pub fn last_words(path: &Path, message: &str) -> bool {
    let mut end = message.len().min(LIMIT);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    std::fs::OpenOptions::new()
        .write(true)
        .truncate(true)
        .open(path)
        .and_then(|mut file| file.write_all(&message.as_bytes()[..end]))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_was_there_and_keeps_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("termination-log");
        assert!(!last_words(&path, "gone"));
        assert!(!path.exists(), "must not create the file outside a pod");

        std::fs::write(&path, "a much longer text from before").unwrap();
        assert!(last_words(&path, "wrong secret"));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "wrong secret");

        let long = format!("x{}", "é".repeat(4000));
        assert!(last_words(&path, &long));
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written.len(), 4095);
        assert!(long.starts_with(&written));
    }
}
