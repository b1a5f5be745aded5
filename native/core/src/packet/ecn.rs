//! Explicit congestion notification (ECN) of packets that pass a tunnel (RFC 6040).
//!
//! The twin of `threepipe.core.ecn`.

use crate::packet::checksum::fold;
use crate::packet::fields::{set_u16, u16_at};

/// Offset of the checksum in an IPv4 header.
const CHECKSUM: usize = 10;
const NOT_ECT: u8 = 0;
const ECT_1: u8 = 1;
const ECT_0: u8 = 2;
const CE: u8 = 3;
/// Inner field, outer field: the field of the packet that goes on, or None to drop it (section 4.2, figure 4).
const COMBINED: [[Option<u8>; 4]; 4] = [
    [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None],
    [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)],
    [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)],
    [Some(CE); 4],
];

/// Return the ECN field of an IP packet; 0 for anything else.
#[must_use]
pub fn ecn_of(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] => shift(*first).map_or(NOT_ECT, |shift| second >> shift & 3),
        _ => NOT_ECT,
    }
}

/// Combine the ECN field of `packet`, a whole IP packet, with `outer`, that of the header it came in, of two bits.
///
/// Changes the checksum of IPv4 too. Return False for a packet to drop: it met congestion although it is not
/// ECN-capable.
///
/// # Panics
///
/// If the packet has to be changed, and is shorter than an IP header.
#[must_use]
pub fn combine(packet: &mut [u8], outer: u8) -> bool {
    let inner = ecn_of(packet);
    let Some(combined) = COMBINED[usize::from(inner)][usize::from(outer & 3)] else {
        return false;
    };
    if combined != inner
        && let Some(shift) = packet.first().and_then(|first| shift(*first))
    {
        let old = u16_at(packet, 0);
        let new = old & !(3 << shift) | u16::from(combined) << shift;
        set_u16(packet, 0, new);
        if shift == 0 {
            // RFC 1624, equation 3.
            let total = u64::from(!u16_at(packet, CHECKSUM)) + u64::from(!old) + u64::from(new);
            set_u16(packet, CHECKSUM, !fold(total));
        }
    }
    true
}

/// Return the bits behind the field in a packet's second byte. None if `first` does not begin an IP packet.
fn shift(first: u8) -> Option<u32> {
    match first >> 4 {
        4 => Some(0),
        6 => Some(4),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::checksum::internet_checksum;

    #[test]
    fn combine_keeps_the_checksum_of_ipv4_right() {
        for (inner, outer) in (0..16).map(|pair| (pair >> 2, pair & 3)) {
            for identification in 0..=u16::MAX {
                let mut header = [0x45, 0xB8 | inner, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
                set_u16(&mut header, 4, identification);
                let checksum = internet_checksum(&header, 0);
                set_u16(&mut header, CHECKSUM, checksum);
                assert_eq!(combine(&mut header, outer), inner != NOT_ECT || outer != CE);
                assert_eq!((internet_checksum(&header, 0), header[1] & !3), (0, 0xB8));
            }
        }
    }

    #[test]
    fn combine_changes_nothing_else_of_ipv6() {
        let mut packet = [0xFF; 40];
        packet[..2].copy_from_slice(&[0x6F, 0xEF]);
        assert_eq!((ecn_of(&packet), combine(&mut packet, CE), ecn_of(&packet)), (ECT_0, true, CE));
        assert_eq!(packet, [&[0x6F][..], &[0xFF; 39]].concat()[..]);
    }

    #[test]
    fn ecn_of_no_packet_is_0() {
        assert_eq!([&[][..], &[0x45], &[0x50, 0xFF], &[0x45, 0xFE], &[0x60, 0x1F]].map(ecn_of), [0, 0, 0, 2, 1]);
    }
}
