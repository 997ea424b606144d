//! TODO callables
