//! The tunnel's loop: packets of an adapter become messages to peers, and back, until a bell is readable.
//!
//! With a thread for each direction while there is much to pass; while there is little, one has both, for to wake the
//! other takes longer than to pass a packet. What is not a matter of looking things up, handshakes and all that leads
//! to them, is handed up, and so is what has no peer.

use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rustix::io::{Errno, read};
use rustix::time::{ClockId, clock_gettime};

use crate::datagrams::{self, Arrival, LONGEST_RUN};
use crate::gate::Gate;
use crate::intake::{Intake, MAX_BUNDLE, Ready, Sources, Stop, count};
use crate::opener::Opener;
use crate::outlet::{Options, Outlet};
use crate::pump::End;
use crate::record::{HEADER_SIZE, Measure};
use crate::router::{Peer, Router};
use crate::sealing::Plan;
use crate::sockets::{Outgoing, Sockets};

/// Bytes of a bundle at most, in both directions.
const BUNDLE: usize = 1 << 19;
/// Bytes of messages that are sent together at most, but for those of one peer: they stay in the processor's cache.
const TOGETHER: usize = 1 << 16;
/// Runs of datagrams received by one system call at most.
const AT_ONCE: usize = 8;
/// Runs of datagrams of a bundle at most.
const MOST: usize = 64;
/// Bytes of memory for each. No power of two, with which their beginnings would push each other out of the cache.
const PLACE: usize = LONGEST_RUN + 1025;
/// Counters from which on a keypair is to be renewed (REKEY-AFTER-MESSAGES, section 6.1 of the paper).
const RENEW_AFTER: u64 = 1 << 60;

/// How much to read at a time after a wait: what comes alone is passed before it is known that nothing follows.
const LIMITS: [usize; 2] = [1, MAX_BUNDLE];
/// Bytes after one wait from which on there is much to pass: more than a packet, or two.
const MUCH: u64 = 3000;
/// So often there has to be little before one thread takes both directions.
const CALM: u32 = 64;

/// Who does what is not done here.
pub trait Above: Sync {
    /// Why it could not.
    type Error: Send;

    /// Take records that cannot be sealed yet, or have no peer.
    ///
    /// # Errors
    ///
    /// Its own, which end everything.
    fn send(&self, records: &[&[u8]]) -> Result<(), Self::Error>;

    /// Take the last datagrams of an arrival; returns the packets in them.
    ///
    /// # Errors
    ///
    /// Its own, which end everything.
    fn receive(&self, datagrams: &[u8], arrival: &Arrival) -> Result<Vec<Vec<u8>>, Self::Error>;

    /// Look what is due for a peer that messages are sent to, or come from; returns when to be told again.
    ///
    /// # Errors
    ///
    /// Its own, which end everything.
    fn attend(&self, peer: u32, sending: bool) -> Result<f64, Self::Error>;
}

/// The sockets, and what is counted.
#[derive(Clone, Copy)]
pub struct Outside<'a> {
    /// One of each family at most.
    pub sockets: &'a [BorrowedFd<'a>],
    /// Packets, bytes and bundles that came from peers.
    pub received: &'a [AtomicU64; 3],
    /// Packets, bytes, bundles and dropped packets that went to them.
    pub sent: &'a [AtomicU64; 4],
}

/// How it ended.
pub struct Ended<E> {
    /// The adapter's error, or none where it was a bell.
    pub error: Option<Errno>,
    /// What was raised above.
    pub raised: Option<E>,
    /// Whether the adapter still takes superpackets, where it was said to.
    pub coalescing: bool,
}

