//! TODO transport
