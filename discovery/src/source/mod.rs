//! Where objects come from.

pub mod manifest;
