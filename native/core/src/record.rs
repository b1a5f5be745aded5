//! Records: a packet behind a `struct virtio_net_hdr`, and what header and packet together stand for.
//!
//! The header has 10 bytes in this machine's byte order (VIRTIO 1.2, section 5.1.6). Its `hdr_len` is not
//! looked at, for on a forwarded packet it covers all of the first segment; lengths are worked out from
//! `csum_start` and the packet itself, and checked against it.

/// Bytes of the longest IP packet.
pub const MAX_PACKET: usize = 0xFFFF;
/// Bytes of a virtio header.
pub const HEADER_SIZE: usize = 10;
/// Bytes of the longest record.
pub const MAX_RECORD: usize = HEADER_SIZE + MAX_PACKET;
/// The header of a packet that is complete and stands for itself.
pub const PLAIN_HEADER: [u8; HEADER_SIZE] = [0; HEADER_SIZE];

/// The checksum at `csum_start + csum_offset` is the sum of the pseudo-header only (`<linux/virtio_net.h>`).
pub const NEEDS_CSUM: u8 = 1;
/// The packet stands for itself.
pub const GSO_NONE: u8 = 0;
/// Segments are TCP in IPv4.
pub const GSO_TCPV4: u8 = 1;
/// Segments are TCP in IPv6.
pub const GSO_TCPV6: u8 = 4;
/// Segments are UDP, in either version.
pub const GSO_UDP_L4: u8 = 5;

/// Where the version and the length of an IPv4 header are.
const VERSION: usize = 0;
/// Bytes of the shortest IPv6 header.
const IPV6_HEADER: usize = 40;
/// Bytes of the shortest IPv4 header.
const IPV4_HEADER: usize = 20;
/// Where a TCP header says how long it is.
const DATA_OFFSET: usize = 12;

/// The transport protocols that superpackets have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Its number in IP headers.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Where the checksum is in its header.
    #[must_use]
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// Bytes of its header without options.
    #[must_use]
    pub const fn shortest(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Udp => 8,
        }
    }
}

/// The fields of a virtio header, by their names there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Header {
    pub flags: u8,
    pub gso_type: u8,
    pub hdr_len: u16,
    pub gso_size: u16,
    pub csum_start: u16,
    pub csum_offset: u16,
}

impl Header {
    /// The header that `bytes` are.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER_SIZE]) -> Self {
        let [flags, gso_type, fields @ ..] = bytes;
        let field = |index: usize| u16::from_ne_bytes([fields[2 * index], fields[2 * index + 1]]);
        Self {
            flags: *flags,
            gso_type: *gso_type,
            hdr_len: field(0),
            gso_size: field(1),
            csum_start: field(2),
            csum_offset: field(3),
        }
    }

    /// The bytes of this header.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        let fields = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (place, field) in bytes[2..].as_chunks_mut::<2>().0.iter_mut().zip(fields) {
            *place = field.to_ne_bytes();
        }
        bytes
    }

    /// Where the checksum is that was left to be completed, as an offset in the packet.
    fn checksum_place(&self) -> usize {
        usize::from(self.csum_start) + usize::from(self.csum_offset)
    }
}

/// A record taken apart once, so that everything decided on its bytes is decided on the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it stands for.
    pub shape: Shape,
    /// Bytes of its packet, or superpacket.
    pub length: usize,
    /// Its packet's first byte, or 0 where it has none.
    first: u8,
}

/// What a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One packet, complete.
    Plain,
    /// One packet, the checksum of which was left to be completed.
    Open(Open),
    /// A superpacket.
    Super(Layout),
    /// Nothing: header and packet contradict each other.
    Contradiction,
}

/// Where a checksum is to be completed, as offsets in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Where the bytes begin that it covers; they end with the packet.
    pub start: usize,
    /// Where it goes.
    pub field: usize,
    /// Whether it is one of UDP, by which zero means that there is none.
    pub udp: bool,
}

/// Where a superpacket's parts are: offsets in the packet, and bytes of payload a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Whether it is IPv6, else it is IPv4.
    pub ipv6: bool,
    /// The protocol of its segments.
    pub protocol: Protocol,
    /// Where the transport header starts.
    pub transport: usize,
    /// Where the payload starts.
    pub payload: usize,
    /// Bytes of payload in each segment but the last; not zero.
    pub segment: usize,
}

/// What records come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Packets.
    pub packets: u64,
    /// Bytes of those packets.
    pub size: u64,
    /// Whether all records are IP packets, or superpackets of such, in order.
    pub valid: bool,
}

