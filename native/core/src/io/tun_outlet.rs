//! Records sent to the file of an adapter, as superpackets if it accepts them.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::io::bundle::{Bundle, Outlet};
use crate::io::counters::Counters;
use crate::io::sink::{Put, Sink};
use crate::io::stop::Flow;
use crate::io::waiting::RoomWait;
use crate::packet::coalesce::{Coalescer, Group, LONGEST_HEAD, Plan};
use crate::packet::record::{HEADER_SIZE, MAX_RECORD, Measure, PLAIN_HEADER, Record, Shape};
use crate::packet::split::{Segments, complete};

/// The records that an adapter accepts.
#[derive(Clone, Copy)]
pub(crate) struct Format<'a> {
    /// True if records have a virtio header.
    pub(crate) vnet_header: bool,
    /// True if those headers are wide in the file.
    pub(crate) wide: bool,
    /// True if superpackets of UDP are accepted as well as those of TCP.
    pub(crate) udp: bool,
    /// True while superpackets are accepted; cleared when one is refused.
    pub(crate) coalescing: &'a AtomicBool,
}

/// The outlet of an adapter.
pub(crate) struct TunOutlet<'a> {
    format: Format<'a>,
    sink: Sink<'a>,
    coalescer: Coalescer,
    /// Space for a merged record that was refused and has to be split.
    merged: Vec<u8>,
    /// Space for one segment and its header.
    segment: Vec<u8>,
}

impl<'a> TunOutlet<'a> {
    pub(crate) fn new(
        target: BorrowedFd<'a>,
        format: Format<'a>,
        counters: Counters<'a>,
        room: RoomWait<'a>,
        kept: &'a Mutex<Vec<Vec<u8>>>,
    ) -> Self {
        Self {
            format,
            sink: Sink::new(target, format.wide, room, counters, kept),
            coalescer: Coalescer::default(),
            merged: Vec::new(),
            segment: vec![0; MAX_RECORD],
        }
    }

    fn is_coalescing(&self) -> bool {
        self.format.vnet_header && self.format.coalescing.load(Ordering::Relaxed)
    }

    fn send_all(&mut self, bundle: &Bundle<'_>) -> Flow {
        let mut records = bundle.records();
        if self.is_coalescing() && bundle.total.valid && bundle.pieces.len() > 1 {
            self.send_coalesced(bundle)
        } else if !bundle.vnet_header {
            records
                .filter(|(_, measure)| measure.valid)
                .try_for_each(|(packet, measure)| self.put_packet(packet, measure))
        } else if self.is_coalescing() && bundle.total.valid {
            records.try_for_each(|(record, measure)| self.put_record(record, measure))
        } else {
            records.try_for_each(|(record, measure)| self.put_split(record, measure, !bundle.total.valid))
        }
    }

    fn send_coalesced(&mut self, bundle: &Bundle<'_>) -> Flow {
        let records: Vec<&[u8]> = bundle.records().map(|(record, _)| record).collect();
        let mut coalescer = std::mem::take(&mut self.coalescer);
        let plan = coalescer.plan(&records, bundle.vnet_header, self.format.udp);
        let flow = plan.groups().iter().try_for_each(|group| {
            let pieces = plan.pieces(group).map(|index| bundle.pieces[index].measure);
            let pieces =
                Pieces { group, plan: &plan, records: &records, measure: pieces.fold(Measure::NOTHING, Measure::and) };
            match (group.is_merged(), bundle.vnet_header) {
                (true, vnet_header) => self.put_merged(&pieces, vnet_header),
                (false, true) => self.put_record(records[group.first()], pieces.measure),
                (false, false) => self.put_packet(records[group.first()], pieces.measure),
            }
        });
        self.coalescer = coalescer;
        flow
    }

    /// Write a packet that has no virtio header. One that is refused is dropped.
    fn put_packet(&mut self, packet: &[u8], measure: Measure) -> Flow {
        let parts = [IoSlice::new(&PLAIN_HEADER), IoSlice::new(packet)];
        self.sink.put(if self.format.vnet_header { &parts } else { &parts[1..] }, measure)?;
        Flow::Continue(())
    }

