//! `waymark discovery --probe` against real MCP servers, and against what is none.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::any;
use common::{Registry, Waymark, get};
use rmcp::model::{
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A real MCP server with 3 tools, in two pages.
#[derive(Clone)]
struct Tools;

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name: &'static str| Tool::new(name, "", Arc::new(serde_json::Map::new()));
        let mut page = ListToolsResult::default();
        if request.and_then(|request| request.cursor).is_none() {
            page.tools = vec![tool("search"), tool("not a name <script>")];
            page.next_cursor = Some("2".into());
        } else {
            page.tools = vec![tool("fetch")];
        }
        Ok(page)
    }
}

/// Everything that a server was asked: path and headers.
type Seen = Arc<Mutex<Vec<(String, Vec<String>)>>>;

async fn record(seen: Seen, request: Request, next: Next) -> Response {
    let headers = request.headers().keys().map(ToString::to_string).collect();
    seen.lock().unwrap().push((request.uri().path().to_owned(), headers));
    next.run(request).await
}

/// Serves at an address: `/mcp` is an MCP server; other paths misbehave.
async fn serve(
    address: &str,
    elsewhere: String,
) -> (SocketAddr, Seen, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mcp = StreamableHttpService::new(
        || Ok(Tools),
        Arc::new(LocalSessionManager::default()),
        StreamableHttpServerConfig::default().disable_allowed_hosts(),
    );
    let unauthorized = || async {
        (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, "Bearer realm=\"x\"")])
            .into_response()
    };
    let endless = || async {
        let chunk = axum::body::Bytes::from(vec![b' '; 1 << 20]);
        let body = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
        ([(header::CONTENT_TYPE, "application/json")], axum::body::Body::from_stream(body))
            .into_response()
    };
    let slow = || async {
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
    };
    let away = format!("{elsewhere}/stolen");
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let router = Router::new()
        .nest_service("/mcp", mcp)
        .route("/private", any(unauthorized))
        .route("/endless", any(endless))
        .route("/slow", any(slow))
        .route("/html", any(|| async { axum::response::Html("<h1>hello</h1>") }))
        .route("/away", any(move || async move { Redirect::temporary(&away) }))
        .route("/moved", any(|| async { Redirect::temporary("/mcp") }))
        .layer(middleware::from_fn(move |request, next| record(Arc::clone(&log), request, next)));
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, seen, task)
}

/// Entries with URLs of their own, one per path.
fn manifests(folder: &Path, base: &str, tools: Option<&str>) {
    let entry = |path: &str| {
        let mut annotations =
            json!({"toolhive.stacklok.dev/registry-url": format!("{base}/{path}")});
        if let Some(tools) = tools {
            annotations["toolhive.stacklok.dev/registry-tools"] = json!(tools);
        }
        json!({
            "apiVersion": "toolhive.stacklok.dev/v1beta1", "kind": "MCPServerEntry",
            "metadata": {"name": path, "namespace": "apps", "annotations": annotations},
            "spec": {"remoteUrl": "https://x.example.org", "transport": "streamable-http"}
        })
    };
    let paths = ["mcp", "private", "endless", "slow", "html", "away", "moved", "nothing"];
    let items: Vec<Value> = paths.iter().map(|path| entry(path)).collect();
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    std::fs::write(folder.join("entries.json"), list.to_string()).unwrap();
}

struct Setup {
    discovery: Waymark,
    registry: Registry,
    admin: String,
    _folder: tempfile::TempDir,
}

impl Setup {
    fn start(base: &str, tools: Option<&str>, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        manifests(folder.path(), base, tools);
        let registry = Registry::start(&folder.path().join("data"), "127.0.0.1:0", &[]);
        let path = folder.path().join("entries.json");
        let mut args = vec!["discovery", "--registry", &registry.grpc, "--manifests"];
        args.extend([path.to_str().unwrap(), "--admin-addr", "127.0.0.1:0", "--probe"]);
        args.extend(["--probe-timeout", "2s", "--probe-interval", "2s"]);
        args.extend(["--probe-resolve", "a.example.com=127.0.0.1"]);
        args.extend(["--probe-resolve", "b.example.com=127.0.0.1"]);
        args.extend(more);
        let mut discovery = Waymark::start(&args);
        let line = discovery.line(&["the admin port is listening"]);
        let admin = format!("http://{}", line.rsplit_once("admin=").unwrap().1.trim());
        Self { discovery, registry, admin, _folder: folder }
    }

