//! TODO process
