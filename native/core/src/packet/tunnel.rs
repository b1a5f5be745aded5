//! Tunnel superpackets: a datagram of a UDP tunnel, such as VXLAN, with a superpacket of TCP or UDP inside.
//!
//! An adapter hands them over if it is asked to (Linux 6.17), and then each of its headers is wide: 24 bytes, a
//! `struct virtio_net_hdr_v1_hash_tunnel`, which begins with the fields of a virtio header. Linux takes none of them from
//! an adapter. So they become runs here: superpackets of UDP, whose segments are the datagrams, with complete packets
//! inside. Everything else knows records with a virtio header alone. The twin of `threepipe.core.tunnel`.

use crate::packet::checksum::{fold, internet_checksum, sum};
use crate::packet::coalesce::MAX_DATAGRAMS;
use crate::packet::fields::{set_u16, u16_at};
use crate::packet::record::{
    GSO_NONE, GSO_UDP_L4, HEADER_SIZE, Header, MAX_PACKET, NEEDS_CSUM, Protocol, is_transport, layout,
};
use crate::packet::split::Segments;

/// Bytes of a wide header.
pub const WIDE_HEADER_SIZE: usize = 24;
/// Bytes of the longest record with a wide header.
pub const MAX_WIDE_RECORD: usize = WIDE_HEADER_SIZE + MAX_PACKET;
/// The rest of the wide header of a record to send.
pub const FILLER: [u8; WIDE_HEADER_SIZE - HEADER_SIZE] = [0; WIDE_HEADER_SIZE - HEADER_SIZE];

/// Offsets in a wide header: those of the outer transport header and of the inner IP header, in the packet. Both are
/// little-endian.
const OUTER_TRANSPORT: usize = 20;
const INNER_NETWORK: usize = 22;
/// Bits of the GSO type: the tunnel's datagrams are of IPv4, or of IPv6.
const TUNNEL_IPV4: u8 = 0x20;
const TUNNEL_IPV6: u8 = 0x40;
/// A flag: the tunnel's datagrams have checksums.
const TUNNEL_CSUM: u8 = 8;

const UDP_HEADER: usize = 8;
const IPV6_HEADER: usize = 40;

/// Make a wide record narrow: move its virtio header to right before its packet. Return the offset of the result.
pub fn narrow(record: &mut [u8]) -> usize {
    let start = FILLER.len().min(record.len());
    record.copy_within(..HEADER_SIZE.min(record.len() - start), start);
    start
}

/// A tunnel superpacket, and the runs that it becomes.
pub struct Tunnel<'a> {
    packet: &'a [u8],
    ipv6: bool,
    /// The offset of the outer UDP header.
    transport: usize,
    /// The offset of the inner packet.
    inner: usize,
    /// The inner packets.
    segments: Segments<'a>,
    /// True if the datagrams get checksums, as those of a run do. IPv6 forbids datagrams without one, but for some tunnels,
    /// and with one receivers would take those that they drop now; so over IPv6 these stay without, and alone.
    checked: bool,
    /// The datagrams of each run but the last.
    datagrams: usize,
}

impl<'a> Tunnel<'a> {
    /// Parse a wide record. Return None for another kind of record, and for one that contradicts itself.
    #[must_use]
    pub fn parse(record: &'a [u8]) -> Option<Self> {
        let (wide, packet) = record.split_first_chunk::<WIDE_HEADER_SIZE>()?;
        let first = *packet.first()?;
        let header = Header::parse(wide.first_chunk()?);
        let ipv6 = match (header.gso_type & (TUNNEL_IPV4 | TUNNEL_IPV6), first >> 4) {
            (TUNNEL_IPV4, 4) => false,
            (TUNNEL_IPV6, 6) => true,
            _ => return None,
        };
        let offset = |place: usize| usize::from(u16::from_le_bytes([wide[place], wide[place + 1]]));
        let (transport, inner) = (offset(OUTER_TRANSPORT), offset(INNER_NETWORK));
        let start = header.csum_start.checked_sub(inner as u16)?;
        if !is_transport(ipv6, transport, first) || inner < transport + UDP_HEADER || packet.len() > MAX_PACKET {
            return None;
        }
        let inside = packet.get(inner..)?;
        let gso_type = header.gso_type & !(TUNNEL_IPV4 | TUNNEL_IPV6);
        let layout = layout(&Header { gso_type, csum_start: start, ..header }, inside, *inside.first()?)?;
        let segments = Segments::new(&record[FILLER.len() + inner..], layout);
        let checked = !ipv6 || header.flags & TUNNEL_CSUM != 0;
        let room = (MAX_PACKET - transport - UDP_HEADER) / (inner - transport - UDP_HEADER + segments.size(0));
        let datagrams = if checked { room.clamp(1, MAX_DATAGRAMS as usize) } else { 1 };
        Some(Self { packet, ipv6, transport, inner, segments, checked, datagrams })
    }

