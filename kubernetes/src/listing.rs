//! What a watch has told of so far.

use std::collections::BTreeMap;

use kube::runtime::watcher::Event;

/// Objects by key. A list that replaces what is known takes effect when it is complete: until then
/// what was there counts, so that nothing seems to be gone in between.
#[derive(Debug, Clone)]
pub struct Listing<K, V> {
    now: BTreeMap<K, V>,
    coming: BTreeMap<K, V>,
    listed: bool,
}

impl<K, V> Default for Listing<K, V> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), coming: BTreeMap::new(), listed: false }
    }
}

impl<K: Ord, V> Listing<K, V> {
    /// Nothing, and that is all there is.
    #[must_use]
    pub fn nothing() -> Self {
        Self { listed: true, ..Self::default() }
    }

    /// What is known.
    #[must_use]
    pub fn now(&self) -> &BTreeMap<K, V> {
        &self.now
    }

    /// Whether a list was complete once, so that what is known is all there is.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Takes an event of the watch.
    pub fn apply<O>(&mut self, event: Event<O>, key: impl Fn(&O) -> K, value: impl FnOnce(O) -> V) {
        match event {
            Event::Init => self.coming.clear(),
            Event::InitApply(object) => {
                self.coming.insert(key(&object), value(object));
            }
            Event::InitDone => {
                self.now = std::mem::take(&mut self.coming);
                self.listed = true;
            }
            Event::Apply(object) => {
                self.now.insert(key(&object), value(object));
            }
            Event::Delete(object) => {
                self.now.remove(&key(&object));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_effect_when_it_is_complete() {
        let mut listing = Listing::default();
        let mut after = |event: Event<(u8, u8)>| {
            listing.apply(event, |object| object.0, |object| object.1);
            (listing.now().clone().into_iter().collect::<Vec<_>>(), listing.is_listed())
        };
        assert_eq!(after(Event::Init), (vec![], false));
        assert_eq!(after(Event::InitApply((1, 1))), (vec![], false));
        assert_eq!(after(Event::InitDone), (vec![(1, 1)], true));
        assert_eq!(after(Event::Apply((2, 2))), (vec![(1, 1), (2, 2)], true));
        assert_eq!(after(Event::Delete((1, 1))), (vec![(2, 2)], true));
        // Listed again: what was there counts until all is known.
        assert_eq!(after(Event::Init), (vec![(2, 2)], true));
        assert_eq!(after(Event::InitApply((3, 3))), (vec![(2, 2)], true));
        assert_eq!(after(Event::InitDone), (vec![(3, 3)], true));
    }
}