/// Pass packets and messages until one of `bells` is readable.
///
/// The adapter's records have a virtio header if they are `headed`; superpackets of UDP are made only if `udp`.
///
/// # Errors
///
/// Where the system has no thread, or no descriptors for the two directions to end each other by.
pub fn run<A: Above>(
    adapter: &End<'_>,
    outside: &Outside<'_>,
    router: &Router,
    above: &A,
    bells: &[BorrowedFd<'_>],
    headed: bool,
    udp: bool,
) -> std::io::Result<Ended<A::Error>> {
    let (out_heard, mut in_over) = pipe()?;
    let (in_heard, mut out_over) = pipe()?;
    let (nudged, nudge) = pipe()?;
    let out_bells = [bells, &[out_heard.as_fd()]].concat();
    let shared = Shared {
        queues: adapter.sources,
        outbound: Mutex::new(Outbound {
            intake: Intake::new(headed, adapter.received, BUNDLE),
            sender: Sender::new(outside, router, above, &out_bells, headed),
        }),
        gate: Gate::default(),
        inbound_is_busy: AtomicBool::new(false),
    };
    let shared = &shared;
    thread::scope(|scope| {
        let inwards = thread::Builder::new().name("threepipe-wg".into()).spawn_scoped(scope, move || {
            let _end = AtTheEnd(&shared.gate);
            let bells = [bells, &[in_heard.as_fd()]].concat();
            let options = Options { headed, coalescing: adapter.coalescing, udp };
            let mut inbound = Inbound::new(adapter, outside, router, above, &bells, options);
            let over = inbound.run(shared, &bells, &nudged);
            // It rings at the other direction, which may be over already. A panic rings too, for it hangs up.
            let _ = in_over.write_all(b"!");
            (over, inbound.outlet.is_coalescing())
        })?;
        let outwards = shared.run_outbound(&out_bells, nudge);
        let _ = out_over.write_all(b"!");
        let (inwards, coalescing) = inwards.join().unwrap_or_else(|panic| resume_unwind(panic));
        let mut ended = Ended { error: None, raised: None, coalescing };
        for over in [outwards, inwards] {
            match over {
                Over::Bell => {}
                Over::Error(error) => ended.error = Some(error),
                Over::Raised(raised) => ended.raised = Some(raised),
            }
        }
        Ok(ended)
    })
}

/// Why not to go on.
enum Over<E> {
    Bell,
    /// Of the adapter.
    Error(Errno),
    /// Above.
    Raised(E),
}

impl<E> From<Stop> for Over<E> {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Bell => Self::Bell,
            Stop::Source(error) | Stop::Target(error) => Self::Error(error),
            Stop::Down => Self::Error(Errno::IO),
        }
    }
}

/// What the two threads have in common.
struct Shared<'a, A> {
    queues: &'a [BorrowedFd<'a>],
    outbound: Mutex<Outbound<'a, A>>,
    gate: Gate,
    inbound_is_busy: AtomicBool,
}

/// Ends the waiting at a gate, also if there is a panic.
struct AtTheEnd<'a>(&'a Gate);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl<A: Above> Shared<'_, A> {
    /// What the outbound thread does: while the gate is open it passes what the adapter has.
    fn run_outbound(&self, bells: &[BorrowedFd<'_>], mut nudge: PipeWriter) -> Over<A::Error> {
        let mut queues = match Sources::new(self.queues, bells) {
            Ok(queues) => queues,
            Err(stop) => return stop.into(),
        };
        let mut calm = 0;
        while self.gate.wait() {
            let busy = match queues.wait() {
                Ok(queue) => self.pass(queue),
                Err(stop) => return stop.into(),
            };
            match busy {
                Ok(true) => calm = 0,
                Ok(false) => calm += 1,
                Err(over) => return over,
            }
            if calm >= CALM && !self.inbound_is_busy.load(Ordering::Relaxed) {
                calm = 0;
                self.gate.shut();
                let _ = nudge.write_all(b"!"); // At the other thread, which is over if it does not hear.
            }
        }
        Over::Bell
    }

    /// Pass what a queue of the adapter has; whether that was much.
    fn pass(&self, queue: Ready<'_>) -> Result<bool, Over<A::Error>> {
        let mut outbound = self.outbound.lock().unwrap_or_else(PoisonError::into_inner);
        let mut size = 0;
        for limit in LIMITS {
            let Some(all) = outbound.intake.receive(queue, limit)? else {
                break;
            };
            let Outbound { intake, sender } = &mut *outbound;
            sender.send(intake, all)?;
            size += all.size;
        }
        Ok(size > MUCH)
    }
}

/// From the adapter to the peers; of one thread at a time.
struct Outbound<'a, A> {
    intake: Intake<'a>,
    sender: Sender<'a, A>,
}

