//! The Internet checksum (RFC 1071): sums of 16-bit words in ones' complement arithmetic.
//!
//! Sums are added in 64 bits and folded at the end. Only zeros sum to zero; any other sum folds to a number from 1 to
//! 0xFFFF. So neither the order nor the grouping of additions changes a result. The twin of `internet_checksum` in
//! `threepipe.core.packet`.

/// Bytes summed before folding: too few to overflow 64 bits, and an even number, so that words stay aligned.
const STRETCH: usize = 1 << 24;

/// Return the checksum of `data`, padded with a zero byte to an even length; `initial` is a sum to start from.
#[must_use]
pub fn internet_checksum(data: &[u8], initial: u64) -> u16 {
    !fold(u64::from(fold(initial)) + sum(data))
}

/// Return the folded sum of the big-endian 16-bit words of `data`.
#[must_use]
pub fn sum(data: &[u8]) -> u64 {
    let mut total = 0;
    for stretch in data.chunks(STRETCH) {
        let (blocks, rest) = stretch.as_chunks();
        let mut lanes = Lanes::default();
        for block in blocks {
            lanes.add(block);
        }
        total += lanes.sum(rest);
    }
    total
}

/// Copy `source` to `target` and return its [`sum`], in one pass over memory.
///
/// # Panics
///
/// If the lengths differ or exceed 16 MiB.
pub fn copy_and_sum(target: &mut [u8], source: &[u8]) -> u64 {
    assert!(target.len() == source.len() && source.len() <= STRETCH);
    let (blocks, rest) = source.as_chunks();
    let (copies, rest_copy) = target.as_chunks_mut();
    let mut lanes = Lanes::default();
    for (copy, block) in copies.iter_mut().zip(blocks) {
        *copy = *block;
        lanes.add(block);
    }
    rest_copy.copy_from_slice(rest);
    lanes.sum(rest)
}

/// Partial sums, which the compiler keeps in vector registers.
///
/// Words are summed in this machine's byte order: swapping the bytes of the sum gives the sum in the other order
/// (RFC 1071, section 2). Words of 32 bits give the same sum, as 0x10000 counts as 1.
#[derive(Default)]
struct Lanes([u64; 4]);

impl Lanes {
    #[inline]
    fn add(&mut self, block: &[u8; 32]) {
        for (lane, word) in self.0.iter_mut().zip(block.as_chunks::<8>().0) {
            let word = u64::from_ne_bytes(*word);
            *lane += (word & 0xFFFF_FFFF) + (word >> 32);
        }
    }

    /// Return the sum of all lanes and of `rest`, the bytes after the last block.
    #[inline]
    fn sum(self, rest: &[u8]) -> u64 {
        let mut native: u64 = self.0.iter().sum();
        let (words, rest) = rest.as_chunks::<4>();
        for word in words {
            native += u64::from(u32::from_ne_bytes(*word));
        }
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        native += u64::from(u32::from_ne_bytes(last));
        u64::from(fold(native).to_be())
    }
}

/// Fold `total` to 16 bits, adding the carries at the low end.
#[must_use]
pub fn fold(mut total: u64) -> u16 {
    total = (total >> 32) + (total & 0xFFFF_FFFF);
    total = (total >> 16) + (total & 0xFFFF);
    total = (total >> 16) + (total & 0xFFFF);
    total = (total >> 16) + (total & 0xFFFF);
    total as u16
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Compute the checksum word by word, as RFC 1071 states it.
    fn naive(data: &[u8], initial: u64) -> u16 {
        let mut total = u128::from(initial);
        for word in data.chunks(2) {
            total += u128::from(word[0]) << 8 | word.get(1).map_or(0, |low| u128::from(*low));
        }
        while total > 0xFFFF {
            total = (total & 0xFFFF) + (total >> 16);
        }
        !(total as u16)
    }

    #[test]
    fn checksum_of_the_rfc_1071_example_is_right() {
        let data = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(sum(&data), 0xDDF2);
        assert_eq!(internet_checksum(&data, 0), 0x220D);
    }

    #[test]
    fn checksum_distinguishes_all_zeros_from_a_sum_of_zero() {
        assert_eq!(internet_checksum(&[], 0), 0xFFFF);
        assert_eq!(internet_checksum(&[0; 100], 0), 0xFFFF);
        assert_eq!(internet_checksum(&[0xFF; 100], 0), 0);
        assert_eq!(internet_checksum(&[], 0xFFFF), 0);
        assert_eq!(internet_checksum(&[0; 3], u64::MAX), 0);
    }

    #[test]
    fn checksum_of_every_length_and_alignment_matches_the_naive_one() {
        let data: Vec<u8> = (0..400_u32).map(|index| (index * 77 + 11) as u8).collect();
        for start in 0..33 {
            for end in start..data.len() {
                assert_eq!(internet_checksum(&data[start..end], 7), naive(&data[start..end], 7));
            }
        }
    }

    #[test]
    fn checksum_of_more_than_a_stretch_matches_the_naive_one() {
        let data = vec![0xFE; 2 * STRETCH + 3];
        assert_eq!(internet_checksum(&data, 0), naive(&data, 0));
    }

    proptest! {
        #[test]
        fn checksum_and_copy_of_any_bytes_match_the_naive_ones(data in prop::collection::vec(any::<u8>(), 0..2000), initial: u64) {
            prop_assert_eq!(internet_checksum(&data, initial), naive(&data, initial));
            let mut copy = vec![0; data.len()];
            prop_assert_eq!(copy_and_sum(&mut copy, &data), sum(&data));
            prop_assert_eq!(copy, data);
        }
    }
}
