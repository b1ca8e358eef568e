//! The domain of Waymark: MCP server entries and what may be said about them.
//!
//! Everything here is a pure function of its arguments: no I/O, no Kubernetes, no gRPC, no async.
//!
//! * [`server`]: the typed `server.json` document (schema 2025-12-11);
//! * [`name`] and [`version`]: identifiers, their rules and their order;
//! * [`validate`]: every violation of a document at once, each with its JSON path;
//! * [`meta`]: what registries and ToolHive write under `_meta`;
//! * [`mod@format`]: the file formats a catalogue may come in, and the conversions between them;
//! * [`filter`]: which entries of a source are taken;
//! * [`merge`]: how contributions of several sources become one entry.

pub mod filter;
pub mod format;
pub mod merge;
pub mod meta;
pub mod name;
pub mod server;
pub mod validate;
pub mod version;

pub use name::{NameError, ServerName};
pub use server::ServerDetail;
pub use validate::Violation;
