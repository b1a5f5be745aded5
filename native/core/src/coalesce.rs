//! Coalesce: runs of TCP or UDP packets of one flow become superpackets.
//!
//! What is merged is what [`split`](crate::split) gives back unchanged, but for the identification of packets
//! that may not be fragmented, which means nothing (RFC 6864, section 4.1). The rules are told in the
//! reference, `threepipe.core.coalesce`.
//!
//! First comes a plan, of which packets follow on which; only then are bytes moved, by whoever asked: to new
//! memory, or to a descriptor straight from where they lie.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use crate::checksum::{fold, internet_checksum, sum};
use crate::record::{
    GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, HEADER_SIZE, Header, MAX_PACKET, NEEDS_CSUM, PLAIN_HEADER, Protocol,
};

/// Bytes of a virtio header and the longest headers of packets that are merged.
pub const LONGEST_HEAD: usize = HEADER_SIZE + LONGEST_HEADERS;

/// Datagrams that a superpacket stands for at most: kernels since 6.6 refuse more, `UDP_MAX_SEGMENTS` of
/// `<linux/udp.h>`, which later became 128.
const MAX_DATAGRAMS: u32 = 64;
/// IPv6, and TCP with all options.
const LONGEST_HEADERS: usize = 40 + 60;
/// Where the transport header starts, which so tells the version.
const IPV4: usize = 20;
const IPV6: usize = 40;
/// IPv6 next headers behind which there is no TCP or UDP to be seen: ESP, `ICMPv6`, none.
const LEAVES: [u8; 3] = [50, 58, 59];
const DONT_FRAGMENT: u8 = 0x40;
/// More fragments, and the offset of this one.
const FRAGMENT: u16 = 0x3FFF;
/// A zero that RFC 1071 never comes to, though it sums up right; UDP means it.
const NOT_COMPUTED: u16 = 0xFFFF;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const NONE: u32 = u32::MAX;

/// A copy of a packet's headers: what is decided is decided on bytes that cannot change.
type Heads = [u8; LONGEST_HEADERS];

/// Makes plans; keeps its memory from one to the next.
#[derive(Default)]
pub struct Coalescer {
    runs: Vec<Run>,
    /// For each piece: the next one of its run.
    next: Vec<u32>,
    /// A hash table of flows: for each its last run.
    slots: Vec<u32>,
}

/// Pieces that go out as one record: a first one, and those that it took.
pub struct Run {
    first: u32,
    last: u32,
    count: u32,
    growing: bool,
    /// Whether the checksums of the first segment are right.
    verified: bool,
    /// Once verified: the sum of addresses and protocol, for the pseudo-header.
    pseudo: u64,
    /// TCP flags of the last segment.
    flags: u8,
    /// Payload of the first segment, and so of all but the last.
    size: u32,
    /// Bytes of the superpacket.
    length: u32,
    identification: u16,
    sequence: u32,
    segment: Segment,
    heads: Heads,
}

/// A packet that may be part of a superpacket, taken apart as far as that needs.
#[derive(Clone, Copy)]
struct Segment {
    protocol: Protocol,
    transport: u8,
    payload: u8,
    /// Whether its checksum was left to be completed.
    partial: bool,
    size: u32,
    identification: u16,
    sequence: u32,
}

/// Whether a packet is of a flow of TCP or UDP.
enum Flow {
    /// It certainly is not.
    No,
    /// It may be.
    Unknown,
    Of(Protocol, usize),
}

/// Which pieces make which records, in order.
pub struct Plan<'a> {
    runs: &'a [Run],
    next: &'a [u32],
}

