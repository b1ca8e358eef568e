//! From annotated HTTPRoutes to registry entries.
//!
//! ```text
//!  source::manifest ─┐                                     ┌─► explanation (why, why not)
//!  source::cluster  ─┴─► object::Object ─► index::Index ───┤
//!                             compact      │      ▲        └─► changed entry ids ─► publisher ─► gRPC
//!                             copies       ▼      │
//!                                       resolver (pure): object + lookups → offers and problems
//!                                       index::names (pure): offers → who holds which name
//! ```
//!
//! The resolver and the index are pure: no async, no I/O, no Kubernetes client. The resolver
//! reads other objects only through [`resolver::Lookup`]; the index records what was read and
//! resolves an object again when one of those changes, and only then.

pub mod admin;
pub mod annotation;
pub mod entry;
pub mod event;
pub mod explanation;
pub mod finding;
pub mod gateway_name;
mod host;
pub mod index;
mod listener;
pub mod metrics;
pub mod object;
mod path;
pub mod probe;
pub mod problem;
pub mod publisher;
pub mod resolver;
pub mod settings;
pub mod shared;
pub mod source;

pub use explanation::Explanation;
pub use index::Index;
pub use object::{Key, Kind, Object};
pub use problem::{Code, Problem, Severity};
pub use settings::Settings;
