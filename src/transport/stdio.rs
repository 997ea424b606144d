//! Placeholder: stdio.
