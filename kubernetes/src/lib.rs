//! What both halves of Waymark need of Kubernetes: [`lease`], so that of several replicas one acts,
//! [`event`], so that an admin sees at the object what became of it, and [`listing`], what a watch has
//! told of so far.

pub mod event;
pub mod lease;
pub mod listing;
