//! What a pod can say beyond a host: the cluster's API server, its DNS, its node, and the ranges of addresses.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Target;
use super::check::{Check, Verdict};
use super::facts::Facts;

/// What was observed of the cluster. Part of [`Facts`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesFacts {}

/// Looks around in the cluster, at the same time as everything else is done. `None` where this is no pod.
pub async fn gather(_target: &Target, _within: Duration) -> Option<KubernetesFacts> {
    None
}

/// What the facts of the cluster mean, beside all other facts. Pure.
pub fn evaluate(_facts: &Facts) -> Vec<Check> {
    Vec::new()
}

/// Confirms or replaces the verdict that the other checks came to. Pure; `checks` holds all of them, those of
/// [`evaluate`] included.
///
/// Where a check of the other categories accuses a cause that the cluster explains better, it is to be made a warning
/// of the same outcome, so that only the better cause is accused.
pub fn judge(_facts: &Facts, _checks: &mut [Check], verdict: Verdict) -> Verdict {
    verdict
}
