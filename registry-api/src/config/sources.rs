//! What each type of source is given, and when it is read.

use std::time::Duration;

use serde_json::{Map, Value};
use smol_str::SmolStr;
use url::Url;
use waymark_catalogue::validate::http_url_fault;

use super::reader::{Reader, join, quoted};
use super::{DEFAULT_INTERVAL, Discovered, FileOrigin, SourceKind};
use crate::source::{
    Access, ConfigMapOrigin, GitOrigin, Origin, Reach, Reference, RegistryOrigin, Remote, Retry,
    Selection, SyncPolicy, UrlOrigin,
};

const INTERVALS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30 * 86_400));
/// Bounds of a time-out: ToolHive's.
const TIMEOUTS: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(300));
/// How long a request may take where nothing else is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often all of another registry is read, where nothing else is said.
const DEFAULT_FULL_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// The key of a ConfigMap, and the file of a repository, where none is named.
pub(crate) const DEFAULT_FILE: &str = "registry.json";

/// Fields that every HTTP source has.
const HTTP: [&str; 5] = ["timeout", "headers", "bearerTokenFile", "auth", "caFile"];

type Fields = Map<String, Value>;

/// A repository's URL as `ssh://` where it is in the form `user@host:path`.
pub(crate) fn git_remote_url(text: &str) -> Option<Url> {
    if let Ok(url) = Url::parse(text)
        && matches!(url.scheme(), "http" | "https" | "ssh")
    {
        return url.host_str().is_some_and(|host| !host.is_empty()).then_some(url);
    }
    let (host, path) = text.split_once(':')?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '@');
    if host.is_empty() || !host.contains('@') || !host.chars().all(plain) || path.starts_with("//")
    {
        return None;
    }
    Url::parse(&format!("ssh://{host}/{}", path.trim_start_matches('/'))).ok()
}

impl Reader {
    pub(super) fn kind(&mut self, kind: &str, value: &Value, path: &str) -> Option<SourceKind> {
        match kind {
            "managed" => {
                if !value.is_null() {
                    self.object(value, path, &[])?;
                }
                Some(SourceKind::Managed)
            }
            "kubernetes" | "discovery" => {
                let mut discovered = Discovered::default();
                if !value.is_null() {
                    let object = self.object(value, path, &["namespaces"])?;
                    let namespaces =
                        self.texts(object.get("namespaces"), &join(path, "namespaces"));
                    discovered.namespaces = namespaces.into_iter().map(SmolStr::from).collect();
                }
                Some(SourceKind::Discovery(discovered))
            }
            "file" => self.file(value, path),
            "url" => self.url_source(value, path).map(SourceKind::Url),
            "git" => self.git(value, path),
            "configmap" => self.configmap(value, path),
            _ => self.registry_source(value, path),
        }
    }

    fn file(&mut self, value: &Value, path: &str) -> Option<SourceKind> {
        let known = [&["path", "data", "url"][..], &HTTP].concat();
        let object = self.object(value, path, &known)?;
        match (object.get("path"), object.get("data"), object.get("url")) {
            (Some(file), None, None) => {
                let file = self.text(file, &join(path, "path"))?;
                Some(SourceKind::File(FileOrigin::Path(file.into())))
            }
            (None, Some(data), None) => {
                let data = self.text(data, &join(path, "data"))?;
                Some(SourceKind::File(FileOrigin::Data(data.to_owned())))
            }
            (None, None, Some(_)) => self.url_source(value, path).map(SourceKind::Url),
            _ => {
                self.fault(path, "needs one of path, data and url");
                None
            }
        }
    }

    fn url_source(&mut self, value: &Value, path: &str) -> Option<UrlOrigin> {
        let object = self.object(value, path, &[&["url"][..], &HTTP].concat())?;
        let url = self.url(object, "url", path);
        let access = self.access(object, path, DEFAULT_TIMEOUT);
        Some(UrlOrigin { url: url?, access })
    }

