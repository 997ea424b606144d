//! TODO object
