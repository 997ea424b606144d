//! TODO discovery
