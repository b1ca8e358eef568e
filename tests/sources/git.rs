//! Git repositories, over HTTP (git's own server), over SSH (OpenSSH's), and in a folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::web::{Reply, Web};
use crate::{Process, catalogue, often};

/// A bare repository, and a work tree from which it is filled.
struct Repository {
    folder: tempfile::TempDir,
}

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Repository {
    fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().unwrap() };
        git(repository.folder.path(), &["init", "-q", "--bare", "catalogue.git"]);
        git(repository.folder.path(), &["init", "-q", "work"]);
        repository
    }

    fn bare(&self) -> PathBuf {
        self.folder.path().join("catalogue.git")
    }

    /// Writes a file, commits it and pushes it to a branch; gives the commit.
    fn push(&self, file: &str, text: &[u8], branch: &str) -> String {
        let work = self.folder.path().join("work");
        let path = work.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        git(&work, &["add", "-A"]);
        git(&work, &["commit", "-q", "--allow-empty", "-m", "change"]);
        git(&work, &["push", "-q", "../catalogue.git", &format!("+HEAD:refs/heads/{branch}")]);
        git(&work, &["rev-parse", "HEAD"])
    }

    fn tag(&self, name: &str) {
        let work = self.folder.path().join("work");
        git(&work, &["tag", "-f", "-a", "-m", "release", name]);
        git(&work, &["push", "-q", "-f", "../catalogue.git", name]);
    }
}

fn source(repository: &str, more: &Value) -> Value {
    let mut git = json!({"repository": repository, "timeout": "10s"});
    git.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"git": git, "syncPolicy": often()})
}

/// The same steps for every way to a repository.
fn life(repository: &Repository, url: &str, more: &Value) {
    let first = catalogue(&["a.b/one"]);
    let commit = repository.push("registry.json", first.as_bytes(), "main");
    let with = |extra: Value| {
        let mut all = more.clone();
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        source(url, &all)
    };
    let head = Process::start(&with(json!({})));
    head.serves(&["a.b/one"]);
    repository.tag("v1");
    repository.push("registry.json", catalogue(&["a.b/two"]).as_bytes(), "main");
    head.serves(&["a.b/two"]);
    let nested = catalogue(&["a.b/nested"]);
    repository.push("deep/er/catalogue.json", nested.as_bytes(), "feature/x");
    for (extra, names) in [
        (json!({"tag": "v1"}), ["a.b/one"]),
        (json!({"branch": "main"}), ["a.b/two"]),
        (json!({"commit": commit}), ["a.b/one"]),
        (json!({"branch": "feature/x", "path": "deep/er/catalogue.json"}), ["a.b/nested"]),
    ] {
        let process = Process::start(&with(extra.clone()));
        assert_eq!(process.names(), names, "{extra}: {}", process.status());
        process.registry.waymark.stop();
    }
    for (extra, reason, says) in [
        (json!({"branch": "none"}), "ReferenceNotFound", "no branch none"),
        (json!({"tag": "v0"}), "ReferenceNotFound", "no tag v0"),
        (json!({"commit": "1".repeat(40)}), "ReferenceNotFound", "no commit 111"),
        (json!({"path": "none.json"}), "FileNotFound", "no file none.json"),
        (json!({"branch": "feature/x", "path": "deep"}), "FileNotFound", "no file deep"),
    ] {
        let process = Process::start(&with(extra));
        process.fails(reason, says);
        process.registry.waymark.stop();
    }
    // What cannot be used keeps what was there; so does a repository that vanishes.
    repository.push("registry.json", b"{", "main");
    head.fails("InvalidFormat", "neither JSON");
    assert_eq!(head.names(), ["a.b/two"]);
    repository.push("registry.json", catalogue(&["a.b/three"]).as_bytes(), "main");
    head.serves(&["a.b/three"]);
    let hidden = repository.folder.path().join("hidden");
    std::fs::rename(repository.bare(), &hidden).unwrap();
    crate::eventually("the failure", || {
        (head.status()["syncStatus"]["phase"] == "failed").then_some(())
    });
    assert_eq!(head.names(), ["a.b/three"]);
    std::fs::rename(&hidden, repository.bare()).unwrap();
    head.recovers();
    head.registry.waymark.stop();
}

#[test]
fn in_a_folder() {
    let repository = Repository::new();
    let path = repository.bare().to_str().unwrap().to_owned();
    life(&repository, &path, &json!({}));
}

#[test]
fn over_http() {
    let repository = Repository::new();
    let web = Web::start(Reply::Git(repository.folder.path().to_owned()));
    life(&repository, &web.url("/catalogue.git"), &json!({}));
}

