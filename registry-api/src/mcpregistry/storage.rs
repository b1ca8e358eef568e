//! The copy of what was read, in ConfigMaps beside the MCPRegistry.

use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, Patch, PatchParams};
use kube::{Client, ResourceExt};

use super::controller::{LABEL, MANAGER};
use super::crd::{ConfigMapRef, StorageRefStatus, StorageType};
use crate::catalogue::{Prepared, Snapshot};
use crate::source::{digest, read_packed};

/// Most bytes of one part: a ConfigMap has room for 1 MiB, its names and labels included.
const MAX_PART: usize = 900 * 1024;
/// The key of each part.
const KEY: &str = "data";
/// Annotation that holds the fingerprint of all parts.
const HASH: &str = "waymark.dev/hash";

/// Whose the objects are.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) reference: OwnerReference,
}

/// One part of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Plain(String),
    Gzip(Vec<u8>),
}

/// Something could not be done with the copy.
#[derive(Debug, thiserror::Error)]
pub(super) enum StorageError {
    /// The API server says so.
    #[error("the copy in ConfigMaps cannot be kept: {0}")]
    Kube(#[from] kube::Error),
    /// The name is taken.
    #[error(
        "the copy cannot be kept: there is a ConfigMap {0} that is not the controller's; rename or delete it"
    )]
    Taken(String),
}

fn name(owner: &Owner, part: usize) -> String {
    match part {
        0 => format!("{}-storage", owner.name),
        n => format!("{}-storage-{n}", owner.name),
    }
}

/// The upstream API's list of some entries, each as it is served.
fn list(entries: &[&[u8]]) -> Vec<u8> {
    let mut document = b"{\"servers\":[".to_vec();
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            document.push(b',');
        }
        document.extend_from_slice(entry);
    }
    document
        .extend_from_slice(format!("],\"metadata\":{{\"count\":{}}}}}", entries.len()).as_bytes());
    document
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Writing to memory does not fail.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// Entries as parts that have room in a ConfigMap each: plain where one is enough.
fn parts(entries: &[&[u8]], most: usize) -> Vec<Part> {
    let whole = list(entries);
    if whole.len() <= most
        && let Ok(text) = String::from_utf8(whole)
    {
        return vec![Part::Plain(text)];
    }
    let mut parts = Vec::new();
    compress(entries, most, &mut parts);
    parts
}

fn compress(entries: &[&[u8]], most: usize, parts: &mut Vec<Part>) {
    let packed = gzip(&list(entries));
    if packed.len() <= most || entries.len() < 2 {
        parts.push(Part::Gzip(packed));
        return;
    }
    let (first, second) = entries.split_at(entries.len() / 2);
    compress(first, most, parts);
    compress(second, most, parts);
}

/// Writes the copy of what a registry has from its source, where it is another than the one that is
/// there.
pub(super) async fn write(
    client: &Client,
    owner: &Owner,
    snapshot: &Snapshot,
) -> Result<StorageRefStatus, StorageError> {
    let entries: Vec<&[u8]> =
        snapshot.live().filter(|served| !served.deployed).map(|served| &*served.json).collect();
    let hash = digest(&list(&entries));
    let parts = tokio::task::block_in_place(|| parts(&entries, MAX_PART));
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &owner.namespace);
    let known = of(&api, owner).await?;
    let params = PatchParams::apply(MANAGER).force();
    let count = parts.len();
    for (at, part) in parts.into_iter().enumerate() {
        let name = name(owner, at);
        let there = match known.get(&name) {
            Some(map) => Some(map.clone()),
            None => api.get_opt(&name).await?,
        };
        if let Some(there) = there {
            if !is_owned(&there, owner) {
                return Err(StorageError::Taken(name));
            }
            if there.annotations().get(HASH) == Some(&hash) {
                continue;
            }
        }
        let (data, binary) = match part {
            Part::Plain(text) => (Some(BTreeMap::from([(KEY.to_owned(), text)])), None),
            Part::Gzip(bytes) => {
                (None, Some(BTreeMap::from([(KEY.to_owned(), ByteString(bytes))])))
            }
        };
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(owner.namespace.clone()),
                labels: Some(BTreeMap::from([
                    (LABEL.to_owned(), owner.name.clone()),
                    ("app.kubernetes.io/managed-by".to_owned(), "waymark".to_owned()),
                ])),
                annotations: Some(BTreeMap::from([(HASH.to_owned(), hash.clone())])),
                owner_references: Some(vec![owner.reference.clone()]),
                ..ObjectMeta::default()
            },
            data,
            binary_data: binary,
            ..ConfigMap::default()
        };
        api.patch(&name, &params, &Patch::Apply(&map)).await?;
    }
    let wanted: Vec<String> = (0..count).map(|at| name(owner, at)).collect();
    for left in known.into_keys().filter(|name| !wanted.contains(name)) {
        delete(&api, &left).await?;
    }
    let (name, namespace, key) = (name(owner, 0), owner.namespace.clone(), KEY.to_owned());
    let parts = i64::try_from(count).unwrap_or(i64::MAX);
    let config_map_ref = Some(ConfigMapRef { name, namespace, key, parts });
    Ok(StorageRefStatus { kind: StorageType::Configmap, config_map_ref })
}

