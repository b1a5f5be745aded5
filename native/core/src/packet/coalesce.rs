//! Coalesce: consecutive TCP or UDP packets of one flow become superpackets.
//!
//! [`split`](crate::packet::split) gives back the packets that were merged, unchanged but for the identification of
//! packets that may not be fragmented, which has no meaning (RFC 6864, section 4.1), and for the checksum of datagrams
//! that had none. The twin of `threepipe.core.coalesce`, which states the rules.
//!
//! A plan comes first: it says which pieces form which record and moves no bytes. The caller then writes the records
//! to memory, or to a file straight from the pieces.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use crate::packet::checksum::{fold, internet_checksum, sum};
use crate::packet::fields::{set_u16, u16_at};
use crate::packet::record::{
    GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HEADER_SIZE, Header, MAX_PACKET, NEEDS_CSUM, PLAIN_HEADER, Partial,
    Protocol, Record, Shape,
};
use crate::packet::split::complete_packet;

/// Bytes of a virtio header and the longest headers of a merged packet.
pub const LONGEST_HEAD: usize = HEADER_SIZE + LONGEST_HEADERS;

/// The most datagrams in a superpacket: `UDP_MAX_SEGMENTS` of `<linux/udp.h>`, enforced by kernels since 6.6 and
/// later raised to 128.
pub(crate) const MAX_DATAGRAMS: u32 = 64;
/// The most payloads in a system call, which takes 1024 pieces of memory: `UIO_MAXIOV` of `<linux/uio.h>`, and as many
/// elsewhere. Three are for headers.
const MAX_PARTS: u32 = 1021;
/// Bytes of an IPv6 header, and of a TCP header with all options.
const LONGEST_HEADERS: usize = 40 + 60;
/// Offset of the transport header, which tells the two versions apart.
const IPV4: usize = 20;
const IPV6: usize = 40;
/// IPv6 next headers that no TCP or UDP header follows in plain: ESP, `ICMPv6`, none.
const LEAVES: [u8; 3] = [50, 58, 59];
const DONT_FRAGMENT: u8 = 0x40;
/// The bits of more fragments and of the fragment offset.
const FRAGMENT: u16 = 0x3FFF;
/// A checksum that verifies but that RFC 1071 never computes; UDP sends it for zero.
const NOT_COMPUTED: u16 = 0xFFFF;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const NONE: u32 = u32::MAX;

/// A copy of a packet's headers, so that other threads cannot change them between two decisions.
type Heads = [u8; LONGEST_HEADERS];

/// Makes plans, and reuses its memory from one plan to the next.
#[derive(Default)]
pub struct Coalescer {
    groups: Vec<Group>,
    /// For each piece, the next one of its group.
    next: Vec<u32>,
    /// A hash table from a flow to its last group.
    slots: Vec<u32>,
}

/// Pieces that become one record.
pub struct Group {
    first: u32,
    last: u32,
    count: u32,
    growing: bool,
    /// True once the checksums of the first segment have been found valid.
    verified: bool,
    /// True if a piece has an inner checksum to be completed.
    open_inside: bool,
    /// The sum of addresses and protocol for the pseudo-header, once verified.
    pseudo: u64,
    /// TCP flags of the last segment.
    flags: u8,
    /// Bytes of payload of each segment but the last.
    size: u32,
    /// Bytes of the superpacket.
    length: u32,
    identification: u16,
    sequence: u32,
    segment: Segment,
    heads: Heads,
}

/// A packet that may become part of a superpacket.
#[derive(Clone, Copy)]
struct Segment {
    protocol: Protocol,
    transport: u8,
    payload: u8,
    /// True if its checksum has to be completed.
    partial: bool,
    /// True for a datagram without a checksum.
    unchecked: bool,
    /// For a datagram that holds a packet whose checksum has to be completed: the offsets of the bytes that it covers
    /// and of its field. Else both are 0.
    inner: (u16, u16),
    size: u32,
    identification: u16,
    sequence: u32,
}

/// The flow that a packet belongs to.
enum Flow {
    /// Certainly none of TCP or UDP.
    No,
    /// Perhaps one of TCP or UDP.
    Unknown,
    /// A protocol, with the offset of its header.
    Of(Protocol, usize),
}

/// The groups of pieces that become records, in order.
pub struct Plan<'a> {
    groups: &'a [Group],
    next: &'a [u32],
}

