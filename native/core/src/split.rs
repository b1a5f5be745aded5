//! Split: a superpacket to packets, complete and of the size the link carries, with right checksums.

use crate::checksum::{copy_and_sum, fold, internet_checksum, sum};
use crate::record::{HEADER_SIZE, Layout, NEEDS_CSUM, Open, Protocol};

const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Offsets in an IPv4 header.
mod ipv4 {
    pub const LENGTH: usize = 2;
    pub const IDENTIFICATION: usize = 4;
    pub const CHECKSUM: usize = 10;
    pub const ADDRESSES: std::ops::Range<usize> = 12..20;
}

/// Offsets in an IPv6 header.
mod ipv6 {
    pub const LENGTH: usize = 4;
    pub const ADDRESSES: std::ops::Range<usize> = 8..40;
    pub const SIZE: usize = 40;
}

/// Offsets in a TCP header.
mod tcp {
    pub const SEQUENCE: usize = 4;
    pub const FLAGS: usize = 13;
    pub const LONGEST: usize = 60;
}

/// Offsets in a UDP header.
mod udp {
    pub const LENGTH: usize = 4;
}

/// Complete the checksum of `record` that was left `open`, and say so in its header.
///
/// # Panics
///
/// Where `open` is not of this record.
pub fn complete(record: &mut [u8], open: &Open) {
    let (header, packet) = record.split_at_mut(HEADER_SIZE);
    complete_packet(packet, open);
    header[0] &= !NEEDS_CSUM;
}

/// Complete the checksum of the `packet` of such a record.
///
/// # Panics
///
/// Where `open` is not of its record.
pub fn complete_packet(packet: &mut [u8], open: &Open) {
    // The field holds the sum of the pseudo-header, which so takes part in the sum.
    let checksum = internet_checksum(&packet[open.start..], 0);
    put(packet, open.field, shown(checksum, open.udp));
}

/// The segments of one superpacket.
///
/// All that segments have in common is summed once; what differs is added for each.
pub struct Segments<'a> {
    packet: &'a [u8],
    layout: Layout,
    /// The sum of addresses, protocol and transport header, without what differs.
    transport_sum: u64,
    /// The same of the IPv4 header.
    header_sum: u64,
    identification: u16,
    sequence: u32,
    flags: u8,
}

impl<'a> Segments<'a> {
    /// Those of `record`, which [`Record::parse`](crate::record::Record::parse) found to be a superpacket.
    ///
    /// # Panics
    ///
    /// Where `layout` is not of this record.
    #[must_use]
    pub fn new(record: &'a [u8], layout: Layout) -> Self {
        let packet = &record[HEADER_SIZE..];
        let Layout { transport, payload, protocol, .. } = layout;
        let mut segments =
            Self { packet, layout, transport_sum: 0, header_sum: 0, identification: 0, sequence: 0, flags: 0 };
        let addresses = if layout.ipv6 {
            ipv6::ADDRESSES
        } else {
            let mut header = [0; 60];
            header[..transport].copy_from_slice(&packet[..transport]);
            segments.identification = take(&header, ipv4::IDENTIFICATION);
            for offset in [ipv4::LENGTH, ipv4::IDENTIFICATION, ipv4::CHECKSUM] {
                put(&mut header, offset, 0);
            }
            segments.header_sum = sum(&header[..transport]);
            ipv4::ADDRESSES
        };
        let mut header = [0; tcp::LONGEST];
        header[..payload - transport].copy_from_slice(&packet[transport..payload]);
        put(&mut header, protocol.checksum_offset(), 0);
        if protocol == Protocol::Tcp {
            segments.sequence =
                u32::from(take(&header, tcp::SEQUENCE)) << 16 | u32::from(take(&header, tcp::SEQUENCE + 2));
            segments.flags = header[tcp::FLAGS];
            put(&mut header, tcp::SEQUENCE, 0);
            put(&mut header, tcp::SEQUENCE + 2, 0);
            header[tcp::FLAGS] = 0;
        } else {
            put(&mut header, udp::LENGTH, 0);
        }
        segments.transport_sum =
            sum(&header[..payload - transport]) + sum(&packet[addresses]) + u64::from(protocol.number());
        segments
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.layout.segments(self.packet.len())
    }

    /// Bytes of the segment at `index`, its headers among them.
    #[must_use]
    pub fn size(&self, index: usize) -> usize {
        self.layout.payload + self.data(index).len()
    }

    /// Write the segment at `index` to `place`, which has its [`size`](Self::size).
    ///
    /// # Panics
    ///
    /// Where `place` has another size, or there is no such segment.
    pub fn write(&self, index: usize, place: &mut [u8]) {
        let Layout { ipv6, protocol, transport, payload, segment } = self.layout;
        let data = self.data(index);
        let (head, body) = place.split_at_mut(payload);
        head.copy_from_slice(&self.packet[..payload]);
        let size = (payload + data.len()) as u16; // No more than the superpacket's, which is checked.
        let length = size - transport as u16;
        let mut total = self.transport_sum + copy_and_sum(body, data) + u64::from(length);
        if ipv6 {
            put(head, ipv6::LENGTH, size - ipv6::SIZE as u16);
        } else {
            let identification = self.identification.wrapping_add(index as u16);
            let header_sum = self.header_sum + u64::from(size) + u64::from(identification);
            put(head, ipv4::LENGTH, size);
            put(head, ipv4::IDENTIFICATION, identification);
            put(head, ipv4::CHECKSUM, !fold(header_sum));
        }
        let header = &mut head[transport..];
        if protocol == Protocol::Tcp {
            let sequence = self.sequence.wrapping_add((index * segment) as u32);
            let mut flags = self.flags;
            // What ends the stream, or hurries it, is for the last segment only.
            if index + 1 < self.count() {
                flags &= !FIN_PSH;
            }
            if index > 0 {
                flags &= !CWR;
            }
            put(header, tcp::SEQUENCE, (sequence >> 16) as u16);
            put(header, tcp::SEQUENCE + 2, sequence as u16);
            header[tcp::FLAGS] = flags;
            total += u64::from(sequence >> 16) + u64::from(sequence & 0xFFFF) + u64::from(flags);
        } else {
            put(header, udp::LENGTH, length);
            total += u64::from(length);
        }
        put(header, protocol.checksum_offset(), shown(!fold(total), protocol == Protocol::Udp));
    }

    fn data(&self, index: usize) -> &'a [u8] {
        let start = self.layout.payload + index * self.layout.segment;
        &self.packet[start..self.packet.len().min(start + self.layout.segment)]
    }
}

/// A checksum as it goes into a packet: in UDP zero says that there is none, so that 0xFFFF stands for it (RFC 768).
fn shown(checksum: u16, udp: bool) -> u16 {
    if udp && checksum == 0 { 0xFFFF } else { checksum }
}

fn take(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

fn put(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}
