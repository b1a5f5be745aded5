//! Records over descriptors, and the pump: what it moves, counts and drops, and what ends it.

#![cfg(unix)]

mod packets;

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};

use packets::{Packet, split};
use rustix::io::Errno;
use threepipe_core::descriptor::{receive, send};
use threepipe_core::pump::{End, Ended, Place, pump};
use threepipe_core::record::{HEADER_SIZE, MAX_RECORD, PLAIN_HEADER, Protocol};

const BELL: Ended = Ended { error: None, coalescing: [false, true] };

/// A pump from some sources at the left to a target at the right; the test is behind both.
struct Bench {
    sources: Vec<(UnixDatagram, UnixDatagram)>,
    target: (UnixDatagram, UnixDatagram),
    bell: (UnixStream, UnixStream),
    received: [AtomicU64; 3],
    sent: [AtomicU64; 4],
    headed: bool,
    coalescing: bool,
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
            headed: true,
            coalescing: true,
        }
    }

    fn without_headers(sources: usize) -> Self {
        Self { headed: false, ..Self::new(sources) }
    }

    /// Run the pump while `work` runs; then ring the bell, and return what ended it.
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
            pump.join().expect("it does not panic")
        })
    }

    fn pump(&self, sources: &[BorrowedFd<'_>], target: BorrowedFd<'_>) -> Ended {
        let (unused, _far) = pair();
        let (received, sent) = Default::default();
        let left = End { sources, target: unused.as_fd(), received: &self.received, sent: &sent, coalescing: false };
        let right = End { sources: &[], target, received: &received, sent: &self.sent, coalescing: self.coalescing };
        pump(&left, &right, &[self.bell.0.as_fd()], self.headed, true).expect("threads and pipes")
    }

    fn ring(&self) {
        (&self.bell.1).write_all(b"!").expect("a bell");
    }

    fn put(&self, record: &[u8]) {
        self.sources[0].1.send(record).expect("room");
    }

    fn take(&self) -> Vec<u8> {
        let mut record = vec![0; MAX_RECORD];
        let size = self.target.1.recv(&mut record).expect("a record");
        record.truncate(size);
        record
    }

    fn received(&self) -> [u64; 3] {
        self.received.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    fn sent(&self) -> [u64; 4] {
        self.sent.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

fn train(count: usize) -> Vec<Packet> {
    Packet { open: true, ..Packet::new(false, Protocol::Tcp, vec![]) }.train(count, 100)
}

fn complete(packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().map(|packet| Packet { open: false, ..packet.clone() }.bytes()).collect()
}

#[test]
fn bundles_are_coalesced_and_counted_until_the_bell() {
    let bench = Bench::new(1);
    let train = train(3);
    for packet in &train {
        bench.put(&packet.record());
    }
    let end = bench.pumping(|| {
        let record = bench.take();
        assert_eq!(record.len(), HEADER_SIZE + 40 + 300);
        assert_eq!(split(&record), complete(&train));
        bench.put(&record);
        assert_eq!(bench.take(), record, "a superpacket passes whole");
        bench.put(&train[0].record());
        assert_eq!(bench.take(), train[0].record(), "so does a single packet");
    });
    assert_eq!(end, BELL);
    assert_eq!(bench.received(), [7, 7 * 140, 3]);
    assert_eq!(bench.sent(), [7, 7 * 140, 3, 0]);
}

#[test]
fn a_target_without_superpackets_gets_packets() {
    let bench = Bench { coalescing: false, ..Bench::new(1) };
    let superpacket = Packet::new(true, Protocol::Udp, vec![5; 250]).superpacket(100);
    let open = train(1).remove(0);
    let end = bench.pumping(|| {
        bench.put(&superpacket);
        for packet in split(&superpacket) {
            assert_eq!(bench.take(), [&PLAIN_HEADER, packet.as_slice()].concat());
        }
        bench.put(&open.record());
        assert_eq!(bench.take(), [&PLAIN_HEADER, complete(std::slice::from_ref(&open))[0].as_slice()].concat());
    });
    assert_eq!(end, Ended { error: None, coalescing: [false, false] });
    assert_eq!(bench.sent()[0], 4);
}

#[test]
fn strangers_are_dropped_and_the_rest_goes_out_as_packets() {
    let bench = Bench::new(1);
    let train = train(2);
    bench.put(&train[0].record());
    bench.put(b"short");
    bench.put(&[0; 50]);
    bench.put(&[&[0, 1], &[7; 60][..]].concat());
    bench.put(&[&[1, 0, 0, 0, 0, 0][..], &20_u16.to_ne_bytes(), &vec![0; 2 * MAX_RECORD - 6]].concat());
    bench.put(&train[1].record());
    let end = bench.pumping(|| {
        for packet in complete(&train) {
            assert_eq!(bench.take(), [&PLAIN_HEADER, packet.as_slice()].concat());
        }
    });
    assert_eq!(end, BELL);
    assert_eq!(bench.received(), [4, 320 + 2 * MAX_RECORD as u64 - 8, 1]);
    assert_eq!(bench.sent(), [2, 280, 1, 2]);
}

#[test]
fn without_headers_packets_are_records() {
    let bench = Bench::without_headers(1);
    let packets = complete(&train(3));
    for packet in &packets {
        bench.put(packet);
    }
    bench.put(b"no packet");
    let end = bench.pumping(|| {
        for packet in &packets {
            assert_eq!(&bench.take(), packet);
        }
    });
    assert_eq!(end, BELL);
    assert_eq!(bench.sent(), [3, 420, 1, 1]);
}

#[test]
fn packets_wait_for_room_and_stay_in_order() {
    let bench = Bench::without_headers(1);
    let packets = complete(&train(200));
    let end = bench.pumping(|| {
        thread::scope(|scope| {
            scope.spawn(|| {
                for packet in &packets {
                    bench.put(packet);
                }
            });
            while bench.sent()[0] == 0 {
                thread::yield_now();
            }
            for packet in &packets {
                assert_eq!(&bench.take(), packet);
            }
        });
    });
    assert_eq!(end, BELL);
    assert_eq!(bench.sent()[0], 200);
}

#[test]
fn the_bell_is_heard_while_there_is_no_room() {
    let bench = Bench::without_headers(1);
    let packet = complete(&train(1)).remove(0);
    // What a socket takes before it is full differs from system to system.
    while bench.target.0.send(&packet).is_ok() {}
    let end = bench.pumping(|| {
        bench.put(&packet);
        while bench.received()[0] == 0 {
            thread::yield_now();
        }
    });
    assert_eq!(end, BELL);
    assert_eq!(bench.sent(), [0, 0, 0, 1]);
}

#[test]
fn both_directions_move_and_an_error_of_one_ends_the_other() {
    let (left, mut right, bench) = (pair(), pair(), Bench::without_headers(0));
    let packets = complete(&train(2));
    left.1.send(&packets[0]).expect("room");
    right.1.send(&packets[1]).expect("room");
    let counts: [([AtomicU64; 3], [AtomicU64; 4]); 2] = Default::default();
    let ended = thread::scope(|scope| {
        let ends = [(&left.0, &counts[0]), (&right.0, &counts[1])].map(|(file, counts)| (file.as_fd(), counts));
        let bell = bench.bell.0.as_fd();
        let pump = scope.spawn(move || {
            let [left, right] = ends.each_ref().map(|(file, (received, sent))| End {
                sources: std::slice::from_ref(file),
                target: *file,
                received,
                sent,
                coalescing: true,
            });
            pump(&left, &right, &[bell], false, true).expect("threads and pipes")
        });
        let mut place = [0; 1000];
        let size = right.1.recv(&mut place).expect("a packet");
        assert_eq!(&place[..size], &packets[0]);
        let size = left.1.recv(&mut place).expect("a packet");
        assert_eq!(&place[..size], &packets[1]);
        drop(std::mem::replace(&mut right.1, pair().1));
        left.1.send(&packets[0]).expect("room");
        pump.join().expect("it does not panic")
    });
    assert!(matches!(ended.error, Some((_, Place::Right))), "{ended:?}");
}

#[test]
fn sources_take_turns() {
    let bench = Bench::without_headers(3);
    let packets = complete(&train(3));
    for ((_, far), packet) in bench.sources.iter().zip(&packets) {
        far.send(packet).expect("room");
    }
    bench.pumping(|| {
        for packet in &packets {
            assert_eq!(&bench.take(), packet);
        }
    });
    assert_eq!(bench.received(), [3, 420, 3]);
}

#[test]
fn an_error_of_the_target_is_an_end_and_drops_what_was_on_its_way() {
    let mut bench = Bench::without_headers(1);
    let packets = complete(&train(2));
    for packet in &packets {
        bench.put(packet);
    }
    let (_, other) = UnixDatagram::pair().expect("a pair of sockets");
    drop(std::mem::replace(&mut bench.target.1, other));
    let end = bench.pumping(|| {
        while bench.sent()[3] < 2 {
            thread::yield_now();
        }
    });
    assert!(matches!(end.error, Some((_, Place::Right))), "{end:?}");
    assert_eq!(bench.sent(), [0, 0, 0, 2]);
}

#[test]
fn a_source_that_hung_up_is_an_end() {
    let (source, far) = UnixStream::pair().expect("a pair of sockets");
    drop(far);
    let bench = Bench::new(0);
    let end = bench.pump(&[source.as_fd()], bench.target.0.as_fd());
    assert_eq!(end, Ended { error: Some((Errno::PIPE, Place::Left)), coalescing: [false, true] });
}

#[cfg(target_os = "linux")]
#[test]
fn a_target_that_refuses_superpackets_gets_packets_and_what_it_refuses_then_is_dropped() {
    use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

    // Nothing can be written to a timer: EINVAL.
    let target = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK).expect("a timer");
    for superpackets in [true, false] {
        let bench = Bench::new(1);
        if superpackets {
            bench.put(&Packet::new(false, Protocol::Tcp, vec![5; 250]).superpacket(100));
        } else {
            for packet in train(3) {
                bench.put(&packet.record());
            }
        }
        let end = bench.pumping_to(target.as_fd(), || {
            while bench.sent()[3] < 3 {
                thread::yield_now();
            }
        });
        assert_eq!(end, Ended { error: None, coalescing: [false, false] });
        assert_eq!(bench.sent(), [0, 0, 0, 3]);
    }
    let bench = Bench::new(1);
    bench.put(&train(1)[0].record());
    let end = bench.pumping_to(target.as_fd(), || {
        while bench.sent()[3] < 1 {
            thread::yield_now();
        }
    });
    assert_eq!(end, BELL, "a packet that is refused says nothing of superpackets");
}

#[test]
fn receive_stops_where_there_is_nothing_no_room_or_enough() {
    let bench = Bench::new(1);
    let near = &bench.sources[0].0;
    let mut memory = vec![0; MAX_RECORD + 150];
    let mut ends = vec![];
    receive(near, &mut memory, 10, &mut ends).expect("nothing is no error");
    assert!(ends.is_empty());
    for byte in 0..4 {
        bench.put(&[byte; 100]);
    }
    receive(near, &mut memory, 1, &mut ends).expect("a record");
    assert_eq!(ends, [100]);
    ends.clear();
    receive(near, &mut memory, 10, &mut ends).expect("records");
    assert_eq!(ends, [100, 200], "then there is no room for the longest record");
    assert!(memory[..100] == [1; 100] && memory[100..200] == [2; 100]);
    ends.clear();
    receive(near, &mut memory[..MAX_RECORD - 1], 10, &mut ends).expect("no room is no error");
    assert!(ends.is_empty());
}

#[test]
fn send_says_how_far_it_came() {
    let bench = Bench::new(0);
    let records = vec![[1; 100].as_slice(); 100_000];
    let (written, error) = send(&bench.target.0, records.iter().copied());
    assert!(0 < written && written < records.len() && error.is_none());
    drop(bench.target.1);
    let (written, error) = send(&bench.target.0, records);
    assert!(written == 0 && error.is_some());
}
