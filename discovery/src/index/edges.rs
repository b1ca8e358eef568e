//! Reverse edges: which sources read an object when they were last resolved.

use std::collections::{BTreeSet, HashMap};

use super::SourceId;
use crate::object::Key;

type NodeId = u32;

/// The edges of all sources.
#[derive(Debug, Default)]
pub(super) struct Edges {
    ids: HashMap<Key, NodeId>,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
}

#[derive(Debug)]
struct Node {
    key: Key,
    readers: BTreeSet<SourceId>,
}

/// What one source reads.
pub(super) type Reads = Box<[NodeId]>;

impl Edges {
    /// The sources that read an object.
    pub(super) fn readers(&self, key: &Key) -> impl Iterator<Item = SourceId> + '_ {
        let node = self.ids.get(key).and_then(|id| self.nodes.get(*id as usize));
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
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                let node = Node { key: key.clone(), readers: BTreeSet::new() };
                let id = match self.free.pop() {
                    Some(id) => {
                        if let Some(slot) = self.nodes.get_mut(id as usize) {
                            *slot = node;
                        }
                        id
                    }
                    None => {
                        self.nodes.push(node);
                        NodeId::try_from(self.nodes.len() - 1).unwrap_or(NodeId::MAX)
                    }
                };
                self.ids.insert(key, id);
                id
            }
        };
        if let Some(node) = self.nodes.get_mut(id as usize) {
            node.readers.insert(source);
        }
        id
    }

    fn drop(&mut self, source: SourceId, id: NodeId) {
        let Some(node) = self.nodes.get_mut(id as usize) else {
            return;
        };
        node.readers.remove(&source);
        if node.readers.is_empty() {
            self.ids.remove(&node.key);
            self.free.push(id);
        }
    }
}