    /// Tools of the entry of a path, the URLs marked as unanswered, and what explain says.
    fn state(&self, path: &str) -> (Value, Value, String) {
        let page = get(&format!("{}/v0.1/servers?search=/{path}", self.registry.rest)).json();
        let Some(server) = page["servers"].get(0) else { return Default::default() };
        let server = &server["server"];
        let url = server["remotes"][0]["url"].as_str().unwrap();
        let extension = &server["_meta"]["io.modelcontextprotocol.registry/publisher-provided"]["io.github.stacklok"]
            [url];
        let explained = get(&format!("{}/explain/mcpserverentry/apps/{path}", self.admin)).json();
        let problem = &explained["objects"][0]["problems"][0];
        let said = format!(
            "{} {}",
            problem["code"].as_str().unwrap_or_default(),
            problem["message"].as_str().unwrap_or_default()
        );
        (extension["tools"].clone(), extension["custom_metadata"]["unanswered"].clone(), said)
    }

    fn until(&self, path: &str, what: &str, test: impl Fn(&(Value, Value, String)) -> bool) {
        let mut last = Default::default();
        let deadline = std::time::Instant::now() + common::PATIENCE;
        while std::time::Instant::now() < deadline {
            last = self.state(path);
            if test(&last) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{path}: {what}: {last:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_answer_and_that_do_not() {
    let (elsewhere, stolen, _other) = serve("127.0.0.1:0", String::new()).await;
    let (address, seen, serving) =
        serve("127.0.0.1:0", format!("http://b.example.com:{}", elsewhere.port())).await;
    let base = format!("http://a.example.com:{}", address.port());
    tokio::task::block_in_place(|| {
        let setup = Setup::start(&base, None, &["--probe-allow-local"]);
        let tools = json!(["search", "fetch"]);
        setup.until("mcp", "its tools", |(found, silent, _)| *found == tools && silent.is_null());
        setup.until("moved", "its tools", |(found, ..)| *found == tools);
        for (path, why) in [
            ("endless", ""),
            ("slow", "too long"),
            ("html", ""),
            ("away", "another host"),
            ("nothing", ""),
        ] {
            setup.until(path, "silent", |(found, silent, said)| {
                let marked = *silent == json!([format!("{base}/{path}")]);
                let says = said.starts_with("EndpointNotAnswering") && said.contains(why);
                found.is_null() && marked && says
            });
        }
        // It answers, though only whom it knows.
        setup.until("private", "no mark", |(found, silent, said)| {
            found.is_null() && silent.is_null() && said == " "
        });
        let metrics = get(&format!("{}/metrics", setup.admin));
        let metrics = String::from_utf8(metrics.body).unwrap();
        assert!(
            metrics.contains("waymark_discovery_probes_total{result=\"answers\"}"),
            "{metrics}"
        );
        // Nothing was sent to the other host, and no credentials to this one.
        assert!(stolen.lock().unwrap().is_empty(), "{stolen:?}");
        let asked = seen.lock().unwrap().clone();
        assert!(asked.iter().any(|(path, _)| path == "/private"), "{asked:?}");
        let secret = |(_, headers): &(String, Vec<String>)| {
            headers.iter().any(|h| ["authorization", "cookie", "referer"].contains(&h.as_str()))
        };
        assert!(!asked.iter().any(secret), "{asked:?}");

        // The server goes away: marked, not withdrawn; and comes back.
        serving.abort();
        let silent = json!([format!("{base}/mcp")]);
        setup.until("mcp", "a mark", |(_, found, _)| *found == silent);
        setup.discovery.stop();
        setup.registry.waymark.stop();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn annotations_come_first_and_servers_come_back() {
    let (address, _, serving) = serve("127.0.0.1:0", String::new()).await;
    let base = format!("http://a.example.com:{}", address.port());
    serving.abort();
    let _ = serving.await;
    let setup = tokio::task::block_in_place(|| {
        let setup = Setup::start(&base, Some("mine"), &["--probe-allow-local"]);
        setup.until("mcp", "a mark", |(tools, silent, _)| {
            *tools == json!(["mine"]) && silent.is_array()
        });
        setup
    });
    let (_, _, _serving) = serve(&address.to_string(), String::new()).await;
    tokio::task::block_in_place(|| {
        setup.until("mcp", "no mark", |(tools, silent, _)| {
            *tools == json!(["mine"]) && silent.is_null()
        });
        setup.discovery.stop();
        setup.registry.waymark.stop();
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn local_addresses_are_not_reached_unless_allowed() {
    let (address, seen, _serving) = serve("127.0.0.1:0", String::new()).await;
    tokio::task::block_in_place(|| {
        let setup = Setup::start(&format!("http://a.example.com:{}", address.port()), None, &[]);
        setup.until("mcp", "silent", |(_, _, said)| said.contains("local"));
        setup.discovery.stop();
        setup.registry.waymark.stop();
        assert!(seen.lock().unwrap().is_empty(), "{seen:?}");
    });
}