    /// Return the bytes of the record of each run.
    pub fn sizes(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.segments.count()).step_by(self.datagrams).map(|first| self.size(first))
    }

    /// Write the records of all runs to `target`, end to end.
    ///
    /// # Panics
    ///
    /// If `target` is shorter than the sum of the sizes.
    pub fn write(&self, mut target: &mut [u8]) {
        for first in (0..self.segments.count()).step_by(self.datagrams) {
            let (record, rest) = target.split_at_mut(self.size(first));
            self.write_run(first, record);
            target = rest;
        }
    }

    /// Return the segments of the run that begins with the one at `first`.
    fn run(&self, first: usize) -> std::ops::Range<usize> {
        first..self.segments.count().min(first + self.datagrams)
    }

    /// Return the bytes in front of each inner packet, behind the outer UDP header.
    fn prefix(&self) -> &'a [u8] {
        &self.packet[self.transport + UDP_HEADER..self.inner]
    }

    fn size(&self, first: usize) -> usize {
        let packets: usize = self.run(first).map(|index| self.prefix().len() + self.segments.size(index)).sum();
        HEADER_SIZE + self.transport + UDP_HEADER + packets
    }

    fn write_run(&self, first: usize, record: &mut [u8]) {
        let (run, prefix, start) = (self.run(first), self.prefix(), self.transport);
        let merged = run.len() > 1;
        let payload = start + UDP_HEADER;
        let (header, packet) = record.split_at_mut(HEADER_SIZE);
        let length = packet.len() as u16; // At most MAX_PACKET, which limits the datagrams of a run.
        let after = length - start as u16;
        let (head, mut rest) = packet.split_at_mut(payload);
        head.copy_from_slice(&self.packet[..payload]);
        let addresses = if self.ipv6 {
            set_u16(head, 4, length - IPV6_HEADER as u16);
            8..40
        } else {
            set_u16(head, 2, length);
            set_u16(head, 4, u16_at(head, 4).wrapping_add(first as u16));
            set_u16(head, 10, 0);
            set_u16(head, 10, internet_checksum(&head[..start], 0));
            12..20
        };
        let pseudo = sum(&head[addresses]) + u64::from(Protocol::Udp.number()) + u64::from(after);
        set_u16(head, start + 4, after);
        set_u16(head, start + Protocol::Udp.checksum_offset(), if self.checked { fold(pseudo) } else { 0 });
        let fields = Header {
            flags: NEEDS_CSUM,
            gso_type: if merged { GSO_UDP_L4 } else { GSO_NONE },
            hdr_len: payload as u16,
            gso_size: if merged { (prefix.len() + self.segments.size(first)) as u16 } else { 0 },
            csum_start: start as u16,
            csum_offset: Protocol::Udp.checksum_offset() as u16,
        };
        header.copy_from_slice(&if self.checked { fields } else { Header::default() }.emit());
        for index in run {
            let (before, others) = rest.split_at_mut(prefix.len());
            before.copy_from_slice(prefix);
            let (inside, others) = others.split_at_mut(self.segments.size(index));
            self.segments.write(index, inside);
            rest = others;
        }
    }
}
