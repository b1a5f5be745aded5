//! Where records go out: superpackets are made for a target that takes them, and what finds no room waits.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write, writev};

use crate::coalesce::{Coalescer, LONGEST_HEAD, Plan, Run};
use crate::intake::{Piece, Stop, any, count, watched};
use crate::pump::End;
use crate::record::{HEADER_SIZE, MAX_RECORD, Measure, PLAIN_HEADER, Record, Shape};
use crate::split::{Segments, complete};

/// How long to wait where a target without memory says that it is writable.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 1_000_000 };

/// How records are moved.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) headed: bool,
    pub(crate) coalescing: bool,
    pub(crate) udp: bool,
}

/// Where records go out.
pub(crate) struct Outlet<'a> {
    /// As given, until the target refuses a superpacket.
    options: Options,
    sink: Sink<'a>,
    coalescer: Coalescer,
    /// Room for a coalesced record that is to be split again.
    merged: Vec<u8>,
    /// Room for one segment and its header.
    segment: Vec<u8>,
}

impl<'a> Outlet<'a> {
    pub(crate) fn new(far: &End<'a>, bells: &[BorrowedFd<'a>], options: Options) -> Self {
        Self {
            options,
            sink: Sink::new(far.target, bells, far.sent),
            coalescer: Coalescer::default(),
            merged: Vec::new(),
            segment: vec![0; MAX_RECORD],
        }
    }

    /// Whether superpackets are still made.
    pub(crate) fn is_coalescing(&self) -> bool {
        self.options.coalescing
    }

    /// Write packets without headers, valid ones; those that could not be written are counted as dropped.
    pub(crate) fn send_packets(&mut self, packets: &[&[u8]]) -> Result<(), Stop> {
        let result = if self.options.coalescing && packets.len() > 1 {
            self.send_merged(packets)
        } else {
            packets.iter().try_for_each(|packet| self.put_packet(packet))
        };
        let written = self.sink.settle();
        self.sink.drop_packets(packets.len() as u64 - written);
        result
    }

    fn send_merged(&mut self, packets: &[&[u8]]) -> Result<(), Stop> {
        let mut coalescer = std::mem::take(&mut self.coalescer);
        let plan = coalescer.plan(packets, false, self.options.udp);
        let result = plan.runs().iter().try_for_each(|run| {
            if run.is_merged() {
                let size = plan.pieces(run).map(|index| packets[index].len() as u64).sum();
                let measure = Measure { packets: plan.pieces(run).count() as u64, size, valid: true };
                if self.put_merged(&plan, run, packets, false, measure)? == Put::Written {
                    return Ok(());
                }
            }
            plan.pieces(run).try_for_each(|index| self.put_packet(packets[index]))
        });
        self.coalescer = coalescer;
        result
    }

    /// Write one packet; where it is refused it is dropped.
    fn put_packet(&mut self, packet: &[u8]) -> Result<(), Stop> {
        let measure = Measure { packets: 1, size: packet.len() as u64, valid: true };
        let slices = [IoSlice::new(&PLAIN_HEADER), IoSlice::new(packet)];
        self.sink.put(if self.options.headed { &slices } else { &slices[1..] }, measure).map(drop)
    }

    /// Write a bundle, which comes to `all`; what of it could not be written is counted as dropped.
    ///
    /// Where it is not all IP packets, it goes out as packets, and what is none is dropped.
    pub(crate) fn send(&mut self, memory: &[u8], bundle: &[Piece], all: Measure) -> Result<(), Stop> {
        let mut records = bundle.iter().map(|piece| (&memory[piece.place.clone()], piece.measure));
        let result = if !self.options.headed {
            let mut packets = records.filter(|(_, measure)| measure.valid);
            packets.try_for_each(|(packet, measure)| self.sink.put(&[IoSlice::new(packet)], measure).map(drop))
        } else if !all.valid || !self.options.coalescing {
            records.try_for_each(|(record, measure)| self.put_packets(record, measure, !all.valid))
        } else if bundle.len() > 1 {
            self.send_coalesced(memory, bundle)
        } else {
            records.try_for_each(|(record, measure)| self.put_record(record, measure))
        };
        let written = self.sink.settle();
        self.sink.drop_packets(all.packets - written);
        result
    }

    fn send_coalesced(&mut self, memory: &[u8], bundle: &[Piece]) -> Result<(), Stop> {
        let records: Vec<&[u8]> = bundle.iter().map(|piece| &memory[piece.place.clone()]).collect();
        let mut coalescer = std::mem::take(&mut self.coalescer);
        let plan = coalescer.plan(&records, true, self.options.udp);
        let result = plan.runs().iter().try_for_each(|run| {
            let measure = plan.pieces(run).fold(Measure::NOTHING, |all, index| all.and(bundle[index].measure));
            if !run.is_merged() {
                return self.put_record(records[run.first()], measure);
            }
            if self.put_merged(&plan, run, &records, true, measure)? == Put::Written {
                return Ok(());
            }
            let mut merged = std::mem::take(&mut self.merged);
            merged.resize(run.size(&records, true), 0);
            plan.write(run, &records, true, &mut merged);
            let result = self.put_packets(&merged, measure, false);
            self.merged = merged;
            result
        });
        self.coalescer = coalescer;
        result
    }

    /// Write a run of `records`, which comes to `measure`, as one; as long as the target takes such.
    fn put_merged(
        &mut self,
        plan: &Plan<'_>,
        run: &Run,
        records: &[&[u8]],
        headed: bool,
        measure: Measure,
    ) -> Result<Put, Stop> {
        if !self.options.coalescing {
            return Ok(Put::Refused);
        }
        // Not copied together: the kernel takes the pieces from where they lie.
        let mut head = [0; LONGEST_HEAD];
        let size = run.head(&mut head);
        let mut slices = vec![IoSlice::new(&head[..size])];
        slices.extend(plan.pieces(run).map(|index| IoSlice::new(run.data(records[index], headed))));
        let put = self.sink.put(&slices, measure)?;
        self.options.coalescing = put == Put::Written; // A kernel that offers superpackets and refuses them: there are such.
        Ok(put)
    }

    /// Write one record as it came, or what it stands for where the target does not take it.
    fn put_record(&mut self, record: &[u8], measure: Measure) -> Result<(), Stop> {
        if self.options.coalescing {
            let is_super = matches!(Record::parse(record), Some(Record { shape: Shape::Super(_), .. }));
            if self.sink.put(&[IoSlice::new(record)], measure)? == Put::Written || !is_super {
                return Ok(()); // A packet that is refused is dropped.
            }
            self.options.coalescing = false;
        }
        self.put_packets(record, measure, false)
    }

    /// Write the packets that a record stands for, each with a plain header; one that is refused is dropped.
    ///
    /// Where they are to be `checked`, so is what is no IP packet.
    fn put_packets(&mut self, record: &[u8], measure: Measure, checked: bool) -> Result<(), Stop> {
        match Record::parse(record).map(|record| record.shape) {
            None | Some(Shape::Contradiction) => {}
            Some(Shape::Plain) => {
                if measure.valid || !checked {
                    self.sink.put(&[IoSlice::new(&PLAIN_HEADER), IoSlice::new(&record[HEADER_SIZE..])], measure)?;
                }
            }
            Some(Shape::Open(open)) => {
                let Some(packet) = self.segment.get_mut(..record.len()) else {
                    return Ok(()); // Longer than packets are.
                };
                packet.copy_from_slice(record);
                complete(packet, &open);
                packet[..HEADER_SIZE].copy_from_slice(&PLAIN_HEADER);
                // A checksum may have its place where the version is.
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
                    let one = Measure { packets: 1, size: size as u64, valid: true };
                    self.sink.put(&[IoSlice::new(packet)], one)?;
                }
            }
        }
        Ok(())
    }
}

