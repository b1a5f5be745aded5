//! Packets of records, split and end to end in memory, to be sent by few system calls.

use std::ops::Range;

use crate::packet::record::{HEADER_SIZE, Measure, Record, Shape};
use crate::packet::split::{Segments, complete_packet};

/// Packets to send. Its memory is used again.
pub(crate) struct Packets {
    memory: Vec<u8>,
    /// The position in the memory of each packet.
    places: Vec<Range<usize>>,
    /// Bytes in front of each packet, which hold its length, big-endian: 0 or 2.
    prefix: usize,
}

impl Packets {
    /// Make memory for packets with `prefix` bytes of length in front of each: 0 or 2.
    pub(crate) fn new(prefix: usize) -> Self {
        Self { memory: Vec::new(), places: Vec::new(), prefix }
    }

    /// Forget all packets.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
    }

    /// Return the bytes of all packets and their prefixes.
    pub(crate) fn size(&self) -> usize {
        self.places.last().map_or(0, |place| place.end)
    }

    pub(crate) fn memory(&self) -> &[u8] {
        &self.memory
    }

    pub(crate) fn places(&self) -> &[Range<usize>] {
        &self.places
    }

    /// Return the measure of some of the packets.
    pub(crate) fn measure(places: &[Range<usize>]) -> Measure {
        let size = places.iter().map(|place| place.len() as u64).sum();
        Measure { packets: places.len() as u64, size, valid: true }
    }

    /// Add the packets that a valid record stands for, except those that `is_unwanted`.
    pub(crate) fn add(&mut self, record: &[u8], vnet_header: bool, is_unwanted: impl Fn(&[u8]) -> bool) {
        let (packet, shape) = if vnet_header {
            let Some(parsed) = Record::parse(record) else { return };
            (&record[HEADER_SIZE..], parsed.shape)
        } else {
            (record, Shape::Plain)
        };
        match shape {
            Shape::Malformed => {}
            Shape::Plain => self.push(packet.len(), &is_unwanted, |target| target.copy_from_slice(packet)),
            Shape::Partial(partial) => self.push(packet.len(), &is_unwanted, |target| {
                target.copy_from_slice(packet);
                complete_packet(target, &partial);
            }),
            Shape::Super(layout) => {
                let segments = Segments::new(record, layout);
                for index in 0..segments.count() {
                    self.push(segments.size(index), &is_unwanted, |target| segments.write(index, target));
                }
            }
        }
    }

    fn push(&mut self, size: usize, is_unwanted: &impl Fn(&[u8]) -> bool, write: impl FnOnce(&mut [u8])) {
        let start = self.size();
        let place = start + self.prefix..start + self.prefix + size;
        if self.memory.len() < place.end {
            self.memory.resize(place.end, 0);
        }
        if self.prefix > 0 {
            // A valid packet has at most 65535 bytes.
            self.memory[start..place.start].copy_from_slice(&(size as u16).to_be_bytes());
        }
        let packet = &mut self.memory[place.clone()];
        write(packet);
        // A checksum may have been written over the version.
        if Measure::of_packet(packet).valid && !is_unwanted(packet) {
            self.places.push(place);
        }
    }
}
