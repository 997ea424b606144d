//! The channel's second tenant: whatever happens in whatever order, nothing reaches the wrong one.
#![no_main]

#[path = "../../tests/tenants/mod.rs"]
mod tenants;

libfuzzer_sys::fuzz_target!(|data: &[u8]| tenants::run(data));
