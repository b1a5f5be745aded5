//! Any bundle: after it was coalesced and split, every flow has the same packets in the same order.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use threepipe_core::packet::checksum::internet_checksum;
use threepipe_core::packet::coalesce::Coalescer;
use threepipe_core::packet::record::{HEADER_SIZE, Header, NEEDS_CSUM, PLAIN_HEADER, Record, Shape};
use threepipe_core::packet::split::{Segments, complete};

#[derive(Arbitrary, Debug)]
struct Input {
    vnet_header: bool,
    udp: bool,
    pieces: Vec<Piece>,
}

#[derive(Arbitrary, Debug)]
enum Piece {
    Packet(Packet),
    Bytes(Vec<u8>),
}

/// A packet that continues its flow, unless a field says otherwise.
#[derive(Arbitrary, Debug)]
struct Packet {
    flow: u8,
    size: u8,
    flags: Option<u8>,
    sequence: i8,
    identification: i8,
    fragment: Option<bool>,
    options: u8,
    wrong: Wrong,
    partial: bool,
    replaced: Option<(u8, u8)>,
}

#[derive(Arbitrary, Debug, PartialEq)]
enum Wrong {
    Nothing,
    Header,
    Transport,
    Length,
}

#[derive(Default, Clone)]
struct Flow {
    sequence: u32,
    identification: u16,
    size: u8,
}

