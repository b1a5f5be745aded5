//! Any record: it is split to the packets that it was measured to have, and every segment has valid checksums.

#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use threepipe_core::packet::checksum::internet_checksum;
use threepipe_core::packet::record::{HEADER_SIZE, Header, MAX_PACKET, Protocol, Record, Shape};
use threepipe_core::packet::split::{Segments, complete};

/// A superpacket that may be well-formed, with some bytes replaced.
#[derive(Arbitrary, Debug)]
struct Input<'a> {
    ipv6: bool,
    udp: bool,
    needs_checksum: bool,
    gso_type: Option<u8>,
    gso_size: u16,
    csum_start: Option<u16>,
    csum_offset: Option<u16>,
    ip_words: u8,
    extensions: u8,
    data_offset: u8,
    replaced: Vec<(u8, u8)>,
    bytes: &'a [u8],
}

impl Input<'_> {
    fn record(&self) -> Vec<u8> {
        let ip_size =
            if self.ipv6 { 40 + 8 * usize::from(self.extensions % 4) } else { usize::from(self.ip_words % 16) * 4 };
        let protocol = if self.udp { Protocol::Udp } else { Protocol::Tcp };
        let header = Header {
            flags: u8::from(self.needs_checksum),
            gso_type: self.gso_type.unwrap_or(match (self.udp, self.ipv6) {
                (true, _) => 5,
                (false, true) => 4,
                (false, false) => 1,
            }),
            hdr_len: 0,
            gso_size: self.gso_size,
            csum_start: self.csum_start.unwrap_or(ip_size as u16),
            csum_offset: self.csum_offset.unwrap_or(protocol.checksum_offset() as u16),
        };
        let mut record = header.emit().to_vec();
        record.extend_from_slice(self.bytes);
        if let Some(first) = record.get_mut(HEADER_SIZE) {
            *first = if self.ipv6 { 0x60 } else { 0x40 | self.ip_words % 16 };
        }
        if let Some(byte) = record.get_mut(HEADER_SIZE + ip_size + 12) {
            *byte = self.data_offset;
        }
        for (offset, byte) in &self.replaced {
            if let Some(target) = record.get_mut(usize::from(*offset)) {
                *target = *byte;
            }
        }
        record
    }
}

fuzz_target!(|input: Input| check(input.record()));

fn check(mut record: Vec<u8>) {
    let Some(parsed) = Record::parse(&record) else {
        assert!(record.len() < HEADER_SIZE);
        return;
    };
    let measure = parsed.measure();
    match parsed.shape {
        Shape::Malformed => assert!(measure.packets == 0 && measure.size == 0 && !measure.valid),
        Shape::Plain => assert!(measure.packets == 1 && measure.size == (record.len() - HEADER_SIZE) as u64),
        Shape::Partial(partial) => {
            complete(&mut record, &partial);
            let again = Record::parse(&record).map(|record| record.shape);
            assert_eq!(again, Some(Shape::Plain));
        }
        Shape::Super(layout) => {
            assert!(measure.valid);
            let segments = Segments::new(&record, layout);
            let (mut packets, mut size, mut data) = (0, 0, 0);
            let mut target = vec![0; MAX_PACKET];
            for index in 0..segments.count() {
                let length = segments.size(index);
                segments.write(index, &mut target[..length]);
                check_segment(&target[..length], layout.ipv6, layout.transport, layout.protocol);
                packets += 1;
                size += length as u64;
                data += length - layout.payload;
            }
            assert!(packets == measure.packets && size == measure.size);
            assert_eq!(data, record.len() - HEADER_SIZE - layout.payload);
        }
    }
}

/// Check lengths and checksums, field by field.
fn check_segment(packet: &[u8], ipv6: bool, transport: usize, protocol: Protocol) {
    let word = |offset: usize| usize::from(u16::from_be_bytes([packet[offset], packet[offset + 1]]));
    let addresses = if ipv6 {
        assert_eq!(word(4), packet.len() - 40);
        &packet[8..40]
    } else {
        assert_eq!(word(2), packet.len());
        assert_eq!(internet_checksum(&packet[..transport], 0), 0);
        &packet[12..20]
    };
    let length = packet.len() - transport;
    let mut pseudo = addresses.to_vec();
    pseudo.extend_from_slice(&(length as u32).to_be_bytes());
    pseudo.extend_from_slice(&u32::from(protocol.number()).to_be_bytes());
    pseudo.extend_from_slice(&packet[transport..]);
    assert_eq!(internet_checksum(&pseudo, 0), 0);
    if protocol == Protocol::Udp {
        assert_eq!(word(transport + 4), length);
        assert_ne!(word(transport + 6), 0);
    }
}
