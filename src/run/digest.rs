//! SHA-256 as lower-case hex, the format of every hash in a run folder.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// SHA-256 of some bytes.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

/// The first four bytes of the SHA-256 of some bytes, as a number: as hex, the first eight digits of [`sha256_hex`].
pub fn check_word(bytes: &[u8]) -> u32 {
    let [a, b, c, d, ..] = Sha256::digest(bytes)[..] else { unreachable!("a SHA-256 has 32 bytes") };
    u32::from_be_bytes([a, b, c, d])
}
