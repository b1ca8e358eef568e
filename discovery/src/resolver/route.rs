//! An annotated HTTPRoute: its rules crossed with its origins.

use smol_str::{SmolStr, format_smolstr};

use crate::listener::Origin;
use crate::object::{HttpRoute, Key, Kind, McpResource, Rule, Transport};
use crate::path::{self, Path, Unpublishable};
use crate::problem::{Code, Problem, Severity, excerpt};
use crate::resolver::{
    Endpoint, Lookup, Naming, Offer, Resolution, Via, backend, direct, naming, parent,
};
use crate::settings::Settings;

pub(super) struct Resolver<'l, L> {
    pub(super) route: &'l HttpRoute,
    pub(super) lookup: &'l L,
    pub(super) settings: &'l Settings,
    pub(super) resolution: Resolution,
}

/// The rules of a route that lead to one server.
struct Server<'l> {
    resource: Option<&'l McpResource>,
    paths: Vec<Path>,
}

impl<'l, L: Lookup> Resolver<'l, L> {
    pub(super) fn resolve(mut self) -> Resolution {
        let route = self.route;
        self.resolution.problems.clone_from(&route.annotations.problems);
        if route.meta.deleting {
            let key = self.key().to_string();
            let message = "The route is being deleted.";
            let problem = Problem::error(Code::ObjectDeleting, key, message, "");
            self.resolution.problems.push(problem.with(Severity::Note));
            return self.resolution;
        }
        if route.annotations.blocked {
            return self.resolution;
        }
        let origins = self.origins();
        let servers = self.servers();
        if !origins.is_empty() {
            self.resolution.offers.reserve_exact(servers.len());
            for server in &servers {
                self.offer(server, &origins);
            }
        }
        self.resolution
    }

    fn key(&self) -> Key {
        let meta = &self.route.meta;
        Key::new(Kind::HttpRoute, meta.namespace.clone(), meta.name.clone())
    }

    fn problem(
        &mut self,
        code: Code,
        about: impl Into<String>,
        message: impl Into<String>,
        remedy: &str,
    ) {
        self.resolution.problems.push(Problem::error(code, about, message, remedy));
    }

    fn origins(&mut self) -> Vec<Origin> {
        let mut origins = Vec::new();
        let mut parents = 0;
        for (at, reference) in self.route.parents.iter().enumerate() {
            let Some(key) = parent::key(reference) else { continue };
            parents += 1;
            origins.extend(parent::origins(
                at,
                reference,
                &key,
                self.route,
                self.lookup,
                self.settings,
                &mut self.resolution.problems,
            ));
        }
        if parents == 0 {
            self.problem(
                Code::NoParent,
                "spec.parentRefs",
                "The route names no Gateway and no ListenerSet.",
                "Add a parentRef to the Gateway through which clients come.",
            );
        }
        origins
    }

