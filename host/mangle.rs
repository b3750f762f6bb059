//! Bytes that were right and no longer are: what parsers of outside bytes are tried with, beside random ones.

use proptest::prelude::*;
use proptest::sample::Index;

/// One thing that happens to bytes.
#[derive(Clone, Debug)]
enum Damage {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    /// A piece is there twice, or somewhere else too.
    Copy(Index, Index, usize),
    Cut(Index),
}

/// Outside bytes: any at all, or these after a few things have happened to them.
pub fn outside(valid: &[u8]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let valid = valid.to_vec();
    let mangled = prop::collection::vec(damage(), 1..6).prop_map(move |damages| {
        damages.iter().fold(valid.clone(), |mut bytes, damage| {
            damage.happen(&mut bytes);
            bytes
        })
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..200), 4 => mangled]
}

/// The same as text, what is no UTF-8 replaced.
pub fn outside_text(valid: &str) -> impl Strategy<Value = String> + use<> {
    outside(valid.as_bytes()).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    // Bytes that mean something in one format or another, more often than others.
    let byte = || prop_oneof![any::<u8>(), prop::sample::select(&b"\0\x01\x7f\x80\xff\"\\{}[],:-. \n0e+&*|>#'"[..])];
    prop_oneof![
        (at(), byte()).prop_map(|(at, byte)| Damage::Set(at, byte)),
        (at(), 0u8..8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        (at(), byte()).prop_map(|(at, byte)| Damage::Insert(at, byte)),
        at().prop_map(Damage::Remove),
        (at(), at(), 1usize..40).prop_map(|(from, to, length)| Damage::Copy(from, to, length)),
        at().prop_map(Damage::Cut),
    ]
}

impl Damage {
    fn happen(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match self {
            Damage::Set(at, byte) => bytes[at.index(length)] = *byte,
            Damage::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Damage::Insert(at, byte) => bytes.insert(at.index(length), *byte),
            Damage::Remove(at) => drop(bytes.remove(at.index(length))),
            Damage::Copy(from, to, piece) => {
                let from = from.index(length);
                let piece = bytes[from..(from + piece).min(length)].to_vec();
                let to = to.index(length);
                bytes.splice(to..to, piece);
            }
            Damage::Cut(at) => bytes.truncate(at.index(length)),
        }
    }
}
