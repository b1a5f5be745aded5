//! The flow of a packet: its addresses, protocol and ports, behind all header extensions.
//!
//! The twin is `threepipe.core.flow`.

use super::fields::u16_at;
use super::record::is_packet;

const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
/// More than any real packet has; this bounds the work for a hostile one.
const MAX_EXTENSIONS: usize = 16;

/// The fields that tell flows apart. Addresses have 4 or 16 bytes.
pub struct Flow<'a> {
    /// The source address.
    pub source: &'a [u8],
    /// The destination address.
    pub destination: &'a [u8],
    /// The IP protocol number behind extension headers.
    pub protocol: u8,
    /// The source port and the destination port; both 0 if the packet has no ports.
    pub ports: (u16, u16),
    /// True for a part of a packet.
    pub fragment: bool,
    /// The offset of the header of `protocol`; in a fragment that is not the first, of its data.
    pub start: usize,
}

/// The end of a packet's IP headers.
struct Upper {
    start: usize,
    protocol: u8,
    fragment: bool,
    /// A fragment that is not the first.
    later: bool,
}

impl<'a> Flow<'a> {
    /// Return the flow of an IP packet; `None` if it is not an IP packet or its headers are cut off.
    #[must_use]
    pub fn of(packet: &'a [u8]) -> Option<Self> {
        if !packet.first().is_some_and(|&first| is_packet(first, packet.len())) {
            return None;
        }
        let (source, destination, upper) = if packet[0] >> 4 == 4 {
            (&packet[12..16], &packet[16..20], behind_options(packet)?)
        } else {
            (&packet[8..24], &packet[24..40], behind_extensions(packet)?)
        };
        let Upper { start, protocol, fragment, later } = upper;
        if start > packet.len() {
            return None;
        }
        let ports = if later || !has_ports(protocol) {
            (0, 0)
        } else if start + 4 > packet.len() {
            return None;
        } else {
            (u16_at(packet, start), u16_at(packet, start + 2))
        };
        Some(Self { source, destination, protocol, ports, fragment, start })
    }
}

fn behind_options(packet: &[u8]) -> Option<Upper> {
    let start = usize::from(packet[0] & 0x0F) * 4;
    let flags = u16_at(packet, 6);
    let upper = Upper { start, protocol: packet[9], fragment: flags & 0x3FFF != 0, later: flags & 0x1FFF != 0 };
    (start >= 20).then_some(upper)
}

fn behind_extensions(packet: &[u8]) -> Option<Upper> {
    let mut upper = Upper { start: 40, protocol: packet[6], fragment: false, later: false };
    for _ in 0..=MAX_EXTENSIONS {
        if upper.later || !is_extension(upper.protocol) {
            return Some(upper);
        }
        let header = packet.get(upper.start..).filter(|rest| rest.len() >= 8)?;
        let size = match upper.protocol {
            FRAGMENT => {
                let offset = u16_at(header, 2);
                upper.fragment |= offset & 0xFFF9 != 0;
                upper.later = offset >= 8;
                8
            }
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        upper.protocol = header[0];
        upper.start += size;
    }
    None
}

/// IANA's list of IPv6 extension header types, without ESP, which hides the rest.
fn is_extension(kind: u8) -> bool {
    matches!(kind, 0 | ROUTING | FRAGMENT | AUTHENTICATION | 60 | 135 | 139 | 140)
}

/// TCP, UDP, DCCP, SCTP and UDP-Lite: two ports of 16 bits come first.
fn has_ports(protocol: u8) -> bool {
    matches!(protocol, 6 | 17 | 33 | 132 | 136)
}
