//! A hasher for keys that are random already: ids and hashes that this server made. It takes bytes of the key
//! as they are, which costs a tenth of hashing it.
//!
//! Must not be used for keys that others choose: these could be chosen so that they collide. Others may look
//! such keys up, as long as only our own keys are inserted.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds [`RandomKeyHasher`]s.
pub type RandomKeys = BuildHasherDefault<RandomKeyHasher>;

/// Hashes a key by its last eight bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomKeyHasher(u64);

impl Hasher for RandomKeyHasher {
    fn finish(&self) -> u64 {
        // Maps use the highest and the lowest bits, and the letters of an id differ in few bits of each byte.
        let product = self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        product ^ (product >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        match bytes.last_chunk() {
            Some(end) => self.0 ^= u64::from_le_bytes(*end),
            None => bytes.iter().for_each(|byte| self.0 = (self.0 << 8) | u64::from(*byte)),
        }
    }

    /// Ignored: the mark after a text.
    fn write_u8(&mut self, _: u8) {}

    fn write_u64(&mut self, key: u64) {
        self.0 ^= key;
    }

    /// Ignored: the length of an array.
    fn write_usize(&mut self, _: usize) {}
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher as _;

    use super::*;
    use crate::clock::{Clock, ManualClock, Timestamp};
    use crate::oauth::secret::new_id;

    #[test]
    fn ids_of_one_moment_spread_over_all_places_of_a_map() {
        let clock = Clock::Manual(ManualClock::at(Timestamp::from_unix(1_700_000_000)));
        let hashes: Vec<u64> =
            (0..4096).map(|_| RandomKeys::default().hash_one(new_id(&clock))).collect();

        for shift in [0, 57] {
            // Of 128 places, each gets 32 of 4,096 keys on average.
            let places = hashes.iter().map(|hash| (hash >> shift) & 127);
            let used: HashSet<u64> = places.clone().collect();
            let fullest = used.iter().map(|place| places.clone().filter(|at| at == place).count());
            assert_eq!((used.len(), fullest.max().is_some_and(|most| most < 70)), (128, true));
        }
    }

    #[test]
    fn a_text_and_its_owned_form_hash_equally_and_so_does_a_short_one() {
        let of = |key: &str| RandomKeys::default().hash_one(key);

        assert_eq!(
            of("0123456789abcdef"),
            RandomKeys::default().hash_one("0123456789abcdef".to_owned())
        );
        assert_ne!(of("0123456789abcdef"), of("0123456789abcdee"));
        assert_ne!(of("ab"), of("ba"));
    }
}