/// Seals records and sends them.
struct Sender<'a, A> {
    router: &'a Router,
    above: &'a A,
    headed: bool,
    sent: &'a [AtomicU64; 4],
    sockets: Sockets<'a>,
    /// Room for messages.
    sealed: Vec<u8>,
    /// Those in it that are to be sent.
    runs: Vec<Outgoing>,
}

impl<'a, A: Above> Sender<'a, A> {
    fn new(outside: &Outside<'a>, router: &'a Router, above: &'a A, bells: &[BorrowedFd<'a>], headed: bool) -> Self {
        let sockets = Sockets::new(outside.sockets, bells);
        Self { router, above, headed, sent: outside.sent, sockets, sealed: Vec::new(), runs: Vec::new() }
    }

    /// Send a bundle, which comes to `all`; what of it is no IP packet is dropped.
    fn send(&mut self, intake: &Intake<'_>, all: Measure) -> Result<(), Over<A::Error>> {
        let mut good = Measure::NOTHING;
        let mut records = Vec::new();
        for (record, measure) in intake.records() {
            if measure.valid {
                good = good.and(measure);
                records.push(record);
            }
        }
        count(self.sent, [good.packets, good.size, 1, all.packets - good.packets]);
        let now = now();
        let mut rest = &records[..];
        for (peer, length) in self.by_peer(&records) {
            let (group, others) = rest.split_at(length);
            rest = others;
            let passed = match peer {
                Some(peer) => self.pass(&peer, group, now)?,
                None => false,
            };
            if !passed {
                self.flush()?; // It may take its time.
                self.above.send(group).map_err(Over::Raised)?;
            }
        }
        self.flush()
    }

    /// Send what was sealed.
    fn flush(&mut self) -> Result<(), Over<A::Error>> {
        self.sockets.send(&self.sealed, &self.runs, self.router)?;
        self.runs.clear();
        Ok(())
    }

    /// For whom the records are, and how many in a row.
    fn by_peer(&self, records: &[&[u8]]) -> Vec<(Option<Arc<Peer>>, usize)> {
        let offset = if self.headed { HEADER_SIZE } else { 0 };
        let tables = self.router.tables();
        let mut groups: Vec<(Option<Arc<Peer>>, usize)> = Vec::new();
        for record in records {
            let peer = tables.destination(&record[offset..]);
            match groups.last_mut() {
                Some((last, length)) if last.as_ref().map(Arc::as_ptr) == peer.map(Arc::as_ptr) => *length += 1,
                _ => groups.push((peer.cloned(), 1)),
            }
        }
        groups
    }

    /// Seal records, to be sent; false where there is nothing to do it by.
    fn pass(&mut self, peer: &Arc<Peer>, records: &[&[u8]], now: f64) -> Result<bool, Over<A::Error>> {
        let (Some(sending), Some(endpoint)) = (&peer.sending, peer.endpoint) else {
            return Ok(false);
        };
        let Some(plan) = Plan::new(records.to_vec(), self.headed, self.router.mtu.load(Ordering::Relaxed)) else {
            return Ok(true); // Each has a header, as each was measured.
        };
        if now >= sending.until {
            return Ok(false);
        }
        let Some(counter) = sending.transport.take(plan.messages()) else {
            return Ok(false);
        };
        let size = plan.size();
        let mut start = self.runs.last().map_or(0, |run| run.place.end);
        if start > 0 && start + size > TOGETHER {
            self.flush()?;
            start = 0;
        }
        if self.sealed.len() < start + size {
            self.sealed.resize(start + size, 0);
        }
        if !sending.transport.seal(&plan, counter, &mut self.sealed[start..start + size]) {
            return Ok(true); // Wiped just now: the peer is gone, or this device is.
        }
        let nobody_looks = peer.traffic.sent(now, true, size as u64);
        for run in plan.runs() {
            let place = start..start + run.bytes;
            start = place.end;
            self.runs.push(Outgoing { place, size: run.size, endpoint, peer: Arc::clone(peer) });
        }
        if nobody_looks || now >= sending.attend_at.get() || counter > RENEW_AFTER {
            sending.attend_at.set(self.above.attend(peer.number, true).map_err(Over::Raised)?);
        }
        Ok(true)
    }
}