impl Measure {
    /// What no records come to.
    pub const NOTHING: Self = Self { packets: 0, size: 0, valid: true };
    /// What a record comes to whose header and packet contradict each other.
    pub const CONTRADICTION: Self = Self { packets: 0, size: 0, valid: false };

    /// What records come to that come to `self` and `other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, size: self.size + other.size, valid: self.valid && other.valid }
    }

    /// What a packet without a header comes to.
    #[must_use]
    pub fn of_packet(packet: &[u8]) -> Self {
        Self { packets: 1, size: packet.len() as u64, valid: is_packet(first_byte(packet), packet.len()) }
    }
}

impl Record {
    /// Take a record apart; None where it is too short for a header.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Self> {
        let (header, packet) = record.split_first_chunk::<HEADER_SIZE>()?;
        let header = Header::parse(header);
        let first = first_byte(packet);
        let shape = if header.gso_type != GSO_NONE {
            layout(&header, packet, first).map_or(Shape::Contradiction, Shape::Super)
        } else if header.flags & NEEDS_CSUM == 0 {
            Shape::Plain
        } else if usize::from(header.csum_start) >= IPV4_HEADER && header.checksum_place() + 2 <= packet.len() {
            Shape::Open(Open {
                start: usize::from(header.csum_start),
                field: header.checksum_place(),
                udp: usize::from(header.csum_offset) == Protocol::Udp.checksum_offset(),
            })
        } else {
            Shape::Contradiction
        };
        Some(Self { shape, length: packet.len(), first })
    }

    /// What it comes to, without splitting it.
    #[must_use]
    pub fn measure(&self) -> Measure {
        let (packets, added) = match self.shape {
            Shape::Contradiction => return Measure::CONTRADICTION,
            Shape::Plain | Shape::Open(_) => (1, 0),
            Shape::Super(layout) => {
                let packets = layout.segments(self.length);
                (packets, (packets - 1) * layout.payload)
            }
        };
        Measure {
            packets: packets as u64,
            size: (self.length + added) as u64,
            valid: is_packet(self.first, self.length),
        }
    }
}

impl Layout {
    /// Segments of a superpacket of `length` bytes, its headers among them.
    #[must_use]
    pub fn segments(&self, length: usize) -> usize {
        (length - self.payload).div_ceil(self.segment)
    }

    /// Bytes of the segment at `index`, its headers among them.
    #[must_use]
    pub fn segment_size(&self, length: usize, index: usize) -> usize {
        self.payload + self.segment.min(length - self.payload - index * self.segment)
    }
}

/// Whether Wintun's driver would take bytes that begin with `first` as an IP packet.
fn is_packet(first: u8, length: usize) -> bool {
    (IPV4_HEADER..=MAX_PACKET).contains(&length) && (first >> 4 == 4 || (first >> 4 == 6 && length >= IPV6_HEADER))
}

fn first_byte(packet: &[u8]) -> u8 {
    packet.get(VERSION).copied().unwrap_or(0)
}

/// The parts of a superpacket, or None where header and packet contradict each other.
fn layout(header: &Header, packet: &[u8], first: u8) -> Option<Layout> {
    let (ipv6, protocol) = match (header.gso_type, first >> 4) {
        (GSO_TCPV4, 4) => (false, Protocol::Tcp),
        (GSO_TCPV6, 6) => (true, Protocol::Tcp),
        (GSO_UDP_L4, 4) => (false, Protocol::Udp),
        (GSO_UDP_L4, 6) => (true, Protocol::Udp),
        _ => return None,
    };
    let transport = usize::from(header.csum_start);
    let in_place = if ipv6 {
        transport >= IPV6_HEADER
    } else {
        transport >= IPV4_HEADER && transport == usize::from(first & 0x0F) * 4
    };
    if header.flags & NEEDS_CSUM == 0
        || header.gso_size == 0
        || usize::from(header.csum_offset) != protocol.checksum_offset()
        || !in_place
        || transport + protocol.shortest() > packet.len()
    {
        return None;
    }
    let header_size = match protocol {
        Protocol::Udp => protocol.shortest(),
        Protocol::Tcp => usize::from(packet[transport + DATA_OFFSET] >> 4) * 4,
    };
    let payload = transport + header_size;
    (header_size >= protocol.shortest() && payload < packet.len() && packet.len() <= MAX_PACKET).then(|| Layout {
        ipv6,
        protocol,
        transport,
        payload,
        segment: usize::from(header.gso_size),
    })
}
