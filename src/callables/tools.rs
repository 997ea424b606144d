//! Small callables of tools and their installers: where a tool is, and what kind of machine this is.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::{Call, Entry, Reply, Run, Throw};
use crate::java_class;
use crate::process::env::EnvVars;
use crate::process::system;

/// The callables of this module.
pub const ENTRIES: &[Entry] = &[
    Entry { class: "hudson.tasks.Shell$DescriptorImpl$Shellinterpreter", owner: "core", run: Run::Inline(shell) },
    Entry {
        class: "hudson.tasks.Maven$MavenInstallation$GetExecutable",
        owner: "core",
        run: Run::Blocking(maven_executable),
    },
    Entry {
        class: "hudson.tasks.Maven$MavenInstallation$GetMavenVersion",
        owner: "core",
        run: Run::Blocking(maven_version),
    },
    Entry { class: "hudson.tasks.Maven$DecideDefaultMavenCommand", owner: "core", run: Run::Blocking(maven_command) },
    Entry { class: "hudson.tasks.Ant$AntInstallation$GetExecutable", owner: "ant", run: Run::Blocking(ant_executable) },
    Entry {
        class: "hudson.plugins.groovy.GroovyInstallation$GetExecutable",
        owner: "groovy",
        run: Run::Blocking(groovy_executable),
    },
    Entry {
        class: "hudson.plugins.gradle.GradleInstallation$GetExeFile",
        owner: "gradle",
        run: Run::Blocking(gradle_executable),
    },
    Entry {
        class: "hudson.plugins.sonar.SonarRunnerInstallation$GetExecutable",
        owner: "sonar",
        run: Run::Blocking(sonar_executable),
    },
    Entry {
        class: "hudson.plugins.sonar.MsBuildSQRunnerInstallation$GetToolPath",
        owner: "sonar",
        run: Run::Blocking(sonar_msbuild_tool),
    },
    Entry {
        class: "hudson.tools.JDKInstaller$Platform$GetCurrentPlatform",
        owner: "jdk-tool",
        run: Run::Inline(jdk_platform),
    },
    Entry { class: "hudson.tools.JDKInstaller$CPU$GetCurrentCPU", owner: "jdk-tool", run: Run::Inline(jdk_cpu) },
    Entry {
        class: "jenkins.plugins.nodejs.tools.NodeJSInstallation$DetectPlatformCallable",
        owner: "nodejs",
        run: Run::Blocking(nodejs_executable),
    },
    Entry {
        class: "jenkins.plugins.nodejs.tools.CPU$ArchitectureCallable",
        owner: "nodejs",
        run: Run::Inline(machine),
    },
    Entry {
        class: "hudson.tools.ZipExtractionInstaller$ChmodRecAPlusX",
        owner: "core",
        run: Run::Blocking(make_executable),
    },
    Entry {
        class: "jenkins.plugins.nodejs.tools.NodeJSInstaller$ChmodRecAPlusX",
        owner: "nodejs",
        run: Run::Blocking(make_executable),
    },
    Entry {
        class: "org.jenkinsci.plugins.docker.commons.tools.DockerToolInstaller$FindArch",
        owner: "docker-commons",
        run: Run::Inline(docker_arch),
    },
];

/// The most that is read of a jar's manifest.
const MAX_MANIFEST: u64 = 1 << 20;

fn shell(call: &Call) -> Result<Reply, Throw> {
    Ok(call.string("/bin/sh"))
}

/// The first of these that exists, or null.
fn first_existing(call: &Call, candidates: &[PathBuf]) -> Reply {
    let found = candidates.iter().find(|file| file.exists());
    found.map_or_else(|| call.null(), |file| call.string(&file.to_string_lossy()))
}

java_class! {
    struct GetExecutable {
        raw_home: Option<String> = "rawHome",
        home: Option<String> = "home",
        gradle_home: Option<String> = "gradleHome",
    }
}

/// The programs of a tool whose home may refer to variables of the agent's.
fn executables(call: &Call, programs: &[&str]) -> Result<Reply, Throw> {
    let request = GetExecutable::read(call.view())?;
    let Some(home) = request.raw_home.or(request.home).or(request.gradle_home) else { return Ok(call.null()) };
    let candidates = in_home(&home, &call.agent().environment, programs)?;
    Ok(first_existing(call, &candidates))
}

fn in_home(home: &str, env: &EnvVars, programs: &[&str]) -> Result<Vec<PathBuf>, Throw> {
    let home = env.expand(home).map_err(|error| Throw::io(error.to_string()))?;
    Ok(programs.iter().map(|program| Path::new(&home).join("bin").join(program)).collect())
}

fn maven_executable(call: &Call) -> Result<Reply, Throw> {
    executables(call, &["mvn", "maven"])
}

