//! Environment and command line to configuration or command, as data.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use super::options::{OPTIONS, Opt};
use super::*;
use crate::session::config::{CertSource, HostPort, JnlpSource, LogFormat, Secret, Transport, Tunnel};

const FILES: &[(&str, &str)] = &[
    ("/run/secret", "  5ec4e7\n\n"),
    ("/run/login", "user:pass\n"),
    ("/run/args", "-url\nhttp://file/\n\n-name\nfrom file\n-cert\n@/run/ca.pem\n"),
    ("/run/empty", "\n"),
];

fn read(path: &Path) -> std::io::Result<String> {
    FILES
        .iter()
        .find(|(name, _)| Path::new(name) == path)
        .map(|(_, text)| (*text).to_owned())
        .ok_or_else(|| std::io::ErrorKind::NotFound.into())
}

fn interpret_words(program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Action, UsageError> {
    let arguments: Vec<String> = arguments.iter().map(|&a| a.to_owned()).collect();
    let environment = environment.iter().map(|&(n, v)| (n.to_owned(), v.to_owned())).collect();
    interpret(&Invocation { program, arguments: &arguments, environment: &environment, read_file: &read })
}

fn config(program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Config {
    match interpret_words(program, environment, arguments) {
        Ok(Action::Run(config)) => *config,
        other => panic!("{environment:?} {arguments:?}: {other:?}"),
    }
}

fn error(program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> String {
    interpret_words(program, environment, arguments)
        .err()
        .unwrap_or_else(|| panic!("accepted: {environment:?} {arguments:?}"))
        .0
}

/// A configuration in one line: what differs from that of an `agent` without arguments.
fn show(config: &Config) -> String {
    let mut out = match &config.transport {
        Transport::Tcp => "tcp".to_owned(),
        Transport::WebSocket => "websocket".to_owned(),
        Transport::Stdio => "stdio".to_owned(),
        Transport::Direct(HostPort { host, port }) => format!("direct={host}|{port}"),
        Transport::ConnectTo(HostPort { host, port }) => format!("connect={host}|{port}"),
        Transport::ListenTcp(file) => format!("listen={}", file.display()),
        Transport::Jnlp(JnlpSource { request_url }) => format!("jnlp={request_url}"),
    };
    let mut add = |name: &str, value: String| out.push_str(&format!(" {name}={value}"));
    if !config.urls.is_empty() {
        add("urls", config.urls.join(","));
    }
    for (name, secret) in
        [("secret", &config.secret), ("credentials", &config.credentials), ("proxy", &config.proxy_credentials)]
    {
        if let Some(secret) = secret {
            add(name, secret.expose().to_owned());
        }
    }
    if let Some(name) = &config.name {
        add("name", name.clone());
    }
    if let Some(Tunnel { host, port }) = &config.tunnel {
        add("tunnel", format!("{host:?}{port:?}").replace("Some", ""));
    }
    if let Some(identity) = &config.instance_identity {
        add("identity", format!("{identity:?}"));
    }
    if !config.protocols.is_empty() {
        add("protocols", config.protocols.join(","));
    }
    for cert in &config.certs {
        add(
            "cert",
            match cert {
                CertSource::File(path) => format!("@{}", path.display()),
                CertSource::Pem(text) => text.clone(),
            },
        );
    }
    for (name, value) in &config.websocket_headers {
        add("header", format!("{name}:{value}"));
    }
    for (flag, name) in [
        (config.no_certificate_check, "nocheck"),
        (config.no_keep_alive, "nokeepalive"),
        (config.no_reconnect, "noreconnect"),
        (config.work_dir.fail_if_missing, "failifmissing"),
        (config.in_pod, "pod"),
    ] {
        if flag {
            add(name, "yes".into());
        }
    }
    if let Some(after) = config.no_reconnect_after {
        add("after", format!("{after:?}"));
    }
    if let Some(first) = config.first_connect_timeout {
        add("first", format!("{first:?}"));
    }
    if config.grace != Duration::from_secs(10) {
        add("grace", format!("{:?}", config.grace));
    }
    if let Some(path) = &config.work_dir.path {
        add("workdir", path.display().to_string());
    }
    if config.work_dir.internal_dir != "remoting" {
        add("internal", config.work_dir.internal_dir.clone());
    }
    if let Some(path) = &config.log.agent_log {
        add("log", path.display().to_string());
    }
    if config.log.format == LogFormat::Json {
        add("format", "json".into());
    }
    if config.log.verbosity > 0 {
        add("v", config.log.verbosity.to_string());
    }
    out
}

const U: &str = "http://j/";

#[test]
fn command_lines() {
    for (arguments, expected) in [
        // The three ways and stdio.
        (&["-url", "http://j", "-secret", "s", "-name", "n"][..], "tcp urls=http://j/ secret=s name=n"),
        (&["-url", U, "-secret", "s", "-name", "n", "-webSocket"], "websocket urls=http://j/ secret=s name=n"),
        (
            &[
                "-direct",
                "h:5",
                "-instanceIdentity",
                "AQI=",
                "-secret",
                "s",
                "-name",
                "n",
                "-protocols",
                "JNLP4-connect",
            ],
            "direct=h|5 secret=s name=n identity=[1, 2] protocols=JNLP4-connect",
        ),
        (&[], "stdio"),
        (&["-workDir", "/w", "-jar-cache", "/w/j", "-ping"], "stdio workdir=/w"),
        // Spellings.
        (&["--url=http://j/x", "--secret=s", "--name=a=b"], "tcp urls=http://j/x/ secret=s name=a=b"),
        (&["-url", "HTTPS://j/", "-secret", "s", "-name", "-url"], "tcp urls=HTTPS://j/ secret=s name=-url"),
        (
            &["-directConnection=[::1]:5", "-instanceIdentity=AQI=", "s", "n"],
            "direct=::1|5 secret=s name=n identity=[1, 2]",
        ),
        // The positional form of hudson.remoting.jnlp.Main.
        (&["-headless", "-url", U, "-noreconnect", "s", "n"], "tcp urls=http://j/ secret=s name=n noreconnect=yes"),
        (&["s", "n", "-url", U], "tcp urls=http://j/ secret=s name=n"),
        // Several URLs, none twice.
        (
            &["-url", U, "-url", "http://k/", "-url", "http://j", "s", "n"],
            "tcp urls=http://j/,http://k/ secret=s name=n",
        ),
        // @ files.
        (&["-url", U, "-secret", "@/run/secret", "-name", "n"], "tcp urls=http://j/ secret=5ec4e7 name=n"),
        (&["-url", U, "-secret=@/run/secret", "-name", "n"], "tcp urls=http://j/ secret=5ec4e7 name=n"),
        (&["@/run/args", "-secret", "s"], "tcp urls=http://file/ secret=s name=from file cert=@/run/ca.pem"),
        (&["-cert", "@/ca", "-cert=@/cb", "-cert", "-----BEGIN"], "stdio cert=@/ca cert=@/cb cert=-----BEGIN"),
        (&["-credentials", "@/run/login", "-proxyCredentials", "u:p:q"], "stdio credentials=user:pass proxy=u:p:q"),
        // Everything else, alone.
        (&["-tunnel", "h:5"], "stdio tunnel=(\"h\")(5)"),
        (&["-tunnel", "h:"], "stdio tunnel=(\"h\")None"),
        (&["-tunnel", ":5"], "stdio tunnel=None(5)"),
        (&["-instanceIdentity", "AQI="], "stdio identity=[1, 2]"),
        (&["-protocols", "a,b", "-protocols", "c d"], "stdio protocols=a,b,c,d"),
        (&["-disableHttpsCertValidation", "-noKeepAlive"], "stdio nocheck=yes nokeepalive=yes"),
        (&["-noReconnectAfter", "1d"], "stdio after=86400s"),
        (&["-noReconnectAfter", "PT5M"], "stdio after=300s"),
        (&["--first-connect-timeout", "90s", "--grace=1m"], "stdio first=90s grace=60s"),
        (&["-first-connect-timeout=0"], "stdio"),
        (
            &["-workDir", "/w", "-internalDir", "i", "-failIfWorkDirIsMissing"],
            "stdio failifmissing=yes workdir=/w internal=i",
        ),
        (&["-agentLog", "/l", "--log-format", "json", "-v", "-vv"], "stdio log=/l format=json v=3"),
        (&["-slaveLog", "/l", "-noReconnect=true", "-noKeepAlive=false"], "stdio noreconnect=yes log=/l"),
        (
            &[
                "-url",
                U,
                "-secret",
                "s",
                "-name",
                "n",
                "-webSocket",
                "-webSocketHeader",
                "Cookie=x=1; y=2",
                "-webSocketHeader=A=1",
                "-webSocketHeader",
                "a=",
            ],
            "websocket urls=http://j/ secret=s name=n header=Cookie:x=1; y=2 header=a:",
        ),
        // The deprecated ways.
        (&["-jnlpUrl", "http://j/a.jnlp", "-secret", "s"], "jnlp=http://j/a.jnlp?encrypt=true secret=s"),
        (&["-jnlpUrl", "http://j/a.jnlp", "-jnlpCredentials", "u:p"], "jnlp=http://j/a.jnlp credentials=u:p"),
        (&["-connectTo", "h:5"], "connect=h|5"),
        (&["-tcp", "/port"], "listen=/port"),
        (&["-cp", "a:b", "-classpath", "c", "-loggingConfig", "f", "-text", "-auth", "u:p"], "stdio"),
    ] {
        assert_eq!(show(&config("agent", &[], arguments)), expected, "{arguments:?}");
    }
}

#[test]
fn refused_command_lines() {
    const TCP: [&str; 6] = ["-url", U, "-secret", "s", "-name", "n"];
    let with = |more: &[&'static str]| [&TCP[..], more].concat();
    for (arguments, expected) in [
        (vec!["-url"], "Option \"-url\" takes an operand"),
        (vec!["-uri", "x"], "\"-uri\" is not a valid option; did you mean \"-url\"?"),
        (vec!["-websocket"], "\"-websocket\" is not a valid option; did you mean \"-webSocket\"?"),
        (
            vec!["--first-conect-timeout=1"],
            "\"--first-conect-timeout\" is not a valid option; did you mean \"--first-connect-timeout\"?",
        ),
        (vec!["-Xmx256m"], "\"-Xmx256m\" is not a valid option"),
        (vec!["-"], "\"-\" is not a valid option"),
        (vec!["@/missing"], "Cannot read the arguments in /missing: entity not found"),
        (vec!["-secret=@/missing"], "Cannot read -secret from /missing: entity not found"),
        (vec!["-secret=@/run/empty"], "-secret is empty"),
        (vec!["only one"], "Two arguments required"),
        (vec!["s", "n", "x"], "Two arguments required"),
        (with(&["s", "n"]), "Cannot provide secret via both named and positional arguments"),
        (vec!["-name", "n", "s", "n"], "Cannot provide name via both named and positional arguments"),
        (vec!["-url", U], "Secret is required for inbound agents"),
        (vec!["-url", U, "-secret", "s"], "Name is required for inbound agents"),
        (
            vec!["-url", "jenkins:8080"],
            "\"jenkins:8080\" is not a valid value for \"-url\": not a URL that starts with http:// or https://",
        ),
        (vec!["-url", "http:///x"], "\"http:///x\" is not a valid value for \"-url\": it has no host"),
        (
            vec!["-url", "http://j/?a"],
            "\"http://j/?a\" is not a valid value for \"-url\": a root URL ends with its path",
        ),
        (with(&["-webSocket", "-url", "http://k/"]), "Only a single URL is supported for WebSocket agents"),
        (vec!["-webSocket"], "option \"-webSocket\" requires the option(s) [-url]"),
        (with(&["-webSocket", "-tunnel", "h:1"]), "option \"-webSocket\" cannot be used with the option(s) [-tunnel]"),
        (
            with(&["-webSocket", "-credentials", "u:p"]),
            "option \"-webSocket\" cannot be used with the option(s) [-credentials]",
        ),
        (
            with(&["-webSocket", "-noKeepAlive"]),
            "option \"-webSocket\" cannot be used with the option(s) [-noKeepAlive]",
        ),
        (with(&["-webSocketHeader", "a=b"]), "option \"-webSocketHeader\" requires the option(s) [-webSocket]"),
        (with(&["-webSocket", "-webSocketHeader", "ab"]), "-webSocketHeader: must be NAME=VALUE"),
        (
            with(&["-webSocket", "-webSocketHeader", "a b=c"]),
            "-webSocketHeader: the name before the = is not the name of an HTTP header",
        ),
        (
            with(&["-webSocket", "-webSocketHeader", "a=b\r\nc: d"]),
            "-webSocketHeader: the value has a control character",
        ),
        (vec!["-direct", "h:1"], "option \"-direct\" requires the option(s) [-instanceIdentity]"),
        (
            with(&["-direct", "h:1", "-instanceIdentity", "AQI="]),
            "option \"-direct\" cannot be used with the option(s) [-url]",
        ),
        (
            vec!["-direct", "h:", "-instanceIdentity", "AQI="],
            "\"h:\" is not a valid value for \"-direct\": Invalid HOST:PORT value",
        ),
        (
            vec!["-direct", "h:70000", "-instanceIdentity", "AQI="],
            "\"h:70000\" is not a valid value for \"-direct\": the port is not a number from 1 to 65535",
        ),
        (vec!["-instanceIdentity", "?"], "Invalid instanceIdentity: -instanceIdentity is not base64"),
        (vec!["-tunnel", "h"], "\"h\" is not a valid value for \"-tunnel\": Invalid HOST:PORT value"),
        (vec!["-tunnel", "[::1"], "\"[::1\" is not a valid value for \"-tunnel\": Invalid IPv6 value."),
        (
            vec!["-tunnel", "http://h:1"],
            "\"http://h:1\" is not a valid value for \"-tunnel\": a host name or address, not a URL, is wanted",
        ),
        (
            vec!["-cert", "@a", "-noCertificateCheck"],
            "option \"-cert\" cannot be used with the option(s) [-noCertificateCheck]",
        ),
        (
            vec!["-noReconnect", "-noReconnectAfter", "1d"],
            "option \"-noReconnectAfter\" cannot be used with the option(s) [-noReconnect]",
        ),
        (
            vec!["-noReconnectAfter", "soon"],
            "\"soon\" is not a valid value for \"-noReconnectAfter\": 'soon' is not a valid duration",
        ),
        (vec!["--grace", "30"], "\"30\" is not a valid value for \"--grace\": '30' is not a valid duration"),
        (vec!["-internalDir", "x"], "option \"-internalDir\" requires the option(s) [-workDir]"),
        (vec!["-failIfWorkDirIsMissing"], "option \"-failIfWorkDirIsMissing\" requires the option(s) [-workDir]"),
        (vec!["-jnlpUrl", U, "-name", "n"], "option \"-jnlpUrl\" cannot be used with the option(s) [-name]"),
        (
            vec!["-jnlpUrl", U, "-secret", "s", "-credentials", "u:p"],
            "-jnlpCredentials and -secret are mutually exclusive",
        ),
        (vec!["-credentials", "user"], "-credentials must be USER:PASSWORD"),
        (vec!["-log-format", "xml"], "\"xml\" is not a valid value for \"-log-format\": text or json"),
        (vec!["-noReconnect=maybe"], "\"maybe\" is not a legal boolean value"),
    ] {
        let message = error("agent", &[], &arguments);
        assert!(message.starts_with(expected), "{arguments:?}:\n{message}\n{expected}");
    }
}

/// Each variable of the script, and what the script's word splitting allows.
#[test]
fn environments() {
    const BASE: [(&str, &str); 3] = [("JENKINS_URL", "http://j"), ("JENKINS_SECRET", "s"), ("JENKINS_NAME", "n")];
    let with = |more: &[(&'static str, &'static str)]| [&BASE[..], more].concat();
    for (environment, arguments, expected) in [
        (with(&[]), &[][..], "tcp urls=http://j/ secret=s name=n"),
        (with(&[("JENKINS_AGENT_NAME", "other")]), &[], "tcp urls=http://j/ secret=s name=n"),
        (vec![BASE[0], BASE[1], ("JENKINS_AGENT_NAME", "my node")], &[], "tcp urls=http://j/ secret=s name=my node"),
        (vec![BASE[0], BASE[2], ("JENKINS_SECRET", "@/run/secret")], &[], "tcp urls=http://j/ secret=5ec4e7 name=n"),
        (with(&[("JENKINS_AGENT_WORKDIR", "/w")]), &[], "tcp urls=http://j/ secret=s name=n workdir=/w"),
        (with(&[("JENKINS_WEB_SOCKET", "true")]), &[], "websocket urls=http://j/ secret=s name=n"),
        (with(&[("JENKINS_WEB_SOCKET", "TRUE")]), &[], "tcp urls=http://j/ secret=s name=n"),
        (with(&[("JENKINS_WEB_SOCKET", "")]), &[], "tcp urls=http://j/ secret=s name=n"),
        (with(&[("JENKINS_TUNNEL", "t:5")]), &[], "tcp urls=http://j/ secret=s name=n tunnel=(\"t\")(5)"),
        (with(&[("JENKINS_INSTANCE_IDENTITY", "AQI=")]), &[], "tcp urls=http://j/ secret=s name=n identity=[1, 2]"),
        (
            vec![
                BASE[1],
                BASE[2],
                ("JENKINS_DIRECT_CONNECTION", "h:5"),
                ("JENKINS_INSTANCE_IDENTITY", "AQI="),
                ("JENKINS_PROTOCOLS", "JNLP4-connect"),
            ],
            &[],
            "direct=h|5 secret=s name=n identity=[1, 2] protocols=JNLP4-connect",
        ),
        // kubernetes-plugin's.
        (
            with(&[
                ("JENKINS_AGENT_NAME", "n"),
                ("JENKINS_AGENT_WORKDIR", "/w"),
                ("REMOTING_OPTS", "-noReconnectAfter 1d"),
                ("JENKINS_AGENT_FILE", "/agent.jar"),
                ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
            ]),
            &[],
            "tcp urls=http://j/ secret=s name=n pod=yes after=86400s first=180s workdir=/w",
        ),
        (
            with(&[("KUBERNETES_SERVICE_HOST", "x")]),
            &["--first-connect-timeout=0"],
            "tcp urls=http://j/ secret=s name=n pod=yes",
        ),
        // The old one's: arguments beside the variables.
        (with(&[]), &["s", "n"], "tcp urls=http://j/ secret=s name=n"),
        (vec![BASE[0]], &["s", "n"], "tcp urls=http://j/ secret=s name=n"),
        // The image's own test.
        (
            vec![(
                "REMOTING_OPTS",
                "-url http://j -name xxx -secret xxx -webSocket -webSocketHeader \"Cookie=x=1; y=2\"",
            )],
            &[],
            "websocket urls=http://j/ secret=xxx name=xxx header=Cookie:x=1; y=2",
        ),
        (vec![], &["-url", "http://j", "aaa", "bbb"], "tcp urls=http://j/ secret=aaa name=bbb"),
        // Unquoted variables of the script.
        (
            vec![("JENKINS_URL", " http://j  -webSocket "), BASE[1], BASE[2]],
            &[],
            "websocket urls=http://j/ secret=s name=n",
        ),
        // REMOTING_OPTS as a shell reads it.
        (
            with(&[("REMOTING_OPTS", "-agentLog '/a $b'\\ c\"$JENKINS_NAME ${NONE}\\\"\" -v")]),
            &[],
            "tcp urls=http://j/ secret=s name=n log=/a $b cn \" v=1",
        ),
        (
            with(&[("REMOTING_OPTS", "$MORE"), ("MORE", "-v  -noReconnect")]),
            &[],
            "tcp urls=http://j/ secret=s name=n noreconnect=yes v=1",
        ),
        // The command line wins.
        (
            with(&[("JENKINS_AGENT_WORKDIR", "/env"), ("JENKINS_TUNNEL", "t:5")]),
            &["-url", "http://k/", "-secret", "t", "-name", "m", "-workDir", "/cli", "-tunnel", "u:6"],
            "tcp urls=http://k/ secret=t name=m tunnel=(\"u\")(6) workdir=/cli",
        ),
        (with(&[("JENKINS_TUNNEL", "t:5")]), &["-webSocket"], "websocket urls=http://j/ secret=s name=n"),
        (
            with(&[("REMOTING_OPTS", "-noReconnectAfter 1d")]),
            &["-noReconnect"],
            "tcp urls=http://j/ secret=s name=n noreconnect=yes",
        ),
        (
            with(&[("REMOTING_OPTS", "-webSocket -webSocketHeader a=b")]),
            &["-direct", "h:5", "-instanceIdentity", "AQI="],
            "direct=h|5 secret=s name=n identity=[1, 2]",
        ),
        (
            with(&[("REMOTING_OPTS", "-cert @/a -v")]),
            &["-cert", "@/b", "-v"],
            "tcp urls=http://j/ secret=s name=n cert=@/a cert=@/b v=2",
        ),
    ] {
        for program in ["/usr/local/bin/jenkins-agent", "jenkins-slave", "agent"] {
            assert_eq!(show(&config(program, &environment, arguments)), expected, "{environment:?} {arguments:?}");
        }
    }
}

#[test]
fn refused_environments() {
    for (environment, expected) in [
        (vec![("JENKINS_URL", "http://j")], "Secret is required for inbound agents"),
        (
            vec![("JENKINS_URL", "j"), ("JENKINS_SECRET", "s"), ("JENKINS_NAME", "n")],
            "\"j\" is not a valid value for \"JENKINS_URL\"",
        ),
        (vec![("JENKINS_WEB_SOCKET", "true")], "option \"JENKINS_WEB_SOCKET\" requires the option(s) [-url]"),
        (vec![("REMOTING_OPTS", "-foo")], "REMOTING_OPTS: \"-foo\" is not a valid option"),
        (vec![("REMOTING_OPTS", "'")], "REMOTING_OPTS: a quote is not closed"),
        (vec![("REMOTING_OPTS", "\\")], "REMOTING_OPTS: it ends with a backslash"),
        (vec![("REMOTING_OPTS", "-name $(hostname)")], "REMOTING_OPTS: commands ($(...)) are not run"),
        (vec![("REMOTING_OPTS", "-name \"`hostname`\"")], "REMOTING_OPTS: commands (`...`) are not run"),
        (vec![("REMOTING_OPTS", "${A:-b}")], "REMOTING_OPTS: only ${NAME} is understood"),
    ] {
        let message = error("jenkins-agent", &environment, &["-v"]);
        assert!(message.starts_with(expected), "{environment:?}: {message}");
    }
}

#[test]
fn a_stray_jenkins_url_leaves_agent_on_stdio() {
    let build = [("JENKINS_URL", "http://j/"), ("JENKINS_WEB_SOCKET", "true")];
    let config = config("agent", &build, &["-workDir", "/w"]);
    assert_eq!(show(&config), "stdio workdir=/w");
    assert_eq!(config.notes.len(), 2, "{:?}", config.notes);
    assert!(config.notes[0].starts_with("JENKINS_URL is ignored: there is neither a secret nor a name"));
    // Half a description is a mistake, not a stray.
    assert_eq!(error("agent", &build, &["-name", "n"]), "Secret is required for inbound agents");
}

#[test]
fn actions() {
    let run = |program, arguments: &[&str]| interpret_words(program, &[], arguments);
    let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    for (program, arguments, expected) in [
        ("jenkins-agent", &["bash"][..], Action::Exec("bash".into())),
        ("/usr/local/bin/jenkins-slave", &["/bin/sh"], Action::Exec("/bin/sh".into())),
        ("jenkins-agent.sh", &["bash"], Action::Exec("bash".into())),
        ("jenkins-agent", &["-help"], Action::Help),
        ("agent", &["--help"], Action::Help),
        ("agent", &["help"], Action::Help),
        ("agent", &["-url", "x", "-h"], Action::Help),
        ("agent", &["-version"], Action::Version { own: false }),
        ("agent", &["-help", "--version"], Action::Version { own: true }),
        ("agent", &["demo", "-x"], Action::Demo(words(&["-x"]))),
        ("jenkins-agent", &["demo"], Action::Demo(vec![])),
        ("agent", &["decode", "a", "--roundtrip"], Action::Decode(words(&["a", "--roundtrip"]))),
    ] {
        assert_eq!(run(program, arguments), Ok(expected), "{program} {arguments:?}");
    }
    assert!(run("agent", &["bash"]).is_err());
    // An environment out of order does not stand between a user and the help.
    assert_eq!(interpret_words("agent", &[("REMOTING_OPTS", "'")], &["-help"]), Ok(Action::Help));
}

#[test]
fn notes() {
    let env = [
        ("JENKINS_URL", "http://j/"),
        ("JENKINS_AGENT_WORKDIR", "/env"),
        ("JENKINS_JAVA_OPTS", "-Xmx1g -Dhttps.proxyHost=p"),
        ("JENKINS_AGENT_FILE", "/agent.jar"),
    ];
    let config = config(
        "jenkins-agent",
        &env,
        &["-jar-cache", "/c", "-jar-cache", "/d", "-workDir", "/w", "-url", "http://j/", "s", "n"],
    );
    assert_eq!(
        config.notes,
        [
            "Providing the secret and agent name as positional arguments is deprecated; use \"-secret\" and \"-name\" instead.",
            "JENKINS_AGENT_WORKDIR is ignored: the command line has -workDir",
            "-jar-cache has no effect: this agent downloads no jars",
            "No effect without a JVM: JENKINS_JAVA_OPTS, JENKINS_AGENT_FILE",
            "The Java options set proxyHost; use HTTPS_PROXY, HTTP_PROXY and NO_PROXY instead",
        ]
    );
}

#[test]
fn secrets_are_not_shown() {
    let config = config(
        "agent",
        &[],
        &["-url", U, "-secret", "5ec4e7", "-name", "n", "-credentials", "u:5ec4e7", "-proxyCredentials", "u:5ec4e7"],
    );
    let shown = format!("{config:?} {}", Secret::new("5ec4e7"));
    assert!(!shown.contains("5ec4e7"), "{shown}");
    for arguments in [
        &["5ec4e7"][..],
        &["-secret", "5ec4e7", "5ec4e7", "n"],
        &["-credentials", "5ec4e7"],
        &["-url", U, "-secret", "5ec4e7"],
    ] {
        let message = error("agent", &[], arguments);
        assert!(!message.contains("5ec4e7"), "{message}");
    }
}

#[test]
fn jnlp_arguments_are_applied() {
    let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
    let start = || config("agent", &[], &["-jnlpUrl", "http://j/a.jnlp", "-secret", "s", "-noReconnect"]);
    let served = words(&[
        "-headless",
        "s",
        "n",
        "-workDir",
        "/served",
        "-internalDir",
        "remoting",
        "-url",
        U,
        "-url",
        "http://k/",
        "-tunnel",
        ":5",
    ]);
    let applied = start().with_jnlp_arguments(&served).unwrap();
    assert_eq!(
        show(&applied),
        "tcp urls=http://j/,http://k/ secret=s name=n tunnel=None(5) noreconnect=yes workdir=/served"
    );
    let own = config("agent", &[], &["-jnlpUrl", U, "-workDir", "/own"]).with_jnlp_arguments(&served).unwrap();
    assert_eq!(own.work_dir.path.as_deref(), Some(Path::new("/own")));
    assert_eq!(
        show(&start().with_jnlp_arguments(&words(&["s", "n", "-url", U, "-webSocket"])).unwrap()),
        "websocket urls=http://j/ secret=s name=n noreconnect=yes"
    );
    for bad in [
        &["s", "n"][..],
        &["s"],
        &["-url", U],
        &["-secret=@/run/secret", "-name", "n", "-url", U],
        &["@/run/args"],
        &["-jnlpUrl", U],
    ] {
        assert!(start().with_jnlp_arguments(&words(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn the_table_is_sound() {
    let names: Vec<&str> = OPTIONS.iter().flat_map(|row| row.names).copied().collect();
    for (at, name) in names.iter().enumerate() {
        assert!(!names[..at].contains(name), "{name} twice");
    }
    let rows = |opt: Opt| OPTIONS.iter().filter(|row| row.opt == opt).count();
    for row in OPTIONS {
        assert_eq!(rows(row.opt), 1, "{:?}", row.opt);
        for other in row.requires.iter().chain(row.forbids) {
            assert_eq!(rows(*other), 1, "{other:?}");
        }
    }
    // Auth is the last one of the enumeration.
    assert_eq!(OPTIONS.len(), Opt::Auth as usize + 1);
}

/// Every option that some agent.jar since 4.7 has, aliases too.
#[test]
fn agent_jars_options_are_all_known() {
    for name in [
        "agentLog",
        "auth",
        "cert",
        "classpath",
        "connectTo",
        "cp",
        "credentials",
        "direct",
        "directConnection",
        "disableHttpsCertValidation",
        "failIfWorkDirIsMissing",
        "headless",
        "help",
        "instanceIdentity",
        "internalDir",
        "jar-cache",
        "jnlpCredentials",
        "jnlpUrl",
        "loggingConfig",
        "name",
        "noCertificateCheck",
        "noKeepAlive",
        "noReconnect",
        "noReconnectAfter",
        "noreconnect",
        "ping",
        "protocols",
        "proxyCredentials",
        "secret",
        "tcp",
        "text",
        "tunnel",
        "url",
        "version",
        "webSocket",
        "webSocketHeader",
        "workDir",
    ] {
        for dashes in ["-", "--"] {
            assert!(options::find(&format!("{dashes}{name}")).is_some(), "{dashes}{name}");
        }
    }
}

fn word() -> impl Strategy<Value = String> {
    let names: Vec<String> = OPTIONS.iter().flat_map(|row| row.names).map(|name| format!("-{name}")).collect();
    prop_oneof![
        4 => prop::sample::select(names),
        2 => prop::sample::select(vec!["http://j/", "h:1", "AQI=", "a=b", "1d", "@/run/args", "@/run/secret", "@", "", "--", "[::1]:"]).prop_map(str::to_owned),
        1 => "\\PC{0,12}",
        1 => "--?[a-zA-Z]{0,10}=\\PC{0,8}",
    ]
}

proptest! {
    #[test]
    fn never_panics(
        program in "(agent|jenkins-agent|\\PC{0,6})",
        arguments in prop::collection::vec(word(), 0..8),
        values in prop::collection::vec((prop::sample::select(VARIABLES.to_vec()), prop::collection::vec(word(), 0..4)), 0..5),
    ) {
        let environment = values.into_iter().map(|((name, _), words)| (name.to_owned(), words.join(" "))).collect();
        let _ = interpret(&Invocation { program: &program, arguments: &arguments, environment: &environment, read_file: &read });
    }

    /// What is quoted comes back as it was.
    #[test]
    fn shell_words_undo_quoting(words in prop::collection::vec("\\PC{0,8}", 0..5)) {
        let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        prop_assert_eq!(shell_words(&quoted.join(" "), &Environment::new()), Ok(words));
    }
}

fn probed(program: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Config {
    match interpret_words(program, environment, arguments) {
        Ok(Action::Probe(config)) => *config,
        other => panic!("{environment:?} {arguments:?}: {other:?}"),
    }
}

#[test]
fn a_probe_needs_a_controller_and_neither_secret_nor_name() {
    use crate::probe::print::Format;
    let url = [("JENKINS_URL", "http://j/")];
    for (program, environment, arguments, format) in [
        ("agent", &[][..], &["--probe", "-url", "http://j/"][..], Format::Table),
        ("agent", &[], &["-url", "http://j/", "-probe=short", "-webSocket"], Format::Short),
        ("jenkins-agent", &url[..], &["--probe=json"], Format::Json),
        ("agent", &url, &["--probe"], Format::Table),
        ("jenkins-agent", &[("JENKINS_URL", "http://j/"), ("REMOTING_OPTS", "--probe=table")], &[], Format::Table),
        ("agent", &[], &["--probe", "-direct", "j:50000", "-instanceIdentity", "AAAA"], Format::Table),
    ] {
        let config = probed(program, environment, arguments);
        let settings = config.probe.clone().unwrap();
        assert_eq!((settings.format, settings.authenticate, settings.hold), (format, false, None), "{arguments:?}");
        assert_eq!(settings.timeout, Duration::from_secs(15));
        assert!(config.secret.is_none() && config.name.is_none() && config.transport != Transport::Stdio);
    }
    let all = ["--probe", "--probe-auth", "--probe-hold", "90s", "--probe-timeout=5s"];
    let connection = ["-url", "http://j/", "-secret", "5ec4e7", "-name", "n"];
    let settings = probed("agent", &[], &[&all[..], &connection].concat()).probe.unwrap();
    assert_eq!((settings.authenticate, settings.hold), (true, Some(Duration::from_secs(90))));
    assert_eq!(settings.timeout, Duration::from_secs(5));
    for (arguments, text) in [
        (&["--probe"][..], "needs a controller"),
        (&["--probe", "-connectTo", "h:1"], "needs a controller"),
        (&["--probe=xml", "-url", "http://j/"], "table, short or json"),
        (&["--probe", "--probe-auth", "-url", "http://j/", "-name", "n"], "requires the option(s) [-secret]"),
        (&["--probe-hold", "5s", "-url", "http://j/"], "requires the option(s) [--probe]"),
        (&["--probe", "--probe-hold", "5", "-url", "http://j/"], "'5' is not a valid duration"),
    ] {
        let error = error("agent", &[], arguments);
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
}

#[test]
fn the_readme_lists_each_exit_code() {
    let readme = include_str!("../../README.md");
    let own = crate::transport::ExitCode::ALL.iter().map(|(code, what)| (code.code(), *what));
    for (code, what) in
        own.chain(crate::probe::catalog::exit_codes()).chain(crate::cli::help::EXIT_CODES.iter().copied())
    {
        assert!(readme.contains(&format!("\n| {code} | {what} |\n")), "{code} {what}");
    }
}