impl Coalescer {
    /// Plan the records for `pieces`. A merged record takes the position of its first piece.
    ///
    /// Pieces are records if `vnet_header`, else IP packets; superpackets among them stay as they are. Without `udp`
    /// only TCP is merged.
    ///
    /// # Panics
    ///
    /// For more than 2³¹ pieces.
    pub fn plan(&mut self, pieces: &[&[u8]], vnet_header: bool, udp: bool) -> Plan<'_> {
        assert!(pieces.len() <= 1 << 31);
        self.groups.clear();
        self.next.clear();
        self.next.resize(pieces.len(), NONE);
        self.slots.clear();
        self.slots.resize((pieces.len() * 2).next_power_of_two(), NONE);
        // Groups before this index no longer grow.
        let mut barrier = 0;
        let mut heads = [0; LONGEST_HEADERS];
        for (index, piece) in (0..).zip(pieces) {
            let (header, packet) = match piece.split_first_chunk::<HEADER_SIZE>() {
                Some((header, packet)) if vnet_header => (header, packet),
                None if vnet_header => (&PLAIN_HEADER, &[][..]),
                _ => (&PLAIN_HEADER, *piece),
            };
            let known = copy_heads(&mut heads, packet);
            let (protocol, transport) = match flow(&heads, known) {
                Flow::Of(protocol, transport) => (protocol, transport),
                other => {
                    if matches!(other, Flow::Unknown) {
                        barrier = self.groups.len();
                    }
                    self.groups.push(Group::alone(index));
                    continue;
                }
            };
            if protocol == Protocol::Udp && !udp {
                self.groups.push(Group::alone(index));
                continue;
            }
            let segment = Segment::parse(&heads, packet.len(), protocol, transport, header);
            let slot = self.slot(&heads, protocol, transport);
            let before = self.slots[slot];
            if let Some(group) = self.groups.get_mut(before as usize) {
                if let Some(segment) = &segment
                    && group.growing
                    && before as usize >= barrier
                    && group.accepts(segment, &heads, packet, pieces, vnet_header)
                {
                    self.next[group.last as usize] = index;
                    group.add(index, segment, &heads);
                    continue;
                }
                group.growing = false;
            }
            match segment {
                Some(segment) => {
                    self.slots[slot] = self.groups.len() as u32;
                    self.groups.push(Group::new(index, segment, &heads));
                }
                None => self.groups.push(Group::alone(index)),
            }
        }
        Plan { groups: &self.groups, next: &self.next }
    }

    /// Return the slot of a flow, or the free slot where it belongs.
    fn slot(&self, heads: &Heads, protocol: Protocol, transport: usize) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(heads, transport) as usize & mask;
        loop {
            match self.groups.get(self.slots[slot] as usize) {
                Some(group) if !group.is_of(heads, protocol, transport) => slot = (slot + 1) & mask,
                _ => return slot,
            }
        }
    }
}

impl<'a> Plan<'a> {
    /// Return the groups, each of which becomes a record.
    #[must_use]
    pub fn groups(&self) -> &'a [Group] {
        self.groups
    }

    /// Return the indices of the pieces of `group`, which is one of this plan.
    pub fn pieces(&self, group: &Group) -> impl Iterator<Item = usize> + use<'a> {
        let next = self.next;
        let mut index = group.first;
        std::iter::from_fn(move || {
            let here = index as usize;
            index = *next.get(here)?;
            Some(here)
        })
    }

    /// Write the record of `group` to `target`, which has its [`size`](Group::size).
    ///
    /// # Panics
    ///
    /// If `target` is too small, or if `pieces` are not those of the plan.
    pub fn write(&self, group: &Group, pieces: &[&[u8]], vnet_header: bool, mut target: &mut [u8]) {
        let mut append = |bytes: &[u8]| {
            let (here, rest) = std::mem::take(&mut target).split_at_mut(bytes.len());
            here.copy_from_slice(bytes);
            target = rest;
            here
        };
        if group.is_merged() {
            let mut head = [0; LONGEST_HEAD];
            let size = group.head(&mut head);
            append(&head[..size]);
            for index in self.pieces(group) {
                let payload = append(group.data(pieces[index], vnet_header));
                if group.open_inside {
                    complete_inner(payload, pieces[index], usize::from(group.segment.payload));
                }
            }
        } else {
            if !vnet_header {
                append(&PLAIN_HEADER);
            }
            append(pieces[group.first()]);
        }
    }
}

