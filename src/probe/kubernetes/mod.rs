//! What a pod can say beyond a host: the cluster's API server, its DNS, its node, and the ranges of addresses.
//!
//! [`gather`] observes [`facts`], [`evaluate`] and [`judge`] read them. The cluster is only ever read, and what the
//! service account may not read is unknown, never wrong.

mod api;
pub mod cidr;
mod evaluate;
pub mod facts;
mod gather;
pub mod objects;
#[cfg(test)]
mod tests;
pub mod yaml;

pub use evaluate::{evaluate, judge};
pub(super) use evaluate::{no_policy, reaches_directly};
pub use facts::KubernetesFacts;
pub use gather::{SERVICE_ACCOUNT, SERVICE_ACCOUNT_VARIABLE, VARIABLES, gather};
