//! Records over files, and the pump between adapters: forwarding, counting, dropping and ending.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use rustix::io::Errno;
use threepipe_core::io::descriptor::{receive, send};
use threepipe_core::packet::record::{HEADER_SIZE, MAX_RECORD, PLAIN_HEADER, Protocol};
use threepipe_core::packet::tunnel::{FILLER, WIDE_HEADER_SIZE};
use threepipe_core::pump::{End, Ended, Error, Side, TunEnd, pump};

use crate::packets::{Packet, split};
use crate::tunnels::{datagrams, tunnelled};
use crate::waiting::wait_until;

/// The counters of one direction of an end.
type Counts = [AtomicU64; 4];

/// A pump from some sources at the left to a target at the right. The test has the other side of both.
struct Bench {
    sources: Vec<(UnixDatagram, UnixDatagram)>,
    target: (UnixDatagram, UnixDatagram),
    bell: (UnixStream, UnixStream),
    received: Counts,
    sent: Counts,
    vnet_header: bool,
    wide: bool,
    coalescing: AtomicBool,
    kept: Mutex<Vec<Vec<u8>>>,
}

fn pair() -> (UnixDatagram, UnixDatagram) {
    let (near, far) = UnixDatagram::pair().expect("a pair of sockets");
    near.set_nonblocking(true).expect("a socket");
    (near, far)
}

impl Bench {
    fn new(sources: usize) -> Self {
        Self {
            sources: (0..sources).map(|_| pair()).collect(),
            target: pair(),
            bell: UnixStream::pair().expect("a pair of sockets"),
            received: Default::default(),
            sent: Default::default(),
            vnet_header: true,
            wide: false,
            coalescing: AtomicBool::new(true),
            kept: Mutex::default(),
        }
    }

    fn without_headers(sources: usize) -> Self {
        Self { vnet_header: false, ..Self::new(sources) }
    }

    /// Run the pump while `work` runs, then ring the bell. Return the outcome.
    fn pumping(&self, work: impl FnOnce()) -> Ended {
        self.pumping_to(self.target.0.as_fd(), work)
    }

