//! Waymark's tests and benchmarks, by one command each.
#![allow(clippy::print_stdout)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Waymark's tests and benchmarks, by one command each")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs all tests: the Rust ones, and those that need other projects' real parts.
    ///
    /// Needs Go (real parts come as pinned Go modules under tests/envtest/), Python 3 (the OpenAPI
    /// checkers come from PyPI) and PostgreSQL, which is installed from Debian's packages where it is
    /// missing. What is fetched is cached on the first run.
    Test {
        /// Leaves out what needs Go, Python or the network.
        #[arg(long, conflicts_with = "cluster")]
        offline_only: bool,
        /// Runs only the tests against the test cluster whose names hold this text.
        #[arg(long, value_name = "TEXT", num_args = 0..=1, default_missing_value = "")]
        cluster: Option<String>,
    },
    /// Runs all benchmarks and prints their figures.
    Bench {
        /// Only these: index, rest, publish, load, cluster.
        names: Vec<String>,
    },
    /// Checks formatting, lints, documentation, and licences where cargo-deny is installed.
    Lint,
}

const BENCHES: [&str; 7] = ["index", "rest", "publish", "load", "sources", "gateway", "cluster"];

fn main() -> ExitCode {
    match work(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn work(task: Task) -> Result<()> {
    env::set_current_dir(root()?).context("cannot enter the project's folder")?;
    match task {
        Task::Test { cluster: Some(filter), .. } => cluster(&target()?, &filter),
        Task::Test { offline_only, cluster: None } => test(offline_only),
        Task::Bench { names } => bench(&names),
        Task::Lint => lint(),
    }
}

fn root() -> Result<PathBuf> {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(Path::to_owned).context("the project's folder is gone")
}

/// Cargo's target folder.
fn target() -> Result<PathBuf> {
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    Ok(if target.is_absolute() { target } else { root()?.join(target) })
}

fn run(what: &str, command: &mut Command) -> Result<()> {
    println!("== {what}");
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    if !status.success() {
        bail!("{what} failed");
    }
    Ok(())
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn need(program: &str, args: &[&str], why: &str) -> Result<()> {
    match Command::new(program).args(args).output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => bail!("{program} is missing: {why}. Install it, or run with --offline-only."),
    }
}

fn test(offline_only: bool) -> Result<()> {
    if !offline_only {
        need(
            "go",
            &["version"],
            "the test cluster and the upstream registry's schemas come as Go modules",
        )?;
        need("python3", &["-m", "venv", "--help"], "the OpenAPI validator comes from PyPI")?;
    }
    run("Rust tests", cargo().args(["test", "--workspace", "--quiet"]))?;
    if offline_only {
        println!(
            "== left out, because of --offline-only: upstream's schemas and types, a cluster, OpenAPI"
        );
        return Ok(());
    }
    run("the binary", cargo().args(["build", "--quiet", "--bin", "waymark"]))?;
    let target = target()?;
    run(
        "upstream's schemas and types",
        Command::new("go")
            .args(["test", "-count=1", "./..."])
            .current_dir("tests/envtest")
            .env("WAYMARK_BIN", target.join("debug/waymark")),
    )?;
    servers()?;
    envoy(&target.join("venv"))?;
    cluster(&target, "")?;
    openapi(&target, &target.join("venv"))
}

/// Installs a Debian package that is missing.
fn install(package: &str, for_what: &str) -> Result<()> {
    println!("== {package} is missing; installing Debian's");
    run("apt-get update", Command::new("apt-get").args(["update", "-qq"]))?;
    let install = ["install", "-y", "-qq", "--no-install-recommends", package];
    run("apt-get install", Command::new("apt-get").args(install)).with_context(|| {
        format!("{package} is needed for {for_what}: install it, or run with --offline-only")
    })
}

/// Installs PostgreSQL where it is missing.
fn install_postgresql() -> Result<()> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|mut dir| dir.next().is_some());
    let found = Command::new("initdb").arg("--version").output().is_ok_and(|o| o.status.success());
    if debian || found { Ok(()) } else { install("postgresql", "the tests of its store") }
}

/// Runs the tests against real servers: PostgreSQL's and OpenSSH's.
fn servers() -> Result<()> {
    install_postgresql()?;
    if !Path::new("/usr/sbin/sshd").exists() {
        install("openssh-server", "the tests of git over SSH")?;
    }
    let tests = ["test", "--quiet", "--workspace"];
    let of = ["--test", "store", "--test", "replicas", "--test", "durability", "--test", "sources"];
    run("PostgreSQL and OpenSSH", cargo().args(tests).args(of).args(["--", "--ignored"]))
}

/// The Envoy that PyPI carries.
fn envoy_binary(venv: &Path) -> Result<String> {
    let python = python(venv)?;
    let find = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin/envoy')";
    let found = Command::new(&python).args(["-c", find]).output().context("cannot start python")?;
    Ok(String::from_utf8_lossy(&found.stdout).trim().to_owned())
}

