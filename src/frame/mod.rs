//! TODO frame
