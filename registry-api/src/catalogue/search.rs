//! Finds a text among many entries without reading them all.
//!
//! Entries are spread over buckets by their key. Each bucket has a Bloom filter over all runs of
//! two and three bytes of its entries' texts: a bucket whose filter lacks one run of the searched
//! text holds no match. An insertion sets some bits; what is taken out leaves its bits behind until
//! the bucket is made anew.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use memchr::memmem::Finder;

use super::served::{Key, Served};

const BUCKETS: usize = 512;
/// Bits of a bucket's filter: a few thousand different runs fill a few percent of it.
const BITS: usize = 1 << 16;
const WORDS: usize = BITS / 64;

#[derive(Clone)]
struct Bucket {
    filter: Box<[u64]>,
    entries: Vec<Arc<Served>>,
    /// Entries that were taken out since the filter was made.
    stale: usize,
}

/// The search index of a snapshot.
#[derive(Clone)]
pub(super) struct SearchIndex {
    buckets: Vec<Arc<Bucket>>,
    hasher: RandomState,
}

impl Default for SearchIndex {
    fn default() -> Self {
        let empty = Bucket { filter: vec![0; WORDS].into(), entries: Vec::new(), stale: 0 };
        // All share one empty bucket until something is put in.
        let empty = Arc::new(empty);
        let buckets = std::iter::repeat_n(empty, BUCKETS).collect();
        Self { buckets, hasher: RandomState::new() }
    }
}

impl std::fmt::Debug for SearchIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SearchIndex").field("buckets", &self.buckets.len()).finish()
    }
}

/// Positions in a filter of all runs of two and three bytes.
fn positions(text: &[u8]) -> impl Iterator<Item = usize> + '_ {
    // Multiplicative hashing: the upper bits of the product are well mixed.
    let position = |value: u32| (value.wrapping_mul(0x9E37_79B1) >> 16) as usize;
    let byte = |b: &u8| u32::from(*b);
    let two = text.windows(2).filter_map(move |w| {
        let [a, b] = w else { return None };
        Some(position(byte(a) << 8 | byte(b) | 1 << 31))
    });
    let three = text.windows(3).filter_map(move |w| {
        let [a, b, c] = w else { return None };
        Some(position(byte(a) << 16 | byte(b) << 8 | byte(c)))
    });
    three.chain(two)
}

impl Bucket {
    fn add(&mut self, served: Arc<Served>) {
        for position in positions(served.search_text()) {
            if let Some(word) = self.filter.get_mut(position / 64) {
                *word |= 1 << (position % 64);
            }
        }
        self.entries.push(served);
    }

    fn may_hold(&self, wanted: &[usize]) -> bool {
        wanted.iter().all(|position| {
            self.filter.get(position / 64).is_some_and(|word| word >> (position % 64) & 1 == 1)
        })
    }
}

impl SearchIndex {
    fn bucket(&mut self, key: &Key) -> Option<&mut Bucket> {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key.name.as_bytes());
        let at = usize::try_from(hasher.finish() % BUCKETS as u64).unwrap_or_default();
        self.buckets.get_mut(at).map(Arc::make_mut)
    }

    /// Puts an entry in. The one with the same key must be out.
    pub(super) fn insert(&mut self, served: &Arc<Served>) {
        if let Some(bucket) = self.bucket(&served.key) {
            bucket.add(Arc::clone(served));
        }
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(bucket) = self.bucket(key) else { return };
        bucket.entries.retain(|served| served.key != *key);
        bucket.stale += 1;
        if bucket.stale > bucket.entries.len() / 4 + 8 {
            bucket.filter.fill(0);
            bucket.stale = 0;
            for served in std::mem::take(&mut bucket.entries) {
                bucket.add(served);
            }
        }
    }

    /// All entries whose text holds `text`, in no order.
    pub(super) fn find<'s>(&'s self, text: &'s [u8]) -> impl Iterator<Item = &'s Arc<Served>> {
        let wanted: Vec<usize> = positions(text).collect();
        let finder = Finder::new(text);
        let buckets = self.buckets.iter().filter(move |bucket| bucket.may_hold(&wanted));
        buckets
            .flat_map(|bucket| &bucket.entries)
            .filter(move |served| finder.find(served.search_text()).is_some())
    }
}