#[test]
fn http_reads_only_what_changed_and_within_bounds() {
    let repository = Repository::new();
    repository.push("registry.json", catalogue(&["a.b/one"]).as_bytes(), "main");
    let served = Reply::Git(repository.folder.path().to_owned());
    let web = Web::start(served.clone());
    let process = Process::start(&source(&web.url("/catalogue.git"), &json!({})));
    process.serves(&["a.b/one"]);
    // The references are asked for, the objects are not.
    web.forget();
    crate::eventually("some requests", || (web.asked().len() > 6).then_some(()));
    let posts: Vec<String> = web.asked().iter().map(|asked| asked.path.clone()).collect();
    let fetches = posts.iter().filter(|path| path.ends_with("/git-upload-pack")).count();
    let infos = posts.iter().filter(|path| path.contains("info/refs")).count();
    assert!(fetches <= infos, "{posts:?}");
    for (reply, reason, says) in [
        (Reply::Status(404), "NotFound", "404"),
        (Reply::Status(401), "Unauthorized", "401"),
        (Reply::Endless, "TooLarge", "more than"),
        (Reply::Document(b"no git".to_vec()), "Unreachable", "cannot be fetched"),
        (Reply::Redirect(web.url("/again")), "TooManyRedirects", "more than 5"),
    ] {
        web.set(reply);
        process.fails(reason, says);
        assert_eq!(process.names(), ["a.b/one"]);
    }
    web.set(served);
    process.recovers();
    // A file that is larger than is read, though it is little in the repository.
    let large = vec![b' '; 65 << 20];
    repository.push("registry.json", &large, "main");
    process.fails("TooLarge", "registry.json");
    process.registry.waymark.stop();
}

#[test]
fn http_with_a_token_and_over_a_redirect() {
    let repository = Repository::new();
    repository.push("registry.json", catalogue(&["a.b/one"]).as_bytes(), "main");
    let there = Web::start(Reply::Git(repository.folder.path().to_owned()));
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "secret").unwrap();
    let auth = json!({"auth": {"username": "git", "passwordFile": password}});
    let process = Process::start(&source(&there.url("/catalogue.git"), &auth));
    process.serves(&["a.b/one"]);
    assert!(there.asked().iter().all(|asked| asked.headers.contains_key("authorization")));
    process.registry.waymark.stop();
}

/// OpenSSH's server, on a port of its own, for the user of this process.
struct Sshd {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Sshd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for key in ["host", "user", "other"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f", &path(key)])
                .status()
                .unwrap();
            assert!(made.success());
        }
        std::fs::copy(path("user.pub"), path("authorized_keys")).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\n\
             StrictModes no\nUsePAM no\nPasswordAuthentication no\nPidFile none\n\
             PermitRootLogin prohibit-password\nAcceptEnv GIT_PROTOCOL\n",
            path("host"),
            path("authorized_keys")
        );
        std::fs::write(path("sshd_config"), config).unwrap();
        // The server's own folder, which Debian's service makes.
        let _ = std::fs::create_dir_all("/run/sshd");
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("sshd_config")])
            .stderr(Stdio::null())
            .spawn()
            .expect("OpenSSH's server is there; `cargo xtask test` installs it");
        crate::eventually("sshd", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, port, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A file of known hosts that holds a key under a host's name.
    fn known_hosts(&self, host: &str, key: &str) -> String {
        let key = std::fs::read_to_string(self.file(key)).unwrap();
        let path = self.file("known_hosts");
        std::fs::write(&path, format!("[{host}]:{} {key}", self.port)).unwrap();
        path
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "needs OpenSSH's server: cargo xtask test"]
fn over_ssh() {
    let repository = Repository::new();
    let sshd = Sshd::start();
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let path = repository.bare();
    let url = format!("ssh://{}@localhost:{}{}", user.trim(), sshd.port, path.display());
    let keys = |key: &str, known: &str| json!({"sshKeyFile": key, "knownHostsFile": known});
    let known = sshd.known_hosts("localhost", "host.pub");
    repository.push("registry.json", catalogue(&["a.b/one"]).as_bytes(), "main");
    // Another key, another host, no key at all.
    let process = Process::start(&source(&url, &keys(&sshd.file("other"), &known)));
    process.fails("Unauthorized", "does not take the SSH key");
    process.registry.waymark.stop();
    let process = Process::start(&source(&url, &keys(&sshd.file("host.pub"), &known)));
    process.fails("CredentialsUnavailable", "the SSH key cannot be used");
    process.registry.waymark.stop();
    let wrong = sshd.known_hosts("localhost", "other.pub");
    let process = Process::start(&source(&url, &keys(&sshd.file("user"), &wrong)));
    process.fails("HostKeyUnknown", "not among the known hosts");
    process.registry.waymark.stop();
    let elsewhere = sshd.known_hosts("elsewhere", "host.pub");
    let process = Process::start(&source(&url, &keys(&sshd.file("user"), &elsewhere)));
    process.fails("HostKeyUnknown", "not among the known hosts");
    process.registry.waymark.stop();
    let known = sshd.known_hosts("localhost", "host.pub");
    life(&repository, &url, &keys(&sshd.file("user"), &known));
}