impl Group {
    fn new(index: u32, segment: Segment, heads: &Heads) -> Self {
        let mut group = Self {
            first: index,
            last: index,
            count: 0,
            growing: false,
            verified: false,
            open_inside: false,
            pseudo: 0,
            flags: 0,
            size: segment.size,
            length: u32::from(segment.payload),
            identification: segment.identification,
            sequence: segment.sequence,
            segment,
            heads: *heads,
        };
        group.add(index, &segment, heads);
        group
    }

    /// Return a group of one piece that does not grow.
    fn alone(index: u32) -> Self {
        let segment = Segment {
            protocol: Protocol::Tcp,
            transport: 0,
            payload: 0,
            partial: false,
            unchecked: false,
            inner: (0, 0),
            size: 0,
            identification: 0,
            sequence: 0,
        };
        Self {
            first: index,
            last: index,
            count: 1,
            growing: false,
            verified: false,
            open_inside: false,
            pseudo: 0,
            flags: 0,
            size: 0,
            length: 0,
            identification: 0,
            sequence: 0,
            segment,
            heads: [0; LONGEST_HEADERS],
        }
    }

    /// Return True if it has more than one piece.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        self.count > 1
    }

    /// Return True if its record is its head and the payloads of its pieces, few enough for one system call.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.open_inside && self.count <= MAX_PARTS
    }

    /// Return the index of its first piece.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first as usize
    }

    /// Return the bytes of its record.
    ///
    /// # Panics
    ///
    /// If `pieces` are not those of the plan.
    #[must_use]
    pub fn size(&self, pieces: &[&[u8]], vnet_header: bool) -> usize {
        if self.is_merged() {
            HEADER_SIZE + self.length as usize
        } else {
            pieces[self.first()].len() + if vnet_header { 0 } else { HEADER_SIZE }
        }
    }

    /// Write the virtio header and the packet's headers of a merged record to `target`, and return their size in bytes.
    pub fn head(&self, target: &mut [u8; LONGEST_HEAD]) -> usize {
        let Segment { protocol, transport, payload, .. } = self.segment;
        let (start, payload) = (usize::from(transport), usize::from(payload));
        let header = Header {
            flags: NEEDS_CSUM,
            gso_type: match (protocol, start) {
                (Protocol::Tcp, IPV4) => GSO_TCPV4,
                (Protocol::Tcp, _) => GSO_TCPV6,
                (Protocol::Udp, _) => GSO_UDP_L4,
            },
            hdr_len: payload as u16,
            gso_size: self.size as u16,
            csum_start: start as u16,
            csum_offset: protocol.checksum_offset() as u16,
        };
        target[..HEADER_SIZE].copy_from_slice(&header.emit());
        let head = &mut target[HEADER_SIZE..];
        head.copy_from_slice(&self.heads);
        let length = self.length as u16; // At most MAX_PACKET, which limits its growth.
        let after = length - start as u16;
        if start == IPV4 {
            set_u16(head, 2, length);
            set_u16(head, 10, 0);
            set_u16(head, 10, internet_checksum(&head[..IPV4], 0));
        } else {
            set_u16(head, 4, after);
        }
        match protocol {
            Protocol::Tcp => head[start + 13] = self.flags, // ACK, and PSH if the last segment has it.
            Protocol::Udp => set_u16(head, start + 4, after),
        }
        set_u16(head, start + protocol.checksum_offset(), fold(self.pseudo + u64::from(after)));
        HEADER_SIZE + payload
    }

    /// Return the payload of `piece`, which is one of this merged group.
    ///
    /// # Panics
    ///
    /// If `piece` is of another group.
    #[must_use]
    pub fn data<'a>(&self, piece: &'a [u8], vnet_header: bool) -> &'a [u8] {
        &piece[usize::from(self.segment.payload) + if vnet_header { HEADER_SIZE } else { 0 }..]
    }

    fn is_of(&self, heads: &Heads, protocol: Protocol, transport: usize) -> bool {
        let alike = |start: usize, end: usize| self.heads[start..end] == heads[start..end];
        self.segment.protocol == protocol
            && usize::from(self.segment.transport) == transport
            && if transport == IPV4 { alike(12, 24) } else { alike(8, 44) }
    }

    /// Return True if `segment`, which is of the same flow, can follow the last segment.
    fn accepts(
        &mut self,
        segment: &Segment,
        heads: &Heads,
        packet: &[u8],
        pieces: &[&[u8]],
        vnet_header: bool,
    ) -> bool {
        if segment.size > self.size
            || (self.length + segment.size) as usize > MAX_PACKET
            || (segment.protocol == Protocol::Udp && self.count == MAX_DATAGRAMS)
            || segment.sequence != self.sequence
            || segment.identification != self.identification
            || !self.agrees(segment, heads)
        {
            return false;
        }
        if !self.verified {
            let first = pieces[self.first()];
            let packet = if vnet_header { &first[HEADER_SIZE..] } else { first };
            let addresses = if usize::from(segment.transport) == IPV4 { 12..20 } else { 8..40 };
            self.pseudo = sum(&heads[addresses]) + u64::from(segment.protocol.number());
            self.verified = self.segment.is_valid(&self.heads, packet, self.pseudo);
        }
        self.verified && segment.is_valid(heads, packet, self.pseudo)
    }

    /// Return True if the headers agree in the fields that all segments share, besides the flow.
    fn agrees(&self, segment: &Segment, heads: &Heads) -> bool {
        let alike = |start: usize, end: usize| self.heads[start..end] == heads[start..end];
        let start = usize::from(segment.transport);
        let same_ip = if start == IPV4 {
            alike(1, 2) && alike(6, 9) // Type of service; flags and time to live.
        } else {
            alike(0, 4) && alike(7, 8) // Traffic class and flow label; hop limit.
        };
        let payload = usize::from(segment.payload);
        same_ip
            && segment.payload == self.segment.payload
            && segment.unchecked == self.segment.unchecked
            && (segment.protocol == Protocol::Udp
                // Acknowledgment, window, urgent pointer and options.
                || alike(start + 8, start + 12) && alike(start + 14, start + 16) && alike(start + 18, payload))
    }

    fn add(&mut self, index: u32, segment: &Segment, heads: &Heads) {
        self.last = index;
        self.count += 1;
        self.length += segment.size;
        self.growing = segment.size == self.size;
        self.open_inside |= segment.inner != (0, 0);
        if segment.protocol == Protocol::Tcp {
            self.sequence = self.sequence.wrapping_add(segment.size);
            self.flags = heads[usize::from(segment.transport) + 13];
            self.growing &= self.flags & PSH == 0;
        }
        if !is_atomic(heads, segment.transport) {
            self.identification = self.identification.wrapping_add(1);
        }
    }
}

