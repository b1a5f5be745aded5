//! Packets sent to a datagram socket, one in each datagram, and those of one size in runs.

use std::cell::Cell;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;

use rustix::io::Errno;

use crate::endpoints::datagrams::{Handler, Sent, Way, Ways};
use crate::io::bundle::{Bundle, Outlet};
use crate::io::counters::Counters;
use crate::io::datagrams::{self, MAX_RUN, MAX_SEGMENTS};
use crate::io::packets::Packets;
use crate::io::stop::{Flow, Stop, raised};
use crate::io::waiting::RoomWait;
use crate::locks::unpoisoned;
use crate::packet::record::Measure;

/// Send the packets so far once they have this many bytes: some whole runs, as runs go on from one record to the next.
const ENOUGH: usize = 1 << 18;

/// The outlet of a datagram socket.
pub(crate) struct DatagramsOutlet<'a> {
    ways: &'a Ways,
    counters: Counters<'a>,
    packets: Packets,
    sender: Sender<'a>,
}

struct Sender<'a> {
    socket: BorrowedFd<'a>,
    handler: &'a dyn Handler,
    room: RoomWait<'a>,
    /// Datagrams of at most so many bytes are sent in runs, longer ones one by one.
    max_in_run: usize,
    /// The packets of a bundle that were sent.
    sent: Measure,
    /// True after a bell rang while a bundle waited for room.
    rung: bool,
    /// The packets that had no room when a bell rang.
    kept: &'a Mutex<Vec<Vec<u8>>>,
    /// How many of them are of this bundle.
    kept_packets: u64,
}

impl<'a> DatagramsOutlet<'a> {
    pub(crate) fn new(
        socket: BorrowedFd<'a>,
        ways: &'a Ways,
        handler: &'a dyn Handler,
        counters: Counters<'a>,
        room: RoomWait<'a>,
        kept: &'a Mutex<Vec<Vec<u8>>>,
    ) -> Self {
        let sender = Sender {
            socket,
            handler,
            room,
            max_in_run: if datagrams::is_ip(socket) { MAX_RUN } else { 0 },
            sent: Measure::NOTHING,
            rung: false,
            kept,
            kept_packets: 0,
        };
        Self { ways, counters, packets: Packets::new(0), sender }
    }

    /// Send the packets of a bundle that has a way to go.
    fn send_all(&mut self, bundle: &Bundle<'_>, way: &Way) -> Flow {
        let found_own = Cell::new(false);
        let is_own = |packet: &[u8]| {
            let own = way.is_own(packet);
            found_own.set(found_own.get() || own);
            own
        };
        self.packets.clear();
        for (record, measure) in bundle.records() {
            if measure.valid {
                self.packets.add(record, bundle.vnet_header, is_own);
                if self.packets.size() >= ENOUGH {
                    self.sender.send(&self.packets, way)?;
                    self.packets.clear();
                }
            }
        }
        self.sender.send(&self.packets, way)?;
        if found_own.get() {
            self.sender.handler.dropped_own().map_or_else(raised, Flow::Continue)
        } else {
            Flow::Continue(())
        }
    }
}

impl Sender<'_> {
    /// Send packets, and wait for room. Keep the rest if a bell rings meanwhile.
    fn send(&mut self, packets: &Packets, way: &Way) -> Flow {
        let mut places = packets.places();
        while !places.is_empty() && !self.rung {
            match self.send_some(packets.memory(), places, way) {
                Flow::Continue(done) => places = &places[done..],
                Flow::Break(Stop::Bell) => self.rung = true,
                Flow::Break(stop) => return Flow::Break(stop),
            }
        }
        self.kept_packets += places.len() as u64;
        unpoisoned(self.kept.lock()).extend(places.iter().map(|place| packets.memory()[place.clone()].to_vec()));
        Flow::Continue(())
    }

    /// Send the first of the packets at `places` by one system call. Return how many were sent or dropped.
    fn send_some(&mut self, memory: &[u8], places: &[Range<usize>], way: &Way) -> Flow<usize> {
        let (count, size) = (self.run(places), places[0].len());
        let result = if count > 1 {
            let run = &memory[places[0].start..places[count - 1].end];
            datagrams::send(self.socket, &[(run, way.peer)], Some(size as u16), way.local, 0).map(|_| count)
        } else {
            let singles = &places[..self.singles(places)];
            let singles: Vec<_> = singles.iter().map(|place| (&memory[place.clone()], way.peer)).collect();
            datagrams::send(self.socket, &singles, None, way.local, 0)
        };
        match result {
            Ok(sent) => {
                self.sent = self.sent.and(Packets::measure(&places[..sent]));
                return Flow::Continue(sent);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => self.room.wait(self.socket)?,
            Err(Errno::NOBUFS | Errno::NOMEM) => self.room.pause()?,
            // The datagrams are longer than the path's MTU; fragments have to go one by one.
            Err(Errno::MSGSIZE | Errno::INVAL) if count > 1 => self.max_in_run = size - 1,
            // The device computes no checksums, or the system is too old.
            Err(Errno::IO | Errno::OPNOTSUPP | Errno::NOPROTOOPT) if count > 1 => self.max_in_run = 0,
            Err(error) => return self.hand_up(memory, places, error),
        }
        Flow::Continue(0)
    }

    /// Return the number of packets in the run that begins with the first. All have its size; the last may be shorter.
    fn run(&self, places: &[Range<usize>]) -> usize {
        let size = places[0].len();
        if size > self.max_in_run {
            return 1;
        }
        let most = places.len().min(MAX_SEGMENTS).min((MAX_RUN / size).max(1));
        let whole = places[..most].iter().take_while(|place| place.len() == size).count();
        whole + usize::from(places[..most].get(whole).is_some_and(|place| place.len() < size))
    }

    /// Return the number of packets at the beginning that are each a run of one.
    fn singles(&self, places: &[Range<usize>]) -> usize {
        let most = places.len().min(MAX_SEGMENTS);
        (1..most).find(|index| self.run(&places[*index..]) > 1).unwrap_or(most)
    }

    /// Have the handler send the packets, after an error of the first.
    fn hand_up(&mut self, memory: &[u8], places: &[Range<usize>], error: Errno) -> Flow<usize> {
        let packets: Vec<_> = places.iter().map(|place| &memory[place.clone()]).collect();
        match self.handler.send(&packets, error) {
            Ok(Sent { sent, dropped }) => {
                let sent = sent.min(places.len());
                self.sent = self.sent.and(Packets::measure(&places[..sent]));
                Flow::Continue(places.len().min(sent + dropped))
            }
            Err(error) => raised(error),
        }
    }
}

impl Outlet for DatagramsOutlet<'_> {
    /// Drop packets that are not well-formed, and all packets until a peer is known. Stop if a bell rang.
    fn send(&mut self, bundle: &Bundle<'_>) -> Flow {
        let way = self.ways.get();
        let flow = way.map_or(Flow::Continue(()), |way| self.send_all(bundle, &way));
        let sent = std::mem::replace(&mut self.sender.sent, Measure::NOTHING);
        if sent.packets > 0 {
            self.counters.add_bundle(sent);
        }
        let kept = std::mem::take(&mut self.sender.kept_packets);
        self.counters.add_dropped(bundle.total.packets - sent.packets - kept);
        flow?;
        if self.sender.rung { Flow::Break(Stop::Bell) } else { Flow::Continue(()) }
    }
}
