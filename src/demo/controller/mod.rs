//! An in-process stand-in for a Jenkins controller, on loopback.

pub mod end;
pub mod requests;
