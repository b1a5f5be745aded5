//! Records: a `struct virtio_net_hdr` and a packet, and the packets that the two stand for.
//!
//! The header has 10 bytes in this machine's byte order (VIRTIO 1.2, section 5.1.6). Its `hdr_len` is ignored: on a
//! forwarded packet it covers all of the first segment. Lengths are computed from `csum_start` and the packet, and
//! checked against the packet. The twin of `threepipe.core.superpacket` (`measure`) and `threepipe.core.packet`.

/// Bytes of the longest IP packet.
pub const MAX_PACKET: usize = 0xFFFF;
/// Bytes of a virtio header.
pub const HEADER_SIZE: usize = 10;
/// Bytes of the longest record.
pub const MAX_RECORD: usize = HEADER_SIZE + MAX_PACKET;
/// The header of a complete packet that is not a superpacket.
pub const PLAIN_HEADER: [u8; HEADER_SIZE] = [0; HEADER_SIZE];

/// The checksum at `csum_start + csum_offset` is the sum of the pseudo-header only (`<linux/virtio_net.h>`).
pub const NEEDS_CSUM: u8 = 1;
/// The packet is not a superpacket.
pub const GSO_NONE: u8 = 0;
/// Segments are TCP in IPv4.
pub const GSO_TCPV4: u8 = 1;
/// Segments are TCP in IPv6.
pub const GSO_TCPV6: u8 = 4;
/// Segments are UDP, in either version.
pub const GSO_UDP_L4: u8 = 5;

/// Offset of the version, and of the length of an IPv4 header.
const VERSION: usize = 0;
/// Bytes of the shortest IPv6 header.
const IPV6_HEADER: usize = 40;
/// Bytes of the shortest IPv4 header, and of the shortest packet.
pub(crate) const IPV4_HEADER: usize = 20;
/// Offset of the length of a TCP header, in it.
const DATA_OFFSET: usize = 12;

/// A transport protocol that superpackets may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl Protocol {
    /// Return its number in IP headers.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    /// Return the offset of the checksum in its header.
    #[must_use]
    pub const fn checksum_offset(self) -> usize {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    /// Return the bytes of its header without options.
    #[must_use]
    pub const fn header_size(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Udp => 8,
        }
    }
}

/// The fields of a virtio header, by their names in `<linux/virtio_net.h>`.
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
    /// Parse a header.
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

    /// Return the bytes of this header.
    #[must_use]
    pub fn emit(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [self.flags, self.gso_type, 0, 0, 0, 0, 0, 0, 0, 0];
        let fields = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (bytes, field) in bytes[2..].as_chunks_mut::<2>().0.iter_mut().zip(fields) {
            *bytes = field.to_ne_bytes();
        }
        bytes
    }

    /// Return the offset in the packet of the checksum to be completed.
    fn checksum_field(&self) -> usize {
        usize::from(self.csum_start) + usize::from(self.csum_offset)
    }
}

/// A parsed record. Parsing reads each byte once, so all decisions are made on the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The kind of record.
    pub shape: Shape,
    /// Bytes of its packet or superpacket.
    pub length: usize,
    /// The first byte of its packet, or 0 without one.
    first: u8,
}

/// The kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A complete packet.
    Plain,
    /// A packet whose checksum has to be completed.
    Partial(Partial),
    /// A superpacket.
    Super(Layout),
    /// No packet: header and packet contradict each other.
    Malformed,
}

/// A checksum to be completed (`CHECKSUM_PARTIAL` in Linux), by offsets in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The start of the bytes it covers, which end with the packet.
    pub start: usize,
    /// The field that holds it.
    pub field: usize,
    /// True for UDP, where zero means no checksum.
    pub udp: bool,
}

/// The parts of a superpacket, by offsets in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// True for IPv6, false for IPv4.
    pub ipv6: bool,
    /// The protocol of its segments.
    pub protocol: Protocol,
    /// The start of the transport header.
    pub transport: usize,
    /// The start of the payload.
    pub payload: usize,
    /// Bytes of payload in each segment but the last, which may be shorter; not zero.
    pub segment: usize,
}

/// The packets that records stand for, and their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// The number of packets.
    pub packets: u64,
    /// Bytes of those packets.
    pub size: u64,
    /// True if every record is a well-formed IP packet or superpacket.
    pub valid: bool,
}

