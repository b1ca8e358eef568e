//! Reverse edges: which sources read an object when they were last resolved.

use ahash::RandomState;
use hashbrown::HashTable;
use smallvec::{SmallVec, smallvec};

use super::SourceId;
use crate::object::Key;

type NodeId = u32;

/// The edges of all sources.
#[derive(Debug, Default)]
pub(super) struct Edges {
    /// Nodes by key.
    table: HashTable<NodeId>,
    nodes: Vec<Option<Box<Node>>>,
    free: Vec<NodeId>,
    hasher: RandomState,
}

#[derive(Debug)]
struct Node {
    key: Key,
    /// Sorted. Most objects have one reader.
    readers: SmallVec<[SourceId; 4]>,
}

/// What one source reads.
pub(super) type Reads = Box<[NodeId]>;

impl Edges {
    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize)?.as_deref()
    }

    fn find(&self, key: &Key) -> Option<NodeId> {
        let is_key = |id: &NodeId| self.node(*id).is_some_and(|node| node.key == *key);
        self.table.find(self.hasher.hash_one(key), is_key).copied()
    }

    /// The sources that read an object.
    pub(super) fn readers(&self, key: &Key) -> impl Iterator<Item = SourceId> + '_ {
        let node = self.find(key).and_then(|id| self.node(id));
        node.into_iter().flat_map(|node| node.readers.iter().copied())
    }

    /// Replaces what a source reads.
    pub(super) fn replace(&mut self, source: SourceId, old: &[NodeId], keys: Vec<Key>) -> Reads {
        let new: Reads = keys.into_iter().map(|key| self.add(source, key)).collect();
        for id in old.iter().filter(|id| !new.contains(id)) {
            self.drop(source, *id);
        }
        new
    }

    fn add(&mut self, source: SourceId, key: Key) -> NodeId {
        if let Some(id) = self.find(&key) {
            if let Some(Some(node)) = self.nodes.get_mut(id as usize)
                && let Err(at) = node.readers.binary_search(&source)
            {
                node.readers.insert(at, source);
            }
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            NodeId::try_from(self.nodes.len() - 1).unwrap_or(NodeId::MAX)
        });
        let hash = self.hasher.hash_one(&key);
        if let Some(slot) = self.nodes.get_mut(id as usize) {
            *slot = Some(Box::new(Node { key, readers: smallvec![source] }));
        }
        let Self { table, nodes, hasher, .. } = self;
        table.insert_unique(hash, id, |id| {
            let node = nodes.get(*id as usize).and_then(Option::as_ref);
            node.map_or(0, |node| hasher.hash_one(&node.key))
        });
        id
    }

    fn drop(&mut self, source: SourceId, id: NodeId) {
        let Some(Some(node)) = self.nodes.get_mut(id as usize) else { return };
        if let Ok(at) = node.readers.binary_search(&source) {
            node.readers.remove(at);
        }
        if node.readers.is_empty() {
            let hash = self.hasher.hash_one(&node.key);
            if let Ok(entry) = self.table.find_entry(hash, |other| *other == id) {
                entry.remove();
            }
            if let Some(slot) = self.nodes.get_mut(id as usize) {
                *slot = None;
            }
            self.free.push(id);
        }
    }
}