    fn registry_source(&mut self, value: &Value, path: &str) -> Option<SourceKind> {
        let known = [&["endpoint", "fullSyncInterval"][..], &HTTP].concat();
        let object = self.object(value, path, &known)?;
        let endpoint = self.url(object, "endpoint", path);
        let access = self.access(object, path, DEFAULT_TIMEOUT);
        let full_interval = object.get("fullSyncInterval");
        let full_interval = full_interval
            .and_then(|value| self.duration(value, &join(path, "fullSyncInterval"), INTERVALS))
            .unwrap_or(DEFAULT_FULL_INTERVAL);
        Some(SourceKind::Registry(RegistryOrigin { endpoint: endpoint?, access, full_interval }))
    }

    fn url(&mut self, object: &Fields, key: &str, path: &str) -> Option<Url> {
        let text = self.required(object, key, path)?;
        if let Some(fault) = http_url_fault(text) {
            self.fault(&join(path, key), format!("{} {fault}", quoted(text)));
            return None;
        }
        Url::parse(text).ok()
    }

    /// How an HTTP server is spoken to. The admin names it: its address may be any.
    fn access(&mut self, object: &Fields, path: &str, timeout: Duration) -> Access {
        let timeout = object
            .get("timeout")
            .and_then(|value| self.duration(value, &join(path, "timeout"), TIMEOUTS))
            .unwrap_or(timeout);
        let mut headers = Vec::new();
        if let Some(value) = object.get("headers") {
            let at = join(path, "headers");
            match value.as_object() {
                Some(fields) => {
                    for (name, value) in fields {
                        let at = join(&at, name);
                        let good = http::HeaderName::from_bytes(name.as_bytes()).is_ok();
                        if !good {
                            self.fault(&at, "is no name of an HTTP header");
                        }
                        if let Some(value) = self.text(value, &at) {
                            headers.push((name.clone(), Origin::Value(value.to_owned())));
                        }
                    }
                }
                None => self.fault(&at, "must be an object"),
            }
        }
        let bearer = self.secret_file(object, "bearerTokenFile", path);
        let ca = self.secret_file(object, "caFile", path);
        let basic = object.get("auth").and_then(|auth| self.basic(auth, &join(path, "auth")));
        if bearer.is_some() && basic.is_some() {
            self.fault(&join(path, "auth"), "cannot stand beside bearerTokenFile");
        }
        Access { reach: Reach::Anywhere, headers, bearer, basic, ca, timeout }
    }

    fn secret_file(&mut self, object: &Fields, key: &str, path: &str) -> Option<Origin> {
        let file = self.text(object.get(key)?, &join(path, key))?;
        Some(Origin::File(file.into()))
    }

    fn basic(&mut self, value: &Value, path: &str) -> Option<(String, Origin)> {
        let object = self.object(value, path, &["username", "passwordFile"])?;
        let user = self.required(object, "username", path).map(str::to_owned);
        self.required(object, "passwordFile", path);
        Some((user?, self.secret_file(object, "passwordFile", path)?))
    }

    fn git(&mut self, value: &Value, path: &str) -> Option<SourceKind> {
        let known = [
            &["repository", "branch", "tag", "commit", "path", "sshKeyFile", "knownHostsFile"][..],
            &HTTP,
        ]
        .concat();
        let object = self.object(value, path, &known)?;
        let remote = self.git_remote(object, path);
        let named: Vec<(&str, &Value)> = ["branch", "tag", "commit"]
            .into_iter()
            .filter_map(|key| Some((key, object.get(key)?)))
            .collect();
        let reference = match named.as_slice() {
            [] => Some(Reference::Head),
            [(key, value)] => {
                let at = join(path, key);
                let text = self.text(value, &at).map(str::to_owned);
                text.and_then(|text| match git_reference(key, text) {
                    Ok(reference) => Some(reference),
                    Err(fault) => {
                        self.fault(&at, fault);
                        None
                    }
                })
            }
            _ => {
                self.fault(path, "needs one of branch, tag and commit only");
                None
            }
        };
        let file = match object.get("path") {
            Some(file) => self.text(file, &join(path, "path")).map(str::to_owned),
            None => Some(DEFAULT_FILE.to_owned()),
        };
        Some(SourceKind::Git(GitOrigin { remote: remote?, reference: reference?, path: file? }))
    }

