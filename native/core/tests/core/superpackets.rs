//! Split and coalesce against packets made by hand, and against each other.

use crate::packets::{DONT_FRAGMENT, Packet, coalesce, split};
use proptest::prelude::*;
use threepipe_core::packet::record::{HEADER_SIZE, MAX_PACKET, Measure, Protocol, Record, Shape};

const KINDS: [(bool, Protocol); 4] =
    [(false, Protocol::Tcp), (true, Protocol::Tcp), (false, Protocol::Udp), (true, Protocol::Udp)];

fn measure(record: &[u8]) -> Measure {
    Record::parse(record).expect("a header").measure()
}

fn bytes(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(Packet::bytes).collect()
}

/// Return the segments as the kernel cuts them, each built field by field.
fn naive_split(packet: &Packet, size: usize) -> Vec<Vec<u8>> {
    let count = packet.payload.len().div_ceil(size);
    let segments = packet.payload.chunks(size).enumerate().map(|(index, payload)| {
        let mut flags = packet.flags;
        if index + 1 < count {
            flags &= !0x09;
        }
        if index > 0 {
            flags &= !0x80;
        }
        Packet {
            flags,
            identification: packet.identification.wrapping_add(index as u16),
            sequence: packet.sequence.wrapping_add((index * size) as u32),
            payload: payload.to_vec(),
            ..packet.clone()
        }
        .bytes()
    });
    segments.collect()
}

#[test]
fn split_of_a_superpacket_matches_the_kernel() {
    for (ipv6, protocol) in KINDS {
        for (length, size) in [(1, 1), (100, 100), (101, 100), (99, 100), (4000, 1448), (65_400, 1448), (300, 1)] {
            let packet = Packet {
                flags: 0x99,
                fragment: DONT_FRAGMENT,
                identification: 0xFFFE,
                ..Packet::new(ipv6, protocol, (0..length).map(|byte: usize| (byte * 31) as u8).collect())
            };
            let record = packet.superpacket(size);
            let expected = naive_split(&packet, usize::from(size));
            assert_eq!(split(&record), expected);
            let bytes = expected.iter().map(Vec::len).sum::<usize>() as u64;
            assert_eq!(measure(&record), Measure { packets: expected.len() as u64, size: bytes, valid: true });
        }
    }
}

#[test]
fn parse_of_contradicting_header_and_packet_is_malformed() {
    let record = Packet::new(false, Protocol::Tcp, vec![1; 100]).superpacket(50);
    let shape = |offset: usize, value: u8| {
        let mut record = record.clone();
        record[offset] = value;
        Record::parse(&record).expect("a header").shape
    };
    assert!(matches!(shape(0, 1), Shape::Super(_)));
    for (offset, value) in [(0, 0), (1, 2), (1, 4), (1, 5), (1, 0x81), (4, 0), (6, 24), (8, 6), (10, 0x46), (10, 0x65)]
    {
        assert_eq!(shape(offset, value), Shape::Malformed, "byte {offset} is {value}");
    }
    for data_offset in [0x40, 0xF0] {
        let parsed = shape(HEADER_SIZE + 20 + 12, data_offset);
        assert_eq!(matches!(parsed, Shape::Super(_)), data_offset == 0xF0);
    }
    for length in HEADER_SIZE..HEADER_SIZE + 41 {
        assert_eq!(measure(&record[..length]), Measure::MALFORMED);
    }
    assert!(Record::parse(&record[..9]).is_none());
}

#[test]
fn split_completes_partial_checksums_within_the_packet_only() {
    for (ipv6, protocol) in KINDS {
        let packet = Packet { partial: true, ..Packet::new(ipv6, protocol, vec![9; 33]) };
        assert_eq!(split(&packet.record()), [Packet { partial: false, ..packet.clone() }.bytes()]);
        let mut record = packet.record();
        record[6] = 0xFF;
        assert_eq!(measure(&record), Measure::MALFORMED);
    }
}

#[test]
fn measure_accepts_the_packets_that_wintun_accepts() {
    for (first, length, valid) in [
        (0x45, 19, false),
        (0x45, 20, true),
        (0x60, 39, false),
        (0x60, 40, true),
        (0x50, 40, false),
        (0x45, MAX_PACKET, true),
        (0x45, MAX_PACKET + 1, false),
        (0, 0, false),
    ] {
        let mut record = vec![0; HEADER_SIZE + length];
        if length > 0 {
            record[HEADER_SIZE] = first;
        }
        assert_eq!(measure(&record), Measure { packets: 1, size: length as u64, valid });
        assert_eq!(Measure::of_packet(&record[HEADER_SIZE..]), measure(&record));
    }
}

