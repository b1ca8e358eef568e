//! The catalogue service: takes entries from publishers and files, keeps them durably, serves
//! them over gRPC and REST.
//!
//! ```text
//!  gRPC Publish ──┐                     ┌── store (durable before anything is acknowledged)
//!  curated file ──┴─► writer (one task) ┤
//!                                       └── snapshot (immutable) ──► REST · gRPC List/Get/Watch
//! ```
//!
//! One task owns all mutation. Readers take the current snapshot and never wait for it.

pub mod catalogue;
pub mod grpc;
pub mod metrics;
pub mod rest;
pub mod server;
pub mod store;

/// Name of the default registry.
pub const DEFAULT_REGISTRY: &str = "default";
