//! The pump between an adapter and endpoints: datagram sockets and streams of records.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use threepipe_core::endpoints::datagrams::{Handler, Received, Sent, Way, Ways};
use threepipe_core::endpoints::records::{self, State, Stream, Turn};
use threepipe_core::io::datagrams::Arrival;
use threepipe_core::packet::record::{MAX_RECORD, PLAIN_HEADER, Protocol};
use threepipe_core::pump::{DatagramsEnd, End, Ended, Raised, RecordsEnd, TunEnd, pump};

use crate::packets::{Packet, split};
use crate::waiting::wait_until;

/// More packets than these, one at a time, are little traffic for the pump.
const CALM: usize = 200;

type Counts = [AtomicU64; 4];

/// The counters of both directions.
#[derive(Default)]
struct Counters {
    received: Counts,
    sent: Counts,
}

fn numbers(counts: &Counts) -> [u64; 4] {
    counts.each_ref().map(|count| count.load(Ordering::Relaxed))
}

/// Rings a bell in the end, also after a panic, which would wait for the pump.
struct Ring<'a>(&'a UnixStream);

impl Drop for Ring<'_> {
    fn drop(&mut self) {
        self.0.write_all(b"!").expect("a bell");
    }
}

/// An adapter, whose far side the test has, and a bell.
struct Bench {
    near: UnixDatagram,
    far: UnixDatagram,
    bell: (UnixStream, UnixStream),
    coalescing: AtomicBool,
    kept: Mutex<Vec<Vec<u8>>>,
    adapter: Counters,
    end: Counters,
}

impl Bench {
    fn new() -> Self {
        let (near, far) = UnixDatagram::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("a socket");
        far.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        Self {
            near,
            far,
            bell: UnixStream::pair().expect("a pair of sockets"),
            coalescing: AtomicBool::new(true),
            kept: Mutex::default(),
            adapter: Counters::default(),
            end: Counters::default(),
        }
    }

    /// Pump between the adapter and `end` while `work` runs.
    fn pumping(&self, end: &End<'_>, work: impl FnOnce()) {
        thread::scope(|scope| {
            let pump = scope.spawn(|| self.pump(end));
            let ring = Ring(&self.bell.1);
            work();
            drop(ring);
            pump.join().expect("no panic");
        });
    }

    fn pump(&self, end: &End<'_>) {
        assert!(matches!(self.ended(end), Ended::Bell));
    }

    fn ended(&self, end: &End<'_>) -> Ended {
        let sources = [self.near.as_fd()];
        let adapter = End::Tun(TunEnd {
            sources: &sources,
            target: self.near.as_fd(),
            vnet_header: true,
            wide: false,
            udp: true,
            coalescing: &self.coalescing,
            kept: &self.kept,
            received: (&self.adapter.received).into(),
            sent: (&self.adapter.sent).into(),
        });
        pump(&adapter, end, &[self.bell.0.as_fd()], &()).expect("threads and pipes")
    }

    fn records<'a>(&'a self, socket: &'a UnixStream, sources: &'a [BorrowedFd<'a>], stream: &'a Stream) -> End<'a> {
        End::Records(RecordsEnd {
            sources,
            target: socket.as_fd(),
            stream,
            handler: None,
            received: (&self.end.received).into(),
            sent: (&self.end.sent).into(),
        })
    }

    /// Return an end whose handler reads and writes.
    fn encrypted<'a>(
        &'a self,
        socket: &'a UnixStream,
        sources: &'a [BorrowedFd<'a>],
        stream: &'a Stream,
        handler: &'a Memory,
    ) -> End<'a> {
        let End::Records(end) = self.records(socket, sources, stream) else { unreachable!() };
        End::Records(RecordsEnd { handler: Some(handler), ..end })
    }

    fn datagrams<'a>(
        &'a self,
        sources: &'a [BorrowedFd<'a>; 1],
        ways: &'a Ways,
        notes: &'a Notes,
        kept: &'a Mutex<Vec<Vec<u8>>>,
    ) -> End<'a> {
        End::Datagrams(DatagramsEnd {
            socket: sources[0],
            sources,
            ways,
            handler: notes,
            kept,
            received: (&self.end.received).into(),
            sent: (&self.end.sent).into(),
        })
    }

    /// Send a packet from the far side, and wait until it was received.
    fn send_calmly(&self, payload: usize) {
        let before = numbers(&self.adapter.received)[0];
        self.far.send(&[&PLAIN_HEADER[..], &packet(payload)].concat()).expect("room");
        wait_until(|| numbers(&self.adapter.received)[0] > before);
    }

    fn receive(&self) -> Vec<u8> {
        let mut record = vec![0; MAX_RECORD];
        let size = self.far.recv(&mut record).expect("a record");
        record.truncate(size);
        record
    }
}

