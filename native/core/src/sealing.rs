//! Sealing: bundles become transport messages of `WireGuard`, and back.
//!
//! A message is 16 bytes of header (type 4, the receiver's index, a counter; little-endian), and the packet sealed by
//! ChaCha20-Poly1305, whose nonce is the counter (`WireGuard`'s paper, section 5.4.6). Segments of superpackets are
//! written where they are sealed, so that each byte is copied once.

use std::net::IpAddr;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::record::{HEADER_SIZE, Record, Shape};
use crate::split::{Segments, complete_packet};

/// Bytes of a key.
pub const KEY_SIZE: usize = 32;
/// Bytes that a message has beside its packet.
pub const OVERHEAD: usize = PREFIX + TAG;
/// Bytes of a [`Window`].
pub const WINDOW_SIZE: usize = 8 + BITMAP;

/// Datagrams and bytes of a run at most: what kernels take at once (`UDP_SEGMENT`), with room for IP and UDP.
const MAX_SEGMENTS: usize = 64;
const MAX_RUN: usize = 65_000;
/// No message has this counter.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
const WINDOW: u64 = 8192;
const BITMAP: usize = 1024;
const PREFIX: usize = 16;
const TAG: usize = 16;
pub(crate) const TYPE: [u8; 4] = [4, 0, 0, 0];
/// Packets are padded to a multiple of so many bytes.
const UNIT: usize = 16;

/// A key of one direction.
pub struct Key(LessSafeKey);

impl Key {
    /// From its 32 bytes; None where there are more or fewer.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(|key| Self(LessSafeKey::new(key)))
    }
}

/// Messages one behind the other, all of `size` bytes but the last, which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bytes of all of them.
    pub bytes: usize,
    /// Bytes of each.
    pub size: usize,
    count: usize,
}

/// What is to be sealed: records taken apart, and the runs of their messages.
pub struct Plan<'a> {
    records: Vec<(&'a [u8], Shape)>,
    headed: bool,
    mtu: usize,
    runs: Vec<Run>,
}

impl<'a> Plan<'a> {
    /// For the packets that `records` stand for; if they are `headed`, with a virtio header each. None where one has
    /// not even that.
    ///
    /// Packets are padded with zeros to a multiple of 16 bytes, but not beyond `mtu` (0: no limit).
    #[must_use]
    pub fn new(records: Vec<&'a [u8]>, headed: bool, mtu: usize) -> Option<Self> {
        let mut plan = Self { records: Vec::with_capacity(records.len()), headed, mtu, runs: Vec::new() };
        for record in records {
            let shape = if headed { Record::parse(record)?.shape } else { Shape::Plain };
            match shape {
                Shape::Contradiction => {}
                Shape::Plain | Shape::Open(_) => plan.add(record.len() - plan.skipped()),
                Shape::Super(layout) => {
                    for index in 0..layout.segments(record.len() - HEADER_SIZE) {
                        plan.add(layout.segment_size(record.len() - HEADER_SIZE, index));
                    }
                }
            }
            plan.records.push((record, shape));
        }
        Some(plan)
    }

    /// The runs, in order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Bytes of all runs together.
    #[must_use]
    pub fn size(&self) -> usize {
        self.runs.iter().map(|run| run.bytes).sum()
    }

    /// How many messages they are.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.runs.iter().map(|run| run.count as u64).sum()
    }

    fn skipped(&self) -> usize {
        if self.headed { HEADER_SIZE } else { 0 }
    }

    fn add(&mut self, length: usize) {
        let size = padded(length, self.mtu) + OVERHEAD;
        match self.runs.last_mut() {
            Some(run)
                if size <= run.size
                    && run.bytes == run.size * run.count
                    && run.count < (MAX_RUN / run.size).clamp(1, MAX_SEGMENTS) =>
            {
                run.bytes += size;
                run.count += 1;
            }
            _ => self.runs.push(Run { bytes: size, size, count: 1 }),
        }
    }

    /// Write the messages to `memory`, which has the [`size`](Self::size), with counters from `counter` on.
    ///
    /// # Panics
    ///
    /// Where `memory` is too small.
    pub fn seal(&self, key: &Key, index: u32, counter: u64, memory: &mut [u8]) {
        let mut sealer = Sealer { key, index, counter, memory, mtu: self.mtu };
        for (record, shape) in &self.records {
            let packet = &record[self.skipped()..];
            match shape {
                Shape::Contradiction => {}
                Shape::Plain => sealer.seal(packet.len(), |place| place.copy_from_slice(packet)),
                Shape::Open(open) => sealer.seal(packet.len(), |place| {
                    place.copy_from_slice(packet);
                    complete_packet(place, open);
                }),
                Shape::Super(layout) => {
                    let segments = Segments::new(record, *layout);
                    for index in 0..segments.count() {
                        sealer.seal(segments.size(index), |place| segments.write(index, place));
                    }
                }
            }
        }
    }
}

