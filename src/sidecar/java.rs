//! Finding Java, and whether it is new enough for a jar.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::process::Command;

use crate::process::env::EnvVars;

/// How long `java -version` may take.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Class files' major version is Java's and this.
const CLASS_FILE_OFFSET: u16 = 44;
/// The class whose version tells what a jar needs.
const MAIN_CLASS: &str = "hudson/remoting/Launcher.class";

/// The java program: `wanted`, else that of `JAVA_HOME`, else the first on `PATH`.
///
/// # Errors
/// Where it was looked for.
pub fn find(wanted: Option<&Path>, environment: &EnvVars) -> Result<PathBuf, String> {
    let executable = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if let Some(path) = wanted {
        return if executable(path) {
            Ok(path.to_owned())
        } else {
            Err(format!("--java {} is not a program", path.display()))
        };
    }
    let home = environment.get("JAVA_HOME").filter(|home| !home.is_empty());
    let home = home.map(|home| Path::new(home).join("bin/java"));
    let path = std::env::split_paths(environment.get("PATH").unwrap_or_default());
    let on_path = path.filter(|dir| dir.is_absolute()).map(|dir| dir.join("java"));
    home.into_iter()
        .chain(on_path)
        .find(|path| executable(path))
        .ok_or_else(|| "there is no java in JAVA_HOME or on PATH".to_owned())
}

/// The Java release that a program is: 8, 11, 17 and so on.
///
/// # Errors
/// If it can't be run or says something else.
pub async fn release(java: &Path, environment: &EnvVars) -> Result<u16, String> {
    let shown = java.display();
    let mut command = Command::new(java);
    command.arg("-version").env_clear().envs(environment.iter()).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output()).await;
    let output = output.map_err(|_| format!("{shown} -version does not end"))?;
    let output = output.map_err(|error| format!("{shown} -version can't be run: {error}"))?;
    // On the error output up to today.
    let text = [output.stderr, output.stdout].concat();
    let text = String::from_utf8_lossy(&text);
    parse_release(&text).ok_or_else(|| {
        let line = text.lines().next().unwrap_or_default();
        format!("{shown} -version does not tell a version: {}", crate::channel::printable(line))
    })
}

/// From `openjdk version "17.0.15" 2025-04-15`, or `java version "1.8.0_302"`.
fn parse_release(text: &str) -> Option<u16> {
    let version = text.lines().find_map(|line| line.split_once(" version \""))?.1;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().ok());
    match numbers.next()?? {
        1 => numbers.next()?,
        release => Some(release),
    }
}

/// The Java release that a remoting jar needs.
///
/// # Errors
/// If the file is not a remoting jar.
pub fn needed(jar: &Path) -> Result<u16, String> {
    let shown = jar.display();
    let bad = |why: &dyn std::fmt::Display| format!("{shown} is not a remoting jar: {why}");
    let file = File::open(jar).map_err(|error| format!("{shown} can't be read: {error}"))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| bad(&error))?;
    let mut class = archive.by_name(MAIN_CLASS).map_err(|error| bad(&format!("{MAIN_CLASS}: {error}")))?;
    let mut head = [0; 8];
    class.read_exact(&mut head).map_err(|error| bad(&error))?;
    match head {
        [0xca, 0xfe, 0xba, 0xbe, _, _, high, low] => {
            Ok(u16::from_be_bytes([high, low]).saturating_sub(CLASS_FILE_OFFSET))
        }
        _ => Err(bad(&format!("{MAIN_CLASS} is not a class file"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_java() {
        for (text, expected) in [
            ("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime", Some(17)),
            ("Picked up JAVA_TOOL_OPTIONS: -Xmx1g\njava version \"1.8.0_302\"", Some(8)),
            ("openjdk version \"25\" 2025-09-16", Some(25)),
            ("openjdk version \"22-ea\" 2024-03-19", Some(22)),
            ("bash: java: not found", None),
            ("", None),
        ] {
            assert_eq!(parse_release(text), expected, "{text}");
        }
    }

    #[test]
    fn java_is_looked_for_where_users_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut environment = EnvVars::new();
        environment.put("PATH", format!("relative:{}", dir.path().display()));
        assert!(find(None, &environment).unwrap_err().contains("JAVA_HOME"));
        let java = dir.path().join("java");
        std::fs::copy("/bin/sh", &java).unwrap();
        assert_eq!(find(None, &environment), Ok(java.clone()));
        std::fs::create_dir(dir.path().join("bin")).unwrap();
        std::fs::copy("/bin/sh", dir.path().join("bin/java")).unwrap();
        environment.put("JAVA_HOME", dir.path().display().to_string());
        assert_eq!(find(None, &environment), Ok(dir.path().join("bin/java")));
        assert_eq!(find(Some(&java), &environment), Ok(java));
        assert!(find(Some(dir.path()), &environment).is_err());
    }

    #[test]
    fn what_is_no_jar_is_told_so() {
        let dir = tempfile::tempdir().unwrap();
        let jar = dir.path().join("agent.jar");
        assert!(needed(&jar).unwrap_err().contains("can't be read"));
        std::fs::write(&jar, "<html>").unwrap();
        assert!(needed(&jar).unwrap_err().contains("is not a remoting jar"));
    }
}
