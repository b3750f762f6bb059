//! Many small byte strings that are rewritten all the time, without an allocation each.
//!
//! Strings live in slabs of one size class each; a class is at most a quarter larger than what it holds. A string
//! that outgrows its class moves to another and its place is used again. Strings above the largest class have an
//! allocation of their own. What a table keeps for a string is a `Slice` of eight bytes.

/// Names a string in an arena. The empty string has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Slice {
    /// Place in its class, plus one; 0 = empty.
    place: u32,
    /// Class in the upper 8 bits, length below; a length does not fit the large class, which keeps its own.
    class_len: u32,
}

impl Slice {
    pub const EMPTY: Slice = Slice { place: 0, class_len: 0 };

    /// As bytes, to be kept in memory.
    pub fn to_bytes(self) -> [u8; 8] {
        (u64::from(self.place) << 32 | u64::from(self.class_len)).to_le_bytes()
    }

    /// The inverse of [`Slice::to_bytes`].
    pub fn from_bytes(bytes: [u8; 8]) -> Slice {
        let both = u64::from_le_bytes(bytes);
        Slice { place: (both >> 32) as u32, class_len: both as u32 }
    }
}

const LEN_BITS: u32 = 24;
const LARGE: usize = CLASSES.len();
/// A class begins with a slab of so many bytes (or of one place); each has twice the places of the one before, up to 32x:
/// there are many tables, and most of their classes hold little.
const FIRST_SLAB_BYTES: usize = 1 << 13;
const DOUBLINGS: u32 = 5;

/// For each class, how many places its first slab has, as a power of two: where a place stands is found without a
/// division.
const FIRST_PLACES_BITS: [u32; CLASSES.len()] = {
    let mut bits = [0; CLASSES.len()];
    let mut class = 0;
    while class < CLASSES.len() && CLASSES[class] < FIRST_SLAB_BYTES {
        bits[class] = (FIRST_SLAB_BYTES / CLASSES[class]).ilog2();
        class += 1;
    }
    bits
};

/// The slab of a place, and where in it the place starts.
#[inline]
fn slab_of(place: usize, class: usize) -> (usize, usize) {
    let bits = FIRST_PLACES_BITS[class];
    let doubling = ((place >> bits) + 1).ilog2();
    if doubling < DOUBLINGS {
        return (doubling as usize, (place - (((1 << doubling) - 1) << bits)) * CLASSES[class]);
    }
    let place = place - (((1 << DOUBLINGS) - 1) << bits);
    let bits = bits + DOUBLINGS;
    (DOUBLINGS as usize + (place >> bits), (place & ((1 << bits) - 1)) * CLASSES[class])
}

/// How many bytes a slab has.
fn slab_bytes(slab: usize, class: usize) -> usize {
    CLASSES[class] << (FIRST_PLACES_BITS[class] + (slab as u32).min(DOUBLINGS))
}

/// Sizes in bytes. The steps are small where most states are: 8 bytes up to 128, then about a quarter.
const CLASSES: [usize; 36] = [
    8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 160, 192, 240, 304, 384, 480, 608, 768, 960,
    1216, 1536, 1920, 2432, 3072, 3840, 4864, 8192, 16384, 32768, 65536,
];

/// For each power of two, the first class that a length of at least so much may be in.
const FROM_POWER: [u8; 17] = {
    let mut from = [0; 17];
    let mut power = 0;
    while power < from.len() {
        let mut class = 0;
        while class < CLASSES.len() && CLASSES[class] < 1 << power {
            class += 1;
        }
        from[power] = class as u8;
        power += 1;
    }
    from
};

#[derive(Default)]
struct Class {
    slabs: Vec<Box<[u8]>>,
    /// Places that have been let go.
    free: Vec<u32>,
    used: u32,
}

pub struct Arena {
    classes: Vec<Class>,
    large: Vec<Box<[u8]>>,
    large_free: Vec<u32>,
    live_bytes: usize,
}

impl Default for Arena {
    fn default() -> Arena {
        let classes = CLASSES.iter().map(|_| Class::default()).collect();
        Arena { classes, large: Vec::new(), large_free: Vec::new(), live_bytes: 0 }
    }
}