struct Sealer<'a> {
    key: &'a Key,
    index: u32,
    counter: u64,
    memory: &'a mut [u8],
    mtu: usize,
}

impl Sealer<'_> {
    /// Seal one packet of `length` bytes, which `write` puts where it is told.
    fn seal(&mut self, length: usize, write: impl FnOnce(&mut [u8])) {
        let length_padded = padded(length, self.mtu);
        let memory = std::mem::take(&mut self.memory);
        let (place, rest) = memory.split_at_mut(length_padded + OVERHEAD);
        self.memory = rest;
        place[..4].copy_from_slice(&TYPE);
        place[4..8].copy_from_slice(&self.index.to_le_bytes());
        place[8..PREFIX].copy_from_slice(&self.counter.to_le_bytes());
        let (body, tag) = place[PREFIX..].split_at_mut(length_padded);
        write(&mut body[..length]);
        body[length..].fill(0);
        let sealed = self.key.0.seal_in_place_separate_tag(nonce(self.counter), Aad::empty(), body);
        // It fails for more than 256 GiB only.
        tag.copy_from_slice(sealed.as_ref().map_or(&[0; TAG], AsRef::as_ref));
        self.counter = self.counter.wrapping_add(1);
    }
}

/// What was opened.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Where in the memory the packets are: start and end.
    pub packets: Vec<(usize, usize)>,
    /// Source addresses, of 4 or 16 bytes, and how many packets in a row have each.
    pub sources: Vec<(IpAddr, usize)>,
    /// Bytes of the memory that were looked at.
    pub used: usize,
    /// Messages that were authentic and new.
    pub authentic: usize,
    /// Their bytes.
    pub bytes: usize,
}

/// Open the messages in `memory` in place, each of `size` bytes but the last, up to the first that is not for `index`.
///
/// `window` is what was taken before, and takes what is new: see [`WINDOW_SIZE`] and the reference.
///
/// # Panics
///
/// Where `window` has another size.
pub fn unseal(key: &Key, index: u32, window: &mut [u8], memory: &mut [u8], size: usize) -> Opened {
    let mut opened = Opened::default();
    let mut window = Window(window.first_chunk_mut().unwrap_or_else(|| unreachable!("it was checked")));
    while memory.len() - opened.used >= OVERHEAD {
        let start = opened.used;
        let stop = start.saturating_add(size.max(1)).min(memory.len());
        let prefix: [u8; PREFIX] = *memory[start..].first_chunk().unwrap_or_else(|| unreachable!("it is long enough"));
        let (head, counter) = prefix.split_at(8);
        if head[..4] != TYPE || head[4..] != index.to_le_bytes() {
            break;
        }
        let counter = u64::from_le_bytes(*counter.first_chunk().unwrap_or_else(|| unreachable!("it has 8 bytes")));
        opened.used = stop;
        if stop - start < OVERHEAD || !window.is_new(counter) {
            continue;
        }
        let Ok(plain) = key.0.open_in_place(nonce(counter), Aad::empty(), &mut memory[start + PREFIX..stop]) else {
            continue;
        };
        window.take(counter);
        opened.authentic += 1;
        opened.bytes += stop - start;
        if let Some((length, source)) = packet(plain) {
            opened.packets.push((start + PREFIX, start + PREFIX + length));
            match opened.sources.last_mut() {
                Some((last, count)) if *last == source => *count += 1,
                _ => opened.sources.push((source, 1)),
            }
        }
    }
    opened
}

/// Bytes of the IP packet that `plain` starts with, and its source.
fn packet(plain: &[u8]) -> Option<(usize, IpAddr)> {
    let take = |offset: usize| usize::from(u16::from_be_bytes([plain[offset], plain[offset + 1]]));
    let (length, source) = match plain.first()? >> 4 {
        4 if plain.len() >= 20 => {
            (Some(take(2)).filter(|length| *length >= 20)?, IpAddr::from(*plain[12..].first_chunk::<4>()?))
        }
        6 if plain.len() >= 40 => (take(4) + 40, IpAddr::from(*plain[8..].first_chunk::<16>()?)),
        _ => return None,
    };
    (length <= plain.len()).then_some((length, source))
}

/// One more than the highest counter (64 bits, little-endian), and a bit for each of the last 8192.
struct Window<'a>(&'a mut [u8; WINDOW_SIZE]);

