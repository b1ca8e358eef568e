//! Why a source cannot be read.

use std::fmt;

/// What a failure is about, and so what becomes of what the source had before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The source cannot be got at. What it had before is kept.
    Source,
    /// What it holds cannot be used. What it had before is kept.
    Data,
    /// It must not be read, or not any more. What it had before is taken away.
    Denied,
    /// What it holds could not be stored.
    Store,
}

/// Why a source cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What it is about.
    pub cause: Cause,
    /// One word for it in CamelCase, as conditions have reasons.
    pub reason: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

impl SourceError {
    /// The source cannot be got at.
    pub(super) fn unavailable(reason: &'static str, message: impl Into<String>) -> Self {
        Self { cause: Cause::Source, reason, message: message.into() }
    }

    /// What it holds cannot be used.
    pub(super) fn invalid(reason: &'static str, message: impl Into<String>) -> Self {
        Self { cause: Cause::Data, reason, message: message.into() }
    }

    /// It must not be read.
    pub(super) fn denied(reason: &'static str, message: impl Into<String>) -> Self {
        Self { cause: Cause::Denied, reason, message: message.into() }
    }

    /// It is larger than is read.
    pub(super) fn too_large(what: impl fmt::Display, most: u64) -> Self {
        Self::invalid(
            "TooLarge",
            format!("{what} has more than {most} bytes, which is the most that is read"),
        )
    }
}

impl From<std::io::Error> for SourceError {
    fn from(error: std::io::Error) -> Self {
        Self::unavailable("Unreadable", error.to_string())
    }
}