fn ant_executable(call: &Call) -> Result<Reply, Throw> {
    executables(call, &["ant"])
}

fn groovy_executable(call: &Call) -> Result<Reply, Throw> {
    executables(call, &["groovy"])
}

fn gradle_executable(call: &Call) -> Result<Reply, Throw> {
    executables(call, &["gradle"])
}

fn sonar_executable(call: &Call) -> Result<Reply, Throw> {
    executables(call, &["sonar-scanner", "sonar-runner"])
}

fn sonar_msbuild_tool(call: &Call) -> Result<Reply, Throw> {
    let home = GetExecutable::read(call.view())?.raw_home.unwrap_or_default();
    let home = call.agent().environment.expand(&home).map_err(|error| Throw::io(error.to_string()))?;
    let names = ["SonarScanner.MSBuild.exe", "SonarScanner.MSBuild.dll", "MSBuild.SonarQube.Runner.exe"];
    Ok(first_existing(call, &names.map(|name| Path::new(&home).join(name))))
}

java_class! {
    struct Home {
        home: Option<String> = "home",
    }
}

fn nodejs_executable(call: &Call) -> Result<Reply, Throw> {
    // Java concatenates: "null/bin".
    let home = Home::read(call.view())?.home.unwrap_or_else(|| "null".to_owned());
    Ok(first_existing(call, &[Path::new(&home).join("bin/node")]))
}

fn maven_version(call: &Call) -> Result<Reply, Throw> {
    let home = Home::read(call.view())?.home.unwrap_or_default();
    Ok(call.string(&jar_version(&Path::new(&home).join("lib"), "maven-")?.unwrap_or_default()))
}

/// The `Implementation-Version` of the first jar with this prefix that has one.
fn jar_version(directory: &Path, prefix: &str) -> Result<Option<String>, Throw> {
    let Ok(entries) = fs::read_dir(directory) else { return Ok(None) };
    for entry in entries {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let manifest = manifest(&entry.path()).map_err(|error| {
            Throw::io(format!("cannot read the manifest of {}: {}", entry.path().display(), super::plain(&error)))
        })?;
        if let Some(version) = main_attribute(&manifest, "Implementation-Version") {
            return Ok(Some(version));
        }
    }
    Ok(None)
}

/// The manifest of a jar; empty if it has none.
fn manifest(jar: &Path) -> io::Result<String> {
    let mut jar = zip::ZipArchive::new(io::BufReader::new(fs::File::open(jar)?)).map_err(io::Error::other)?;
    let mut bytes = Vec::new();
    match jar.by_name("META-INF/MANIFEST.MF") {
        Ok(file) => file.take(MAX_MANIFEST).read_to_end(&mut bytes)?,
        Err(zip::result::ZipError::FileNotFound) => 0,
        Err(error) => return Err(io::Error::other(error)),
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// An attribute of a manifest's main section. A line that begins with a space goes on with the one before.
fn main_attribute(manifest: &str, name: &str) -> Option<String> {
    let mut lines = manifest.lines().take_while(|line| !line.is_empty());
    let named = |line: &str| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then(|| value.to_owned())
    };
    let mut value = lines.by_ref().find_map(named)?;
    for more in lines.map_while(|line| line.strip_prefix(' ')) {
        value.push_str(more);
    }
    Some(value)
}

java_class! {
    struct DecideDefaultMavenCommand {
        arguments: Option<String> = "arguments",
    }
}

fn maven_command(call: &Call) -> Result<Reply, Throw> {
    let arguments = DecideDefaultMavenCommand::read(call.view())?.arguments.unwrap_or_default();
    Ok(call.string(default_maven_command(call.path()?, &arguments)))
}

fn default_maven_command(workspace: &Path, arguments: &str) -> &'static str {
    let mut words = arguments.split([' ', '\t', '\n', '\r', '\u{c}']).filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        if word == "-f"
            && let Some(file) = words.next()
        {
            // `new File(parent, child)` is beneath the parent, whatever the child begins with.
            let file = workspace.join(file.trim_start_matches('/'));
            match fs::metadata(file) {
                // Maven 1 takes a directory, Maven 2 a file.
                Ok(found) => return if found.is_dir() { "maven" } else { "mvn" },
                Err(_) => continue,
            }
        }
    }
    if workspace.join("project.xml").exists() { "maven" } else { "mvn" }
}

fn jdk_platform(call: &Call) -> Result<Reply, Throw> {
    Ok(call.reply(|graph| graph.enum_constant("hudson.tools.JDKInstaller$Platform", "LINUX")))
}