/// Runs the tests of the gateway plugin against a real Envoy.
fn envoy(venv: &Path) -> Result<()> {
    let tests = ["test", "--quiet", "--test", "gateway", "--", "--ignored"];
    let binary = envoy_binary(venv)?;
    run("the gateway plugin behind Envoy", cargo().args(tests).env("ENVOY_BIN", binary))
}

/// Runs the tests against a real kube-apiserver and etcd.
fn cluster(target: &Path, filter: &str) -> Result<()> {
    run(
        "discovery against a real API server",
        with_cluster(cargo().args(["test", "--quiet", "--test", "cluster", "--"]), target)?
            .args(["--ignored", filter]),
    )
}

/// Tells a command where the test cluster's programs and CRDs are: those of `KUBEBUILDER_ASSETS`
/// where it is set (the convention of controller-runtime), else built from pinned Go modules.
fn with_cluster<'c>(command: &'c mut Command, target: &Path) -> Result<&'c mut Command> {
    let modules = "tests/envtest/cluster";
    let assets = match env::var_os("KUBEBUILDER_ASSETS") {
        Some(assets) => assets.into(),
        None => {
            let bin = target.join("envtest");
            std::fs::create_dir_all(&bin).context("cannot make a folder for the test cluster")?;
            run(
                "kube-apiserver and etcd (the first build takes some minutes)",
                Command::new("go")
                    .args(["build", "-o"])
                    .arg(&bin)
                    .args(["./kube-apiserver", "./etcd"])
                    .current_dir(modules),
            )?;
            bin
        }
    };
    let toolhive = module("github.com/stacklok/toolhive", "tests/envtest/toolhive")?;
    Ok(command
        .env("KUBEBUILDER_ASSETS", assets)
        .env("GATEWAY_API_DIR", module("sigs.k8s.io/gateway-api", modules)?)
        .env("TOOLHIVE_DIR", toolhive))
}

/// The folder in the module cache of a Go module that the module in `pinned_by` requires.
fn module(name: &str, pinned_by: &str) -> Result<String> {
    run("CRDs", Command::new("go").args(["mod", "download", name]).current_dir(pinned_by))?;
    let list = ["list", "-m", "-f", "{{.Dir}}", name];
    let listed = Command::new("go").args(list).current_dir(pinned_by).output();
    Ok(String::from_utf8_lossy(&listed.context("cannot start go")?.stdout).trim().to_owned())
}

/// A Python with the tools of the tests.
fn python(venv: &Path) -> Result<PathBuf> {
    let python = venv.join("bin/python");
    if !python.exists() {
        run("a Python environment", Command::new("python3").args(["-m", "venv"]).arg(venv))?;
    }
    run(
        "tools from PyPI",
        Command::new(&python)
            .args(["-m", "pip", "install", "-q", "--disable-pip-version-check"])
            .args(["-r", "tests/requirements.txt"])
            .args(["-r", "examples/clients/python/requirements.txt"]),
    )?;
    Ok(python)
}

/// Validates the served OpenAPI document by the specification's own schema.
fn openapi(target: &Path, venv: &Path) -> Result<()> {
    let python = python(venv)?;
    run(
        "OpenAPI 3.1",
        Command::new(&python).args(["-m", "openapi_spec_validator", "registry-api/openapi.yaml"]),
    )?;
    let data = tempfile()?;
    let done = conformance(venv, target, &data);
    let _ = std::fs::remove_dir_all(&data);
    done
}

/// A folder of its own, made.
fn tempfile() -> Result<PathBuf> {
    let folder = env::temp_dir().join(format!("waymark-xtask-{}", std::process::id()));
    std::fs::create_dir_all(&folder).context("cannot make a temporary folder")?;
    Ok(folder)
}

