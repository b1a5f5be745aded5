//! Packets and records for tests, built field by field.

use threepipe_core::packet::checksum::internet_checksum;
use threepipe_core::packet::coalesce::Coalescer;
use threepipe_core::packet::record::{HEADER_SIZE, Header, NEEDS_CSUM, PLAIN_HEADER, Protocol, Record, Shape};
use threepipe_core::packet::split::{Segments, complete};

/// A packet by its fields. The defaults are those of a packet in the middle of a flow.
#[derive(Clone, Debug)]
pub struct Packet {
    pub ipv6: bool,
    pub protocol: Protocol,
    pub host: u8,
    pub port: u16,
    pub traffic_class: u8,
    pub hop_limit: u8,
    pub identification: u16,
    pub fragment: u16,
    pub sequence: u32,
    pub acknowledgment: u32,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    /// True if its checksum has to be completed.
    pub partial: bool,
}

pub const DONT_FRAGMENT: u16 = 0x4000;

impl Packet {
    pub fn new(ipv6: bool, protocol: Protocol, payload: Vec<u8>) -> Self {
        Self {
            ipv6,
            protocol,
            host: 1,
            port: 1000,
            traffic_class: 0,
            hop_limit: 64,
            identification: 7,
            fragment: 0,
            sequence: 0xFFFF_FF00,
            acknowledgment: 5,
            flags: 0x10,
            window: 100,
            urgent: 0,
            options: vec![],
            payload,
            partial: false,
        }
    }

    /// Return `count` consecutive packets of one flow, with payloads of `size` bytes.
    pub fn train(&self, count: usize, size: usize) -> Vec<Self> {
        (0..count)
            .map(|index| Self {
                identification: self.identification.wrapping_add(index as u16),
                sequence: self.sequence.wrapping_add((index * size) as u32),
                payload: (0..size).map(|byte| (byte * 7 + index) as u8).collect(),
                ..self.clone()
            })
            .collect()
    }

    pub fn transport(&self) -> usize {
        if self.ipv6 { 40 } else { 20 }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let number = self.protocol.number();
        let size = self.protocol.header_size() + self.options.len() + self.payload.len();
        let mut packet = Vec::new();
        if self.ipv6 {
            packet.extend((0x6000_0000 | u32::from(self.traffic_class) << 20).to_be_bytes());
            packet.extend((size as u16).to_be_bytes());
            packet.extend([number, self.hop_limit]);
            packet.extend([0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.host]);
            packet.extend([0xFD, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 99]);
        } else {
            packet.extend([0x45, self.traffic_class]);
            packet.extend((20 + size as u16).to_be_bytes());
            packet.extend(self.identification.to_be_bytes());
            packet.extend(self.fragment.to_be_bytes());
            packet.extend([self.hop_limit, number, 0, 0, 10, 0, 0, self.host, 10, 0, 0, 99]);
            let checksum = internet_checksum(&packet, 0);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        packet.extend(self.port.to_be_bytes());
        packet.extend(80_u16.to_be_bytes());
        if self.protocol == Protocol::Tcp {
            packet.extend(self.sequence.to_be_bytes());
            packet.extend(self.acknowledgment.to_be_bytes());
            packet.extend([(5 + self.options.len() as u8 / 4) << 4, self.flags]);
            packet.extend(self.window.to_be_bytes());
            packet.extend([0, 0]);
            packet.extend(self.urgent.to_be_bytes());
            packet.extend(&self.options);
        } else {
            packet.extend((size as u16).to_be_bytes());
            packet.extend([0, 0]);
        }
        packet.extend(&self.payload);
        let start = self.transport();
        let addresses = if self.ipv6 { &packet[8..40] } else { &packet[12..20] };
        let pseudo = !internet_checksum(addresses, u64::from(number) + size as u64);
        let field = start + self.protocol.checksum_offset();
        let value = match internet_checksum(&packet[start..], u64::from(pseudo)) {
            _ if self.partial => pseudo,
            0 if self.protocol == Protocol::Udp => 0xFFFF,
            checksum => checksum,
        };
        packet[field..field + 2].copy_from_slice(&value.to_be_bytes());
        packet
    }

    /// Return the record of the packet, with the header that its checksum needs.
    pub fn record(&self) -> Vec<u8> {
        let header = Header {
            flags: NEEDS_CSUM,
            csum_start: self.transport() as u16,
            csum_offset: self.protocol.checksum_offset() as u16,
            ..Header::default()
        };
        [if self.partial { header.emit() } else { PLAIN_HEADER }.to_vec(), self.bytes()].concat()
    }

    /// Return the record of the packet as a superpacket of segments of `size` bytes.
    pub fn superpacket(&self, size: u16) -> Vec<u8> {
        let header = Header {
            flags: NEEDS_CSUM,
            gso_type: match (self.protocol, self.ipv6) {
                (Protocol::Tcp, false) => 1,
                (Protocol::Tcp, true) => 4,
                (Protocol::Udp, _) => 5,
            },
            hdr_len: 0,
            gso_size: size,
            csum_start: self.transport() as u16,
            csum_offset: self.protocol.checksum_offset() as u16,
        };
        [header.emit().to_vec(), Self { partial: true, ..self.clone() }.bytes()].concat()
    }
}

/// Return the packets that `record` stands for.
pub fn split(record: &[u8]) -> Vec<Vec<u8>> {
    match Record::parse(record).expect("a header").shape {
        Shape::Malformed => vec![],
        Shape::Plain => vec![record[HEADER_SIZE..].to_vec()],
        Shape::Partial(partial) => {
            let mut record = record.to_vec();
            complete(&mut record, &partial);
            record.drain(..HEADER_SIZE);
            vec![record]
        }
        Shape::Super(layout) => {
            let segments = Segments::new(record, layout);
            (0..segments.count())
                .map(|index| {
                    let mut packet = vec![0; segments.size(index)];
                    segments.write(index, &mut packet);
                    packet
                })
                .collect()
        }
    }
}

/// Return the records that stand for `pieces`.
pub fn coalesce(pieces: &[Vec<u8>], vnet_header: bool, udp: bool) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    let mut coalescer = Coalescer::default();
    let plan = coalescer.plan(&pieces, vnet_header, udp);
    plan.groups()
        .iter()
        .map(|group| {
            let mut record = vec![0; group.size(&pieces, vnet_header)];
            plan.write(group, &pieces, vnet_header, &mut record);
            record
        })
        .collect()
}
