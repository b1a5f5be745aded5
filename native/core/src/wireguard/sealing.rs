//! Sealing: packets become transport messages of `WireGuard`, and back.
//!
//! A message is 16 bytes of header (type 4, the receiver's index, a counter; little-endian), and the packet sealed with
//! ChaCha20-Poly1305, whose nonce is the counter (`WireGuard`'s paper, section 5.4.6). Segments of superpackets are
//! written where they are sealed, so each byte is copied once. The twin of `threepipe.core.transport`.

use std::net::IpAddr;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use crate::packet::ecn::ecn_of;
use crate::packet::record::{HEADER_SIZE, Record, Shape};
use crate::packet::split::{Segments, complete_packet};

/// Bytes of a key.
pub const KEY_SIZE: usize = 32;
/// Bytes of a message besides its packet.
pub const OVERHEAD: usize = PREFIX + TAG;
/// Bytes of a replay window: one more than the highest counter (64 bits, little-endian), and a bit for each counter.
pub const WINDOW_SIZE: usize = 8 + BITMAP;

/// The most messages in a run, as kernels accept (`UDP_SEGMENT`).
const MAX_SEGMENTS: usize = 64;
/// The most bytes in a run, with space left for the headers of IP and UDP.
const MAX_RUN: usize = 65_000;
/// The limit of counters; no message has this one.
pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
/// Counters below the highest one that are still accepted, once each.
const WINDOW: u64 = 8192;
/// Bytes of the bits of a window.
const BITMAP: usize = 1024;
const PREFIX: usize = 16;
const TAG: usize = 16;
/// The first bytes of a message.
pub(crate) const TYPE: [u8; 4] = [4, 0, 0, 0];
/// Packets are padded to a multiple of so many bytes.
const UNIT: usize = 16;

/// A key of one direction.
pub struct Key(LessSafeKey, [u8; KEY_SIZE]);

impl Key {
    /// Make a key of 32 bytes. Return None for another size.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; KEY_SIZE] = bytes.try_into().ok()?;
        UnboundKey::new(&CHACHA20_POLY1305, bytes).ok().map(|key| Self(LessSafeKey::new(key), *bytes))
    }

    /// Return the bytes of the key.
    #[must_use]
    pub fn bytes(&self) -> &[u8; KEY_SIZE] {
        &self.1
    }
}

/// Consecutive messages of `size` bytes each but the last, which may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Bytes of the run.
    pub bytes: usize,
    /// Bytes of each message but the last.
    pub size: usize,
    /// The ECN field of all packets in the run.
    pub ecn: u8,
    count: usize,
}

/// Messages to be sealed: the parsed records, and the runs that they will become.
pub struct Messages<'a> {
    records: Vec<(&'a [u8], Shape)>,
    vnet_header: bool,
    mtu: usize,
    runs: Vec<Run>,
}

impl<'a> Messages<'a> {
    /// Plan the messages for the packets that `records` stand for. With `vnet_header`, each has a virtio header; return
    /// None if one is too short for it.
    ///
    /// Packets are padded with zeros to a multiple of 16 bytes, but not beyond `mtu` (0: no limit).
    #[must_use]
    pub fn new(records: Vec<&'a [u8]>, vnet_header: bool, mtu: usize) -> Option<Self> {
        let mut messages = Self { records: Vec::with_capacity(records.len()), vnet_header, mtu, runs: Vec::new() };
        for record in records {
            let shape = if vnet_header { Record::parse(record)?.shape } else { Shape::Plain };
            let packet = &record[messages.skipped()..];
            match shape {
                Shape::Malformed => {}
                Shape::Plain | Shape::Partial(_) => messages.add(packet.len(), ecn_of(packet)),
                Shape::Super(layout) => {
                    for index in 0..layout.segments(packet.len()) {
                        messages.add(layout.segment_size(packet.len(), index), ecn_of(packet));
                    }
                }
            }
            messages.records.push((record, shape));
        }
        Some(messages)
    }

    /// Return the runs, in order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Return the bytes of all runs.
    #[must_use]
    pub fn size(&self) -> usize {
        self.runs.iter().map(|run| run.bytes).sum()
    }