#[test]
fn coalesce_of_consecutive_packets_makes_full_superpackets() {
    for (ipv6, protocol) in KINDS {
        let datagrams = if protocol == Protocol::Udp { 2 } else { 1 };
        for (size, count, records) in [(1, 64, 1), (1, 65, datagrams), (1448, 3, 1), (1400, 100, 3), (40_000, 2, 2)] {
            let train = Packet::new(ipv6, protocol, vec![]).train(count, size);
            let merged = coalesce(&bytes(&train), false, true);
            assert_eq!(merged.len(), records, "{protocol:?}, {count} of {size} bytes");
            assert_eq!(merged.iter().flat_map(|record| split(record)).collect::<Vec<_>>(), bytes(&train));
        }
        let train = Packet::new(ipv6, protocol, vec![]).train(3, 10);
        assert_eq!(coalesce(&bytes(&train), false, false).len(), if protocol == Protocol::Tcp { 1 } else { 3 });
    }
}

#[test]
fn coalesce_keeps_packets_apart_that_differ_in_any_shared_field() {
    type Change = fn(&mut Packet);
    let of_both: [Change; 4] = [
        |packet| packet.host = 2,
        |packet| packet.port += 1,
        |packet| packet.traffic_class = 1,
        |packet| packet.hop_limit -= 1,
    ];
    let of_ipv4: [Change; 4] = [
        |packet| packet.identification += 1,
        |packet| packet.fragment = DONT_FRAGMENT,
        |packet| packet.fragment = 0x2000,
        |packet| packet.fragment = 1,
    ];
    let of_tcp: [Change; 8] = [
        |packet| packet.sequence += 1,
        |packet| packet.acknowledgment += 1,
        |packet| packet.window += 1,
        |packet| packet.urgent += 1,
        |packet| packet.options = vec![1; 4],
        |packet| packet.flags = 0x11,
        |packet| packet.flags = 0x30,
        |packet| packet.flags = 0x90,
    ];
    for (ipv6, protocol) in KINDS {
        let mut changes = of_both.to_vec();
        changes.extend(of_ipv4.iter().filter(|_| !ipv6));
        changes.extend(of_tcp.iter().filter(|_| protocol == Protocol::Tcp));
        for (index, change) in changes.iter().enumerate() {
            let mut pair = Packet::new(ipv6, protocol, vec![]).train(2, 10);
            assert_eq!(coalesce(&bytes(&pair), false, true).len(), 1);
            change(&mut pair[1]);
            let merged = coalesce(&bytes(&pair), false, true);
            assert_eq!(merged.len(), 2, "{protocol:?}, IPv6 {ipv6}, change {index}");
            assert_eq!(merged.iter().flat_map(|record| split(record)).collect::<Vec<_>>(), bytes(&pair));
        }
        // A longer segment does not fit. A shorter one, or one with PSH, is the last.
        for (payload, flags, records) in [(11, 0x10, 2), (9, 0x10, 2), (10, 0x18, 2), (10, 0x10, 1)] {
            let mut train = Packet::new(ipv6, protocol, vec![]).train(3, 10);
            (train[1].payload, train[1].flags) = (vec![3; payload], flags);
            train[2].sequence = train[1].sequence.wrapping_add(payload as u32);
            let expected = if protocol == Protocol::Udp && payload == 10 { 1 } else { records };
            assert_eq!(coalesce(&bytes(&train), false, true).len(), expected);
        }
        // No wrong checksum is repaired.
        for wrong in [if ipv6 { None } else { Some(10) }, Some(if ipv6 { 40 } else { 20 } + protocol.checksum_offset())]
        {
            for place in 0..2 {
                let Some(offset) = wrong else { continue };
                let mut pair = bytes(&Packet::new(ipv6, protocol, vec![]).train(2, 10));
                pair[place][offset] ^= 1;
                assert_eq!(coalesce(&pair, false, true).len(), 2);
            }
        }
    }
}

#[test]
fn coalesce_keeps_the_order_of_flows_and_ends_them_at_an_unknown_packet() {
    let train = Packet::new(false, Protocol::Tcp, vec![]).train(3, 10);
    let other = Packet { port: 7, ..train[0].clone() };
    let mixed = bytes(&[train[0].clone(), other.clone(), train[1].clone(), other, train[2].clone()]);
    let merged = coalesce(&mixed, false, true);
    let lengths: Vec<usize> = merged.iter().map(Vec::len).collect();
    assert_eq!(lengths, [HEADER_SIZE + 70, HEADER_SIZE + 50, HEADER_SIZE + 50]);

    let fragment = Packet { fragment: 0x2000, ..train[0].clone() };
    let broken = bytes(&[train[0].clone(), fragment, train[1].clone()]);
    assert_eq!(coalesce(&broken, false, true).len(), 3);
}