impl Window<'_> {
    fn upcoming(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    fn is_new(&self, counter: u64) -> bool {
        let upcoming = self.upcoming();
        if counter >= upcoming {
            return counter < REJECT_AFTER_MESSAGES;
        }
        counter + WINDOW >= upcoming && self.0[place(counter)] >> (counter & 7) & 1 == 0
    }

    fn take(&mut self, counter: u64) {
        let upcoming = self.upcoming();
        if counter >= upcoming {
            if counter - upcoming >= WINDOW {
                self.0[8..].fill(0);
            } else {
                for passed in upcoming..counter {
                    self.0[place(passed)] &= !(1 << (passed & 7));
                }
            }
            self.0[..8].copy_from_slice(&(counter + 1).to_le_bytes());
        }
        self.0[place(counter)] |= 1 << (counter & 7);
    }
}

/// Where in the window the bit of `counter` is.
fn place(counter: u64) -> usize {
    8 + (counter >> 3) as usize % BITMAP
}

fn padded(length: usize, mtu: usize) -> usize {
    let last = if mtu > 0 && length > mtu { length % mtu } else { length };
    let mut padding = last.next_multiple_of(UNIT) - last;
    if mtu > 0 && last + padding > mtu {
        padding = mtu - last;
    }
    length + padding
}

fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ipv4(length: usize) -> Vec<u8> {
        let mut packet = vec![7; length];
        packet[0] = 0x45;
        packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        packet
    }

    fn sealed(packets: &[Vec<u8>], counter: u64) -> (Vec<u8>, Vec<Run>) {
        let key = Key::new(&[1; 32]).unwrap();
        let plan = Plan::new(packets.iter().map(Vec::as_slice).collect(), false, 1420).unwrap();
        let mut memory = vec![0xFF; plan.size()];
        plan.seal(&key, 9, counter, &mut memory);
        (memory, plan.runs().to_vec())
    }

    #[test]
    fn what_is_sealed_is_opened_once() {
        let packets: Vec<_> = (0..100).map(|_| ipv4(1420)).chain([ipv4(20)]).collect();
        let (mut memory, runs) = sealed(&packets, 5);
        assert_eq!(runs.iter().map(|run| run.count).collect::<Vec<_>>(), [44, 44, 13]);
        let key = Key::new(&[1; 32]).unwrap();
        let mut window = [0; WINDOW_SIZE];
        let mut start = 0;
        let mut count = 0;
        let copy = memory.clone();
        for run in &runs {
            let part = &mut memory[start..start + run.bytes];
            let opened = unseal(&key, 9, &mut window, part, run.size);
            assert_eq!((opened.used, opened.bytes, opened.authentic), (run.bytes, run.bytes, run.count));
            for (from, to) in &opened.packets {
                assert_eq!(part[*from..*to], packets[count]);
                count += 1;
            }
            start += run.bytes;
        }
        assert_eq!(count, 101);
        memory = copy;
        let again = unseal(&key, 9, &mut window, &mut memory[..runs[0].bytes], runs[0].size);
        assert_eq!((again.authentic, again.used), (0, runs[0].bytes));
    }

    #[test]
    fn a_flipped_bit_anywhere_is_found() {
        let key = Key::new(&[1; 32]).unwrap();
        let (memory, _) = sealed(&[ipv4(21)], 0);
        for index in 0..memory.len() {
            let mut changed = memory.clone();
            changed[index] ^= 1;
            let size = changed.len();
            assert_eq!(unseal(&key, 9, &mut [0; WINDOW_SIZE], &mut changed, size).authentic, 0);
        }
    }

    #[test]
    fn the_window_is_8192_wide() {
        let mut bytes = [0; WINDOW_SIZE];
        let mut window = Window(&mut bytes);
        window.take(10_000);
        assert!(window.is_new(10_001 - 8192) && !window.is_new(10_000 - 8192) && !window.is_new(10_000));
        window.take(5_000);
        assert!(!window.is_new(5_000) && window.is_new(5_001));
        window.take(10_000 + 8_191);
        assert!(window.is_new(10_001) && !window.is_new(10_000));
        assert!(!window.is_new(REJECT_AFTER_MESSAGES));
        window.take(1 << 50);
        assert!(window.is_new((1 << 50) - 1));
    }

    #[test]
    fn padding_stops_at_the_mtu() {
        assert_eq!([0, 1, 16, 1420, 1419].map(|length| padded(length, 1420)), [0, 16, 16, 1420, 1420]);
        assert_eq!(padded(1420, 0), 1424);
        assert_eq!(padded(1421, 1420), 1436);
    }
}
