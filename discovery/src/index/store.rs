//! The compact objects, and a view of them that records what is read.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};

use ahash::RandomState;
use hashbrown::HashTable;
use smol_str::SmolStr;

use crate::object::{
    Gateway, Key, Kind, ListenerSet, McpResource, Namespace, Object, ReferenceGrant, Service,
};
use crate::resolver::Lookup;

/// All objects that the rules read.
#[derive(Debug, Default)]
pub(super) struct Store {
    /// By key, which every object knows of itself.
    objects: HashTable<Object>,
    hasher: RandomState,
    /// By namespace, because the rules ask for any grant of one.
    grants: HashMap<SmolStr, BTreeMap<SmolStr, ReferenceGrant>>,
}

/// The key under which reads of any grant of a namespace are recorded.
pub(super) fn grants_key(namespace: &str) -> Key {
    Key::new(Kind::ReferenceGrant, namespace, "")
}

impl Store {
    fn hash(&self, parts: (Kind, &str, &str)) -> u64 {
        self.hasher.hash_one(parts)
    }

    fn find(&self, kind: Kind, namespace: &str, name: &str) -> Option<&Object> {
        let parts = (kind, namespace, name);
        self.objects.find(self.hash(parts), |object| object.parts() == parts)
    }

    /// Makes room for objects.
    pub(super) fn reserve(&mut self, objects: usize) {
        let Self { objects: table, hasher, .. } = self;
        table.reserve(objects, |object| hasher.hash_one(object.parts()));
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Object> {
        self.find(key.kind, &key.namespace, &key.name)
    }

    /// Puts an object in; `false` where it was there, just the same.
    pub(super) fn insert(&mut self, key: &Key, object: Object) -> bool {
        if let Object::ReferenceGrant(grant) = object {
            let grants = self.grants.entry(key.namespace.clone()).or_default();
            if grants.get(&key.name) == Some(&grant) {
                return false;
            }
            grants.insert(key.name.clone(), grant);
            return true;
        }
        let parts = (key.kind, key.namespace.as_str(), key.name.as_str());
        let hash = self.hash(parts);
        let Self { objects, hasher, .. } = self;
        match objects.find_mut(hash, |known| known.parts() == parts) {
            Some(known) if *known == object => return false,
            Some(known) => *known = object,
            None => {
                objects.insert_unique(hash, object, |object| hasher.hash_one(object.parts()));
            }
        }
        true
    }

    /// Takes an object out; `false` where it was not there.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        if key.kind == Kind::ReferenceGrant {
            let Some(grants) = self.grants.get_mut(&key.namespace) else {
                return false;
            };
            let removed = grants.remove(&key.name).is_some();
            if grants.is_empty() {
                self.grants.remove(&key.namespace);
            }
            return removed;
        }
        let parts = (key.kind, key.namespace.as_str(), key.name.as_str());
        let hash = self.hash(parts);
        match self.objects.find_entry(hash, |known| known.parts() == parts) {
            Ok(entry) => {
                entry.remove();
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn mcp(&self, key: &Key) -> Option<&McpResource> {
        match self.get(key) {
            Some(Object::Mcp(resource)) => Some(resource),
            _ => None,
        }
    }

    /// Keys of all objects.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let grants = self.grants.iter().flat_map(|(namespace, grants)| {
            let key =
                |name: &SmolStr| Key::new(Kind::ReferenceGrant, namespace.clone(), name.clone());
            grants.keys().map(key)
        });
        self.objects.iter().map(Object::key).chain(grants)
    }
}

/// Looks objects up and records every key, found or not.
pub(super) struct Recorder<'s> {
    store: &'s Store,
    reads: RefCell<Vec<Key>>,
}

impl<'s> Recorder<'s> {
    pub(super) fn new(store: &'s Store) -> Self {
        Self { store, reads: RefCell::new(Vec::with_capacity(8)) }
    }

    /// What was read, each key once.
    pub(super) fn into_reads(self) -> Vec<Key> {
        let mut reads = self.reads.into_inner();
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    fn read(&self, kind: Kind, namespace: &str, name: &str) -> Option<&'s Object> {
        self.reads.borrow_mut().push(Key::new(kind, namespace, name));
        self.store.find(kind, namespace, name)
    }
}

impl Lookup for Recorder<'_> {
    fn gateway(&self, namespace: &str, name: &str) -> Option<&Gateway> {
        match self.read(Kind::Gateway, namespace, name) {
            Some(Object::Gateway(gateway)) => Some(gateway),
            _ => None,
        }
    }

    fn listener_set(&self, namespace: &str, name: &str) -> Option<&ListenerSet> {
        match self.read(Kind::ListenerSet, namespace, name) {
            Some(Object::ListenerSet(set)) => Some(set),
            _ => None,
        }
    }

    fn namespace(&self, name: &str) -> Option<&Namespace> {
        match self.read(Kind::Namespace, "", name) {
            Some(Object::Namespace(namespace)) => Some(namespace),
            _ => None,
        }
    }

    fn service(&self, namespace: &str, name: &str) -> Option<&Service> {
        match self.read(Kind::Service, namespace, name) {
            Some(Object::Service(service)) => Some(service),
            _ => None,
        }
    }

    fn mcp(&self, kind: Kind, namespace: &str, name: &str) -> Option<&McpResource> {
        match self.read(kind, namespace, name) {
            Some(Object::Mcp(resource)) => Some(resource),
            _ => None,
        }
    }

    fn any_grant(&self, namespace: &str, test: impl Fn(&ReferenceGrant) -> bool) -> bool {
        self.reads.borrow_mut().push(grants_key(namespace));
        self.store.grants.get(namespace).is_some_and(|grants| grants.values().any(test))
    }
}