    /// The servers behind the rules, in the order of the rules.
    fn servers(&mut self) -> Vec<Server<'l>> {
        let default = [Rule::default()];
        let rules = if self.route.rules.is_empty() { &default[..] } else { &self.route.rules };
        if rules.iter().all(|rule| rule.redirects) {
            self.problem(
                Code::RedirectOnly,
                "spec.rules",
                "All rules redirect elsewhere, so nothing is served here.",
                "Annotate the route that the redirect leads to instead.",
            );
            return Vec::new();
        }
        let mut servers: Vec<Server<'l>> = Vec::new();
        let mut problems = Vec::new();
        for rule in rules.iter().filter(|rule| !rule.redirects) {
            let resource = match backend::of_rule(rule, self.route, self.lookup, self.settings) {
                Ok(resource) => resource,
                Err(problem) => {
                    problems.push(*problem);
                    continue;
                }
            };
            let suffix = self.route.annotations.path.as_deref();
            let mut paths = Vec::new();
            for path in path::of_rule(rule, resource, suffix) {
                match path {
                    Ok(path) => paths.push(path),
                    Err(unpublishable) => problems.push(refused(&unpublishable)),
                }
            }
            let key = resource.map(McpResource::key);
            match servers.iter_mut().find(|s| s.resource.map(McpResource::key) == key) {
                Some(server) => server.paths.extend(paths),
                None => servers.push(Server { resource, paths }),
            }
        }
        for server in &mut servers {
            if server.paths.iter().any(|path| !path.special) {
                server.paths.retain(|path| !path.special);
            }
        }
        servers.retain(|server| !server.paths.is_empty());
        self.only_mcp(&mut servers);
        // A rule that publishes nothing is no fault where another one publishes.
        let severity = if servers.is_empty() { Severity::Error } else { Severity::Note };
        self.resolution.problems.extend(problems.into_iter().map(|problem| {
            let severity = severity.max(problem.severity);
            problem.with(severity)
        }));
        servers
    }

    /// Rules that lead to no MCP resource are not advertised where others do, or where one is
    /// required.
    fn only_mcp(&mut self, servers: &mut Vec<Server<'l>>) {
        let (any, all) = servers.iter().fold((false, true), |(any, all), server| {
            (any || server.resource.is_some(), all && server.resource.is_some())
        });
        if all || !(any || self.settings.require_mcp_backend) {
            return;
        }
        servers.retain(|server| server.resource.is_some());
        let message = if any {
            "Some rules lead to no MCP resource; they are not advertised, because others do."
        } else {
            "No rule of the route leads to an MCP resource, and one is required."
        };
        let remedy = "Point backendRefs at the Service of an MCP resource, or run without --require-mcp-backend.";
        let problem = Problem::error(Code::BackendNotMcp, "spec.rules", message, remedy);
        let severity = if any { Severity::Note } else { Severity::Error };
        self.resolution.problems.push(problem.with(severity));
    }

    fn offer(&mut self, server: &Server<'l>, origins: &[Origin]) {
        let annotated = self.route.annotations.transport;
        let transport = match server.resource {
            Some(resource) => resource.transport,
            None => annotated.unwrap_or_default(),
        };
        let mut reached: Vec<(Endpoint, &Origin, Option<&SmolStr>)> = origins
            .iter()
            .flat_map(|origin| server.paths.iter().map(move |path| (origin, path)))
            .map(|(origin, path)| {
                (endpoint(origin, path, transport), origin, path.unverified.as_ref())
            })
            .collect();
        reached.sort_by(|(a, ..), (b, ..)| a.order().cmp(&b.order()));
        reached.dedup_by(|(later, ..), (first, ..)| later.url == first.url);
        self.prefer_https(&mut reached);
        let claimable = reached.iter().filter(|(e, origin, _)| e.external && origin.claimable);
        let hosts: Vec<&str> = claimable.map(|(_, origin, _)| origin.host.as_str()).collect();
        let resource = server.resource;
        let own = resource.map(|resource| &resource.annotations);
        let link = self.route.annotations.link.as_ref().or(own.and_then(|own| own.link.as_ref()));
        let naming = if let Some(link) = link {
            Naming::Linked(Box::new(link.clone()))
        } else {
            let explicit = self.route.annotations.name.as_ref();
            let claim = naming::Claim {
                namespace: &self.route.meta.namespace,
                object: &self.route.meta.name,
                explicit: explicit.or(own.and_then(|own| own.name.as_ref())),
                resource,
                hosts,
            };
            match claim.name(self.lookup, self.settings) {
                Ok((name, explicit)) => Naming::Named { name, explicit },
                Err(problem) => return self.resolution.problems.push(*problem),
            }
        };
        let problems = &mut self.resolution.problems;
        for (endpoint, _, unverified) in &reached {
            if let Some(serves) = unverified {
                problems.push(path_unverified(endpoint, serves));
            }
        }
        let endpoints: Box<[Endpoint]> =
            reached.into_iter().map(|(endpoint, ..)| endpoint).collect();
        if endpoints.iter().any(|endpoint| !endpoint.external) {
            problems.push(direct::internal(&endpoints));
        }
        if let Some((resource, phase)) = resource.and_then(|r| Some((r, r.not_ready.as_ref()?))) {
            problems.push(direct::not_ready(resource, phase));
        }
        let identity = resource.map_or_else(|| self.key(), McpResource::key);
        self.resolution.offers.push(Offer { identity, endpoints, naming });
    }

    /// Of one host and path over http and https, only https is advertised.
    fn prefer_https(&mut self, reached: &mut Vec<(Endpoint, &Origin, Option<&SmolStr>)>) {
        // https sorts first, so all of it is at the front.
        let secure = reached.iter().filter(|(e, ..)| e.is_https()).count();
        if secure == 0 || secure == reached.len() {
            return;
        }
        let plain = reached.split_off(secure);
        for (endpoint, origin, unverified) in plain {
            let place = endpoint.place();
            let better =
                reached.iter().take(secure).find(|(e, ..)| e.place() == place).map(|(e, ..)| e);
            let Some(better) = better else {
                reached.push((endpoint, origin, unverified));
                continue;
            };
            let about = format!("{} listener {}", endpoint.via.parent, endpoint.via.listener);
            let message = format!("{} is not advertised, because {} is.", endpoint.url, better.url);
            let problem = Problem::error(Code::HttpsPreferred, about, message, "");
            self.resolution.problems.push(problem.with(Severity::Note));
        }
    }
}

fn endpoint(origin: &Origin, path: &Path, transport: Transport) -> Endpoint {
    let scheme = if origin.https { "https" } else { "http" };
    let host = &origin.host;
    let shown = if path.path.is_empty() { "/" } else { path.path.as_str() };
    let url = match origin.port {
        Some(port) => format_smolstr!("{scheme}://{host}:{port}{shown}"),
        None => format_smolstr!("{scheme}://{host}{shown}"),
    };
    Endpoint {
        url,
        transport,
        external: origin.external,
        exact: path.exact,
        path_length: u16::try_from(shown.len()).unwrap_or(u16::MAX),
        via: Via { parent: origin.via.parent.clone(), listener: origin.via.listener.clone() },
    }
}

fn refused(unpublishable: &Unpublishable) -> Problem {
    let (message, remedy) = match unpublishable {
        Unpublishable::NotPlain(value) => (
            format!("The path {} is a regular expression, which is no URL.", excerpt(value)),
            "Match by Exact or PathPrefix.",
        ),
        Unpublishable::NeverAnEndpoint(value) => (
            format!(
                "The path {} is for discovery, probes, metrics, authorization or messages, never an endpoint.",
                excerpt(value)
            ),
            "Annotate a route to the MCP endpoint itself.",
        ),
        Unpublishable::NotAPath(value) => (
            format!("The path {} cannot stand in a URL.", excerpt(value)),
            "Match an absolute path of URL characters, percent-encoded where needed.",
        ),
    };
    Problem::error(Code::UnpublishablePath, "spec.rules", message, remedy)
}

fn path_unverified(endpoint: &Endpoint, serves: &str) -> Problem {
    let problem = Problem::error(
        Code::PathUnverified,
        endpoint.url.as_str(),
        format!(
            "The server answers at {}; whether it also answers at {} cannot be told.",
            excerpt(serves),
            endpoint.url
        ),
        "Add a URLRewrite filter to the rule, or set the annotation registry-path.",
    );
    problem.with(Severity::Note)
}
