//! The remoting jar: the controller's own, kept in the work directory by its checksum.

use std::fmt::Write as _;
use std::fs;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::launcher;

/// Where below the controller's root URL the jar is.
pub const PATH: &str = "jnlpJars/agent.jar";
/// Largest jar that is taken; today's have 1.5 MB.
pub const MAX_SIZE: usize = 32 << 20;
/// How long its download may take.
pub const DOWNLOAD_TIME: Duration = Duration::from_secs(120);

/// A download: its bytes, or why there are none.
pub type Downloaded = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// Where the jar comes from.
#[derive(Clone)]
pub enum Source {
    /// `--remoting-jar`.
    File(PathBuf),
    /// The controller.
    Controller(Arc<dyn Fn() -> Downloaded + Send + Sync>),
}

/// Puts the jar and the launcher's class into `dir`, and gives the jar.
///
/// # Errors
/// Why the jar can't be had, or the files can't be written.
pub async fn provide(source: &Source, dir: &Path) -> Result<PathBuf, String> {
    let cannot = |what: &Path, error: io::Error| format!("{} can't be written: {error}", what.display());
    fs::create_dir_all(dir).map_err(|error| cannot(dir, error))?;
    let class = dir.join(format!("{}.class", launcher::CLASS));
    put(&class, &launcher::class_file()).map_err(|error| cannot(&class, error))?;
    match source {
        Source::File(path) => Ok(path.clone()),
        Source::Controller(download) => {
            let bytes = download().await?;
            let mut name = "agent-".to_owned();
            Sha256::digest(&bytes).iter().for_each(|byte| {
                let _ = write!(name, "{byte:02x}");
            });
            let jar = dir.join(name + ".jar");
            put(&jar, &bytes).map_err(|error| cannot(&jar, error))?;
            remove_others(dir, &jar);
            Ok(jar)
        }
    }
}

/// Writes a file unless it is there with this content: at once, so that nobody sees a part of it.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if fs::read(path).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let part = path.with_extension(format!("{}.part", std::process::id()));
    fs::write(&part, bytes)?;
    fs::rename(&part, path)
}

/// Removes the jars of earlier controllers.
fn remove_others(dir: &Path, jar: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("agent-") && path != jar {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_jar_is_kept_by_its_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("jvm");
        let controller = |bytes: &'static [u8]| {
            Source::Controller(Arc::new(move || -> Downloaded { Box::pin(async move { Ok(bytes.to_vec()) }) }))
        };
        let jar = provide(&controller(b"one"), &dir).await.unwrap();
        let name = "agent-7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed.jar";
        assert_eq!(jar, dir.join(name));
        assert_eq!(names(&dir), ["InboundAgentSidecar.class", name]);
        // Whatever got into its place is not run.
        fs::write(&jar, "a virus").unwrap();
        assert_eq!(provide(&controller(b"one"), &dir).await.unwrap(), jar);
        assert_eq!(fs::read(&jar).unwrap(), b"one");
        provide(&controller(b"two"), &dir).await.unwrap();
        assert_eq!(names(&dir).len(), 2);
        let failing = Source::Controller(Arc::new(|| Box::pin(async { Err("404".to_owned()) })));
        assert_eq!(provide(&failing, &dir).await, Err("404".to_owned()));
    }
}