    fn git_remote(&mut self, object: &Fields, path: &str) -> Option<Remote> {
        let text = self.required(object, "repository", path)?.to_owned();
        let at = join(path, "repository");
        let local = text.strip_prefix("file://").unwrap_or(&text);
        if local.starts_with('/') {
            return Some(Remote::Local(local.into()));
        }
        let access = self.access(object, path, DEFAULT_TIMEOUT);
        match git_remote_url(&text) {
            Some(url) if url.scheme() == "ssh" => {
                self.required(object, "sshKeyFile", path);
                self.required(object, "knownHostsFile", path);
                Some(Remote::Ssh {
                    url,
                    key: self.secret_file(object, "sshKeyFile", path)?,
                    known_hosts: self.secret_file(object, "knownHostsFile", path)?,
                    reach: Reach::Anywhere,
                    timeout: access.timeout,
                })
            }
            Some(url) => {
                if let Some(fault) = http_url_fault(&text) {
                    self.fault(&at, format!("{} {fault}", quoted(&text)));
                    return None;
                }
                Some(Remote::Http { url, access: Box::new(access) })
            }
            None => {
                let message = format!(
                    "{} is no repository: write https://…, ssh://…, user@host:path or an absolute path",
                    quoted(&text)
                );
                self.fault(&at, message);
                None
            }
        }
    }

    fn configmap(&mut self, value: &Value, path: &str) -> Option<SourceKind> {
        let object = self.object(value, path, &["namespace", "name", "selector", "key"])?;
        let mut text = |key: &str| {
            let value = object.get(key)?;
            self.text(value, &join(path, key)).map(str::to_owned)
        };
        let (namespace, name) = (text("namespace"), text("name"));
        let (selector, key) = (text("selector"), text("key"));
        let selection = match (name, selector) {
            (Some(name), None) => Selection::Name(name),
            (None, Some(labels)) => Selection::Labels(labels),
            _ => {
                self.fault(path, "needs either name or selector");
                return None;
            }
        };
        let key = key.unwrap_or_else(|| DEFAULT_FILE.to_owned());
        Some(SourceKind::ConfigMap(ConfigMapOrigin { namespace, selection, key, reader: None }))
    }

    pub(super) fn policy(&mut self, value: Option<&Value>, path: &str) -> SyncPolicy {
        let mut policy = SyncPolicy { interval: Some(DEFAULT_INTERVAL), retry: Retry::default() };
        let Some(value) = value else { return policy };
        let Some(object) = self.object(value, path, &["type", "interval", "retryPolicy"]) else {
            return policy;
        };
        if let Some(value) = object.get("interval") {
            let interval = self.duration(value, &join(path, "interval"), INTERVALS);
            policy.interval = interval.or(policy.interval);
        }
        match object.get("type").map(Value::as_str) {
            None | Some(Some("automatic")) => {}
            Some(Some("manual")) => policy.interval = None,
            Some(_) => self.fault(&join(path, "type"), "must be automatic or manual"),
        }
        if let Some(value) = object.get("retryPolicy") {
            self.retry(value, &join(path, "retryPolicy"), &mut policy.retry);
        }
        policy
    }

