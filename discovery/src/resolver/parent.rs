//! From a parentRef to the origins behind it.

use smol_str::SmolStr;

use crate::listener::{Origin, Parent, admitted, describe, reason};
use crate::object::{
    Condition, From, GATEWAY_GROUP, Gateway, HttpRoute, Key, Kind, ListenerSet, ParentKind,
    ParentRef, State, current,
};
use crate::problem::{Code, Problem, Severity};
use crate::resolver::Lookup;
use crate::settings::Settings;

/// The object that a parentRef refers to, where it is one that HTTP routes are served through.
pub(super) fn key(parent: &ParentRef) -> Option<Key> {
    let kind = match parent.kind {
        ParentKind::Gateway => Kind::Gateway,
        ParentKind::ListenerSet => Kind::ListenerSet,
        ParentKind::Other => return None,
    };
    Some(Key::new(kind, parent.namespace.clone(), parent.name.clone()))
}

/// The origins of one parentRef. Where it has any, the problems of its other listeners are notes.
pub(super) fn origins(
    at: usize,
    parent: &ParentRef,
    key: &Key,
    route: &HttpRoute,
    lookup: &impl Lookup,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Vec<Origin> {
    let mut own = Vec::new();
    let found = selected(key, lookup, settings)
        .and_then(|()| accepted(at, key, route, settings))
        .and_then(|()| of_parent(parent, key, route, lookup, settings, &mut own));
    let origins = match found {
        Ok(origins) => origins,
        Err(problem) => {
            own.push(*problem);
            Vec::new()
        }
    };
    if !origins.is_empty() {
        for problem in &mut own {
            problem.severity = Severity::Note;
        }
    }
    problems.append(&mut own);
    origins
}

type Found<T> = Result<T, Box<Problem>>;

fn error(code: Code, about: &Key, message: String, remedy: &str) -> Box<Problem> {
    Box::new(Problem::error(code, about.to_string(), message, remedy))
}

/// Whether the admin publishes by this parent's Gateway at all. A parent that does not exist is
/// left to the rules that follow.
fn selected(key: &Key, lookup: &impl Lookup, settings: &Settings) -> Found<()> {
    if settings.gateways.is_empty() && settings.gateway_classes.is_empty() {
        return Ok(());
    }
    let (namespace, name) = if key.kind == Kind::Gateway {
        (&key.namespace, &key.name)
    } else {
        let Some(set) = lookup.listener_set(&key.namespace, &key.name) else { return Ok(()) };
        (set.parent.namespace.as_ref().unwrap_or(&key.namespace), &set.parent.name)
    };
    let named = settings.gateways.is_empty()
        || settings.gateways.iter().any(|g| g.namespace == *namespace && g.name == *name);
    let classes = &settings.gateway_classes;
    let class = lookup.gateway(namespace, name).map(|gateway| &gateway.class);
    if named && (classes.is_empty() || class.is_none_or(|class| classes.contains(class))) {
        return Ok(());
    }
    let gateway = Key::new(Kind::Gateway, namespace.clone(), name.clone());
    let problem = Problem::error(
        Code::GatewayNotSelected,
        key.to_string(),
        format!("{gateway} is not among the Gateways that this Waymark publishes by."),
        "Nothing, or widen --gateway or --gateway-class.",
    );
    Err(Box::new(problem.with(Severity::Note)))
}

/// Whether a controller accepted the route for this parentRef, at its generation.
fn accepted(at: usize, key: &Key, route: &HttpRoute, settings: &Settings) -> Found<()> {
    if !route.has_status && settings.assume_accepted {
        return Ok(());
    }
    let mut refusal: Option<&Condition> = None;
    let mut stale = false;
    let mut unresolved: Option<&Condition> = None;
    let generation = route.meta.generation;
    for status in route.status.iter().filter(|s| usize::from(s.parent) == at) {
        let Some(accepted) = &status.accepted else { continue };
        if accepted.state != State::True {
            refusal = accepted.condition.as_deref();
        } else if !accepted.is_current(generation) {
            stale = true;
        } else {
            let refs = status.resolved_refs.as_ref().filter(|refs| refs.is_current(generation));
            match refs {
                Some(refs) if refs.state == State::False => unresolved = refs.condition.as_deref(),
                _ => return Ok(()),
            }
        }
    }
    if let Some(condition) = unresolved {
        return Err(error(
            Code::ReferencesUnresolved,
            key,
            format!("A reference of the route cannot be resolved: {}.", reason(condition)),
            "Create what the route refers to, or grant the reference.",
        ));
    }
    if stale {
        return Err(error(
            Code::StaleStatus,
            key,
            format!(
                "The route was accepted before its last change; generation {generation} is not accepted yet."
            ),
            "Wait for the Gateway's controller, and see its logs if it does not catch up.",
        ));
    }
    Err(match refusal {
        Some(condition) => error(
            Code::RouteNotAccepted,
            key,
            format!("The route is not accepted: {}.", reason(condition)),
            "Mend what the condition in the route's status names.",
        ),
        None => error(
            Code::RouteNotAccepted,
            key,
            "No controller has accepted the route for this parent.".to_owned(),
            "See that the parentRef is right and that the controller of the Gateway's class runs.",
        ),
    })
}

fn of_parent(
    parent: &ParentRef,
    key: &Key,
    route: &HttpRoute,
    lookup: &impl Lookup,
    settings: &Settings,
    problems: &mut Vec<Problem>,
) -> Found<Vec<Origin>> {
    let listeners = if key.kind == Kind::Gateway {
        let gateway = find_gateway(key, lookup, settings)?;
        Parent {
            key: key.clone(),
            meta: &gateway.meta,
            listeners: &gateway.listeners,
            status: &gateway.listener_status,
            gateway,
        }
    } else {
        let (set, gateway) = find_set(key, lookup, settings)?;
        Parent {
            key: key.clone(),
            meta: &set.meta,
            listeners: &set.listeners,
            status: &set.listener_status,
            gateway,
        }
    };
    if !listeners.gateway.problems.is_empty() {
        let about =
            format!("Gateway {}/{}", listeners.gateway.meta.namespace, listeners.gateway.meta.name);
        problems.extend(listeners.gateway.problems.iter().map(|problem| {
            let about = format!("{about} {}", problem.about);
            Problem { about, ..problem.clone() }
        }));
    }
    let mut origins = Vec::new();
    let mut matched = false;
    for listener in listeners.listeners {
        let named = parent.section_name.as_ref().is_none_or(|name| *name == listener.name);
        if !named || parent.port.is_some_and(|port| port != listener.port) {
            continue;
        }
        matched = true;
        match listeners.origins(listener, route, lookup, problems) {
            Ok(found) => origins.extend(found),
            Err(problem) => problems.push(problem),
        }
    }
    if matched {
        return Ok(origins);
    }
    let names: Vec<&str> = listeners.listeners.iter().take(10).map(|l| l.name.as_str()).collect();
    let (message, remedy) = if names.is_empty() {
        (format!("{key} has no listeners."), "Add an HTTP or HTTPS listener to it.")
    } else {
        let wanted: Vec<String> = parent
            .section_name
            .iter()
            .map(|name| format!("named {name}"))
            .chain(parent.port.iter().map(|port| format!("on port {port}")))
            .collect();
        let wanted = wanted.join(" ");
        let names = names.join(", ");
        (
            format!("{key} has no listener {wanted}; it has: {names}."),
            "Correct sectionName and port of the parentRef.",
        )
    };
    Err(error(Code::ListenerNotFound, key, message, remedy))
}

fn find_gateway<'l>(key: &Key, lookup: &'l impl Lookup, settings: &Settings) -> Found<&'l Gateway> {
    let gateway = lookup.gateway(&key.namespace, &key.name).ok_or_else(|| {
        error(
            Code::GatewayNotFound,
            key,
            format!("{key} does not exist."),
            "Create it, or correct name and namespace of the parentRef.",
        )
    })?;
    let not_ready = |why: String, remedy: &str| error(Code::GatewayNotReady, key, why, remedy);
    if gateway.meta.deleting {
        return Err(not_ready(
            format!("{key} is being deleted."),
            "Attach the route to another Gateway.",
        ));
    }
    if !gateway.has_status && !settings.assume_accepted {
        return Err(not_ready(
            format!("{key} has no status: no controller has taken it up."),
            "See that the controller of its class runs.",
        ));
    }
    for kind in ["Accepted", "Programmed"] {
        let condition = current(&gateway.conditions, kind, gateway.meta.generation);
        if let Some(condition) = condition.filter(|c| c.status == "False") {
            return Err(not_ready(
                format!("{key} is not ready: {}.", reason(condition)),
                "Mend what its condition names; the route is published as soon as it is ready.",
            ));
        }
    }
    Ok(gateway)
}