#[derive(PartialEq, Eq)]
enum Put {
    Written,
    /// The target does not take such a record.
    Refused,
}

/// The target, which is waited for where it has no room.
struct Sink<'a> {
    target: BorrowedFd<'a>,
    /// The bells, and last the target.
    polled: Vec<PollFd<'a>>,
    counters: &'a [AtomicU64; 4],
    /// What was written and is not counted yet.
    fresh: Measure,
    /// Packets of this bundle that were written and counted.
    written: u64,
}

impl<'a> Sink<'a> {
    fn new(target: BorrowedFd<'a>, bells: &[BorrowedFd<'a>], counters: &'a [AtomicU64; 4]) -> Self {
        let mut polled = watched(bells);
        polled.push(PollFd::from_borrowed_fd(target, PollFlags::OUT));
        Self { target, polled, counters, fresh: Measure::NOTHING, written: 0 }
    }

    /// Write one record, which comes to `measure`, and wait where there is no room for it.
    fn put(&mut self, record: &[IoSlice<'_>], measure: Measure) -> Result<Put, Stop> {
        loop {
            let result = match record {
                [whole] => write(self.target, whole),
                parts => writev(self.target, parts),
            };
            let error = match result {
                Ok(_) => {
                    self.fresh = self.fresh.and(measure);
                    return Ok(Put::Written);
                }
                Err(Errno::INTR) => continue,
                Err(error) => error,
            };
            self.count_fresh();
            match error {
                Errno::AGAIN => self.wait(self.polled.len(), None)?,
                // No memory is no room. The target is writable nevertheless, so that waiting for that would not wait.
                Errno::NOBUFS | Errno::NOMEM => self.wait(self.polled.len() - 1, Some(&PAUSE))?,
                Errno::INVAL => return Ok(Put::Refused),
                Errno::IO => return Err(Stop::Down),
                error => return Err(Stop::Target(error)),
            }
        }
    }

    /// Wait for the first `watched` of what is polled; a bell is an end.
    fn wait(&mut self, watched: usize, timeout: Option<&Timespec>) -> Result<(), Stop> {
        match poll(&mut self.polled[..watched], timeout) {
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(Stop::Target(error)),
            Ok(_) => {}
        }
        let (_, bells) = self.polled.split_last().unwrap_or_else(|| unreachable!("the target is among them"));
        if any(bells) { Err(Stop::Bell) } else { Ok(()) }
    }

    /// Count what was written of this bundle, and return how many packets that were.
    fn settle(&mut self) -> u64 {
        self.count_fresh();
        std::mem::take(&mut self.written)
    }

    fn count_fresh(&mut self) {
        let fresh = std::mem::replace(&mut self.fresh, Measure::NOTHING);
        if fresh.packets > 0 {
            count(self.counters, [fresh.packets, fresh.size, 1, 0]);
            self.written += fresh.packets;
        }
    }

    fn drop_packets(&self, packets: u64) {
        if packets > 0 {
            self.counters[3].fetch_add(packets, Ordering::Relaxed);
        }
    }
}