/// A handler that gives out what it has, and keeps what it is given.
#[derive(Default)]
struct Memory {
    received: Mutex<Vec<Vec<u8>>>,
    sent: Mutex<Vec<Vec<u8>>>,
    is_full: AtomicBool,
    is_gone: AtomicBool,
}

impl records::Handler for Memory {
    fn receive(&self, memory: &mut [u8]) -> Result<Option<usize>, Raised> {
        let Some(data) = self.received.lock().unwrap().pop() else { return Ok(None) };
        memory[..data.len()].copy_from_slice(&data);
        if data == b"?" { Err("it fails".into()) } else { Ok(Some(data.len())) }
    }

    fn send(&self, data: &[u8]) -> Result<Option<bool>, Raised> {
        self.sent.lock().unwrap().push(data.to_vec());
        Ok((!self.is_gone.load(Ordering::Relaxed)).then(|| !self.is_full.load(Ordering::Relaxed)))
    }
}

fn stream_pair() -> (UnixStream, UnixStream) {
    let (near, far) = UnixStream::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a socket");
    far.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    (near, far)
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u16).to_be_bytes()[..], packet].concat()
}

fn packet(payload: usize) -> Vec<u8> {
    Packet::new(false, Protocol::Udp, vec![7; payload]).bytes()
}

#[test]
fn superpackets_become_records_and_records_become_packets() {
    let (bench, stream, (near, mut far)) = (Bench::new(), Stream::default(), stream_pair());
    let superpacket = Packet::new(false, Protocol::Tcp, vec![1; 5000]).superpacket(1400);
    let expected: Vec<u8> = split(&superpacket).iter().flat_map(|packet| framed(packet)).collect();
    bench.pumping(&bench.records(&near, &[near.as_fd()], &stream), || {
        bench.far.send(&superpacket).expect("room");
        let mut found = vec![0; expected.len()];
        far.read_exact(&mut found).expect("records");
        assert_eq!(found, expected);
        let data = [framed(&packet(100)), vec![0, 0], framed(&packet(33))].concat();
        let (first, rest) = data.split_at(70);
        far.write_all(first).expect("room");
        far.write_all(rest).expect("room");
        assert_eq!([bench.receive(), bench.receive()].map(|record| record[10..].to_vec()), [packet(100), packet(33)]);
    });
    assert_eq!(numbers(&bench.end.received)[..2], [2, 189]);
    assert_eq!(stream.into_state(), State::default());
}

#[test]
fn bytes_on_their_way_are_given_back_at_a_bell() {
    let (bench, (near, far)) = (Bench::new(), stream_pair());
    let stream = Stream::new(vec![0]);
    let record = [&PLAIN_HEADER[..], &packet(1400)].concat();
    bench.pumping(&bench.records(&near, &[near.as_fd()], &stream), || {
        (&far).write_all(&[128, 0x45]).expect("room"); // The length is 128, as the first byte was read before.
        bench.far.set_nonblocking(true).expect("a socket");
        let mut full = 0;
        while full < 200 {
            if bench.far.send(&record).is_ok() {
                full = 0;
            } else {
                full += 1;
                thread::park_timeout(Duration::from_millis(1));
            }
        }
    });
    let State { unread, unsent, turn } = stream.into_state();
    assert_eq!((unread, turn), (vec![0, 128, 0x45], None));
    far.set_nonblocking(true).expect("a socket");
    let mut written = Vec::new();
    let _ = (&far).read_to_end(&mut written);
    written.extend(unsent);
    let [packets, _, _, dropped] = numbers(&bench.end.sent);
    assert_eq!(written, framed(&packet(1400)).repeat(packets as usize));
    assert_eq!(numbers(&bench.adapter.received)[0], packets + dropped);
}

#[test]
fn a_stream_without_room_does_not_hold_up_packets_for_the_adapter() {
    let (bench, stream, (near, mut far)) = (Bench::new(), Stream::default(), stream_pair());
    let mut filled = 0;
    while let Ok(size) = (&near).write(&[0; 1 << 12]) {
        filled += size;
    }
    bench.pumping(&bench.records(&near, &[near.as_fd()], &stream), || {
        bench.send_calmly(1);
        for _ in 0..CALM {
            far.write_all(&framed(&packet(33))).expect("room");
            assert_eq!(bench.receive()[10..], packet(33));
        }
        far.read_exact(&mut vec![0; filled]).expect("bytes");
        for expected in [1, 2] {
            let mut found = framed(&packet(expected));
            far.read_exact(&mut found).expect("a record");
            assert_eq!(found, framed(&packet(expected)));
            bench.send_calmly(2);
        }
    });
}