impl Segment {
    /// Parse a packet. Return None if it must stay as it is, whatever comes before or after it.
    fn parse(
        heads: &Heads,
        length: usize,
        protocol: Protocol,
        transport: usize,
        header: &[u8; HEADER_SIZE],
    ) -> Option<Self> {
        let header = Header::parse(header);
        let open = header.flags & NEEDS_CSUM != 0;
        let checksum = (usize::from(header.csum_start), usize::from(header.csum_offset));
        let partial = open && checksum == (transport, protocol.checksum_offset());
        let inner = if open && !partial {
            let (start, field) = (checksum.0, checksum.0 + checksum.1);
            // Its bytes are a part of the payload, and their words are words of the outer checksum.
            let in_place = protocol == Protocol::Udp && start >= transport + 8 && (start - transport).is_multiple_of(2);
            if !in_place || field + 2 > length {
                return None;
            }
            (start as u16, field as u16) // A packet has at most MAX_PACKET bytes, as its own length says.
        } else {
            (0, 0)
        };
        if header.gso_type != GSO_NONE {
            return None;
        }
        let stated =
            if transport == IPV4 { usize::from(u16_at(heads, 2)) } else { usize::from(u16_at(heads, 4)) + IPV6 };
        if stated != length || length < transport + protocol.header_size() {
            return None;
        }
        let unchecked = protocol == Protocol::Udp && u16_at(heads, transport + 6) == 0;
        let (payload, sequence) = match protocol {
            Protocol::Udp => {
                // IPv6 forbids datagrams without a checksum, but for some tunnels (RFC 8200, section 8.1).
                if usize::from(u16_at(heads, transport + 4)) != length - transport
                    || (unchecked && (partial || transport != IPV4))
                {
                    return None;
                }
                (transport + protocol.header_size(), 0)
            }
            Protocol::Tcp => {
                let (offset, flags) = (heads[transport + 12], heads[transport + 13]);
                let size = usize::from(offset >> 4) * 4;
                if size < protocol.header_size() || offset & 0x0F != 0 || flags & !PSH != ACK {
                    return None;
                }
                let sequence = u32::from(u16_at(heads, transport + 4)) << 16 | u32::from(u16_at(heads, transport + 6));
                (transport + size, sequence)
            }
        };
        let size = length.checked_sub(payload).filter(|size| *size > 0)?;
        let transport = transport as u8;
        Some(Self {
            protocol,
            transport,
            payload: payload as u8,
            partial,
            unchecked,
            inner,
            size: size as u32,
            identification: if is_atomic(heads, transport) { 0 } else { u16_at(heads, 4) },
            sequence,
        })
    }