impl Measure {
    /// The measure of no records.
    pub const NOTHING: Self = Self { packets: 0, size: 0, valid: true };
    /// The measure of a malformed record.
    pub const MALFORMED: Self = Self { packets: 0, size: 0, valid: false };

    /// Return the measure of the records of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, size: self.size + other.size, valid: self.valid && other.valid }
    }

    /// Return the measure of a packet without a virtio header.
    #[must_use]
    pub fn of_packet(packet: &[u8]) -> Self {
        Self { packets: 1, size: packet.len() as u64, valid: is_packet(first_byte(packet), packet.len()) }
    }
}

impl Record {
    /// Parse a record. Return None if it is too short for a header.
    #[must_use]
    pub fn parse(record: &[u8]) -> Option<Self> {
        let (header, packet) = record.split_first_chunk::<HEADER_SIZE>()?;
        let header = Header::parse(header);
        let first = first_byte(packet);
        let shape = if header.gso_type != GSO_NONE {
            layout(&header, packet, first).map_or(Shape::Malformed, Shape::Super)
        } else if header.flags & NEEDS_CSUM == 0 {
            Shape::Plain
        } else if usize::from(header.csum_start) >= IPV4_HEADER && header.checksum_field() + 2 <= packet.len() {
            Shape::Partial(Partial {
                start: usize::from(header.csum_start),
                field: header.checksum_field(),
                udp: usize::from(header.csum_offset) == Protocol::Udp.checksum_offset(),
            })
        } else {
            Shape::Malformed
        };
        Some(Self { shape, length: packet.len(), first })
    }

    /// Return its measure, without splitting it.
    #[must_use]
    pub fn measure(&self) -> Measure {
        let (packets, added) = match self.shape {
            Shape::Malformed => return Measure::MALFORMED,
            Shape::Plain | Shape::Partial(_) => (1, 0),
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
    /// Return the number of segments of a superpacket of `length` bytes, headers included.
    #[must_use]
    pub fn segments(&self, length: usize) -> usize {
        (length - self.payload).div_ceil(self.segment)
    }

    /// Return the bytes of the segment at `index`, headers included.
    #[must_use]
    pub fn segment_size(&self, length: usize, index: usize) -> usize {
        self.payload + self.segment.min(length - self.payload - index * self.segment)
    }
}

/// Return True if Wintun's driver accepts `length` bytes that begin with `first` as an IP packet.
pub(crate) fn is_packet(first: u8, length: usize) -> bool {
    (IPV4_HEADER..=MAX_PACKET).contains(&length) && (first >> 4 == 4 || (first >> 4 == 6 && length >= IPV6_HEADER))
}

fn first_byte(packet: &[u8]) -> u8 {
    packet.get(VERSION).copied().unwrap_or(0)
}

/// Return the parts of a superpacket, or None if header and packet contradict each other.
pub(crate) fn layout(header: &Header, packet: &[u8], first: u8) -> Option<Layout> {
    let (ipv6, protocol) = match (header.gso_type, first >> 4) {
        (GSO_TCPV4, 4) => (false, Protocol::Tcp),
        (GSO_TCPV6, 6) => (true, Protocol::Tcp),
        (GSO_UDP_L4, 4) => (false, Protocol::Udp),
        (GSO_UDP_L4, 6) => (true, Protocol::Udp),
        _ => return None,
    };
    let transport = usize::from(header.csum_start);
    if header.flags & NEEDS_CSUM == 0
        || header.gso_size == 0
        || usize::from(header.csum_offset) != protocol.checksum_offset()
        || !is_transport(ipv6, transport, first)
        || transport + protocol.header_size() > packet.len()
    {
        return None;
    }
    let header_size = match protocol {
        Protocol::Udp => protocol.header_size(),
        Protocol::Tcp => usize::from(packet[transport + DATA_OFFSET] >> 4) * 4,
    };
    let payload = transport + header_size;
    (header_size >= protocol.header_size() && payload < packet.len() && packet.len() <= MAX_PACKET).then(|| Layout {
        ipv6,
        protocol,
        transport,
        payload,
        segment: usize::from(header.gso_size),
    })
}

/// Return True if a transport header can be at `transport` in a packet that begins with `first`.
pub(crate) fn is_transport(ipv6: bool, transport: usize, first: u8) -> bool {
    if ipv6 { transport >= IPV6_HEADER } else { transport >= IPV4_HEADER && transport == usize::from(first & 0x0F) * 4 }
}