impl Packet {
    fn bytes(&self, vnet_header: bool, flow: &mut Flow) -> Vec<u8> {
        let (ipv6, udp) = (self.flow & 1 != 0, self.flow & 2 != 0);
        let transport = if ipv6 { 40 } else { 20 };
        // Segments of the same size as before are the most interesting.
        let size = if self.size < 128 { flow.size } else { self.size & 0x7F };
        flow.size = size;
        let sequence = flow.sequence.wrapping_add(i32::from(self.sequence) as u32);
        let identification = flow.identification.wrapping_add(i16::from(self.identification) as u16);
        flow.sequence = sequence.wrapping_add(u32::from(size));
        flow.identification = identification.wrapping_add(1);

        let mut body = if udp { vec![0; 8] } else { vec![0; 20 + 4 * usize::from(self.options % 2)] };
        let words = body.len() / 4;
        body[..4].copy_from_slice(&[0, 1 + (self.flow >> 2) % 3, 0, 80]);
        if !udp {
            body[4..8].copy_from_slice(&sequence.to_be_bytes());
            body[12] = (words as u8) << 4;
            body[13] = self.flags.unwrap_or(0x10);
        }
        body.extend((0..size).map(|index| index ^ self.options));
        let length = body.len();
        if udp {
            body[4..6].copy_from_slice(&(length as u16).to_be_bytes());
        }
        let mut packet = vec![0; transport];
        let total = (transport + length) as u16;
        if ipv6 {
            packet[0] = 0x60;
            packet[4..6].copy_from_slice(&(length as u16).to_be_bytes());
            packet[6..8].copy_from_slice(&[if udp { 17 } else { 6 }, 64]);
        } else {
            packet[0] = 0x45;
            packet[2..4].copy_from_slice(&total.to_be_bytes());
            packet[4..6].copy_from_slice(&identification.to_be_bytes());
            packet[6] = if self.fragment.unwrap_or(true) { 0x40 } else { 0 };
            packet[8..10].copy_from_slice(&[64, if udp { 17 } else { 6 }]);
            packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = internet_checksum(&packet, 0);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        let addresses = if ipv6 { &packet[8..40] } else { &packet[12..20] };
        let pseudo = !internet_checksum(addresses, length as u64 + if udp { 17 } else { 6 });
        let field = if udp { 6 } else { 16 };
        let partial = vnet_header && self.partial;
        let sum = if partial { pseudo } else { internet_checksum(&body, u64::from(pseudo)) };
        body[field..field + 2].copy_from_slice(&(if udp && sum == 0 { 0xFFFF } else { sum }).to_be_bytes());
        packet.extend(body);
        match self.wrong {
            Wrong::Nothing => {}
            Wrong::Header => packet[transport - 10] ^= 1,
            Wrong::Transport => packet[transport + field] ^= 1,
            Wrong::Length => packet.push(0),
        }
        let mut bytes = Vec::new();
        if vnet_header {
            let header = Header {
                flags: if partial { NEEDS_CSUM } else { 0 },
                csum_start: transport as u16,
                csum_offset: field as u16,
                ..Header::default()
            };
            bytes.extend(header.emit());
        }
        bytes.extend(packet);
        if let Some((offset, byte)) = self.replaced
            && let Some(target) = bytes.get_mut(usize::from(offset))
        {
            *target = byte;
        }
        bytes
    }
}

fuzz_target!(|input: Input| {
    let mut flows = vec![Flow { size: 8, ..Flow::default() }; 256];
    let pieces: Vec<Vec<u8>> = (input.pieces.iter())
        .map(|piece| match piece {
            Piece::Packet(packet) => packet.bytes(input.vnet_header, &mut flows[usize::from(packet.flow)]),
            Piece::Bytes(bytes) => bytes.clone(),
        })
        .collect();
    check(&pieces, input.vnet_header, input.udp);
});

fn check(pieces: &[Vec<u8>], vnet_header: bool, udp: bool) {
    let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let mut coalescer = Coalescer::default();
    // A coalescer that reuses its memory makes the same plan.
    coalescer.plan(&slices, vnet_header, udp);
    let plan = coalescer.plan(&slices, vnet_header, udp);
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    for piece in pieces {
        let record = if vnet_header { piece.clone() } else { [&PLAIN_HEADER, piece.as_slice()].concat() };
        file(&mut before, record);
    }
    let mut seen = vec![false; pieces.len()];
    let mut last_first = None;
    for group in plan.groups() {
        assert!(last_first < Some(group.first()));
        last_first = Some(group.first());
        let mut record = vec![0; group.size(&slices, vnet_header)];
        plan.write(group, &slices, vnet_header, &mut record);
        for index in plan.pieces(group) {
            assert!(!std::mem::replace(&mut seen[index], true));
        }
        if group.is_merged() {
            let parsed = Record::parse(&record).expect("a merged record has a header");
            assert!(matches!(parsed.shape, Shape::Super(_)));
            assert_eq!(parsed.measure().packets, plan.pieces(group).count() as u64);
        }
        file(&mut after, record);
    }
    assert!(seen.iter().all(|seen| *seen));
    assert_eq!(before, after);
}

/// Split `record`, and append its packets to those of their flows.
fn file(flows: &mut BTreeMap<Vec<u8>, Vec<Vec<u8>>>, mut record: Vec<u8>) {
    match Record::parse(&record).map(|record| record.shape) {
        Some(Shape::Super(layout)) => {
            let segments = Segments::new(&record, layout);
            for index in 0..segments.count() {
                let mut packet = vec![0; segments.size(index)];
                segments.write(index, &mut packet);
                put(flows, packet);
            }
        }
        Some(Shape::Partial(partial)) => {
            complete(&mut record, &partial);
            put(flows, record.split_off(HEADER_SIZE));
        }
        Some(Shape::Plain) => put(flows, record.split_off(HEADER_SIZE)),
        // A malformed record has to stay as it is.
        Some(Shape::Malformed) | None => flows.entry(vec![]).or_default().push(record),
    }
}

fn put(flows: &mut BTreeMap<Vec<u8>, Vec<Vec<u8>>>, mut packet: Vec<u8>) {
    let key = match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= 24 => [&packet[9..10], &packet[12..24]].concat(),
        Some(6) if packet.len() >= 44 => [&packet[6..7], &packet[8..44]].concat(),
        _ => vec![],
    };
    // The identification of a packet that may not be fragmented has no meaning, but a wrong checksum has to stay wrong.
    if packet.len() >= 20 && packet[0] == 0x45 && packet[6] & 0x40 != 0 {
        let right = internet_checksum(&packet[..20], 0) == 0;
        let computed = packet[10..12] != [0xFF, 0xFF];
        packet[4..6].fill(0);
        packet[10..12].copy_from_slice(&[right.into(), computed.into()]);
    }
    flows.entry(key).or_default().push(packet);
}
