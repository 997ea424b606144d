//! The printers of `agent decode`: for every input valid JSON and a tree that grows with the input alone.
#![no_main]

use std::ffi::OsString;
use std::io::Write;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let path = std::env::temp_dir().join(format!("decode_print.{}", std::process::id()));
    std::fs::File::create(&path).unwrap().write_all(input).unwrap();
    for flags in [&[][..], &["--full", "--annotations"], &["--json"], &["--summary"], &["--roundtrip"]] {
        let args: Vec<OsString> = flags.iter().map(OsString::from).chain([path.clone().into()]).collect();
        let mut out = Vec::new();
        let _ = inbound_agent::decode::run(&args, &mut out);
        // Names are repeated wherever an object of their class stands; hence the factor.
        assert!(out.len() < 100_000 + input.len() * input.len().max(1_000), "{} bytes of output", out.len());
    }
});
