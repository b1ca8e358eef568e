//! What the process runs: the configuration, and what MCPRegistries add to it.

use std::sync::Arc;

use smol_str::SmolStr;
use waymark_catalogue::filter::Filter;

use crate::catalogue::{Handle, Layout, RegistryRule, Unavailable};
use crate::config::{Configuration, Source};
use crate::running::{Running, Shown, Tokens};
use crate::source::Engine;

/// A source that an MCPRegistry adds.
#[derive(Debug, Clone, PartialEq)]
pub struct AddedSource {
    /// The source.
    pub source: Source,
    /// Whether this process reads it.
    pub read: bool,
    /// The value that asks it to be read at once.
    pub trigger: Option<String>,
}

/// What MCPRegistries add to a configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Added {
    /// Their sources.
    pub sources: Vec<AddedSource>,
    /// Their registries.
    pub registries: Vec<RegistryRule>,
    /// Whether these are all: where they are not known yet, nothing of theirs is forgotten.
    pub complete: bool,
}

/// The configuration and what is added to it, as one.
pub struct Assembly {
    catalogue: Handle,
    engine: Engine,
    shown: Shown,
    configuration: Configuration,
    tokens: Arc<Tokens>,
    added: Added,
    /// What the writer has.
    applied: Routing,
}

/// What decides where entries go.
type Routing = (Vec<Source>, Vec<RegistryRule>, bool);

/// How entries get to the registries of a configuration, and of what is added to it.
#[must_use]
pub fn layout(configuration: &Configuration, added: &Added) -> Layout {
    let mut layout = configuration.layout();
    let rules = added.sources.iter().map(|added| (added.source.name.clone(), added.source.rule()));
    layout.sources.extend(rules);
    layout.registries.extend(added.registries.iter().cloned());
    layout.complete = added.complete;
    layout
}

fn routing(configuration: &Configuration, added: &Added) -> Routing {
    let sources = added.sources.iter().map(|added| added.source.clone());
    let sources = configuration.sources.iter().cloned().chain(sources).collect();
    let registries = configuration.registries.iter().chain(&added.registries).cloned().collect();
    (sources, registries, added.complete)
}

impl Assembly {
    /// Runs nothing yet: [`Self::apply`] does. The writer has their [`layout`] already.
    #[must_use]
    pub fn new(
        catalogue: Handle,
        engine: Engine,
        shown: Shown,
        configuration: Configuration,
        tokens: Tokens,
        added: Added,
    ) -> Self {
        let (tokens, applied) = (Arc::new(tokens), routing(&configuration, &added));
        Self { catalogue, engine, shown, configuration, tokens, added, applied }
    }

    /// The configuration.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Takes another configuration.
    ///
    /// # Errors
    /// Where the process is shutting down.
    pub async fn configure(
        &mut self,
        configuration: Configuration,
        tokens: Tokens,
    ) -> Result<(), Unavailable> {
        self.configuration = configuration;
        self.tokens = Arc::new(tokens);
        self.apply().await
    }

    /// Takes what MCPRegistries add.
    ///
    /// # Errors
    /// Where the process is shutting down.
    pub async fn add(&mut self, added: Added) -> Result<(), Unavailable> {
        if added == self.added {
            return Ok(());
        }
        self.added = added;
        self.apply().await
    }

    /// Makes it so; sources are read on their own.
    ///
    /// # Errors
    /// Where the process is shutting down.
    pub async fn apply(&mut self) -> Result<(), Unavailable> {
        let wanted = routing(&self.configuration, &self.added);
        if self.applied != wanted {
            self.catalogue.configure(layout(&self.configuration, &self.added)).await?;
            self.applied = wanted;
        }
        let own = self.configuration.sources.iter().map(|source| (source, None));
        let read = self.added.sources.iter().filter(|added| added.read);
        self.engine.apply(own.chain(read.map(|added| (&added.source, added.trigger.clone()))));
        let managed: Option<(SmolStr, Filter)> = self.configuration.managed_rule();
        let sources = self.applied.0.clone();
        let running = Running { sources, managed, tokens: Arc::clone(&self.tokens) };
        self.shown.running.store(Arc::new(running));
        Ok(())
    }

    /// Waits until each source was read once, or has taken long enough.
    pub async fn first_read(&mut self) {
        self.engine.first_read().await;
    }
}