    fn retry(&mut self, value: &Value, path: &str, retry: &mut Retry) {
        let known = ["maxAttempts", "backoffInterval", "backoffMultiplier"];
        let Some(object) = self.object(value, path, &known) else { return };
        if let Some(value) = object.get("maxAttempts") {
            match value
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
                .filter(|n| (1..=100).contains(n))
            {
                Some(attempts) => retry.attempts = attempts,
                None => self.fault(&join(path, "maxAttempts"), "must be a number from 1 to 100"),
            }
        }
        if let Some(value) = object.get("backoffInterval")
            && let Some(pause) = self.duration(value, &join(path, "backoffInterval"), INTERVALS)
        {
            retry.pause = pause;
        }
        if let Some(value) = object.get("backoffMultiplier") {
            let text =
                value.as_str().map(str::to_owned).or_else(|| Some(value.as_f64()?.to_string()));
            match text.and_then(|text| backoff_multiplier(&text)) {
                Some(multiplier) => retry.multiplier = multiplier,
                None => {
                    self.fault(
                        &join(path, "backoffMultiplier"),
                        "must be a number from 1 to 10, as \"2.0\"",
                    );
                }
            }
        }
    }
}

/// A back-off multiplier, which ToolHive writes as a string.
pub(crate) fn backoff_multiplier(text: &str) -> Option<f64> {
    text.parse().ok().filter(|multiplier| (1.0..=10.0).contains(multiplier))
}

