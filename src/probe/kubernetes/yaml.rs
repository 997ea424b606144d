//! As much of YAML as it takes to find a few scalars in what kubeadm and kube-proxy write into their config maps.
//!
//! These files come from a Go serializer: mappings in block style, one key a line. What is written otherwise (flow
//! style, anchors, tags, values over several lines) is not understood and counts as not there: the caller then knows
//! less, never something wrong.

/// Lines that are looked at; kubeadm writes fewer than a hundred.
const MAX_LINES: usize = 10_000;

/// The scalar at a path of keys from the top of any of the documents, the first that has it. An empty one counts as
/// not there.
pub fn scalar<'a>(text: &'a str, path: &[&str]) -> Option<&'a str> {
    // The open mappings that are on the path, outermost first: the indentation of the key that each follows, and that
    // of its own keys, which its first line sets. What stands deeper is within something that isn't on the path.
    let mut open: Vec<(usize, Option<usize>)> = Vec::new();
    for line in text.lines().take(MAX_LINES) {
        let content = line.trim_start_matches(' ');
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let indent = line.len() - content.len();
        if indent == 0 && (content.starts_with("---") || content.starts_with("...")) {
            open.clear();
            continue;
        }
        while open.last().is_some_and(|&(outer, _)| indent <= outer) {
            open.pop();
        }
        let expected = match open.last_mut() {
            Some((_, keys)) => *keys.get_or_insert(indent),
            None => 0,
        };
        if indent != expected {
            continue;
        }
        let Some((key, value)) = entry(content) else { continue };
        if path.get(open.len()).is_none_or(|wanted| *wanted != key) {
            continue;
        }
        match value {
            "" => open.push((indent, None)),
            value if open.len() + 1 == path.len() => return Some(value),
            _ => {}
        }
    }
    None
}

/// `key: value`, without quotes and comment; the value is empty where a mapping follows.
fn entry(content: &str) -> Option<(&str, &str)> {
    let (key, value) = match content.split_once(": ") {
        Some(parts) => parts,
        None => (content.trim_end().strip_suffix(':')?, ""),
    };
    let key = unquoted(key.trim())?;
    let value = value.trim();
    let value = match value.chars().next() {
        None | Some('#') => "",
        Some(quote @ ('"' | '\'')) => {
            let (inner, rest) = value[1..].split_once(quote)?;
            let rest = rest.trim();
            if !(rest.is_empty() || rest.starts_with('#')) || inner.contains('\\') {
                return None;
            }
            // An empty string is no mapping that follows.
            (!inner.is_empty()).then_some(inner)?
        }
        // Flow style, block scalars, anchors, aliases, tags, and what no plain scalar begins with.
        Some('{' | '[' | '|' | '>' | '&' | '*' | '!' | '%' | '@' | '`') => return None,
        Some(_) => value.split(" #").next().unwrap_or_default().trim_end(),
    };
    Some((key, value))
}

fn unquoted(key: &str) -> Option<&str> {
    for quote in ['"', '\''] {
        if let Some(rest) = key.strip_prefix(quote) {
            return rest.strip_suffix(quote);
        }
    }
    (!key.is_empty() && !key.starts_with("- ")).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As kubeadm 1.32 writes it.
    const CLUSTER_CONFIGURATION: &str = "\
apiServer:
  extraArgs:
  - name: podSubnet
    value: 1.2.3.0/24
apiVersion: kubeadm.k8s.io/v1beta4
caCertificateValidityPeriod: 87600h0m0s
certificatesDir: /etc/kubernetes/pki
clusterName: kubernetes
controllerManager: {}
dns: {}
encryptionAlgorithm: RSA-2048
etcd:
  local:
    dataDir: /var/lib/etcd
imageRepository: registry.k8s.io
kind: ClusterConfiguration
kubernetesVersion: v1.32.4
networking:
  dnsDomain: cluster.local
  podSubnet: 10.244.0.0/16
  serviceSubnet: 10.96.0.0/12
proxy: {}
scheduler: {}
";

    #[test]
    fn kubeadm() {
        let get = |path: &[&str]| scalar(CLUSTER_CONFIGURATION, path);
        assert_eq!(get(&["networking", "podSubnet"]), Some("10.244.0.0/16"));
        assert_eq!(get(&["networking", "serviceSubnet"]), Some("10.96.0.0/12"));
        assert_eq!(get(&["etcd", "local", "dataDir"]), Some("/var/lib/etcd"));
        assert_eq!(get(&["kind"]), Some("ClusterConfiguration"));
        for missing in
            [&["podSubnet"][..], &["networking"], &["networking", "podSubnet", "x"], &["controllerManager"], &[]]
        {
            assert_eq!(get(missing), None, "{missing:?}");
        }
    }

    #[test]
    fn forms() {
        let path = &["networking", "podSubnet"];
        let cases = [
            ("networking:\n    podSubnet: \"10.0.0.0/8\" # why\n", Some("10.0.0.0/8")),
            ("networking: # here\n  'podSubnet': '10.0.0.0/8'", Some("10.0.0.0/8")),
            ("\"networking\":\r\n  podSubnet: 10.0.0.0/8\r\n", Some("10.0.0.0/8")),
            ("# x\n\nnetworking:\n\n  # y\n  podSubnet: 10.0.0.0/8,fd00::/48   # z", Some("10.0.0.0/8,fd00::/48")),
            ("kind: X\n---\nnetworking:\n  podSubnet: 10.0.0.0/8\n", Some("10.0.0.0/8")),
            // Another document has its own mappings.
            ("networking:\n---\n  podSubnet: 10.0.0.0/8\n", None),
            // Beside the mapping, in another one, too deep, within a text.
            ("networking:\npodSubnet: 10.0.0.0/8\n", None),
            ("networking:\n  a: b\nother:\n  podSubnet: 10.0.0.0/8\n", None),
            ("networking:\n  deeper:\n    podSubnet: 10.0.0.0/8\n", None),
            ("text: |\n  networking:\n    podSubnet: 10.0.0.0/8\n", None),
            // Not understood, not guessed.
            ("networking: {podSubnet: 10.0.0.0/8}\n", None),
            ("networking:\n  podSubnet: \"\"\n", None),
            ("networking:\n  podSubnet: &anchor 10.0.0.0/8\n", None),
            ("networking:\n  podSubnet: \"10.0.0.0\\x2f8\"\n", None),
            ("networking:\n  podSubnet: \"10.0.0.0/8\n", None),
            ("networking:\n\tpodSubnet: 10.0.0.0/8\n", None),
        ];
        for (text, expected) in cases {
            assert_eq!(scalar(text, path), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "([ab \\t:'\"#|>{}\\-]|\\n){0,80}") {
            let _ = scalar(&text, &["a", "b"]);
        }

        #[test]
        fn what_is_written_in_block_style_is_found(
            before in "[a-z]{1,8}", value in "[0-9a-f.:/]{1,30}[0-9]", indent in 1usize..8, quote in prop::sample::select(vec!["", "'", "\""]),
        ) {
            prop_assume!(before != "k" && before != "v");
            let pad = " ".repeat(indent);
            let text = format!("{before}:\n{pad}v: no\nk:\n{pad}{before}: x\n{pad}v: {quote}{value}{quote}\n");
            prop_assert_eq!(scalar(&text, &["k", "v"]), Some(value.as_str()));
        }
    }
}
