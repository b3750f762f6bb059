//! How a push stands in the log's files: a fixed header, the client's key and answer, then the records.
//!
//! Header and key have a checksum of their own, so that keys can be read back without the records.

use super::records::Records;
use crate::define::Digest;
use bytes::Bytes;

/// Of the fixed header, in bytes. All numbers are little-endian.
pub const HEADER_BYTES: usize = 64;
const MAGIC: [u8; 4] = *b"1FLG";
const META_CRC: usize = 4;
const PAYLOAD_CRC: usize = 8;
const COUNT: usize = 12;
const OFFSET: usize = 16;
const SYNCED: usize = 24;
const FIRST_POSITION: usize = 32;
const ARRIVAL: usize = 40;
const PAYLOAD_LENGTH: usize = 48;
const KEY_LENGTH: usize = 52;
const ANSWER_LENGTH: usize = 56;
const HAS_KEY: usize = 60;
const DIGEST_BYTES: usize = 32;

/// What stands before the records of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the frame itself stands in its file: what is copied elsewhere is no frame.
    pub offset: u64,
    /// How much of the file was synced when it was written. A bad frame below that has decayed; above, it was torn.
    pub synced: u64,
    pub first_position: u64,
    pub arrival_us: i64,
    pub count: u32,
    pub key: Option<(Vec<u8>, Digest)>,
    pub answer: Bytes,
    payload_length: u32,
    payload_crc: u32,
    meta_length: usize,
}

impl Header {
    /// Bytes of the whole frame.
    pub fn frame_length(&self) -> u64 {
        (self.meta_length + self.payload_length as usize) as u64
    }

    pub fn next_position(&self) -> u64 {
        self.first_position.saturating_add(u64::from(self.count))
    }
}

/// What the writer knows of a frame.
pub struct Frame<'a> {
    pub offset: u64,
    pub synced: u64,
    pub first_position: u64,
    pub arrival_us: i64,
    pub key: Option<(&'a [u8], Digest)>,
    pub answer: &'a [u8],
    pub records: &'a Records,
}

/// Appends a frame. The caller has checked that its parts fit 32 bits.
pub fn write(frame: &Frame, out: &mut Vec<u8>) {
    let start = out.len();
    let narrow = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    let (key, digest) = frame.key.map_or((&[][..], None), |(key, digest)| (key, Some(digest)));
    let payload_length = frame.records.len() * 4 + frame.records.bytes().len();
    let mut header = [0u8; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &MAGIC);
    put(COUNT, &narrow(frame.records.len()).to_le_bytes());
    put(OFFSET, &frame.offset.to_le_bytes());
    put(SYNCED, &frame.synced.to_le_bytes());
    put(FIRST_POSITION, &frame.first_position.to_le_bytes());
    put(ARRIVAL, &frame.arrival_us.to_le_bytes());
    put(PAYLOAD_LENGTH, &narrow(payload_length).to_le_bytes());
    put(KEY_LENGTH, &narrow(key.len()).to_le_bytes());
    put(ANSWER_LENGTH, &narrow(frame.answer.len()).to_le_bytes());
    put(HAS_KEY, &u32::from(digest.is_some()).to_le_bytes());
    out.extend_from_slice(&header);
    if let Some(digest) = digest {
        out.extend_from_slice(key);
        out.extend_from_slice(&digest.0);
    }
    out.extend_from_slice(frame.answer);
    let payload = out.len();
    for end in frame.records.ends() {
        out.extend_from_slice(&end.to_le_bytes());
    }
    out.extend_from_slice(frame.records.bytes());
    let crc = crc32fast::hash(&out[payload..]);
    out[start + PAYLOAD_CRC..start + COUNT].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32fast::hash(&out[start + PAYLOAD_CRC..payload]);
    out[start + META_CRC..start + PAYLOAD_CRC].copy_from_slice(&crc.to_le_bytes());
}

/// How many bytes header, key and answer take, by a header's first bytes; `None` when it is none.
pub fn meta_length(bytes: &[u8]) -> Option<usize> {
    let header = bytes.first_chunk::<HEADER_BYTES>().filter(|header| header.starts_with(&MAGIC))?;
    let digest = if u32_at(header, HAS_KEY) == 0 { 0 } else { DIGEST_BYTES };
    Some(HEADER_BYTES + u32_at(header, KEY_LENGTH) as usize + digest + u32_at(header, ANSWER_LENGTH) as usize)
}

