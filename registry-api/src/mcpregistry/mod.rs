//! MCPRegistry: a registry as a Kubernetes resource, served by this process.
//!
//! ```text
//!  MCPRegistry ──► plan (pure) ──► source + registry ──► assembly ──► engine, writer
//!       ▲                                                                │
//!       └── status (pure), Events, copy, dedicated Deployment ◄── how the source stands
//! ```
//!
//! Every replica serves all of them; one, by a Lease, reads their sources and writes their status.

mod controller;
pub mod crd;

mod dedicated;
mod outcome;
mod plan;
mod resource;
mod storage;
mod watch;

pub use controller::{Controller, ControllerConfig, LogLevels, Process};
pub use crd::{
    GROUP, LogLevel, MCPRegistry, MCPRegistrySpec, MCPRegistryStatus, VERSION, definition,
};
pub use dedicated::Dedicated;
pub use outcome::REASONS;
