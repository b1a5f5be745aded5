//! The pump between an adapter and peers: two devices whose sockets send to each other over loopback.

use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use threepipe_core::io::datagrams::Arrival;
use threepipe_core::packet::record::{HEADER_SIZE, MAX_RECORD, PLAIN_HEADER};
use threepipe_core::pump::{End, Ended, Error, PeersEnd, Raised, Side, TunEnd, pump};
use threepipe_core::wireguard::handler::{Handler, Target};
use threepipe_core::wireguard::router::{Keypair, PeerSettings, Router};
use threepipe_core::wireguard::traffic::Traffic;
use threepipe_core::wireguard::transport::Transport;

use crate::waiting::wait_until;

const PEER: u32 = 5;

type Counts = [AtomicU64; 4];

/// A handler that keeps the arguments of its calls.
#[derive(Default)]
struct Notes {
    sent: Mutex<Vec<(Vec<Vec<u8>>, bool)>>,
    received: Mutex<Vec<(Vec<u8>, Arrival)>>,
    attended: Mutex<Vec<(u32, bool)>>,
    fails: AtomicBool,
}

impl Handler for Notes {
    fn send(&self, records: &[&[u8]], vnet_header: bool) -> Result<(), Raised> {
        if self.fails.load(Ordering::Relaxed) {
            return Err("it failed".into());
        }
        let records = records.iter().map(|record| record.to_vec()).collect();
        self.sent.lock().unwrap().push((records, vnet_header));
        Ok(())
    }

    fn keep(&self, _: &[u8], _: usize, _: Target) -> Result<(), Raised> {
        unreachable!("loopback always has room")
    }

    fn receive(&self, datagrams: &[u8], arrival: &Arrival) -> Result<Vec<Vec<u8>>, Raised> {
        self.received.lock().unwrap().push((datagrams.to_vec(), *arrival));
        Ok(datagrams.chunks(arrival.size).filter(|datagram| datagram.len() > 19).map(<[u8]>::to_vec).collect())
    }

    fn attend(&self, peer: u32, sending: bool) -> Result<f64, Raised> {
        self.attended.lock().unwrap().push((peer, sending));
        Ok(f64::INFINITY)
    }
}

/// A device, piped to an adapter. The test has the far side of the adapter.
struct Device {
    near: UnixDatagram,
    far: UnixDatagram,
    socket: UdpSocket,
    router: Router,
    traffic: Arc<Traffic>,
    handler: Notes,
    vnet_header: bool,
    coalescing: AtomicBool,
    kept: Mutex<Vec<Vec<u8>>>,
    adapter: [Counts; 2],
    peers: [Counts; 2],
    bell: (UnixStream, UnixStream),
}

impl Device {
    fn new(vnet_header: bool) -> Self {
        let (near, far) = UnixDatagram::pair().expect("a pair of sockets");
        near.set_nonblocking(true).expect("a socket");
        far.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        Self {
            near,
            far,
            socket,
            router: Router::default(),
            traffic: Arc::default(),
            handler: Notes::default(),
            vnet_header,
            coalescing: AtomicBool::new(vnet_header),
            kept: Mutex::default(),
            adapter: Default::default(),
            peers: Default::default(),
            bell: UnixStream::pair().expect("a pair of sockets"),
        }
    }

    /// Make `other` a peer, with keys that fit those of `other`.
    fn know(&self, other: &Self, keys: [[u8; 32]; 2], network: [u8; 4]) {
        let transport = Arc::new(Transport::new(&keys[0], &keys[1], 7, 7).expect("keys of 32 bytes"));
        let keypair = || Keypair::new(Arc::clone(&transport), f64::INFINITY, f64::INFINITY);
        let settings = PeerSettings {
            traffic: Arc::clone(&self.traffic),
            endpoint: Some(other.socket.local_addr().expect("an address")),
            local: None,
            sending: Some(keypair()),
            receiving: vec![keypair()],
        };
        self.router.set_peer(PEER, settings);
        self.router.set_allowed(PEER, vec![(IpAddr::from(network), 32)], None);
    }

    /// Pump while `work` runs, with the adapter at `side`, and return the outcome.
    fn pumping(&self, side: Side, work: impl FnOnce()) -> Ended {
        thread::scope(|scope| {
            let pump = scope.spawn(move || self.pump(side));
            let bell = RingAtDrop(&self.bell.1);
            work();
            drop(bell);
            pump.join().expect("no panic")
        })
    }