/// What of a repository is read: a name that git could have, or a whole commit id.
pub(crate) fn git_reference(key: &str, text: String) -> Result<Reference, &'static str> {
    if key == "commit" {
        let hex = text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit());
        return if hex {
            Ok(Reference::Commit(text.to_ascii_lowercase()))
        } else {
            Err("must be a whole commit id: 40 hexadecimal digits")
        };
    }
    // git-check-ref-format(1).
    let bad = |c: char| {
        c.is_ascii_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\')
    };
    let good = !text.chars().any(bad)
        && !text.contains("..")
        && !text.contains("@{")
        && !text.contains("//")
        && !text.starts_with(['/', '-'])
        && !text.ends_with(['/', '.'])
        && !text.ends_with(".lock");
    match (good, key) {
        (false, _) => Err("is no name that git could have"),
        (true, "tag") => Ok(Reference::Tag(text)),
        (true, _) => Ok(Reference::Branch(text)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(kind: &str, value: &Value) -> Result<SourceKind, Vec<String>> {
        let mut reader = Reader::default();
        let read = reader.kind(kind, value, "s");
        let faults: Vec<String> = reader.faults.iter().map(|fault| fault.path.clone()).collect();
        match read {
            Some(kind) if faults.is_empty() => Ok(kind),
            _ => Err(faults),
        }
    }

    #[test]
    fn repositories() {
        for (text, url) in [
            ("https://example.com/a.git", Some("https://example.com/a.git")),
            ("ssh://git@example.com:2222/a.git", Some("ssh://git@example.com:2222/a.git")),
            ("git@example.com:org/a.git", Some("ssh://git@example.com/org/a.git")),
            ("example.com:a", None),
            ("ftp://example.com/a", None),
            ("-oProxyCommand=x@y:z", None),
            ("", None),
        ] {
            assert_eq!(git_remote_url(text).map(String::from), url.map(str::to_owned), "{text}");
        }
    }

    #[test]
    fn references() {
        for (key, text, good) in [
            ("branch", "main", true),
            ("branch", "feature/x", true),
            ("tag", "v1.0.0", true),
            ("branch", "a b", false),
            ("branch", "a..b", false),
            ("branch", "-x", false),
            ("tag", "x:y", false),
            ("commit", "0123456789abcdef0123456789abcdef01234567", true),
            ("commit", "0123456", false),
        ] {
            assert_eq!(git_reference(key, text.to_owned()).is_ok(), good, "{key} {text}");
        }
    }

    #[test]
    fn good_sources() {
        let file = |path: &str| Origin::File(path.into());
        let Ok(SourceKind::Url(url)) = read(
            "url",
            &json!({"url": "https://example.com/x.json", "timeout": "10s", "caFile": "/ca",
                "headers": {"X-Team": "a"}, "bearerTokenFile": "/token"}),
        ) else {
            panic!("not read");
        };
        assert_eq!(url.access.timeout, Duration::from_secs(10));
        assert_eq!((url.access.bearer, url.access.ca), (Some(file("/token")), Some(file("/ca"))));
        let Ok(SourceKind::Git(git)) =
            read("git", &json!({"repository": "/srv/a.git", "tag": "v1"}))
        else {
            panic!("not read");
        };
        assert_eq!(git.remote, Remote::Local("/srv/a.git".into()));
        assert_eq!(
            (git.reference, git.path.as_str()),
            (Reference::Tag("v1".into()), "registry.json")
        );
        let ssh = json!({"repository": "git@example.com:a.git", "sshKeyFile": "/key",
            "knownHostsFile": "/known"});
        let Ok(SourceKind::Git(GitOrigin { remote: Remote::Ssh { key, .. }, .. })) =
            read("git", &ssh)
        else {
            panic!("not read");
        };
        assert_eq!(key, file("/key"));
        let Ok(SourceKind::Registry(api)) =
            read("api", &json!({"endpoint": "https://example.com"}))
        else {
            panic!("not read");
        };
        assert_eq!(api.full_interval, DEFAULT_FULL_INTERVAL);
        let Ok(SourceKind::ConfigMap(map)) = read("configmap", &json!({"selector": "a=b"})) else {
            panic!("not read");
        };
        assert_eq!((map.selection, map.namespace), (Selection::Labels("a=b".into()), None));
        assert!(matches!(
            read("file", &json!({"url": "https://example.com/x.json", "timeout": "30s"})),
            Ok(SourceKind::Url(_))
        ));
    }

    #[test]
    fn bad_sources() {
        for (kind, value, path) in [
            ("url", json!({"url": "file:///etc/passwd"}), "s.url"),
            ("url", json!({"url": "https://u:p@example.com"}), "s.url"),
            ("url", json!({}), "s.url"),
            ("url", json!({"url": "https://a.b", "timeout": "10m"}), "s.timeout"),
            ("url", json!({"url": "https://a.b", "headers": {"a b": "c"}}), "s.headers.a b"),
            (
                "url",
                json!({"url": "https://a.b", "auth": {"username": "u"}}),
                "s.auth.passwordFile",
            ),
            ("api", json!({"endpoint": "nowhere"}), "s.endpoint"),
            ("git", json!({"repository": "git@a.b:c"}), "s.sshKeyFile"),
            ("git", json!({"repository": "relative/path"}), "s.repository"),
            ("git", json!({"repository": "/a", "commit": "abc"}), "s.commit"),
            ("configmap", json!({"name": "a", "selector": "b"}), "s"),
            ("configmap", json!({}), "s"),
            ("file", json!({"path": "a", "url": "b"}), "s"),
        ] {
            assert_eq!(
                read(kind, &value).unwrap_err().first().map(String::as_str),
                Some(path),
                "{value}"
            );
        }
    }

    #[test]
    fn policies() {
        let mut reader = Reader::default();
        let policy = reader.policy(
            Some(&json!({"type": "manual", "interval": "1h", "retryPolicy": {
                "maxAttempts": 5, "backoffInterval": "10s", "backoffMultiplier": "1.5"}})),
            "p",
        );
        let retry = Retry { attempts: 5, pause: Duration::from_secs(10), multiplier: 1.5 };
        assert_eq!(policy, SyncPolicy { interval: None, retry });
        reader.policy(
            Some(&json!({"type": "never", "retryPolicy": {"maxAttempts": 0,
                "backoffInterval": "x", "backoffMultiplier": "0.5"}})),
            "p",
        );
        let paths: Vec<&str> = reader.faults.iter().map(|fault| fault.path.as_str()).collect();
        let retry = |key: &str| format!("p.retryPolicy.{key}");
        assert_eq!(
            paths,
            [
                "p.type",
                &retry("maxAttempts"),
                &retry("backoffInterval"),
                &retry("backoffMultiplier")
            ]
        );
    }
}
