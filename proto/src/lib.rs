//! The gRPC contracts of Waymark.
