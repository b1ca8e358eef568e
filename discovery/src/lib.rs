//! Kubernetes objects to registry entries: resolver, index, manifest source, publisher.