#[test]
fn an_adapter_without_room_does_not_hold_up_packets_for_a_stream() {
    let (bench, stream, (near, mut far)) = (Bench::new(), Stream::default(), stream_pair());
    let mut filled = 0;
    while bench.near.send(&[&PLAIN_HEADER[..], &packet(1)].concat()).is_ok() {
        filled += 1;
    }
    bench.pumping(&bench.records(&near, &[near.as_fd()], &stream), || {
        far.write_all(&framed(&packet(2))).expect("room");
        wait_until(|| numbers(&bench.end.received)[0] > 0);
        for _ in 0..CALM {
            bench.send_calmly(33);
            let mut found = framed(&packet(33));
            far.read_exact(&mut found).expect("a record");
        }
        for _ in 0..filled {
            bench.receive();
        }
        assert_eq!(bench.receive()[10..], packet(2));
    });
}

#[test]
fn a_record_that_is_not_a_packet_is_given_back_after_those_before_it() {
    for fault in [framed(&[0; 30]), vec![0, 5], b"Password: ".to_vec()] {
        let (bench, stream, (near, mut far)) = (Bench::new(), Stream::default(), stream_pair());
        far.write_all(&[framed(&packet(50)), fault.clone()].concat()).expect("room");
        bench.pumping(&bench.records(&near, &[near.as_fd()], &stream), || {
            assert_eq!(bench.receive()[10..], packet(50));
        });
        assert_eq!(stream.into_state(), State { unread: fault, unsent: vec![], turn: Some(Turn::Look) });
    }
}

#[test]
fn the_end_of_a_stream_stops_the_pump() {
    let (bench, stream, (near, far)) = (Bench::new(), Stream::default(), stream_pair());
    (&far).write_all(&framed(&packet(50))).expect("room");
    drop(far);
    bench.pump(&bench.records(&near, &[near.as_fd()], &stream)); // Without a bell.
    assert_eq!(bench.receive()[10..], packet(50));
    assert_eq!(stream.into_state().turn, Some(Turn::Look));
}

#[test]
fn a_handler_reads_and_writes() {
    let (bench, stream, memory, (near, mut far)) = (Bench::new(), Stream::default(), Memory::default(), stream_pair());
    let data = framed(&packet(100));
    let (first, rest) = data.split_at(70);
    let adapters = [&PLAIN_HEADER[..], &packet(33)].concat();
    bench.pumping(&bench.encrypted(&near, &[near.as_fd()], &stream, &memory), || {
        bench.far.send(&adapters).expect("room");
        while memory.sent.lock().unwrap().is_empty() {
            thread::yield_now();
        }
        *memory.received.lock().unwrap() = vec![rest.to_vec(), first.to_vec()];
        far.write_all(b"!").expect("room");
        assert_eq!(bench.receive()[10..], packet(100));
    });
    assert_eq!(*memory.sent.lock().unwrap(), [framed(&packet(33))]);
    assert_eq!(stream.into_state(), State::default());
}

#[test]
fn nothing_from_a_handler_is_the_owners_turn() {
    let (bench, stream, memory, (near, mut far)) = (Bench::new(), Stream::default(), Memory::default(), stream_pair());
    *memory.received.lock().unwrap() = vec![vec![], framed(&packet(100))];
    far.write_all(b"!").expect("room");
    bench.pump(&bench.encrypted(&near, &[near.as_fd()], &stream, &memory)); // Without a bell.
    assert_eq!(bench.receive()[10..], packet(100));
    assert_eq!(stream.into_state().turn, Some(Turn::Look));
}

#[test]
fn a_handler_without_room_keeps_what_it_has_and_the_rest_is_given_back_at_a_bell() {
    let (bench, stream, memory, (near, _far)) = (Bench::new(), Stream::default(), Memory::default(), stream_pair());
    memory.is_full.store(true, Ordering::Relaxed);
    while (&near).write(&[0; 1 << 10]).is_ok() {}
    let superpacket = Packet::new(false, Protocol::Tcp, vec![1; 60_000]).superpacket(1400);
    for _ in 0..3 {
        bench.far.send(&superpacket).expect("room");
    }
    bench.pumping(&bench.encrypted(&near, &[near.as_fd()], &stream, &memory), || {
        while memory.sent.lock().unwrap().is_empty() {
            thread::yield_now();
        }
    });
    let written = [memory.sent.into_inner().unwrap().concat(), stream.into_state().unsent].concat();
    let record: Vec<u8> = split(&superpacket).iter().flat_map(|packet| framed(packet)).collect();
    let [packets, _, _, dropped] = numbers(&bench.end.sent);
    assert_eq!((written.len(), dropped), (record.len() * packets as usize / split(&superpacket).len(), 0));
    assert_eq!(written, record.repeat(written.len() / record.len()));
}