    /// Return the number of messages.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.runs.iter().map(|run| run.count as u64).sum()
    }

    /// Return the bytes before the packet in each record.
    fn skipped(&self) -> usize {
        if self.vnet_header { HEADER_SIZE } else { 0 }
    }

    /// Add the message of a packet to the last run, or to a new one.
    fn add(&mut self, length: usize, ecn: u8) {
        let size = padded(length, self.mtu) + OVERHEAD;
        match self.runs.last_mut() {
            Some(run)
                if size <= run.size
                    && ecn == run.ecn
                    && run.bytes == run.size * run.count
                    && run.count < (MAX_RUN / run.size).clamp(1, MAX_SEGMENTS) =>
            {
                run.bytes += size;
                run.count += 1;
            }
            _ => self.runs.push(Run { bytes: size, size, ecn, count: 1 }),
        }
    }

    /// Write the messages, with counters from `counter` on, to `memory`, which has their [`size`](Self::size).
    ///
    /// # Panics
    ///
    /// If `memory` is too small.
    pub fn seal(&self, key: &Key, index: u32, counter: u64, memory: &mut [u8]) {
        let mut sealer = Sealer { key, index, counter, memory, mtu: self.mtu };
        for (record, shape) in &self.records {
            let packet = &record[self.skipped()..];
            match shape {
                Shape::Malformed => {}
                Shape::Plain => sealer.seal(packet.len(), |target| target.copy_from_slice(packet)),
                Shape::Partial(partial) => sealer.seal(packet.len(), |target| {
                    target.copy_from_slice(packet);
                    complete_packet(target, partial);
                }),
                Shape::Super(layout) => {
                    let segments = Segments::new(record, *layout);
                    for index in 0..segments.count() {
                        sealer.seal(segments.size(index), |target| segments.write(index, target));
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
    /// Seal one packet of `length` bytes, which `write` writes to the memory it is given.
    fn seal(&mut self, length: usize, write: impl FnOnce(&mut [u8])) {
        let length_padded = padded(length, self.mtu);
        let memory = std::mem::take(&mut self.memory);
        let (message, rest) = memory.split_at_mut(length_padded + OVERHEAD);
        self.memory = rest;
        message[..4].copy_from_slice(&TYPE);
        message[4..8].copy_from_slice(&self.index.to_le_bytes());
        message[8..PREFIX].copy_from_slice(&self.counter.to_le_bytes());
        let (body, tag) = message[PREFIX..].split_at_mut(length_padded);
        write(&mut body[..length]);
        body[length..].fill(0);
        let sealed = self.key.0.seal_in_place_separate_tag(nonce(self.counter), Aad::empty(), body);
        // Sealing fails only for more than 256 GiB.
        tag.copy_from_slice(sealed.as_ref().map_or(&[0; TAG], AsRef::as_ref));
        self.counter = self.counter.wrapping_add(1);
    }
}

/// The outcome of opening messages.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The start and the end in the memory of each packet.
    pub packets: Vec<(usize, usize)>,
    /// The source addresses, each with the number of consecutive packets from it.
    pub sources: Vec<(IpAddr, usize)>,
    /// Bytes of the memory that were read.
    pub used: usize,
    /// The number of messages that were authentic and new.
    pub authentic: usize,
    /// Bytes of those messages.
    pub bytes: usize,
}

/// Open the messages in `memory` in place, each of `size` bytes but the last. Stop at the first that is not for `index`.
///
/// `window` holds the counters received so far, and is updated.
pub fn open(key: &Key, index: u32, window: &mut [u8; WINDOW_SIZE], memory: &mut [u8], size: usize) -> Opened {
    let mut opened = Opened::default();
    let mut window = Window(window);
    while let Some(shortest) = memory[opened.used..].first_chunk::<OVERHEAD>() {
        let start = opened.used;
        let stop = start.saturating_add(size.max(1)).min(memory.len());
        let header = u128::from_le_bytes(shortest.as_chunks::<PREFIX>().0[0]);
        let (kind, receiver, counter) = (header as u32, (header >> 32) as u32, (header >> 64) as u64);
        if kind != u32::from_le_bytes(TYPE) || receiver != index {
            break;
        }
        opened.used = stop;
        if stop - start < OVERHEAD || !window.is_new(counter) {
            continue;
        }
        let Ok(plain) = key.0.open_in_place(nonce(counter), Aad::empty(), &mut memory[start + PREFIX..stop]) else {
            continue;
        };
        window.mark(counter);
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

/// Return the bytes and the source of the IP packet at the start of `plain`. None if there is none, or only a part.
fn packet(plain: &[u8]) -> Option<(usize, IpAddr)> {
    let field = |offset: usize| usize::from(u16::from_be_bytes([plain[offset], plain[offset + 1]]));
    let (length, source) = match plain.first()? >> 4 {
        4 if plain.len() >= 20 => {
            (Some(field(2)).filter(|length| *length >= 20)?, IpAddr::from(*plain[12..].first_chunk::<4>()?))
        }
        6 if plain.len() >= 40 => (field(4) + 40, IpAddr::from(*plain[8..].first_chunk::<16>()?)),
        _ => return None,
    };
    (length <= plain.len()).then_some((length, source))
}

/// The replay window of a keypair; see [`WINDOW_SIZE`].
struct Window<'a>(&'a mut [u8; WINDOW_SIZE]);

impl Window<'_> {
    /// Return one more than the highest counter.
    fn upcoming(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// Return True if `counter` may be accepted.
    fn is_new(&self, counter: u64) -> bool {
        let upcoming = self.upcoming();
        if counter >= upcoming {
            return counter < REJECT_AFTER_MESSAGES;
        }
        counter + WINDOW >= upcoming && self.0[position(counter)] >> (counter & 7) & 1 == 0
    }

    /// Mark `counter` as received.
    fn mark(&mut self, counter: u64) {
        let upcoming = self.upcoming();
        if counter >= upcoming {
            if counter - upcoming >= WINDOW {
                self.0[8..].fill(0);
            } else {
                for passed in upcoming..counter {
                    self.0[position(passed)] &= !(1 << (passed & 7));
                }
            }
            self.0[..8].copy_from_slice(&(counter + 1).to_le_bytes());
        }
        self.0[position(counter)] |= 1 << (counter & 7);
    }
}

/// Return the index of the byte in the window with the bit of `counter`.
fn position(counter: u64) -> usize {
    8 + (counter >> 3) as usize % BITMAP
}

/// Return the length of a packet after padding.
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
        let messages = Messages::new(packets.iter().map(Vec::as_slice).collect(), false, 1420).unwrap();
        let mut memory = vec![0xFF; messages.size()];
        messages.seal(&key, 9, counter, &mut memory);
        (memory, messages.runs().to_vec())
    }

    #[test]
    fn open_of_sealed_messages_returns_the_packets_once() {
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
            let opened = open(&key, 9, &mut window, part, run.size);
            assert_eq!((opened.used, opened.bytes, opened.authentic), (run.bytes, run.bytes, run.count));
            for (from, to) in &opened.packets {
                assert_eq!(part[*from..*to], packets[count]);
                count += 1;
            }
            start += run.bytes;
        }
        assert_eq!(count, 101);
        memory = copy;
        let again = open(&key, 9, &mut window, &mut memory[..runs[0].bytes], runs[0].size);
        assert_eq!((again.authentic, again.used), (0, runs[0].bytes));
    }

    #[test]
    fn a_run_has_packets_of_one_ecn_field_only() {
        let packets = [0, 0, 1, 3].map(|ecn| {
            let mut packet = ipv4(100);
            packet[1] = 0xB8 | ecn;
            packet
        });
        let (_, runs) = sealed(&packets, 0);
        assert_eq!(runs.iter().map(|run| (run.count, run.ecn)).collect::<Vec<_>>(), [(2, 0), (1, 1), (1, 3)]);
    }

    #[test]
    fn open_of_a_message_with_a_flipped_bit_finds_nothing_authentic() {
        let key = Key::new(&[1; 32]).unwrap();
        let (memory, _) = sealed(&[ipv4(21)], 0);
        for index in 0..memory.len() {
            let mut changed = memory.clone();
            changed[index] ^= 1;
            let size = changed.len();
            assert_eq!(open(&key, 9, &mut [0; WINDOW_SIZE], &mut changed, size).authentic, 0);
        }
    }

    #[test]
    fn window_accepts_each_of_the_last_8192_counters_once() {
        let mut bytes = [0; WINDOW_SIZE];
        let mut window = Window(&mut bytes);
        window.mark(10_000);
        assert!(window.is_new(10_001 - 8192) && !window.is_new(10_000 - 8192) && !window.is_new(10_000));
        window.mark(5_000);
        assert!(!window.is_new(5_000) && window.is_new(5_001));
        window.mark(10_000 + 8_191);
        assert!(window.is_new(10_001) && !window.is_new(10_000));
        assert!(!window.is_new(REJECT_AFTER_MESSAGES));
        window.mark(1 << 50);
        assert!(window.is_new((1 << 50) - 1));
    }

    #[test]
    fn padding_never_exceeds_the_mtu() {
        assert_eq!([0, 1, 16, 1420, 1419].map(|length| padded(length, 1420)), [0, 16, 16, 1420, 1420]);
        assert_eq!(padded(1420, 0), 1424);
        assert_eq!(padded(1421, 1420), 1436);
    }
}