impl Coalescer {
    /// Which records stand for `pieces`, as many or fewer; the place of a merged one is its first piece's.
    ///
    /// Pieces are IP packets or, where `headed`, records; superpackets among these stay as they are. Without
    /// `udp` only TCP is merged.
    ///
    /// # Panics
    ///
    /// For 2³¹ pieces and more.
    pub fn plan(&mut self, pieces: &[&[u8]], headed: bool, udp: bool) -> Plan<'_> {
        assert!(pieces.len() <= 1 << 31);
        self.runs.clear();
        self.next.clear();
        self.next.resize(pieces.len(), NONE);
        self.slots.clear();
        self.slots.resize((pieces.len() * 2).next_power_of_two(), NONE);
        // Runs before this one do not grow any more.
        let mut barrier = 0;
        let mut heads = [0; LONGEST_HEADERS];
        for (index, piece) in (0..).zip(pieces) {
            let (header, packet) = match piece.split_first_chunk::<HEADER_SIZE>() {
                Some((header, packet)) if headed => (header, packet),
                None if headed => (&PLAIN_HEADER, &[][..]),
                _ => (&PLAIN_HEADER, *piece),
            };
            let known = copy_heads(&mut heads, packet);
            let (protocol, transport) = match flow(&heads, known) {
                Flow::Of(protocol, transport) => (protocol, transport),
                other => {
                    if matches!(other, Flow::Unknown) {
                        barrier = self.runs.len();
                    }
                    self.runs.push(Run::alone(index));
                    continue;
                }
            };
            if protocol == Protocol::Udp && !udp {
                self.runs.push(Run::alone(index));
                continue;
            }
            let segment = Segment::parse(&heads, packet.len(), protocol, transport, header);
            let slot = self.slot(&heads, protocol, transport);
            let before = self.slots[slot];
            if let Some(run) = self.runs.get_mut(before as usize) {
                if let Some(segment) = &segment
                    && run.growing
                    && before as usize >= barrier
                    && run.takes(segment, &heads, packet, pieces, headed)
                {
                    self.next[run.last as usize] = index;
                    run.add(index, segment, &heads);
                    continue;
                }
                run.growing = false;
            }
            match segment {
                Some(segment) => {
                    self.slots[slot] = self.runs.len() as u32;
                    self.runs.push(Run::new(index, segment, &heads));
                }
                None => self.runs.push(Run::alone(index)),
            }
        }
        Plan { runs: &self.runs, next: &self.next }
    }

    /// Where in the table a flow is, or is to go.
    fn slot(&self, heads: &Heads, protocol: Protocol, transport: usize) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = hash(heads, transport) as usize & mask;
        loop {
            match self.runs.get(self.slots[slot] as usize) {
                Some(run) if !run.is_of(heads, protocol, transport) => slot = (slot + 1) & mask,
                _ => return slot,
            }
        }
    }
}

impl<'a> Plan<'a> {
    /// The records.
    #[must_use]
    pub fn runs(&self) -> &'a [Run] {
        self.runs
    }

    /// The indices of the pieces of `run`, which is one of this plan.
    pub fn pieces(&self, run: &Run) -> impl Iterator<Item = usize> + use<'a> {
        let next = self.next;
        let mut index = run.first;
        std::iter::from_fn(move || {
            let here = index as usize;
            index = *next.get(here)?;
            Some(here)
        })
    }

    /// Write the record of `run` to `place`, which has its [`size`](Run::size).
    ///
    /// # Panics
    ///
    /// Where `place` is too small, or `pieces` are not those planned for.
    pub fn write(&self, run: &Run, pieces: &[&[u8]], headed: bool, mut place: &mut [u8]) {
        let mut append = |bytes: &[u8]| {
            let (here, rest) = std::mem::take(&mut place).split_at_mut(bytes.len());
            here.copy_from_slice(bytes);
            place = rest;
        };
        if run.is_merged() {
            let mut head = [0; LONGEST_HEAD];
            let size = run.head(&mut head);
            append(&head[..size]);
            for index in self.pieces(run) {
                append(run.data(pieces[index], headed));
            }
        } else {
            if !headed {
                append(&PLAIN_HEADER);
            }
            append(pieces[run.first()]);
        }
    }
}