    fn pumping_to(&self, target: BorrowedFd<'_>, work: impl FnOnce()) -> Ended {
        thread::scope(|scope| {
            let pump: ScopedJoinHandle<'_, _> = scope.spawn(move || {
                let sources: Vec<BorrowedFd<'_>> = self.sources.iter().map(|(near, _)| near.as_fd()).collect();
                self.pump(&sources, target)
            });
            work();
            self.ring();
            pump.join().expect("no panic")
        })
    }

    fn pump(&self, sources: &[BorrowedFd<'_>], target: BorrowedFd<'_>) -> Ended {
        let (unused, _far) = pair();
        let (received, sent) = <(Counts, Counts)>::default();
        let left = self.end(sources, unused.as_fd(), &self.received, &sent);
        let right = self.end(&[], target, &received, &self.sent);
        pump(&left, &right, &[self.bell.0.as_fd()], &()).expect("threads and pipes")
    }

    fn end<'a>(
        &'a self,
        sources: &'a [BorrowedFd<'a>],
        target: BorrowedFd<'a>,
        received: &'a Counts,
        sent: &'a Counts,
    ) -> End<'a> {
        End::Tun(TunEnd {
            sources,
            target,
            vnet_header: self.vnet_header,
            wide: self.wide,
            udp: true,
            coalescing: &self.coalescing,
            kept: &self.kept,
            received: received.into(),
            sent: sent.into(),
        })
    }

    fn is_coalescing(&self) -> bool {
        self.coalescing.load(Ordering::Relaxed)
    }

    fn ring(&self) {
        (&self.bell.1).write_all(b"!").expect("a bell");
    }

    fn send(&self, record: &[u8]) {
        self.sources[0].1.send(record).expect("room");
    }

    fn receive(&self) -> Vec<u8> {
        let mut record = vec![0; MAX_RECORD];
        let size = self.target.1.recv(&mut record).expect("a record");
        record.truncate(size);
        record
    }

    fn received(&self) -> [u64; 4] {
        self.received.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn sent(&self) -> [u64; 4] {
        self.sent.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

fn train(count: usize) -> Vec<Packet> {
    Packet { partial: true, ..Packet::new(false, Protocol::Tcp, vec![]) }.train(count, 100)
}

fn complete(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(|packet| Packet { partial: false, ..packet.clone() }.bytes()).collect()
}

#[test]
fn bundles_to_a_coalescing_adapter_are_coalesced_and_counted() {
    let bench = Bench::new(1);
    let train = train(3);
    for packet in &train {
        bench.send(&packet.record());
    }
    let end = bench.pumping(|| {
        let record = bench.receive();
        assert_eq!(record.len(), HEADER_SIZE + 40 + 300);
        assert_eq!(split(&record), complete(&train));
        bench.send(&record);
        assert_eq!(bench.receive(), record, "a superpacket is forwarded whole");
        bench.send(&train[0].record());
        assert_eq!(bench.receive(), train[0].record(), "so is a single packet");
    });
    assert!(matches!(end, Ended::Bell), "{end:?}");
    assert_eq!(bench.received(), [7, 7 * 140, 3, 0]);
    assert_eq!(bench.sent(), [7, 7 * 140, 3, 0]);
}

#[test]
fn superpackets_to_an_adapter_that_does_not_coalesce_are_split() {
    let bench = Bench { coalescing: AtomicBool::new(false), ..Bench::new(1) };
    let superpacket = Packet::new(true, Protocol::Udp, vec![5; 250]).superpacket(100);
    let partial = train(1).remove(0);
    let end = bench.pumping(|| {
        bench.send(&superpacket);
        for packet in split(&superpacket) {
            assert_eq!(bench.receive(), [&PLAIN_HEADER, packet.as_slice()].concat());
        }
        bench.send(&partial.record());
        assert_eq!(bench.receive(), [&PLAIN_HEADER, complete(std::slice::from_ref(&partial))[0].as_slice()].concat());
    });
    assert!(matches!(end, Ended::Bell), "{end:?}");
    assert_eq!(bench.sent()[0], 4);
}

#[test]
fn bundle_with_malformed_records_is_sent_as_packets_without_them() {
    let bench = Bench::new(1);
    let train = train(2);
    bench.send(&train[0].record());
    bench.send(b"short");
    bench.send(&[0; 50]);
    bench.send(&[&[0, 1], &[7; 60][..]].concat());
    bench.send(&[&[1, 0, 0, 0, 0, 0][..], &20_u16.to_ne_bytes(), &vec![0; 2 * MAX_RECORD - 6]].concat());
    bench.send(&train[1].record());
    let end = bench.pumping(|| {
        for packet in complete(&train) {
            assert_eq!(bench.receive(), [&PLAIN_HEADER, packet.as_slice()].concat());
        }
    });
    assert!(matches!(end, Ended::Bell), "{end:?}");
    assert_eq!(bench.received(), [4, 320 + 2 * MAX_RECORD as u64 - 8, 1, 0]);
    assert_eq!(bench.sent(), [2, 280, 1, 2]);
}

#[test]
fn tunnel_superpackets_are_forwarded_as_runs_with_wide_headers() {
    let bench = Bench { wide: true, ..Bench::new(1) };
    let inner = Packet::new(false, Protocol::Tcp, vec![7; 65_000]);
    let datagrams = datagrams(false, &inner, 1000);
    let size = datagrams.iter().map(Vec::len).sum::<usize>() as u64;
    let widened = |record: &[u8]| [&record[..HEADER_SIZE], &FILLER, &record[HEADER_SIZE..]].concat();
    let narrowed = |wide: &[u8]| [&wide[..HEADER_SIZE], &wide[WIDE_HEADER_SIZE..]].concat();
    let end = bench.pumping(|| {
        for _ in 0..2 {
            bench.send(&tunnelled(false, &inner, 1000));
            let mut found = vec![];
            while found.len() < datagrams.len() {
                found.extend(split(&narrowed(&bench.receive())));
            }
            assert!(found == datagrams);
        }
        let record = inner.superpacket(1000);
        bench.send(&widened(&record));
        assert_eq!(bench.receive(), widened(&record));
        let mut hostile = tunnelled(false, &inner, 1000);
        hostile[20] += 4;
        bench.send(&hostile);
        let train = train(3);
        for packet in &train {
            bench.send(&widened(&packet.record()));
        }
        let mut found = vec![];
        while found.len() < train.len() {
            found.extend(split(&narrowed(&bench.receive())));
        }
        assert_eq!(found, complete(&train));
    });
    assert!(matches!(end, Ended::Bell), "{end:?}");
    let packets = 2 * datagrams.len() as u64 + 65 + 3;
    assert_eq!(bench.received()[..2], [packets, 2 * size + 65_000 + 65 * 40 + 3 * 140]);
    assert_eq!(bench.sent()[0], packets);
    assert_eq!(bench.sent()[3], 0, "a record without packets is not counted");
}

#[test]
fn adapters_without_virtio_headers_exchange_packets() {
    let bench = Bench::without_headers(1);
    let packets = complete(&train(3));
    for packet in &packets {
        bench.send(packet);
    }
    bench.send(b"no packet");
    let end = bench.pumping(|| {
        for packet in &packets {
            assert_eq!(&bench.receive(), packet);
        }
    });
    assert!(matches!(end, Ended::Bell), "{end:?}");
    assert_eq!(bench.sent(), [3, 420, 1, 1]);
}

#[test]
fn packets_to_a_full_target_wait_and_keep_their_order() {
    let bench = Bench::without_headers(1);
    let packets = complete(&train(200));
    let end = bench.pumping(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                for packet in &packets {
                    bench.send(packet);
                }
            });
            wait_until(|| bench.sent()[0] > 0);
            for packet in &packets {
                assert_eq!(&bench.receive(), packet);
            }
        });
    });
    assert!(matches!(end, Ended::Bell), "{end:?}");
    assert_eq!(bench.sent()[0], 200);
}