#[test]
fn coalesce_of_records_with_partial_checksums_merges_them() {
    for (ipv6, protocol) in KINDS {
        let partial = Packet { partial: true, ..Packet::new(ipv6, protocol, vec![]) }.train(3, 10);
        let records: Vec<Vec<u8>> = partial.iter().map(Packet::record).collect();
        let merged = coalesce(&records, true, true);
        assert_eq!(merged.len(), 1);
        let complete: Vec<Packet> = partial.iter().map(|packet| Packet { partial: false, ..packet.clone() }).collect();
        assert_eq!(split(&merged[0]), bytes(&complete));
        // Superpackets are not merged.
        assert_eq!(
            coalesce(&[merged[0].clone(), merged[0].clone()], true, true),
            [merged[0].clone(), merged[0].clone()]
        );
    }
}

prop_compose! {
    /// Generate packets of a few flows, most of which continue where the last packet ended.
    fn traffic()(seeds in prop::collection::vec((0..4_usize, 0..3_u8, 0..20_u8, any::<bool>(), 0..3_usize), 0..60)) -> Vec<Packet> {
        let mut flows: Vec<Packet> = KINDS.iter().map(|(ipv6, protocol)| Packet::new(*ipv6, *protocol, vec![])).collect();
        seeds.into_iter().map(|(flow, host, chance, partial, size)| {
            let flow = &mut flows[flow];
            let mut packet = Packet { host, partial, payload: vec![chance; [20, 20, 13][size]], ..flow.clone() };
            match chance {
                0 => packet.flags = 0x18,
                1 => packet.hop_limit = 3,
                2 => packet.fragment = 0x2000,
                3 => packet.sequence = packet.sequence.wrapping_add(1),
                _ => {}
            }
            flow.sequence = packet.sequence.wrapping_add(packet.payload.len() as u32);
            flow.identification = flow.identification.wrapping_add(1);
            packet
        }).collect()
    }
}

proptest! {
    #[test]
    fn split_of_any_superpacket_matches_the_kernel(
        kind in 0..4_usize,
        payload in prop::collection::vec(any::<u8>(), 1..3000),
        size in 1..1500_u16,
        flags: u8,
        sequence: u32,
        identification: u16,
        words in 0..11_usize,
    ) {
        let (ipv6, protocol) = KINDS[kind];
        let options = if protocol == Protocol::Tcp { vec![1; words * 4] } else { vec![] };
        let packet = Packet { identification, sequence, flags, options, ..Packet::new(ipv6, protocol, payload) };
        prop_assert_eq!(split(&packet.superpacket(size)), naive_split(&packet, usize::from(size)));
    }

    #[test]
    fn split_of_any_record_matches_its_measure(mut record in prop::collection::vec(any::<u8>(), 10..200), kind in 0..4_usize) {
        record[..2].copy_from_slice(&[1, [0, 1, 4, 5][kind]]);
        let measure = measure(&record);
        let packets = split(&record);
        prop_assert_eq!(packets.len() as u64, measure.packets);
        prop_assert_eq!(packets.iter().map(Vec::len).sum::<usize>() as u64, measure.size);
    }

    #[test]
    fn split_of_coalesced_packets_returns_the_packets(packets in traffic(), vnet_header: bool, udp: bool) {
        let pieces: Vec<Vec<u8>> = packets.iter().map(|packet| {
            if vnet_header { packet.record() } else { Packet { partial: false, ..packet.clone() }.bytes() }
        }).collect();
        // The sort is stable, so the packets of each flow keep their order.
        let flow = |packet: &Vec<u8>| if packet[0] == 0x45 { packet[9..24].to_vec() } else { packet[6..44].to_vec() };
        let flow = |packet: &Vec<u8>| {
            let mut flow = flow(packet);
            if packet[0] == 0x45 { flow[1..3].fill(0) } else { flow[1] = 0 }
            flow
        };
        let mut after: Vec<Vec<u8>> = coalesce(&pieces, vnet_header, udp).iter().flat_map(|record| split(record)).collect();
        let mut before: Vec<Vec<u8>> = packets.iter().map(|packet| Packet { partial: false, ..packet.clone() }.bytes()).collect();
        before.sort_by_key(flow);
        after.sort_by_key(flow);
        prop_assert_eq!(before, after);
    }
}