    /// Return True if its checksums are valid, so that computing them again repairs nothing.
    fn is_valid(&self, heads: &Heads, packet: &[u8], pseudo: u64) -> bool {
        let transport = usize::from(self.transport);
        if transport == IPV4 && (internet_checksum(&heads[..IPV4], 0) != 0 || u16_at(heads, 10) == NOT_COMPUTED) {
            return false;
        }
        if self.unchecked {
            return true;
        }
        let total = pseudo + (packet.len() - transport) as u64;
        let field = u16_at(heads, transport + self.protocol.checksum_offset());
        if self.partial {
            return field == fold(total);
        }
        if self.protocol == Protocol::Tcp && field == NOT_COMPUTED {
            return false;
        }
        if let (start @ 1.., field) = self.inner {
            // The completed bytes sum up to the complement of the pseudo-header's sum, which the field holds now.
            let completed = u64::from(!u16_at(packet, usize::from(field)));
            return fold(total + sum(&packet[transport..usize::from(start)]) + completed) == 0xFFFF;
        }
        fold(total + sum(&packet[transport..])) == 0xFFFF
    }
}

/// Complete the inner checksum of a record in a copy of its payload, which begins at the offset `start` of its packet.
///
/// A record whose outer checksum is open has none; the outer one is that of the merged record.
fn complete_inner(payload: &mut [u8], record: &[u8], start: usize) {
    if let Some(Record { shape: Shape::Partial(open), .. }) = Record::parse(record)
        && open.start >= start
    {
        complete_packet(payload, &Partial { start: open.start - start, field: open.field - start, ..open });
    }
}

/// Copy the first bytes of `packet` to `heads`, and return how many were copied.
fn copy_heads(heads: &mut Heads, packet: &[u8]) -> usize {
    if let Some(first) = packet.first_chunk() {
        *heads = *first; // A copy of fixed size takes a few instructions.
        LONGEST_HEADERS
    } else {
        heads[..packet.len()].copy_from_slice(packet);
        packet.len()
    }
}

/// Return the flow of a packet, of which the first `known` bytes are in `heads`.
fn flow(heads: &Heads, known: usize) -> Flow {
    let transport_of = |number: u8| match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    };
    // Without options, and not a fragment.
    if known >= IPV4 && heads[0] == 0x45 && u16_at(heads, 6) & FRAGMENT == 0 {
        return match transport_of(heads[9]) {
            None => Flow::No,
            Some(protocol) if known >= IPV4 + 8 => Flow::Of(protocol, IPV4),
            Some(_) => Flow::Unknown,
        };
    }
    if known >= IPV6 && heads[0] >> 4 == 6 {
        return match transport_of(heads[6]) {
            None if LEAVES.contains(&heads[6]) => Flow::No,
            Some(protocol) if known >= IPV6 + 8 => Flow::Of(protocol, IPV6),
            _ => Flow::Unknown,
        };
    }
    Flow::Unknown
}

/// Return True if the packet may not be fragmented, so that its identification has no meaning.
fn is_atomic(heads: &Heads, transport: u8) -> bool {
    usize::from(transport) != IPV4 || heads[6] & DONT_FRAGMENT != 0
}

/// Hash the addresses and ports, with a secret, so that a sender cannot choose flows that collide.
fn hash(heads: &Heads, transport: usize) -> u64 {
    static SECRET: OnceLock<[u64; 2]> = OnceLock::new();
    let [secret, factor] = SECRET.get_or_init(|| {
        let state = RandomState::new();
        [state.hash_one(0), state.hash_one(1) | 1]
    });
    let (start, end) = if transport == IPV4 { (12, 24) } else { (8, 44) };
    let mut hash = *secret;
    for word in heads[start..end].as_chunks::<4>().0 {
        let product = u128::from(hash ^ u64::from(u32::from_ne_bytes(*word))) * u128::from(*factor);
        hash = product as u64 ^ (product >> 64) as u64;
    }
    hash
}