impl Arena {
    /// The bytes of the string.
    #[inline]
    pub fn get(&self, slice: Slice) -> &[u8] {
        if slice.place == 0 {
            return &[];
        }
        let class = (slice.class_len >> LEN_BITS) as usize;
        let place = slice.place as usize - 1;
        if class == LARGE {
            return &self.large[place];
        }
        let len = (slice.class_len & ((1 << LEN_BITS) - 1)) as usize;
        let (slab, start) = slab_of(place, class);
        &self.classes[class].slabs[slab][start..start + len]
    }

    /// Replaces the string by `bytes`; the slice is changed when it has to move.
    #[inline]
    pub fn set(&mut self, slice: &mut Slice, bytes: &[u8]) {
        let class = class_of(bytes.len());
        if slice.place != 0 && (slice.class_len >> LEN_BITS) as usize == class && class != LARGE {
            self.live_bytes = self.live_bytes - self.get(*slice).len() + bytes.len();
            self.write(slice.place, class, bytes);
            slice.class_len = (class as u32) << LEN_BITS | bytes.len() as u32;
            return;
        }
        self.remove(slice);
        if bytes.is_empty() {
            return;
        }
        self.live_bytes += bytes.len();
        if class == LARGE {
            let place = match self.large_free.pop() {
                Some(place) => {
                    self.large[place as usize] = bytes.into();
                    place
                }
                None => {
                    self.large.push(bytes.into());
                    self.large.len() as u32 - 1
                }
            };
            *slice = Slice { place: place + 1, class_len: (LARGE as u32) << LEN_BITS };
            return;
        }
        let places = &mut self.classes[class];
        let place = places.free.pop().unwrap_or_else(|| {
            let slab = slab_of(places.used as usize, class).0;
            if slab == places.slabs.len() {
                places.slabs.push(vec![0; slab_bytes(slab, class)].into());
            }
            places.used += 1;
            places.used - 1
        });
        *slice = Slice { place: place + 1, class_len: (class as u32) << LEN_BITS | bytes.len() as u32 };
        self.write(slice.place, class, bytes);
    }

    /// Lets go of the string.
    pub fn remove(&mut self, slice: &mut Slice) {
        if slice.place == 0 {
            return;
        }
        self.live_bytes -= self.get(*slice).len();
        let class = (slice.class_len >> LEN_BITS) as usize;
        if class == LARGE {
            self.large[slice.place as usize - 1] = Box::default();
            self.large_free.push(slice.place - 1);
        } else {
            self.classes[class].free.push(slice.place - 1);
        }
        *slice = Slice::default();
    }

    /// Bytes of all strings, without what classes and free places cost on top.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    #[inline]
    fn write(&mut self, place: u32, class: usize, bytes: &[u8]) {
        let (slab, start) = slab_of(place as usize - 1, class);
        self.classes[class].slabs[slab][start..start + bytes.len()].copy_from_slice(bytes);
    }
}

#[inline]
fn class_of(len: usize) -> usize {
    match len {
        0 => 0,
        1..=128 => (len - 1) / 8,
        _ => {
            let first = FROM_POWER.get(len.ilog2() as usize).map_or(LARGE, |class| usize::from(*class));
            (first..LARGE).find(|class| CLASSES[*class] >= len).unwrap_or(LARGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Two places at one address would be two strings in one.
    #[test]
    fn places_stand_one_after_the_other() {
        for class in 0..CLASSES.len() {
            let mut next = (0, 0);
            for place in 0..(80 << FIRST_PLACES_BITS[class]) {
                assert_eq!(slab_of(place, class), next, "place {place} of class {class}");
                next.1 += CLASSES[class];
                if next.1 == slab_bytes(next.0, class) {
                    next = (next.0 + 1, 0);
                }
            }
        }
    }

    proptest! {
        #[test]
        fn strings_stay_what_they_were_set_to(
            steps in prop::collection::vec((0usize..20, prop_oneof![0usize..200, 60_000usize..70_000]), 1..200)
        ) {
            let mut arena = Arena::default();
            let mut slices = [Slice::default(); 20];
            let mut expected = vec![Vec::new(); 20];
            for (step, (which, len)) in steps.into_iter().enumerate() {
                let bytes = vec![step as u8; len];
                arena.set(&mut slices[which], &bytes);
                expected[which] = bytes;
                for (slice, bytes) in slices.iter().zip(&expected) {
                    prop_assert_eq!(arena.get(*slice), &bytes[..]);
                }
                prop_assert_eq!(arena.live_bytes(), expected.iter().map(Vec::len).sum::<usize>());
            }
        }
    }
}