fn find_set<'l, L: Lookup>(
    key: &Key,
    lookup: &'l L,
    settings: &Settings,
) -> Found<(&'l ListenerSet, &'l Gateway)> {
    let set = lookup.listener_set(&key.namespace, &key.name).ok_or_else(|| {
        error(
            Code::ListenerSetNotFound,
            key,
            format!("{key} does not exist."),
            "Create it, or correct name and namespace of the parentRef.",
        )
    })?;
    let default_group = set.parent.group.as_deref().unwrap_or(GATEWAY_GROUP);
    let default_kind = set.parent.kind.as_deref().unwrap_or("Gateway");
    if default_group != GATEWAY_GROUP || default_kind != "Gateway" {
        return Err(error(
            Code::GatewayNotFound,
            key,
            format!("The parentRef of {key} is no Gateway."),
            "Set it to a Gateway.",
        ));
    }
    let namespace: &SmolStr = set.parent.namespace.as_ref().unwrap_or(&key.namespace);
    let gateway_key = Key::new(Kind::Gateway, namespace.clone(), set.parent.name.clone());
    let gateway = find_gateway(&gateway_key, lookup, settings)?;
    if set.meta.deleting {
        return Err(error(
            Code::GatewayNotReady,
            key,
            format!("{key} is being deleted."),
            "Attach the route to another ListenerSet or Gateway.",
        ));
    }
    let allowed = &gateway.allowed_listeners.namespaces;
    if !admitted(allowed, &From::None, namespace, &key.namespace, lookup) {
        let rule = describe(allowed, &From::None);
        return Err(error(
            Code::ListenerSetNotAllowed,
            key,
            format!(
                "{gateway_key} does not allow ListenerSets of namespace {}: allowedListeners.namespaces.from is {rule}.",
                key.namespace
            ),
            "Widen allowedListeners.namespaces of the Gateway.",
        ));
    }
    if !set.has_status && !settings.assume_accepted {
        return Err(error(
            Code::GatewayNotReady,
            key,
            format!("{key} has no status: no controller has taken it up."),
            "See that the Gateway's controller supports ListenerSets.",
        ));
    }
    for kind in ["Accepted", "Programmed"] {
        let condition = current(&set.conditions, kind, set.meta.generation);
        if let Some(condition) = condition.filter(|c| c.status == "False") {
            let not_allowed = condition.reason == "NotAllowed";
            let code =
                if not_allowed { Code::ListenerSetNotAllowed } else { Code::GatewayNotReady };
            return Err(error(
                code,
                key,
                format!("{key} is not ready: {}.", reason(condition)),
                "Mend what its condition names; the route is published as soon as it is ready.",
            ));
        }
    }
    Ok((set, gateway))
}
