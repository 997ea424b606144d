//! JNLP4-connect.

/// The protocol's name on the wire (`JnlpProtocol4Handler.getName`).
pub const PROTOCOL_NAME: &str = "JNLP4-connect";

/// Who this agent says it is.
#[derive(Clone)]
pub struct Credentials;
