//! Small objects with a seal at their end: what a disk or a hand has changed is told, and not believed.
//!
//! The seal is a line of its own and JSON like what it seals, so that any tool reads the object as a stream of JSON.

use super::StorageError;
use serde::Serialize;
use serde::de::DeserializeOwned;

const SEAL_BYTES: usize = "\n\"crc32 00000000\"\n".len();

/// These bytes with their checksum behind them.
pub fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let line = seal_line(&bytes);
    bytes.extend_from_slice(line.as_bytes());
    bytes
}

/// What was sealed, or in what way it is not that any more.
pub fn unseal(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let at = bytes.len().checked_sub(SEAL_BYTES).ok_or("it ends before its checksum")?;
    let (sealed, line) = bytes.split_at(at);
    if line == seal_line(sealed).as_bytes() {
        return Ok(sealed);
    }
    match line.starts_with(b"\n\"crc32 ") && line.ends_with(b"\"\n") {
        true => Err("its bytes are not those that its checksum is of"),
        false => Err("it does not end with its checksum: it was cut off or changed"),
    }
}

/// A value as a sealed object of JSON.
pub fn sealed_json(path: &str, value: &impl Serialize) -> Result<Vec<u8>, StorageError> {
    let text = serde_json::to_vec(value);
    text.map(seal).map_err(|error| StorageError::Invalid(format!("`{path}` cannot be written: {error}")))
}

/// The value of a sealed object of JSON, or why it has none.
pub fn unsealed_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_json::from_slice(unseal(bytes)?).map_err(|error| error.to_string())
}

fn seal_line(bytes: &[u8]) -> String {
    format!("\n\"crc32 {:08x}\"\n", crc32fast::hash(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards a position in a manifest that one bit made another position: rows were counted twice.
    #[test]
    fn every_flipped_bit_and_every_cut_is_told() {
        let sealed = sealed_json("a", &serde_json::json!({ "position": 123 })).unwrap();
        assert_eq!(unsealed_json::<serde_json::Value>(&sealed).unwrap()["position"], 123);
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unseal(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..sealed.len() {
            assert!(unseal(&sealed[..length]).is_err(), "{length} bytes");
        }
    }
}
