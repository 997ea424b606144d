use super::Entry;
/// x
pub const ENTRIES: &[Entry] = &[];
