//! Placeholder: dial.
