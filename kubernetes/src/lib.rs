//! What both halves of Waymark need of Kubernetes: [`lease`], so that of several replicas one acts,
//! and [`event`], so that an admin sees at the object what became of it.

pub mod event;
pub mod lease;