#[test]
fn bell_stops_the_pump_while_it_waits_for_room_and_leaves_it_the_packet() {
    let bench = Bench::without_headers(1);
    let packet = complete(&train(1)).remove(0);
    // The capacity of a socket differs from system to system.
    while bench.target.0.send(&packet).is_ok() {}
    let end = bench.pumping(|| {
        bench.send(&packet);
        wait_until(|| bench.received()[0] > 0);
    });
    assert!(matches!(end, Ended::Bell), "{end:?}");
    assert_eq!(bench.sent(), [0, 0, 0, 0]);
    assert_eq!(*bench.kept.lock().expect("no panic"), [packet]);
}

#[test]
fn error_of_one_direction_stops_the_other() {
    let (left, mut right, bench) = (pair(), pair(), Bench::without_headers(0));
    let packets = complete(&train(2));
    left.1.send(&packets[0]).expect("room");
    right.1.send(&packets[1]).expect("room");
    let counts = <[[Counts; 2]; 2]>::default();
    let ended = thread::scope(|scope| {
        let ends = [(left.0.as_fd(), &counts[0]), (right.0.as_fd(), &counts[1])];
        let (bench, ends) = (&bench, ends);
        let pump = scope.spawn(move || {
            let [left, right] = ends
                .each_ref()
                .map(|(file, [received, sent])| bench.end(std::slice::from_ref(file), *file, received, sent));
            pump(&left, &right, &[bench.bell.0.as_fd()], &()).expect("threads and pipes")
        });
        let mut memory = [0; 1000];
        let size = right.1.recv(&mut memory).expect("a packet");
        assert_eq!(&memory[..size], &packets[0]);
        let size = left.1.recv(&mut memory).expect("a packet");
        assert_eq!(&memory[..size], &packets[1]);
        drop(std::mem::replace(&mut right.1, pair().1));
        left.1.send(&packets[0]).expect("room");
        pump.join().expect("no panic")
    });
    assert!(matches!(ended, Ended::Failed(_, Side::Right)), "{ended:?}");
}

#[test]
fn sources_of_one_adapter_take_turns() {
    let bench = Bench::without_headers(3);
    let packets = complete(&train(3));
    for ((_, far), packet) in bench.sources.iter().zip(&packets) {
        far.send(packet).expect("room");
    }
    bench.pumping(|| {
        for packet in &packets {
            assert_eq!(&bench.receive(), packet);
        }
    });
    assert_eq!(bench.received(), [3, 420, 3, 0]);
}

