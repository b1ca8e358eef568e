//! The catalogue service: takes entries from publishers and files, keeps them durably, serves
//! them over gRPC and REST.
//!
//! ```text
//!  gRPC Publish ───┐                     ┌── store (durable before anything is acknowledged)
//!  sources (files) ┼─► writer (one task) ┤
//!  managed entries ┘     by its layout   └── per registry: snapshot (immutable) ──► REST · gRPC
//! ```
//!
//! One task owns all mutation. Readers take the current snapshot and never wait for it. A registry is
//! a view over sources ([`catalogue::Layout`]).

pub mod assembly;
pub mod catalogue;
pub mod config;
pub mod gateway;
pub mod grpc;
pub mod mcpregistry;
pub mod metrics;
pub mod rest;
pub mod running;
pub mod server;
pub mod source;
pub mod store;
pub mod tls;

/// Name of the default registry.
pub const DEFAULT_REGISTRY: &str = "default";
