//! Which name an offer goes by, and whether its namespace may use it.

use smol_str::{SmolStr, format_smolstr};
use waymark_catalogue::name::{ServerName, reverse_dns};

use crate::annotation::is_own_name;
use crate::listener::namespace_selected;
use crate::object::McpResource;
use crate::problem::{Code, Problem, excerpt};
use crate::resolver::Lookup;
use crate::settings::Settings;

/// What a name is made from.
pub(super) struct Claim<'o> {
    /// Namespace of the object that claims.
    pub(super) namespace: &'o str,
    /// Name of the object that claims.
    pub(super) object: &'o str,
    /// What annotations say.
    pub(super) explicit: Option<&'o SmolStr>,
    /// The MCP resource behind it.
    pub(super) resource: Option<&'o McpResource>,
    /// Hosts that the Gateway accepted for it, in the order of the endpoints.
    pub(super) hosts: Vec<&'o str>,
}

impl Claim<'_> {
    /// The full server name, and whether it is explicit.
    ///
    /// # Errors
    /// Where the name is not valid, or the namespace may not use it.
    pub(super) fn name(
        &self,
        lookup: &impl Lookup,
        settings: &Settings,
    ) -> Result<(SmolStr, bool), Box<Problem>> {
        if let Some(full) = self.explicit.filter(|name| name.contains('/')) {
            self.permitted(full, lookup, settings)?;
            return Ok((full.clone(), true));
        }
        let resource = self.resource.map(|resource| {
            let reported = resource.server_name.as_ref().filter(|name| is_own_name(name));
            reported.unwrap_or(&resource.meta.name).as_str()
        });
        let own = match self.explicit {
            Some(own) => own.as_str(),
            None => resource.unwrap_or(self.object),
        };
        let namespace = self.hosts.iter().find_map(|host| reverse_dns(host));
        let name = match namespace {
            Some(namespace) => format_smolstr!("{namespace}/{own}"),
            None => format_smolstr!("{}/{own}", self.fallback()),
        };
        match ServerName::parse(&name) {
            Ok(_) => Ok((name, self.explicit.is_some())),
            Err(error) => Err(Box::new(Problem::error(
                Code::InvalidName,
                "name",
                format!("The name {} cannot be used: {error}.", excerpt(&name)),
                "Set the annotation registry-name to a shorter or plainer name.",
            ))),
        }
    }

    /// The namespace of names whose host is an address, which has no reverse DNS.
    fn fallback(&self) -> SmolStr {
        format_smolstr!("com.toolhive.k8s.{}", self.namespace)
    }

    fn permitted(
        &self,
        name: &str,
        lookup: &impl Lookup,
        settings: &Settings,
    ) -> Result<(), Box<Problem>> {
        let namespace = name.split_once('/').map_or(name, |(namespace, _)| namespace);
        let own: Vec<String> = self.hosts.iter().filter_map(|host| reverse_dns(host)).collect();
        // Reverse DNS knows no case; server names do, so only the canonical form is anybody's.
        if own.iter().any(|own| own == namespace) || namespace == self.fallback() {
            return Ok(());
        }
        let delegated = settings.delegations.iter().any(|delegation| {
            delegation.permits_name(name)
                && namespace_selected(&delegation.namespace_selector, self.namespace, lookup)
        });
        if delegated {
            return Ok(());
        }
        let permitted = own.first().cloned().unwrap_or_else(|| self.fallback().to_string());
        Err(Box::new(Problem::error(
            Code::NameNotPermitted,
            "registry-name",
            format!("Namespace {} may not use the name {}.", self.namespace, excerpt(name)),
            format!(
                "Use a name under {permitted}/, or have the admin delegate a name prefix to the namespace."
            ),
        )))
    }
}
