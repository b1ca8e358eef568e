//! A real PostgreSQL server of a test's own, on a free loopback port.
#![allow(unreachable_pub, dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server, killed when dropped.
pub struct Postgres {
    folder: tempfile::TempDir,
    port: u16,
    server: Option<Child>,
}

/// A program of PostgreSQL: Debian keeps them apart, by version.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|v| v.path().join("bin").join(name)).collect();
    found.retain(|path| path.exists());
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

/// A command that does not run as root, which PostgreSQL refuses.
fn command(name: &str) -> Command {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    if !root {
        return Command::new(program(name));
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]).arg(program(name));
    command
}

impl Postgres {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with files in its data folder, of which `server.crt` and `server.key` are for TLS.
    pub fn start_with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let _ = Command::new("chown").arg("nobody").arg(folder.path()).status();
        let data = folder.path().join("data");
        let made = command("initdb")
            .args(["--auth=trust", "--username=waymark", "--no-sync", "--encoding=UTF8", "-D"])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .expect("PostgreSQL is installed; run these tests by `cargo xtask test`");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        for (name, text) in files {
            use std::os::unix::fs::PermissionsExt;
            let path = data.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let _ = Command::new("chown").arg("nobody").arg(&path).status();
        }
        let mut server = Self { folder, port, server: None };
        server.run();
        server
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Starts the server, again after [`Self::stop`].
    pub fn run(&mut self) {
        let port = self.port.to_string();
        let child = command("postgres")
            .arg("-D")
            .arg(self.data())
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port,
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=50",
            ])
            .args(if self.data().join("server.crt").exists() { &["-c", "ssl=on"][..] } else { &[] })
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("postgres starts");
        self.server = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "postgres is not ready");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_ready(&self) -> bool {
        let port = self.port.to_string();
        let ready = Command::new(program("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &port])
            .status();
        ready.is_ok_and(|status| status.success())
    }

    /// Stops it at once, without a clean end, as a crash does.
    pub fn stop(&mut self) {
        let ended = command("pg_ctl")
            .args(["stop", "-m", "immediate", "-w", "-D"])
            .arg(self.data())
            .output();
        assert!(ended.unwrap().status.success());
        if let Some(mut server) = self.server.take() {
            let _ = server.wait();
        }
    }

    pub fn url(&self) -> String {
        format!("postgres://waymark@127.0.0.1:{}/postgres", self.port)
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ =
                command("pg_ctl").args(["stop", "-m", "immediate", "-D"]).arg(self.data()).output();
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}
