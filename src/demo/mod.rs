//! A controller in miniature, for `agent demo` and for tests.

pub mod controller;
