//! Keeps what was told in ConfigMaps, so that nothing is told again after a restart or by the next
//! leader. Events themselves cannot serve: the API server drops them after an hour.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use xxhash_rust::xxh3::xxh3_64;

use super::told::{Record, Told};
use crate::object::Key;

/// How many ConfigMaps there are: a change rewrites one of them, and each may hold 1 MiB.
const SHARDS: u64 = 4;
/// Largest compressed content of one; the API server refuses more than 1 MiB.
const MAX_STORED: usize = 1_000_000;
/// Largest content of one when decompressed.
const MAX_READ: u64 = 64 << 20;
const FIELD: &str = "told.json.gz";

/// The ConfigMaps `NAME-0` … of a namespace.
pub(super) struct Memory {
    api: Api<ConfigMap>,
    name: String,
    dirty: BTreeSet<u64>,
}

impl Memory {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), dirty: BTreeSet::new() }
    }

    /// Notes that what was told of an object has changed.
    pub(super) fn touch(&mut self, key: &Key) {
        self.dirty.insert(shard(key));
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    pub(super) async fn load(&mut self) -> Result<Told, kube::Error> {
        self.dirty.clear();
        let mut told = Told::default();
        for shard in 0..SHARDS {
            let Some(map) = self.api.get_opt(&self.object_name(shard)).await? else { continue };
            let Some(data) = map.binary_data.unwrap_or_default().remove(FIELD) else { continue };
            match decode(&data.0) {
                Ok(records) => told.extend_stored(records),
                Err(error) => {
                    let name = self.object_name(shard);
                    tracing::warn!(configmap = %name, %error, "what was told cannot be read; some Events will come again");
                }
            }
        }
        Ok(told)
    }

    /// Writes what has changed.
    pub(super) async fn save(&mut self, told: &Told) -> Result<(), kube::Error> {
        while let Some(number) = self.dirty.first().copied() {
            self.write(number, told).await?;
            self.dirty.remove(&number);
        }
        Ok(())
    }

    async fn write(&self, number: u64, told: &Told) -> Result<(), kube::Error> {
        let name = self.object_name(number);
        let data = encode(&told.to_stored(|key| shard(key) == number));
        if data.len() > MAX_STORED {
            tracing::warn!(configmap = %name, "too much was told to be kept; some Events will come again after a restart");
            return Ok(());
        }
        let map = ConfigMap {
            metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
            binary_data: Some(BTreeMap::from([(FIELD.to_owned(), ByteString(data))])),
            ..ConfigMap::default()
        };
        let params = PostParams::default();
        match self.api.replace(&name, &params, &map).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.api.create(&params, &map).await?;
            }
            written => {
                written?;
            }
        }
        Ok(())
    }

    fn object_name(&self, shard: u64) -> String {
        format!("{}-{shard}", self.name)
    }
}

fn shard(key: &Key) -> u64 {
    xxh3_64(key.to_string().as_bytes()) % SHARDS
}

fn encode(records: &BTreeMap<String, &Record>) -> Vec<u8> {
    let json = serde_json::to_vec(records).unwrap_or_default();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing into memory does not fail.
    let _ = encoder.write_all(&json);
    encoder.finish().unwrap_or_default()
}

fn decode(data: &[u8]) -> Result<BTreeMap<String, Record>, std::io::Error> {
    let mut json = Vec::new();
    GzDecoder::new(data).take(MAX_READ).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_memory_is_an_error() {
        let empty = encode(&BTreeMap::new());
        assert_eq!(decode(&empty).unwrap(), BTreeMap::new());
        for bad in [&b""[..], b"not gzip", &empty[..empty.len() - 9]] {
            assert!(decode(bad).is_err(), "{bad:?}");
        }
    }
}