impl Run {
    fn new(index: u32, segment: Segment, heads: &Heads) -> Self {
        let mut run = Self {
            first: index,
            last: index,
            count: 0,
            growing: false,
            verified: false,
            pseudo: 0,
            flags: 0,
            size: segment.size,
            length: u32::from(segment.payload),
            identification: segment.identification,
            sequence: segment.sequence,
            segment,
            heads: *heads,
        };
        run.add(index, &segment, heads);
        run
    }

    /// One that takes nothing.
    fn alone(index: u32) -> Self {
        let segment = Segment {
            protocol: Protocol::Tcp,
            transport: 0,
            payload: 0,
            partial: false,
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

    /// Whether it is of more than one piece.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        self.count > 1
    }

    /// The index of its first piece.
    #[must_use]
    pub fn first(&self) -> usize {
        self.first as usize
    }

    /// Bytes of its record; `pieces` are those planned for.
    ///
    /// # Panics
    ///
    /// Where `pieces` are others.
    #[must_use]
    pub fn size(&self, pieces: &[&[u8]], headed: bool) -> usize {
        if self.is_merged() {
            HEADER_SIZE + self.length as usize
        } else {
            pieces[self.first()].len() + if headed { 0 } else { HEADER_SIZE }
        }
    }

    /// Write what comes before the payload of a merged record, its virtio header and the headers of its packet,
    /// and return how many bytes that are.
    pub fn head(&self, place: &mut [u8; LONGEST_HEAD]) -> usize {
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
        place[..HEADER_SIZE].copy_from_slice(&header.emit());
        let head = &mut place[HEADER_SIZE..];
        head.copy_from_slice(&self.heads);
        let length = self.length as u16; // At most MAX_PACKET, or it would not have grown to that.
        let behind = length - start as u16;
        if start == IPV4 {
            put(head, 2, length);
            put(head, 10, 0);
            put(head, 10, internet_checksum(&head[..IPV4], 0));
        } else {
            put(head, 4, behind);
        }
        match protocol {
            Protocol::Tcp => head[start + 13] = self.flags, // ACK, and PSH if the last one has it.
            Protocol::Udp => put(head, start + 4, behind),
        }
        put(head, start + protocol.checksum_offset(), fold(self.pseudo + u64::from(behind)));
        HEADER_SIZE + payload
    }

    /// What a piece of this run, a merged one, adds to its payload.
    ///
    /// # Panics
    ///
    /// Where `piece` is of another run.
    #[must_use]
    pub fn data<'a>(&self, piece: &'a [u8], headed: bool) -> &'a [u8] {
        &piece[usize::from(self.segment.payload) + if headed { HEADER_SIZE } else { 0 }..]
    }

    fn is_of(&self, heads: &Heads, protocol: Protocol, transport: usize) -> bool {
        let alike = |start: usize, end: usize| self.heads[start..end] == heads[start..end];
        self.segment.protocol == protocol
            && usize::from(self.segment.transport) == transport
            && if transport == IPV4 { alike(12, 24) } else { alike(8, 44) }
    }

    /// Whether `segment`, of the same flow, can be the next.
    fn takes(&mut self, segment: &Segment, heads: &Heads, packet: &[u8], pieces: &[&[u8]], headed: bool) -> bool {
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
            let packet = if headed { &first[HEADER_SIZE..] } else { first };
            let addresses = if usize::from(segment.transport) == IPV4 { 12..20 } else { 8..40 };
            self.pseudo = sum(&heads[addresses]) + u64::from(segment.protocol.number());
            self.verified = self.segment.is_right(&self.heads, packet, self.pseudo);
        }
        self.verified && segment.is_right(heads, packet, self.pseudo)
    }

    /// Whether headers have in common what all headers of a run have, beside the flow.
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
            && (segment.protocol == Protocol::Udp
                // Acknowledgment, window, urgent pointer and options.
                || alike(start + 8, start + 12) && alike(start + 14, start + 16) && alike(start + 18, payload))
    }

    fn add(&mut self, index: u32, segment: &Segment, heads: &Heads) {
        self.last = index;
        self.count += 1;
        self.length += segment.size;
        self.growing = segment.size == self.size;
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
    /// The packet taken apart, or None if it must stay as it is whatever comes before or after it.
    fn parse(
        heads: &Heads,
        length: usize,
        protocol: Protocol,
        transport: usize,
        header: &[u8; HEADER_SIZE],
    ) -> Option<Self> {
        let header = Header::parse(header);
        let partial = header.flags & NEEDS_CSUM != 0;
        let place = (usize::from(header.csum_start), usize::from(header.csum_offset));
        if header.gso_type != GSO_NONE || (partial && place != (transport, protocol.checksum_offset())) {
            return None;
        }
        let told = if transport == IPV4 { usize::from(take(heads, 2)) } else { usize::from(take(heads, 4)) + IPV6 };
        if told != length || length < transport + protocol.shortest() {
            return None;
        }
        let (payload, sequence) = match protocol {
            Protocol::Udp => {
                if usize::from(take(heads, transport + 4)) != length - transport || take(heads, transport + 6) == 0 {
                    return None;
                }
                (transport + protocol.shortest(), 0)
            }
            Protocol::Tcp => {
                let (offset, flags) = (heads[transport + 12], heads[transport + 13]);
                let size = usize::from(offset >> 4) * 4;
                if size < protocol.shortest() || offset & 0x0F != 0 || flags & !PSH != ACK {
                    return None;
                }
                let sequence = u32::from(take(heads, transport + 4)) << 16 | u32::from(take(heads, transport + 6));
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
            size: size as u32,
            identification: if is_atomic(heads, transport) { 0 } else { take(heads, 4) },
            sequence,
        })
    }

    /// Whether its checksums are right, so that to compute them anew repairs nothing.
    fn is_right(&self, heads: &Heads, packet: &[u8], pseudo: u64) -> bool {
        let transport = usize::from(self.transport);
        if transport == IPV4 && (internet_checksum(&heads[..IPV4], 0) != 0 || take(heads, 10) == NOT_COMPUTED) {
            return false;
        }
        let total = pseudo + (packet.len() - transport) as u64;
        let field = take(heads, transport + self.protocol.checksum_offset());
        if self.partial {
            return field == fold(total);
        }
        if self.protocol == Protocol::Tcp && field == NOT_COMPUTED {
            return false;
        }
        fold(total + sum(&packet[transport..])) == 0xFFFF
    }
}

