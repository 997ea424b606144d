//! Placeholder: trust.