#[test]
fn packets_that_a_handler_loses_are_counted_as_dropped() {
    let (bench, stream, memory, (near, _far)) = (Bench::new(), Stream::default(), Memory::default(), stream_pair());
    memory.is_gone.store(true, Ordering::Relaxed);
    bench.pumping(&bench.encrypted(&near, &[near.as_fd()], &stream, &memory), || {
        bench.far.send(&[&PLAIN_HEADER[..], &packet(33)].concat()).expect("room");
        wait_until(|| numbers(&bench.end.sent)[3] > 0);
    });
    assert_eq!(numbers(&bench.end.sent), [0, 0, 0, 1]);
    assert_eq!(stream.into_state(), State::default());
}

#[test]
fn an_error_of_a_handler_ends_the_pump() {
    let (bench, stream, memory, (near, mut far)) = (Bench::new(), Stream::default(), Memory::default(), stream_pair());
    memory.received.lock().unwrap().push(b"?".to_vec());
    far.write_all(b"!").expect("room");
    let ended = bench.ended(&bench.encrypted(&near, &[near.as_fd()], &stream, &memory));
    assert!(matches!(ended, Ended::Raised(raised) if raised.to_string() == "it fails"));
}

/// A handler that keeps the arguments of its calls, and takes every sender for the peer.
#[derive(Default)]
struct Notes {
    received: Mutex<Vec<(Vec<u8>, Arrival)>>,
    sent: Mutex<Vec<(usize, Errno)>>,
    own: AtomicU64,
}

impl Handler for Notes {
    fn receive(&self, datagrams: &[u8], arrival: &Arrival) -> Result<Received, Raised> {
        self.received.lock().unwrap().push((datagrams.to_vec(), *arrival));
        let packets = datagrams.chunks(arrival.size).filter(|datagram| datagram.len() > 19).map(<[u8]>::to_vec);
        let way = Way { peer: Some(arrival.source), ..Way::default() };
        Ok(Received { packets: packets.collect(), way: Some(way) })
    }

    fn receive_failed(&self, _: Errno) -> Result<(), Raised> {
        Ok(())
    }

    fn send(&self, packets: &[&[u8]], error: Errno) -> Result<Sent, Raised> {
        self.sent.lock().unwrap().push((packets.len(), error));
        Ok(Sent { sent: 0, dropped: packets.len() })
    }

    fn dropped_own(&self) -> Result<(), Raised> {
        self.own.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

#[test]
fn superpackets_become_datagrams_and_strangers_go_to_the_handler() {
    let (bench, notes, ways, kept) = (Bench::new(), Notes::default(), Ways::new(None), Mutex::default());
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("a socket");
    let other = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    other.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    let sources = [socket.as_fd()];
    let end = bench.datagrams(&sources, &ways, &notes, &kept);
    let superpacket = Packet::new(false, Protocol::Tcp, vec![1; 5000]).superpacket(1400);
    bench.pumping(&end, || {
        bench.far.send(&superpacket).expect("room");
        wait_until(|| numbers(&bench.end.sent)[3] >= 4); // They have nowhere to go yet.
        for payload in [40, 41] {
            other.send_to(&packet(payload), socket.local_addr().expect("an address")).expect("room");
            assert_eq!(bench.receive()[10..], packet(payload));
        }
        bench.far.send(&superpacket).expect("room");
        for expected in split(&superpacket) {
            let mut found = vec![0; MAX_RECORD];
            let size = other.recv(&mut found).expect("a datagram");
            assert_eq!(found[..size], expected);
        }
    });
    assert_eq!(notes.received.lock().unwrap().len(), 1); // The first one: from then on it was the peer's.
    assert_eq!(numbers(&bench.end.received)[..2], [2, 68 + 69]);
    assert_eq!(numbers(&bench.end.sent), [4, 5000 + 4 * 40, 1, 4]);
}

#[test]
fn packets_that_wait_for_room_at_a_datagram_socket_are_kept_when_a_bell_rings() {
    let (bench, notes, ways) = (Bench::new(), Notes::default(), Ways::new(Some(Way::default())));
    let kept = Mutex::default();
    let (socket, _other) = UnixDatagram::pair().expect("a pair of sockets");
    socket.set_nonblocking(true).expect("a socket");
    while socket.send(&packet(1)).is_ok() {}
    let sources = [socket.as_fd()];
    let end = bench.datagrams(&sources, &ways, &notes, &kept);
    let superpacket = Packet::new(false, Protocol::Tcp, vec![1; 5000]).superpacket(1400);
    bench.pumping(&end, || {
        bench.far.send(&superpacket).expect("room");
        wait_until(|| numbers(&bench.adapter.received)[0] >= 4);
    });
    assert_eq!(*kept.lock().unwrap(), split(&superpacket));
    assert_eq!(numbers(&bench.end.sent), [0; 4]);
}