/// Copy the headers of `packet`, and return how many bytes that were. What is behind them is left as it was.
fn copy_heads(heads: &mut Heads, packet: &[u8]) -> usize {
    if let Some(first) = packet.first_chunk() {
        *heads = *first; // With its size known, this is a few instructions.
        LONGEST_HEADERS
    } else {
        heads[..packet.len()].copy_from_slice(packet);
        packet.len()
    }
}

/// What flow the packet is of, the first bytes of which are `heads`, as far as they are `known`.
fn flow(heads: &Heads, known: usize) -> Flow {
    let transport_of = |number: u8| match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        _ => None,
    };
    // Neither options nor a fragment.
    if known >= IPV4 && heads[0] == 0x45 && take(heads, 6) & FRAGMENT == 0 {
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

/// Whether the packet may not be fragmented, so that its identification means nothing.
fn is_atomic(heads: &Heads, transport: u8) -> bool {
    usize::from(transport) != IPV4 || heads[6] & DONT_FRAGMENT != 0
}

/// A hash of the addresses and ports; secret, so that nobody can choose flows that collide.
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

fn take(bytes: &[u8], offset: usize) -> u16 {
    u16::from_be_bytes([bytes[offset], bytes[offset + 1]])
}

fn put(bytes: &mut [u8], offset: usize, value: u16) {
    bytes[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
}
