//! The catalogue service of Waymark: store, gRPC and REST.