/// A process that is killed when dropped.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the example clients: each sees the same servers.
fn clients(venv: &Path, grpc: &str) -> Result<()> {
    let python = venv.join("bin/python");
    let go = "examples/clients/go";
    run(
        "code of the Go client",
        Command::new("./generate.sh")
            .current_dir(go)
            .env("PROTOC", format!("{} -m grpc_tools.protoc", python.display())),
    )?;
    let output = |command: &mut Command| -> Result<String> {
        let program = command.get_program().to_string_lossy().into_owned();
        let output = command.output().with_context(|| format!("cannot start {program}"))?;
        if !output.status.success() {
            bail!("{program} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let address = format!("http://{grpc}");
    let rust = ["run", "--quiet", "--example", "catalogue-client", "--", &*address, "once"];
    println!("== the example clients");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut last = String::new();
    let expected = loop {
        let seen = output(cargo().args(rust))?;
        // Until discovery has published all of its examples.
        if seen.contains("com.example.tools/github") && seen == last {
            break seen;
        }
        last.clone_from(&seen);
        if std::time::Instant::now() > deadline {
            bail!("nothing was published: {seen}");
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    };
    let script = "examples/clients/python/client.py";
    let others = [
        ("Python", output(Command::new(&python).args([script, grpc, "once"]))?),
        ("Go", output(Command::new("go").args(["run", ".", grpc, "once"]).current_dir(go))?),
    ];
    for (language, seen) in others {
        if seen != expected || !seen.ends_with("complete\n") {
            bail!("the {language} client sees\n{seen}\nand the Rust client\n{expected}");
        }
    }
    Ok(())
}

/// Sends generated requests, good and bad ones, to a registry, and checks its answers against the
/// OpenAPI document that it serves.
fn conformance(venv: &Path, target: &Path, folder: &Path) -> Result<()> {
    const TOKEN: &str = "a-token-for-conformance";
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        std::fs::write(&file, text).context("cannot write a temporary file").map(|()| file)
    };
    let tokens = write("tokens", &format!("{TOKEN},tests\n"))?;
    let config = format!(
        "sources: [{{name: own, managed: {{}}}}, {{name: k8s, kubernetes: {{}}}}]\n\
         registries: [{{name: default, sources: [own, k8s]}}]\n\
         auth: {{staticTokenFile: '{}'}}\n",
        tokens.display()
    );
    let config = write("registry.yaml", &config)?;
    let port = || -> Result<String> {
        Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
    };
    let (http, grpc) = (port()?, port()?);
    let waymark = |args: &[&str]| -> Result<Running> {
        let mut command = Command::new(target.join("debug/waymark"));
        let child = command.args(args).env("RUST_LOG", "error").spawn();
        child.map(Running).context("cannot start waymark")
    };
    let (config, data) = (config.to_string_lossy(), folder.join("data"));
    let data = data.to_string_lossy();
    let _registry = waymark(&[
        "registry-api",
        "--config",
        &*config,
        "--data",
        &*data,
        "--http-addr",
        &http,
        "--grpc-addr",
        &grpc,
    ])?;
    let registry = format!("http://{grpc}");
    let _discovery = waymark(&[
        "discovery",
        "--registry",
        &registry,
        "--manifests",
        "examples/httproutes",
        "--assume-accepted",
        "--admin-addr",
        "off",
    ])?;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while std::net::TcpStream::connect(&http).is_err() {
        if std::time::Instant::now() > deadline {
            bail!("the registry did not start");
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    clients(venv, &grpc)?;
    let url = format!("http://{http}");
    run(
        "the API against its OpenAPI document",
        Command::new(venv.join("bin/schemathesis"))
            .args(["run", &format!("{url}/openapi.yaml"), "--url", &url])
            .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
            // A cursor is opaque and a server.json has rules that no JSON schema says: what fits the
            // schema may be refused.
            .args(["--exclude-checks", "positive_data_acceptance"])
            // Of several workers one may trip over another in the tool's own caches.
            .args(["--max-examples", "40", "--seed", "1", "--workers", "1"])
            .args(["--report-dir", &*folder.to_string_lossy(), "--no-color"]),
    )
}

fn bench(names: &[String]) -> Result<()> {
    let all: Vec<String> = BENCHES.iter().map(|name| (*name).to_owned()).collect();
    for name in if names.is_empty() { &all } else { names } {
        if !BENCHES.contains(&name.as_str()) {
            bail!("there is no benchmark {name}; there are: {}", BENCHES.join(", "));
        }
        match name.as_str() {
            "rest" => tools(&["nginx", "wrk"])?,
            "gateway" => tools(&["wrk"])?,
            "load" => {
                tools(&["wrk"])?;
                install_postgresql()?;
            }
            _ => {}
        }
        let mut command = cargo();
        command.args(["bench", "--quiet", "--bench", name]);
        if name == "gateway" {
            command.env("ENVOY_BIN", envoy_binary(&target()?.join("venv"))?);
        }
        if name == "cluster" {
            with_cluster(&mut command, &target()?)?;
        }
        run(name, &mut command)?;
    }
    Ok(())
}

/// Installs Debian packages that a benchmark needs, where they are missing and it may.
fn tools(programs: &[&str]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| Command::new(program).arg("-v").output().is_err())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    run("apt-get update", Command::new("apt-get").args(["update", "-qq"]))?;
    let install = ["install", "-y", "-qq", "--no-install-recommends"];
    run("apt-get install", Command::new("apt-get").args(install).args(&missing))
}

fn lint() -> Result<()> {
    run("formatting", cargo().args(["fmt", "--all", "--check"]))?;
    run(
        "lints",
        cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
    )?;
    let deny =
        Command::new("cargo-deny").arg("--version").output().is_ok_and(|o| o.status.success());
    if deny {
        run("licences", cargo().args(["deny", "check", "bans", "licenses", "sources"]))?;
    } else {
        println!("== licences: left out, cargo-deny is not installed (cargo install cargo-deny)");
    }
    run(
        "documentation",
        cargo()
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}
