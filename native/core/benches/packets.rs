//! Nanoseconds a packet of each function that runs for every packet: `cargo bench`.

#![allow(clippy::cast_precision_loss)] // The numbers are shown with one decimal.

use std::hint::black_box;
use std::time::{Duration, Instant};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use threepipe_core::packet::checksum::{copy_and_sum, internet_checksum};
use threepipe_core::packet::coalesce::Coalescer;
use threepipe_core::packet::record::{HEADER_SIZE, Record, Shape};
use threepipe_core::packet::split::Segments;

const PACKETS: usize = 256;

fn main() {
    for size in [20, 64, 1500, 65535] {
        let (data, mut target) = (vec![0x5A; size], vec![0; size]);
        let time = best(|| {
            black_box(internet_checksum(black_box(&data), 0));
        });
        println!("checksum of {size} bytes: {time:.1} ns, {:.1} GB/s", size as f64 / time);
        let time = best(|| {
            black_box(copy_and_sum(black_box(&mut target), black_box(&data)));
        });
        println!("copy and sum of {size} bytes: {time:.1} ns, {:.1} GB/s", size as f64 / time);
    }
    for size in [10, 100, 1448] {
        let bundle: Vec<Vec<u8>> = (0..PACKETS).map(|index| udp(1000, index, size)).collect();
        plan(&bundle, &format!("of one flow, {size} bytes each"));
    }
    let bundle: Vec<Vec<u8>> = (0..PACKETS).map(|index| udp(index, index, 100)).collect();
    plan(&bundle, "of as many flows");

    let plain: Vec<u8> = [vec![0; HEADER_SIZE], udp(1, 1, 1448)].concat();
    let time = best(|| {
        black_box(Record::parse(black_box(&plain)).map(|record| record.measure()));
    });
    println!("measure: {time:.1} ns a record");
    let bundle: Vec<Vec<u8>> = (0..44).map(|index| udp(1000, index, 1448)).collect();
    let merged = coalesced(&bundle);
    let time = best(|| {
        black_box(Record::parse(black_box(&merged)).map(|record| record.measure()));
    });
    println!("measure: {time:.1} ns a superpacket");
    let mut target = vec![0; 1 << 17];
    let time = best(|| {
        let Some(Record { shape: Shape::Super(layout), .. }) = Record::parse(black_box(&merged)) else {
            panic!("the record is not a superpacket")
        };
        let segments = Segments::new(&merged, layout);
        let mut used = 0;
        for index in 0..segments.count() {
            let end = used + segments.size(index);
            segments.write(index, &mut target[used..end]);
            used = end;
        }
        black_box(&mut target);
    });
    println!("split: {:.1} ns a packet of 1476 bytes", time / 44.0);
    for size in [64, 1424] {
        aead(size);
    }
}

/// Seal and open packets of `size` bytes as `WireGuard` does.
fn aead(size: usize) {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[7; 32]).expect("a key has 32 bytes"));
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    let mut packet = vec![1; size];
    let time = best(|| {
        let tag = key.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut packet));
        assert!(black_box(tag).is_ok());
    });
    println!("seal: {time:.1} ns a packet of {size} bytes, {:.2} ns a byte", time / size as f64);
    let mut sealed = packet.clone();
    key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).expect("a short message");
    let mut message = sealed.clone();
    let time = best(|| {
        message.copy_from_slice(&sealed);
        assert!(key.open_in_place(nonce(), Aad::empty(), black_box(&mut message)).is_ok());
    });
    println!("open: {time:.1} ns a packet of {size} bytes, {:.2} ns a byte", time / size as f64);
}

fn plan(bundle: &[Vec<u8>], what: &str) {
    let pieces: Vec<&[u8]> = bundle.iter().map(Vec::as_slice).collect();
    let mut coalescer = Coalescer::default();
    let records = coalescer.plan(&pieces, false, true).groups().len();
    let time = best(|| {
        black_box(coalescer.plan(black_box(&pieces), false, true));
    });
    println!("coalesce: {:.1} ns a packet {what}; {records} records", time / bundle.len() as f64);
}

fn coalesced(bundle: &[Vec<u8>]) -> Vec<u8> {
    let pieces: Vec<&[u8]> = bundle.iter().map(Vec::as_slice).collect();
    let mut coalescer = Coalescer::default();
    let plan = coalescer.plan(&pieces, false, true);
    let group = &plan.groups()[0];
    let mut record = vec![0; group.size(&pieces, false)];
    plan.write(group, &pieces, false, &mut record);
    record
}

/// Return a datagram in IPv4 with valid checksums.
fn udp(port: usize, index: usize, size: usize) -> Vec<u8> {
    let mut packet = vec![0; 28 + size];
    packet[0] = 0x45;
    put(&mut packet, 2, 28 + size);
    put(&mut packet, 4, index);
    packet[8..10].copy_from_slice(&[64, 17]);
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    put(&mut packet, 20, port);
    put(&mut packet, 22, 80);
    put(&mut packet, 24, 8 + size);
    let header = internet_checksum(&packet[..20], 0);
    put(&mut packet, 10, usize::from(header));
    let addresses = !internet_checksum(&packet[12..20], 17 + 8 + size as u64);
    let checksum = internet_checksum(&packet[20..], u64::from(addresses));
    put(&mut packet, 26, usize::from(checksum));
    packet
}

fn put(packet: &mut [u8], offset: usize, value: usize) {
    packet[offset..offset + 2].copy_from_slice(&(value as u16).to_be_bytes());
}

/// Return the nanoseconds that `work` takes: the best of some rounds.
fn best(mut work: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..20 {
        let (start, mut count) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_millis(10) {
            for _ in 0..64 {
                work();
            }
            count += 64;
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(count));
    }
    best
}