    /// Write the record of a merged group, or its packets if the adapter refuses it.
    fn put_merged(&mut self, pieces: &Pieces<'_>, vnet_header: bool) -> Flow {
        let Pieces { group, plan, records, measure } = *pieces;
        if self.is_coalescing() && !group.is_whole() {
            let mut merged = std::mem::take(&mut self.merged);
            merged.resize(group.size(records, vnet_header), 0);
            plan.write(group, records, vnet_header, &mut merged);
            let put = self.sink.put(&[IoSlice::new(&merged)], measure);
            self.merged = merged;
            if put? != Put::Refused {
                return Flow::Continue(());
            }
            self.stop_coalescing();
        } else if self.is_coalescing() {
            // The kernel collects the pieces, so they are not copied together here.
            let mut head = [0; LONGEST_HEAD];
            let size = group.head(&mut head);
            let mut parts = vec![IoSlice::new(&head[..size])];
            parts.extend(plan.pieces(group).map(|index| IoSlice::new(group.data(records[index], vnet_header))));
            if self.sink.put(&parts, measure)? != Put::Refused {
                return Flow::Continue(());
            }
            self.stop_coalescing();
        }
        let mut merged = std::mem::take(&mut self.merged);
        merged.resize(group.size(records, vnet_header), 0);
        plan.write(group, records, vnet_header, &mut merged);
        let flow = self.put_split(&merged, measure, false);
        self.merged = merged;
        flow
    }

    /// Write a record as it came, or its packets if the adapter does not accept superpackets.
    fn put_record(&mut self, record: &[u8], measure: Measure) -> Flow {
        if self.is_coalescing() {
            let is_super = matches!(Record::parse(record), Some(Record { shape: Shape::Super(_), .. }));
            if self.sink.put(&[IoSlice::new(record)], measure)? != Put::Refused || !is_super {
                return Flow::Continue(()); // A packet that is refused is dropped.
            }
            self.stop_coalescing();
        }
        self.put_split(record, measure, false)
    }

    /// Some kernels offer superpackets and refuse them.
    fn stop_coalescing(&self) {
        self.format.coalescing.store(false, Ordering::Relaxed);
    }

    /// Write the packets of a record, each with a plain header. A packet that is refused is dropped.
    ///
    /// If `checked`, only well-formed IP packets are written.
    fn put_split(&mut self, record: &[u8], measure: Measure, checked: bool) -> Flow {
        match Record::parse(record).map(|record| record.shape) {
            None | Some(Shape::Malformed) => {}
            Some(Shape::Plain) => {
                if measure.valid || !checked {
                    self.sink.put(&[IoSlice::new(&PLAIN_HEADER), IoSlice::new(&record[HEADER_SIZE..])], measure)?;
                }
            }
            Some(Shape::Partial(partial)) => {
                let Some(packet) = self.segment.get_mut(..record.len()) else {
                    return Flow::Continue(()); // It is too long for a packet.
                };
                packet.copy_from_slice(record);
                complete(packet, &partial);
                packet[..HEADER_SIZE].copy_from_slice(&PLAIN_HEADER);
                // The checksum may have been written over the version.
                if Measure::of_packet(&packet[HEADER_SIZE..]).valid || !checked {
                    self.sink.put(&[IoSlice::new(packet)], measure)?;
                }
            }
            Some(Shape::Super(layout)) => {
                let segments = Segments::new(record, layout);
                for index in 0..segments.count() {
                    let size = segments.size(index);
                    let packet = &mut self.segment[..HEADER_SIZE + size];
                    packet[..HEADER_SIZE].copy_from_slice(&PLAIN_HEADER);
                    segments.write(index, &mut packet[HEADER_SIZE..]);
                    let measure = Measure { packets: 1, size: size as u64, valid: true };
                    self.sink.put(&[IoSlice::new(packet)], measure)?;
                }
            }
        }
        Flow::Continue(())
    }
}

impl Outlet for TunOutlet<'_> {
    /// A bundle with packets that are not well-formed is sent as packets, and those are dropped.
    fn send(&mut self, bundle: &Bundle<'_>) -> Flow {
        let flow = self.send_all(bundle);
        let ended = self.sink.end_bundle(bundle.total.packets);
        flow?;
        ended
    }
}

/// A group of a plan, with the records it was made for.
struct Pieces<'a> {
    group: &'a Group,
    plan: &'a Plan<'a>,
    records: &'a [&'a [u8]],
    measure: Measure,
}
