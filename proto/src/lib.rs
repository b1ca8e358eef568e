//! The gRPC contracts of Waymark, generated from `proto/waymark/registry/v1/*.proto`.
//!
//! The `.proto` files are the documentation of record; their comments are on the types here.

/// `waymark.registry.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, unused_qualifications)]
pub mod v1 {
    tonic::include_proto!("waymark.registry.v1");
}

/// The encoded `FileDescriptorSet` of all services, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