/// From the peers to the adapter.
struct Inbound<'a, A> {
    opener: Opener<'a, A>,
    sockets: &'a [BorrowedFd<'a>],
    received: &'a [AtomicU64; 3],
    memory: Vec<u8>,
    arrivals: Vec<(usize, Arrival)>,
    outlet: Outlet<'a>,
}

impl<'a, A: Above> Inbound<'a, A> {
    fn new(
        adapter: &End<'a>,
        outside: &Outside<'a>,
        router: &'a Router,
        above: &'a A,
        bells: &[BorrowedFd<'a>],
        options: Options,
    ) -> Self {
        Self {
            opener: Opener::new(router, above),
            sockets: outside.sockets,
            received: outside.received,
            memory: vec![0; MOST * PLACE],
            arrivals: Vec::new(),
            outlet: Outlet::new(adapter, bells, options),
        }
    }

    /// Pass what the sockets have and, while the gate is shut, what the adapter has.
    fn run(&mut self, shared: &Shared<'_, A>, bells: &[BorrowedFd<'_>], nudged: &PipeReader) -> Over<A::Error> {
        let count = self.sockets.len();
        let (apart, together) = ([self.sockets, &[nudged.as_fd()]].concat(), [self.sockets, shared.queues].concat());
        let (mut apart, mut together) = match (Sources::new(&apart, bells), Sources::new(&together, bells)) {
            (Ok(apart), Ok(together)) => (apart, together),
            (Err(stop), _) | (_, Err(stop)) => return stop.into(),
        };
        loop {
            let is_open = shared.gate.is_open();
            let ready = match if is_open { apart.wait() } else { together.wait() } {
                Ok(ready) => ready,
                Err(stop) => return stop.into(),
            };
            let busy = if ready.index < count {
                let busy = self.pass(ready.source);
                shared.inbound_is_busy.store(matches!(busy, Ok(true)), Ordering::Relaxed);
                busy
            } else if is_open {
                let _ = read(nudged, &mut [0; 16]); // The gate is looked at again.
                Ok(false)
            } else {
                shared.pass(ready)
            };
            match busy {
                Ok(true) if !is_open => shared.gate.open(),
                Ok(_) => {}
                Err(over) => return over,
            }
        }
    }

    /// Pass what a socket has; whether that was much.
    fn pass(&mut self, socket: BorrowedFd<'_>) -> Result<bool, Over<A::Error>> {
        let mut size = 0;
        for limit in LIMITS {
            if self.receive(socket, limit)? == 0 {
                break;
            }
            size += self.arrivals.iter().map(|(_, arrival)| arrival.bytes as u64).sum::<u64>();
        }
        Ok(size > MUCH)
    }

    /// Pass what a socket has, up to `limit` runs of datagrams; returns how many there were.
    fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> Result<usize, Over<A::Error>> {
        self.arrivals.clear();
        let mut bytes = 0;
        while self.arrivals.len() < limit.min(MOST) && bytes < BUNDLE {
            let first = self.arrivals.len();
            let places = self.memory.chunks_exact_mut(PLACE).skip(first).take(AT_ONCE.min(limit)).collect();
            let arrived = datagrams::receive(socket, places);
            let count = arrived.len();
            bytes += arrived.iter().map(|arrival| arrival.bytes).sum::<usize>();
            self.arrivals
                .extend(arrived.into_iter().enumerate().map(|(index, arrival)| ((first + index) * PLACE, arrival)));
            if count < AT_ONCE {
                break; // Nothing more is ready.
            }
        }
        let packets = self.opener.open(&mut self.memory, &self.arrivals, now()).map_err(Over::Raised)?;
        if packets.is_empty() {
            return Ok(self.arrivals.len());
        }
        count(self.received, [packets.len() as u64, packets.iter().map(|packet| packet.len() as u64).sum(), 1]);
        match self.outlet.send_packets(&packets) {
            Ok(()) | Err(Stop::Down) => Ok(self.arrivals.len()), // The link may come up again.
            Err(stop) => Err(stop.into()),
        }
    }
}

/// Seconds of the monotonic clock, as Python's `time.monotonic` has them.
#[allow(clippy::cast_precision_loss)] // Some nanoseconds, after years.
fn now() -> f64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