fn is_owned(map: &ConfigMap, owner: &Owner) -> bool {
    map.owner_references().iter().any(|reference| reference.uid == owner.reference.uid)
}

/// The parts that are there, by name.
async fn of(
    api: &Api<ConfigMap>,
    owner: &Owner,
) -> Result<BTreeMap<String, ConfigMap>, kube::Error> {
    let params = ListParams::default().labels(&format!("{LABEL}={}", owner.name));
    let all = api.list(&params).await?.items.into_iter();
    let owned = all.filter(|map| is_owned(map, owner));
    Ok(owned.map(|map| (map.name_any(), map)).collect())
}

async fn delete(api: &Api<ConfigMap>, name: &str) -> Result<(), kube::Error> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        deleted => deleted.map(|_| ()),
    }
}

/// Removes all parts.
pub(super) async fn remove(client: &Client, owner: &Owner) -> Result<(), StorageError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &owner.namespace);
    for name in of(&api, owner).await?.into_keys() {
        delete(&api, &name).await?;
    }
    Ok(())
}

/// The entries of the copy; none where there is none.
pub(super) async fn read(client: &Client, owner: &Owner) -> Result<Vec<Prepared>, StorageError> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), &owner.namespace);
    let mut entries = Vec::new();
    for (name, map) in of(&api, owner).await? {
        let text = map.data.and_then(|mut data| data.remove(KEY)).map(String::into_bytes);
        let packed = || map.binary_data.and_then(|mut data| data.remove(KEY)).map(|bytes| bytes.0);
        let Some(bytes) = text.or_else(packed) else { continue };
        match read_packed(&bytes) {
            Ok(content) => entries.extend(content.entries),
            Err(error) => {
                tracing::warn!(configmap = name, "a part of the copy cannot be read: {error}")
            }
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(n: usize) -> Vec<Vec<u8>> {
        // What cannot be compressed much.
        let text = |n: usize| digest(&n.to_le_bytes());
        let server = |n: usize| {
            json!({"server": {"name": format!("a.b/{n}"), "description": text(n),
                "version": "1.0.0"}, "_meta": {}})
        };
        (0..n).map(|n| server(n).to_string().into_bytes()).collect()
    }

    #[test]
    fn copies_are_split() {
        for (n, most, expected) in
            [(0, 10_000, 1), (5, 10_000, 1), (400, 10_000, 2), (200, 2_000, 8)]
        {
            let entries = entries(n);
            let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
            let parts = parts(&entries, most);
            assert_eq!(parts.len(), expected, "{n} {most}");
            let mut read = 0;
            for part in parts {
                let bytes = match part {
                    Part::Plain(text) => text.into_bytes(),
                    Part::Gzip(bytes) => bytes,
                };
                assert!(bytes.len() <= most);
                read += read_packed(&bytes).unwrap().entries.len();
            }
            assert_eq!(read, n);
        }
    }
}
