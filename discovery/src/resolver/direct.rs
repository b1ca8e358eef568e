//! MCP resources that are published by a URL of their own.

use smol_str::SmolStr;
use waymark_catalogue::validate::http_url_fault;

use crate::host;
use crate::listener::namespace_selected;
use crate::object::McpResource;
use crate::problem::{Code, Problem, Severity, excerpt};
use crate::resolver::{Endpoint, Lookup, Naming, Offer, Resolution, Via, naming};
use crate::settings::{DirectUrlPolicy, Settings};

/// Resolves an MCP resource; `None` where it is not opted in.
pub(super) fn resolve(
    resource: &McpResource,
    lookup: &impl Lookup,
    settings: &Settings,
) -> Option<Resolution> {
    let annotations = &resource.annotations;
    if !(resource.is_exported()
        || annotations.is_opted_in()
        || (annotations.blocked && bad_url(resource)))
    {
        return None;
    }
    let mut resolution =
        Resolution { problems: annotations.problems.clone(), ..Resolution::default() };
    let problems = &mut resolution.problems;
    if resource.meta.deleting {
        let key = resource.key();
        let message = format!("{key} is being deleted.");
        let problem = Problem::error(Code::ObjectDeleting, key.to_string(), message, "");
        problems.push(problem.with(Severity::Note));
        return Some(resolution);
    }
    if annotations.blocked {
        return Some(resolution);
    }
    let offered = url(resource, lookup, settings)
        .and_then(|(url, host)| offer(resource, url, &host, lookup, settings));
    match offered {
        Ok(offer) => {
            if !offer.endpoints.iter().any(|e| e.external) {
                problems.push(internal(&offer.endpoints));
            }
            if let Some(phase) = &resource.not_ready {
                problems.push(not_ready(resource, phase));
            }
            resolution.offers.push(offer);
        }
        Err(problem) => problems.push(*problem),
    }
    Some(resolution)
}

/// Whether the resource is opted in only by a `registry-url` that cannot be used.
fn bad_url(resource: &McpResource) -> bool {
    let problems = &resource.annotations.problems;
    resource.annotations.export.is_none()
        && problems.iter().any(|p| p.about.ends_with("registry-url"))
}

/// Whether the resource publishes a URL of its own, so that routes to it do not.
pub(super) fn publishes(resource: &McpResource, lookup: &impl Lookup, settings: &Settings) -> bool {
    resource.is_exported()
        && !resource.annotations.blocked
        && url(resource, lookup, settings).is_ok()
}

/// The URL and its host, where the settings permit it.
fn url<'r>(
    resource: &'r McpResource,
    lookup: &impl Lookup,
    settings: &Settings,
) -> Result<(&'r SmolStr, SmolStr), Box<Problem>> {
    let about = resource.key().to_string();
    let own = resource.remote_url.as_ref().filter(|_| resource.direct);
    let Some(url) = resource.annotations.url.as_ref().or(own) else {
        return Err(Box::new(
            Problem::error(
                Code::DirectUrlMissing,
                about,
                "The resource has no registry-url, so it is not published by itself.",
                "Annotate an HTTPRoute that leads to it, or set registry-url.",
            )
            .with(Severity::Note),
        ));
    };
    if let Some(fault) = http_url_fault(url) {
        return Err(Box::new(Problem::error(
            Code::InvalidUrl,
            about,
            format!("The resource's remote URL {fault}."),
            "Set it to an absolute http or https URL without user information and fragment.",
        )));
    }
    let parsed = url::Url::parse(url).ok();
    let host = parsed.as_ref().and_then(url::Url::host_str).and_then(host::for_url);
    let Some(host) = host else {
        return Err(Box::new(Problem::error(
            Code::InvalidUrl,
            about,
            "The host of the URL is neither a DNS name nor an IP address.".to_owned(),
            "Set it to an absolute http or https URL without user information and fragment.",
        )));
    };
    let namespace = &resource.meta.namespace;
    let permitted = match settings.direct_url_policy {
        DirectUrlPolicy::Allow => true,
        DirectUrlPolicy::Deny => false,
        DirectUrlPolicy::Delegated => settings.delegations.iter().any(|delegation| {
            delegation.permits_host(&host)
                && namespace_selected(&delegation.namespace_selector, namespace, lookup)
        }),
    };
    if permitted {
        return Ok((url, host));
    }
    Err(Box::new(Problem::error(
        Code::DirectUrlNotPermitted,
        about,
        format!("Namespace {namespace} may not publish direct URLs on {}.", excerpt(&host)),
        "Publish through an annotated HTTPRoute, or have the admin delegate the host to the namespace.",
    )))
}

fn offer(
    resource: &McpResource,
    url: &SmolStr,
    host: &SmolStr,
    lookup: &impl Lookup,
    settings: &Settings,
) -> Result<Offer, Box<Problem>> {
    let external = !host::is_cluster_internal(host);
    let naming = match &resource.annotations.link {
        Some(link) => Naming::Linked(Box::new(link.clone())),
        None => {
            let claim = naming::Claim {
                namespace: &resource.meta.namespace,
                object: &resource.meta.name,
                explicit: resource.annotations.name.as_ref(),
                resource: Some(resource),
                hosts: if external { vec![host.as_str()] } else { Vec::new() },
            };
            let (name, explicit) = claim.name(lookup, settings)?;
            Naming::Named { name, explicit }
        }
    };
    let via = Via { parent: resource.key(), listener: SmolStr::default() };
    let endpoint = Endpoint {
        url: url.clone(),
        transport: resource.transport,
        external,
        exact: true,
        path_length: 0,
        via,
    };
    Ok(Offer { identity: resource.key(), endpoints: Box::new([endpoint]), naming })
}

/// The note that only clients inside the cluster reach the server.
pub(super) fn internal(endpoints: &[Endpoint]) -> Problem {
    let urls: Vec<&str> =
        endpoints.iter().filter(|e| !e.external).map(|e| e.url.as_str()).collect();
    Problem::error(
        Code::InternalAddress,
        urls.join(", "),
        "Only clients inside the cluster reach this address, so it is not published to others.",
        "Give the route a public hostname, or set the annotation registry-host.",
    )
    .with(Severity::Note)
}

/// The note that the resource does not run.
pub(super) fn not_ready(resource: &McpResource, phase: &str) -> Problem {
    let key = resource.key();
    Problem::error(
        Code::BackendNotReady,
        key.to_string(),
        format!("{key} is {phase}; its entry stays published."),
        "See the resource's status.",
    )
    .with(Severity::Note)
}