fn jdk_cpu(call: &Call) -> Result<Reply, Throw> {
    let cpu = jdk_cpu_of(system::os_arch())?;
    Ok(call.reply(|graph| graph.enum_constant("hudson.tools.JDKInstaller$CPU", cpu)))
}

fn jdk_cpu_of(arch: &str) -> Result<&'static str, Throw> {
    match arch {
        "amd64" | "x86_64" => Ok("amd64"),
        "x86" | "i386" => Ok("i386"),
        _ => Err(Throw::io(format!("Unknown CPU architecture: {arch}"))),
    }
}

/// `uname -m`
fn machine(call: &Call) -> Result<Reply, Throw> {
    Ok(call.string(&rustix::system::uname().machine().to_string_lossy()))
}

fn docker_arch(call: &Call) -> Result<Reply, Throw> {
    let arch = if system::os_arch().contains("64") { "x86_64" } else { "i386" };
    Ok(call.string(&format!("linux/static/stable/{arch}")))
}

fn make_executable(call: &Call) -> Result<Reply, Throw> {
    make_all_executable(call.path()?);
    Ok(call.null())
}

/// Lets everybody execute all files below a directory. What can't be changed stays, as in Java; links are not followed,
/// as what they lead to within the directory is reached anyway.
fn make_all_executable(root: &Path) {
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            todo.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if found.is_file() {
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(found.permissions().mode() | 0o111));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn homes_may_refer_to_variables() {
        let env: EnvVars = [("M2_HOME", "/opt/maven")].into_iter().collect();
        let files = in_home("$M2_HOME/3", &env, &["mvn", "maven"]).unwrap();
        assert_eq!(files, [Path::new("/opt/maven/3/bin/mvn"), Path::new("/opt/maven/3/bin/maven")]);
    }

    #[test]
    fn maven_tells_its_version_in_a_manifest() {
        let home = tempfile::tempdir().unwrap();
        assert_eq!(jar_version(&home.path().join("lib"), "maven-").unwrap(), None);
        let jar = |name: &str, manifest: Option<&str>| {
            let mut zip = zip::ZipWriter::new(fs::File::create(home.path().join(name)).unwrap());
            zip.start_file(manifest.map_or("x", |_| "META-INF/MANIFEST.MF"), zip::write::SimpleFileOptions::default())
                .unwrap();
            zip.write_all(manifest.unwrap_or_default().as_bytes()).unwrap();
            zip.finish().unwrap();
        };
        jar("maven-empty.jar", None);
        jar("other.jar", Some("Implementation-Version: 9\n"));
        jar(
            "maven-core.jar",
            Some("Manifest-Version: 1.0\r\nImplementation-version: 3.9\r\n .6\r\nX: y\r\n\r\nA: b\r\n"),
        );
        assert_eq!(jar_version(home.path(), "maven-").unwrap().as_deref(), Some("3.9.6"));
        fs::write(home.path().join("maven-broken.jar"), "not a jar").unwrap();
        fs::remove_file(home.path().join("maven-core.jar")).unwrap();
        assert!(jar_version(home.path(), "maven-").unwrap_err().message.unwrap().contains("maven-broken.jar"));
        assert_eq!(main_attribute("A: b\n\nImplementation-Version: 1\n", "Implementation-Version"), None);
    }

    #[test]
    fn decides_between_maven_1_and_2() {
        let workspace = tempfile::tempdir().unwrap();
        fs::create_dir(workspace.path().join("old")).unwrap();
        fs::write(workspace.path().join("pom.xml"), "").unwrap();
        let command = |arguments| default_maven_command(workspace.path(), arguments);
        for (arguments, expected) in [
            ("", "mvn"),
            ("clean -f old", "maven"),
            ("-f pom.xml", "mvn"),
            ("-f none -f old", "maven"),
            ("-f /old", "maven"),
            ("install -f", "mvn"),
        ] {
            assert_eq!(command(arguments), expected, "{arguments}");
        }
        fs::write(workspace.path().join("project.xml"), "").unwrap();
        assert_eq!(command("install"), "maven");
    }

    #[test]
    fn unknown_processors_are_named() {
        assert_eq!(jdk_cpu_of("amd64").unwrap(), "amd64");
        assert_eq!(jdk_cpu_of("aarch64").unwrap_err().message.unwrap(), "Unknown CPU architecture: aarch64");
    }

    #[test]
    fn makes_files_executable_and_follows_no_link() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        let (inner, outer) = (root.path().join("a/b/node"), outside.path().join("file"));
        for file in [&inner, &outer] {
            fs::write(file, "").unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        std::os::unix::fs::symlink(&outer, root.path().join("link")).unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("loop")).unwrap();
        make_all_executable(root.path());
        let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o755);
        assert_eq!(mode(&outer), 0o644);
    }
}
