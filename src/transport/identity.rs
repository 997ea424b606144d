//! Placeholder: identity.