/// The header that stands at `offset` of a file and at the beginning of `bytes`; `None` when it is not whole and sound.
pub fn read_header(bytes: &[u8], offset: u64) -> Option<Header> {
    let meta_length = meta_length(bytes)?;
    let meta = bytes.get(..meta_length)?;
    let header = meta.first_chunk::<HEADER_BYTES>()?;
    if u32_at(header, META_CRC) != crc32fast::hash(meta.get(PAYLOAD_CRC..)?) || u64_at(header, OFFSET) != offset {
        return None;
    }
    let mut rest = meta.get(HEADER_BYTES..)?;
    let key = if u32_at(header, HAS_KEY) == 0 {
        None
    } else {
        let (key, after) = rest.split_at_checked(u32_at(header, KEY_LENGTH) as usize)?;
        let (digest, after) = after.split_first_chunk::<DIGEST_BYTES>()?;
        rest = after;
        Some((key.to_vec(), Digest(*digest)))
    };
    Some(Header {
        offset,
        synced: u64_at(header, SYNCED),
        first_position: u64_at(header, FIRST_POSITION),
        arrival_us: u64_at(header, ARRIVAL).cast_signed(),
        count: u32_at(header, COUNT),
        key,
        answer: Bytes::copy_from_slice(rest),
        payload_length: u32_at(header, PAYLOAD_LENGTH),
        payload_crc: u32_at(header, PAYLOAD_CRC),
        meta_length,
    })
}

/// The records of the frame that begins with `bytes`, without copying them; `None` when they are not whole and sound.
pub fn read_records(header: &Header, bytes: &Bytes) -> Option<Records> {
    let end = usize::try_from(header.frame_length()).ok()?;
    let payload = bytes.get(header.meta_length..end)?;
    if crc32fast::hash(payload) != header.payload_crc {
        return None;
    }
    let (ends, _) = payload.split_at_checked(header.count as usize * 4)?;
    let ends: Vec<u32> = ends.chunks_exact(4).map(|end| u32::from_le_bytes([end[0], end[1], end[2], end[3]])).collect();
    Records::from_parts(bytes.slice(header.meta_length + ends.len() * 4..end), ends)
}

/// The first place after `from` where a sound frame stands.
pub fn find_frame(bytes: &Bytes, from: usize) -> Option<Header> {
    let rest = bytes.get(from..)?;
    memchr::memmem::find_iter(rest, &MAGIC).find_map(|at| {
        let header = read_header(rest.get(at..)?, (from + at) as u64)?;
        read_records(&header, &bytes.slice(from + at..)).map(|_| header)
    })
}

fn u32_at(header: &[u8; HEADER_BYTES], at: usize) -> u32 {
    header.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(header: &[u8; HEADER_BYTES], at: usize) -> u64 {
    header.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mangle::outside;
    use proptest::prelude::*;

    fn valid() -> Vec<u8> {
        let records = Records::from_slices([&b"one"[..], b"", b"three"]).unwrap();
        let key = Some((&b"key"[..], Digest([7; 32])));
        let frame =
            Frame { offset: 0, synced: 0, first_position: 5, arrival_us: 9, key, answer: b"{}", records: &records };
        let mut bytes = Vec::new();
        write(&frame, &mut bytes);
        bytes
    }

    /// Puts the checksums right, so that what is behind them is reached.
    fn with_sums(mut bytes: Vec<u8>) -> Vec<u8> {
        let Some(meta) = meta_length(&bytes).filter(|meta| *meta <= bytes.len()) else { return bytes };
        let length = u32::from_le_bytes(*bytes[PAYLOAD_LENGTH..].first_chunk().unwrap()) as usize;
        let payload = bytes.get(meta..meta + length).map_or(0, crc32fast::hash);
        bytes[PAYLOAD_CRC..COUNT].copy_from_slice(&payload.to_le_bytes());
        let sum = crc32fast::hash(&bytes[PAYLOAD_CRC..meta]);
        bytes[META_CRC..PAYLOAD_CRC].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Guards against a log that a bad disk turns into a crash, or into records that nobody wrote.
        #[test]
        fn outside_bytes_are_a_frame_or_none(bytes in outside(&valid()), sums: bool) {
            let is_same = bytes == valid();
            let bytes = Bytes::from(if sums { with_sums(bytes) } else { bytes });
            if let Some(header) = read_header(&bytes, 0) {
                header.next_position();
                match read_records(&header, &bytes) {
                    Some(records) => {
                        prop_assert_eq!(records.len(), header.count as usize);
                        prop_assert_eq!(records.iter().map(<[u8]>::len).sum::<usize>(), records.bytes().len());
                        prop_assert!(sums || is_same || bytes.starts_with(&valid()), "a damaged frame was read");
                    }
                    None => prop_assert!(find_frame(&bytes, 0).is_none_or(|found| found.offset > 0)),
                }
            }
            if let Some(found) = find_frame(&bytes, 1) {
                prop_assert!(found.offset >= 1 && found.offset < bytes.len() as u64);
            }
        }
    }
}
