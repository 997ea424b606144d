//! What decodes, encodes; and that decodes to what encodes to the same bytes.
#![no_main]

use bytes::Bytes;
use inbound_agent::object::{Graph, Limits};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Ok(graph) = Graph::decode(Bytes::copy_from_slice(input), &Limits::default()) else { return };
    let encoded = Bytes::from(graph.encode());
    // A boolean other than 0 and 1 is the one thing that is not kept as it was.
    assert_eq!(encoded.len(), input.len());
    let again = Graph::decode(encoded.clone(), &Limits::default()).expect("what was encoded decodes");
    assert_eq!(again.nodes().len(), graph.nodes().len());
    assert_eq!(again.encode(), encoded);
    // Typed access must survive whatever decodes.
    for index in 0..graph.nodes().len() {
        let view = graph.view(graph.id_at(index).unwrap());
        let _ = (view.class_name(), view.collection(), view.string_map(), view.as_str(), view.constant(), view.unboxed());
    }
});