    fn pump(&self, side: Side) -> Ended {
        let (sources, sockets) = ([self.near.as_fd()], [self.socket.as_fd()]);
        let (adapter, peers) = (self.adapter_end(&sources), self.peers_end(&sockets));
        let (left, right) = if side == Side::Left { (&adapter, &peers) } else { (&peers, &adapter) };
        pump(left, right, &[self.bell.0.as_fd()], &()).expect("threads and pipes")
    }

    fn adapter_end<'a>(&'a self, sources: &'a [BorrowedFd<'a>]) -> End<'a> {
        End::Tun(TunEnd {
            sources,
            target: self.near.as_fd(),
            vnet_header: self.vnet_header,
            wide: false,
            udp: true,
            coalescing: &self.coalescing,
            kept: &self.kept,
            received: (&self.adapter[0]).into(),
            sent: (&self.adapter[1]).into(),
        })
    }

    fn peers_end<'a>(&'a self, sockets: &'a [BorrowedFd<'a>]) -> End<'a> {
        End::Peers(PeersEnd {
            router: &self.router,
            sockets,
            handler: &self.handler,
            received: (&self.peers[0]).into(),
            sent: (&self.peers[1]).into(),
        })
    }

    fn send(&self, packet: &[u8]) {
        let header = if self.vnet_header { &PLAIN_HEADER[..] } else { &[] };
        self.far.send(&[header, packet].concat()).expect("room");
    }

    fn receive(&self) -> Vec<u8> {
        let mut record = vec![0; MAX_RECORD];
        let size = self.far.recv(&mut record).expect("a record");
        record[if self.vnet_header { HEADER_SIZE } else { 0 }..size].to_vec()
    }
}

/// Rings a bell also if the test fails, so that the pump ends.
struct RingAtDrop<'a>(&'a UnixStream);

impl Drop for RingAtDrop<'_> {
    fn drop(&mut self) {
        self.0.write_all(b"!").expect("a bell");
    }
}

/// Return two devices that know each other.
fn devices(vnet_header: bool) -> [Device; 2] {
    let [left, right] = [Device::new(vnet_header), Device::new(vnet_header)];
    left.know(&right, [[1; 32], [2; 32]], [10, 0, 0, 2]);
    right.know(&left, [[2; 32], [1; 32]], [10, 0, 0, 1]);
    [left, right]
}

/// Return an IPv4 packet between two hosts of 10.0.0.0/24. It has no transport that could be coalesced.
fn packet(from: u8, to: u8, size: usize) -> Vec<u8> {
    let mut packet = vec![size as u8; size];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(size as u16).to_be_bytes());
    packet[9] = 253;
    packet[12..20].copy_from_slice(&[10, 0, 0, from, 10, 0, 0, to]);
    packet
}

fn values(counts: &Counts) -> [u64; 4] {
    counts.each_ref().map(|count| count.load(Ordering::Relaxed))
}

#[test]
fn packets_pass_both_ways_between_devices_and_are_counted() {
    for (vnet_header, side) in [(true, Side::Left), (true, Side::Right), (false, Side::Left), (false, Side::Right)] {
        let [left, right] = devices(vnet_header);
        let ended = left.pumping(side, || {
            let ended = right.pumping(side, || {
                for size in [20, 100, 1400] {
                    left.send(&packet(1, 2, size));
                    assert_eq!(right.receive(), packet(1, 2, size));
                    right.send(&packet(2, 1, size));
                    assert_eq!(left.receive(), packet(2, 1, size));
                }
                wait_until(|| values(&left.adapter[1])[0] == 3);
            });
            assert!(matches!(ended, Ended::Bell), "{ended:?}");
        });
        assert!(matches!(ended, Ended::Bell), "{ended:?}");
        for counts in [&left.adapter, &left.peers, &right.adapter, &right.peers].into_iter().flatten() {
            assert_eq!(values(counts), [3, 1520, 3, 0]);
        }
        assert_eq!(left.traffic.notes().tx_bytes, 3 * 32 + 32 + 112 + 1408);
        assert_eq!(left.traffic.notes().tx_bytes, right.traffic.notes().rx_bytes);
        assert_eq!(*left.handler.attended.lock().unwrap(), [(PEER, true)]);
        assert!(left.handler.sent.lock().unwrap().is_empty() && left.handler.received.lock().unwrap().is_empty());
    }
}

