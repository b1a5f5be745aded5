//! Tunnel superpackets against datagrams made by hand.

use threepipe_core::packet::record::{HEADER_SIZE, MAX_PACKET, PLAIN_HEADER, Protocol};
use threepipe_core::packet::tunnel::{Tunnel, WIDE_HEADER_SIZE, narrow};

use crate::packets::{Packet, split};

/// A VXLAN and an Ethernet header.
const PREFIX: [u8; 22] = [8, 0, 0, 0, 0, 0, 7, 0, 2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];

/// Return a record with a wide header: `inner` as a superpacket in a datagram with a checksum.
pub fn tunnelled(ipv6: bool, inner: &Packet, size: u16) -> Vec<u8> {
    let inside = inner.superpacket(size);
    let payload = [&PREFIX, &inside[HEADER_SIZE..]].concat();
    let outer = Packet { partial: true, ..Packet::new(ipv6, Protocol::Udp, payload) };
    let (transport, place) = (outer.transport(), outer.transport() + 8 + PREFIX.len());
    let mut header = [0; WIDE_HEADER_SIZE];
    header[..HEADER_SIZE].copy_from_slice(&inside[..HEADER_SIZE]);
    header[0] |= 8;
    header[1] |= if ipv6 { 0x40 } else { 0x20 };
    header[6..8].copy_from_slice(&((place + inner.transport()) as u16).to_ne_bytes());
    header[20..22].copy_from_slice(&(transport as u16).to_le_bytes());
    header[22..24].copy_from_slice(&(place as u16).to_le_bytes());
    [header.to_vec(), outer.bytes()].concat()
}

/// Return the datagrams that such a record stands for.
pub fn datagrams(ipv6: bool, inner: &Packet, size: u16) -> Vec<Vec<u8>> {
    let packets = split(&inner.superpacket(size)).into_iter().enumerate();
    packets
        .map(|(index, packet)| {
            let outer = Packet::new(ipv6, Protocol::Udp, [&PREFIX, packet.as_slice()].concat());
            Packet { identification: outer.identification.wrapping_add(index as u16), ..outer }.bytes()
        })
        .collect()
}

/// Return the runs of a record with a wide header.
fn runs(record: &[u8]) -> Option<Vec<Vec<u8>>> {
    let tunnel = Tunnel::parse(record)?;
    let sizes: Vec<usize> = tunnel.sizes().collect();
    let mut memory = vec![0xEE; sizes.iter().sum()];
    tunnel.write(&mut memory);
    Some(sizes.into_iter().map(|size| memory.drain(..size).collect()).collect())
}

#[test]
fn runs_of_a_tunnel_superpacket_split_into_its_datagrams() {
    for (ipv6, inside_ipv6) in [(false, false), (false, true), (true, false), (true, true)] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for (length, size) in [(1, 100), (100, 100), (950, 100), (60_000, 1400), (60_000, 400), (65_000, 48)] {
                let inner =
                    Packet::new(inside_ipv6, protocol, (0..length).map(|byte: usize| (byte * 31) as u8).collect());
                let runs = runs(&tunnelled(ipv6, &inner, size)).expect("a tunnel superpacket");
                assert!(runs.iter().all(|run| run.len() <= HEADER_SIZE + MAX_PACKET && split(run).len() <= 64));
                let found: Vec<_> = runs.iter().flat_map(|run| split(run)).collect();
                assert!(found == datagrams(ipv6, &inner, size), "{ipv6} {inside_ipv6} {protocol:?} {length} {size}");
            }
        }
    }
}

#[test]
fn datagrams_without_a_checksum_stay_alone_over_ipv6_only() {
    let inner = Packet::new(false, Protocol::Tcp, vec![7; 300]);
    for (ipv6, count) in [(false, 1), (true, 3)] {
        let mut record = tunnelled(ipv6, &inner, 100);
        record[0] &= !8;
        let runs = runs(&record).expect("a tunnel superpacket");
        assert_eq!(runs.len(), count);
        let datagrams = datagrams(ipv6, &inner, 100);
        for (run, mut datagram) in runs.iter().zip(datagrams).filter(|_| ipv6) {
            datagram[46..48].fill(0);
            assert_eq!(run, &[&PLAIN_HEADER, datagram.as_slice()].concat());
        }
    }
}

#[test]
fn narrow_moves_the_virtio_header_to_its_packet() {
    let record = Packet::new(true, Protocol::Tcp, vec![7; 300]).superpacket(100);
    let mut wide = [&record[..HEADER_SIZE], &[0; WIDE_HEADER_SIZE - HEADER_SIZE], &record[HEADER_SIZE..]].concat();
    assert!(Tunnel::parse(&wide).is_none());
    let start = narrow(&mut wide);
    assert_eq!(wide[start..], record);
    for length in 0..WIDE_HEADER_SIZE {
        assert!(narrow(&mut vec![1; length]) <= length);
    }
}
