//! Texts that sources need and that are kept elsewhere: passwords, tokens, keys, certificates.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::Api;
use tokio::sync::OnceCell;

use super::SourceError;

/// Most bytes of such a text.
const MAX_BYTES: u64 = 1 << 20;

/// The way to the cluster, where there is one; looked for when it is first needed.
#[derive(Clone, Default)]
pub struct Cluster(Arc<OnceCell<Client>>);

impl Cluster {
    /// A cluster whose client is there.
    #[must_use]
    pub fn of(client: Client) -> Self {
        Self(Arc::new(OnceCell::new_with(Some(client))))
    }

    /// The client.
    ///
    /// # Errors
    /// Where neither KUBECONFIG nor a ServiceAccount leads to a cluster.
    pub async fn client(&self) -> Result<Client, SourceError> {
        let client = self.0.get_or_try_init(Client::try_default).await;
        client.cloned().map_err(|error| {
            SourceError::unavailable(
                "NoCluster",
                format!(
                    "there is no cluster to read it from: {error}; set KUBECONFIG, or run in a Pod"
                ),
            )
        })
    }
}

/// Where a text is.
#[derive(Clone, PartialEq, Eq)]
pub enum Origin {
    /// Here.
    Value(String),
    /// In a file.
    File(PathBuf),
    /// In a Secret.
    Secret {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key in it.
        key: String,
    },
    /// In a ConfigMap.
    ConfigMap {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key in it.
        key: String,
    },
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // It may be a secret.
            Self::Value(_) => f.write_str("Value"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Secret { namespace, name, key } => {
                write!(f, "key {key} of Secret {namespace}/{name}")
            }
            Self::ConfigMap { namespace, name, key } => {
                write!(f, "key {key} of ConfigMap {namespace}/{name}")
            }
        }
    }
}

impl Origin {
    /// Reads the text, without white space around it.
    ///
    /// # Errors
    /// Where it is not there, or no text.
    pub async fn read(&self, cluster: &Cluster) -> Result<String, SourceError> {
        let failed = |why: String| {
            SourceError::unavailable("CredentialsUnavailable", format!("{self:?}: {why}"))
        };
        let text = match self {
            Self::Value(text) => return Ok(text.clone()),
            Self::File(path) => {
                let size =
                    tokio::fs::metadata(path).await.map_err(|e| failed(e.to_string()))?.len();
                if size > MAX_BYTES {
                    return Err(SourceError::too_large(path.display(), MAX_BYTES));
                }
                tokio::fs::read_to_string(path).await.map_err(|e| failed(e.to_string()))?
            }
            Self::Secret { namespace, name, key } => {
                let api: Api<Secret> = Api::namespaced(cluster.client().await?, namespace);
                let secret = api.get(name).await.map_err(|error| failed(said(&error)))?;
                let value = secret.data.and_then(|mut data| data.remove(key));
                let value = value.ok_or_else(|| failed("there is no such key".to_owned()))?;
                String::from_utf8(value.0).map_err(|_| failed("it is no text".to_owned()))?
            }
            Self::ConfigMap { namespace, name, key } => {
                let api: Api<ConfigMap> = Api::namespaced(cluster.client().await?, namespace);
                let map = api.get(name).await.map_err(|error| failed(said(&error)))?;
                let value = map.data.and_then(|mut data| data.remove(key));
                value.ok_or_else(|| failed("there is no such key".to_owned()))?
            }
        };
        Ok(text.trim().to_owned())
    }
}

/// What the API server says of a failed request.
pub(super) fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_and_values() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret\n").unwrap();
        let cluster = Cluster::default();
        assert_eq!(Origin::File(path).read(&cluster).await.unwrap(), "secret");
        let value = Origin::Value("secret".into());
        assert_eq!(value.read(&cluster).await.unwrap(), "secret");
        assert!(!format!("{value:?}").contains("secret"));
        let missing = Origin::File(folder.path().join("none")).read(&cluster).await.unwrap_err();
        assert_eq!(missing.reason, "CredentialsUnavailable");
        assert!(missing.message.contains("none"), "{missing}");
    }
}