#[test]
fn packets_keep_their_order_while_traffic_is_high_and_low_in_turns() {
    let [left, right] = devices(true);
    left.pumping(Side::Left, || {
        right.pumping(Side::Left, || {
            for _ in 0..5 {
                // A burst fits into the buffer of a UDP socket.
                (0..50).for_each(|number| left.send(&packet(1, 2, 1000 + number)));
                (0..50).for_each(|number| right.send(&packet(2, 1, 1000 + number)));
                (0..50).for_each(|number| assert_eq!(right.receive().len(), 1000 + number));
                (0..50).for_each(|number| assert_eq!(left.receive().len(), 1000 + number));
                for _ in 0..100 {
                    left.send(&packet(1, 2, 50));
                    assert_eq!(right.receive(), packet(1, 2, 50));
                    right.send(&packet(2, 1, 50));
                    assert_eq!(left.receive(), packet(2, 1, 50));
                }
            }
        });
    });
}

#[test]
fn records_that_cannot_be_sealed_go_to_the_handler_in_their_format() {
    for vnet_header in [true, false] {
        let device = Device::new(vnet_header);
        device.pumping(Side::Left, || {
            device.send(&packet(1, 9, 60));
            wait_until(|| !device.handler.sent.lock().unwrap().is_empty());
        });
        let header = if vnet_header { &PLAIN_HEADER[..] } else { &[] };
        let record = [header, &packet(1, 9, 60)].concat();
        assert_eq!(*device.handler.sent.lock().unwrap(), [(vec![record], vnet_header)]);
    }
}

#[test]
fn malformed_packets_to_peers_are_dropped_and_counted() {
    let [left, right] = devices(false);
    left.pumping(Side::Left, || {
        right.pumping(Side::Left, || {
            left.send(b"not a packet");
            left.send(&packet(1, 2, 60));
            assert_eq!(right.receive(), packet(1, 2, 60));
        });
    });
    assert_eq!(values(&left.peers[1])[3], 1);
}

#[test]
fn datagrams_without_a_keypair_go_to_the_handler_whose_packets_reach_the_adapter() {
    let [left, right] = devices(false);
    left.pumping(Side::Left, || {
        let target = left.socket.local_addr().expect("an address");
        for size in [30, 10, 40] {
            right.socket.send_to(&packet(2, 1, 40)[..size], target).expect("room");
        }
        assert_eq!(left.receive(), packet(2, 1, 40)[..30]);
        assert_eq!(left.receive(), packet(2, 1, 40));
    });
    let received = left.handler.received.lock().unwrap();
    assert_eq!(received.iter().map(|(datagram, _)| datagram.len()).collect::<Vec<_>>(), [30, 10, 40]);
    assert!(received.iter().all(|(_, arrival)| Some(arrival.source) == right.socket.local_addr().ok()));
    assert_eq!(values(&left.peers[0])[..2], [2, 70]);
}

#[test]
fn exception_of_the_handler_ends_the_pump() {
    let device = Device::new(true);
    device.handler.fails.store(true, Ordering::Relaxed);
    device.send(&packet(1, 9, 60));
    let ended = device.pump(Side::Left);
    assert!(matches!(&ended, Ended::Raised(raised) if raised.to_string() == "it failed"), "{ended:?}");
}

#[test]
fn adapter_that_hung_up_is_the_end_that_failed() {
    for side in [Side::Left, Side::Right] {
        let device = Device::new(true);
        let (source, far) = UnixStream::pair().expect("a pair of sockets");
        drop(far);
        let (sources, sockets) = ([source.as_fd()], [device.socket.as_fd()]);
        let (adapter, peers) = (device.adapter_end(&sources), device.peers_end(&sockets));
        let (left, right) = if side == Side::Left { (&adapter, &peers) } else { (&peers, &adapter) };
        let ended = pump(left, right, &[device.bell.0.as_fd()], &()).expect("threads and pipes");
        assert!(matches!(ended, Ended::Failed(_, failed) if failed == side), "{ended:?}");
    }
}

#[test]
fn peers_of_two_devices_do_not_fit_together() {
    let device = Device::new(true);
    let sockets = [device.socket.as_fd()];
    let peers = device.peers_end(&sockets);
    assert!(matches!(pump(&peers, &peers, &[device.bell.0.as_fd()], &()), Err(Error::Mismatch)));
}
