//! REST over 100,000 entries, beside nginx serving the same bytes as static files.
//! `cargo xtask bench rest`; needs nginx and wrk.
//!
//! Both servers run on the same two cores as the load, one after the other, so the ratio counts,
//! not the rate.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    missing_docs
)]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::{Registry, publish, server, timed};

const ENTRIES: usize = 100_000;
const NGINX: &str = "127.0.0.1:18099";

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master passes the signal on to its workers.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

impl Nginx {
    fn start(folder: &Path) -> Self {
        let root = folder.join("www");
        let root = root.to_str().unwrap();
        let config = format!(
            "worker_processes 2; daemon off; pid {0}/pid; error_log {0}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; keepalive_requests 100000000;\n\
             gzip_static on; open_file_cache max=100; open_file_cache_valid 600s; default_type application/json;\n\
             server {{ listen {NGINX}; root {root}; }} }}\n",
            folder.display()
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        // Its workers run as another user, who must be able to read the files.
        let _ = Command::new("chmod").args(["-R", "a+rX"]).arg(folder).status();
        let child = Command::new("nginx")
            .args(["-c", file.to_str().unwrap()])
            .stderr(Stdio::null())
            .spawn()
            .expect("nginx starts; install it with: apt-get install nginx");
        Self(child)
    }
}

/// Requests per second.
fn load(url: &str, header: Option<&str>) -> f64 {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c32", "-d4s", "--latency"]);
    if let Some(header) = header {
        wrk.args(["-H", header]);
    }
    let output = wrk.arg(url).output().expect("wrk starts; install it with: apt-get install wrk");
    let text = String::from_utf8(output.stdout).unwrap();
    // 304 counts as one of the answers that were asked for.
    let conditional = header.is_some_and(|header| header.starts_with("If-None-Match"));
    assert!(conditional || !text.contains("Non-2xx"), "{url}\n{text}");
    let line = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")).unwrap();
    line.trim().parse().unwrap()
}

fn get(url: &str) -> (Vec<u8>, String) {
    let mut response = ureq::get(url).call().unwrap();
    let tag = response.headers().get("etag").unwrap().to_str().unwrap().to_owned();
    (response.body_mut().read_to_vec().unwrap(), tag)
}

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(&folder.path().join("data"));
    let servers = (0..ENTRIES).map(|n| server(n).to_string().into_bytes()).collect();
    let (_, took) = timed(|| runtime.block_on(publish(&registry.grpc, servers)));
    println!("rest: {ENTRIES} entries (published in {:.1} s), wrk -t1 -c32", took.as_secs_f64());
    let middle = {
        // A page from the middle: its cursor is the key of an entry there.
        let (page, _) = get(&format!("{}/v0.1/servers?limit=1&search=number+50000", registry.rest));
        let page: serde_json::Value = serde_json::from_slice(&page).unwrap();
        let name =
            page.pointer("/servers/0/server/name").and_then(|n| n.as_str()).unwrap().to_owned();
        use base64::Engine;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{name}\n1.4.2"))
    };
    let cases = [
        ("list, first page", "/v0.1/servers".to_owned()),
        ("list, 100 from the middle", format!("/v0.1/servers?limit=100&cursor={middle}")),
        ("list, latest versions", "/v0.1/servers?version=latest".to_owned()),
        (
            "get one",
            format!("/v0.1/servers/{}/versions/latest", name_of(71_500).replace('/', "%2F")),
        ),
        ("search, many matches", "/v0.1/servers?search=weather".to_owned()),
        ("search, one match", "/v0.1/servers?search=number+77777".to_owned()),
        ("search, no match", "/v0.1/servers?search=nothing+of+this".to_owned()),
    ];
    let www = folder.path().join("www");
    std::fs::create_dir(&www).unwrap();
    for (n, (_, path)) in cases.iter().enumerate() {
        let (body, _) = get(&format!("{}{path}", registry.rest));
        std::fs::write(www.join(format!("{n}.json")), body).unwrap();
    }
    let nginx = Nginx::start(folder.path());
    std::thread::sleep(std::time::Duration::from_millis(500));
    println!("  {:<26} {:>9} {:>12} {:>12}  ratio", "", "bytes", "waymark/s", "nginx/s");
    for (n, (what, path)) in cases.iter().enumerate() {
        let url = format!("{}{path}", registry.rest);
        let (body, tag) = get(&url);
        let ours = load(&url, None);
        let theirs = load(&format!("http://{NGINX}/{n}.json"), None);
        println!(
            "  {what:<26} {:>9} {ours:>12.0} {theirs:>12.0}  {:.2}",
            body.len(),
            ours / theirs
        );
        if n == 0 {
            // What browsers and most clients ask for.
            let packed = Command::new("gzip").args(["-k"]).arg(www.join("0.json")).status();
            assert!(packed.is_ok_and(|status| status.success()), "gzip packs the page for nginx");
            let gzip = "Accept-Encoding: gzip";
            let ours = load(&url, Some(gzip));
            let theirs = load(&format!("http://{NGINX}/0.json"), Some(gzip));
            println!(
                "  {:<26} {:>9} {ours:>12.0} {theirs:>12.0}  {:.2}",
                "  compressed",
                "",
                ours / theirs
            );
            let nginx_tag = {
                let response = ureq::get(&format!("http://{NGINX}/0.json")).call().unwrap();
                response.headers().get("etag").unwrap().to_str().unwrap().to_owned()
            };
            let ours = load(&url, Some(&format!("If-None-Match: {tag}")));
            let header = format!("If-None-Match: {nginx_tag}");
            let theirs = load(&format!("http://{NGINX}/0.json"), Some(&header));
            println!(
                "  {:<26} {:>9} {ours:>12.0} {theirs:>12.0}  {:.2}",
                "  not modified",
                0,
                ours / theirs
            );
        }
    }
    drop(nginx);
}

fn name_of(n: usize) -> String {
    let server = server(n);
    server.get("name").and_then(|name| name.as_str()).unwrap().to_owned()
}
