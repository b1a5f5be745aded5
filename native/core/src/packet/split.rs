//! Split: a superpacket becomes complete packets of the size that the link carries, with valid checksums.
//!
//! The twin of `split` in `threepipe.core.superpacket`.

use crate::packet::checksum::{copy_and_sum, fold, internet_checksum, sum};
use crate::packet::fields::{set_u16, u16_at};
use crate::packet::record::{HEADER_SIZE, Layout, NEEDS_CSUM, Partial, Protocol};

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

/// Complete the `partial` checksum of `record`, and mark it complete in the header.
///
/// # Panics
///
/// If `partial` is of another record.
pub fn complete(record: &mut [u8], partial: &Partial) {
    let (header, packet) = record.split_at_mut(HEADER_SIZE);
    complete_packet(packet, partial);
    header[0] &= !NEEDS_CSUM;
}

/// Complete the `partial` checksum of `packet`, a record without its header.
///
/// # Panics
///
/// If `partial` is of another record.
pub fn complete_packet(packet: &mut [u8], partial: &Partial) {
    // The field holds the sum of the pseudo-header and so adds it.
    let checksum = internet_checksum(&packet[partial.start..], 0);
    set_u16(packet, partial.field, on_wire(checksum, partial.udp));
}

/// The segments of one superpacket.
///
/// Fields that all segments share are summed once; the others are added for each segment.
pub struct Segments<'a> {
    packet: &'a [u8],
    layout: Layout,
    /// The sum of addresses, protocol and transport header, without the fields that differ.
    transport_sum: u64,
    /// The sum of the IPv4 header, without the fields that differ.
    header_sum: u64,
    identification: u16,
    sequence: u32,
    flags: u8,
}

impl<'a> Segments<'a> {
    /// Prepare the segments of `record`, whose `layout` is from [`Record::parse`](crate::packet::record::Record::parse).
    ///
    /// # Panics
    ///
    /// If `layout` is of another record.
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
            segments.identification = u16_at(&header, ipv4::IDENTIFICATION);
            for offset in [ipv4::LENGTH, ipv4::IDENTIFICATION, ipv4::CHECKSUM] {
                set_u16(&mut header, offset, 0);
            }
            segments.header_sum = sum(&header[..transport]);
            ipv4::ADDRESSES
        };
        let mut header = [0; tcp::LONGEST];
        header[..payload - transport].copy_from_slice(&packet[transport..payload]);
        set_u16(&mut header, protocol.checksum_offset(), 0);
        if protocol == Protocol::Tcp {
            segments.sequence =
                u32::from(u16_at(&header, tcp::SEQUENCE)) << 16 | u32::from(u16_at(&header, tcp::SEQUENCE + 2));
            segments.flags = header[tcp::FLAGS];
            set_u16(&mut header, tcp::SEQUENCE, 0);
            set_u16(&mut header, tcp::SEQUENCE + 2, 0);
            header[tcp::FLAGS] = 0;
        } else {
            set_u16(&mut header, udp::LENGTH, 0);
        }
        segments.transport_sum =
            sum(&header[..payload - transport]) + sum(&packet[addresses]) + u64::from(protocol.number());
        segments
    }

    /// Return the number of segments.
    #[must_use]
    pub fn count(&self) -> usize {
        self.layout.segments(self.packet.len())
    }

    /// Return the bytes of the segment at `index`, headers included.
    #[must_use]
    pub fn size(&self, index: usize) -> usize {
        self.layout.payload + self.data(index).len()
    }

    /// Write the segment at `index` to `target`, which has its [`size`](Self::size).
    ///
    /// # Panics
    ///
    /// If `target` has another size, or if there is no such segment.
    pub fn write(&self, index: usize, target: &mut [u8]) {
        let Layout { ipv6, protocol, transport, payload, segment } = self.layout;
        let data = self.data(index);
        let (head, body) = target.split_at_mut(payload);
        head.copy_from_slice(&self.packet[..payload]);
        let size = (payload + data.len()) as u16; // At most the size of the superpacket, which was checked.
        let length = size - transport as u16;
        let mut total = self.transport_sum + copy_and_sum(body, data) + u64::from(length);
        if ipv6 {
            set_u16(head, ipv6::LENGTH, size - ipv6::SIZE as u16);
        } else {
            let identification = self.identification.wrapping_add(index as u16);
            let header_sum = self.header_sum + u64::from(size) + u64::from(identification);
            set_u16(head, ipv4::LENGTH, size);
            set_u16(head, ipv4::IDENTIFICATION, identification);
            set_u16(head, ipv4::CHECKSUM, !fold(header_sum));
        }
        let header = &mut head[transport..];
        if protocol == Protocol::Tcp {
            let sequence = self.sequence.wrapping_add((index * segment) as u32);
            let mut flags = self.flags;
            // Only the last segment ends the stream or pushes it.
            if index + 1 < self.count() {
                flags &= !FIN_PSH;
            }
            if index > 0 {
                flags &= !CWR;
            }
            set_u16(header, tcp::SEQUENCE, (sequence >> 16) as u16);
            set_u16(header, tcp::SEQUENCE + 2, sequence as u16);
            header[tcp::FLAGS] = flags;
            total += u64::from(sequence >> 16) + u64::from(sequence & 0xFFFF) + u64::from(flags);
        } else {
            set_u16(header, udp::LENGTH, length);
            total += u64::from(length);
        }
        set_u16(header, protocol.checksum_offset(), on_wire(!fold(total), protocol == Protocol::Udp));
    }

    fn data(&self, index: usize) -> &'a [u8] {
        let start = self.layout.payload + index * self.layout.segment;
        &self.packet[start..self.packet.len().min(start + self.layout.segment)]
    }
}

/// Return a checksum as it is sent: UDP sends 0xFFFF for zero, which means no checksum (RFC 768).
fn on_wire(checksum: u16, udp: bool) -> u16 {
    if udp && checksum == 0 { 0xFFFF } else { checksum }
}