#[test]
fn error_of_the_target_stops_the_pump_and_drops_the_bundle() {
    let mut bench = Bench::without_headers(1);
    let packets = complete(&train(2));
    for packet in &packets {
        bench.send(packet);
    }
    let (_, other) = UnixDatagram::pair().expect("a pair of sockets");
    drop(std::mem::replace(&mut bench.target.1, other));
    let end = bench.pumping(|| {
        wait_until(|| bench.sent()[3] >= 2);
    });
    assert!(matches!(end, Ended::Failed(_, Side::Right)), "{end:?}");
    assert_eq!(bench.sent(), [0, 0, 0, 2]);
}

#[test]
fn source_that_hung_up_stops_the_pump() {
    let (source, far) = UnixStream::pair().expect("a pair of sockets");
    drop(far);
    let bench = Bench::new(0);
    let end = bench.pump(&[source.as_fd()], bench.target.0.as_fd());
    assert!(matches!(end, Ended::Failed(Errno::PIPE, Side::Left)), "{end:?}");
    assert!(bench.is_coalescing());
}

#[cfg(target_os = "linux")]
#[test]
fn target_that_refuses_superpackets_gets_packets_and_refused_packets_are_dropped() {
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

    // Every write to a timer fails with EINVAL.
    let target = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).expect("a timer");
    for superpackets in [true, false] {
        let bench = Bench::new(1);
        if superpackets {
            bench.send(&Packet::new(false, Protocol::Tcp, vec![5; 250]).superpacket(100));
        } else {
            for packet in train(3) {
                bench.send(&packet.record());
            }
        }
        let end = bench.pumping_to(target.as_fd(), || {
            wait_until(|| bench.sent()[3] >= 3);
        });
        assert!(matches!(end, Ended::Bell) && !bench.is_coalescing(), "{end:?}");
        assert_eq!(bench.sent(), [0, 0, 0, 3]);
    }
    let bench = Bench::new(1);
    bench.send(&train(1)[0].record());
    let end = bench.pumping_to(target.as_fd(), || {
        wait_until(|| bench.sent()[3] >= 1);
    });
    assert!(matches!(end, Ended::Bell) && bench.is_coalescing(), "a refused packet says nothing about superpackets");
}

#[test]
fn receive_stops_at_an_empty_source_full_memory_or_the_limit() {
    let bench = Bench::new(1);
    let near = &bench.sources[0].0;
    let mut memory = vec![0; MAX_RECORD + 150];
    let mut ends = vec![];
    receive(near, &mut memory, 10, false, &mut ends).expect("an empty source is not an error");
    assert!(ends.is_empty());
    for byte in 0..4 {
        bench.send(&[byte; 100]);
    }
    receive(near, &mut memory, 1, false, &mut ends).expect("a record");
    assert_eq!(ends, [100]);
    ends.clear();
    receive(near, &mut memory, 10, false, &mut ends).expect("records");
    assert_eq!(ends, [100, 200], "the rest has no room for the longest record");
    assert!(memory[..100] == [1; 100] && memory[100..200] == [2; 100]);
    ends.clear();
    receive(near, &mut memory[..MAX_RECORD - 1], 10, false, &mut ends).expect("full memory is not an error");
    assert!(ends.is_empty());
}

#[test]
fn send_to_a_full_target_returns_fewer_and_to_a_closed_one_an_error() {
    let bench = Bench::new(0);
    let records = vec![[1; 100].as_slice(); 100_000];
    let (sent, error) = send(&bench.target.0, records.iter().copied(), false);
    assert!(0 < sent && sent < records.len() && error.is_none());
    drop(bench.target.1);
    let (sent, error) = send(&bench.target.0, records, false);
    assert!(sent == 0 && error.is_some());
}

#[test]
fn adapters_of_different_formats_do_not_fit_together() {
    let (bench, other) = (Bench::new(0), Bench::without_headers(0));
    let [left, right] = [&bench, &other].map(|side| side.end(&[], side.target.0.as_fd(), &side.received, &side.sent));
    assert!(matches!(pump(&left, &right, &[bench.bell.0.as_fd()], &()), Err(Error::Mismatch)));
}
